//! Decides which packs stay, which go, and which are copied in part.
//!
//! Pure: numbers in, a plan out. A pack is worth copying if much of it is not needed; packs of directories always are,
//! since every reader loads them and they are small.

use std::cmp::Reverse;

use fixedbitset::FixedBitSet;

use super::{PrunePlan, PruneRequest, mark::Marked};
use crate::{
    Id,
    inventory::Inventory,
    pack::{self, BlobKind},
};

/// A pack below this is small.
const SMALL_PACK: u64 = pack::TARGET_SIZE as u64 / 2;
/// An index file with fewer blobs is small.
const SMALL_INDEX: usize = 5_000;
/// So many small index files are put together though nothing else asks for it.
const MANY_INDEXES: usize = 8;

/// What becomes of a pack that an index names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fate {
    Keep,
    Repack,
    Delete,
    /// It does not exist and nothing needs it.
    Vanished,
}

/// A plan in full.
pub(super) struct Plan {
    pub(super) summary: PrunePlan,
    /// Of each pack of the inventory.
    pub(super) fates: Vec<Fate>,
    /// Positions that are copied into new packs.
    pub(super) copies: FixedBitSet,
    /// Positions that stay and whose other copies go: they must be sound.
    pub(super) witnesses: FixedBitSet,
    /// Positions that cannot be read.
    pub(super) bad: FixedBitSet,
    /// Packs that no index names, with their sizes.
    pub(super) unreferenced: Vec<(Id, u64)>,
    /// Index files, by their number in the inventory, that are replaced.
    pub(super) replaced: Vec<usize>,
    /// Snapshots that kept parts of a backup that was never committed.
    pub(super) orphans: Vec<Id>,
}

/// What of a pack is needed.
#[derive(Clone, Copy, Default)]
struct Use {
    blobs: u64,
    bytes: u64,
    trees: bool,
}

pub(super) fn plan(inventory: &Inventory, marked: &Marked, request: &PruneRequest, snapshots: u64) -> Plan {
    let mut summary = PrunePlan { snapshots, ..PrunePlan::default() };
    let (kept, twice) = choose(inventory, marked, &mut summary);
    let uses = uses(inventory, &kept);
    let fates = decide(inventory, &uses, request, &mut summary);
    let fate = |position: usize| fates[inventory.places[position].pack as usize];
    let copies: FixedBitSet = kept.ones().filter(|position| fate(*position) == Fate::Repack).collect();
    let others_go = |position: &usize| {
        let others = inventory.same_blob(*position).filter(|other| other != position);
        fate(*position) == Fate::Keep && others.into_iter().any(|other| fate(other) != Fate::Keep)
    };
    let witnesses: FixedBitSet = twice.into_iter().filter(others_go).collect();
    copies.ones().for_each(|position| summary.copy.add(stored(inventory, position)));
    inventory.unreferenced.iter().for_each(|(_, size)| summary.unreferenced.add(*size));
    let gone = summary.delete.bytes + summary.repack.bytes + summary.unreferenced.bytes;
    summary.freed = gone.saturating_sub(summary.copy.bytes);
    let replaced = replaced(inventory, &fates);
    summary.indexes_replaced = replaced.len() as u64;
    summary.indexes_kept = (inventory.indexes.len() - replaced.len()) as u64;
    let (bad, unreferenced) = (marked.bad.clone(), inventory.unreferenced.clone());
    Plan { summary, fates, copies, witnesses, bad, unreferenced, replaced, orphans: Vec::new() }
}

/// Bytes that a blob takes in a pack, its entry in the header included.
fn stored(inventory: &Inventory, position: usize) -> u64 {
    let blob = inventory.places[position].blob();
    u64::from(blob.length) + blob.entry()
}

/// One place of each blob that is needed; and those among them that have others.
fn choose(inventory: &Inventory, marked: &Marked, summary: &mut PrunePlan) -> (FixedBitSet, Vec<usize>) {
    let mut needed_in = vec![0u64; inventory.packs.len()];
    for first in marked.needed.ones() {
        for position in inventory.same_blob(first) {
            needed_in[inventory.places[position].pack as usize] += stored(inventory, position);
        }
    }
    let mut kept = FixedBitSet::with_capacity(inventory.places.len());
    let mut twice = Vec::new();
    for first in marked.needed.ones() {
        let places = inventory.same_blob(first);
        summary.needed.add(stored(inventory, first));
        for other in places.clone().skip(1) {
            summary.duplicates.add(stored(inventory, other));
        }
        // where most else is needed too, a blob costs nothing
        let best = |position: &usize| {
            let pack = inventory.places[*position].pack;
            (!marked.bad.contains(*position), needed_in[pack as usize], Reverse(*position))
        };
        let several = places.len() > 1;
        if let Some(position) = places.max_by_key(best) {
            kept.insert(position);
            twice.extend(several.then_some(position));
        }
    }
    (kept, twice)
}

