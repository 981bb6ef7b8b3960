//! An object store whose operations fail by number.
//!
//! Memory below, so what a fault leaves behind can be looked at through a store without faults.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use futures::{
    StreamExt, TryStreamExt,
    stream::{self, BoxStream},
};
use object_store::{Error, ObjectMeta, ObjectStore, ObjectStoreExt, PutPayload, Result, memory::InMemory};

use crate::store::{Behind, Between};

const DELAY: Duration = Duration::from_millis(50);

/// What happens at the operation of the chosen number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// It is not done, and says so.
    Refuse,
    /// It is done, and the answer is lost.
    LoseAnswer,
    /// Of what is written half is kept, and it says so; what else it is refused.
    Tear,
    /// It is done, later than all that was asked meanwhile.
    Delay,
    /// It never answers.
    Hang,
    /// It and all that follow are not done: the process is dead to the store.
    Die,
}

/// A fault, and how many operations there were; clones count together.
#[derive(Debug, Clone)]
pub struct Faulty {
    done: Arc<AtomicUsize>,
    at: Arc<AtomicUsize>,
    fault: Fault,
}

fn injected() -> Error {
    Error::Generic { store: "faulty", source: "injected".into() }
}

impl Faulty {
    /// Strikes at the operation of number `at`, counted from 0.
    #[must_use]
    pub fn new(at: usize, fault: Fault) -> Self {
        Self { done: Arc::default(), at: Arc::new(at.into()), fault }
    }

    /// The store with this fault before it.
    #[must_use]
    pub fn before(&self, below: &Arc<InMemory>) -> Arc<Behind<InMemory, Self>> {
        Arc::new(Behind::new(below.clone(), self.clone()))
    }

    /// Whether the operation of the chosen number was reached.
    #[must_use]
    pub fn has_struck(&self) -> bool {
        self.done.load(Ordering::SeqCst) > self.at.load(Ordering::SeqCst)
    }

    /// Chooses the next operation.
    pub fn strike_next(&self) {
        self.at.store(self.done.load(Ordering::SeqCst), Ordering::SeqCst);
    }

    /// The fault that strikes the next operation.
    fn strike(&self) -> Option<Fault> {
        let number = self.done.fetch_add(1, Ordering::SeqCst);
        let at = self.at.load(Ordering::SeqCst);
        (number == at || (number > at && self.fault == Fault::Die)).then_some(self.fault)
    }
}

impl Faulty {
    async fn done<T>(fault: Option<Fault>, operation: impl Future<Output = Result<T>> + Send) -> Result<T> {
        match fault {
            None => operation.await,
            Some(Fault::Delay) => {
                tokio::time::sleep(DELAY).await;
                operation.await
            }
            Some(Fault::Hang) => std::future::pending().await,
            Some(Fault::LoseAnswer) => operation.await.and(Err(injected())),
            Some(Fault::Refuse | Fault::Die | Fault::Tear) => Err(injected()),
        }
    }
}

impl Between for Faulty {
    async fn through<T: Send>(&self, operation: impl Future<Output = Result<T>> + Send) -> Result<T> {
        Self::done(self.strike(), operation).await
    }

    async fn through_put<T: Send, F: Future<Output = Result<T>> + Send>(
        &self,
        payload: PutPayload,
        put: impl FnOnce(PutPayload) -> F + Send,
    ) -> Result<T> {
        match self.strike() {
            Some(Fault::Tear) => put(half(&payload)).await.and(Err(injected())),
            fault => Self::done(fault, put(payload)).await,
        }
    }

    fn list(&self, list: BoxStream<'static, Result<ObjectMeta>>) -> BoxStream<'static, Result<ObjectMeta>> {
        match self.strike() {
            None => list,
            Some(Fault::Delay) => {
                stream::once(tokio::time::sleep(DELAY)).flat_map(move |()| stream::empty()).chain(list).boxed()
            }
            Some(Fault::Hang) => stream::pending().boxed(),
            Some(_) => stream::iter([Err(injected())]).boxed(),
        }
    }
}

fn half(payload: &PutPayload) -> PutPayload {
    let bytes = payload.iter().flatten().copied().take(payload.content_length() / 2);
    PutPayload::from(bytes.collect::<Vec<_>>())
}

/// A store in memory with the same objects.
///
/// # Panics
/// Never: nothing fails in memory.
#[allow(clippy::unwrap_used)]
pub async fn copy_store(from: &InMemory) -> Arc<InMemory> {
    let to = InMemory::new();
    for meta in from.list(None).try_collect::<Vec<_>>().await.unwrap() {
        let bytes = from.get(&meta.location).await.unwrap().bytes().await.unwrap();
        to.put(&meta.location, PutPayload::from(bytes)).await.unwrap();
    }
    Arc::new(to)
}
