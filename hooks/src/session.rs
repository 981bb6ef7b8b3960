//! One quiesce of a set of volumes: pre hooks, stop, the caller's work, release, post hooks.
//!
//! It runs as a task of its own, so that whoever asked for it may go away at any moment: the task still goes through
//! release and post. It knows neither how writers are stopped nor how hooks are run; both are traits, because a stop
//! may be this host's guard or many nodes', and a test's may be neither.
//!
//! # Flow
//! ```text
//! prepare ─ pre, group by group ─ sync ─ stop ─ work ─ release ─ held? ─ post
//! ```
//! # Guarantees
//! - Post runs exactly once if any pre was begun, whatever ended the session: a failure, a panic, a cancellation.
//! - A pod whose pre hook failed is left out of the stop.
//! - Work is dropped as soon as the stop, or a hold, is known to be lost; what it had produced is never reported as whole.
//! # Assumptions
//! - Hooks bound their own time; the other steps are bounded here by [`Limits`].
//! - The runtime outlives the session: a process waits for the tracker that its sessions run on before it ends.

mod drive;

use std::time::Duration;

use tokio::{sync::watch, task::JoinHandle};
use tokio_util::{
    sync::{CancellationToken, DropGuard},
    task::TaskTracker,
};

use self::drive::Run;
use crate::guard::Release;

/// A pod, as `namespace/name`.
pub type Pod = String;

/// A hook that failed, did not end in time, or ended while it was to hold.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HookFailure {
    /// Whose hook it is.
    pub pod: Pod,
    /// What happened, for people.
    pub what: String,
    /// Whether the session must not go on without this pod.
    pub fatal: bool,
}

/// Runs the hooks of one session.
pub trait Hooks: Send + 'static {
    /// How many order groups there are.
    fn groups(&self) -> usize;

    /// Runs the pre hooks and starts the hold hooks of a group, and returns those that failed.
    ///
    /// The future may be dropped at any await: a hook that was started by then counts as started.
    fn pre(&mut self, group: usize) -> impl Future<Output = Vec<HookFailure>> + Send;

    /// Returns when a hold hook that the cut needs does not hold any more; cancel safe. Asked while the writers stand
    /// still.
    fn hold_lost(&mut self) -> impl Future<Output = ()> + Send {
        std::future::pending()
    }

    /// The hold hooks that do not hold any more. Asked once, right after the release.
    fn lost_holds(&mut self) -> Vec<HookFailure>;

    /// Ends what holds and runs the post hook of everything that was started, in reverse order.
    fn post(&mut self) -> impl Future<Output = Vec<HookFailure>> + Send;
}

/// Stops the writers of a set of volumes.
pub trait Stopper: Send + 'static {
    /// Writers that stand still.
    type Held: Held;
    /// Why they do not.
    type Error: std::error::Error + Send + 'static;

    /// Looks everything up and refuses by name what must not be stopped; nothing is held yet.
    fn prepare(&mut self) -> impl Future<Output = Result<(), Self::Error>> + Send;

    /// Leaves the volumes of a pod out of the stop, and says whether any volume is left.
    fn leave_out(&mut self, pod: &Pod) -> bool;

    /// Writes back what is dirty, so that the stop has little left to flush.
    fn sync(&mut self) -> impl Future<Output = Result<(), Self::Error>> + Send;

    /// Stops all writers or none. Dropping the future releases whatever it had stopped.
    fn stop(&mut self) -> impl Future<Output = Result<Self::Held, Self::Error>> + Send;
}

/// Writers that stand still until this is released or dropped.
pub trait Held: Send + 'static {
    /// Returns when the stop has ended before its release; cancel safe.
    fn lost(&mut self) -> impl Future<Output = ()> + Send;

    /// Lets the writers go, and says whether they stood still until now.
    fn release(self) -> impl Future<Output = Release> + Send;
}

