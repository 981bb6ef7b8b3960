//! Reads and writes the files of a repository in any object store.
//!
//! Everything in which stores differ is met below this module and nowhere else: addresses, credentials, the words for
//! an absent bucket or a refused right, deletes of what is not there, create-only writes, and folders, which only a
//! file system has. No store is asked for the end of a file, which not all of them can give.

mod address;
mod azure;
mod connect;
mod gcs;
mod http;
mod local;
mod options;
mod outcome;
mod pace;
mod place;
mod profile;
mod s3;
#[cfg(test)]
mod tests;

use std::{fmt, ops::Range, sync::Arc, time::Duration};

use bytes::Bytes;
use futures::StreamExt;
use object_store::{
    Error as StoreError, Extensions, GetOptions, GetResult, ObjectMeta, ObjectStore, ObjectStoreExt, PutMode,
    PutOptions,
    path::{Path, PathPart},
};

use crate::Error;

pub use options::StoreOptions;
use outcome::{Act, classify};
use pace::Progress;
use place::Place;

/// How long reading a small file may stand still. A repository is opened by one, so a store that hangs is reported
/// while the user looks on.
const SMALL_PATIENCE: Duration = Duration::from_secs(20);
/// Bytes of a small file.
const SMALL: u64 = 1 << 20;

/// A place for a repository: an object store and a prefix in it. Cheap to clone.
#[derive(Clone)]
pub struct Store {
    objects: Arc<dyn ObjectStore>,
    prefix: Path,
    place: Arc<Place>,
}

/// A file found by listing a folder.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Entry {
    /// Path below the listed folder.
    pub(crate) name: String,
    /// Bytes.
    pub(crate) size: u64,
}

impl fmt::Debug for Store {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Store({self})")
    }
}

impl fmt::Display for Store {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.place.fmt(f)
    }
}

impl Store {
    /// Connects to an address: `file:///path`, a local path, `s3://bucket/prefix`, `az://container/prefix` or
    /// `gs://bucket/prefix`.
    ///
    /// Credentials, region and endpoint are those of the environment, as `docs/stores.md` says. Nothing is asked of
    /// the store yet. If the process has chosen no TLS implementation for rustls, ring is installed.
    ///
    /// # Errors
    /// [`Error::InvalidUrl`] if the address makes no sense, [`Error::InvalidSetting`] if the variables make none.
    pub fn from_url(url: &str) -> Result<Self, Error> {
        Self::connect(url, &StoreOptions::default())
    }

    /// Connects as [`Store::from_url`] does, with these variables instead of the process's own.
    ///
    /// # Errors
    /// [`Error::InvalidUrl`] if the address makes no sense, [`Error::InvalidSetting`] if the variables make none.
    pub fn from_url_with(url: &str, variables: impl IntoIterator<Item = (String, String)>) -> Result<Self, Error> {
        Self::connect_with(url, &StoreOptions::default(), variables)
    }

