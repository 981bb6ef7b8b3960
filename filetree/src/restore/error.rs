//! Says why a restore could not be done at all.
//!
//! What concerns one file is no error but a problem of the report: the rest is restored.

use std::{io, path::PathBuf};

/// Why nothing, or not everything, was restored.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The target holds something else.
    #[error("{} is not empty: it holds {found:?}; restore into a directory that is empty or does not exist", target.display())]
    NotEmpty {
        /// The target.
        target: PathBuf,
        /// One thing in it.
        found: String,
    },
    /// The target holds an interrupted restore of something else.
    #[error("{} holds an interrupted restore of {found}; finish that one, or choose an empty directory", target.display())]
    OtherRestore {
        /// The target.
        target: PathBuf,
        /// What was restored there, in words.
        found: String,
    },
    /// The target cannot be made, opened or written.
    #[error("cannot {action} {}: {source}", target.display())]
    Target {
        /// What was tried.
        action: &'static str,
        /// The target, or a file in it.
        target: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// The file system of the target is full.
    #[error("the file system of {} is full; make room and run the same restore again: it goes on where it stopped", target.display())]
    Full {
        /// The target.
        target: PathBuf,
    },
    /// It was asked to stop.
    #[error("the restore to {} was interrupted; run it again: it goes on where it stopped", target.display())]
    Interrupted {
        /// The target.
        target: PathBuf,
    },
    /// The backup holds, or claims to hold, more than is planned at once.
    #[error("what is to be restored has more than {limit} {what}; restore it in parts (--path)")]
    TooLarge {
        /// What there are too many of.
        what: &'static str,
        /// How many are taken.
        limit: usize,
    },
    /// The repository cannot be read.
    #[error(transparent)]
    Repository(#[from] stillpoint_repository::Error),
    /// A thread of the restore ended early.
    #[error("a thread of the restore was stopped")]
    Stopped(#[from] tokio::task::JoinError),
}
