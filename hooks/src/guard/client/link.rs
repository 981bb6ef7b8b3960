//! The socket to a guard, and the thread that starts the guard and lives as long as it.
//!
//! A thread, because the kernel's parent-death signal is the starting *thread's*; and no task of the runtime, because a
//! runtime that is busy must not look dead.

use std::{
    io::{self, Read, Write},
    net::Shutdown,
    os::unix::{net::UnixStream, process::CommandExt},
    path::PathBuf,
    process::{Child, Command, Stdio},
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

use tokio::sync::mpsc;

use super::{Config, Error};
use crate::{
    guard::{
        NAME, isolation,
        protocol::{Arm, Event, MAX_LINE, Reason, Release, Request},
    },
    release,
};

/// Between two signs of life.
const BEAT: Duration = Duration::from_millis(100);

/// The socket to the guard, closed when dropped, and what the guard says.
#[derive(Debug)]
pub(super) struct Link {
    pub(super) program: PathBuf,
    pub(super) pid: u32,
    socket: Arc<UnixStream>,
    pub(super) events: mpsc::UnboundedReceiver<Event>,
}

impl Link {
    pub(super) fn open(config: &Config) -> Result<Self, Error> {
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
    pub(super) fn ask(&self, request: &Request) {
        write(&self.socket, request);
    }

    /// The guard's last word.
    pub(super) async fn released(&mut self) -> Release {
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
