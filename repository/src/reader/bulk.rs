//! Reads many blobs in the order in which they lie in their packs.
//!
//! A restore wants all of a pack's blobs and in no particular order, so each pack is read once, in few requests, some
//! of them ahead. Bytes are handed out sealed: whoever writes the plaintext opens it, on a thread of its own, while it
//! is still in the processor's cache.
//!
//! # Bounds
//! A plan takes 48 bytes a blob. At most [`IN_FLIGHT`] sealed bytes are in memory, whatever is read, or one blob where
//! a single one is larger.

use std::{collections::HashMap, ops::Range, sync::Arc};

use bytes::Bytes;
use futures::{
    StreamExt, TryStreamExt,
    stream::{self, BoxStream},
};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::Reader;
use crate::{
    Error, Id,
    crypto::{self, Cipher},
    pack::{self, BlobKind, PackedBlob},
    tree::Tree,
    upload::pack_path,
};

/// The most that one request reads: half a pack as restic and we make them, so that little waits for its end.
const REQUEST: u64 = 8 << 20;
/// Requests that run at the same time.
const AHEAD: usize = 4;
/// Sealed bytes that are read and not yet opened.
const IN_FLIGHT: u64 = 32 << 20;
/// Sealed bytes that are handed out at once, so that all threads have work at the end too.
const BATCH: u64 = 2 << 20;

/// Which blobs are read, from where, in which order.
#[derive(Debug, Default)]
pub struct BulkPlan {
    packs: Vec<Id>,
    blobs: Vec<Wanted>,
    /// Ranges of `blobs` that one request reads.
    requests: Vec<Range<usize>>,
    missing: Vec<Id>,
}

#[derive(Debug, Clone, Copy)]
struct Wanted {
    id: Id,
    pack: u32,
    offset: u32,
    length: u32,
    /// Zero says that it is not compressed.
    uncompressed: u32,
}

impl Wanted {
    fn span(blobs: &[Self]) -> Range<u64> {
        let end = |blob: &Self| u64::from(blob.offset) + u64::from(blob.length);
        let start = blobs.first().map_or(0, |blob| u64::from(blob.offset));
        start..blobs.iter().map(end).max().unwrap_or(start)
    }

    fn packed(&self, kind: BlobKind) -> PackedBlob {
        let Self { id, offset, length, uncompressed, .. } = *self;
        PackedBlob { kind, id, offset, length, uncompressed: (uncompressed > 0).then_some(uncompressed) }
    }
}

impl BulkPlan {
    /// Packs that are read from.
    pub fn packs(&self) -> usize {
        self.packs.len()
    }

    /// Different blobs that are read.
    pub fn blobs(&self) -> usize {
        self.blobs.len()
    }

    /// Bytes that are asked of the store.
    pub fn bytes(&self) -> u64 {
        let spans = self.requests.iter().map(|request| Wanted::span(&self.blobs[request.clone()]));
        spans.map(|span| span.end - span.start).sum()
    }

    /// Blobs that no index knows; they are not read.
    pub fn missing(&self) -> &[Id] {
        &self.missing
    }
}

/// Neighbouring blobs of a pack as they were read.
pub struct SealedBlobs {
    kind: BlobKind,
    cipher: Cipher,
    /// `None` if they could not be read.
    bytes: Option<Bytes>,
    /// Where `bytes` begins in the pack.
    start: u64,
    blobs: Vec<Wanted>,
    _held: Arc<Option<OwnedSemaphorePermit>>,
}

impl SealedBlobs {
    /// Opens, expands and checks one blob after the other. `None` stands for one that is not sound in this place:
    /// [`Reader::blob`] looks for it elsewhere and says what is wrong.
    pub fn open_each(&self, mut take: impl FnMut(Id, Option<Vec<u8>>)) {
        for blob in &self.blobs {
            take(blob.id, self.open(blob));
        }
    }

    fn open(&self, blob: &Wanted) -> Option<Vec<u8>> {
        let from = usize::try_from(u64::from(blob.offset) - self.start).ok()?;
        let sealed = self.bytes.as_ref()?.get(from..)?.get(..blob.length as usize)?;
        let plaintext = pack::open_blob(&self.cipher, &blob.packed(self.kind), sealed).ok()?;
        // whoever planned by the length in the index relies on it
        (blob.uncompressed == 0 || plaintext.len() == blob.uncompressed as usize).then_some(plaintext)
    }
}

