//! An object store with something between it and its caller.
//!
//! Delegating every operation is the same whatever stands between; what differs, an answer that is lost or a process
//! that dies, is a few lines of the test's own.

use std::{fmt, future::Future, sync::Arc};

use async_trait::async_trait;
use futures::{
    StreamExt, TryStreamExt,
    stream::{self, BoxStream},
};
use object_store::{
    CopyOptions, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta, ObjectStore, PutMultipartOptions,
    PutOptions, PutPayload, PutResult, Result, path::Path,
};

/// What stands between a store and its caller, asked once for every operation.
pub trait Between: Clone + fmt::Debug + Send + Sync + 'static {
    /// Carries out an operation, or does not, or loses its answer.
    fn through<T: Send>(
        &self,
        operation: impl Future<Output = Result<T>> + Send,
    ) -> impl Future<Output = Result<T>> + Send;

    /// Carries out a write, or only part of it.
    fn through_put<T: Send, F: Future<Output = Result<T>> + Send>(
        &self,
        payload: PutPayload,
        put: impl FnOnce(PutPayload) -> F + Send,
    ) -> impl Future<Output = Result<T>> + Send {
        self.through(put(payload))
    }

    /// Passes a list on, which is answered piece by piece, or something else in its place.
    fn list(&self, list: BoxStream<'static, Result<ObjectMeta>>) -> BoxStream<'static, Result<ObjectMeta>>;
}

/// A store behind `B`.
#[derive(Debug, Clone)]
pub struct Behind<S, B> {
    store: Arc<S>,
    between: B,
}

impl<S, B> Behind<S, B> {
    /// Puts `between` before `store`.
    pub fn new(store: Arc<S>, between: B) -> Self {
        Self { store, between }
    }
}

impl<S, B: fmt::Debug> fmt::Display for Behind<S, B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "a store behind {:?}", self.between)
    }
}

#[async_trait]
impl<S: ObjectStore, B: Between> ObjectStore for Behind<S, B> {
    async fn put_opts(&self, location: &Path, payload: PutPayload, opts: PutOptions) -> Result<PutResult> {
        self.between.through_put(payload, |payload| self.store.put_opts(location, payload, opts)).await
    }

    async fn put_multipart_opts(&self, location: &Path, opts: PutMultipartOptions) -> Result<Box<dyn MultipartUpload>> {
        self.between.through(self.store.put_multipart_opts(location, opts)).await
    }

    async fn get_opts(&self, location: &Path, options: GetOptions) -> Result<GetResult> {
        self.between.through(self.store.get_opts(location, options)).await
    }

    fn delete_stream(&self, locations: BoxStream<'static, Result<Path>>) -> BoxStream<'static, Result<Path>> {
        let (store, between) = (self.store.clone(), self.between.clone());
        let delete = move |location: Path| {
            let (store, between) = (store.clone(), between.clone());
            async move {
                let one = stream::iter([Ok(location.clone())]).boxed();
                let mut deleted = store.delete_stream(one);
                between.through(async { deleted.try_next().await.map(|_| location) }).await
            }
        };
        locations.and_then(delete).boxed()
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        self.between.list(self.store.list(prefix))
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        self.between.through(self.store.list_with_delimiter(prefix)).await
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> Result<()> {
        self.between.through(self.store.copy_opts(from, to, options)).await
    }
}
