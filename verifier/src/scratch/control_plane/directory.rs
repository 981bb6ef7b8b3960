//! The temporary directory of one control plane: keys, data and logs, for our eyes only.
//!
//! Its owner holds a lock on a file in it for as long as it lives. The kernel gives the lock up
//! when the owner dies, whatever of, so a directory whose lock is free is a leftover; a process id
//! in its name could not say that, for it means nothing in another container sharing `/tmp`.

use std::{
    fs::{self, File, Permissions},
    io,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
};

use tempfile::TempDir;

use super::super::Error;

const PREFIX: &str = "stillpoint-scratch-";
const LOCK: &str = "lock";

/// A directory that is removed with this value.
#[derive(Debug)]
pub(super) struct Directory {
    directory: TempDir,
    _lock: File,
}

impl Directory {
    /// Makes a new directory under `base`, after removing what owners that died have left there.
    pub(super) fn create_in(base: &Path) -> Result<Self, Error> {
        remove_leftovers(base);
        let directory = tempfile::Builder::new()
            .prefix(PREFIX)
            .permissions(Permissions::from_mode(0o700))
            .tempdir_in(base)
            .map_err(Error::file("make a directory in", base))?;
        let lock = lock(directory.path()).map_err(Error::file("lock", directory.path()))?;
        Ok(Self { directory, _lock: lock })
    }

    pub(super) fn path(&self) -> &Path {
        self.directory.path()
    }

    pub(super) fn file(&self, name: &str) -> PathBuf {
        self.path().join(name)
    }

    /// Removes the directory and all in it.
    pub(super) fn remove(self) -> Result<(), Error> {
        let path = self.path().to_owned();
        self.directory.close().map_err(Error::file("remove", &path))
    }
}

/// The lock appears under its name only once it is held: nobody can find it free before that.
fn lock(directory: &Path) -> io::Result<File> {
    let unnamed = directory.join("lock.new");
    let file = File::create_new(&unnamed)?;
    file.try_lock()?;
    fs::rename(&unnamed, directory.join(LOCK))?;
    Ok(file)
}

/// Best effort: a leftover costs disk space and must not stop anybody's work.
fn remove_leftovers(base: &Path) {
    let entries = fs::read_dir(base).into_iter().flatten().flatten();
    let ours = entries.filter(|entry| entry.file_name().to_string_lossy().starts_with(PREFIX));
    for path in ours.map(|entry| entry.path()) {
        match remove_leftover(&path) {
            Ok(true) => {
                tracing::info!(path = %path.display(), "removed a leftover scratch cluster")
            }
            Ok(false) => {}
            Err(error) => {
                tracing::warn!(path = %path.display(), %error, "cannot remove a leftover scratch cluster");
            }
        }
    }
}

/// Removes the directory if nobody holds its lock; tells whether it did.
fn remove_leftover(directory: &Path) -> io::Result<bool> {
    // Another user's directory cannot be opened, and one just made has no lock yet: both are theirs.
    let Ok(lock) = File::open(directory.join(LOCK)) else {
        return Ok(false);
    };
    if lock.try_lock().is_err() {
        return Ok(false);
    }
    fs::remove_dir_all(directory)?;
    Ok(true)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_is_private_and_removed_with_its_value() {
        let base = tempfile::tempdir().unwrap();
        let directory = Directory::create_in(base.path()).unwrap();
        let path = directory.path().to_owned();
        let mode = fs::metadata(&path).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o700);
        drop(directory);
        assert!(!path.exists());
    }

    #[test]
    fn a_directory_in_use_is_left_alone() {
        let base = tempfile::tempdir().unwrap();
        let first = Directory::create_in(base.path()).unwrap();
        let second = Directory::create_in(base.path()).unwrap();
        assert!(first.file(LOCK).exists());
        assert!(second.file(LOCK).exists());
    }

    #[test]
    fn what_a_dead_owner_left_is_removed_by_the_next_start() {
        let base = tempfile::tempdir().unwrap();
        let left = base.path().join(format!("{PREFIX}left"));
        fs::create_dir_all(left.join("etcd")).unwrap();
        fs::write(left.join(LOCK), "").unwrap();
        let stranger = base.path().join("somebody-elses");
        fs::create_dir(&stranger).unwrap();
        let _new = Directory::create_in(base.path()).unwrap();
        assert!(!left.exists());
        assert!(stranger.exists());
    }

    #[test]
    fn a_directory_that_is_just_being_made_is_left_alone() {
        let base = tempfile::tempdir().unwrap();
        let young = base.path().join(format!("{PREFIX}young"));
        fs::create_dir(&young).unwrap();
        let _new = Directory::create_in(base.path()).unwrap();
        assert!(young.exists());
    }
}
