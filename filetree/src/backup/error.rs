//! Says what kept a backup of directory trees from being written.
//!
//! Only what ends it as a whole is here; what it merely lacks is a problem in its report.

use std::{io, path::PathBuf};

/// Why there is no backup.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A path that was asked for cannot be looked at.
    #[error("cannot back up {}: {source}", path.display())]
    Path {
        /// The path as it was given.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// A file could not be cloned: there is no room for it, say.
    #[error("cannot clone {}, after {made} other files: {source}", path.display())]
    NotCloned {
        /// The file, below the directory that is taken.
        path: PathBuf,
        /// The files that were cloned before.
        made: u64,
        /// What the system said.
        source: io::Error,
    },
    /// The name cannot be a tag.
    #[error("{name:?} cannot name a volume: {reason}")]
    Name {
        /// The name as it was given.
        name: String,
        /// Why not.
        reason: &'static str,
    },
    /// No path was given.
    #[error("there is nothing to back up: name at least one path")]
    NoPaths,
    /// A pattern cannot be understood.
    #[error("{pattern:?} is no pattern: {reason}")]
    Pattern {
        /// The pattern as it was given.
        pattern: String,
        /// What is wrong with it.
        reason: String,
    },
    /// The repository refused or failed.
    #[error(transparent)]
    Repository(#[from] stillpoint_repository::Error),
    /// The work was stopped from outside.
    #[error("the backup was interrupted before it was done; nothing was committed: run it again")]
    Stopped,
}
