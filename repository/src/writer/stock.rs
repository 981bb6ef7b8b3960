//! Takes blobs into packs, each once.
//!
//! One blob's way: hash → known already? → compress → seal → pack; a full pack goes to the uploader. It is one step that
//! no cancellation can divide, since a blob that is known and was never packed would be lost without a trace.

use std::{
    cell::RefCell,
    collections::HashSet,
    path::Path,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use tokio::sync::mpsc;

use crate::{
    Buffers, Error, Id,
    crypto::Cipher,
    encoding::Compression,
    files::Files,
    held_packs::HeldPacks,
    index::Index,
    lock::Lease,
    pack::{BlobKind, PackBuilder, SealedBlob},
    tree::{NodeKind, Tree},
    upload::Order,
};

/// What a writer has stored so far.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Stats {
    /// Blobs that were not in the repository.
    pub blobs_new: u64,
    /// Their bytes before compression.
    pub bytes_new: u64,
    /// Their bytes in packs, headers not counted.
    pub bytes_packed: u64,
    /// Blobs that were there already.
    pub blobs_known: u64,
    /// Their bytes before compression.
    pub bytes_known: u64,
    /// Packs closed and handed to the upload.
    pub packs: u64,
}

/// Whether a writer takes blobs.
enum Phase {
    Open,
    Closed,
    Failed(Arc<Error>),
}

/// What has been stored, shared with the threads that store.
pub(crate) struct Stock {
    cipher: Cipher,
    compression: Compression,
    index: Arc<Index>,
    lease: Lease,
    ledger: Mutex<Ledger>,
    data: Mutex<PackBuilder>,
    trees: Mutex<PackBuilder>,
    buffers: Arc<Buffers>,
    /// Address of the store, for messages.
    store: String,
    orders: mpsc::Sender<Order>,
    /// Packs that wait because nothing may wait for the store.
    held: Mutex<Option<HeldPacks>>,
}

struct Ledger {
    phase: Phase,
    seen: HashSet<(BlobKind, Id)>,
    /// Blobs that were seen and are not in a pack yet.
    unpacked: u64,
    stats: Stats,
}

/// What a thread keeps of its buffer after a blob that was larger than pieces of files are.
const KEPT_BUFFER: usize = 16 << 20;

