//! Removes locks that nobody holds any more, or all.
//!
//! What is removed and what stays is returned in full: somebody who unlocks decides whether others lose their work.

use jiff::Timestamp;

use super::file::{self, LockFile, Stale};
use crate::{
    Error, Id, Repository,
    files::{Files, Folder},
};

/// What a lock is worth.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LockState {
    /// Somebody works on the repository.
    Live,
    /// Its holder is gone.
    Stale(Stale),
    /// It cannot be read, and why.
    Unreadable(String),
}

/// Who took a lock.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Holder {
    /// When the lock was written or refreshed last.
    pub since: Timestamp,
    /// Whether it excludes everybody.
    pub exclusive: bool,
    /// User that took it.
    pub user: String,
    /// Host, or uid of the pod.
    pub host: String,
    /// Process on that host.
    pub pid: u32,
}

/// A lock that was found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FoundLock {
    /// Name of its file.
    pub id: Id,
    /// Who took it, as far as it can be read.
    pub holder: Option<Holder>,
    /// What it is worth.
    pub state: LockState,
}

/// What became of the locks.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Unlocked {
    /// Those that were removed.
    pub removed: Vec<FoundLock>,
    /// Those that stay.
    pub kept: Vec<FoundLock>,
}

impl Repository {
    /// Removes stale locks, or every lock.
    ///
    /// A writer whose lock is removed commits nothing. One of restic may go on: remove live locks only if you know that
    /// nobody works on the repository.
    ///
    /// # Errors
    /// Those of the store.
    pub async fn unlock(&self, all: bool) -> Result<Unlocked, Error> {
        let mut unlocked = Unlocked::default();
        for found in self.locks().await? {
            let id = found.id;
            if all || matches!(found.state, LockState::Stale(_)) {
                self.files().remove(Folder::Locks, &id).await?;
                unlocked.removed.push(found);
            } else {
                unlocked.kept.push(found);
            }
        }
        Ok(unlocked)
    }

    /// All locks, ours too.
    pub(crate) async fn locks(&self) -> Result<Vec<FoundLock>, Error> {
        let mut locks = Vec::new();
        for id in self.files().list(Folder::Locks).await? {
            locks.extend(look(self.files(), id).await?);
        }
        Ok(locks)
    }
}

async fn look(files: &Files, id: Id) -> Result<Option<FoundLock>, Error> {
    let found = match file::read(files, &id).await? {
        None => return Ok(None),
        Some(Err(reason)) => FoundLock { id, holder: None, state: LockState::Unreadable(reason) },
        Some(Ok(lock)) => {
            let state = lock.stale().map_or(LockState::Live, LockState::Stale);
            let LockFile { time: since, exclusive, username: user, hostname: host, pid, .. } = lock;
            FoundLock { id, holder: Some(Holder { since, exclusive, user, host, pid }), state }
        }
    };
    Ok(Some(found))
}
