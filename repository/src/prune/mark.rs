//! Finds out which blobs the snapshots need.
//!
//! One blob wrongly taken for unneeded is a lost backup, so whatever cannot be read ends the prune here, by name.

use std::sync::Arc;

use fixedbitset::FixedBitSet;

use crate::{
    Error, Repository, Snapshot,
    inventory::Inventory,
    pack::BlobKind,
    progress::{Control, Stage},
    walk::{NodeFault, Visit, Walk},
};

/// What is needed.
pub(crate) struct Marked {
    /// First positions of the blobs that are needed.
    pub(crate) needed: FixedBitSet,
    /// Places that cannot be read.
    pub(crate) bad: FixedBitSet,
    /// Directories that were visited.
    pub(crate) trees: u64,
    /// Files in them.
    pub(crate) files: u64,
}

/// Why what is needed cannot be told.
#[derive(Default)]
struct Doubts {
    first: Option<String>,
    others: u64,
}

impl Doubts {
    fn add(&mut self, doubt: impl FnOnce() -> String) {
        if self.first.is_none() {
            self.first = Some(doubt());
        } else {
            self.others += 1;
        }
    }

    fn refuse(self, repository: &Repository) -> Result<(), Error> {
        let Self { first, others } = self;
        let store = repository.store().to_string();
        first.map_or(Ok(()), |reason| Err(Error::NeedsUnknown { store, reason, others }))
    }
}

/// All snapshots.
pub(crate) async fn snapshots(repository: &Repository) -> Result<Vec<Snapshot>, Error> {
    repository.snapshots().await.map_err(|error| match error {
        Error::Damaged { path, reason } => refused(repository, format!("{path} is damaged: {reason}")),
        other => other,
    })
}

fn refused(repository: &Repository, reason: String) -> Error {
    Error::NeedsUnknown { store: repository.store().to_string(), reason, others: 0 }
}

/// Marks every blob that the snapshots need.
pub(crate) async fn mark(
    repository: &Repository,
    inventory: &Arc<Inventory>,
    snapshots: &[Snapshot],
    control: &Control,
) -> Result<Marked, Error> {
    let mut doubts = Doubts::default();
    for unreadable in &inventory.unreadable {
        doubts.add(|| format!("{} is damaged: {}", unreadable.path, unreadable.reason));
    }
    let mut roots = Vec::new();
    for snapshot in snapshots {
        let positions = inventory.positions(BlobKind::Tree, &snapshot.tree);
        match u32::try_from(positions.start) {
            Ok(root) if !positions.is_empty() => roots.push(root),
            _ => {
                doubts.add(|| format!("tree blob {} of snapshot {} is in no index", snapshot.tree, snapshot.id.short()))
            }
        }
    }
    let mut needed = FixedBitSet::with_capacity(inventory.places.len());
    let bad = Arc::new(inventory.out_of_reach());
    let mut found_bad = FixedBitSet::with_capacity(inventory.places.len());
    let (mut trees, mut files) = (0, 0);
    Walk::new(repository.files(), inventory.clone(), bad.clone())
        .all(roots, |visit| {
            trees += 1;
            control.tell(Stage::Trees, trees, 0);
            files += visit.view.as_ref().map_or(0, |view| view.files);
            needed.insert(visit.tree as usize);
            let content = visit.view.iter().flat_map(|view| &view.content);
            content.for_each(|position| needed.insert(*position as usize));
            visit.damaged.iter().for_each(|(position, _)| found_bad.insert(*position as usize));
            doubt(inventory, &visit, &mut doubts);
        })
        .await?;
    doubts.refuse(repository)?;
    found_bad.union_with(&bad);
    Ok(Marked { needed, bad: found_bad, trees, files })
}

fn doubt(inventory: &Inventory, visit: &Visit, doubts: &mut Doubts) {
    let tree = || inventory.places[visit.tree as usize].id;
    let Some(view) = &visit.view else {
        let reason = visit.damaged.first().map_or("it cannot be read", |(_, reason)| reason);
        let pack = inventory.pack_of(visit.tree as usize).path();
        return doubts.add(|| format!("tree blob {} in pack {pack} cannot be read: {reason}", tree()));
    };
    for (name, fault) in &view.faults {
        match fault {
            NodeFault::Missing(kind, id) => {
                doubts.add(|| format!("{} blob {id} of {name:?} in tree {} is in no index", kind.name(), tree()));
            }
            NodeFault::Lost(position) => {
                let (id, pack) = (inventory.places[*position].id, inventory.pack_of(*position));
                let lost = if pack.size.is_some() { "too short" } else { "missing" };
                doubts.add(|| format!("data blob {id} of {name:?} is lost: its pack {} is {lost}", pack.path()));
            }
            // odd, but everything that is needed is there
            NodeFault::Size { .. } | NodeFault::Shape(_) => {}
        }
    }
}
