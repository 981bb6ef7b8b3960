//! What can go wrong with a backup in a repository.
//!
//! Damage is a value of its own: a restore stops at the first, a restore test collects all of them.

use stillpoint_api::Digest;
use stillpoint_repository as repository;

/// A backup could not be listed, opened, read or written.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// No backup has that name.
    #[error("there is no backup {name:?} in the repository; `stillpoint backup get` lists those that are")]
    NotFound {
        /// The name that was asked for.
        name: String,
    },
    /// More than one snapshot claims the name.
    #[error("{count} snapshots claim to be the backup {name:?}: forget those that are not, by their restic ids")]
    Ambiguous {
        /// The name that was asked for.
        name: String,
        /// How many claim it.
        count: usize,
    },
    /// The name is in use.
    #[error("a backup named {name:?} exists already: choose another name, or delete it first")]
    NameTaken {
        /// The name.
        name: String,
    },
    /// The name cannot be one.
    #[error("{name:?} cannot name a backup: use lower-case letters, digits, '-' and '.', at most 253 characters")]
    InvalidName {
        /// The name.
        name: String,
    },
    /// The backup is not what it should be.
    #[error("the backup {name:?} is damaged: {damage}")]
    Damaged {
        /// The backup's name.
        name: String,
        /// What is wrong.
        #[source]
        damage: Box<Damage>,
    },
    /// The repository failed.
    #[error(transparent)]
    Repository(#[from] repository::Error),
    /// A document could not be written as JSON.
    #[error("cannot write {what} as JSON")]
    Encode {
        /// Which document.
        what: &'static str,
        /// Why.
        #[source]
        source: serde_json::Error,
    },
}

/// What is wrong with a backup's bytes.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Damage {
    /// The repository could not deliver what an id names.
    #[error("{path}: {source}")]
    Unreadable {
        /// Where in the backup.
        path: String,
        /// Why.
        #[source]
        source: repository::Error,
    },
    /// A file that every backup has is not there.
    #[error("{path} is missing")]
    Missing {
        /// Where in the backup.
        path: String,
    },
    /// The snapshot holds something that the manifest does not name.
    #[error("{path} is in the snapshot but not in the manifest")]
    Foreign {
        /// Where in the backup.
        path: String,
    },
    /// The manifest or the signature is no such document.
    #[error("{path} is no document that this version reads")]
    Malformed {
        /// Where in the backup.
        path: String,
        /// Why.
        #[source]
        source: serde_json::Error,
    },
    /// The manifest has a format that this version does not know.
    #[error("manifest.json has format {found}; this version of stillpoint reads up to {known}")]
    Version {
        /// The format found.
        found: u64,
        /// The newest that is known.
        known: u32,
    },
    /// The manifest names another tree than the snapshot holds.
    #[error("{path} is {found}, the manifest says {expected}")]
    WrongTree {
        /// Where in the backup.
        path: String,
        /// The tree's id in the snapshot.
        found: Digest,
        /// The id in the manifest.
        expected: Digest,
    },
    /// The manifest is of another backup than the snapshot says.
    #[error("the snapshot is named {snapshot:?}, its manifest {manifest:?}")]
    WrongName {
        /// The name in the snapshot's tags.
        snapshot: String,
        /// The name in the manifest.
        manifest: String,
    },
    /// A line is no object.
    #[error("{path}, line {line}: not an object: {message}")]
    BadLine {
        /// Where in the backup.
        path: String,
        /// The line, from 1.
        line: u64,
        /// Why.
        message: String,
    },
    /// A path is longer or larger than anything a backup holds.
    #[error("{path} is too large to be true: {size} bytes")]
    TooLarge {
        /// Where in the backup.
        path: String,
        /// Its size in bytes.
        size: u64,
    },
}

impl Damage {
    /// Names the backup that the damage is in.
    pub fn of(self, name: &str) -> Error {
        Error::Damaged { name: name.to_owned(), damage: Box::new(self) }
    }
}
