//! Writes blobs, trees and at last the snapshot that commits them.
//!
//! Two ways in, from tasks and from threads, to one stock of what was stored. Every queue on the way from there to the
//! store is bounded, so memory is: a few packs, whatever is written.
//!
//! # Guarantees
//! The snapshot is written after every pack and index it needs, and only while the lock holds. The first failed write
//! ends the writer. A writer that ends without a commit leaves no snapshot; the next one uses the packs that it had indexed
//! by then, or a prune removes them.

mod stock;

use std::{
    path::Path,
    sync::{Arc, Mutex},
    time::Duration,
};

use bytes::Bytes;
use tokio::{
    sync::{Semaphore, mpsc},
    task::JoinHandle,
    time,
};

pub use self::stock::Stats;
pub(crate) use self::stock::Stock;
use self::stock::guard;
use crate::{
    Buffers, Error, Id,
    encoding::Compression,
    files::{Files, Folder},
    index::{Index, NewPacks},
    local_trees::LocalTrees,
    lock::Lock,
    pack::{BlobKind, PackBuilder},
    reader::Reader,
    segment::{FileWriter, PIECE},
    snapshot::{SnapshotFile, SnapshotMeta},
    tree::{FileContent, Tree},
    upload::Uploader,
};

/// Buffers of packs that are used again: of both kinds that are filled, and of some on their way.
const KEPT_PACKS: usize = 4;

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

/// How long a writer that gives up may take to index what it has uploaded.
const GIVE_UP: Duration = Duration::from_secs(5);

impl Writer {
    pub(crate) fn new(files: Arc<Files>, lock: Lock, index: Index, compression: Compression) -> Self {
        let (orders, queue) = mpsc::channel(1);
        let buffers = Buffers::new(PackBuilder::BUFFER, KEPT_PACKS);
        let stock = Arc::new(Stock::new(&files, index, compression, lock.lease(), (orders, buffers.clone())));
        let uploader = Uploader::start(files.clone(), buffers, queue, Arc::downgrade(&stock), lock.lease());
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
        Reader::new(self.inner.files.clone(), self.inner.stock.index(), None)
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
            self.inner.stock.adopt(tree);
        }
        Ok(())
    }

    /// Where trees are kept that are to be read again without the store; what exceeds memory lies in `folder`.
    pub fn local_trees(&self, folder: &Path) -> Arc<LocalTrees> {
        Arc::new(LocalTrees::new(self.inner.files.cipher.clone(), folder))
    }

    /// Sends no pack to the store until [`Writer::send_packs`], so that storing blobs waits for no network; what exceeds
    /// memory lies in `folder`.
    pub fn hold_packs(&self, folder: &Path) {
        self.inner.stock.hold(folder);
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
        self.inner.stock.stats()
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

    /// Gives up, for all clones: indexes what was uploaded, so that the next run need not upload it again, removes the
    /// lock and waits until that is done. No snapshot is written.
    ///
    /// Dropping the writer removes the lock as soon as the runtime gets to it, which a program that is about to end does
    /// not wait for.
    pub async fn abandon(self) {
        let lock = guard(&self.inner.lock).take();
        if let Some(lock) = lock {
            match time::timeout(GIVE_UP, self.index_stored(&lock)).await {
                Ok(Ok(())) => {}
                Ok(Err(error)) => tracing::debug!(%error, "what was uploaded is not indexed"),
                Err(_) => tracing::debug!("what was uploaded is not indexed in time"),
            }
            lock.release().await;
        }
    }

    /// As the uploader does it in between.
    async fn index_stored(&self, lock: &Lock) -> Result<(), Error> {
        let packs = self.inner.uploader.stored();
        if packs.blobs() > 0 {
            lock.verify().await?;
            packs.write(&self.inner.files).await?;
        }
        Ok(())
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
        let packs = self.inner.uploader.flush(self.inner.stock.orders()).await?;
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
        self.stock.stats()
    }
}
