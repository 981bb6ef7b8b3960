//! An object store whose operations fail by number.
//!
//! Memory below, so what a fault leaves behind can be looked at through a store without faults.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use futures::{
    StreamExt,
    stream::{self, BoxStream},
};
use object_store::{Error, ObjectMeta, Result, memory::InMemory};
use stillpoint_test_support::store::{Behind, Between};

/// What happens at the operation of the chosen number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fault {
    /// It is not done, and says so.
    Refuse,
    /// It is done, and the answer is lost.
    LoseAnswer,
    /// It never answers.
    Hang,
    /// It and all that follow are not done: the process is dead to the store.
    Die,
}

/// A fault, and how many operations there were; clones count together.
#[derive(Debug, Clone)]
pub(crate) struct Faulty {
    done: Arc<AtomicUsize>,
    at: Arc<AtomicUsize>,
    fault: Fault,
}

fn injected() -> Error {
    Error::Generic { store: "faulty", source: "injected".into() }
}

impl Faulty {
    pub(crate) fn new(at: usize, fault: Fault) -> Self {
        Self { done: Arc::default(), at: Arc::new(at.into()), fault }
    }

    /// The store with this fault before it.
    pub(crate) fn before(&self, below: &Arc<InMemory>) -> Arc<Behind<InMemory, Self>> {
        Arc::new(Behind::new(below.clone(), self.clone()))
    }

    /// Whether the operation of the chosen number was reached.
    pub(crate) fn has_struck(&self) -> bool {
        self.done.load(Ordering::SeqCst) > self.at.load(Ordering::SeqCst)
    }

    /// Chooses the next operation.
    pub(crate) fn strike_next(&self) {
        self.at.store(self.done.load(Ordering::SeqCst), Ordering::SeqCst);
    }

    /// The fault that strikes the next operation.
    fn strike(&self) -> Option<Fault> {
        let number = self.done.fetch_add(1, Ordering::SeqCst);
        let at = self.at.load(Ordering::SeqCst);
        (number == at || (number > at && self.fault == Fault::Die)).then_some(self.fault)
    }
}

impl Between for Faulty {
    async fn through<T: Send>(&self, operation: impl Future<Output = Result<T>> + Send) -> Result<T> {
        match self.strike() {
            None => operation.await,
            Some(Fault::Hang) => std::future::pending().await,
            Some(Fault::LoseAnswer) => operation.await.and(Err(injected())),
            Some(Fault::Refuse | Fault::Die) => Err(injected()),
        }
    }

    fn list(&self, list: BoxStream<'static, Result<ObjectMeta>>) -> BoxStream<'static, Result<ObjectMeta>> {
        match self.strike() {
            None => list,
            Some(Fault::Hang) => stream::pending().boxed(),
            Some(_) => stream::iter([Err(injected())]).boxed(),
        }
    }
}
