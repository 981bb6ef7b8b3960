//! Locks a repository by restic's own protocol, so that no prune removes what a backup relies on.
//!
//! A lock is a file that a task of ours writes, refreshes and removes. The task owns it from before the first byte is
//! sent until it is gone, so a caller that gives up half way leaves nothing behind.
//!
//! # Flow
//! List the locks and refuse on a conflict; write ours; wait, since the other side may be doing the same; list again
//! and withdraw on a conflict. Refresh every 5 minutes by writing a new file and removing the old one.
//!
//! # Guarantees
//! Writers share; an exclusive lock excludes everybody. [`Lock::verify`] succeeds only if the lock file is still there
//! and was refreshed recently enough that nobody may call it stale.
//!
//! # Caveats
//! A process that is killed leaves its lock. It counts as stale after 30 minutes, or at once on the same host.

use std::{sync::Arc, time::Duration};

use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};
use tokio::{
    sync::{Mutex, oneshot},
    task::JoinHandle,
    time::Instant,
};
use tokio_util::sync::CancellationToken;

use crate::{
    Error, Id,
    files::{Files, Folder},
    process::{self, Process},
};

const SETTLE: Duration = Duration::from_millis(200);
const REFRESH: Duration = Duration::from_secs(5 * 60);
const RETRY_REFRESH: Duration = Duration::from_secs(30);
/// Short of the 30 minutes after which others call a lock stale, so that we notice before they do.
const TRUSTED: Duration = Duration::from_secs(25 * 60);
const STALE: SignedDuration = SignedDuration::from_mins(30);

/// Who else may hold a lock beside this one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum LockKind {
    /// Others that share.
    Shared,
    /// Nobody.
    Exclusive,
}

/// A file in `locks/`.
#[derive(Debug, Serialize, Deserialize)]
struct LockFile {
    time: Timestamp,
    exclusive: bool,
    hostname: String,
    username: String,
    pid: u32,
    #[serde(default)]
    uid: u32,
    #[serde(default)]
    gid: u32,
}

impl LockFile {
    fn ours(kind: LockKind) -> Self {
        let Process { host, user, pid, uid, gid } = Process::current().clone();
        let exclusive = kind == LockKind::Exclusive;
        Self { time: Timestamp::now(), exclusive, hostname: host, username: user, pid, uid, gid }
    }

    /// Whether its holder is gone: too long without a refresh, or a dead process of this host.
    fn is_stale(&self) -> bool {
        let dead = || self.hostname == Process::current().host && process::is_gone(self.pid);
        Timestamp::now().duration_since(self.time) > STALE || dead()
    }

    fn conflict(self, files: &Files) -> Error {
        let Self { time, exclusive, hostname, username, pid, .. } = self;
        Error::Locked { store: files.store.to_string(), exclusive, user: username, host: hostname, pid, since: time }
    }
}

/// What became of our lock file.
enum State {
    /// It was there when last looked at.
    Held { id: Id, refreshed: Instant },
    /// Others may work as if we were not here.
    Lost(String),
}

struct Held {
    files: Files,
    kind: LockKind,
    state: Mutex<State>,
}

/// A lock that is held; dropping it removes the lock file as soon as the runtime gets to it.
pub(crate) struct Lock {
    held: Arc<Held>,
    ended: CancellationToken,
    keeper: Option<JoinHandle<()>>,
}

impl Drop for Lock {
    fn drop(&mut self) {
        self.ended.cancel();
    }
}

impl Lock {
    /// Takes a lock.
    ///
    /// # Errors
    /// [`Error::Locked`] names the holder of a lock that is in the way.
    pub(crate) async fn acquire(files: &Files, kind: LockKind) -> Result<Self, Error> {
        let (ready, taken) = oneshot::channel();
        let ended = CancellationToken::new();
        let keeper = tokio::spawn(keep(files.clone(), kind, ended.clone(), ready));
        let give_up = ended.clone().drop_guard();
        let held = taken.await.map_err(|_| lost(files, "its task was stopped"))??;
        give_up.disarm();
        Ok(Self { held, ended, keeper: Some(keeper) })
    }

    /// Checks that the lock still protects us.
    ///
    /// # Errors
    /// [`Error::LockLost`] if it was removed or could not be refreshed in time.
    pub(crate) async fn verify(&self) -> Result<(), Error> {
        let mut state = self.held.state.lock().await;
        self.held.look(&mut state).await
    }

