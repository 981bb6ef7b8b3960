//! Says how far long work on a whole repository is, and lets it be stopped.
//!
//! Values in a watch channel, so the work never waits for whoever looks. Stopping is asked for rather than done by
//! dropping, because a lock wants to be removed before the process ends.

use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::Error;

/// What the work does now.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Stage {
    /// Index files and the list of packs.
    #[default]
    Index,
    /// Every byte of packs, for a check.
    Packs,
    /// Directories of all snapshots.
    Trees,
    /// Copies what is needed out of packs that are to go.
    Repack,
    /// Writes new index files and removes the old.
    Rewrite,
    /// Removes packs.
    Delete,
}

/// How far it is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Progress {
    /// What it does now.
    pub stage: Stage,
    /// How many of it are done.
    pub done: u64,
    /// How many there are; 0 if nobody knows yet.
    pub total: u64,
}

/// The two ends that the caller of long work holds.
#[derive(Debug, Default)]
pub struct Control {
    /// Where it says how far it is.
    pub progress: watch::Sender<Progress>,
    /// Cancelled, it ends the work with [`Error::Cancelled`].
    pub cancel: CancellationToken,
}

impl Control {
    pub(crate) fn tell(&self, stage: Stage, done: u64, total: u64) {
        self.progress.send_replace(Progress { stage, done, total });
    }

    /// Runs work until it ends or is to end.
    pub(crate) async fn until_cancelled<T>(&self, work: impl Future<Output = Result<T, Error>>) -> Result<T, Error> {
        self.cancel.run_until_cancelled(work).await.unwrap_or(Err(Error::Cancelled))
    }
}
