//! Visits every directory below some roots once, and looks up all that it names.
//!
//! Level by level, and within a level in the order in which directories lie in their packs: a backup writes them
//! together, so one request brings many, and what waits is one number a directory. Beside the inventory this takes
//! 1 bit a place, 4 bytes a directory of the widest level, and 64 MiB of directories under way.

use std::sync::Arc;

use fixedbitset::FixedBitSet;
use futures::{StreamExt, TryStreamExt, stream};
use tokio::sync::Semaphore;

use crate::{
    Error, Id,
    files::Files,
    inventory::{self, Inventory},
    lean::{LeanNode, LeanTree},
    pack::{self, BlobKind},
    tree::NodeKind,
};

/// The most that one request reads, and that it may expand to, unless one directory alone is larger.
const REQUEST: u64 = 4 << 20;
/// The most that one request reads in vain between two directories.
const GAP: u64 = 64 << 10;
/// Plaintext of all directories under way, in MiB.
const UNDER_WAY: u32 = 64;

/// What is wrong with one node of a directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum NodeFault {
    /// It needs a blob that no index names.
    Missing(BlobKind, Id),
    /// It needs the blob at this position, which cannot be read anywhere.
    Lost(usize),
    /// It says another size than its blobs have.
    Size { said: u64, found: u64 },
    /// It contradicts itself or its neighbours.
    Shape(&'static str),
}

/// A directory that was read.
#[derive(Debug, Default)]
pub(crate) struct View {
    /// First positions of the directories in it.
    pub(crate) subtrees: Vec<u32>,
    /// First positions of the blobs of its files.
    pub(crate) content: Vec<u32>,
    pub(crate) files: u64,
    /// What is wrong, with the node's name.
    pub(crate) faults: Vec<(String, NodeFault)>,
}

/// A directory that was visited.
#[derive(Debug)]
pub(crate) struct Visit {
    /// First position of its blob.
    pub(crate) tree: u32,
    /// Positions where it could not be read, with the reasons.
    pub(crate) damaged: Vec<(u32, String)>,
    /// `None` if it could be read nowhere.
    pub(crate) view: Option<View>,
}

/// Reads directories. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Walk {
    files: Files,
    inventory: Arc<Inventory>,
    /// Places that are known to be of no use.
    bad: Arc<FixedBitSet>,
    budget: Arc<Semaphore>,
    requests: usize,
}

impl Walk {
    pub(crate) fn new(files: &Files, inventory: Arc<Inventory>, bad: Arc<FixedBitSet>) -> Self {
        let requests = std::thread::available_parallelism().map_or(2, |n| n.get().min(64)) + 2;
        let budget = Arc::new(Semaphore::new(UNDER_WAY as usize));
        Self { files: files.clone(), inventory, bad, budget, requests }
    }

    /// Visits all directories below `roots`, given by their first positions, and those themselves.
    ///
    /// # Errors
    /// Only where the store gives no answer.
    pub(crate) async fn all(
        &self,
        roots: impl IntoIterator<Item = u32>,
        mut each: impl FnMut(Visit),
    ) -> Result<(), Error> {
        let mut known = FixedBitSet::with_capacity(self.inventory.places.len());
        let mut level: Vec<u32> = roots.into_iter().filter(|root| !known.put(*root as usize)).collect();
        while !level.is_empty() {
            level.sort_unstable_by_key(|tree| self.order(*tree));
            let mut next = Vec::new();
            let reads = Requests { walk: self, rest: &level }.map(|request| self.clone().read(request));
            let mut visits = stream::iter(reads).buffer_unordered(self.requests);
            while let Some(read) = visits.try_next().await? {
                for visit in read {
                    let subtrees = visit.view.iter().flat_map(|view| &view.subtrees);
                    next.extend(subtrees.filter(|tree| !known.put(**tree as usize)));
                    each(visit);
                }
            }
            drop(visits);
            level = next;
        }
        Ok(())
    }

