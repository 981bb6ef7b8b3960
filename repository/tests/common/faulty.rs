//! An object store whose operations fail by number.
//!
//! Memory below, so what a fault leaves behind can be looked at through a store without faults.

use std::{
    fmt,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use async_trait::async_trait;
use futures::{
    StreamExt, TryStreamExt,
    stream::{self, BoxStream},
};
use object_store::{
    CopyOptions, Error, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta, ObjectStore,
    PutMultipartOptions, PutOptions, PutPayload, PutResult, Result, memory::InMemory, path::Path,
};

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

#[derive(Debug, Clone)]
pub(crate) struct Faulty {
    below: Arc<InMemory>,
    done: Arc<AtomicUsize>,
    at: Arc<AtomicUsize>,
    fault: Fault,
}

impl fmt::Display for Faulty {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?} at {:?}", self.fault, self.at)
    }
}

fn injected() -> Error {
    Error::Generic { store: "faulty", source: "injected".into() }
}

impl Faulty {
    pub(crate) fn new(below: Arc<InMemory>, at: usize, fault: Fault) -> Self {
        Self { below, done: Arc::default(), at: Arc::new(at.into()), fault }
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

    async fn through<T>(&self, operation: impl Future<Output = Result<T>>) -> Result<T> {
        match self.strike() {
            None => operation.await,
            Some(Fault::Hang) => std::future::pending().await,
            Some(Fault::LoseAnswer) => operation.await.and(Err(injected())),
            Some(Fault::Refuse | Fault::Die) => Err(injected()),
        }
    }
}

#[async_trait]
impl ObjectStore for Faulty {
    async fn put_opts(&self, location: &Path, payload: PutPayload, opts: PutOptions) -> Result<PutResult> {
        self.through(self.below.put_opts(location, payload, opts)).await
    }

    async fn put_multipart_opts(&self, location: &Path, opts: PutMultipartOptions) -> Result<Box<dyn MultipartUpload>> {
        self.through(self.below.put_multipart_opts(location, opts)).await
    }

    async fn get_opts(&self, location: &Path, options: GetOptions) -> Result<GetResult> {
        self.through(self.below.get_opts(location, options)).await
    }

    fn delete_stream(&self, locations: BoxStream<'static, Result<Path>>) -> BoxStream<'static, Result<Path>> {
        let this = self.clone();
        let delete = move |location: Path| {
            let this = this.clone();
            async move {
                let one = stream::iter([Ok(location.clone())]).boxed();
                let mut deleted = this.below.delete_stream(one);
                this.through(async { deleted.try_next().await.map(|_| location) }).await
            }
        };
        locations.and_then(delete).boxed()
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        match self.strike() {
            None => self.below.list(prefix),
            Some(Fault::Hang) => stream::pending().boxed(),
            Some(_) => stream::iter([Err(injected())]).boxed(),
        }
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        self.through(self.below.list_with_delimiter(prefix)).await
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> Result<()> {
        self.through(self.below.copy_opts(from, to, options)).await
    }
}
