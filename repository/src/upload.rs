//! Uploads packs, a few at a time.
//!
//! One task owns all uploads of a writer, so that dropping the writer ends them and a flush knows when all are done.

use std::sync::Weak;

use tokio::{
    sync::{mpsc, oneshot},
    task::{JoinError, JoinSet},
};
use tokio_util::task::AbortOnDropHandle;

use crate::{
    Error, Id,
    index::NewPacks,
    pack::{Pack, PackedBlob},
    store::Store,
    writer::Stock,
};

/// Packs on their way at the same time.
const CONCURRENT: usize = 3;

/// What the uploader is asked to do.
pub(crate) enum Order {
    /// Store a pack.
    Upload(Pack),
    /// Answer with all packs stored since the last flush, once none is on its way.
    Flush(oneshot::Sender<NewPacks>),
}

/// The task that uploads; dropping it stops it.
pub(crate) struct Uploader {
    _task: AbortOnDropHandle<()>,
}

impl Uploader {
    /// Starts uploading what `queue` brings; a failure is reported to `stock`.
    pub(crate) fn start(store: Store, queue: mpsc::Receiver<Order>, stock: Weak<Stock>) -> Self {
        let run = Run { store, stock, uploads: JoinSet::new(), packs: NewPacks::default() };
        Self { _task: AbortOnDropHandle::new(tokio::spawn(run.run(queue))) }
    }

    /// Waits until every pack ordered before is stored or failed.
    pub(crate) async fn flush(&self, orders: &mpsc::Sender<Order>) -> Result<NewPacks, Error> {
        let (reply, done) = oneshot::channel();
        orders.send(Order::Flush(reply)).await.map_err(|_| Error::WriterClosed)?;
        done.await.map_err(|_| Error::WriterClosed)
    }
}

/// A stored pack and what is in it.
type Stored = Result<(Id, Vec<PackedBlob>), Error>;

struct Run {
    store: Store,
    stock: Weak<Stock>,
    uploads: JoinSet<Stored>,
    packs: NewPacks,
}

impl Run {
    async fn run(mut self, mut queue: mpsc::Receiver<Order>) {
        loop {
            tokio::select! {
                Some(done) = self.uploads.join_next() => self.record(done),
                order = queue.recv(), if self.uploads.len() < CONCURRENT => match order {
                    Some(Order::Upload(pack)) => drop(self.uploads.spawn(upload(self.store.clone(), pack))),
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
            Ok((id, blobs)) => self.packs.add(id, blobs),
            Err(error) => {
                if let Some(stock) = self.stock.upgrade() {
                    stock.fail(error);
                }
            }
        }
    }
}

async fn upload(store: Store, pack: Pack) -> Stored {
    store.put(&pack_path(&pack.id), pack.bytes.into()).await?;
    Ok((pack.id, pack.blobs))
}

/// Path of a pack: `data/` and the first two digits of its id, as restic lays them out.
pub(crate) fn pack_path(id: &Id) -> String {
    let name = id.to_string();
    format!("data/{}/{name}", &name[..2])
}
