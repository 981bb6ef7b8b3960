//! Releasing what a guard stopped and could not release, from the journal.
//!
//! Used by whoever finds the journal: the caller of a guard that was killed, an agent that starts, an operator at night.
//! What is *ours* is released; what was only *intended* is released where no other guard has it, and said loudly,
//! because it may have been somebody else's.

use std::{
    fmt,
    path::Path,
    sync::mpsc,
    thread,
    time::{Duration, Instant},
};

use nix::{
    errno::Errno,
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use procfs::process::{FDTarget, Process};

use crate::{
    guard::{self, Kind},
    journal::{self, Error, Identity, Left, Target},
    mounts::{self, Filesystem},
    pause::Cgroup,
};

/// How long a thaw may take before it is said that it does not return.
const THAW: Duration = Duration::from_secs(5);
/// How long a guard that was asked to end may take.
const ENDED: Duration = Duration::from_secs(3);
/// Between two looks at it.
const LOOK: Duration = Duration::from_millis(5);

/// Whether guards that live are left alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Living {
    /// They release by themselves.
    LeaveAlone,
    /// They are asked to end, and release; their callers are told that their stop was not whole.
    End,
}

/// What was found, and what became of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Found {
    /// The path as it was given to the guard.
    pub name: String,
    /// What it is.
    pub kind: Kind,
    /// What became of it.
    pub what: What,
}

/// What became of something in the journal.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum What {
    /// It stood still, and was released.
    Released,
    /// It stood still, and was released, though the journal does not say that it was a guard that stopped it.
    ReleasedUnsure,
    /// It did not stand still.
    WasNotStopped,
    /// Its guard was asked to end, and has released it.
    ReleasedByGuard(u32),
    /// A guard that lives has it.
    HeldByGuard(u32),
    /// It is not there any more.
    Gone(String),
    /// It could not be released.
    Failed(String),
}

impl What {
    /// Whether it may still stand still.
    #[must_use]
    pub fn may_stand(&self) -> bool {
        matches!(self, Self::HeldByGuard(_) | Self::Failed(_))
    }
}

impl fmt::Display for What {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Released => f.write_str("released"),
            Self::ReleasedUnsure => f.write_str("released, though the journal does not say whether it was ours"),
            Self::WasNotStopped => f.write_str("was not stopped"),
            Self::ReleasedByGuard(pid) => write!(f, "released by its guard, process {pid}, which was asked to end"),
            Self::HeldByGuard(pid) => write!(f, "held by a guard that lives, process {pid}"),
            Self::Gone(why) => write!(f, "gone: {why}"),
            Self::Failed(why) => write!(f, "may still stand still: {why}"),
        }
    }
}

/// Releases everything that the journal in `folder` names.
///
/// # Errors
/// When the journal cannot be read. A file of it that cannot be read is an item of its own.
pub fn all(folder: &Path, living: Living) -> Result<Vec<Result<Found, Error>>, Error> {
    let boot = journal::boot()?;
    let mut found = Vec::new();
    for left in journal::left(folder)? {
        match left {
            Ok(left) => found.extend(one(folder, left, living, &boot).into_iter().map(Ok)),
            Err(error) => found.push(Err(error)),
        }
    }
    Ok(found)
}

/// Releases what the killed guard `pid` had stopped, even while a freeze of it is under way.
pub(crate) fn of_guard(folder: &Path, pid: u32) -> Vec<Found> {
    let left = journal::left(folder).unwrap_or_default().into_iter().filter_map(Result::ok);
    left.filter(|left| left.intent.guard == pid).flat_map(|left| release(folder, &left)).collect()
}

/// Thaws the filesystem that `path` is on, whoever froze it, or resumes the cgroup that it is.
///
/// # Errors
/// When it cannot be found.
pub fn path(path: &Path) -> Result<Found, mounts::Error> {
    let found = |kind, what| Found { name: path.display().to_string(), kind, what };
    if let Ok(mut cgroup) = Cgroup::open(path) {
        return Ok(found(Kind::Pause, resume(&mut cgroup)));
    }
    Ok(found(Kind::Freeze, thaw(mounts::of(path)?)))
}

fn one(folder: &Path, left: Left, living: Living, boot: &str) -> Vec<Found> {
    if left.intent.boot != boot {
        // nothing stays stopped over a restart of the machine; what cannot be removed is found again
        let _ = left.remove();
        return Vec::new();
    }
    if left.lock.is_some() {
        return release(folder, &left);
    }
    if living == Living::LeaveAlone {
        return of_all(&left, &What::HeldByGuard(left.intent.guard));
    }
    end(folder, &left)
}

