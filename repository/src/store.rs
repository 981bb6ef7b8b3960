//! Reads and writes the files of a repository in any object store.
//!
//! Everything in which stores differ is met here and nowhere else: addresses, the words for an absent bucket or a
//! refused right, deletes of what is not there, create-only writes, and folders, which only a file system has.

use std::{fmt, ops::Range, sync::Arc, time::Duration};

use bytes::Bytes;
use futures::TryStreamExt;
use object_store::{Error as StoreError, ObjectStore, ObjectStoreExt, PutMode, PutOptions, path::Path};

use crate::{
    Error,
    address::{self, Address},
};

/// The longest that one operation may take, retries included.
const DEADLINE: Duration = Duration::from_secs(300);
/// The same for reading a small file. A repository is opened by one, so a store that hangs is reported while the user
/// looks on.
const SMALL_DEADLINE: Duration = Duration::from_secs(20);
/// Bytes of a small file.
const SMALL: u64 = 1 << 20;

/// A place for a repository: an object store and a prefix in it. Cheap to clone.
#[derive(Clone)]
pub struct Store {
    objects: Arc<dyn ObjectStore>,
    prefix: Path,
    address: Arc<Address>,
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
        f.write_str(self.address.display())
    }
}

impl Store {
    /// Connects to an address: `file:///path`, a local path, or `s3://bucket/prefix`.
    ///
    /// S3 takes its credentials, region and endpoint from the usual `AWS_*` variables. Nothing is asked of the store
    /// yet. If the process has chosen no TLS implementation for rustls, ring is installed.
    ///
    /// # Errors
    /// [`Error::InvalidUrl`] if the address or the variables make no sense.
    pub fn from_url(url: &str) -> Result<Self, Error> {
        let readable =
            std::env::vars_os().filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)));
        Self::from_url_with(url, readable)
    }

    /// Connects as [`Store::from_url`] does, with these variables instead of the process's own.
    ///
    /// # Errors
    /// [`Error::InvalidUrl`] if the address or the variables make no sense.
    pub fn from_url_with(url: &str, variables: impl IntoIterator<Item = (String, String)>) -> Result<Self, Error> {
        let (objects, prefix, address) = address::connect(url, &variables.into_iter().collect())?;
        Ok(Self { objects, prefix, address: Arc::new(address) })
    }

    /// Wraps any object store; `display` is how messages call it.
    pub fn new(objects: Arc<dyn ObjectStore>, prefix: Path, display: impl Into<String>) -> Self {
        Self { objects, prefix, address: Arc::new(Address::Other(display.into())) }
    }

    /// An empty store that lives as long as its clones.
    pub fn memory() -> Self {
        Self::new(Arc::new(object_store::memory::InMemory::new()), Path::default(), "memory://")
    }

    /// Makes the folders that restic makes; only a file system has any.
    pub(crate) async fn create_folders(&self) -> Result<(), Error> {
        let Some(root) = self.address.local_path().map(ToOwned::to_owned) else { return Ok(()) };
        let made = tokio::task::spawn_blocking(move || address::create_folders(&root)).await?;
        made.map_err(|error| self.classify("", StoreError::Generic { store: "local", source: error.into() }))
    }

    /// Reads a whole file of at most `limit` bytes.
    pub(crate) async fn get(&self, path: &str, limit: u64) -> Result<Bytes, Error> {
        let location = self.location(path);
        let deadline = if limit <= SMALL { SMALL_DEADLINE } else { DEADLINE };
        self.within(deadline, path, async {
            let found = self.objects.get(&location).await?;
            let size = found.meta.size;
            Ok(if size > limit { None } else { Some(found.bytes().await?) })
        })
        .await?
        .ok_or_else(|| Error::TooLarge { what: path.into(), limit })
    }

    /// Reads a range of a file; fewer bytes than asked for are an error.
    pub(crate) async fn get_range(&self, path: &str, range: Range<u64>) -> Result<Bytes, Error> {
        let wanted = range.end - range.start;
        let location = self.location(path);
        let bytes = self.bounded(path, self.objects.get_range(&location, range)).await?;
        if bytes.len() as u64 == wanted {
            return Ok(bytes);
        }
        Err(Error::damaged(path, format!("it gave {} of {wanted} bytes asked for", bytes.len())))
    }

    /// Writes a file named by its content: doing so twice does no harm.
    pub(crate) async fn put(&self, path: &str, content: Bytes) -> Result<(), Error> {
        let location = self.location(path);
        self.bounded(path, self.objects.put(&location, content.into())).await.map(drop)
    }

    /// Writes a file that must not exist yet.
    pub(crate) async fn create(&self, path: &str, content: Bytes) -> Result<(), Error> {
        let location = self.location(path);
        let options = PutOptions { mode: PutMode::Create, ..PutOptions::default() };
        self.bounded(path, self.objects.put_opts(&location, content.into(), options)).await.map(drop)
    }

    /// Removes a file; one that is not there is removed already.
    pub(crate) async fn delete(&self, path: &str) -> Result<(), Error> {
        let location = self.location(path);
        match self.bounded(path, self.objects.delete(&location)).await {
            Err(error) if error.is_missing() => Ok(()),
            other => other,
        }
    }

    /// All files below a folder, by name; an absent folder is empty.
    pub(crate) async fn list(&self, folder: &str) -> Result<Vec<Entry>, Error> {
        let root = self.location(folder);
        let listing = self.objects.list(Some(&root)).try_collect::<Vec<_>>();
        let found = match self.bounded(folder, listing).await {
            Err(error) if error.is_missing() => Vec::new(),
            other => other?,
        };
        let below = format!("{root}/");
        let entry = |meta: object_store::ObjectMeta| {
            let name = meta.location.as_ref().strip_prefix(&below)?.to_owned();
            Some(Entry { name, size: meta.size })
        };
        let mut entries: Vec<Entry> = found.into_iter().filter_map(entry).collect();
        entries.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(entries)
    }

    fn location(&self, path: &str) -> Path {
        path.split('/').fold(self.prefix.clone(), |location, part| location.join(part))
    }

    async fn bounded<T>(&self, path: &str, operation: impl Future<Output = Result<T, StoreError>>) -> Result<T, Error> {
        self.within(DEADLINE, path, operation).await
    }

    async fn within<T>(
        &self,
        deadline: Duration,
        path: &str,
        operation: impl Future<Output = Result<T, StoreError>>,
    ) -> Result<T, Error> {
        match tokio::time::timeout(deadline, operation).await {
            Ok(result) => result.map_err(|error| self.classify(path, error)),
            Err(elapsed) => Err(Error::Unreachable {
                store: self.to_string(),
                reason: format!("no answer within {} s", deadline.as_secs()),
                source: elapsed.into(),
            }),
        }
    }

    /// Turns a store's error into an outcome that a caller can act on.
    fn classify(&self, path: &str, error: StoreError) -> Error {
        let (store, path) = (self.to_string(), path.to_owned());
        let reason = address::innermost(&error);
        let io = address::find::<std::io::Error>(&error).map(std::io::Error::kind);
        match error {
            StoreError::NotFound { .. } if reason.contains("NoSuchBucket") => Error::BucketAbsent { store },
            StoreError::NotFound { .. } => Error::FileMissing { store, path },
            StoreError::AlreadyExists { .. } | StoreError::Precondition { .. } => Error::FileExists { store, path },
            StoreError::PermissionDenied { .. } | StoreError::Unauthenticated { .. } => {
                Error::AccessDenied { store, path, source: error.into() }
            }
            _ if io == Some(std::io::ErrorKind::PermissionDenied) => {
                Error::AccessDenied { store, path, source: error.into() }
            }
            _ if address::is_connection_error(&error) => Error::Unreachable { store, reason, source: error.into() },
            _ => Error::Store { store, path, reason, source: error.into() },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn behaves(store: Store) {
        store.create_folders().await.unwrap();
        assert!(store.get("config", 10).await.unwrap_err().is_missing());
        assert!(store.list("keys").await.unwrap().is_empty());

        store.create("config", Bytes::from_static(b"0123456789")).await.unwrap();
        let again = store.create("config", Bytes::from_static(b"x")).await.unwrap_err();
        assert!(matches!(again, Error::FileExists { .. }), "{again}");
        assert_eq!(store.get("config", 10).await.unwrap(), "0123456789");
        let large = store.get("config", 9).await.unwrap_err();
        assert!(matches!(large, Error::TooLarge { limit: 9, .. }), "{large}");

        assert_eq!(store.get_range("config", 2..5).await.unwrap(), "234");
        store.get_range("config", 8..12).await.unwrap_err();

        store.put("data/ab/abc", Bytes::from_static(b"p")).await.unwrap();
        store.put("data/ab/abc", Bytes::from_static(b"p")).await.unwrap();
        let listed = store.list("data").await.unwrap();
        assert_eq!(listed, [Entry { name: "ab/abc".into(), size: 1 }]);
        store.delete("data/ab/abc").await.unwrap();
        store.delete("data/ab/abc").await.unwrap();
        assert!(store.list("data").await.unwrap().is_empty());
    }

    #[tokio::test]
    async fn memory_and_local_files_behave_alike() {
        behaves(Store::memory()).await;
        let folder = tempfile::tempdir().unwrap();
        let odd = folder.path().join("a b#1 %41/repo");
        behaves(Store::from_url(odd.to_str().unwrap()).unwrap()).await;
        let url = format!("file://{}/repo", folder.path().display());
        behaves(Store::from_url(&url).unwrap()).await;
        assert!(folder.path().join("repo/data/ff").is_dir());
    }

    #[tokio::test]
    async fn a_file_where_a_folder_should_be_is_an_error_and_not_an_empty_store() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let store = Store::from_url(file.path().to_str().unwrap()).unwrap();
        store.create_folders().await.unwrap_err();
    }
}
