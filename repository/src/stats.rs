//! Counts what a repository holds and what of it is needed.
//!
//! The numbers that an operator pays for or decides by: what is stored, what it stands for, and what a prune would free.

use futures::FutureExt;
use serde::Serialize;

use crate::{
    Error, Repository, Tally,
    inventory::Inventory,
    pack::{self, BlobKind},
    progress::{Control, Stage},
    prune::mark::{self, Marked},
};

/// What a repository holds.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct RepositoryStats {
    /// Snapshots of any kind.
    pub snapshots: u64,
    /// Directories, each once however many snapshots hold it.
    pub trees: u64,
    /// Files in them.
    pub files: u64,
    /// Blobs of files that are needed, as stored.
    pub data: Tally,
    /// Blobs of directories that are needed, as stored.
    pub directories: Tally,
    /// Plaintext of all blobs that are needed: what the snapshots hold, equal content once.
    pub plain_bytes: u64,
    /// Packs that exist.
    pub packs: Tally,
    /// Index files.
    pub indexes: u64,
    /// Bytes of packs that nothing needs: what a prune can free.
    pub unused_bytes: u64,
    /// Of these, packs that no index names.
    pub unreferenced: Tally,
}

impl RepositoryStats {
    /// Bytes of plaintext for each byte stored; `None` for an empty repository.
    #[expect(clippy::cast_precision_loss, reason = "a ratio for people")]
    pub fn compression(&self) -> Option<f64> {
        let stored = self.data.bytes + self.directories.bytes;
        (stored > 0).then(|| self.plain_bytes as f64 / stored as f64)
    }
}

impl Repository {
    /// Counts, under a non-exclusive lock that keeps prunes away. Takes the memory of a prune's plan.
    ///
    /// # Errors
    /// [`Error::NeedsUnknown`] if a snapshot, an index file or a directory cannot be read; [`Error::Locked`].
    pub async fn stats(&self, control: &Control) -> Result<RepositoryStats, Error> {
        let lock = self.read_lock().await?;
        let counted = control.until_cancelled(self.count(control).boxed()).await;
        lock.release().await;
        counted
    }

    async fn count(&self, control: &Control) -> Result<RepositoryStats, Error> {
        control.tell(Stage::Index, 0, 0);
        let snapshots = mark::snapshots(self).await?;
        let inventory = std::sync::Arc::new(Inventory::load(self.files()).await?);
        let marked = mark::mark(self, &inventory, &snapshots, control).await?;
        let snapshots = snapshots.len() as u64;
        let count = move || RepositoryStats { snapshots, ..count(&inventory, &marked) };
        Ok(tokio::task::spawn_blocking(count).await?)
    }
}

fn count(inventory: &Inventory, marked: &Marked) -> RepositoryStats {
    let mut stats = RepositoryStats { trees: marked.trees, files: marked.files, ..RepositoryStats::default() };
    for position in marked.needed.ones() {
        let blob = inventory.places[position].blob();
        let of_kind = match blob.kind {
            BlobKind::Data => &mut stats.data,
            BlobKind::Tree => &mut stats.directories,
        };
        of_kind.add(u64::from(blob.length) + blob.entry());
        stats.plain_bytes += blob.plain();
    }
    let named = inventory.packs.iter().filter_map(|pack| pack.size);
    let frames = pack::FRAME * named.clone().count() as u64;
    named.for_each(|size| stats.packs.add(size));
    for (_, size) in &inventory.unreferenced {
        stats.packs.add(*size);
        stats.unreferenced.add(*size);
    }
    stats.indexes = inventory.indexes.len() as u64;
    let needed = stats.data.bytes + stats.directories.bytes + frames;
    stats.unused_bytes = stats.packs.bytes.saturating_sub(needed);
    stats
}
