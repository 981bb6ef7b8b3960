//! Keeps prunes away from whoever reads for long.
//!
//! A reader needs nothing of the lock but that it is there: whatever it reads is checked by its id, so a lock that is lost
//! can make it fail, never make it wrong.

use super::{Lock, LockKind};
use crate::{Error, Repository};

/// A non-exclusive lock of somebody who only reads.
#[must_use = "a prune may remove what is read as soon as this is dropped"]
pub struct ReadLock(Option<Lock>);

impl ReadLock {
    /// Removes the lock and waits until that is done. Dropping it does the same as soon as the runtime gets to it, which
    /// a program that is about to end does not wait for.
    pub async fn release(self) {
        if let Some(lock) = self.0 {
            lock.release().await;
        }
    }
}

impl Repository {
    /// Takes a lock for reading: while it is held, no prune removes what is read. What is found with it, snapshots and
    /// then the index, must be looked for after that.
    ///
    /// # Errors
    /// Those of [`Repository::read_lock_while`].
    pub async fn read_lock(&self) -> Result<ReadLock, Error> {
        let (lock, ()) = self.read_lock_while(|| async { Ok::<_, Error>(()) }).await?;
        Ok(lock)
    }

    /// Takes a lock for reading, and uses the time in which others may still object to it for `meanwhile`, which must
    /// read only. What it found counts if nobody objected; it starts anew with each try.
    ///
    /// A lock that cannot be read is no hindrance: nobody can take an exclusive one beside it.
    ///
    /// # Errors
    /// [`Error::Locked`] while a prune or a forget runs, [`Error::ReadOnly`] or [`Error::AccessDenied`] where a lock
    /// cannot be written; then those of `meanwhile`.
    pub async fn read_lock_while<T, E, F>(&self, meanwhile: impl Fn() -> F) -> Result<(ReadLock, T), E>
    where
        F: Future<Output = Result<T, E>>,
        E: From<Error>,
    {
        match Lock::acquire_while(self.files(), LockKind::Shared, self.patience(), &meanwhile).await {
            Ok((lock, found)) => lock.with(found).await.map(|(lock, found)| (ReadLock(Some(lock)), found)),
            Err(Error::LockUnreadable { .. }) => Ok((ReadLock(None), meanwhile().await?)),
            Err(error) => Err(error.into()),
        }
    }
}
