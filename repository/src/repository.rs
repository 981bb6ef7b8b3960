//! Creates and opens repositories, lists and forgets snapshots.
//!
//! An opened repository is a store and a key; what may be done with it is split by purpose: a writer holds a lock, a
//! reader holds an index, and neither can do the other's work.

use std::{collections::HashMap, sync::Arc, time::Duration};

use futures::{StreamExt, TryStreamExt};
use serde::{Deserialize, Serialize};
use tokio_util::sync::CancellationToken;

use crate::{
    Compression, Error, Id, Kdf, Password, Store,
    crypto::Cipher,
    files::{Files, Folder},
    index::{Index, IndexFile},
    key::MasterKey,
    keys::{self, NewKey, OpenKey},
    lock::{Lock, LockKind, Patience},
    pack::PackedBlob,
    polynomial,
    reader::Reader,
    snapshot::{Snapshot, SnapshotFile},
    writer::Writer,
};

const VERSION: u32 = 2;
const CONFIG: &str = "config";
const MAX_SMALL_FILE: u64 = 1 << 20;

/// The file `config`: sealed, but never compressed.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Config {
    version: u32,
    id: Id,
    chunker_polynomial: String,
}

impl Config {
    /// The number by which files are cut.
    pub(crate) fn polynomial(&self) -> Result<u64, &'static str> {
        polynomial::parse(&self.chunker_polynomial)
    }
}

/// An opened repository. Cheap to clone.
#[derive(Clone)]
pub struct Repository {
    files: Arc<Files>,
    key: Arc<OpenKey>,
    id: Id,
    /// How long to wait for the lock of others.
    patience: Patience,
    /// The config's polynomial: a secret that all who cut files have in common.
    polynomial: u64,
}

impl std::fmt::Debug for Repository {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Repository").field("store", &self.files.store).field("id", &self.id).finish()
    }
}

impl Repository {
    /// Creates a repository.
    ///
    /// The key is written first and the config, create-only, last: without a config there is no repository, so `init`
    /// can be run again after a crash and clears the orphaned key.
    ///
    /// # Errors
    /// [`Error::RepositoryExists`] if there is one, or another `init` was faster.
    pub async fn init(store: Store, password: &Password, kdf: Kdf) -> Result<Self, Error> {
        match store.get(CONFIG, MAX_SMALL_FILE).await {
            Err(error) if error.is_missing() => {}
            Err(error) => return Err(error),
            Ok(_) => return Err(Error::RepositoryExists { store: store.to_string() }),
        }
        store.create_folders().await?;
        let master = MasterKey::random();
        let key = NewKey::make(&master, password, kdf).await?;
        key.write(&store).await?;
        let cipher = master.cipher();
        let (id, polynomial) = write_config(&store, &cipher, &key).await?;
        key.clear_orphans(&store).await?;
        let (files, key) = (Arc::new(Files { store, cipher }), Arc::new(OpenKey { id: key.id, master }));
        Ok(Self { files, key, id, patience: Patience::default(), polynomial })
    }

    /// Opens a repository.
    ///
    /// # Errors
    /// Distinguishes [`Error::NoRepository`], [`Error::BucketAbsent`], [`Error::AccessDenied`],
    /// [`Error::Unreachable`], [`Error::WrongPassword`], [`Error::UnsupportedVersion`] and [`Error::Damaged`].
    pub async fn open(store: Store, password: &Password) -> Result<Self, Error> {
        let sealed = match store.get(CONFIG, MAX_SMALL_FILE).await {
            Err(error) if error.is_missing() => return Err(Error::NoRepository { store: store.to_string() }),
            other => other?,
        };
        let mut unreadable = None;
        for key in keys::unlock(&store, password).await? {
            match open_config(&key.master.cipher(), &sealed) {
                Ok(config) => return Self::opened(store, key, &config),
                Err(error) => unreadable = Some(error),
            }
        }
        Err(unreadable.unwrap_or_else(|| Error::damaged(CONFIG, "no key opens it")))
    }

    fn opened(store: Store, key: OpenKey, config: &Config) -> Result<Self, Error> {
        if config.version != VERSION {
            return Err(Error::UnsupportedVersion { store: store.to_string(), version: config.version });
        }
        let polynomial = config
            .polynomial()
            .map_err(|reason| Error::damaged(CONFIG, format!("its chunker polynomial: {reason}")))?;
        let files = Arc::new(Files { store, cipher: key.master.cipher() });
        Ok(Self { files, key: Arc::new(key), id: config.id, patience: Patience::default(), polynomial })
    }

