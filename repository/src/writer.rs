//! Writes blobs, trees and at last the snapshot that commits them.
//!
//! One call's way: a permit for a processor, then off the runtime's threads hash → known already? → compress → seal →
//! pack; a full pack goes to the uploader. Every queue on that way is bounded, so memory is: a few packs, whatever is
//! written. Hashing to packing is one step that no cancellation can divide, since a blob that is known and was never
//! packed would be lost without a trace.
//!
//! # Guarantees
//! The snapshot is written after every pack and index it needs, and only while the lock holds. The first failed write
//! ends the writer. A writer that is dropped leaves no snapshot; a prune removes the packs it left.

use std::{
    cell::RefCell,
    collections::HashSet,
    path::Path,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use bytes::Bytes;
use tokio::{
    sync::{Semaphore, mpsc},
    task::JoinHandle,
};

use crate::{
    Buffers, Error, Id,
    crypto::Cipher,
    encoding::Compression,
    files::{Files, Folder},
    held_packs::HeldPacks,
    index::{Index, NewPacks},
    local_trees::LocalTrees,
    lock::{Lease, Lock},
    pack::{BlobKind, PackBuilder, SealedBlob},
    reader::Reader,
    segment::{FileWriter, PIECE},
    snapshot::{SnapshotFile, SnapshotMeta},
    tree::{FileContent, NodeKind, Tree},
    upload::{Order, Uploader},
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

/// Writes to a repository. Clones share one lock, one set of packs and one commit, and work from many tasks.
#[derive(Clone)]
pub struct Writer {
    inner: Arc<Inner>,
}

struct Inner {
    files: Arc<Files>,
    stock: Arc<Stock>,
    processors: Arc<Semaphore>,
    permits: u32,
    uploader: Uploader,
    // taken by whatever ends the writer, which waits until it is released
    lock: Mutex<Option<Lock>>,
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

/// Buffers of packs that are used again: of both kinds that are filled, and of some on their way.
const KEPT_PACKS: usize = 4;

/// What a thread keeps of its buffer after a blob that was larger than pieces of files are.
const KEPT_BUFFER: usize = 16 << 20;

thread_local! {
    /// Where a thread seals blobs before they are copied into their pack.
    static BUFFER: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

/// A panic under a lock has failed the writer already; what it guards is read for the report.
fn guard<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Writer {
    pub(crate) fn new(files: Arc<Files>, lock: Lock, index: Index, compression: Compression) -> Self {
        let (orders, queue) = mpsc::channel(1);
        let ledger = Ledger { phase: Phase::Open, seen: HashSet::new(), unpacked: 0, stats: Stats::default() };
        let buffers = Buffers::new(PackBuilder::BUFFER, KEPT_PACKS);
        let stock = Arc::new(Stock {
            cipher: files.cipher.clone(),
            compression,
            index: Arc::new(index),
            lease: lock.lease(),
            ledger: Mutex::new(ledger),
            data: Mutex::default(),
            trees: Mutex::default(),
            buffers: buffers.clone(),
            store: files.store.to_string(),
            orders,
            held: Mutex::default(),
        });
        let uploader = Uploader::start(files.clone(), buffers, queue, Arc::downgrade(&stock));
        // one more than processors, so that none idles while another waits for a pack to be taken
        let permits = std::thread::available_parallelism().map_or(2, |n| n.get().min(64)) + 1;
        let inner = Inner {
            files,
            stock,
            processors: Arc::new(Semaphore::new(permits)),
            permits: u32::try_from(permits).unwrap_or(1),
            uploader,
            lock: Mutex::new(Some(lock)),
        };
        Self { inner: Arc::new(inner) }
    }

    /// Starts a file of lines.
    pub fn file_writer(&self) -> FileWriter {
        FileWriter::new(self.clone())
    }

    /// Stores a small file.
    ///
    /// # Errors
    /// Those of writing.
    pub async fn bytes(&self, content: &[u8]) -> Result<FileContent, Error> {
        let mut stored = FileContent { blobs: Vec::new(), size: content.len() as u64 };
        for piece in content.chunks(PIECE) {
            let blob = self.start(BlobKind::Data, Bytes::copy_from_slice(piece)).await?;
            stored.blobs.push(blob.await??);
        }
        Ok(stored)
    }

    /// Stores a directory.
    ///
    /// # Errors
    /// [`Error::BlobMissing`] if a node refers to what was not stored before; otherwise those of writing.
    pub async fn tree(&self, tree: Tree) -> Result<Id, Error> {
        self.inner.stock.check_tree(&tree)?;
        let json = tree.to_json()?;
        self.start(BlobKind::Tree, json.into()).await?.await?
    }

    /// Reads what was stored before the writer was made, by the writer's own index.
    pub fn reader(&self) -> Reader {
        Reader::new(self.inner.files.clone(), self.inner.stock.index.clone(), None)
    }

    /// The writer for threads that are not the runtime's.
    pub fn threads(&self) -> BlockingWriter {
        BlockingWriter { stock: self.inner.stock.clone(), trees: None }
    }

    /// Takes trees that others have stored since this writer began, so that directories may refer to them; `reader` was
    /// made since then too, and something keeps them alive until the commit.
    ///
    /// # Errors
    /// [`Error::BlobMissing`] for one that is not stored.
    pub fn adopt(&self, reader: &Reader, trees: impl IntoIterator<Item = Id>) -> Result<(), Error> {
        for tree in trees {
            reader.require_tree(&tree)?;
            guard(&self.inner.stock.ledger).seen.insert((BlobKind::Tree, tree));
        }
        Ok(())
    }

    /// Where trees are kept that are to be read again without the store; what exceeds memory lies in `folder`.
    pub fn local_trees(&self, folder: &Path) -> Arc<LocalTrees> {
        Arc::new(LocalTrees::new(self.inner.stock.cipher.clone(), folder))
    }

    /// Sends no pack to the store until [`Writer::send_packs`], so that storing blobs waits for no network; what exceeds
    /// memory lies in `folder`.
    pub fn hold_packs(&self, folder: &Path) {
        guard(&self.inner.stock.held).get_or_insert_with(|| HeldPacks::new(folder));
    }

    /// Sends the packs that were held, and those to come at once.
    ///
    /// # Errors
    /// Those of writing.
    pub async fn send_packs(&self) -> Result<(), Error> {
        let stock = self.inner.stock.clone();
        tokio::task::spawn_blocking(move || stock.send_held()).await?
    }

    /// What was stored so far.
    pub fn stats(&self) -> Stats {
        guard(&self.inner.stock.ledger).stats
    }

    /// Makes everything durable and then visible: packs, index, a last look at the lock, the snapshot.
    ///
    /// Ends the writer for all its clones. After an error the snapshot exists only if its own answer was lost and it could
    /// not be removed either; then it is complete.
    ///
    /// # Errors
    /// [`Error::LockLost`] if the lock is gone, [`Error::WriterFailed`] after an earlier error.
    pub async fn commit(self, meta: SnapshotMeta) -> Result<Id, Error> {
        self.commit_over(meta, &[]).await
    }

    /// Commits as [`Writer::commit`] does, and removes the snapshots that kept parts of this one alive until now: no prune
    /// can run in between. One that cannot be removed is left.
    ///
    /// # Errors
    /// Those of [`Writer::commit`].
    pub async fn commit_over(self, meta: SnapshotMeta, parts: &[Id]) -> Result<Id, Error> {
        let lock = guard(&self.inner.lock).take().ok_or(Error::WriterClosed)?;
        let committed = self.commit_locked(meta, &lock).await;
        match &committed {
            Ok(_) => self.remove_parts(parts).await,
            Err(error) => tracing::debug!(%error, "the commit failed"),
        }
        lock.release().await;
        committed
    }

    /// Gives up, for all clones: removes the lock and waits until that is done. No snapshot is written.
    ///
    /// Dropping the writer does the same as soon as the runtime gets to it, which a program that is about to end does
    /// not wait for.
    pub async fn abandon(self) {
        let lock = guard(&self.inner.lock).take();
        if let Some(lock) = lock {
            lock.release().await;
        }
    }

    async fn remove_parts(&self, parts: &[Id]) {
        for part in parts {
            if let Err(error) = self.inner.files.remove(Folder::Snapshots, part).await {
                tracing::warn!(%error, %part, "a part of the backup keeps a snapshot of its own");
            }
        }
    }

    async fn commit_locked(&self, meta: SnapshotMeta, lock: &Lock) -> Result<Id, Error> {
        self.inner.stock.require(BlobKind::Tree, &meta.tree)?;
        self.flush().await?.write(&self.inner.files).await?;
        let json = serde_json::to_vec(&SnapshotFile::from(meta))
            .map_err(|error| Error::invalid("the snapshot", error.to_string()))?;
        let snapshot = self.inner.files.seal(Folder::Snapshots, json).await?;
        lock.verify().await?;
        self.inner.files.write(snapshot).await
    }

    /// Closes the writer and waits until all packs are stored.
    async fn flush(&self) -> Result<NewPacks, Error> {
        // whoever holds no permit stores nothing: with all of them nothing is under way
        let idle = self.inner.processors.acquire_many(self.inner.permits).await;
        let stock = self.inner.stock.clone();
        tokio::task::spawn_blocking(move || stock.send_held().and_then(|()| stock.close())).await??;
        drop(idle);
        let packs = self.inner.uploader.flush(&self.inner.stock.orders).await?;
        self.inner.stock.failure().map_or(Ok(packs), Err)
    }

    /// Starts storing a blob once a processor is free.
    pub(crate) async fn start(&self, kind: BlobKind, plaintext: Bytes) -> Result<JoinHandle<Result<Id, Error>>, Error> {
        let permit = self.inner.processors.clone().acquire_owned().await.map_err(|_| Error::WriterClosed)?;
        let stock = self.inner.stock.clone();
        Ok(tokio::task::spawn_blocking(move || {
            let stored = stock.store(kind, &plaintext);
            drop(permit);
            stored
        }))
    }
}

/// Stores blobs on the caller's threads, which hash, compress and seal; they wait while too many packs are on their
/// way. It must not be used on a thread of the runtime, and not after the commit began.
#[derive(Clone)]
pub struct BlockingWriter {
    stock: Arc<Stock>,
    trees: Option<Arc<LocalTrees>>,
}

impl BlockingWriter {
    /// The same, keeping every tree that it stores in `trees` too.
    #[must_use]
    pub fn keeping(self, trees: Arc<LocalTrees>) -> Self {
        Self { trees: Some(trees), ..self }
    }

    /// Stores a piece of a file.
    ///
    /// # Errors
    /// Those of writing.
    pub fn data(&self, piece: &[u8]) -> Result<Id, Error> {
        self.stock.store(BlobKind::Data, piece)
    }

    /// Stores a directory.
    ///
    /// # Errors
    /// [`Error::BlobMissing`] if a node refers to what was not stored before; otherwise those of writing.
    pub fn tree(&self, tree: &Tree) -> Result<Id, Error> {
        self.stock.check_tree(tree)?;
        let json = tree.to_json()?;
        let id = self.stock.store(BlobKind::Tree, &json)?;
        self.trees.iter().try_for_each(|trees| trees.put(id, &json))?;
        Ok(id)
    }

    /// Whether a piece of a file is stored, or on its way.
    pub fn holds(&self, piece: &Id) -> bool {
        self.stock.knows(BlobKind::Data, piece)
    }

    /// What was stored so far.
    pub fn stats(&self) -> Stats {
        guard(&self.stock.ledger).stats
    }
}

impl Stock {
    /// Stores a blob unless it is there; blocks while too many packs wait for their upload.
    fn store(&self, kind: BlobKind, plaintext: &[u8]) -> Result<Id, Error> {
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
    fn send_held(&self) -> Result<(), Error> {
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
    fn close(&self) -> Result<(), Error> {
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
    fn check_tree(&self, tree: &Tree) -> Result<(), Error> {
        for node in tree.nodes() {
            node.content.iter().flatten().try_for_each(|id| self.require(BlobKind::Data, id))?;
            node.subtree.iter().try_for_each(|id| self.require(BlobKind::Tree, id))?;
            if (node.kind == NodeKind::Dir) != node.subtree.is_some() {
                return Err(Error::invalid(format!("the node {:?}", node.name), "only a directory has a tree"));
            }
        }
        Ok(())
    }

    fn require(&self, kind: BlobKind, id: &Id) -> Result<(), Error> {
        if self.knows(kind, id) {
            return Ok(());
        }
        Err(Error::BlobMissing { store: self.store.clone(), kind: kind.name(), id: *id })
    }

    fn knows(&self, kind: BlobKind, id: &Id) -> bool {
        self.index.contains(kind, id) || guard(&self.ledger).seen.contains(&(kind, *id))
    }

    /// Ends the writer by its first error.
    pub(crate) fn fail(&self, error: Error) {
        let mut ledger = guard(&self.ledger);
        if !matches!(ledger.phase, Phase::Failed(_)) {
            ledger.phase = Phase::Failed(Arc::new(error));
        }
    }

    fn failure(&self) -> Option<Error> {
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
