//! One thread for each thing that is stopped, which stops it, watches it and releases it.
//!
//! Threads, because a freeze cannot be called off: the guard must never wait inside one itself. A thread that comes
//! back from a freeze finds its next order waiting, which may by then be to release; and when the guard's own thread
//! is gone, the closed channel is that order.

use std::{
    io,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
        mpsc::{self, Receiver, RecvTimeoutError, Sender},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use nix::{errno::Errno, sys::eventfd::EventFd};

use super::protocol::Held;
use crate::{
    mounts::Filesystem,
    pause::{self, Cgroup},
};

/// Between two looks at whether a paused cgroup still stands still.
const LOOK: Duration = Duration::from_millis(20);
/// The guard's memory is locked, stacks included.
const STACK: usize = 256 << 10;

/// Something that can be stopped.
#[derive(Debug)]
pub(crate) enum Subject {
    Filesystem(Filesystem),
    Cgroup(Cgroup),
}

/// What a thread is told to do.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Order {
    Sync,
    /// Freeze and thaw at once.
    Drain,
    /// Stop; a pause must be complete by then.
    Stop(Instant),
    Release,
}

/// What a thread did.
#[derive(Debug)]
pub(crate) enum Done {
    /// An order other than a release was carried out; stopping took this long.
    Answered(Result<Option<Duration>, String>),
    /// What was stopped does not stand still any more.
    Broken,
    Released(Outcome),
}

/// What became of one subject.
#[derive(Debug, Clone)]
pub(crate) struct Outcome {
    pub(crate) held: Held,
    /// When its stop began.
    pub(crate) began: Option<Instant>,
    /// How long stopping took.
    pub(crate) stop: Duration,
    /// How long releasing took.
    pub(crate) release: Duration,
    /// When it was released.
    pub(crate) ended: Instant,
}

/// Where the threads report to, waking the guard.
#[derive(Debug, Clone)]
pub(crate) struct Reports {
    pub(crate) sender: Sender<(usize, Done)>,
    pub(crate) wake: Arc<EventFd>,
}

