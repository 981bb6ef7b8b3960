//! What all files of some directories looked like in one walk, as a compact table.
//!
//! Forty-eight bytes a file and no names: it is held in memory while a volume is read, and asked while the volume's writers
//! stand still.

use std::{
    ffi::{OsStr, OsString},
    os::{
        fd::{AsFd, OwnedFd},
        unix::ffi::OsStrExt,
    },
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use jiff::{SignedDuration, Timestamp};
use rustix::{
    fs::{self, Dir, FileType, Mode, OFlags, Statx, StatxTimestamp},
    io::Errno,
};
use stillpoint_repository::NodeKind;

use super::{node, parent::GRAIN, selection::Selection, walk};

/// What a file looks like.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Look {
    device: u64,
    inode: u64,
    size: u64,
    /// Nanoseconds since 1970.
    mtime: i64,
    ctime: i64,
}

impl Look {
    /// None where a time is beyond what fits, in the years 1677 to 2262: such a file is never taken as unchanged.
    fn of(stat: &Statx) -> Option<Self> {
        let nanoseconds =
            |stamp: &StatxTimestamp| stamp.tv_sec.checked_mul(1_000_000_000)?.checked_add(i64::from(stamp.tv_nsec));
        Some(Self {
            device: fs::makedev(stat.stx_dev_major, stat.stx_dev_minor),
            inode: stat.stx_ino,
            size: stat.stx_size,
            mtime: nanoseconds(&stat.stx_mtime)?,
            ctime: nanoseconds(&stat.stx_ctime)?,
        })
    }
}

/// A file that was looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Seen {
    look: Look,
    /// Bytes that are not in holes, about. Some filesystems change their mind about it, so it says nothing of a change.
    data: u64,
}

impl Seen {
    fn of(stat: &Statx) -> Option<Self> {
        let data = stat.stx_blocks.saturating_mul(512).min(stat.stx_size);
        Some(Self { look: Look::of(stat)?, data })
    }
}

/// What all files looked like.
#[derive(Debug)]
pub(super) struct Stats {
    files: Vec<Seen>,
    trusted_before: i64,
    /// How long the walk took.
    pub(super) took: Duration,
}

/// What is to be read again.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Changed {
    pub(super) files: u64,
    pub(super) bytes: u64,
}

impl Stats {
    /// Walks the directory of `selection`; what cannot be looked at is left out, and so read in any case. Blocks; gives
    /// nothing if it was stopped.
    pub(super) fn take(selection: &Selection, stopped: &AtomicBool) -> Result<Option<Self>, Errno> {
        let (began, started) = (Timestamp::now(), Instant::now());
        let mut files = Vec::new();
        let Some(root) = &selection.root else { return Ok(None) };
        let mut folders = vec![(root.clone(), OsString::from("."))];
        while let Some((parent, name)) = folders.pop() {
            if stopped.load(Ordering::Relaxed) {
                return Ok(None);
            }
            match open(&parent, &name) {
                Ok(folder) => look_into(&Arc::new(folder), &mut files, &mut folders),
                // gone, or not ours to read: the reading walk says so by name
                Err(_) if name != "." => {}
                Err(error) => return Err(error),
            }
        }
        files.sort_unstable();
        files.dedup_by_key(|file| file.look);
        files.shrink_to_fit();
        Ok(Some(Self { files, trusted_before: nanoseconds(began - GRAIN), took: started.elapsed() }))
    }

    /// Whether a file looks as it did, and its last change was well before the walk.
    pub(super) fn has(&self, stat: &Statx) -> bool {
        Look::of(stat).is_some_and(|look| self.trusts(&look))
    }

    fn trusts(&self, look: &Look) -> bool {
        let is_old = look.mtime < self.trusted_before && look.ctime < self.trusted_before;
        is_old && self.files.binary_search_by_key(look, |file| file.look).is_ok()
    }

    /// What is to be read again, for all that `self` knows, after a walk before it.
    pub(super) fn changed_since(&self, before: &Self) -> Changed {
        let changed = self.files.iter().filter(|file| !before.trusts(&file.look));
        changed.fold(Changed::default(), |sum, file| Changed { files: sum.files + 1, bytes: sum.bytes + file.data })
    }

    /// Bytes of all files, without those in holes.
    pub(super) fn bytes(&self) -> u64 {
        self.files.iter().map(|file| file.data).sum()
    }
}

fn nanoseconds(time: Timestamp) -> i64 {
    let since = time.duration_since(Timestamp::UNIX_EPOCH);
    i64::try_from(SignedDuration::as_nanos(&since)).unwrap_or(i64::MAX)
}

fn open(folder: impl AsFd, name: &OsStr) -> Result<OwnedFd, Errno> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    fs::openat(folder, name, flags, Mode::empty())
}

fn look_into(folder: &Arc<OwnedFd>, files: &mut Vec<Seen>, folders: &mut Vec<(Arc<OwnedFd>, OsString)>) {
    let Ok(entries) = Dir::read_from(folder) else { return };
    for entry in entries.flatten() {
        let name = entry.file_name();
        let is_wanted = matches!(entry.file_type(), FileType::Directory | FileType::RegularFile | FileType::Unknown);
        if !is_wanted || name == c"." || name == c".." {
            continue;
        }
        let name = OsStr::from_bytes(name.to_bytes());
        let Ok(stat) = node::stat(folder, name) else { continue };
        match node::kind(&stat) {
            NodeKind::File => files.extend(Seen::of(&stat)),
            NodeKind::Dir if !walk::is_mount(&stat) => folders.push((folder.clone(), name.to_owned())),
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn take(folder: &std::path::Path) -> Stats {
        let directory = std::fs::File::open(folder).unwrap().into();
        let selection = Selection::of_directory(directory, &[]).unwrap();
        Stats::take(&selection, &AtomicBool::new(false)).unwrap().unwrap()
    }

    /// As if the walk had been long after what was written before it.
    fn later(mut stats: Stats) -> Stats {
        stats.trusted_before = i64::MAX;
        stats
    }

    #[test]
    fn what_was_written_since_or_just_before_is_to_be_read_again() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(folder.path().join("a/b")).unwrap();
        for name in ["a/b/one", "a/two", "three"] {
            std::fs::write(folder.path().join(name), "12345").unwrap();
        }
        let before = take(folder.path());
        assert_eq!(before.files.len(), 3);
        assert_eq!(
            take(folder.path()).changed_since(&before),
            Changed { files: 3, bytes: 15 },
            "too fresh to be trusted"
        );
        let before = later(before);
        assert_eq!(take(folder.path()).changed_since(&before), Changed::default());
        std::fs::write(folder.path().join("a/two"), "1234567").unwrap();
        std::fs::write(folder.path().join("four"), "1").unwrap();
        std::fs::remove_file(folder.path().join("three")).unwrap();
        assert_eq!(take(folder.path()).changed_since(&before), Changed { files: 2, bytes: 8 });
    }

    #[test]
    fn a_walk_that_was_stopped_gives_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let selection = Selection::of_directory(std::fs::File::open(folder.path()).unwrap().into(), &[]).unwrap();
        assert!(Stats::take(&selection, &AtomicBool::new(true)).unwrap().is_none());
    }
}
