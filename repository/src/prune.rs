//! Removes what no snapshot needs: a plan first, then its execution.
//!
//! # Flow
//! Exclusive lock → snapshots → index and packs → every directory of every snapshot → plan. Then, in an order in which
//! a crash at any point loses nothing: copy what is needed out of packs that go → write new index files → remove the
//! old ones → remove packs. What a crash leaves is packs that no index names and blobs that two packs hold; the next
//! prune removes both.
//!
//! # Guarantees
//! Nothing is removed unless every snapshot and directory was read and every blob they need lies in a pack that exists.
//! What is copied was decrypted and compared with its id, and so is the last copy of a blob before its others go. The
//! lock is looked at before each step that removes, and a lost one ends the prune. Whose snapshots they are does not
//! matter, with one exception: those that kept parts of a backup go, because only who holds a lock could still commit it.
//!
//! # Assumptions
//! A pack that no index names belongs to a writer that is dead: each holds a lock from before its first pack to after
//! its snapshot, and while ours is exclusive there is none. A writer that lost its lock commits nothing.
//!
//! # Caveats
//! Memory: 52 bytes and 8 bits for every place of a blob, twice that while the index loads and 4 more bytes while
//! copying; 48 bytes for every blob that is copied; 64 MiB of directories under way, and about 100 MiB of packs.

mod copy;
mod execute;
pub(crate) mod mark;
mod plan;

use std::sync::Arc;

use futures::FutureExt;
use serde::Serialize;

use self::plan::Plan;
use crate::{
    Error, Repository,
    files::Files,
    inventory::Inventory,
    lock::{Lock, LockKind},
    progress::{Control, Stage},
    snapshot::PART_TAG,
};

/// What a prune is to do.
#[derive(Debug, Clone, Copy)]
pub struct PruneRequest {
    /// How much of the repository may stay unused, in percent of its size: freeing all of it would mean to copy whole
    /// packs for a few bytes.
    pub max_unused_percent: f64,
    /// Put small packs together too, as many small backups leave them.
    pub repack_small: bool,
}

impl Default for PruneRequest {
    /// Five percent, as restic.
    fn default() -> Self {
        Self { max_unused_percent: 5.0, repack_small: false }
    }
}

/// A number of packs or blobs, and their bytes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Tally {
    /// How many.
    pub count: u64,
    /// Their bytes as stored.
    pub bytes: u64,
}

impl Tally {
    pub(crate) fn add(&mut self, bytes: u64) {
        self.count += 1;
        self.bytes += bytes;
    }
}

/// What a prune is going to do.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct PrunePlan {
    /// Snapshots whose data stays.
    pub snapshots: u64,
    /// Snapshots that kept parts of a backup that was never committed: they go.
    pub orphans: u64,
    /// Blobs that they need.
    pub needed: Tally,
    /// Packs that stay as they are.
    pub keep: Tally,
    /// Packs that are needed in part and go after that was copied out of them.
    pub repack: Tally,
    /// What is copied out of them.
    pub copy: Tally,
    /// Packs of which nothing is needed, or only what others hold too.
    pub delete: Tally,
    /// Packs that no index names.
    pub unreferenced: Tally,
    /// Packs that the index names, that do not exist, and that nothing needs: they leave the index.
    pub vanished: u64,
    /// Blobs that are stored more than once and of which one copy stays.
    pub duplicates: Tally,
    /// Bytes that become free.
    pub freed: u64,
    /// Bytes that stay although nothing needs them.
    pub unused_left: u64,
    /// Bytes that may stay so by the request.
    pub unused_allowed: u64,
    /// Index files that stay.
    pub indexes_kept: u64,
    /// Index files that are replaced by new ones.
    pub indexes_replaced: u64,
}

impl PrunePlan {
    /// Whether there is nothing to do.
    pub fn is_empty(&self) -> bool {
        self.orphans + self.repack.count + self.delete.count + self.unreferenced.count + self.indexes_replaced == 0
    }
}

/// What a prune did.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct PruneReport {
    /// Packs that were written.
    pub written: Tally,
    /// Packs that were removed.
    pub removed: Tally,
    /// Blobs that were damaged where they were to stay, and were saved from another pack.
    pub rescued: u64,
}

/// A plan under the lock that makes it true. Dropping it leaves the repository as it is.
pub struct Prune {
    files: Arc<Files>,
    lock: Lock,
    inventory: Arc<Inventory>,
    plan: Plan,
}

impl Repository {
    /// Locks the repository for us alone and finds out what can be removed. Nothing is changed yet.
    ///
    /// # Errors
    /// [`Error::Locked`] while anybody works on the repository; [`Error::NeedsUnknown`] if a snapshot, an index file or a
    /// directory cannot be read or a blob that is needed is missing: what is needed is unknown then.
    pub async fn prune(&self, request: &PruneRequest, control: &Control) -> Result<Prune, Error> {
        let lock = self.lock(LockKind::Exclusive).await?;
        let planned = control.until_cancelled(self.plan_prune(request, control).boxed()).await;
        let (lock, (inventory, plan)) = lock.with(planned).await?;
        Ok(Prune { files: self.shared_files(), lock, inventory, plan })
    }

    async fn plan_prune(&self, request: &PruneRequest, control: &Control) -> Result<(Arc<Inventory>, Plan), Error> {
        control.tell(Stage::Index, 0, 0);
        // whoever could still commit what they are parts of would hold a lock
        let (orphans, snapshots): (Vec<_>, Vec<_>) =
            mark::snapshots(self).await?.into_iter().partition(|snapshot| snapshot.has_tag(PART_TAG));
        let inventory = Arc::new(Inventory::load(self.files()).await?);
        let marked = mark::mark(self, &inventory, &snapshots, control).await?;
        let (planned, request) = (inventory.clone(), *request);
        let count = snapshots.len() as u64;
        let mut plan = tokio::task::spawn_blocking(move || plan::plan(&planned, &marked, &request, count)).await?;
        plan.summary.orphans = orphans.len() as u64;
        plan.orphans = orphans.into_iter().map(|orphan| orphan.id).collect();
        Ok((inventory, plan))
    }
}

impl Prune {
    /// What is going to be done.
    pub fn plan(&self) -> &PrunePlan {
        &self.plan.summary
    }

    /// Does it.
    ///
    /// # Errors
    /// [`Error::NeedsUnknown`] if a blob that is needed is damaged wherever it lies, before anything was removed;
    /// [`Error::LockLost`]; those of the store. After any error the repository is whole, and a prune run again finishes.
    pub async fn execute(self, control: &Control) -> Result<PruneReport, Error> {
        let Self { files, lock, inventory, plan } = self;
        let work = execute::execute(&files, &lock, &inventory, &plan, control).boxed();
        let done = control.until_cancelled(work).await;
        lock.release().await;
        done
    }

    /// Gives the lock back without having done anything.
    pub async fn abandon(self) {
        self.lock.release().await;
    }
}
