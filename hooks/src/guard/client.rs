//! The caller's side of a guard: values that exist only while an armed guard does.
//!
//! Dropping one closes its socket, which is a reason to release: there is no way to forget what stands still.

mod link;

use std::{
    fmt, io,
    path::PathBuf,
    sync::Arc,
    time::{Duration, Instant},
};

use tokio::time::timeout;

use self::link::Link;
use super::protocol::{Event, Failure, Reason, Release, Request, Step, Stop, Stopped};
use crate::journal;

/// How long a guard may take to be armed.
const ARMED: Duration = Duration::from_secs(10);
/// How long a guard may take to answer a release.
const RELEASED: Duration = Duration::from_secs(10);

/// Why nothing was stopped.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The guard's program could not be started.
    #[error("cannot start the guard {program}: {source}", program = program.display())]
    Start {
        /// The program.
        program: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The guard could not be set apart from this process.
    #[error("the guard is not armed: {0}")]
    NotArmed(String),
    /// The guard ended, or did not answer in time.
    #[error("the guard does not answer: it was killed, or {program} is not Stillpoint's program", program = .0.display())]
    Silent(PathBuf),
    /// Something could not be stopped; whatever had been stopped by then was released.
    #[error("nothing was stopped: {}", list(.0))]
    NotStopped(Vec<Failure>),
}

fn list(failures: &[Failure]) -> String {
    let each = failures.iter().map(|failure| format!("{}: {}", failure.name, failure.reason));
    each.collect::<Vec<_>>().join("; ")
}

/// What is told of each step of a stop, on the thread of the guard.
pub type OnStep = Arc<dyn Fn(Step) + Send + Sync>;

/// How a guard is started.
#[derive(Clone)]
pub struct Config {
    /// The program whose `main` begins with [`super::entry`].
    pub program: PathBuf,
    /// The folder of the journal.
    pub journal: PathBuf,
    /// Where the host's cgroup hierarchies are mounted.
    pub cgroup_root: PathBuf,
    /// How long this process may give no sign of life while something is stopped.
    pub heartbeat: Duration,
    /// Is told of each step of the stop.
    pub on_step: Option<OnStep>,
}

impl Default for Config {
    /// This very program, even where its file was replaced since it was started.
    fn default() -> Self {
        Self {
            program: "/proc/self/exe".into(),
            journal: journal::DEFAULT_FOLDER.into(),
            cgroup_root: "/sys/fs/cgroup".into(),
            heartbeat: Duration::from_millis(750),
            on_step: None,
        }
    }
}

impl fmt::Debug for Config {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { program, journal, cgroup_root, heartbeat, on_step: _ } = self;
        let mut debug = f.debug_struct("Config");
        debug.field("program", program).field("journal", journal);
        debug.field("cgroup_root", cgroup_root).field("heartbeat", heartbeat).finish_non_exhaustive()
    }
}

/// A guard that is armed and has stopped nothing yet.
#[derive(Debug)]
pub struct Guard {
    link: Link,
}

/// Writers that stand still; dropping it releases them.
#[derive(Debug)]
pub struct Held {
    link: Link,
    stopped: Vec<Stopped>,
    since: Instant,
    released: Option<Release>,
}

impl Guard {
    /// Starts a guard and waits until it is armed.
    ///
    /// # Errors
    /// When it cannot be started or set apart from this process.
    pub async fn start(config: &Config) -> Result<Self, Error> {
        let mut link = Link::open(config)?;
        match timeout(ARMED, link.events.recv()).await {
            Ok(Some(Event::Armed)) => Ok(Self { link }),
            Ok(Some(Event::NotArmed(reason))) => Err(Error::NotArmed(reason)),
            _ => Err(Error::Silent(link.program.clone())),
        }
    }

    /// The guard's process id.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.link.pid
    }

    /// Stops everything, or nothing. Dropping the future releases whatever was stopped by then.
    ///
    /// # Errors
    /// What could not be stopped, by name.
    pub async fn stop(mut self, stop: &Stop) -> Result<Held, Error> {
        let limit = stop.sync + stop.max + RELEASED;
        self.link.ask(&Request::Stop(stop.clone()));
        let answer = timeout(limit, self.link.events.recv()).await;
        match answer {
            Ok(Some(Event::Stopped(stopped))) => {
                Ok(Held { link: self.link, stopped, since: Instant::now(), released: None })
            }
            Ok(Some(Event::NotStopped(failures))) => Err(Error::NotStopped(failures)),
            _ => Err(Error::Silent(self.link.program.clone())),
        }
    }
}

impl Held {
    /// What stands still.
    #[must_use]
    pub fn stopped(&self) -> &[Stopped] {
        &self.stopped
    }

    /// Since when this process knows that everything stands still.
    #[must_use]
    pub fn since(&self) -> Instant {
        self.since
    }

    /// The guard's process id.
    #[must_use]
    pub fn guard(&self) -> u32 {
        self.link.pid
    }

    /// Returns when something does not stand still any more; cancel safe.
    pub async fn lost(&mut self) {
        if self.released.is_none() {
            self.released = Some(self.link.released().await);
        }
    }

    /// Releases everything, and says whether it stood still until now.
    pub async fn release(mut self) -> Release {
        if let Some(released) = self.released {
            return released;
        }
        self.link.ask(&Request::Release);
        let released = timeout(RELEASED, self.link.released()).await;
        released.unwrap_or_else(|_| Release::lost(Reason::GuardDied))
    }
}