fn uses(inventory: &Inventory, kept: &FixedBitSet) -> Vec<Use> {
    let mut uses = vec![Use::default(); inventory.packs.len()];
    for (position, place) in inventory.places.iter().enumerate() {
        let of = &mut uses[place.pack as usize];
        of.trees |= place.blob().kind == BlobKind::Tree;
        if kept.contains(position) {
            of.blobs += 1;
            of.bytes += stored(inventory, position);
        }
    }
    uses
}

fn decide(inventory: &Inventory, uses: &[Use], request: &PruneRequest, summary: &mut PrunePlan) -> Vec<Fate> {
    let waste = |pack: usize| {
        let size = inventory.packs[pack].size.unwrap_or(0);
        size.saturating_sub(uses[pack].bytes + pack::FRAME)
    };
    let mut fates: Vec<Fate> = inventory.packs.iter().zip(uses).map(|(pack, of)| first_fate(pack.size, of)).collect();
    let allowed = allowed_unused(uses.iter().map(|of| of.bytes).sum(), request.max_unused_percent);
    let mut partly: Vec<usize> =
        (0..fates.len()).filter(|pack| fates[*pack] == Fate::Keep && waste(*pack) > 0).collect();
    // the most wasteful last, directories after them
    partly.sort_by_key(|pack| (uses[*pack].trees, permille(waste(*pack), inventory.packs[*pack].size)));
    let mut left: u64 = partly.iter().map(|pack| waste(*pack)).sum();
    while let Some(pack) = partly.pop()
        && (left > allowed || uses[pack].trees)
    {
        fates[pack] = Fate::Repack;
        left -= waste(pack);
    }
    if request.repack_small {
        gather_small(inventory, uses, &mut fates);
    }
    summary.unused_allowed = allowed;
    for (pack, fate) in fates.iter().enumerate() {
        let size = inventory.packs[pack].size.unwrap_or(0);
        match fate {
            Fate::Keep => {
                summary.keep.add(size);
                summary.unused_left += waste(pack);
            }
            Fate::Repack => summary.repack.add(size),
            Fate::Delete => summary.delete.add(size),
            Fate::Vanished => summary.vanished += 1,
        }
    }
    fates
}

fn first_fate(size: Option<u64>, of: &Use) -> Fate {
    match (size, of.blobs) {
        (None, _) => Fate::Vanished,
        (Some(_), 0) => Fate::Delete,
        (Some(_), _) => Fate::Keep,
    }
}

/// Small packs of one kind, if together they are fewer.
fn gather_small(inventory: &Inventory, uses: &[Use], fates: &mut [Fate]) {
    for trees in [false, true] {
        let small = |pack: &usize| {
            let size = inventory.packs[*pack].size;
            fates[*pack] == Fate::Keep && uses[*pack].trees == trees && size.is_some_and(|size| size < SMALL_PACK)
        };
        let small: Vec<usize> = (0..fates.len()).filter(small).collect();
        if small.len() > 1 {
            small.into_iter().for_each(|pack| fates[pack] = Fate::Repack);
        }
    }
}

fn permille(part: u64, whole: Option<u64>) -> u64 {
    part.saturating_mul(1000) / whole.unwrap_or(0).max(1)
}

/// Bytes that may stay unused so that they are this share of all.
#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, clippy::cast_precision_loss, reason = "clamped")]
fn allowed_unused(used: u64, percent: f64) -> u64 {
    let percent = percent.clamp(0.0, 100.0);
    if percent >= 100.0 {
        return u64::MAX;
    }
    (used as f64 * percent / (100.0 - percent)) as u64
}

