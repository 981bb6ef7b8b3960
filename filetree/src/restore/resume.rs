//! Finds out which files an interrupted restore completed.
//!
//! A file's time of change is set after everything else, so the right size and time say that all of it is there.

use std::{io, os::fd::OwnedFd, path::Path};

use rustix::fs::{AtFlags, CWD, FileType, Mode, OFlags, openat, statat};

use super::{
    attributes,
    directories::Directories,
    entries::{Content, Entries, Entry, Kind},
    target::Start,
};

/// By number, whether an entry is a file that need not be written.
pub(super) fn complete(target: &Path, start: Start, entries: &Entries) -> io::Result<Vec<bool>> {
    if start == Start::Fresh {
        return Ok(vec![false; entries.len()]);
    }
    let root: OwnedFd = openat(CWD, target, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
    let directories = Directories::new(root);
    Ok(entries.iter().map(|(_, entry)| is_complete(&directories, entries, entry)).collect())
}

fn is_complete(directories: &Directories, entries: &Entries, entry: &Entry) -> bool {
    let Kind::File(content) = &entry.kind else { return false };
    let Ok(parent) = directories.open(entries, entry.parent) else { return false };
    statat(&*parent, entries.name(entry), AtFlags::SYMLINK_NOFOLLOW).is_ok_and(|stat| fits(&stat, entry, content))
}

fn fits(stat: &rustix::fs::Stat, entry: &Entry, content: &Content) -> bool {
    let modified = attributes::timespec(entry.attributes.modified);
    FileType::from_raw_mode(stat.st_mode) == FileType::RegularFile
        && u64::try_from(stat.st_size) == Ok(content.size)
        && i128::from(stat.st_mtime) == i128::from(modified.tv_sec)
        && i128::from(stat.st_mtime_nsec) == i128::from(modified.tv_nsec)
}