/// Where a session is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    /// Looking up and refusing.
    Preparing,
    /// Running the pre hooks of a group.
    Pre(usize),
    /// Writing back.
    Syncing,
    /// Stopping the writers.
    Stopping,
    /// The caller's work runs.
    Held,
    /// Letting the writers go.
    Releasing,
    /// Running the post hooks.
    Posting,
    /// It has ended.
    Done,
}

/// How long the steps may take that no hook bounds.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Looking up and refusing.
    pub prepare: Duration,
    /// Writing back before the stop.
    pub sync: Duration,
    /// Stopping; the guard has a deadline of its own besides.
    pub stop: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self { prepare: Duration::from_secs(60), sync: Duration::from_secs(60), stop: Duration::from_secs(15) }
    }
}

/// How a session ended.
#[derive(Debug)]
pub enum Ended<T, E> {
    /// The work ran to its end while the writers stood still, all of them and all the time.
    Whole(T),
    /// The work ran to its end, but somebody may have written meanwhile.
    NotWhole(T),
    /// The stop, or a hold, ended before the work did, which was dropped.
    Lost,
    /// A step before the stop, or the stop, failed.
    NotStopped(E),
    /// A step took longer than its limit.
    TooLate(State),
    /// A pre hook failed that must not.
    HookFailed,
    /// Every pod was left out: no volume was left to stop.
    NothingLeft,
    /// Whoever asked cancelled it.
    Cancelled,
    /// The work or a step panicked, with this message.
    Panicked(String),
}

/// What a session did.
#[derive(Debug)]
pub struct Report<H, T, E> {
    /// The hooks, with whatever they recorded.
    pub hooks: H,
    /// How it ended.
    pub ended: Ended<T, E>,
    /// The pre and hold hooks that failed; their pods' volumes were left out.
    pub failed: Vec<HookFailure>,
    /// The hold hooks that had ended by the release: with any, the session is not whole.
    pub lost_holds: Vec<HookFailure>,
    /// What the release said, where writers were stopped.
    pub release: Option<Release>,
    /// The post hooks that failed.
    pub post_failed: Vec<HookFailure>,
}

/// A session that runs; dropping it cancels the session, which still releases and runs its post hooks.
#[derive(Debug)]
pub struct Session<H, T, E> {
    task: JoinHandle<Report<H, T, E>>,
    states: watch::Receiver<State>,
    cancel: DropGuard,
}

impl<H: Hooks, T: Send + 'static, E: std::error::Error + Send + 'static> Session<H, T, E> {
    /// Starts a session on `tracker`; `work` begins once the writers stand still.
    pub fn start<S: Stopper<Error = E>>(
        tracker: &TaskTracker,
        hooks: H,
        stopper: S,
        limits: Limits,
        work: impl Future<Output = T> + Send + 'static,
    ) -> Self {
        let (state, states) = watch::channel(State::Preparing);
        let cancel = CancellationToken::new();
        let run = Run { stopper, limits, state, cancel: cancel.clone() };
        let task = tracker.spawn(run.drive(hooks, work));
        Self { task, states, cancel: cancel.drop_guard() }
    }

    /// Where it is, now and from now on.
    pub fn states(&self) -> watch::Receiver<State> {
        self.states.clone()
    }

    /// Waits for its end.
    ///
    /// # Panics
    /// When a post hook panicked.
    pub async fn ended(self) -> Report<H, T, E> {
        let Self { task, cancel, .. } = self;
        let report = task.await.unwrap_or_else(|error| std::panic::resume_unwind(error.into_panic()));
        drop(cancel);
        report
    }

    /// Asks it to end, and waits for that: it releases and runs its post hooks.
    ///
    /// # Panics
    /// When a post hook panicked.
    pub async fn cancel(self) -> Report<H, T, E> {
        let Self { task, cancel, .. } = self;
        drop(cancel);
        task.await.unwrap_or_else(|error| std::panic::resume_unwind(error.into_panic()))
    }
}

#[cfg(test)]
mod tests;