    /// Reads one directory as it is, without looking anything up; `None` if it can be read nowhere.
    ///
    /// # Errors
    /// Only where the store gives no answer.
    pub(crate) async fn tree(&self, tree: u32) -> Result<Option<LeanTree>, Error> {
        for position in self.inventory.same_blob(tree as usize) {
            let blob = self.inventory.places[position].blob();
            let path = self.inventory.pack_of(position).path();
            let Some(sealed) = readable(self.files.store.get_range(&path, u64::from(blob.offset)..blob.end()).await)?
            else {
                continue;
            };
            let cipher = self.files.cipher.clone();
            let open = move || pack::open_blob(&cipher, &blob, &sealed).and_then(|json| LeanTree::from_json(&json));
            if let Ok(tree) = tokio::task::spawn_blocking(open).await? {
                return Ok(Some(tree));
            }
        }
        Ok(None)
    }

    fn order(&self, tree: u32) -> (u32, u64) {
        let place = &self.inventory.places[tree as usize];
        (place.pack, place.blob().end())
    }

    async fn read(self, request: Vec<u32>) -> Result<Vec<Visit>, Error> {
        let plain: u64 = request.iter().map(|tree| self.inventory.places[*tree as usize].plain()).sum();
        let share = u32::try_from(plain >> 20).unwrap_or(u32::MAX).saturating_add(1).min(UNDER_WAY);
        let permit = self.budget.clone().acquire_many_owned(share).await;
        let mut visits = self.read_together(&request).await?;
        for visit in visits.iter_mut().filter(|visit| visit.view.is_none()) {
            self.read_elsewhere(visit).await?;
        }
        drop(permit);
        Ok(visits)
    }

    /// Reads directories that lie together, each from its first place.
    async fn read_together(&self, request: &[u32]) -> Result<Vec<Visit>, Error> {
        let range = self.range(request);
        let failed = |reason: String| {
            let visit = |tree: &u32| Visit { tree: *tree, damaged: vec![(*tree, reason.clone())], view: None };
            request.iter().map(visit).collect()
        };
        if let Some(reason) = self.known_bad(request[0]) {
            return Ok(failed(reason));
        }
        let path = self.inventory.pack_of(request[0] as usize).path();
        let sealed = match self.files.store.get_range(&path, range.clone()).await {
            Ok(sealed) => sealed,
            Err(error) => return inventory::reason(error).map(failed),
        };
        let (walk, request) = (self.clone(), request.to_vec());
        let visit = move |tree: u32| {
            let blob = walk.inventory.places[tree as usize].blob();
            let from = usize::try_from(u64::from(blob.offset) - range.start).unwrap_or(usize::MAX);
            let bytes = sealed.get(from..).and_then(|rest| rest.get(..blob.length as usize));
            let json = bytes
                .ok_or_else(|| "it lies outside its pack".into())
                .and_then(|bytes| pack::open_blob(&walk.files.cipher, &blob, bytes));
            match json.and_then(|json| LeanTree::from_json(&json)) {
                Ok(read) => Visit { tree, damaged: Vec::new(), view: Some(walk.view(&read)) },
                Err(reason) => Visit { tree, damaged: vec![(tree, reason)], view: None },
            }
        };
        Ok(tokio::task::spawn_blocking(move || request.into_iter().map(visit).collect()).await?)
    }

    /// Tries the other places of a directory whose first one is damaged.
    async fn read_elsewhere(&self, visit: &mut Visit) -> Result<(), Error> {
        for position in self.inventory.same_blob(visit.tree as usize).skip(1) {
            let position = u32::try_from(position).unwrap_or(u32::MAX);
            let found = Box::pin(self.read_together(&[position])).await?;
            for other in found {
                visit.damaged.extend(other.damaged);
                visit.view = other.view;
            }
            if visit.view.is_some() {
                return Ok(());
            }
        }
        Ok(())
    }

    fn known_bad(&self, position: u32) -> Option<String> {
        if !self.bad.contains(position as usize) {
            return None;
        }
        Some(match self.inventory.pack_of(position as usize).size {
            None => "its pack is missing".into(),
            Some(_) => "its pack is damaged".into(),
        })
    }

