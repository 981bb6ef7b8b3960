//! A file of JSON lines that a process keeps locked for as long as it lives, and another one finds when it is gone.
//!
//! Whoever finds it finds its first line whole: it is written, synced and locked under another name first. A later line
//! may be torn by a death; then it was not synced, and nobody relies on it.

use std::{
    fs::{self, DirBuilder, File, OpenOptions},
    io::{self, Read, Write},
    os::unix::fs::{DirBuilderExt, OpenOptionsExt},
    path::{Path, PathBuf},
};

use rustix::fs::FallocateFlags;
use serde::Serialize;
use uuid::Uuid;

const SUFFIX: &str = ".journal";
/// More than this is no journal of ours.
const MAX_BYTES: u64 = 1 << 22;

/// Why a journal cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Its folder or a file of it cannot be used.
    #[error("cannot use the journal {path}: {source}", path = path.display())]
    File {
        /// The file or folder.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// It is not a journal of ours.
    #[error("{path} is not a journal: {source}", path = path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// Why.
        source: serde_json::Error,
    },
    /// It is larger than any journal of ours.
    #[error("{path} is not a journal: it is too large", path = .0.display())]
    TooLarge(PathBuf),
    /// This boot cannot be told from earlier ones.
    #[error("cannot read the id of this boot: {0}")]
    Boot(io::Error),
}

/// Makes a locked file in `folder` with a first line that is on the disk, and reserves space for `more` bytes.
///
/// # Errors
/// When it cannot be written.
pub fn create(folder: &Path, first: &impl Serialize, more: u64) -> Result<(PathBuf, File), Error> {
    let name = Uuid::new_v4();
    let (draft, path) = (folder.join(name.to_string()), folder.join(format!("{name}{SUFFIX}")));
    match write(folder, &draft, &path, first, more) {
        Ok(file) => Ok((path, file)),
        Err(source) => {
            let _ = fs::remove_file(&draft);
            Err(Error::File { path, source })
        }
    }
}

fn write(folder: &Path, draft: &Path, path: &Path, first: &impl Serialize, more: u64) -> io::Result<File> {
    DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(draft)?;
    file.lock()?;
    let mut line = serde_json::to_vec(first)?;
    line.push(b'\n');
    match rustix::fs::fallocate(&file, FallocateFlags::KEEP_SIZE, 0, line.len() as u64 + more) {
        Ok(()) | Err(rustix::io::Errno::OPNOTSUPP) => {}
        Err(error) => return Err(error.into()),
    }
    file.write_all(&line)?;
    file.sync_all()?;
    fs::rename(draft, path)?;
    File::open(folder)?.sync_all()?;
    Ok(file)
}

/// The files in a folder.
///
/// # Errors
/// When the folder cannot be read; one that is not there has none.
pub fn paths(folder: &Path) -> Result<Vec<PathBuf>, Error> {
    let error = |source| Error::File { path: folder.to_owned(), source };
    let entries = match fs::read_dir(folder) {
        Ok(entries) => entries,
        Err(missing) if missing.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(source) => return Err(error(source)),
    };
    let paths = entries.map(|entry| Ok(entry.map_err(error)?.path()));
    paths.filter(|path| path.as_ref().map_or(true, |path| path.to_string_lossy().ends_with(SUFFIX))).collect()
}

/// What a file says.
#[derive(Debug)]
pub struct Content {
    /// Its lines.
    pub text: String,
    /// Locked while this value lives; `None` while its process lives.
    pub lock: Option<File>,
}

/// Reads a file; `None` when it was removed meanwhile.
///
/// # Errors
/// When it cannot be read, or is too large.
pub fn read(path: &Path) -> Result<Option<Content>, Error> {
    let error = |source| Error::File { path: path.to_owned(), source };
    // not for writing: what it says must be found on a disk that has become read-only
    let file = match File::open(path) {
        Ok(file) => file,
        Err(gone) if gone.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(source) => return Err(error(source)),
    };
    let locked = file.try_lock().is_ok();
    let mut text = String::new();
    let length = (&file).take(MAX_BYTES + 1).read_to_string(&mut text).map_err(error)?;
    if length as u64 > MAX_BYTES {
        return Err(Error::TooLarge(path.to_owned()));
    }
    if locked && !path.exists() {
        return Ok(None);
    }
    Ok(Some(Content { text, lock: locked.then_some(file) }))
}
