//! Carries a plan out, each step only when the one before is complete.
//!
//! Orphaned snapshots → new packs → new index files → old index files → old packs. Until the old index files go, everything old is still
//! there; from then on nothing that the index names goes.

use fixedbitset::FixedBitSet;
use futures::{StreamExt, TryStreamExt, stream};

use super::{
    PruneReport, Tally, copy,
    plan::{Fate, Plan},
};
use crate::{
    Error, Id,
    files::{Files, Folder},
    index::NewPacks,
    inventory::Inventory,
    lock::Lock,
    progress::{Control, Stage},
    upload::pack_path,
};

/// Files removed at the same time.
const CONCURRENT: usize = 8;
/// Files removed between two looks at the lock.
const BETWEEN_LOOKS: usize = 500;
/// Blobs of one index file, as a writer has them.
const INDEXED_TOGETHER: usize = 25_000;

pub(super) async fn execute(
    files: &Files,
    lock: &Lock,
    inventory: &Inventory,
    plan: &Plan,
    control: &Control,
) -> Result<PruneReport, Error> {
    let tell = |stage, done, total| control.tell(stage, done, total);
    // first of all: they must not outlive what they name
    let orphans = plan.orphans.iter().map(|id| Folder::Snapshots.path(id)).collect();
    remove(files, lock, orphans, |_| {}).await?;
    let to_copy = plan.copies.union_count(&plan.witnesses) as u64;
    let copied = copy::copy(files, inventory, plan, |done| tell(Stage::Repack, done, to_copy)).await?;
    tell(Stage::Rewrite, 0, plan.replaced.len() as u64);
    write_indexes(files, inventory, plan, copied.packs).await?;
    let old = plan.replaced.iter().map(|at| Folder::Index.path(&inventory.indexes[*at].id)).collect();
    remove(files, lock, old, |done| tell(Stage::Rewrite, done, plan.replaced.len() as u64)).await?;
    let doomed = doomed(inventory, plan);
    let mut removed = Tally::default();
    doomed.iter().for_each(|(_, size)| removed.add(*size));
    let paths = doomed.iter().map(|(id, _)| pack_path(id)).collect();
    remove(files, lock, paths, |done| tell(Stage::Delete, done, removed.count)).await?;
    Ok(PruneReport { written: copied.written, removed, rescued: copied.rescued })
}

/// Packs that go, with their sizes.
fn doomed(inventory: &Inventory, plan: &Plan) -> Vec<(Id, u64)> {
    let named = inventory.packs.iter().zip(&plan.fates);
    let named = named.filter(|(_, fate)| matches!(fate, Fate::Repack | Fate::Delete));
    let named = named.map(|(pack, _)| (pack.id, pack.size.unwrap_or(0)));
    named.chain(plan.unreferenced.iter().copied()).collect()
}

/// Writes index files of the new packs, and of those that stay and that only replaced files name.
async fn write_indexes(files: &Files, inventory: &Inventory, plan: &Plan, mut new: NewPacks) -> Result<(), Error> {
    let replaced = plan.replaced.iter().flat_map(|at| &inventory.indexes[*at].packs);
    let stays = |pack: &&u32| plan.fates[**pack as usize] == Fate::Keep;
    let stay: FixedBitSet = replaced.filter(stays).map(|pack| *pack as usize).collect();
    let by_pack = inventory.by_pack();
    for pack in stay.ones() {
        let blobs = by_pack.of(pack).map(|position| inventory.places[position].blob()).collect();
        new.add(inventory.packs[pack].id, blobs);
        if new.blobs() >= INDEXED_TOGETHER {
            std::mem::take(&mut new).write(files).await?;
        }
    }
    new.write(files).await
}

/// Removes files while the lock holds.
async fn remove(files: &Files, lock: &Lock, paths: Vec<String>, mut progress: impl FnMut(u64)) -> Result<(), Error> {
    let mut done = 0;
    for some in paths.chunks(BETWEEN_LOOKS) {
        lock.verify().await?;
        let delete = |path: String| async move { files.store.delete(&path).await };
        let mut removed = stream::iter(some.to_vec()).map(delete).buffer_unordered(CONCURRENT);
        while removed.try_next().await?.is_some() {
            done += 1;
            progress(done);
        }
    }
    Ok(())
}