    /// The same, waiting up to `patience` for a lock that is in the way instead of failing at once. The holder is
    /// named once, by a warning.
    #[must_use]
    pub fn with_patience(self, patience: Duration) -> Self {
        Self { patience: Patience { time: patience, ..self.patience }, ..self }
    }

    /// The same, giving up its wait for a lock of others once the token is cancelled.
    #[must_use]
    pub fn giving_up_on(self, cancel: CancellationToken) -> Self {
        Self { patience: Patience { cancel, ..self.patience }, ..self }
    }

    /// The id drawn when the repository was created, the same wherever it is copied.
    pub fn id(&self) -> Id {
        self.id
    }

    /// A secret number of the repository by which files are cut: equal content is cut equally by all who use it.
    pub fn chunker_seed(&self) -> u64 {
        self.polynomial
    }

    /// Where it is.
    pub fn store(&self) -> &Store {
        &self.files.store
    }

    /// All snapshots, oldest first.
    ///
    /// List them before [`Repository::reader`] loads the index: the index of a snapshot is written before it, so an
    /// index loaded later is complete for every snapshot listed earlier.
    ///
    /// # Errors
    /// One unreadable snapshot fails the list, by name: leaving it out could pass for its absence.
    pub async fn snapshots(&self) -> Result<Vec<Snapshot>, Error> {
        let mut snapshots = Vec::new();
        for (id, json) in self.files.read_all(Folder::Snapshots).await? {
            snapshots.push(parse_snapshot(id, &json)?);
        }
        snapshots.sort_by_key(|snapshot| (snapshot.time, snapshot.id));
        Ok(snapshots)
    }

    /// One snapshot.
    ///
    /// # Errors
    /// [`Error::FileMissing`] if there is none of this id.
    pub async fn snapshot(&self, id: &Id) -> Result<Snapshot, Error> {
        let json = self.files.read(Folder::Snapshots, id).await?;
        parse_snapshot(*id, &json)
    }

    /// Removes a snapshot under an exclusive lock. Its data stays until a prune.
    ///
    /// # Errors
    /// [`Error::FileMissing`] if there is none of this id, [`Error::Locked`] while anybody works on the repository.
    pub async fn forget(&self, id: &Id) -> Result<(), Error> {
        let lock = Lock::acquire(&self.files, LockKind::Exclusive, &self.patience).await?;
        let forgotten = self.forget_locked(id, &lock).await;
        lock.release().await;
        forgotten
    }

    async fn forget_locked(&self, id: &Id, lock: &Lock) -> Result<(), Error> {
        if !self.files.list(Folder::Snapshots).await?.contains(id) {
            let (store, path) = (self.files.store.to_string(), Folder::Snapshots.path(id));
            return Err(Error::FileMissing { store, path });
        }
        lock.verify().await?;
        self.files.remove(Folder::Snapshots, id).await
    }

    /// Starts writing: takes a non-exclusive lock, then loads the index to find out what is stored already.
    ///
    /// # Errors
    /// [`Error::Locked`] while a prune or a forget runs.
    pub async fn writer(&self) -> Result<Writer, Error> {
        self.writer_with(Compression::default()).await
    }

    /// Starts writing as [`Repository::writer`] does, and compresses as told.
    ///
    /// # Errors
    /// [`Error::Locked`] while a prune or a forget runs.
    pub async fn writer_with(&self, compression: Compression) -> Result<Writer, Error> {
        let load = || self.stored_index();
        let (lock, index) = Lock::acquire_while(&self.files, LockKind::Shared, &self.patience, load).await?;
        let (lock, index) = lock.with(index).await?;
        Ok(Writer::new(self.files.clone(), lock, index, compression))
    }

    /// The index of what is stored for certain. Nothing else may stand in for new data: a pack that is gone or torn would
    /// be missed by every later backup.
    async fn stored_index(&self) -> Result<Index, Error> {
        let packs = self.packs().await?;
        let stored = move |pack: &Id, blob: &PackedBlob| packs.get(pack).is_some_and(|size| *size >= blob.end());
        self.index(stored).await
    }

