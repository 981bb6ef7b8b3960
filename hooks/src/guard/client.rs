//! The caller's side of a guard: values that exist only while an armed guard does.
//!
//! A thread of its own starts the guard, shows it that this process lives, and reads its answers. It lives as long as
//! the guard, because the kernel's parent-death signal is the starting *thread's*, and it is no task of the runtime,
//! because a runtime that is busy must not look dead.

use std::{
    fmt, io,
    io::{Read, Write},
    net::Shutdown,
    os::unix::{net::UnixStream, process::CommandExt},
    path::PathBuf,
    process::{Child, Command, Stdio},
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

use tokio::{sync::mpsc, time::timeout};

use super::{
    NAME, isolation,
    protocol::{Arm, Event, Failure, MAX_LINE, Reason, Release, Request, Step, Stop, Stopped},
};
use crate::{journal, release};

/// Between two signs of life.
const BEAT: Duration = Duration::from_millis(100);
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

/// The socket to the guard, closed when dropped, and what the guard says.
#[derive(Debug)]
struct Link {
    program: PathBuf,
    pid: u32,
    socket: Arc<UnixStream>,
    events: mpsc::UnboundedReceiver<Event>,
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

impl Link {
    fn open(config: &Config) -> Result<Self, Error> {
        let error = |source| Error::Start { program: config.program.clone(), source };
        let (ours, theirs) = UnixStream::pair().map_err(error)?;
        ours.set_read_timeout(Some(BEAT)).map_err(error)?;
        ours.set_write_timeout(Some(BEAT)).map_err(error)?;
        let socket = Arc::new(ours);
        let (events_in, events) = mpsc::unbounded_channel();
        let (started, start) = std::sync::mpsc::sync_channel(1);
        let thread = thread::Builder::new().name("guard".to_owned());
        let (config_of_thread, socket_of_thread) = (config.clone(), Arc::clone(&socket));
        let run = move || {
            let spawned = spawn(&config_of_thread, theirs);
            // the receiver waits for this one message
            let child = match spawned {
                Ok(child) => child,
                Err(error) => return drop(started.send(Err(error))),
            };
            let _ = started.send(Ok(child.id()));
            Thread { child, socket: socket_of_thread, events: events_in, config: config_of_thread }.run();
        };
        thread.spawn(run).map_err(error)?;
        let pid = start.recv().unwrap_or_else(|gone| Err(io::Error::other(gone))).map_err(error)?;
        let link = Self { program: config.program.clone(), pid, socket, events };
        link.ask(&Request::Arm(Arm {
            caller: std::process::id(),
            journal: config.journal.clone(),
            heartbeat: config.heartbeat,
            cgroup_root: config.cgroup_root.clone(),
        }));
        Ok(link)
    }

    /// A request that does not arrive shows by the answer that does not.
    fn ask(&self, request: &Request) {
        write(&self.socket, request);
    }

    /// The guard's last word.
    async fn released(&mut self) -> Release {
        loop {
            match self.events.recv().await {
                Some(Event::Released(release)) => return release,
                Some(_) => {}
                None => return Release::lost(Reason::GuardDied),
            }
        }
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        // the guard sees its end closed and releases; the thread goes on until the guard has ended
        let _ = self.socket.shutdown(Shutdown::Write);
    }
}

fn spawn(config: &Config, socket: UnixStream) -> io::Result<Child> {
    let mut command = Command::new(&config.program);
    command.arg0(NAME).current_dir("/");
    command.stdin(Stdio::from(std::os::fd::OwnedFd::from(socket))).stdout(Stdio::null()).stderr(Stdio::null());
    command.spawn()
}

/// One write a line: requests and signs of life come from two threads.
fn write(mut socket: &UnixStream, request: &Request) {
    let Ok(mut line) = serde_json::to_vec(request) else { return };
    line.push(b'\n');
    let _ = socket.write_all(&line);
}

/// The thread that lives as long as the guard.
struct Thread {
    child: Child,
    socket: Arc<UnixStream>,
    events: mpsc::UnboundedSender<Event>,
    config: Config,
}

impl Thread {
    fn run(mut self) {
        let released = self.pass_on();
        if !released {
            self.release_in_its_place();
        }
        // reaped only when every thread of it is gone, a freeze that cannot be called off included
        let _ = self.child.wait();
        if !released {
            self.release_in_its_place();
            isolation::remove_cgroups(&self.config.cgroup_root);
        }
    }

    /// Passes the guard's answers on until it ends; `true` when it has said that nothing stands still any more.
    fn pass_on(&mut self) -> bool {
        let mut unread = Vec::new();
        let mut buffer = [0; 4096];
        let mut beaten = Instant::now();
        let mut released = false;
        loop {
            match (&*self.socket).read(&mut buffer) {
                Ok(0) => return released,
                Ok(length) => unread.extend_from_slice(&buffer[..length]),
                Err(error) if is_pause(&error) => {}
                Err(_) => return released,
            }
            while let Some(end) = unread.iter().position(|byte| *byte == b'\n') {
                let line: Vec<u8> = unread.drain(..=end).collect();
                let Ok(event) = serde_json::from_slice(&line) else { return released };
                released |= self.pass(event);
            }
            if unread.len() > MAX_LINE {
                return released;
            }
            if beaten.elapsed() >= BEAT {
                write(&self.socket, &Request::Heartbeat);
                beaten = Instant::now();
            }
        }
    }

    fn pass(&self, event: Event) -> bool {
        if let Event::Step(step) = event {
            if let Some(on_step) = &self.config.on_step {
                on_step(step);
            }
            return false;
        }
        let released = matches!(event, Event::Released(_) | Event::NotStopped(_) | Event::NotArmed(_));
        // whoever asked may have dropped its end
        let _ = self.events.send(event);
        released
    }

    /// The guard was killed: what it had stopped is in the journal.
    fn release_in_its_place(&self) {
        for found in release::of_guard(&self.config.journal, self.child.id()) {
            tracing::warn!(target = %found.name, outcome = %found.what, "released in place of the guard, which was killed");
        }
        let _ = self.events.send(Event::Released(Release::lost(Reason::GuardDied)));
    }
}

fn is_pause(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut | io::ErrorKind::Interrupted)
}
