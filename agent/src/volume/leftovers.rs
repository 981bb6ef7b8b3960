//! Clones and snapshots in a volume, which must not stay there: written down before they are made.
//!
//! What is written down is where the folder is inside its filesystem and a name that there is only once, because a
//! volume's path on the node may have gone when its agent comes back, and its device may have another number.
//!
//! ```text
//! {"kind":"snapshot","filesystem":"btrfs","inside":"/data","name":".stillpoint-6f1c…"}     synced before it is made
//! ```
//! The file is locked for as long as its process lives, and removed once what it names is.

use std::{
    ffi::OsStr,
    fs::{self, File},
    io,
    os::fd::{AsRawFd, OwnedFd},
    path::{Path, PathBuf},
    sync::Arc,
};

use rustix::fs::{Mode, OFlags};
use serde::{Deserialize, Serialize};
use stillpoint_filetree::backup::OWN_PREFIX;
use stillpoint_hooks::{JournalError, journal_file, mounts};
use uuid::Uuid;

use super::{Error, Settings, Taking};

/// What is left in a volume.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) enum Kind {
    /// A read-only btrfs snapshot.
    Snapshot,
    /// A folder of clones.
    Clones,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct First {
    kind: Kind,
    filesystem: String,
    inside: PathBuf,
    name: String,
}

/// Something with a hidden name in a volume, removed when this is dropped. Its methods block.
#[derive(Debug)]
pub(super) struct Leftover {
    volume: OwnedFd,
    first: First,
    journal: PathBuf,
    _lock: File,
}

impl Leftover {
    /// Writes down what is going to be made in a volume.
    pub(super) fn announce(journal: &Path, taking: &Taking, kind: Kind) -> Result<Self, Error> {
        let volume = &taking.volume;
        let at = |source| Error::Look { volume: volume.name.clone(), source };
        let filesystem = mounts::of(&volume.path).map_err(at)?;
        let name = format!("{OWN_PREFIX}{}", Uuid::new_v4());
        let first = First { kind, filesystem: filesystem.kind, inside: filesystem.inside, name };
        let failed = |source| Error::Journal { volume: volume.name.clone(), source };
        let (journal, lock) = journal_file::create(&folder(journal), &first, 0).map_err(failed)?;
        Ok(Self { volume: taking.directory()?, first, journal, _lock: lock })
    }

    /// Makes it, empty or as the volume is now.
    pub(super) fn make(&self) -> io::Result<OwnedFd> {
        let name = OsStr::new(&self.first.name);
        match self.first.kind {
            Kind::Snapshot => stillpoint_sys::btrfs::snapshot(&self.volume, &self.volume, name)?,
            Kind::Clones => rustix::fs::mkdirat(&self.volume, name, Mode::RWXU)?,
        }
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        Ok(rustix::fs::openat(&self.volume, name, flags, Mode::empty())?)
    }

    /// Removes it, if it is there.
    pub(super) fn remove(&self) -> io::Result<()> {
        remove_from(&self.volume, self.first.kind, &self.first.name).map(drop)
    }
}

impl Drop for Leftover {
    fn drop(&mut self) {
        match self.remove() {
            // found again, and nothing to do then, where it cannot be removed
            Ok(()) => drop(fs::remove_file(&self.journal)),
            Err(error) => {
                tracing::warn!(name = %self.first.name, %error, "it stays in its volume until the next start")
            }
        }
    }
}

/// Writes down what is going to be made, and makes and removes it once, so that what cannot be made is known before the
/// stop.
pub(super) async fn try_out(taking: &Taking, settings: &Settings, kind: Kind) -> Result<Arc<Leftover>, Error> {
    let announced = Leftover::announce(&settings.guard.journal, taking, kind)?;
    let leftover = Arc::new(announced);
    remake(taking, &leftover).await?;
    let made = leftover.clone();
    let removed = tokio::task::spawn_blocking(move || made.remove()).await.map_err(|_| taking.stopped())?;
    removed.map_err(|error| taking.not_taken(error))?;
    Ok(leftover)
}

/// Makes it anew.
pub(super) async fn remake(taking: &Taking, leftover: &Arc<Leftover>) -> Result<OwnedFd, Error> {
    let made = leftover.clone();
    let make = move || made.remove().and_then(|()| made.make());
    let made = tokio::task::spawn_blocking(make).await.map_err(|_| taking.stopped())?;
    made.map_err(|error| taking.not_taken(error))
}

/// Removes what a snapshot that failed has made, which may be part of it; it may be made anew.
pub(super) async fn clear(leftover: &Arc<Leftover>) {
    let made = leftover.clone();
    // a panic in it was told already
    if let Ok(Err(error)) = tokio::task::spawn_blocking(move || made.remove()).await {
        tracing::warn!(name = %leftover.first.name, %error, "it stays in its volume for now");
    }
}

/// Removes it from the volume, and from the journal.
pub(super) async fn remove(leftover: Arc<Leftover>) {
    // a panic in it was told already
    let _ = tokio::task::spawn_blocking(move || drop(leftover)).await;
}

/// Removes what volumes still hold of captures whose process is gone, as the journal of stops in `journal` has it; says
/// of each what became of it. Blocks.
///
/// # Errors
/// When the journal cannot be read.
pub fn clean(journal: &Path) -> Result<Vec<String>, JournalError> {
    let mut told = Vec::new();
    for path in journal_file::paths(&folder(journal))? {
        let Some(content) = journal_file::read(&path)?.filter(|content| content.lock.is_some()) else { continue };
        let first: First = match serde_json::from_str(content.text.trim_end()) {
            Ok(first) => first,
            Err(source) => return Err(JournalError::Damaged { path, source }),
        };
        told.push(clean_one(&path, &first));
    }
    Ok(told)
}

fn clean_one(path: &Path, first: &First) -> String {
    let First { kind, filesystem, inside, name } = first;
    let shown = inside.join(name);
    let mut was_there = false;
    for place in mounts::places(filesystem, inside) {
        let Ok(folder) = File::open(&place) else { continue };
        was_there = true;
        match remove_from(&folder.into(), *kind, name) {
            Ok(true) => {
                let _ = fs::remove_file(path);
                return format!("{} on a {filesystem}: removed", shown.display());
            }
            Ok(false) => {}
            Err(error) => return format!("{} on a {filesystem}: cannot be removed: {error}", shown.display()),
        }
    }
    if was_there {
        let _ = fs::remove_file(path);
        return format!("{} on a {filesystem}: is not there any more", shown.display());
    }
    format!("{} on a {filesystem}: its filesystem is not mounted", shown.display())
}

/// Whether it was there.
fn remove_from(volume: &OwnedFd, kind: Kind, name: &str) -> io::Result<bool> {
    let removed = match kind {
        Kind::Snapshot => stillpoint_sys::btrfs::remove_snapshot(volume, OsStr::new(name)),
        Kind::Clones => fs::remove_dir_all(format!("/proc/self/fd/{}/{name}", volume.as_raw_fd())),
    };
    match removed {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        removed => removed.map(|()| true),
    }
}

/// Beside the files of guards, which know only their own.
fn folder(journal: &Path) -> PathBuf {
    journal.join("clones")
}
