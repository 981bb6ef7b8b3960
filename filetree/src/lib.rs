//! Backs up directory trees of a host into a repository, and restores them.
//!
//! Apart from the repository, which knows no file system, so that everything that can surprise on one — files that
//! change while they are read, names of any bytes, holes, hard links — is met in one place.

#![cfg_attr(test, allow(clippy::unwrap_used))]

pub mod backup;
pub mod diff;
pub mod listing;
pub mod restore;
pub mod selection;
pub mod volume;

use std::sync::{Mutex, MutexGuard, PoisonError};

/// A panic under a lock fails the work by itself; what the lock guards is still read for the report.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
