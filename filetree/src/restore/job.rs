//! Holds what all threads of a restore share, and decides what ends it.
//!
//! A file that cannot be made is a problem with a name, and the rest goes on. What would fail for every further file as
//! well, such as a full file system, ends the restore instead; its marker stays, so that it can go on later.

use std::{
    fmt, io,
    path::PathBuf,
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};

use serde::Serialize;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::{
    Error,
    attributes::Unset,
    directories::Directories,
    entries::{Entries, Number},
    plan::{Plan, RootAttributes, Todo},
    problem::{ProblemKind, Problems},
    target::{Source, Start},
};

/// How far a restore has come.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Progress {
    /// Whether restored files are being read back.
    pub verifying: bool,
    /// Bytes done.
    pub bytes: u64,
    /// Bytes in all.
    pub total_bytes: u64,
    /// Files done.
    pub files: u64,
    /// Files in all.
    pub total_files: u64,
}

/// A restore at work.
pub(super) struct Job {
    pub(super) source: Source,
    pub(super) target: PathBuf,
    pub(super) start: Start,
    pub(super) root: RootAttributes,
    pub(super) entries: Entries,
    pub(super) todo: Todo,
    pub(super) directories: Directories,
    pub(super) cancel: CancellationToken,
    pub(super) files: AtomicU64,
    pub(super) bytes: AtomicU64,
    progress: watch::Sender<Progress>,
    problems: Mutex<Problems>,
}

impl Job {
    pub(super) fn new(
        plan: Plan,
        directories: Directories,
        progress: watch::Sender<Progress>,
        cancel: CancellationToken,
    ) -> Self {
        let Plan { source, target, start, counts, problems, root, entries, todo, .. } = plan;
        progress.send_modify(|progress| {
            (progress.total_bytes, progress.total_files) = (counts.bytes, counts.files);
        });
        Self {
            source,
            target,
            start,
            root,
            entries,
            todo,
            directories,
            cancel,
            files: AtomicU64::new(0),
            bytes: AtomicU64::new(0),
            progress,
            problems: Mutex::new(problems),
        }
    }

    /// Fails if the restore was asked to stop.
    pub(super) fn goes_on(&self) -> Result<(), Error> {
        if self.cancel.is_cancelled() { Err(Error::Interrupted { target: self.target.clone() }) } else { Ok(()) }
    }

    /// Shows how far it has come.
    pub(super) fn show(&self) {
        let (files, bytes) = (self.files.load(Ordering::Relaxed), self.bytes.load(Ordering::Relaxed));
        self.progress.send_modify(|progress| (progress.files, progress.bytes) = (files, bytes));
    }

    /// Begins to count anew, for reading back.
    pub(super) fn show_verifying(&self) {
        self.files.store(0, Ordering::Relaxed);
        self.bytes.store(0, Ordering::Relaxed);
        self.progress.send_modify(|progress| (progress.verifying, progress.files, progress.bytes) = (true, 0, 0));
    }

    /// Names what went wrong with an entry.
    pub(super) fn problem(&self, number: Number, kind: ProblemKind, what: impl fmt::Display) {
        let path = self.entries.path(number);
        self.problems().add(path, kind, what);
    }

    /// Names what could not be set.
    pub(super) fn unset(&self, number: Number, unset: Unset) {
        for (kind, reason) in unset {
            self.problem(number, kind, reason);
        }
    }

    /// Passes a result on; a failure that concerns this entry alone is named, any other ends the restore.
    pub(super) fn made<T>(&self, number: Number, result: io::Result<T>) -> Result<Option<T>, Error> {
        let error = match result {
            Ok(value) => return Ok(Some(value)),
            Err(error) => error,
        };
        match error.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
                Err(Error::Full { target: self.target.clone() })
            }
            io::ErrorKind::ReadOnlyFilesystem => Err(self.ends(number, error)),
            _ if is_out_of_files(&error) => Err(self.ends(number, error)),
            _ => {
                self.problem(number, ProblemKind::Missing, error);
                Ok(None)
            }
        }
    }

    fn ends(&self, number: Number, source: io::Error) -> Error {
        Error::Target { action: "write", target: self.target.join(self.entries.path(number)), source }
    }

    pub(super) fn problems(&self) -> MutexGuard<'_, Problems> {
        self.problems.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn is_out_of_files(error: &io::Error) -> bool {
    let number = error.raw_os_error().map(rustix::io::Errno::from_raw_os_error);
    matches!(number, Some(rustix::io::Errno::MFILE | rustix::io::Errno::NFILE))
}
