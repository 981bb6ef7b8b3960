//! The process that stops writers and always lets them go.
//!
//! A freeze outlives whoever made it, so it must be made by a process that does nothing else, that what ends its caller
//! does not end, and that its caller cannot forget. It is this program's own binary, run again; [`entry`] must be the
//! first statement of `main`.
//!
//! # Flow
//! ```text
//! caller                          guard
//! Guard::start ── exec, arm ────▶ own session, own cgroups, locked memory, parent-death signal
//! Guard::stop ─── stop ─────────▶ look up, refuse, journal: intent, syncfs ─ pause ─ drain ─ freeze
//! Held ◀───────── stopped ─────── journal: ours
//!   heartbeats ─────────────────▶ released on the first of: asked, socket closed, parent died,
//! Held::release ─ release ──────▶ heartbeat missed, deadline, a signal to end
//! Release ◀────── released ────── thaw ─ resume ─ journal: done
//! ```
//! # Guarantees
//! - Everything is stopped or nothing is. [`Held`] exists only while an armed guard does, and releases when dropped.
//! - A release says whether the stop was whole: the guard's own thaw succeeded, no cgroup was resumed, no deadline
//!   fired. Anything else, a lost answer too, is not whole.
//! - When the guard is killed, its caller releases from the journal; when both are, the next reader of the journal does.
//! # Caveats
//! - A freeze under way cannot be called off. One that a writer holds up, and that pausing [`Stop::rescue`] does not
//!   end, is thawed the moment it completes; the guard stays for that.
//! - Where the caller has its own process id namespace, that namespace's end kills the guard too: run with the host's.

mod client;
mod dummy;
mod inbox;
mod isolation;
mod plan;
mod process;
mod protocol;
mod self_test;
mod target;

use std::{
    os::{
        fd::{AsFd, OwnedFd},
        unix::net::UnixStream,
    },
    path::{Path, PathBuf},
    process::ExitCode,
};

use crate::enter;

pub use client::{Config, Error, Guard, Held, OnStep};
pub(crate) use isolation::freezers;
pub use protocol::{Failure, Held as Outcome, Kind, Reason, Release, Released, Step, Stop, Stopped};
pub use self_test::{SelfTestError, self_test};
pub(crate) use target::cannot_freeze;

/// What the guard is called in a list of processes, and what makes this program one.
pub(crate) const NAME: &str = "stillpoint-guard";

/// Runs this process to its end as a guard, as the caller in a guard's self-test, or as what enters a container for a
/// hook, if that is what it was started for.
///
/// # Assumptions
/// It is the first statement of `main`: no thread runs and nothing is open that a guard should not hold.
#[must_use]
pub fn entry() -> Option<ExitCode> {
    let mut arguments = std::env::args_os();
    let name = arguments.next()?;
    if name == enter::NAME {
        return Some(enter::serve(arguments));
    }
    if name != NAME {
        return None;
    }
    if arguments.next().is_some_and(|argument| argument == dummy::ARGUMENT) {
        return Some(dummy::serve());
    }
    let socket = std::io::stdin().as_fd().try_clone_to_owned().ok()?;
    Some(serve(socket))
}

/// Serves the caller at the other end of `socket` to the end.
#[must_use]
pub fn serve(socket: OwnedFd) -> ExitCode {
    process::serve(UnixStream::from(socket))
}

/// Looks up what is to be stopped and says by name what is refused; nothing is stopped.
///
/// # Errors
/// Everything that is refused.
pub fn check(stop: &Stop, journal: &Path) -> Result<Vec<PathBuf>, Vec<Failure>> {
    let plan = plan::Plan::resolve(stop, std::process::id(), journal)?;
    Ok(plan.targets.into_iter().map(|target| target.path).collect())
}