impl Reader {
    /// The length of a data blob's plaintext; `None` if no index knows the blob.
    pub fn blob_length(&self, id: &Id) -> Option<u32> {
        let location = self.index.locations(BlobKind::Data, id).next()?;
        let overhead = u32::try_from(crypto::OVERHEAD).unwrap_or(u32::MAX);
        Some(location.blob.uncompressed.unwrap_or(location.blob.length.saturating_sub(overhead)))
    }

    /// Plans to read data blobs, each once, however often it is wanted. Packs come in the order of their first blob
    /// among `ids`, so what is wanted first comes first.
    pub fn plan_bulk(&self, ids: impl IntoIterator<Item = Id>) -> BulkPlan {
        self.plan(BlobKind::Data, ids)
    }

    /// Reads what was planned. A store that cannot be reached ends the stream; blobs that are damaged, or whose pack
    /// is, do not.
    pub fn read_bulk(&self, plan: BulkPlan) -> BoxStream<'static, Result<SealedBlobs, Error>> {
        self.read(BlobKind::Data, plan)
    }

    /// Reads many directories, in any order; each comes once.
    pub fn trees(&self, ids: impl IntoIterator<Item = Id>) -> BoxStream<'static, Result<TreeRead, Error>> {
        let plan = self.plan(BlobKind::Tree, ids);
        let missing = stream::iter(plan.missing.clone()).map(Ok);
        let reader = self.clone();
        let read = self.read(BlobKind::Tree, plan).and_then(open_trees).map_ok(|trees| stream::iter(trees).map(Ok));
        let again = move |opened: Result<OpenedTree, Error>| {
            let reader = reader.clone();
            async move {
                match opened? {
                    (id, Some(tree)) => Ok((id, Ok(tree))),
                    (id, None) => reader.tree_or_damage(id).await,
                }
            }
        };
        read.try_flatten().chain(missing.map_ok(|id| (id, None))).then(again).boxed()
    }

    /// The same as they are stored, and without those that no index knows.
    pub(crate) fn sealed_trees(
        &self,
        ids: impl IntoIterator<Item = Id>,
    ) -> BoxStream<'static, Result<SealedBlobs, Error>> {
        self.read(BlobKind::Tree, self.plan(BlobKind::Tree, ids))
    }

    async fn tree_or_damage(&self, id: Id) -> Result<TreeRead, Error> {
        match self.tree(&id).await {
            Err(error) if !error.is_damage() => Err(error),
            other => Ok((id, other)),
        }
    }

    fn plan(&self, kind: BlobKind, ids: impl IntoIterator<Item = Id>) -> BulkPlan {
        let mut ids: Vec<(Id, usize)> = ids.into_iter().zip(0..).collect();
        ids.sort_unstable();
        ids.dedup_by_key(|(id, _)| *id);
        let mut plan = BulkPlan::default();
        let mut numbers: HashMap<Id, u32> = HashMap::new();
        let mut first_use: Vec<usize> = Vec::new();
        for (id, order) in ids {
            let Some(location) = self.index.locations(kind, &id).next() else {
                plan.missing.push(id);
                continue;
            };
            let pack = *numbers.entry(location.pack).or_insert_with(|| {
                plan.packs.push(location.pack);
                first_use.push(order);
                // an index has no more packs than this counts
                u32::try_from(plan.packs.len() - 1).unwrap_or(u32::MAX)
            });
            first_use[pack as usize] = first_use[pack as usize].min(order);
            let PackedBlob { offset, length, uncompressed, .. } = location.blob;
            plan.blobs.push(Wanted { id, pack, offset, length, uncompressed: uncompressed.unwrap_or(0) });
        }
        plan.blobs.sort_unstable_by_key(|blob| (first_use[blob.pack as usize], blob.pack, blob.offset));
        plan.requests = divide(&plan.blobs, REQUEST);
        plan
    }

    fn read(&self, kind: BlobKind, plan: BulkPlan) -> BoxStream<'static, Result<SealedBlobs, Error>> {
        let BulkPlan { packs, blobs, requests, .. } = plan;
        let held = Arc::new(Semaphore::new(usize::try_from(IN_FLIGHT).unwrap_or(usize::MAX)));
        let (reader, packs, blobs) = (self.clone(), Arc::new(packs), Arc::new(blobs));
        let fetch = move |request: Range<usize>| {
            let (reader, packs, blobs, held) = (reader.clone(), packs.clone(), blobs.clone(), held.clone());
            async move { reader.fetch_sealed(kind, &packs, &blobs[request], held).await }
        };
        let batches = stream::iter(requests).map(fetch).buffered(AHEAD);
        batches.map_ok(|batches| stream::iter(batches).map(Ok)).try_flatten().boxed()
    }

    async fn fetch_sealed(
        &self,
        kind: BlobKind,
        packs: &[Id],
        blobs: &[Wanted],
        held: Arc<Semaphore>,
    ) -> Result<Vec<SealedBlobs>, Error> {
        let span = Wanted::span(blobs);
        let permits = u32::try_from((span.end - span.start).min(IN_FLIGHT)).unwrap_or(u32::MAX);
        // nobody closes the semaphore, so there is no error
        let permit = Arc::new(held.acquire_many_owned(permits).await.ok());
        let start = span.start;
        let Some(first) = blobs.first() else { return Ok(Vec::new()) };
        let bytes = match self.files.store.get_range(&pack_path(&packs[first.pack as usize]), span).await {
            Ok(bytes) => Some(bytes),
            Err(error) if error.is_damage() => None,
            Err(error) => return Err(error),
        };
        let batch = |range: Range<usize>| SealedBlobs {
            kind,
            cipher: self.files.cipher.clone(),
            bytes: bytes.clone(),
            start,
            blobs: blobs[range].to_vec(),
            _held: permit.clone(),
        };
        Ok(divide(blobs, BATCH).into_iter().map(batch).collect())
    }
}

