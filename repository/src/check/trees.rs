//! Checks every directory that a snapshot needs, and finds out whom damage reaches.
//!
//! Directories are visited once, whoever holds them. What is kept of each is a pair of numbers for every directory in
//! it, 8 bytes; upwards along these pairs lie the snapshots and the path that a damaged file is reported with.

use std::collections::HashSet;

use super::finding::{Draft, FindingKind, Findings, MAX_NAMED};
use crate::{
    Error, Snapshot,
    inventory::Inventory,
    pack::BlobKind,
    walk::{NodeFault, Visit, Walk},
};

/// Findings whose snapshots and paths are looked up.
const MAX_TRACED: usize = 50;
/// Directories that a path is followed through; what is deeper is named by its end.
const MAX_DEPTH: usize = 200;

/// Who holds which directory.
#[derive(Default)]
pub(super) struct Holders {
    /// Directory and the one that holds it; sorted once complete.
    edges: Vec<(u32, u32)>,
    /// Root directories with the snapshots that have them, by their place in the list.
    roots: Vec<(u32, usize)>,
}

/// What the directories came to.
#[derive(Default)]
pub(super) struct TreeCounts {
    pub(super) trees: u64,
    pub(super) files: u64,
}

/// Visits all directories of the snapshots.
///
/// # Errors
/// Only where the store gives no answer.
pub(super) async fn check(
    walk: &Walk,
    inventory: &Inventory,
    snapshots: &[Snapshot],
    findings: &mut Findings,
    mut progress: impl FnMut(u64),
) -> Result<TreeCounts, Error> {
    let mut holders = Holders::default();
    for (number, snapshot) in snapshots.iter().enumerate() {
        let positions = inventory.positions(BlobKind::Tree, &snapshot.tree);
        match u32::try_from(positions.start) {
            Ok(root) if !positions.is_empty() => holders.roots.push((root, number)),
            _ => rootless(findings, snapshot),
        }
    }
    let mut counts = TreeCounts::default();
    let roots: Vec<u32> = holders.roots.iter().map(|(root, _)| *root).collect();
    walk.all(roots, |visit| {
        counts.trees += 1;
        progress(counts.trees);
        counts.files += visit.view.as_ref().map_or(0, |view| view.files);
        judge(inventory, &visit, findings);
        let subtrees = visit.view.into_iter().flat_map(|view| view.subtrees);
        holders.edges.extend(subtrees.map(|subtree| (subtree, visit.tree)));
    })
    .await?;
    holders.edges.sort_unstable();
    trace(walk, inventory, snapshots, &holders, findings).await?;
    Ok(counts)
}

/// A snapshot whose root directory is in no index.
fn rootless(findings: &mut Findings, snapshot: &Snapshot) {
    let sentence = format!("tree blob {} is in no index", snapshot.tree);
    if let Some(number) = findings.add(FindingKind::BlobsMissing, "index", sentence) {
        let affected = &mut findings.drafts[number].affected;
        affected.snapshot_count += 1;
        affected.path_count += 1;
        if affected.snapshots.len() < MAX_NAMED {
            affected.snapshots.push(snapshot.into());
            affected.paths.push("/".into());
        }
    }
}

fn judge(inventory: &Inventory, visit: &Visit, findings: &mut Findings) {
    for (position, reason) in &visit.damaged {
        let place = &inventory.places[*position as usize];
        let sentence = format!("tree {}: {reason}", place.id);
        let path = || inventory.pack_of(*position as usize).path();
        let number = pack_finding(inventory, *position as usize, findings)
            .or_else(|| findings.add(FindingKind::PackDamaged, &path(), sentence));
        // where another pack holds the directory too, nothing is lost
        if let (Some(number), None) = (number, &visit.view) {
            findings.drafts[number].meet(visit.tree, "");
        }
    }
    for (name, fault) in visit.view.iter().flat_map(|view| &view.faults) {
        let file = || format!("tree {}", inventory.places[visit.tree as usize].id);
        let number = match fault {
            NodeFault::Missing(kind, id) => {
                let sentence = format!("{} blob {id} is in no index", kind.name());
                findings.add(FindingKind::BlobsMissing, "index", sentence)
            }
            NodeFault::Lost(position) => pack_finding(inventory, *position, findings),
            NodeFault::Size { said, found } => {
                let sentence = format!("{name:?} says {said} bytes and has {found}");
                findings.add(FindingKind::FileSize, &file(), sentence)
            }
            NodeFault::Shape(reason) => {
                findings.add(FindingKind::TreeInvalid, &file(), format!("its node {name:?}: {reason}"))
            }
        };
        if let Some(number) = number {
            findings.drafts[number].meet(visit.tree, name);
        }
    }
}

