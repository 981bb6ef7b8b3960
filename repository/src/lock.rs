//! Locks a repository by restic's own protocol, so that no prune removes what a backup relies on.
//!
//! A lock is a file that a task of ours writes, refreshes and removes. The task owns it from before the first byte is
//! sent until it is gone, so a caller that gives up half way leaves nothing behind.
//!
//! # Flow
//! List the locks and refuse on a conflict; write ours and list again; wait, since the other side may be doing the
//! same; list once more and withdraw on a conflict. Refresh every 5 minutes by writing a new file and removing the old
//! one.
//!
//! # Guarantees
//! Writers share; an exclusive lock excludes everybody. [`Lock::verify`] succeeds only if the lock file is still there
//! and was refreshed recently enough that nobody may call it stale. [`Lease::check`] fails as soon as it is known that
//! it is not.
//!
//! # Caveats
//! A process that is killed leaves its lock. It counts as stale after 30 minutes, or at once on the same host. restic
//! asks whether a process of its host lives by sending it SIGHUP, so a process that takes a lock no longer ends by one.

mod file;
mod keeper;
mod read;
#[cfg(test)]
mod tests;
mod unlock;

use std::{sync::Arc, time::Duration};

use tokio::{
    sync::oneshot,
    task::JoinHandle,
    time::{self, Instant},
};
use tokio_util::sync::{CancellationToken, DropGuard};

pub(crate) use self::file::LockFile;
use self::keeper::Held;
pub use self::{
    file::Stale,
    read::ReadLock,
    unlock::{FoundLock, Holder, LockState, Unlocked},
};
use crate::{Error, files::Files};

/// The first pause before a lock is asked for again, and the longest: restic's.
const RETRY: (Duration, Duration) = (Duration::from_secs(5), Duration::from_secs(60));

/// How long the end of a lock is waited for: what its holder did may have failed because the store does not answer.
const RELEASE: Duration = Duration::from_secs(30);

const KEEPER_STOPPED: &str = "its task was stopped";

/// How long to wait for a lock of others: until it is free, this much time has passed, or the token is cancelled.
#[derive(Debug, Clone, Default)]
pub(crate) struct Patience {
    pub(crate) time: Duration,
    pub(crate) cancel: CancellationToken,
}

/// Who else may hold a lock beside this one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum LockKind {
    /// Others that share.
    Shared,
    /// Nobody.
    Exclusive,
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

/// A lock as those see it who work under it and do not own it.
#[derive(Clone)]
pub(crate) struct Lease(Arc<Held>);

impl Lease {
    /// Checks that the lock is not known to be lost.
    ///
    /// # Errors
    /// [`Error::LockLost`] if it is.
    pub(crate) fn check(&self) -> Result<(), Error> {
        self.0.check()
    }

    /// Confirms with the store that the lock is held, as [`Lock::verify`] does.
    ///
    /// # Errors
    /// [`Error::LockLost`] if it was removed or could not be refreshed in time.
    pub(crate) async fn verify(&self) -> Result<(), Error> {
        self.0.verify().await
    }
}

impl Lock {
    /// Takes a lock; one that is in the way is waited for as long as `patience` allows.
    ///
    /// # Errors
    /// [`Error::Locked`] names the holder of a lock that is in the way; [`Error::Cancelled`] ends the wait for it.
    pub(crate) async fn acquire(files: &Files, kind: LockKind, patience: &Patience) -> Result<Self, Error> {
        Self::acquire_while(files, kind, patience, || async {}).await.map(|(lock, ())| lock)
    }

    /// Takes a lock as [`Lock::acquire`] does, and uses the time in which others may still object.
    ///
    /// `meanwhile` starts when the lock is written and no other was seen after that, so what it reads is what the
    /// holder of a lock may read. What it found is handed out only if nobody objected; it starts anew with each try.
    ///
    /// # Errors
    /// Those of [`Lock::acquire`].
    pub(crate) async fn acquire_while<F: Future>(
        files: &Files,
        kind: LockKind,
        patience: &Patience,
        meanwhile: impl Fn() -> F,
    ) -> Result<(Self, F::Output), Error> {
        let deadline = Instant::now() + patience.time;
        let mut pause = RETRY.0;
        loop {
            let error = match Self::try_acquire(files, kind, &meanwhile).await {
                Err(error @ Error::Locked { .. }) if Instant::now() < deadline => error,
                other => return other,
            };
            if pause == RETRY.0 {
                tracing::warn!("{error}; waiting up to {} s for it", patience.time.as_secs());
            }
            let pausing = tokio::time::sleep_until(deadline.min(Instant::now() + pause));
            patience.cancel.run_until_cancelled(pausing).await.ok_or(Error::Cancelled)?;
            pause = RETRY.1.min(pause * 2);
        }
    }

    async fn try_acquire<F: Future>(
        files: &Files,
        kind: LockKind,
        meanwhile: impl Fn() -> F,
    ) -> Result<(Self, F::Output), Error> {
        let claim = Claim::write(files, kind).await?;
        // the first is what matters: whoever objects ends both
        futures::try_join!(claim.confirm(files), async { Ok(meanwhile().await) })
    }

    /// Goes on with what was found, or releases the lock if that failed.
    pub(crate) async fn with<T, E>(self, found: Result<T, E>) -> Result<(Self, T), E> {
        match found {
            Ok(found) => Ok((self, found)),
            Err(error) => {
                self.release().await;
                Err(error)
            }
        }
    }

    /// Checks that the lock still protects us.
    ///
    /// # Errors
    /// [`Error::LockLost`] if it was removed or could not be refreshed in time.
    pub(crate) async fn verify(&self) -> Result<(), Error> {
        self.held.verify().await
    }

    /// This lock for those who work under it.
    pub(crate) fn lease(&self) -> Lease {
        Lease(self.held.clone())
    }

    /// Removes the lock file and waits until that is done.
    pub(crate) async fn release(mut self) {
        self.ended.cancel();
        let Some(keeper) = self.keeper.take() else { return };
        match time::timeout(RELEASE, keeper).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => tracing::warn!(%error, "the task that keeps the repository lock ended badly"),
            Err(_) => tracing::warn!("the repository lock could not be removed in time; it is stale in 30 minutes"),
        }
    }
}

/// A lock that is written while others may still object; dropping it withdraws it.
struct Claim {
    ended: DropGuard,
    keeper: JoinHandle<()>,
    confirmed: oneshot::Receiver<Result<Arc<Held>, Error>>,
}

impl Claim {
    async fn write(files: &Files, kind: LockKind) -> Result<Self, Error> {
        let (written, is_written) = oneshot::channel();
        let (confirm, confirmed) = oneshot::channel();
        let ended = CancellationToken::new();
        let keeper = tokio::spawn(keeper::keep(files.clone(), kind, ended.clone(), written, confirm));
        let claim = Self { ended: ended.drop_guard(), keeper, confirmed };
        is_written.await.map_err(|_| lost(files, KEEPER_STOPPED))??;
        Ok(claim)
    }

    /// Waits until nobody can object any more.
    async fn confirm(self, files: &Files) -> Result<Lock, Error> {
        let held = self.confirmed.await.map_err(|_| lost(files, KEEPER_STOPPED))??;
        Ok(Lock { held, ended: self.ended.disarm(), keeper: Some(self.keeper) })
    }
}

fn lost(files: &Files, reason: &str) -> Error {
    Error::LockLost { store: files.store.to_string(), reason: reason.into() }
}
