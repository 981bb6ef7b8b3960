//! Looks up what the choice of a method depends on.
//!
//! The guard is asked whether it would freeze the volume, by the very check that it makes before it does: there must not
//! be two opinions on what stops a node.

use std::{
    fmt, fs,
    os::{
        fd::{AsFd, AsRawFd},
        unix::fs::MetadataExt,
    },
    path::Path,
};

use stillpoint_filetree::backup::{OWN_PREFIX, clones, tree};
use stillpoint_hooks::{
    guard::{self, Stop},
    mounts, strangers,
};

use super::{Error, Facts, Settings, Volume};

/// What is known of a volume.
///
/// # Errors
/// [`Error::Look`] or [`Error::Copy`] if it cannot be looked at.
pub async fn look(volume: &Volume, settings: &Settings) -> Result<Facts, Error> {
    let seen = volume.clone();
    let (protect, journal) = (settings.drain.protect.clone(), settings.guard.journal.clone());
    let spool = settings.spool.clone();
    let stopped = || Error::Stopped { volume: volume.name.clone() };
    let look = move || {
        let protect = protect.into_iter().chain([spool]).collect();
        look_now(&seen, Stop { protect, ..Stop::default() }, &journal)
    };
    tokio::task::spawn_blocking(look).await.map_err(|_| stopped())?
}

fn look_now(volume: &Volume, stop: Stop, journal: &Path) -> Result<Facts, Error> {
    let at = |source| Error::Look { volume: volume.name.clone(), source };
    let filesystem = mounts::of(&volume.path).map_err(at)?.kind;
    let asked = guard::check(&Stop { freeze: vec![volume.path.clone()], ..stop }, journal);
    let cannot_freeze = asked.err().map(|failures| {
        let reasons: Vec<_> = failures.into_iter().map(|failure| failure.reason).collect();
        reasons.join("; ")
    });
    let (mut in_flight, mut bytes) = (None, None);
    if cannot_freeze.is_some() {
        // what can be drained needs neither question
        in_flight = strangers::with_io_in_flight(&volume.cgroups)
            .into_iter()
            .next()
            .map(|(pid, how)| format!("process {pid} uses {how}, which goes on under a pause"));
    }
    if !volume.cgroups.is_empty() {
        let failed = |source| Error::Copy { volume: volume.name.clone(), source };
        bytes = Some(tree::size(&volume.directory).map_err(failed)?);
    }
    let root = rustix::fs::fstat(&volume.directory).map(|about| about.st_ino);
    let is_subvolume = filesystem == "btrfs" && root == Ok(SUBVOLUME);
    Ok(Facts {
        filesystem,
        cannot_freeze,
        writers_known: !volume.cgroups.is_empty(),
        read_only: volume.read_only,
        in_flight,
        bytes,
        cannot_clone: clones::try_out(&volume.directory).err().map(|error| error.to_string()),
        nested: if is_subvolume { nested(volume) } else { Vec::new() },
        is_subvolume,
    })
}

/// What is free on a volume's filesystem, for people.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Room {
    free_kib: u64,
    of_kib: u64,
    /// Inodes, where the filesystem counts them.
    files: Option<u64>,
}

impl Room {
    /// All zero where it cannot be told.
    pub(super) fn of(directory: impl AsFd) -> Self {
        let Ok(about) = rustix::fs::fstatvfs(directory) else { return Self { free_kib: 0, of_kib: 0, files: None } };
        let kib = |blocks: u64| blocks.saturating_mul(about.f_frsize) / 1024;
        let files = (about.f_files > 0).then_some(about.f_favail);
        Self { free_kib: kib(about.f_bavail), of_kib: kib(about.f_blocks), files }
    }
}

impl fmt::Display for Room {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} KiB of {} KiB", self.free_kib, self.of_kib)?;
        if let Some(files) = self.files {
            write!(f, " and {files} inodes")?;
        }
        f.write_str(" are free")
    }
}

/// The inode of every subvolume's root on btrfs.
const SUBVOLUME: u64 = 256;

/// The subvolumes in a subvolume, by name where they lie right in it.
fn nested(volume: &Volume) -> Vec<String> {
    let count = stillpoint_sys::btrfs::nested_subvolumes(&volume.directory).unwrap_or_default();
    if count == 0 {
        return Vec::new();
    }
    let inside = format!("/proc/self/fd/{}", volume.directory.as_raw_fd());
    let entries = fs::read_dir(inside).into_iter().flatten().flatten();
    let subvolumes = entries.filter(|entry| entry.metadata().is_ok_and(|about| about.ino() == SUBVOLUME));
    let names: Vec<_> = subvolumes.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect();
    let (own, mut names): (Vec<_>, Vec<_>) = names.into_iter().partition(|name| name.starts_with(OWN_PREFIX));
    let deeper = count.saturating_sub(own.len() + names.len());
    if deeper > 0 {
        names.push(format!("{deeper} in its directories"));
    }
    names
}