    /// Removes the lock file and waits until that is done.
    pub(crate) async fn release(mut self) {
        self.ended.cancel();
        if let Some(keeper) = self.keeper.take()
            && let Err(error) = keeper.await
        {
            tracing::warn!(%error, "the task that keeps the repository lock ended badly");
        }
    }
}

fn lost(files: &Files, reason: &str) -> Error {
    Error::LockLost { store: files.store.to_string(), reason: reason.into() }
}

impl Held {
    /// Confirms that our lock file is there, and remembers for good if it is not.
    async fn look(&self, state: &mut State) -> Result<(), Error> {
        let (id, refreshed) = match state {
            State::Lost(reason) => return Err(lost(&self.files, reason)),
            State::Held { id, refreshed } => (*id, *refreshed),
        };
        let reason = if refreshed.elapsed() > TRUSTED {
            "it could not be refreshed in time"
        } else if self.files.list(Folder::Locks).await?.contains(&id) {
            return Ok(());
        } else {
            "somebody removed it"
        };
        *state = State::Lost(reason.into());
        Err(lost(&self.files, reason))
    }

    async fn refresh(&self) -> Result<(), Error> {
        let mut state = self.state.lock().await;
        self.look(&mut state).await?;
        let new = write(&self.files, self.kind).await?;
        if let State::Held { id, refreshed } = &mut *state {
            let old = std::mem::replace(id, new);
            *refreshed = Instant::now();
            remove(&self.files, &old).await;
        }
        Ok(())
    }

    async fn remove(&self) {
        if let State::Held { id, .. } = &*self.state.lock().await {
            remove(&self.files, id).await;
        }
    }
}

async fn keep(
    files: Files,
    kind: LockKind,
    ended: CancellationToken,
    ready: oneshot::Sender<Result<Arc<Held>, Error>>,
) {
    let id = match obtain(&files, kind).await {
        Ok(id) => id,
        // a caller that is gone needs no error
        Err(error) => return drop(ready.send(Err(error))),
    };
    let state = Mutex::new(State::Held { id, refreshed: Instant::now() });
    let held = Arc::new(Held { files, kind, state });
    if ready.send(Ok(held.clone())).is_ok() {
        refresh_until(&held, &ended).await;
    }
    held.remove().await;
}

async fn refresh_until(held: &Held, ended: &CancellationToken) {
    let mut pause = REFRESH;
    while ended.run_until_cancelled(tokio::time::sleep(pause)).await.is_some() {
        pause = match held.refresh().await {
            Ok(()) => REFRESH,
            Err(error) => {
                tracing::warn!(%error, "the repository lock could not be refreshed");
                RETRY_REFRESH
            }
        };
    }
}

async fn obtain(files: &Files, kind: LockKind) -> Result<Id, Error> {
    refuse_conflict(files, kind, None).await?;
    let id = write(files, kind).await?;
    tokio::time::sleep(SETTLE).await;
    if let Err(error) = refuse_conflict(files, kind, Some(id)).await {
        remove(files, &id).await;
        return Err(error);
    }
    Ok(id)
}

async fn refuse_conflict(files: &Files, kind: LockKind, own: Option<Id>) -> Result<(), Error> {
    for (id, json) in files.read_all(Folder::Locks).await? {
        if own == Some(id) {
            continue;
        }
        let path = Folder::Locks.path(&id);
        let other: LockFile = serde_json::from_slice(&json).map_err(|error| Error::damaged(path, error.to_string()))?;
        if (kind == LockKind::Exclusive || other.exclusive) && !other.is_stale() {
            return Err(other.conflict(files));
        }
    }
    Ok(())
}

async fn write(files: &Files, kind: LockKind) -> Result<Id, Error> {
    let json =
        serde_json::to_vec(&LockFile::ours(kind)).map_err(|error| Error::invalid("a lock", error.to_string()))?;
    let file = files.seal(Folder::Locks, json).await?;
    let id = file.id;
    let written = files.write(file).await;
    if written.is_err() {
        // the answer may be what was lost, not the file
        remove(files, &id).await;
    }
    written
}