thread_local! {
    /// Where a thread seals blobs before they are copied into their pack.
    static BUFFER: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

/// A panic under a lock has failed the writer already; what it guards is read for the report.
pub(super) fn guard<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Stock {
    pub(super) fn new(
        files: &Files,
        index: Index,
        compression: Compression,
        lease: Lease,
        (orders, buffers): (mpsc::Sender<Order>, Arc<Buffers>),
    ) -> Self {
        let ledger = Ledger { phase: Phase::Open, seen: HashSet::new(), unpacked: 0, stats: Stats::default() };
        Self {
            cipher: files.cipher.clone(),
            compression,
            index: Arc::new(index),
            lease,
            ledger: Mutex::new(ledger),
            data: Mutex::default(),
            trees: Mutex::default(),
            buffers,
            store: files.store.to_string(),
            orders,
            held: Mutex::default(),
        }
    }

    /// What was stored before the writer was made.
    pub(super) fn index(&self) -> Arc<Index> {
        self.index.clone()
    }

    pub(super) fn orders(&self) -> &mpsc::Sender<Order> {
        &self.orders
    }

    /// What was stored so far.
    pub(super) fn stats(&self) -> Stats {
        guard(&self.ledger).stats
    }

    /// Takes a tree as known that others have stored.
    pub(super) fn adopt(&self, tree: Id) {
        guard(&self.ledger).seen.insert((BlobKind::Tree, tree));
    }

    /// Keeps packs back from now on; what exceeds memory lies in `folder`.
    pub(super) fn hold(&self, folder: &Path) {
        guard(&self.held).get_or_insert_with(|| HeldPacks::new(folder));
    }

    /// Stores a blob unless it is there; blocks while too many packs wait for their upload.
    pub(super) fn store(&self, kind: BlobKind, plaintext: &[u8]) -> Result<Id, Error> {
        let id = Id::of(plaintext);
        if self.admit(kind, id, plaintext.len())?
            && let Err(error) = self.pack(kind, id, plaintext)
        {
            self.fail(error);
        }
        self.failure().map_or(Ok(id), Err)
    }

    /// Whether the blob is new; from then on it is known and counts as under way.
    fn admit(&self, kind: BlobKind, id: Id, size: usize) -> Result<bool, Error> {
        self.lease.check()?;
        let stored = self.index.contains(kind, &id);
        let mut ledger = guard(&self.ledger);
        ledger.check_open()?;
        let new = !stored && ledger.seen.insert((kind, id));
        let (stats, size) = (&mut ledger.stats, size as u64);
        if new {
            (stats.blobs_new, stats.bytes_new) = (stats.blobs_new + 1, stats.bytes_new + size);
            ledger.unpacked += 1;
        } else {
            (stats.blobs_known, stats.bytes_known) = (stats.blobs_known + 1, stats.bytes_known + size);
        }
        Ok(new)
    }

    fn pack(&self, kind: BlobKind, id: Id, plaintext: &[u8]) -> Result<(), Error> {
        let size = BUFFER.with_borrow_mut(|buffer| {
            let blob = SealedBlob::new(&self.cipher, self.compression, (kind, id), plaintext, buffer)?;
            // held while a full pack waits to be taken: otherwise others would fill the next and the next
            let mut builder = guard(self.builder(kind));
            if builder.lacks_room_for(&blob) {
                self.dispatch(std::mem::take(&mut builder))?;
            }
            if builder.is_empty() {
                *builder = PackBuilder::with_buffer(self.buffers.take());
            }
            builder.add(&blob)?;
            if builder.is_full() {
                self.dispatch(std::mem::take(&mut builder))?;
            }
            let size = blob.len();
            buffer.shrink_to(KEPT_BUFFER);
            Ok::<_, Error>(size as u64)
        })?;
        let mut ledger = guard(&self.ledger);
        ledger.stats.bytes_packed += size;
        ledger.unpacked -= 1;
        Ok(())
    }

    fn dispatch(&self, builder: PackBuilder) -> Result<(), Error> {
        guard(&self.ledger).stats.packs += 1;
        if let Some(held) = &mut *guard(&self.held) {
            return held.add(builder.finish(&self.cipher)?);
        }
        self.orders.blocking_send(Order::Upload(builder)).map_err(|_| Error::WriterClosed)
    }

    /// Sends the packs that were held; those that fill up meanwhile are sent beside them.
    pub(super) fn send_held(&self) -> Result<(), Error> {
        let Some(mut held) = guard(&self.held).take() else { return Ok(()) };
        loop {
            match held.next() {
                Ok(Some(pack)) => {
                    self.orders.blocking_send(Order::UploadClosed(pack)).map_err(|_| Error::WriterClosed)?;
                }
                Ok(None) => return Ok(()),
                // blobs that are known are in it
                Err(error) => {
                    self.fail(error);
                    return self.failure().map_or(Ok(()), Err);
                }
            }
        }
    }

    fn builder(&self, kind: BlobKind) -> &Mutex<PackBuilder> {
        match kind {
            BlobKind::Data => &self.data,
            BlobKind::Tree => &self.trees,
        }
    }

    /// Takes no more blobs and hands over the packs that are not full.
    pub(super) fn close(&self) -> Result<(), Error> {
        self.lease.check()?;
        {
            let mut ledger = guard(&self.ledger);
            ledger.check_open()?;
            ledger.phase = Phase::Closed;
            if ledger.unpacked > 0 {
                return Err(Error::invalid("the snapshot", "a blob that it may need failed to be stored"));
            }
        }
        for builder in [&self.data, &self.trees] {
            let builder = std::mem::take(&mut *guard(builder));
            if !builder.is_empty() {
                self.dispatch(builder)?;
            }
        }
        Ok(())
    }

    /// Refuses a directory that refers to what was not stored before.
    pub(super) fn check_tree(&self, tree: &Tree) -> Result<(), Error> {
        for node in tree.nodes() {
            node.content.iter().flatten().try_for_each(|id| self.require(BlobKind::Data, id))?;
            node.subtree.iter().try_for_each(|id| self.require(BlobKind::Tree, id))?;
            if (node.kind == NodeKind::Dir) != node.subtree.is_some() {
                return Err(Error::invalid(format!("the node {:?}", node.name), "only a directory has a tree"));
            }
        }
        Ok(())
    }

    pub(super) fn require(&self, kind: BlobKind, id: &Id) -> Result<(), Error> {
        if self.knows(kind, id) {
            return Ok(());
        }
        Err(Error::BlobMissing { store: self.store.clone(), kind: kind.name(), id: *id })
    }

    pub(super) fn knows(&self, kind: BlobKind, id: &Id) -> bool {
        self.index.contains(kind, id) || guard(&self.ledger).seen.contains(&(kind, *id))
    }

    /// Ends the writer by its first error.
    pub(crate) fn fail(&self, error: Error) {
        let mut ledger = guard(&self.ledger);
        if !matches!(ledger.phase, Phase::Failed(_)) {
            ledger.phase = Phase::Failed(Arc::new(error));
        }
    }

    pub(super) fn failure(&self) -> Option<Error> {
        match &guard(&self.ledger).phase {
            Phase::Failed(source) => Some(Error::WriterFailed { source: source.clone() }),
            Phase::Open | Phase::Closed => None,
        }
    }
}

impl Ledger {
    fn check_open(&self) -> Result<(), Error> {
        match &self.phase {
            Phase::Open => Ok(()),
            Phase::Closed => Err(Error::WriterClosed),
            Phase::Failed(source) => Err(Error::WriterFailed { source: source.clone() }),
        }
    }
}
