//! Whose turn it is on a filesystem, among the processes of a host.
//!
//! A lock on a file for each filesystem, beside the journal and so never on what is stopped: the kernel lets go of it
//! with its process, so that nobody waits for one that was killed. The files stay, because one that is removed could be
//! locked by somebody while another makes it anew.
//!
//! ```text
//! turns/8:1   locked: {"pid":4711,"program":"stillpoint volume backup","work":"data"}
//! ```
//! # Guarantees
//! - All filesystems that are asked for are taken or none is, so that nobody holds one while it waits for another.
//! # Caveats
//! - It binds those who ask, which share a journal; and it is no queue: of those who wait any may be next.

use std::{
    collections::BTreeSet,
    fmt,
    fs::{DirBuilder, File, OpenOptions, TryLockError},
    io::{self, Read, Seek, Write},
    os::unix::fs::{DirBuilderExt, OpenOptionsExt},
    path::Path,
};

use serde::{Deserialize, Serialize};

use crate::{journal::Error, mounts::Device};

/// More than this nobody says of himself.
const MAX_BYTES: u64 = 1 << 12;
/// Words of a command line that name what a program does.
const WORDS: usize = 3;

/// Filesystems that are this process's until it is dropped.
#[derive(Debug)]
pub struct Turn {
    _locks: Vec<File>,
}

/// Who has a filesystem.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Holder {
    pid: u32,
    program: String,
    work: String,
}

impl fmt::Display for Holder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { pid, program, work } = self;
        write!(f, "{work} (process {pid}, {program})")
    }
}

impl Holder {
    /// This process, for a work that people know by this name.
    fn this(work: &str) -> Self {
        let mut words = std::env::args();
        let program = words.next().unwrap_or_default();
        let program = Path::new(&program).file_name().unwrap_or_default().to_string_lossy().into_owned();
        let words = std::iter::once(program).chain(words.take_while(|word| !word.starts_with('-')));
        let program = words.take(WORDS).collect::<Vec<_>>().join(" ");
        Self { pid: std::process::id(), program, work: work.to_owned() }
    }

    /// What a file says that another process has locked; that may not have said it yet.
    fn of(mut file: &File) -> Self {
        let mut text = String::new();
        let read = file.rewind().and_then(|()| file.take(MAX_BYTES).read_to_string(&mut text));
        let said = read.ok().and_then(|_| serde_json::from_str(&text).ok());
        said.unwrap_or_else(|| Self { pid: 0, program: "unknown".to_owned(), work: "another".to_owned() })
    }
}

/// Takes filesystems, or says who has some of them. Does not wait.
///
/// # Errors
/// The folder beside the journal cannot be used.
pub fn take(journal: &Path, filesystems: &BTreeSet<Device>, work: &str) -> Result<Result<Turn, Vec<Holder>>, Error> {
    let folder = journal.join("turns");
    let failed = |path: &Path| {
        let path = path.to_owned();
        move |source: io::Error| Error::File { path, source }
    };
    DirBuilder::new().recursive(true).mode(0o700).create(&folder).map_err(failed(&folder))?;
    let (mut locks, mut holders, own) = (Vec::new(), BTreeSet::new(), Holder::this(work));
    for device in filesystems {
        let path = folder.join(device.to_string());
        let mut options = OpenOptions::new();
        let file = options.read(true).write(true).create(true).truncate(false).mode(0o600).open(&path);
        let file = file.map_err(failed(&path))?;
        match file.try_lock() {
            Ok(()) => locks.push(file),
            Err(TryLockError::WouldBlock) => {
                holders.insert(Holder::of(&file));
            }
            Err(TryLockError::Error(error)) => return Err(failed(&path)(error)),
        }
    }
    if !holders.is_empty() {
        return Ok(Err(holders.into_iter().collect()));
    }
    for file in &mut locks {
        let says = serde_json::to_vec(&own).map_err(io::Error::from);
        let said = says.and_then(|says| file.set_len(0).and_then(|()| file.write_all(&says)));
        said.map_err(failed(&folder))?;
    }
    Ok(Ok(Turn { _locks: locks }))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn devices<const N: usize>(names: [&str; N]) -> BTreeSet<Device> {
        names.into_iter().map(|name| serde_json::from_value(name.into()).unwrap()).collect()
    }

    #[test]
    fn filesystems_are_one_works_and_others_are_told_whose() {
        let journal = tempfile::tempdir().unwrap();
        let take = |names: &[&str], work| {
            let names = names.iter().map(|name| serde_json::from_value((*name).into()).unwrap()).collect();
            super::take(journal.path(), &names, work).unwrap()
        };
        let first = take(&["8:1", "8:2"], "first").unwrap();
        let other = take(&["8:9"], "other").unwrap();
        let held = take(&["8:2", "8:3"], "second").unwrap_err();
        let own = format!("first (process {}, ", std::process::id());
        assert!(held.len() == 1 && held[0].to_string().starts_with(&own), "{held:?}");
        // who waits holds nothing meanwhile
        let third = take(&["8:3"], "third").unwrap();
        drop((first, third));
        let second = super::take(journal.path(), &devices(["8:2", "8:3"]), "second").unwrap().unwrap();
        drop((second, other));
    }
}
