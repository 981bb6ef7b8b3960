//! What stands in `locks/`: who works on the repository, and whether they still do.
//!
//! The file is restic's, with one field more: in which space the process number counts. restic passes over it.

use std::{collections::HashSet, time::Duration};

use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};

use super::LockKind;
use crate::{
    Error, Id,
    files::{Files, Folder},
    process::Process,
};

/// Without a refresh for so long, a holder is taken for dead.
const STALE: SignedDuration = SignedDuration::from_mins(30);
/// How often and after how long a lock that cannot be read is looked at again.
const UNREADABLE_PAUSES: [Duration; 3] = [Duration::from_secs(1), Duration::from_secs(2), Duration::from_secs(4)];

/// A file in `locks/`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct LockFile {
    pub(crate) time: Timestamp,
    pub(crate) exclusive: bool,
    pub(crate) hostname: String,
    pub(crate) username: String,
    pub(crate) pid: u32,
    #[serde(default)]
    pub(crate) uid: u32,
    #[serde(default)]
    pub(crate) gid: u32,
    #[serde(default, rename = "pidSpace", skip_serializing_if = "Option::is_none")]
    pub(crate) pid_space: Option<String>,
}

/// Why a lock protects nobody any more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stale {
    /// It was not refreshed for 30 minutes.
    Expired,
    /// The process that took it has ended.
    ProcessGone,
}

impl std::fmt::Display for Stale {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Expired => "not refreshed for 30 minutes",
            Self::ProcessGone => "its process has ended",
        })
    }
}

impl LockFile {
    /// A lock of this process, as of now.
    pub(super) fn ours(kind: LockKind) -> Self {
        let Process { host, user, pid, uid, gid, pid_space, .. } = Process::current().clone();
        let exclusive = kind == LockKind::Exclusive;
        Self { time: Timestamp::now(), exclusive, hostname: host, username: user, pid, uid, gid, pid_space }
    }

    /// Whether its holder is gone.
    pub(super) fn stale(&self) -> Option<Stale> {
        if Timestamp::now().duration_since(self.time) > STALE {
            return Some(Stale::Expired);
        }
        let gone = Process::current().knows_gone(&self.hostname, self.pid, self.pid_space.as_deref());
        gone.then_some(Stale::ProcessGone)
    }

    fn excludes(&self, kind: LockKind) -> bool {
        kind == LockKind::Exclusive || self.exclusive
    }

    fn conflict(self, files: &Files) -> Error {
        let Self { time, exclusive, hostname, username, pid, .. } = self;
        Error::Locked { store: files.store.to_string(), exclusive, user: username, host: hostname, pid, since: time }
    }
}

/// A lock that was found, and what is in it or why that cannot be read; `None` if it is gone by now.
pub(super) async fn read(files: &Files, id: &Id) -> Result<Option<Result<LockFile, String>>, Error> {
    match files.read(Folder::Locks, id).await {
        Ok(json) => Ok(Some(serde_json::from_slice(&json).map_err(|error| error.to_string()))),
        Err(error) if error.is_missing() => Ok(None),
        Err(Error::Damaged { reason, .. }) => Ok(Some(Err(reason))),
        Err(error) => Err(error),
    }
}

/// All locks. An empty file is none: it is what an upload leaves that broke off on a store that does not replace whole
/// files, so its writer never held it.
pub(super) async fn list(files: &Files) -> Result<Vec<Id>, Error> {
    let entries = files.store.list("locks").await?;
    Ok(entries.iter().filter(|entry| entry.size > 0).filter_map(|entry| entry.name.parse().ok()).collect())
}

/// Refuses if a lock excludes one of `kind`. Those in `harmless` are not looked at; what does not exclude joins them.
///
/// # Errors
/// [`Error::Locked`]; [`Error::LockUnreadable`] if a lock could not be read again and again: it permits nothing.
pub(super) async fn refuse_conflict(files: &Files, kind: LockKind, harmless: &mut HashSet<Id>) -> Result<(), Error> {
    for pause in UNREADABLE_PAUSES {
        match look_for_conflict(files, kind, harmless).await {
            // it may be on its way
            Err(Error::LockUnreadable { .. }) => tokio::time::sleep(pause).await,
            other => return other,
        }
    }
    look_for_conflict(files, kind, harmless).await
}

async fn look_for_conflict(files: &Files, kind: LockKind, harmless: &mut HashSet<Id>) -> Result<(), Error> {
    for id in list(files).await? {
        if harmless.contains(&id) {
            continue;
        }
        match read(files, &id).await? {
            None => {}
            Some(Err(reason)) => return Err(Error::LockUnreadable { store: files.store.to_string(), id, reason }),
            Some(Ok(other)) if !other.excludes(kind) => drop(harmless.insert(id)),
            Some(Ok(other)) => match other.stale() {
                None => return Err(other.conflict(files)),
                Some(why) => remove_stale(files, &id, &other, why).await?,
            },
        }
    }
    Ok(())
}

/// Its holder may only sleep: an absent lock is how it learns that others went on without it.
async fn remove_stale(files: &Files, id: &Id, lock: &LockFile, why: Stale) -> Result<(), Error> {
    let LockFile { hostname, username, pid, .. } = lock;
    tracing::warn!("removing the stale lock of {username} on {hostname} (pid {pid}): {why}");
    files.remove(Folder::Locks, id).await
}
