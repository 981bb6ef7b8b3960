//! What a guard and its caller say to each other: one JSON document a line over a socket pair.
//!
//! Both are the same binary at the same version, so the protocol has no versions; a line is bounded all the same,
//! because a guard that runs out of memory releases nothing.

use std::{fmt, path::PathBuf, time::Duration};

use serde::{Deserialize, Serialize};

/// The longest line that is read.
pub(crate) const MAX_LINE: usize = 1 << 20;

/// What a guard is asked.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) enum Request {
    /// Comes first: what the guard needs to know before it can promise anything.
    Arm(Arm),
    /// Comes once: stop all of it or none.
    Stop(Stop),
    /// The caller lives.
    Heartbeat,
    /// Release, and say whether it was whole.
    Release,
}

/// What a guard needs to know before it can promise anything.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Arm {
    pub(crate) caller: u32,
    pub(crate) journal: PathBuf,
    pub(crate) heartbeat: Duration,
    pub(crate) cgroup_root: PathBuf,
}

/// What is to stand still, and for how long at most.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Stop {
    /// Directories whose filesystems are frozen.
    pub freeze: Vec<PathBuf>,
    /// Cgroups whose processes are paused, before anything is frozen.
    pub pause: Vec<PathBuf>,
    /// Directories whose filesystems are frozen and thawed at once after the pause, so that writes in flight end.
    pub drain: Vec<PathBuf>,
    /// Cgroups that are paused only when a freeze does not complete within [`Self::grace`]: a process that holds it up
    /// and can be interrupted lets go.
    pub rescue: Vec<PathBuf>,
    /// Paths that the caller needs while the writers stand still: what they lie on is not frozen.
    pub protect: Vec<PathBuf>,
    /// How long anything stands still at most, from the first stop on.
    pub max: Duration,
    /// How long a freeze may take before [`Self::rescue`] is paused.
    pub grace: Duration,
    /// How long writing back may take before the stop.
    pub sync: Duration,
}

/// What a guard answers.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) enum Event {
    /// It is ready to stop something, and will release it whatever happens.
    Armed,
    /// It is not, and ends.
    NotArmed(String),
    /// It has come this far.
    Step(Step),
    /// Everything stands still.
    Stopped(Vec<Stopped>),
    /// Nothing stands still, for these reasons.
    NotStopped(Vec<Failure>),
    /// Nothing stands still any more.
    Released(Release),
}

/// How far a stop has come, for whoever watches.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Step {
    /// Looked up and found fit to be stopped.
    Resolved,
    /// The journal says what is about to be stopped.
    Journalled,
    /// Every filesystem was written back.
    Synced,
    /// Every cgroup is paused.
    Paused,
    /// Every filesystem that is to be drained was.
    Drained,
    /// Every filesystem is frozen.
    Frozen,
    /// A freeze did not complete: the cgroups that may hold it up are being paused.
    Rescuing,
    /// The filesystems are thawed.
    Thawed,
    /// The cgroups are resumed.
    Resumed,
}

/// What is stopped.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Kind {
    /// A filesystem, frozen.
    Freeze,
    /// A cgroup, paused.
    Pause,
    /// A cgroup, paused because it may hold up a freeze.
    Rescue,
    /// A filesystem, frozen and thawed at once.
    Drain,
}

/// Something that could not be stopped.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Failure {
    /// The path as it was given, or what was being done.
    pub name: String,
    /// Why, and what to do.
    pub reason: String,
}

/// Something that stands still.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Stopped {
    /// The path as it was given.
    pub name: String,
    /// What it is.
    pub kind: Kind,
    /// How long stopping it took: for a filesystem the time inside the ioctl.
    pub stop_ms: f64,
}

/// Why a guard released.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Reason {
    /// The caller asked.
    Asked,
    /// The caller's end of the socket closed: it dropped the stop, or died.
    CallerGone,
    /// The kernel said that the caller died.
    CallerDied,
    /// The caller gave no sign of life: it is stopped, or starved.
    HeartbeatMissed,
    /// The time was up.
    Deadline,
    /// Somebody asked the guard to end.
    Terminated,
    /// Something could not be stopped.
    NotStopped,
    /// Somebody else resumed what was paused.
    ReleasedByAnother,
    /// The guard itself was killed; its caller released from the journal.
    GuardDied,
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Asked => "the release was asked for",
            Self::CallerGone => "the caller let go, or died",
            Self::CallerDied => "the caller died",
            Self::HeartbeatMissed => "the caller gave no sign of life",
            Self::Deadline => "the time was up",
            Self::Terminated => "the guard was asked to end",
            Self::NotStopped => "not everything could be stopped",
            Self::ReleasedByAnother => "somebody else resumed what was paused",
            Self::GuardDied => "the guard was killed, and what it had stopped was released from the journal",
        })
    }
}

/// What became of one thing that stood still.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Held {
    /// It stood still until it was released.
    Whole,
    /// Somebody else released it earlier.
    ReleasedByAnother,
    /// It was never stopped.
    NeverStopped,
    /// Its freeze is still under way, held up by a writer that cannot be interrupted; it is thawed the moment it
    /// completes.
    StillFreezing,
    /// Releasing it failed.
    Failed(String),
}

/// One thing that stood still.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Released {
    /// The path as it was given.
    pub name: String,
    /// What it is.
    pub kind: Kind,
    /// What became of it.
    pub held: Held,
    /// How long stopping it took: for a filesystem the time inside the ioctl.
    pub stop_ms: f64,
    /// How long releasing it took.
    pub release_ms: f64,
    /// From the beginning of its stop to the end of its release.
    pub window_ms: f64,
}

/// How a stop ended.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Release {
    /// Whether everything stood still from the stop until its release was asked for.
    pub whole: bool,
    /// Why it was released.
    pub reason: Reason,
    /// From the first stop to the last release.
    pub window_ms: f64,
    /// Each thing that stood still.
    pub targets: Vec<Released>,
}

impl Release {
    /// The release of a stop that was not whole and whose guard could not tell more.
    pub(crate) fn lost(reason: Reason) -> Self {
        Self { whole: false, reason, window_ms: 0.0, targets: Vec::new() }
    }
}

/// A duration as reports give it.
pub(crate) fn milliseconds(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1e3
}
