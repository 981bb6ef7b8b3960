//! Visits every directory below some roots once, and looks up all that it names.
//!
//! Level by level, and within a level in the order in which directories lie in their packs: a backup writes them
//! together, so one request brings many, and what waits is one number a directory. Beside the inventory this takes
//! 1 bit a place, 4 bytes a directory of the widest level, and 64 MiB of directories under way.

mod view;

use std::sync::Arc;

use fixedbitset::FixedBitSet;
use futures::{StreamExt, TryStreamExt, stream};
use tokio::sync::Semaphore;

pub(crate) use self::view::{NodeFault, View};
use crate::{
    Error,
    files::Files,
    inventory::{self, Inventory},
    lean::LeanTree,
    pack,
    requests::{self, Limits, Requests},
};

const LIMITS: Limits = Limits { span: 4 << 20, plain: 4 << 20, gap: 64 << 10 };
/// Plaintext of all directories under way, in MiB.
const UNDER_WAY: u32 = 64;

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
            requests::sort(&self.inventory, &mut level);
            let mut next = Vec::new();
            let requests = Requests { inventory: &self.inventory, limits: LIMITS, apart: &self.bad, rest: &level };
            let reads = requests.map(|request| self.clone().read(request));
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
}

fn readable<T>(read: Result<T, Error>) -> Result<Option<T>, Error> {
    match read {
        Ok(read) => Ok(Some(read)),
        Err(error) => inventory::reason(error).map(|_| None),
    }
}