/// The finding that says why a place cannot be read.
fn pack_finding(inventory: &Inventory, position: usize, findings: &Findings) -> Option<usize> {
    let path = inventory.pack_of(position).path();
    let kinds = [FindingKind::PackMissing, FindingKind::PackSize, FindingKind::PackDamaged];
    kinds.iter().find_map(|kind| findings.number(*kind, &path))
}

/// Looks up which snapshots and paths the findings reach.
async fn trace(
    walk: &Walk,
    inventory: &Inventory,
    snapshots: &[Snapshot],
    holders: &Holders,
    findings: &mut Findings,
) -> Result<(), Error> {
    let traced = findings.drafts.iter_mut().filter(|draft| draft.met_count > 0).take(MAX_TRACED);
    for draft in traced {
        let reached = holders.snapshots(&draft.trees);
        draft.affected.snapshot_count += reached.len() as u64;
        let newest = reached.iter().rev().take(MAX_NAMED - draft.affected.snapshots.len());
        draft.affected.snapshots.extend(newest.map(|number| (&snapshots[*number]).into()));
        draft.affected.path_count += draft.met_count;
        name_paths(walk, inventory, holders, draft).await?;
    }
    Ok(())
}

async fn name_paths(walk: &Walk, inventory: &Inventory, holders: &Holders, draft: &mut Draft) -> Result<(), Error> {
    for (tree, name) in draft.met.iter().take(MAX_NAMED.saturating_sub(draft.affected.paths.len())) {
        let mut path = if name.is_empty() { String::new() } else { format!("/{name}") };
        let mut below = *tree;
        for _ in 0..MAX_DEPTH {
            let Some(holder) = holders.first(below) else { break };
            path = format!("/{}{path}", name_in(walk, inventory, holder, below).await?);
            below = holder;
        }
        draft.affected.paths.push(if path.is_empty() { "/".into() } else { path });
    }
    Ok(())
}

/// The name that a directory has in its holder.
async fn name_in(walk: &Walk, inventory: &Inventory, holder: u32, tree: u32) -> Result<String, Error> {
    let id = inventory.places[tree as usize].id;
    let nodes = walk.tree(holder).await?.map(|holder| holder.nodes).unwrap_or_default();
    let node = nodes.into_iter().find(|node| node.subtree == Some(id));
    Ok(node.map_or_else(|| "?".into(), |node| node.name.to_string_lossy().into_owned()))
}

impl Holders {
    fn of(&self, tree: u32) -> impl Iterator<Item = u32> {
        let start = self.edges.partition_point(|(held, _)| *held < tree);
        self.edges[start..].iter().take_while(move |(held, _)| *held == tree).map(|(_, holder)| *holder)
    }

    fn first(&self, tree: u32) -> Option<u32> {
        self.of(tree).next()
    }

    /// Numbers of the snapshots that hold any of the directories, oldest first.
    fn snapshots(&self, trees: &[u32]) -> Vec<usize> {
        let mut reached: HashSet<u32> = trees.iter().copied().collect();
        let mut pending: Vec<u32> = reached.iter().copied().collect();
        while let Some(tree) = pending.pop() {
            pending.extend(self.of(tree).filter(|holder| reached.insert(*holder)));
        }
        let holding = self.roots.iter().filter(|(root, _)| reached.contains(root));
        holding.map(|(_, number)| *number).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn snapshots_are_found_upwards_through_every_holder() {
        let mut holders = Holders { edges: vec![(5, 1), (5, 2), (6, 2), (7, 6)], roots: vec![(1, 0), (2, 1), (3, 2)] };
        holders.edges.sort_unstable();
        assert_eq!(holders.snapshots(&[5]), [0, 1]);
        assert_eq!(holders.snapshots(&[7]), [1]);
        assert_eq!(holders.snapshots(&[3]), [2]);
        assert_eq!(holders.first(7), Some(6));
        assert!(holders.snapshots(&[9]).is_empty());
    }
}