    /// Connects as [`Store::from_url`] does, with options that overrule the environment.
    ///
    /// # Errors
    /// [`Error::InvalidUrl`] if the address makes no sense, [`Error::InvalidSetting`] if options or variables make none.
    pub fn connect(url: &str, options: &StoreOptions) -> Result<Self, Error> {
        let readable =
            std::env::vars_os().filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)));
        Self::connect_with(url, options, readable)
    }

    /// Connects as [`Store::connect`] does, with these variables instead of the process's own.
    ///
    /// # Errors
    /// [`Error::InvalidUrl`] if the address makes no sense, [`Error::InvalidSetting`] if options or variables make none.
    pub fn connect_with(
        url: &str,
        options: &StoreOptions,
        variables: impl IntoIterator<Item = (String, String)>,
    ) -> Result<Self, Error> {
        let settings = variables.into_iter().filter(|(_, value)| !value.is_empty()).collect();
        let (objects, prefix, place) = connect::connect(url, options, &settings)?;
        Ok(Self { objects, prefix, place: Arc::new(place) })
    }

    /// Wraps any object store; `display` is how messages call it.
    pub fn new(objects: Arc<dyn ObjectStore>, prefix: Path, display: impl Into<String>) -> Self {
        Self { objects, prefix, place: Arc::new(Place::other(display.into())) }
    }

    /// An empty store that lives as long as its clones.
    pub fn memory() -> Self {
        Self::new(Arc::new(object_store::memory::InMemory::new()), Path::default(), "memory://")
    }

    /// Makes the folders that restic makes; only a file system has any.
    pub(crate) async fn create_folders(&self) -> Result<(), Error> {
        self.in_folder("", local::create_folders).await
    }

    /// Reads a whole file of at most `limit` bytes.
    pub(crate) async fn get(&self, path: &str, limit: u64) -> Result<Bytes, Error> {
        let location = self.location(path);
        let patience = if limit <= SMALL { SMALL_PATIENCE } else { self.place.patience() };
        let (extensions, progress) = watched();
        let operation = async {
            let found = self.objects.get_opts(&location, GetOptions { extensions, ..GetOptions::default() }).await?;
            let size = found.meta.size;
            Ok(if size > limit { None } else { Some(self.content(found, &progress).await?) })
        };
        self.within(patience, &progress, Act::Read, path, operation)
            .await?
            .ok_or_else(|| Error::TooLarge { what: path.into(), limit })
    }

    /// Reads a range of a file; fewer bytes than asked for are an error.
    pub(crate) async fn get_range(&self, path: &str, range: Range<u64>) -> Result<Bytes, Error> {
        let wanted = range.end - range.start;
        let location = self.location(path);
        let (extensions, progress) = watched();
        let options = GetOptions { range: Some(range.into()), extensions, ..GetOptions::default() };
        let operation = async {
            let found = self.objects.get_opts(&location, options).await?;
            self.content(found, &progress).await
        };
        let bytes = self.within(self.place.patience(), &progress, Act::Read, path, operation).await?;
        if bytes.len() as u64 == wanted {
            return Ok(bytes);
        }
        Err(Error::damaged(path, format!("it gave {} of {wanted} bytes asked for", bytes.len())))
    }

    async fn content(&self, found: GetResult, progress: &Progress) -> Result<Bytes, StoreError> {
        match self.place.download() {
            Some(pace) => local::read(found, pace, progress).await,
            None => found.bytes().await,
        }
    }

    /// Writes a file named by its content: doing so twice does no harm.
    pub(crate) async fn put(&self, path: &str, content: Bytes) -> Result<(), Error> {
        self.write(Act::Write, PutMode::Overwrite, path, content).await
    }

    /// Writes a file that must not exist yet.
    pub(crate) async fn create(&self, path: &str, content: Bytes) -> Result<(), Error> {
        self.write(Act::Create, PutMode::Create, path, content).await
    }

    async fn write(&self, act: Act, mode: PutMode, path: &str, content: Bytes) -> Result<(), Error> {
        let location = self.location(path);
        let (extensions, progress) = watched();
        let operation = async {
            match self.place.upload() {
                Some(pace) if act == Act::Write => {
                    return local::put(&self.objects, &location, content, pace, &progress).await;
                }
                Some(pace) => pace.wait(content.len()).await,
                None => {}
            }
            let options = PutOptions { mode, extensions, ..PutOptions::default() };
            self.objects.put_opts(&location, content.into(), options).await.map(drop)
        };
        self.within(self.place.patience(), &progress, act, path, operation).await
    }

    /// Removes a file; one that is not there is removed already.
    pub(crate) async fn delete(&self, path: &str) -> Result<(), Error> {
        let location = self.location(path);
        let operation = self.objects.delete(&location);
        match self.within(self.place.patience(), &Progress::default(), Act::Delete, path, operation).await {
            Err(error) if error.is_missing() => return Ok(()),
            other => other?,
        }
        self.settle_removal(path).await
    }

    /// Makes a removal last. Packs are left out: what names them was removed before, and they are many.
    async fn settle_removal(&self, path: &str) -> Result<(), Error> {
        match path.rsplit_once('/') {
            Some((folder, _)) if !folder.starts_with("data") => {
                let folder = folder.to_owned();
                self.in_folder(path, move |root| local::sync(&root.join(folder))).await
            }
            _ => Ok(()),
        }
    }

    /// All files below a folder, by name; an absent folder is empty.
    pub(crate) async fn list(&self, folder: &str) -> Result<Vec<Entry>, Error> {
        let root = self.location(folder);
        let found = match self.listed(folder, &root).await {
            Err(error) if error.is_missing() => Vec::new(),
            other => other?,
        };
        let below = format!("{root}/");
        let entry = |meta: ObjectMeta| {
            let name = meta.location.as_ref().strip_prefix(&below)?.to_owned();
            Some(Entry { name, size: meta.size })
        };
        let mut entries: Vec<Entry> = found.into_iter().filter_map(entry).collect();
        entries.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(entries)
    }

    /// A list comes in pages: it is each of them that is waited for, and not all.
    async fn listed(&self, folder: &str, root: &Path) -> Result<Vec<ObjectMeta>, Error> {
        let mut pages = self.objects.list(Some(root)).ready_chunks(1000);
        let mut found = Vec::new();
        loop {
            let next = async { pages.next().await.into_iter().flatten().collect() };
            let page: Vec<_> =
                self.within(self.place.patience(), &Progress::default(), Act::Read, folder, next).await?;
            if page.is_empty() {
                return Ok(found);
            }
            found.extend(page);
        }
    }

    /// Names are taken as they are, so that whatever is listed can also be read and removed.
    fn location(&self, path: &str) -> Path {
        let part = |part| PathPart::parse(part).unwrap_or_else(|_| PathPart::from(part));
        path.split('/').map(part).fold(self.prefix.clone(), Path::join)
    }

    /// Does something to the folder that the store is; nothing where it is none.
    async fn in_folder(
        &self,
        path: &str,
        act: impl FnOnce(&std::path::Path) -> std::io::Result<()> + Send + 'static,
    ) -> Result<(), Error> {
        let Some(root) = self.place.as_folder().map(ToOwned::to_owned) else { return Ok(()) };
        let done = tokio::task::spawn_blocking(move || act(&root)).await?;
        let failed = |error: std::io::Error| StoreError::Generic { store: "local", source: error.into() };
        done.map_err(|error| classify(&self.place, Act::Write, path, failed(error)))
    }

    /// Waits for an operation as long as it moves, and says how it ended.
    async fn within<T>(
        &self,
        patience: Duration,
        progress: &Progress,
        act: Act,
        path: &str,
        operation: impl Future<Output = Result<T, StoreError>>,
    ) -> Result<T, Error> {
        match progress.watch(patience, operation).await {
            Ok(result) => result.map_err(|error| classify(&self.place, act, path, error)),
            Err(elapsed) => {
                let reason = format!("no answer within {} s", patience.as_secs());
                Err(outcome::unreachable(&self.place, reason, elapsed.into()))
            }
        }
    }
}

/// Extensions by which our HTTP client reports the progress of a request.
fn watched() -> (Extensions, Progress) {
    let progress = Progress::default();
    let mut extensions = Extensions::new();
    extensions.insert(progress.clone());
    (extensions, progress)
}
