//! Everything that a guard waits for, in one place: its caller, signals, its threads, the time.
//!
//! The guard's own thread blocks nowhere else, so that whichever reason to release comes first is seen at once.

use std::{
    io::{self, Read, Write},
    os::{fd::AsFd, unix::net::UnixStream},
    sync::{
        Arc,
        mpsc::{self, Receiver},
    },
    time::{Duration, Instant},
};

use nix::{
    poll::{PollFd, PollFlags, PollTimeout, poll},
    sys::{
        eventfd::{EfdFlags, EventFd},
        signal::{SigSet, Signal},
        signalfd::{SfdFlags, SignalFd},
    },
};

use super::{
    protocol::{Event, MAX_LINE, Reason, Request},
    target::{Done, Reports},
};

/// What the kernel sends when the caller died.
pub(crate) const CALLER_DIED: Signal = Signal::SIGUSR2;
/// What else ends a guard; whatever it is, it releases first.
const ENDING: [Signal; 5] = [Signal::SIGTERM, Signal::SIGINT, Signal::SIGHUP, Signal::SIGQUIT, Signal::SIGUSR1];

/// What happened.
#[derive(Debug)]
pub(crate) enum Wake {
    Request(Request),
    /// A reason to release: told once.
    Gone(Reason),
    Worker(usize, Done),
    /// The time that was waited for has come.
    Time,
}

/// Everything that a guard waits for.
pub(crate) struct Inbox {
    socket: UnixStream,
    unread: Vec<u8>,
    signals: SignalFd,
    workers: Receiver<(usize, Done)>,
    reports: Reports,
    /// How long the caller may be silent.
    heartbeat: Duration,
    heard: Instant,
    gone: bool,
}

impl Inbox {
    /// Takes the socket over, and the signals of the whole process: no thread may run yet.
    pub(crate) fn new(socket: UnixStream, heartbeat: Duration) -> io::Result<Self> {
        let mut mask = SigSet::from(CALLER_DIED);
        ENDING.iter().for_each(|signal| mask.add(*signal));
        mask.thread_block()?;
        let signals = SignalFd::with_flags(&mask, SfdFlags::SFD_NONBLOCK | SfdFlags::SFD_CLOEXEC)?;
        let wake = EventFd::from_flags(EfdFlags::EFD_NONBLOCK | EfdFlags::EFD_CLOEXEC)?;
        let (sender, workers) = mpsc::channel();
        socket.set_nonblocking(true)?;
        Ok(Self {
            socket,
            unread: Vec::new(),
            signals,
            workers,
            reports: Reports { sender, wake: Arc::new(wake) },
            heartbeat,
            heard: Instant::now(),
            gone: false,
        })
    }

    /// How long the caller may be silent from now on.
    pub(crate) fn expect_heartbeat(&mut self, heartbeat: Duration) {
        self.heartbeat = heartbeat;
    }

    /// Where this guard's threads report to.
    pub(crate) fn reports(&self) -> Reports {
        self.reports.clone()
    }

    /// Tells the caller, who may be gone: then there is nobody to tell.
    pub(crate) fn tell(&mut self, event: &Event) {
        let Ok(mut line) = serde_json::to_vec(event) else { return };
        line.push(b'\n');
        // a caller that does not read is stopped or gone; a guard never waits for it
        let _ = self.socket.write_all(&line);
    }

    /// Waits for the next thing to happen, until `until` at the latest.
    pub(crate) fn next(&mut self, until: Option<Instant>) -> Wake {
        loop {
            if let Ok((number, done)) = self.workers.try_recv() {
                return Wake::Worker(number, done);
            }
            if !self.gone {
                match self.heed_caller() {
                    Ok(Some(request)) => return Wake::Request(request),
                    Ok(None) => {}
                    Err(reason) => return self.gone(reason),
                }
            }
            if until.is_some_and(|until| Instant::now() >= until) {
                return Wake::Time;
            }
            self.wait(until);
        }
    }

    fn gone(&mut self, reason: Reason) -> Wake {
        self.gone = true;
        Wake::Gone(reason)
    }

    /// The caller's next request, or why it is to be counted as gone.
    fn heed_caller(&mut self) -> Result<Option<Request>, Reason> {
        if let Ok(Some(signal)) = self.signals.read_signal() {
            let died = signal.ssi_signo == CALLER_DIED as u32;
            return Err(if died { Reason::CallerDied } else { Reason::Terminated });
        }
        let open = self.read();
        if let Some(request) = self.next_line()? {
            return Ok(Some(request));
        }
        if !open {
            return Err(Reason::CallerGone);
        }
        if self.heard.elapsed() >= self.heartbeat { Err(Reason::HeartbeatMissed) } else { Ok(None) }
    }

    /// Reads what there is; `false` when the other end is closed.
    fn read(&mut self) -> bool {
        let mut buffer = [0; 4096];
        loop {
            match self.socket.read(&mut buffer) {
                Ok(0) => return false,
                Ok(length) => {
                    self.heard = Instant::now();
                    self.unread.extend_from_slice(&buffer[..length]);
                    if self.unread.len() > MAX_LINE {
                        return false;
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return error.kind() == io::ErrorKind::WouldBlock,
            }
        }
    }

    fn next_line(&mut self) -> Result<Option<Request>, Reason> {
        while let Some(end) = self.unread.iter().position(|byte| *byte == b'\n') {
            let line: Vec<u8> = self.unread.drain(..=end).collect();
            match serde_json::from_slice(&line) {
                Ok(Request::Heartbeat) => {}
                Ok(request) => return Ok(Some(request)),
                Err(_) => return Err(Reason::CallerGone),
            }
        }
        Ok(None)
    }

    fn wait(&self, until: Option<Instant>) {
        let now = Instant::now();
        let until = until.map(|until| until.saturating_duration_since(now));
        let silent = (!self.gone).then(|| (self.heard + self.heartbeat).saturating_duration_since(now));
        let left = [until, silent].into_iter().flatten().min();
        let timeout = left.map_or(PollTimeout::NONE, |left| {
            // rounded up: what is not yet due would be looked at again and again
            let left = left.min(Duration::from_secs(3600)) + Duration::from_micros(999);
            PollTimeout::try_from(left).unwrap_or(PollTimeout::MAX)
        });
        let mut fds = vec![PollFd::new(self.reports.wake.as_fd(), PollFlags::POLLIN)];
        if !self.gone {
            fds.push(PollFd::new(self.signals.as_fd(), PollFlags::POLLIN));
            fds.push(PollFd::new(self.socket.as_fd(), PollFlags::POLLIN));
        }
        // an error shows as nothing having happened, and everything is looked at again
        let _ = poll(&mut fds, timeout);
        let _ = self.reports.wake.read();
    }
}