/// Best effort: what stays behind is stale in 30 minutes.
async fn remove(files: &Files, id: &Id) {
    if let Err(error) = files.remove(Folder::Locks, id).await {
        tracing::warn!(%error, lock = %id, "a repository lock could not be removed; restic unlock removes it once stale");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        crypto::{Cipher, KEY_LENGTH},
        store::Store,
    };

    fn files() -> Files {
        Files { store: Store::memory(), cipher: Cipher::new(&[1; KEY_LENGTH]) }
    }

    async fn locks(files: &Files) -> usize {
        files.list(Folder::Locks).await.unwrap().len()
    }

    async fn put(files: &Files, lock: &LockFile) {
        let file = files.seal(Folder::Locks, serde_json::to_vec(lock).unwrap()).await.unwrap();
        files.write(file).await.unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn writers_share_and_an_exclusive_lock_excludes_both_ways() {
        let files = files();
        let a = Lock::acquire(&files, LockKind::Shared).await.unwrap();
        let b = Lock::acquire(&files, LockKind::Shared).await.unwrap();
        let Err(refused) = Lock::acquire(&files, LockKind::Exclusive).await else { panic!("not refused") };
        let me = Process::current();
        assert!(refused.to_string().contains(&format!("by {} on {} (pid {})", me.user, me.host, me.pid)), "{refused}");
        a.release().await;
        b.release().await;
        assert_eq!(locks(&files).await, 0);

        let alone = Lock::acquire(&files, LockKind::Exclusive).await.unwrap();
        assert!(Lock::acquire(&files, LockKind::Shared).await.is_err());
        assert!(Lock::acquire(&files, LockKind::Exclusive).await.is_err());
        alone.verify().await.unwrap();
        assert_eq!(locks(&files).await, 1, "refused locks leave no file");
    }

    #[tokio::test(start_paused = true)]
    async fn a_dropped_lock_is_removed() {
        let files = files();
        drop(Lock::acquire(&files, LockKind::Exclusive).await.unwrap());
        while locks(&files).await > 0 {
            tokio::time::sleep(SETTLE).await;
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_caller_that_gives_up_while_waiting_leaves_no_lock() {
        let files = files();
        let waiting = Lock::acquire(&files, LockKind::Exclusive);
        assert!(tokio::time::timeout(SETTLE / 2, waiting).await.is_err());
        while locks(&files).await > 0 {
            tokio::time::sleep(SETTLE).await;
        }
        Lock::acquire(&files, LockKind::Exclusive).await.unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn a_lock_is_refreshed_under_a_new_name() {
        let files = files();
        let lock = Lock::acquire(&files, LockKind::Shared).await.unwrap();
        let first = files.list(Folder::Locks).await.unwrap();
        tokio::time::sleep(REFRESH + Duration::from_secs(1)).await;
        while files.list(Folder::Locks).await.unwrap() == first || locks(&files).await != 1 {
            tokio::time::sleep(SETTLE).await;
        }
        lock.verify().await.unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn a_removed_lock_is_lost_for_good() {
        let files = files();
        let lock = Lock::acquire(&files, LockKind::Shared).await.unwrap();
        for id in files.list(Folder::Locks).await.unwrap() {
            files.remove(Folder::Locks, &id).await.unwrap();
        }
        for _ in 0..2 {
            assert!(matches!(lock.verify().await, Err(Error::LockLost { .. })));
        }
        tokio::time::sleep(REFRESH * 2).await;
        assert!(matches!(lock.verify().await, Err(Error::LockLost { .. })));
        assert_eq!(locks(&files).await, 0);
    }

    #[tokio::test(start_paused = true)]
    async fn stale_locks_are_passed_over_and_live_ones_of_other_hosts_are_not() {
        let files = files();
        let mut child = std::process::Command::new("true").spawn().unwrap();
        child.wait().unwrap();
        put(&files, &LockFile { pid: child.id(), ..LockFile::ours(LockKind::Exclusive) }).await;
        let old = Timestamp::now() - SignedDuration::from_mins(31);
        let elsewhere = || LockFile { hostname: "elsewhere".into(), pid: 1, ..LockFile::ours(LockKind::Exclusive) };
        put(&files, &LockFile { time: old, ..elsewhere() }).await;
        Lock::acquire(&files, LockKind::Shared).await.unwrap().release().await;

        put(&files, &elsewhere()).await;
        assert!(matches!(Lock::acquire(&files, LockKind::Shared).await, Err(Error::Locked { pid: 1, .. })));
    }

    #[tokio::test]
    async fn a_lock_that_cannot_be_read_is_no_permission() {
        let files = files();
        let id = Id::of(b"garbage");
        files.store.put(&Folder::Locks.path(&id), "garbage".into()).await.unwrap();
        assert!(matches!(Lock::acquire(&files, LockKind::Shared).await, Err(Error::Damaged { .. })));
    }
}