/// The thread of one subject; dropping it releases the subject.
#[derive(Debug)]
pub(crate) struct Worker {
    orders: Option<Sender<Order>>,
    /// Set when a pause is not to be waited for any more.
    called_off: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Worker {
    pub(crate) fn start(number: usize, subject: Subject, reports: Reports) -> io::Result<Self> {
        let (sender, orders) = mpsc::channel();
        let called_off = Arc::new(AtomicBool::new(false));
        let task = Task {
            number,
            subject,
            orders,
            reports,
            called_off: Arc::clone(&called_off),
            stopped: None,
            drained: None,
            broken: false,
        };
        let thread = thread::Builder::new().name(format!("target-{number}")).stack_size(STACK);
        let thread = thread.spawn(move || task.run())?;
        Ok(Self { orders: Some(sender), called_off, thread: Some(thread) })
    }

    pub(crate) fn order(&self, order: Order) {
        if matches!(order, Order::Release) {
            self.called_off.store(true, Ordering::Relaxed);
        }
        if let Some(orders) = &self.orders {
            // a thread that is gone has released already
            let _ = orders.send(order);
        }
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        self.order(Order::Release);
        self.orders = None;
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// When a stop began and how long it took.
#[derive(Debug, Clone, Copy)]
struct Standing {
    began: Instant,
    took: Duration,
}

struct Task {
    number: usize,
    subject: Subject,
    orders: Receiver<Order>,
    reports: Reports,
    called_off: Arc<AtomicBool>,
    stopped: Option<Standing>,
    /// What came of its drain, which the release tells: it has stood still by then.
    drained: Option<Outcome>,
    broken: bool,
}

impl Task {
    fn run(mut self) {
        loop {
            let done = match self.next_order() {
                Some(Order::Sync) => Done::Answered(self.sync().map(|()| None)),
                Some(Order::Drain) => Done::Answered(self.drain().map(|()| None)),
                Some(Order::Stop(deadline)) => Done::Answered(self.stop(deadline).map(Some)),
                Some(Order::Release) => {
                    let outcome = self.release();
                    return self.report(Done::Released(outcome));
                }
                None => Done::Broken,
            };
            self.report(done);
        }
    }

    /// The next order, or `None` when the subject does not stand still any more.
    fn next_order(&mut self) -> Option<Order> {
        let watched = self.stopped.is_some() && !self.broken && matches!(self.subject, Subject::Cgroup(_));
        if !watched {
            return Some(self.orders.recv().unwrap_or(Order::Release));
        }
        loop {
            match self.orders.recv_timeout(LOOK) {
                Ok(order) => return Some(order),
                Err(RecvTimeoutError::Disconnected) => return Some(Order::Release),
                Err(RecvTimeoutError::Timeout) => {
                    if self.has_broken() {
                        return None;
                    }
                }
            }
        }
    }

    fn report(&self, done: Done) {
        // the guard's own thread is gone: nobody is left to tell
        let _ = self.reports.sender.send((self.number, done));
        let _ = self.reports.wake.write(1);
    }

    fn sync(&self) -> Result<(), String> {
        let Subject::Filesystem(filesystem) = &self.subject else { return Ok(()) };
        rustix::fs::syncfs(&filesystem.directory).map_err(|error| format!("cannot write it back: {error}"))
    }

    fn stop(&mut self, deadline: Instant) -> Result<Duration, String> {
        let began = Instant::now();
        match &mut self.subject {
            Subject::Filesystem(filesystem) => freeze(filesystem)?,
            Subject::Cgroup(cgroup) => {
                let called_off = Arc::clone(&self.called_off);
                let go_on = move || !called_off.load(Ordering::Relaxed);
                cgroup.pause(deadline, &go_on).map_err(|error| error.to_string())?;
            }
        }
        let took = began.elapsed();
        self.stopped = Some(Standing { began, took });
        Ok(took)
    }

    fn drain(&mut self) -> Result<(), String> {
        self.stop(Instant::now())?;
        let outcome = self.release();
        match outcome.held {
            Held::Whole => {
                self.drained = Some(outcome);
                Ok(())
            }
            Held::Failed(reason) => Err(reason),
            _ => Err("somebody thawed it before its writes in flight had ended".to_owned()),
        }
    }

    fn release(&mut self) -> Outcome {
        if let Some(drained) = self.drained.take() {
            return drained;
        }
        let asked = Instant::now();
        let standing = self.stopped.take();
        let held = if standing.is_some() { self.let_go() } else { Held::NeverStopped };
        let ended = Instant::now();
        Outcome {
            held,
            began: standing.map(|standing| standing.began),
            stop: standing.map_or(Duration::ZERO, |standing| standing.took),
            release: ended - asked,
            ended,
        }
    }

    /// Releases what stands still because of us.
    fn let_go(&mut self) -> Held {
        let broken = self.has_broken();
        let released = match &mut self.subject {
            Subject::Filesystem(filesystem) => match stillpoint_sys::thaw(&filesystem.directory) {
                // this thread made the freeze and knows that it was complete: somebody else ended it
                Err(error) if error.raw_os_error() == Some(Errno::EINVAL as i32) => return Held::ReleasedByAnother,
                thawed => thawed.map_err(|error| error.to_string()),
            },
            Subject::Cgroup(cgroup) => cgroup.resume().map_err(|error: pause::Error| error.to_string()),
        };
        match released {
            Ok(()) if broken => Held::ReleasedByAnother,
            Ok(()) => Held::Whole,
            Err(reason) => Held::Failed(reason),
        }
    }

    fn has_broken(&mut self) -> bool {
        if let Subject::Cgroup(cgroup) = &mut self.subject {
            self.broken |= !cgroup.stood_still().unwrap_or(false);
        }
        self.broken
    }
}

fn freeze(filesystem: &Filesystem) -> Result<(), String> {
    stillpoint_sys::freeze(&filesystem.directory).map_err(|error| {
        match Errno::from_raw(error.raw_os_error().unwrap_or(0)) {
            Errno::EBUSY => format!(
                "it was frozen before, by somebody else; `stillpoint thaw {}` thaws it",
                filesystem.mount_point.display()
            ),
            Errno::EOPNOTSUPP => cannot_freeze(&filesystem.kind),
            Errno::EPERM => "freezing needs CAP_SYS_ADMIN: run as root".to_owned(),
            _ => format!("cannot freeze it: {error}"),
        }
    })
}

/// What is said of a kind of filesystem that cannot freeze.
pub(crate) fn cannot_freeze(kind: &str) -> String {
    format!("{kind} cannot freeze: pause the cgroups of its writers instead")
}
