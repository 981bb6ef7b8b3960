//! Says what went wrong in terms that a caller can act on.
//!
//! One enum for the crate: whichever layer noticed, the operator has the same few things to do, so the variants are
//! outcomes, each with the place and the cause.

use std::path::PathBuf;

use jiff::Timestamp;

use crate::Id;

/// The cause handed over by a library below.
pub type Cause = Box<dyn std::error::Error + Send + Sync + 'static>;

/// What can go wrong with a repository.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The text is not the address of a store.
    #[error(
        "{url} is no repository address: {reason}; a repository is file:///path, a path, s3://bucket/prefix, \
         az://container/prefix or gs://bucket/prefix"
    )]
    InvalidUrl {
        /// The address as given.
        url: String,
        /// What is wrong with it.
        reason: String,
    },
    /// What the options or the environment say about the store makes no sense.
    #[error("{store} cannot be used: {reason}")]
    InvalidSetting {
        /// Address of the store.
        store: String,
        /// What is wrong, and what to do.
        reason: String,
    },
    /// The store is reachable, but holds no repository.
    #[error("there is no repository at {store}; create it with init or correct the address")]
    NoRepository {
        /// Address of the store.
        store: String,
    },
    /// Refused to initialise over an existing repository.
    #[error("there is a repository at {store} already; open it, or choose another address")]
    RepositoryExists {
        /// Address of the store.
        store: String,
    },
    /// The bucket of the store does not exist.
    #[error("the bucket of {store} does not exist; create it or correct the address")]
    BucketAbsent {
        /// Address of the store.
        store: String,
    },
    /// The store refused the credentials or the right to an operation.
    #[error("access to {path} in {store} was denied: {reason}; check the credentials and their rights")]
    AccessDenied {
        /// Address of the store.
        store: String,
        /// File or folder asked for.
        path: String,
        /// The innermost cause in words.
        reason: String,
        /// What the store said.
        #[source]
        source: Cause,
    },
    /// Nothing tells the store who we are.
    #[error(
        "no credentials for {store}: the environment holds none, and this machine has no identity of its own; set {hint}"
    )]
    NoCredentials {
        /// Address of the store.
        store: String,
        /// What could be set.
        hint: &'static str,
        /// Why the machine's identity is not known.
        #[source]
        source: Cause,
    },
    /// Bytes could not be set aside on this machine.
    #[error("cannot set bytes aside in {}: {source}; give a folder with more room", folder.display())]
    NotSetAside {
        /// The folder.
        folder: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// The store can be read, but takes nothing from us.
    #[error("{store} cannot be written: {path}: {reason}; mount it writable, or grant the right to write")]
    ReadOnly {
        /// Address of the store.
        store: String,
        /// File or folder that was to be written or removed.
        path: String,
        /// What the store said.
        reason: String,
        /// The whole cause.
        #[source]
        source: Cause,
    },
    /// The store has no space left, or a quota is used up.
    #[error("{store} is full: {path}: {reason}; free space or raise the quota, then run the operation again")]
    Full {
        /// Address of the store.
        store: String,
        /// File that was to be written.
        path: String,
        /// What the store said.
        reason: String,
        /// The whole cause.
        #[source]
        source: Cause,
    },
    /// The store refuses signatures because our clock differs from its own.
    #[error("the clock of this host differs too much from that of {store}; set the time, then run the operation again")]
    Clock {
        /// Address of the store.
        store: String,
        /// What the store said.
        #[source]
        source: Cause,
    },
    /// The store did not answer within its deadline.
    #[error("{store} cannot be reached: {reason}; check the address, the network and the server")]
    Unreachable {
        /// Address of the store.
        store: String,
        /// The innermost cause in words.
        reason: String,
        /// The whole cause.
        #[source]
        source: Cause,
    },
    /// The store answered with an error of its own.
    #[error("{store} failed at {path}: {reason}")]
    Store {
        /// Address of the store.
        store: String,
        /// File or folder asked for.
        path: String,
        /// The innermost cause in words.
        reason: String,
        /// The whole cause.
        #[source]
        source: Cause,
    },
    /// The store has no such file.
    #[error("{path} is missing in {store}")]
    FileMissing {
        /// Address of the store.
        store: String,
        /// The file asked for.
        path: String,
    },
    /// The store has a file of this name already.
    #[error("{path} exists in {store} already")]
    FileExists {
        /// Address of the store.
        store: String,
        /// The file to be created.
        path: String,
    },
    /// No key of the repository opens with the password.
    #[error("the password opens none of the {keys} keys of {store}; check the password")]
    WrongPassword {
        /// Address of the store.
        store: String,
        /// Number of keys tried.
        keys: usize,
    },
    /// A key that opened the repository was to be removed.
    #[error("key {id} is the one that opened {store}; open it with another password to remove this one")]
    KeyInUse {
        /// Address of the store.
        store: String,
        /// Name of the key.
        id: Id,
    },
    /// The repository has a format version that is not ours.
    #[error(
        "{store} has repository format {version}, only 2 is supported; upgrade it with restic migrate upgrade_repo_v2"
    )]
    UnsupportedVersion {
        /// Address of the store.
        store: String,
        /// The version found.
        version: u32,
    },
    /// A file of the repository is not what was written.
    #[error("{path} is damaged: {reason}")]
    Damaged {
        /// File, or blob and pack, that is damaged.
        path: String,
        /// How that shows.
        reason: String,
    },
    /// The index knows no such blob.
    #[error(
        "{kind} blob {id} is in no index of {store}: what needs it cannot be read; stillpoint repo check tells what else, and restic repair index (rebuild-index before 0.15) finds it if its pack is still there"
    )]
    BlobMissing {
        /// Address of the store.
        store: String,
        /// `data` or `tree`.
        kind: &'static str,
        /// The blob.
        id: Id,
    },
    /// Somebody else's lock is in the way.
    #[error("{store} is locked{} by {user} on {host} (pid {pid}) since {since}; wait, or remove a dead lock with repo unlock", if *.exclusive { " exclusively" } else { "" })]
    Locked {
        /// Address of the store.
        store: String,
        /// Whether the other lock excludes everybody.
        exclusive: bool,
        /// User that holds it.
        user: String,
        /// Host of the holder.
        host: String,
        /// Process of the holder.
        pid: u32,
        /// When the lock was written or refreshed last.
        since: Timestamp,
    },
    /// A lock that cannot be read may exclude us.
    #[error(
        "lock {id} of {store} cannot be read: {reason}; if nobody works there, repo unlock --remove-all removes it"
    )]
    LockUnreadable {
        /// Address of the store.
        store: String,
        /// Name of the lock's file.
        id: Id,
        /// How that shows.
        reason: String,
    },
    /// Which data is needed is unknown, so none can be called unneeded.
    #[error("what {store} needs cannot be told: {reason}{}; nothing was changed, and stillpoint repo check says what is damaged and what to do", if *.others > 0 { format!(" ({} more)", .others) } else { String::new() })]
    NeedsUnknown {
        /// Address of the store.
        store: String,
        /// The first thing that cannot be read.
        reason: String,
        /// How many others there are.
        others: u64,
    },
    /// The caller asked to stop.
    #[error("stopped as asked; what is half done is finished by doing it again")]
    Cancelled,
    /// Our own lock was removed or could not be refreshed.
    #[error("the lock on {store} was lost: {reason}; nothing was committed, run the operation again")]
    LockLost {
        /// Address of the store.
        store: String,
        /// How it was lost.
        reason: String,
    },
    /// A commit ended the writer, or its runtime did.
    #[error("the writer was closed and takes no more data")]
    WriterClosed,
    /// An earlier write failed, so nothing more is taken and nothing is committed.
    #[error("an earlier write failed and nothing was committed: {source}")]
    WriterFailed {
        /// The first error.
        #[source]
        source: std::sync::Arc<Error>,
    },
    /// The caller's data cannot be stored.
    #[error("{what} cannot be stored: {reason}")]
    Invalid {
        /// What was to be stored.
        what: String,
        /// Why not.
        reason: String,
    },
    /// Something read back is larger than the caller or the format allows.
    #[error("{what} is larger than the limit of {limit} bytes")]
    TooLarge {
        /// What is too large.
        what: String,
        /// The limit, in bytes.
        limit: u64,
    },
    /// The runtime was stopped under the operation.
    #[error("the operation was stopped before it was done")]
    Stopped {
        /// What the runtime said.
        #[source]
        source: tokio::task::JoinError,
    },
}

impl Error {
    /// Whether this says that a file is absent, rather than unreadable.
    pub fn is_missing(&self) -> bool {
        matches!(self, Self::FileMissing { .. })
    }

    /// Whether this says that something in the repository is damaged or lost, while the repository can be read.
    pub fn is_damage(&self) -> bool {
        matches!(
            self,
            Self::Damaged { .. }
                | Self::BlobMissing { .. }
                | Self::FileMissing { .. }
                | Self::Store { .. }
                | Self::TooLarge { .. }
        )
    }

    pub(crate) fn damaged(path: impl Into<String>, reason: impl Into<String>) -> Self {
        Self::Damaged { path: path.into(), reason: reason.into() }
    }

    pub(crate) fn invalid(what: impl Into<String>, reason: impl Into<String>) -> Self {
        Self::Invalid { what: what.into(), reason: reason.into() }
    }
}

impl From<tokio::task::JoinError> for Error {
    fn from(source: tokio::task::JoinError) -> Self {
        Self::Stopped { source }
    }
}