/// Index files that name a pack that goes, and small ones if there is reason to write one anyway.
fn replaced(inventory: &Inventory, fates: &[Fate]) -> Vec<usize> {
    let stale = |at: &usize| inventory.indexes[*at].packs.iter().any(|pack| fates[*pack as usize] != Fate::Keep);
    let small = |at: &usize| inventory.indexes[*at].blobs < SMALL_INDEX;
    let all = || 0..inventory.indexes.len();
    let write = all().any(|at| stale(&at)) || all().filter(small).count() >= MANY_INDEXES;
    all().filter(|at| write && (stale(at) || small(at))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        Tally,
        inventory::tests::{id, inventory, pack_size},
    };

    fn marked(inventory: &Inventory, needed: &[u32]) -> Marked {
        let mut bits = FixedBitSet::with_capacity(inventory.places.len());
        for n in needed {
            bits.insert(inventory.positions(BlobKind::Data, &id(*n)).start);
        }
        Marked { needed: bits, bad: inventory.out_of_reach(), trees: 0, files: 0 }
    }

    fn request(max_unused_percent: f64) -> PruneRequest {
        PruneRequest { max_unused_percent, repack_small: false }
    }

    fn planned(inventory: &Inventory, needed: &[u32], percent: f64) -> Plan {
        plan(inventory, &marked(inventory, needed), &request(percent), 1)
    }

    #[test]
    fn packs_stay_go_or_are_copied_by_what_is_needed_of_them() {
        let (two, three) = (pack_size(2), pack_size(3));
        let listed = [(1, two), (2, two), (3, three), (8, 70)];
        let inventory = inventory(&[&[(1, &[10, 11]), (2, &[20, 21]), (3, &[30, 31, 32]), (4, &[40])]], &listed);
        let plan = planned(&inventory, &[10, 11, 30], 0.0);
        assert_eq!(plan.fates, [Fate::Keep, Fate::Delete, Fate::Repack, Fate::Vanished]);
        let summary = plan.summary;
        assert_eq!((summary.keep.bytes, summary.delete.bytes, summary.repack.bytes), (two, two, three));
        assert_eq!((summary.unreferenced, summary.vanished), (Tally { count: 1, bytes: 70 }, 1));
        assert_eq!(summary.copy, Tally { count: 1, bytes: 169 });
        assert_eq!(summary.freed, two + 70 + three - 169);
        assert_eq!((summary.indexes_replaced, summary.indexes_kept), (1, 0));
        let copied: Vec<_> = plan.copies.ones().map(|position| inventory.places[position].id).collect();
        assert_eq!(copied, [id(30)]);
    }

    #[test]
    fn what_may_stay_unused_stays_and_the_most_wasteful_goes_first() {
        let four = pack_size(4);
        let packs: [(u32, &[u32]); 2] = [(1, &[10, 11, 12, 13]), (2, &[20, 21, 22, 23])];
        let inventory = inventory(&[&packs], &[(1, four), (2, four)]);
        let needed = [10, 20, 21, 22];
        assert_eq!(planned(&inventory, &needed, 100.0).fates, [Fate::Keep, Fate::Keep]);
        assert_eq!(planned(&inventory, &needed, 0.0).fates, [Fate::Repack, Fate::Repack]);
        let some = planned(&inventory, &needed, 25.0);
        assert_eq!(some.fates, [Fate::Repack, Fate::Keep]);
        assert_eq!(some.summary.unused_left, 169);
        assert!(some.summary.unused_left <= some.summary.unused_allowed);
    }

    #[test]
    fn nothing_to_do_is_an_empty_plan() {
        let inventory = inventory(&[&[(1, &[10])], &[(2, &[20])]], &[(1, pack_size(1)), (2, pack_size(1))]);
        let plan = planned(&inventory, &[10, 20], 0.0);
        assert!(plan.summary.is_empty(), "{:?}", plan.summary);
        assert_eq!(plan.summary.unused_left, 0);
    }

    #[test]
    fn one_copy_of_a_blob_stays_where_it_is_sound_and_is_a_witness() {
        let packs: [(u32, &[u32]); 3] = [(1, &[10]), (2, &[10, 11]), (3, &[10])];
        let inventory = inventory(&[&packs], &[(1, pack_size(1)), (2, pack_size(2))]);
        let plan = planned(&inventory, &[10, 11], 0.0);
        assert_eq!(plan.fates, [Fate::Delete, Fate::Keep, Fate::Vanished]);
        assert_eq!(plan.summary.duplicates.count, 2);
        let witnesses: Vec<_> = plan.witnesses.ones().map(|at| inventory.pack_of(at).id).collect();
        assert_eq!(witnesses, [id(2)]);

        let mut bad = marked(&inventory, &[10, 11]);
        let in_second = inventory.positions(BlobKind::Data, &id(10)).find(|at| inventory.pack_of(*at).id == id(2));
        bad.bad.insert(in_second.unwrap());
        let plan = super::plan(&inventory, &bad, &request(50.0), 1);
        assert_eq!(plan.fates[0], Fate::Keep, "the copy that can be read stays");
    }

    #[test]
    fn small_packs_are_put_together_only_on_request() {
        let inventory = inventory(&[&[(1, &[10]), (2, &[20])]], &[(1, pack_size(1)), (2, pack_size(1))]);
        let gathered = PruneRequest { repack_small: true, ..request(5.0) };
        let plan = plan(&inventory, &marked(&inventory, &[10, 20]), &gathered, 1);
        assert_eq!(plan.fates, [Fate::Repack, Fate::Repack]);
    }

    #[test]
    fn many_small_index_files_are_put_together() {
        let packs: Vec<[(u32, &[u32]); 1]> = vec![[(1, &[10])]; MANY_INDEXES];
        let files: Vec<&[(u32, &[u32])]> = packs.iter().map(|packs| &packs[..]).collect();
        let plan = planned(&inventory(&files, &[(1, pack_size(1))]), &[10], 0.0);
        assert_eq!(plan.replaced.len(), MANY_INDEXES);
        let plan = planned(&inventory(&files[1..], &[(1, pack_size(1))]), &[10], 0.0);
        assert!(plan.replaced.is_empty());
    }
}