    fn range(&self, request: &[u32]) -> std::ops::Range<u64> {
        let blobs = || request.iter().map(|tree| self.inventory.places[*tree as usize].blob());
        let start = blobs().map(|blob| u64::from(blob.offset)).min().unwrap_or(0);
        start..blobs().map(|blob| blob.end()).max().unwrap_or(0)
    }

    fn view(&self, tree: &LeanTree) -> View {
        let mut view = View::default();
        let mut before: Option<&LeanNode> = None;
        for node in &tree.nodes {
            let mut fault = |fault| view.faults.push((node.name.to_string_lossy().into_owned(), fault));
            match before.map(|before| before.name.cmp(&node.name)) {
                Some(std::cmp::Ordering::Equal) => fault(NodeFault::Shape("its name occurs twice")),
                Some(std::cmp::Ordering::Greater) => fault(NodeFault::Shape("it stands behind a later name")),
                _ => {}
            }
            if !crate::tree::is_safe(&node.name) {
                fault(NodeFault::Shape("this is no name for a file"));
            }
            self.look_up(node, &mut view);
            before = Some(node);
        }
        view
    }

    fn look_up(&self, node: &LeanNode, view: &mut View) {
        let name = || node.name.to_string_lossy().into_owned();
        let mut fault = |fault| view.faults.push((name(), fault));
        match (node.kind, &node.content, &node.subtree) {
            (NodeKind::Dir, _, None) => fault(NodeFault::Shape("a directory without a tree")),
            (NodeKind::File, None, _) => fault(NodeFault::Shape("a file without a list of blobs")),
            _ => {}
        }
        if let Some(id) = &node.subtree {
            match self.find(BlobKind::Tree, id) {
                Ok(tree) => view.subtrees.push(tree),
                Err(missing) => fault(missing),
            }
        }
        view.files += u64::from(node.kind == NodeKind::File);
        let mut found = Some(0u64);
        for id in node.content.iter().flatten() {
            match self.find(BlobKind::Data, id) {
                Err(missing) => {
                    fault(missing);
                    found = None;
                }
                Ok(first) => {
                    view.content.push(first);
                    found = found.map(|found| found + self.inventory.places[first as usize].plain());
                    if self.inventory.same_blob(first as usize).all(|position| self.bad.contains(position)) {
                        fault(NodeFault::Lost(first as usize));
                    }
                }
            }
        }
        if let (NodeKind::File, Some(found)) = (node.kind, found)
            && found != node.size
        {
            fault(NodeFault::Size { said: node.size, found });
        }
    }

    fn find(&self, kind: BlobKind, id: &Id) -> Result<u32, NodeFault> {
        let positions = self.inventory.positions(kind, id);
        if positions.is_empty() {
            return Err(NodeFault::Missing(kind, *id));
        }
        u32::try_from(positions.start).map_err(|_| NodeFault::Missing(kind, *id))
    }
}

fn readable<T>(read: Result<T, Error>) -> Result<Option<T>, Error> {
    match read {
        Ok(read) => Ok(Some(read)),
        Err(error) => inventory::reason(error).map(|_| None),
    }
}

/// Cuts a sorted level into requests.
struct Requests<'a> {
    walk: &'a Walk,
    rest: &'a [u32],
}

impl Iterator for Requests<'_> {
    /// Owned, since what borrows from a level cannot be held by a future that may move between threads.
    type Item = Vec<u32>;

    fn next(&mut self) -> Option<Self::Item> {
        let place = |at: usize| &self.walk.inventory.places[self.rest[at] as usize];
        let first = self.rest.first().map(|_| place(0))?;
        let mut plain = first.plain();
        let mut length = 1;
        while length < self.rest.len() {
            let (last, next) = (place(length - 1), place(length));
            plain += next.plain();
            let span = next.blob().end().saturating_sub(u64::from(first.blob().offset));
            let gap = u64::from(next.blob().offset).saturating_sub(last.blob().end());
            if next.pack != first.pack || span > REQUEST || gap > GAP || plain > REQUEST {
                break;
            }
            length += 1;
        }
        let (request, rest) = self.rest.split_at(length);
        self.rest = rest;
        Some(request.to_vec())
    }
}
