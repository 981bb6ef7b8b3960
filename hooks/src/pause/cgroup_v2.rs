//! The freezer of cgroups' second generation: `cgroup.freeze`, and `cgroup.events` which tells.
//!
//! The kernel marks the events file whenever the cgroup stops or goes on, so that a resume between two looks leaves a
//! trace even when somebody paused it again.

use std::{
    fs::File,
    io::{self, Read, Seek},
    os::fd::AsFd,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use super::{Error, read, write};

pub(super) const FREEZE: &str = "cgroup.freeze";
const EVENTS: &str = "cgroup.events";
/// How long it takes at most to see that the pause was called off.
const LOOK: Duration = Duration::from_millis(10);
/// The kernel tells of a change up to 10 ms late when there was another just before: what is told this soon after the
/// pause may be the pause itself.
const ECHO: Duration = Duration::from_millis(30);

#[derive(Debug)]
pub(super) struct Files {
    freeze: PathBuf,
    events: File,
    path: PathBuf,
    populated: bool,
    paused: Option<Instant>,
}

/// What the events file says.
#[derive(Debug, Clone, Copy)]
struct Events {
    frozen: bool,
    populated: bool,
}

impl Files {
    pub(super) fn open(path: &Path) -> Result<Self, Error> {
        let events_path = path.join(EVENTS);
        let events = File::open(&events_path).map_err(|source| Error::File { path: events_path.clone(), source })?;
        Ok(Self { freeze: path.join(FREEZE), events, path: events_path, populated: false, paused: None })
    }

    /// Frozen by its own file, or by a cgroup above.
    pub(super) fn is_paused(&self) -> Result<bool, Error> {
        let above = read(&self.path)?.lines().any(|line| line == "frozen 1");
        Ok(above || read(&self.freeze)?.trim() == "1")
    }

    pub(super) fn pause(&mut self, deadline: Instant, go_on: &dyn Fn() -> bool) -> Result<bool, Error> {
        self.read()?;
        write(&self.freeze, "1")?;
        loop {
            let events = self.read()?;
            if events.frozen {
                self.populated = events.populated;
                self.paused = Some(Instant::now());
                return Ok(true);
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() || !go_on() {
                return Ok(false);
            }
            self.changed(left.min(LOOK))?;
        }
    }

    /// A change that leaves it frozen, and as populated as before, was a resume and another pause.
    pub(super) fn stood_still(&mut self) -> Result<bool, Error> {
        if !self.changed(Duration::ZERO)? {
            return Ok(true);
        }
        let events = self.read()?;
        let emptied = events.populated != self.populated;
        let echo = self.paused.is_some_and(|paused| paused.elapsed() < ECHO);
        self.populated = events.populated;
        Ok(events.frozen && (emptied || echo))
    }

    pub(super) fn resume(&mut self) -> Result<(), Error> {
        write(&self.freeze, "0")
    }

    fn changed(&self, wait: Duration) -> Result<bool, Error> {
        let timeout = PollTimeout::try_from(wait).unwrap_or(PollTimeout::ZERO);
        let mut fds = [PollFd::new(self.events.as_fd(), PollFlags::POLLPRI)];
        let ready = poll(&mut fds, timeout).map_err(|source| self.error(source.into()))?;
        Ok(ready > 0)
    }

    fn read(&mut self) -> Result<Events, Error> {
        let mut text = String::new();
        self.events
            .rewind()
            .and_then(|()| self.events.read_to_string(&mut text))
            .map_err(|source| self.error(source))?;
        let says = |what: &str| text.lines().any(|line| line == what);
        Ok(Events { frozen: says("frozen 1"), populated: says("populated 1") })
    }

    fn error(&self, source: io::Error) -> Error {
        Error::File { path: self.path.clone(), source }
    }
}
