//! Uploads packs, a few at a time.
//!
//! One task owns all uploads of a writer, so that dropping the writer ends them and a flush knows when all are done.

use std::{
    sync::{Arc, Weak},
    time::{Duration, Instant},
};

use tokio::{
    sync::{mpsc, oneshot},
    task::{JoinError, JoinSet},
};
use tokio_util::task::AbortOnDropHandle;

use crate::{
    Buffers, Error, Id,
    files::Files,
    index::NewPacks,
    pack::{Pack, PackBuilder, PackedBlob},
    writer::Stock,
};

/// Packs on their way at the same time.
const CONCURRENT: usize = 3;

/// Blobs whose packs are indexed together before the end, so that a run that is interrupted need not store them again.
const INDEXED_TOGETHER: usize = 25_000;
/// The longest that stored packs wait for their index.
const INDEXED_AFTER: Duration = Duration::from_secs(120);

/// What the uploader is asked to do.
pub(crate) enum Order {
    /// Close a pack and store it.
    Upload(PackBuilder),
    /// Store a pack that was closed before.
    UploadClosed(Pack),
    /// Answer with all packs stored since the last flush, once none is on its way.
    Flush(oneshot::Sender<NewPacks>),
}

/// The task that uploads; dropping it stops it.
pub(crate) struct Uploader {
    _task: AbortOnDropHandle<()>,
}

impl Uploader {
    /// Starts uploading what `queue` brings; a failure is reported to `stock`.
    pub(crate) fn start(
        files: Arc<Files>,
        buffers: Arc<Buffers>,
        queue: mpsc::Receiver<Order>,
        stock: Weak<Stock>,
    ) -> Self {
        let (uploads, packs, indexed) = (JoinSet::new(), NewPacks::default(), Instant::now());
        let run = Run { files, buffers, stock, uploads, packs, indexed };
        Self { _task: AbortOnDropHandle::new(tokio::spawn(run.run(queue))) }
    }

    /// Waits until every pack ordered before is stored or failed.
    pub(crate) async fn flush(&self, orders: &mpsc::Sender<Order>) -> Result<NewPacks, Error> {
        let (reply, done) = oneshot::channel();
        orders.send(Order::Flush(reply)).await.map_err(|_| Error::WriterClosed)?;
        done.await.map_err(|_| Error::WriterClosed)
    }
}

/// What one upload came to.
type Stored = Result<Upload, Error>;

enum Upload {
    /// A pack, and what is in it.
    Pack(Id, Vec<PackedBlob>),
    /// An index of packs that were stored before.
    Index,
}

struct Run {
    files: Arc<Files>,
    buffers: Arc<Buffers>,
    stock: Weak<Stock>,
    uploads: JoinSet<Stored>,
    /// Stored and in no index yet.
    packs: NewPacks,
    indexed: Instant,
}

impl Run {
    async fn run(mut self, mut queue: mpsc::Receiver<Order>) {
        loop {
            tokio::select! {
                Some(done) = self.uploads.join_next() => self.record(done),
                order = queue.recv(), if self.uploads.len() < CONCURRENT => match order {
                    Some(Order::Upload(pack)) => {
                        self.uploads.spawn(close(self.files.clone(), self.buffers.clone(), pack));
                    }
                    Some(Order::UploadClosed(pack)) => {
                        self.uploads.spawn(upload(self.files.clone(), self.buffers.clone(), pack));
                    }
                    // whoever asked may be gone
                    Some(Order::Flush(reply)) => drop(reply.send(self.flush().await)),
                    None => return,
                },
            }
        }
    }

    async fn flush(&mut self) -> NewPacks {
        while let Some(done) = self.uploads.join_next().await {
            self.record(done);
        }
        std::mem::take(&mut self.packs)
    }

    fn record(&mut self, done: Result<Stored, JoinError>) {
        match done.map_err(Error::from).flatten() {
            Ok(Upload::Index) => {}
            Ok(Upload::Pack(id, blobs)) => {
                self.packs.add(id, blobs);
                if self.packs.blobs() >= INDEXED_TOGETHER || self.indexed.elapsed() >= INDEXED_AFTER {
                    self.indexed = Instant::now();
                    let packs = std::mem::take(&mut self.packs);
                    self.uploads.spawn(write_index(self.files.clone(), packs));
                }
            }
            Err(error) => {
                if let Some(stock) = self.stock.upgrade() {
                    stock.fail(error);
                }
            }
        }
    }
}

async fn close(files: Arc<Files>, buffers: Arc<Buffers>, pack: PackBuilder) -> Stored {
    let cipher = files.cipher.clone();
    let pack = tokio::task::spawn_blocking(move || pack.finish(&cipher)).await??;
    upload(files, buffers, pack).await
}

async fn upload(files: Arc<Files>, buffers: Arc<Buffers>, pack: Pack) -> Stored {
    files.store.put(&pack_path(&pack.id), buffers.lend(pack.bytes)).await?;
    Ok(Upload::Pack(pack.id, pack.blobs))
}

async fn write_index(files: Arc<Files>, packs: NewPacks) -> Stored {
    packs.write(&files).await.map(|()| Upload::Index)
}

/// Path of a pack: `data/` and the first two digits of its id, as restic lays them out.
pub(crate) fn pack_path(id: &Id) -> String {
    let name = id.to_string();
    format!("data/{}/{name}", &name[..2])
}