/// A directory by its id, and the damage if it has any.
pub type TreeRead = (Id, Result<Tree, Error>);

type OpenedTree = (Id, Option<Tree>);

async fn open_trees(sealed: SealedBlobs) -> Result<Vec<OpenedTree>, Error> {
    let open = move || {
        let mut trees = Vec::new();
        sealed.open_each(|id, json| trees.push((id, json.and_then(|json| Tree::from_json(&json).ok()))));
        trees
    };
    Ok(tokio::task::spawn_blocking(open).await?)
}

/// Divides sorted blobs into ranges of one pack that span at most `limit` bytes and half of them wanted.
fn divide(blobs: &[Wanted], limit: u64) -> Vec<Range<usize>> {
    let mut ranges: Vec<Range<usize>> = Vec::new();
    let mut wanted = 0;
    for (at, blob) in blobs.iter().enumerate() {
        let length = u64::from(blob.length);
        if let Some(last) = ranges.last_mut() {
            let span = Wanted::span(&[blobs[last.start], *blob]);
            let span = span.end - span.start;
            if blobs[last.start].pack == blob.pack && span <= limit && span <= 2 * (wanted + length) {
                last.end = at + 1;
                wanted += length;
                continue;
            }
        }
        ranges.push(at..at + 1);
        wanted = length;
    }
    ranges
}

#[cfg(test)]
mod tests {
    use super::*;

    fn blob(pack: u32, offset: u32, length: u32) -> Wanted {
        Wanted { id: Id([0; 32]), pack, offset, length, uncompressed: 0 }
    }

    #[test]
    fn one_request_reads_neighbours_of_a_pack_and_no_long_gap() {
        let near = [blob(0, 0, 10), blob(0, 12, 10), blob(0, 22, 10), blob(0, 90, 10), blob(1, 100, 10)];
        assert_eq!(divide(&near, 1000), [0..3, 3..4, 4..5]);
        assert_eq!(divide(&near, 25), [0..2, 2..3, 3..4, 4..5]);
        assert_eq!(divide(&[blob(0, 0, 5000), blob(0, 5000, 1)], 1000), [0..1, 1..2], "a large blob is one request");
        assert_eq!(divide(&[], 1000), []);
    }
}
