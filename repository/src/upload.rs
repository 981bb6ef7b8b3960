//! Uploads packs, a few at a time.
//!
//! One task owns all uploads of a writer, so that dropping the writer ends them and a flush knows when all are done.

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError, Weak},
    time::Duration,
};

use tokio::{
    sync::{mpsc, oneshot},
    task::{JoinError, JoinSet},
    time::{self, Instant},
};
use tokio_util::task::AbortOnDropHandle;

use crate::{
    Buffers, Error, Id,
    files::Files,
    index::NewPacks,
    lock::Lease,
    pack::{Pack, PackBuilder, PackedBlob},
    writer::Stock,
};

/// Packs on their way at the same time.
const CONCURRENT: usize = 3;

/// Blobs whose packs are indexed together before the end.
const INDEXED_TOGETHER: usize = 25_000;
/// The longest that stored packs wait for their index: what a run that is killed has to store again.
const INDEXED_AFTER: Duration = Duration::from_secs(15);

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
    packs: Arc<Mutex<NewPacks>>,
    _task: AbortOnDropHandle<()>,
}

impl Uploader {
    /// Starts uploading what `queue` brings; a failure is reported to `stock`.
    pub(crate) fn start(
        files: Arc<Files>,
        buffers: Arc<Buffers>,
        queue: mpsc::Receiver<Order>,
        stock: Weak<Stock>,
        lease: Lease,
    ) -> Self {
        let packs = Arc::default();
        let (uploads, stored) = (JoinSet::new(), Arc::clone(&packs));
        let run = Run { files, buffers, stock, lease, uploads, packs: stored, since: None };
        Self { packs, _task: AbortOnDropHandle::new(tokio::spawn(run.run(queue))) }
    }

    /// The packs that are stored and in no index yet, which the caller puts into one.
    pub(crate) fn stored(&self) -> NewPacks {
        std::mem::take(&mut *guard(&self.packs))
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
    lease: Lease,
    uploads: JoinSet<Stored>,
    /// Stored and in no index yet.
    packs: Arc<Mutex<NewPacks>>,
    /// When the first of them was stored.
    since: Option<Instant>,
}

/// Nothing that could panic runs under the lock.
fn guard(packs: &Mutex<NewPacks>) -> MutexGuard<'_, NewPacks> {
    packs.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Run {
    async fn run(mut self, mut queue: mpsc::Receiver<Order>) {
        loop {
            tokio::select! {
                Some(done) = self.uploads.join_next() => self.record(done),
                () = due(self.since), if self.since.is_some() => self.index(),
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
        self.take()
    }

    fn take(&mut self) -> NewPacks {
        self.since = None;
        std::mem::take(&mut *guard(&self.packs))
    }

    fn index(&mut self) {
        let packs = self.take();
        self.uploads.spawn(write_index(self.files.clone(), self.lease.clone(), packs));
    }

    fn record(&mut self, done: Result<Stored, JoinError>) {
        match done.map_err(Error::from).flatten() {
            Ok(Upload::Index) => {}
            Ok(Upload::Pack(id, blobs)) => {
                self.since.get_or_insert_with(Instant::now);
                let waiting = {
                    let mut packs = guard(&self.packs);
                    packs.add(id, blobs);
                    packs.blobs()
                };
                if waiting >= INDEXED_TOGETHER {
                    self.index();
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

/// Until packs have waited for long enough.
async fn due(since: Option<Instant>) {
    if let Some(since) = since {
        time::sleep_until(since + INDEXED_AFTER).await;
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

/// A prune that took our lock for a dead one's may have removed the packs: an index must not name them then.
async fn write_index(files: Arc<Files>, lease: Lease, packs: NewPacks) -> Stored {
    lease.verify().await?;
    packs.write(&files).await.map(|()| Upload::Index)
}

/// Path of a pack: `data/` and the first two digits of its id, as restic lays them out.
pub(crate) fn pack_path(id: &Id) -> String {
    let name = id.to_string();
    format!("data/{}/{name}", &name[..2])
}