    /// Starts reading: loads the index. A reader sees what was committed before.
    ///
    /// An index file that is damaged is passed over: what others name can still be read, and asking for a blob that only
    /// it may name is the error.
    ///
    /// # Errors
    /// Those of the store.
    pub async fn reader(&self) -> Result<Reader, Error> {
        let (mut index, mut unread) = (Index::default(), None);
        let mut contents = self.files.stream(Folder::Index).await?;
        while let Some(content) = contents.next().await {
            let added = match content {
                Ok((id, json)) => add_to(&mut index, id, json, |_, _| true).await,
                Err(error) => Err(error),
            };
            match added {
                Err(Error::Damaged { path, reason }) => unread = Some((path, reason)),
                other => other?,
            }
        }
        Ok(Reader::new(self.files.clone(), Arc::new(index), unread))
    }

    /// The key that opened it.
    pub(crate) fn key(&self) -> &OpenKey {
        &self.key
    }

    pub(crate) fn files(&self) -> &Files {
        &self.files
    }

    /// How long to wait for the lock of others.
    pub(crate) fn patience(&self) -> &Patience {
        &self.patience
    }

    /// Takes a lock, as patiently as was asked for.
    pub(crate) async fn lock(&self, kind: LockKind) -> Result<Lock, Error> {
        Lock::acquire(&self.files, kind, &self.patience).await
    }

    pub(crate) fn shared_files(&self) -> Arc<Files> {
        self.files.clone()
    }

    /// Loads the index; of the files' text only a few are in memory at a time.
    async fn index(&self, usable: impl Fn(&Id, &PackedBlob) -> bool) -> Result<Index, Error> {
        let mut index = Index::default();
        let mut contents = self.files.stream(Folder::Index).await?;
        while let Some((id, json)) = contents.try_next().await? {
            add_to(&mut index, id, json, &usable).await?;
        }
        Ok(index)
    }

    /// Packs that exist, with their sizes.
    async fn packs(&self) -> Result<HashMap<Id, u64>, Error> {
        let entries = self.files.store.list("data").await?;
        let pack = |name: &str| name.rsplit('/').next()?.parse().ok();
        Ok(entries.iter().filter_map(|entry| Some((pack(&entry.name)?, entry.size))).collect())
    }
}

async fn add_to(
    index: &mut Index,
    id: Id,
    json: Vec<u8>,
    usable: impl Fn(&Id, &PackedBlob) -> bool,
) -> Result<(), Error> {
    let path = Folder::Index.path(&id);
    let parse = move || IndexFile::parse(&json, &path).map(|file| (file, path));
    let (file, path) = tokio::task::spawn_blocking(parse).await??;
    index.add_file(file, &path, usable)
}

fn parse_snapshot(id: Id, json: &[u8]) -> Result<Snapshot, Error> {
    let file: SnapshotFile =
        serde_json::from_slice(json).map_err(|error| Error::damaged(Folder::Snapshots.path(&id), error.to_string()))?;
    Ok(Snapshot::new(id, file))
}

/// Writes the config, and withdraws our key if another `init` was faster.
async fn write_config(store: &Store, cipher: &Cipher, key: &NewKey) -> Result<(Id, u64), Error> {
    let id = Id::random();
    let polynomial = polynomial::random_irreducible();
    let chunker_polynomial = format!("{polynomial:x}");
    let json = serde_json::to_vec(&Config { version: VERSION, id, chunker_polynomial })
        .map_err(|error| Error::invalid("the config", error.to_string()))?;
    let created = store.create(CONFIG, cipher.seal(&json)?.into()).await;
    if !matches!(created, Err(Error::FileExists { .. })) {
        return created.map(|()| (id, polynomial));
    }
    // a request that was repeated after its answer was lost meets its own file
    let present = store.get(CONFIG, MAX_SMALL_FILE).await?;
    if open_config(cipher, &present).is_ok_and(|config| config.id == id) {
        return Ok((id, polynomial));
    }
    key.withdraw(store).await?;
    Err(Error::RepositoryExists { store: store.to_string() })
}

fn open_config(cipher: &Cipher, sealed: &[u8]) -> Result<Config, Error> {
    let json = cipher.open(sealed).map_err(|error| Error::damaged(CONFIG, error.to_string()))?;
    serde_json::from_slice(&json).map_err(|error| Error::damaged(CONFIG, error.to_string()))
}
