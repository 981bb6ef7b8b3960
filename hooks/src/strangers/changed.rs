//! What changed in a volume after an instant, by the files' own change times.
//!
//! The search for writers sees who has a file open when it looks; whoever came and went in between leaves a change time.
//! The kernel stamps with a clock that goes by ticks, so the instant must be one of its ticks, and a fresh one.

use std::{
    collections::BTreeSet,
    fs, io,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    thread,
    time::{Duration, SystemTime},
};

use nix::time::{ClockId, clock_gettime};

use crate::mounts;

/// Between two looks at the clock; its ticks are 1 to 10 ms long.
const LOOK: Duration = Duration::from_micros(100);

/// Waits for the next tick of the clock that the kernel stamps changes with, 10 ms at most: whatever was changed before
/// the call has an earlier stamp, whatever is changed from now on has not.
///
/// # Errors
/// When the kernel does not tell the time.
pub fn next_instant() -> io::Result<SystemTime> {
    let before = tick()?;
    loop {
        let now = tick()?;
        if now != before {
            return Ok(now);
        }
        thread::sleep(LOOK);
    }
}

fn tick() -> io::Result<SystemTime> {
    Ok(SystemTime::UNIX_EPOCH + Duration::from(clock_gettime(ClockId::CLOCK_REALTIME_COARSE)?))
}

/// The files and folders below `folder`, itself included, that were changed since `instant`, one of [`next_instant`]'s.
/// Stays on the folder's filesystem.
///
/// # Caveats
/// A store to a page that was writable before leaves no stamp: drain the filesystem, which makes every page
/// write-protected, before the instant. A clock that is set back meanwhile hides changes.
///
/// # Errors
/// When something cannot be read, unless it was removed meanwhile: then its folder has changed.
pub fn changed_since(folder: &Path, instant: SystemTime) -> Result<BTreeSet<PathBuf>, mounts::Error> {
    let since = instant.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    let device = stat(folder)?.map(|about| about.dev());
    let mut left = vec![folder.to_owned()];
    let mut changed = BTreeSet::new();
    while let Some(path) = left.pop() {
        let Some(about) = stat(&path)?.filter(|about| Some(about.dev()) == device) else { continue };
        if about.is_dir() {
            let inside = fs::read_dir(&path).and_then(|entries| entries.map(|entry| Ok(entry?.path())).collect());
            left.append(&mut unless_gone(&path, inside)?.unwrap_or_default());
        }
        let seconds = u64::try_from(about.ctime()).unwrap_or_default();
        let nanoseconds = u32::try_from(about.ctime_nsec()).unwrap_or_default();
        if Duration::new(seconds, nanoseconds) >= since {
            changed.insert(path);
        }
    }
    Ok(changed)
}

fn stat(path: &Path) -> Result<Option<fs::Metadata>, mounts::Error> {
    unless_gone(path, fs::symlink_metadata(path))
}

fn unless_gone<T>(path: &Path, result: io::Result<T>) -> Result<Option<T>, mounts::Error> {
    match result {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        result => result.map(Some).map_err(|source| mounts::Error::Open { path: path.to_owned(), source }),
    }
}
