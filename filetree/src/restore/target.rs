//! Opens the directory that is restored into, and marks it while a restore is under way.
//!
//! The marker says of what, so that the same restore goes on after an interruption and no other is mixed into it.
//! Whatever else is in a directory keeps a restore out: nothing that is there is ever overwritten.

use std::{
    fs::{self, File},
    io::{self, Read, Write},
    os::{fd::OwnedFd, unix::ffi::OsStrExt},
    path::{Path, PathBuf},
};

use rustix::fs::{AtFlags, CWD, Mode, OFlags, openat, unlinkat};
use serde::{Deserialize, Serialize};
use stillpoint_repository::Id;

use super::Error;

/// The marker's name; a file of this name in a backup's root is not restored.
pub const MARKER: &str = ".stillpoint-restore";

/// A marker is some hundred bytes.
const MAX_MARKER: u64 = 64 << 10;

/// What is restored: the content of the marker.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Source {
    /// The volume's name.
    pub volume: String,
    /// The backup.
    pub snapshot: Id,
    /// The part of it, from `/`; bytes that are no text as `\xff`.
    pub path: String,
}

impl Source {
    pub(super) fn new(volume: String, snapshot: Id, path: &Path) -> Self {
        Self { volume, snapshot, path: path.as_os_str().as_bytes().escape_ascii().to_string() }
    }
}

/// Whether a restore starts or goes on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum Start {
    /// Into an empty directory, or one that is made.
    Fresh,
    /// Where an interrupted one stopped.
    Resumed,
}

/// Looks whether the target takes the restore; writes nothing.
pub(super) fn examine(target: &Path, source: &Source) -> Result<Start, Error> {
    let failed = |source| Error::Target { action: "read", target: target.to_owned(), source };
    let entries = match fs::read_dir(target) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Start::Fresh),
        other => other.map_err(failed)?,
    };
    let (mut is_marked, mut foreign) = (false, None);
    for entry in entries {
        let name = entry.map_err(failed)?.file_name();
        if name == MARKER {
            is_marked = true;
        } else if name != "lost+found" {
            // every new ext4 has that one
            foreign = Some(name);
        }
    }
    if is_marked {
        return resumed(target, source, foreign.is_none());
    }
    let Some(found) = foreign else { return Ok(Start::Fresh) };
    Err(Error::NotEmpty { target: target.to_owned(), found: found.to_string_lossy().into_owned() })
}

fn resumed(target: &Path, source: &Source, is_alone: bool) -> Result<Start, Error> {
    let other = |found: String| Error::OtherRestore { target: target.to_owned(), found };
    let text = read_marker(&target.join(MARKER))?;
    let found: Source = match serde_json::from_str(&text) {
        Ok(found) => found,
        // the restore was killed while it wrote its marker, which comes before everything else
        Err(_) if is_alone => return Ok(Start::Fresh),
        Err(_) => return Err(other("something that its marker does not tell".into())),
    };
    if found == *source {
        return Ok(Start::Resumed);
    }
    let Source { volume, snapshot, path } = found;
    Err(other(format!("{path:?} of the volume {volume:?}, backup {}", snapshot.short())))
}

fn read_marker(path: &Path) -> Result<String, Error> {
    let failed = |source: io::Error| Error::Target { action: "read", target: path.to_owned(), source };
    let marker =
        openat(CWD, path, OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::NONBLOCK, Mode::empty());
    let mut text = String::new();
    File::from(marker.map_err(|error| failed(error.into()))?)
        .take(MAX_MARKER)
        .read_to_string(&mut text)
        .map_err(failed)?;
    Ok(text)
}

/// Makes and opens the target, and puts the marker into it.
pub(super) fn open(target: &Path, source: &Source, start: Start) -> Result<OwnedFd, Error> {
    let failed = |action| move |source: io::Error| Error::Target { action, target: target.to_owned(), source };
    fs::create_dir_all(target).map_err(failed("make"))?;
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let root = openat(CWD, target, flags, Mode::empty()).map_err(|error| failed("open")(error.into()))?;
    if start == Start::Fresh {
        mark(&root, source).map_err(failed("write the marker into"))?;
    }
    Ok(root)
}

fn mark(root: &OwnedFd, source: &Source) -> io::Result<()> {
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::TRUNC | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let mut marker = File::from(openat(root, MARKER, flags, Mode::RUSR | Mode::WUSR)?);
    marker.write_all(&serde_json::to_vec_pretty(source)?)?;
    marker.sync_all()?;
    rustix::fs::fsync(root)?;
    Ok(())
}

/// Removes the marker: the restore is done.
pub(super) fn unmark(root: &OwnedFd, target: &Path) -> Result<(), Error> {
    let path: PathBuf = target.join(MARKER);
    unlinkat(root, MARKER, AtFlags::empty()).map_err(|error| Error::Target {
        action: "remove",
        target: path,
        source: error.into(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn source(id: u8, path: &str) -> Source {
        Source::new("data".into(), Id([id; 32]), Path::new(path))
    }

    #[test]
    fn only_an_empty_or_absent_directory_or_the_same_restore_is_taken() {
        let folder = tempfile::tempdir().unwrap();
        let target = folder.path().join("deep/target");
        assert_eq!(examine(&target, &source(1, "/a")).unwrap(), Start::Fresh);
        let root = open(&target, &source(1, "/a"), Start::Fresh).unwrap();
        fs::write(target.join("file"), b"partly restored").unwrap();
        assert_eq!(examine(&target, &source(1, "/a")).unwrap(), Start::Resumed);
        for other in [source(2, "/a"), source(1, "/b")] {
            let error = examine(&target, &other).unwrap_err();
            assert!(error.to_string().contains("interrupted restore of \"/a\" of the volume \"data\""), "{error}");
        }
        unmark(&root, &target).unwrap();
        let error = examine(&target, &source(1, "/a")).unwrap_err();
        assert!(error.to_string().contains("it holds \"file\""), "{error}");
        fs::remove_file(target.join("file")).unwrap();
        fs::create_dir(target.join("lost+found")).unwrap();
        assert_eq!(examine(&target, &source(1, "/a")).unwrap(), Start::Fresh);
    }

    #[test]
    fn a_marker_that_is_no_marker_is_never_followed() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("elsewhere"), serde_json::to_vec(&source(1, "/a")).unwrap()).unwrap();
        let target = folder.path().join("target");
        fs::create_dir(&target).unwrap();
        std::os::unix::fs::symlink("../elsewhere", target.join(MARKER)).unwrap();
        examine(&target, &source(1, "/a")).unwrap_err();
        fs::remove_file(target.join(MARKER)).unwrap();
        fs::write(target.join(MARKER), b"{\"volume\":").unwrap();
        assert_eq!(examine(&target, &source(1, "/a")).unwrap(), Start::Fresh, "torn, with nothing restored yet");
        open(&target, &source(1, "/a"), Start::Fresh).unwrap();
        assert_eq!(examine(&target, &source(1, "/a")).unwrap(), Start::Resumed);
        fs::write(target.join(MARKER), b"{\"volume\":").unwrap();
        fs::write(target.join("file"), b"somebody's").unwrap();
        let error = examine(&target, &source(1, "/a")).unwrap_err();
        assert!(matches!(error, Error::OtherRestore { .. }), "{error}");
    }
}