/// Asks a living guard to end. One that cannot, because it is stopped itself, is not waited for any longer.
fn end(folder: &Path, left: &Left) -> Vec<Found> {
    let guard = left.intent.guard;
    for signal in [Signal::SIGTERM, Signal::SIGCONT] {
        if let Some(pid) = holder(&left.path) {
            let _ = kill(pid, signal);
        }
    }
    let deadline = Instant::now() + ENDED;
    while Instant::now() < deadline {
        match journal::read(&left.path) {
            Ok(None) => return of_all(left, &What::ReleasedByGuard(guard)),
            Ok(Some(now)) if now.lock.is_some() => return release(folder, &now),
            _ => thread::sleep(LOOK),
        }
    }
    release(folder, left)
}

/// The guard that has a journal open. The process id in the journal is its namespace's, perhaps not this one's.
fn holder(journal: &Path) -> Option<Pid> {
    let processes = procfs::process::all_processes().into_iter().flatten().filter_map(Result::ok);
    let mut guards = processes
        .filter(|process| process.cmdline().is_ok_and(|words| words.first().is_some_and(|name| name == guard::NAME)));
    let holds = |target: &FDTarget| matches!(target, FDTarget::Path(path) if path == journal);
    let has_open = |process: &Process| process.fd().into_iter().flatten().flatten().any(|fd| holds(&fd.target));
    guards.find(has_open).map(|process| Pid::from_raw(process.pid))
}

fn of_all(left: &Left, what: &What) -> Vec<Found> {
    left.open.iter().map(|(number, _)| found(&left.intent.targets[*number], what.clone())).collect()
}

fn found(target: &Target, what: What) -> Found {
    Found { name: target.path.display().to_string(), kind: target.kind, what }
}

/// Releases what is open, filesystems first, and removes the journal when nothing is left to do.
fn release(folder: &Path, left: &Left) -> Vec<Found> {
    let mut results = Vec::new();
    for cgroups in [false, true] {
        for (number, ours) in &left.open {
            let target = &left.intent.targets[*number];
            if matches!(target.identity, Identity::Cgroup { .. }) == cgroups {
                results.push(found(target, release_target(folder, left, target, *ours)));
            }
        }
    }
    // while it is locked, a freeze may still be under way
    let still = left.lock.is_none() || results.iter().any(|found| found.what.may_stand());
    if !still {
        // found again, and nothing to do then, where it cannot be removed
        let _ = left.remove();
    }
    results
}

fn release_target(folder: &Path, left: &Left, target: &Target, ours: bool) -> What {
    if !ours && let Some(guard) = other_owner(folder, left, target) {
        return What::HeldByGuard(guard);
    }
    let what = match &target.identity {
        // another filesystem may have been given the device since: the UUID tells
        Identity::Filesystem { device, kind, uuid } => match mounts::of_device(device, kind, uuid.as_deref()) {
            Some(filesystem) => thaw(filesystem),
            None => What::Gone(format!(
                "the {kind} on device {device} is mounted nowhere; if it is still frozen, mount it again and run \
                 `stillpoint thaw` on it"
            )),
        },
        Identity::Cgroup { inode } => match Cgroup::open(&target.path) {
            Ok(mut cgroup) if cgroup.inode() == *inode => resume(&mut cgroup),
            _ => What::Gone("the cgroup was removed".to_owned()),
        },
    };
    match what {
        What::Released if !ours => What::ReleasedUnsure,
        what => what,
    }
}

/// The guard of another journal that has the same thing.
fn other_owner(folder: &Path, left: &Left, target: &Target) -> Option<u32> {
    let others = journal::left(folder).ok()?.into_iter().filter_map(Result::ok);
    let has =
        |other: &Left| other.open.iter().any(|(number, _)| other.intent.targets[*number].identity == target.identity);
    let mut owners = others.filter(|other| other.path != left.path && other.lock.is_none() && has(other));
    owners.next().map(|other| other.intent.guard)
}

/// Thaws on a thread of its own: the call waits for a freeze that is being completed.
fn thaw(filesystem: Filesystem) -> What {
    let (sender, receiver) = mpsc::channel();
    let call = move || sender.send(stillpoint_sys::thaw(&filesystem.directory));
    if let Err(error) = thread::Builder::new().name("thaw".to_owned()).spawn(call) {
        return What::Failed(format!("cannot start a thread: {error}"));
    }
    match receiver.recv_timeout(THAW) {
        Ok(Ok(())) => What::Released,
        Ok(Err(error)) if error.raw_os_error() == Some(Errno::EINVAL as i32) => What::WasNotStopped,
        Ok(Err(error)) => What::Failed(format!("cannot thaw it: {error}")),
        Err(_) => What::Failed("the thaw does not return".to_owned()),
    }
}

fn resume(cgroup: &mut Cgroup) -> What {
    match cgroup.is_paused() {
        Ok(false) => What::WasNotStopped,
        Ok(true) => cgroup.resume().map_or_else(|error| What::Failed(error.to_string()), |()| What::Released),
        Err(error) => What::Failed(error.to_string()),
    }
}
