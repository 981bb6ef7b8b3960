//! Reads and writes the sealed files of a repository: indexes, snapshots and locks.
//!
//! They share one rule, the name is the SHA-256 of the stored bytes, so it is kept in one place. Sealing and hashing
//! run off the runtime's threads, since an index has megabytes.

use bytes::Bytes;
use futures::{
    StreamExt, TryStreamExt,
    stream::{self, BoxStream},
};

use crate::{Error, Id, crypto::Cipher, encoding, store::Store};

/// Files read at the same time.
const CONCURRENT: usize = 8;

/// A folder of sealed files.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Folder {
    Index,
    Locks,
    Snapshots,
}

impl Folder {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Index => "index",
            Self::Locks => "locks",
            Self::Snapshots => "snapshots",
        }
    }

    /// Path of a file of this folder.
    pub(crate) fn path(self, id: &Id) -> String {
        format!("{}/{id}", self.name())
    }
}

/// The sealed files of one opened repository.
#[derive(Clone)]
pub(crate) struct Files {
    pub(crate) store: Store,
    pub(crate) cipher: Cipher,
}

/// A file ready to be written.
pub(crate) struct SealedFile {
    pub(crate) id: Id,
    path: String,
    bytes: Bytes,
}

impl Files {
    /// Seals and names a file.
    pub(crate) async fn seal(&self, folder: Folder, content: Vec<u8>) -> Result<SealedFile, Error> {
        let cipher = self.cipher.clone();
        let seal = move || encoding::seal_file(&cipher, &content).map(|bytes| (Id::of(&bytes), bytes));
        let (id, bytes) = tokio::task::spawn_blocking(seal).await??;
        Ok(SealedFile { id, path: folder.path(&id), bytes: bytes.into() })
    }

    /// Writes a sealed file. One whose writing failed is removed, as far as that goes: it may be there, whole because only
    /// the answer was lost, or in part, and a damaged index or lock would be in everybody's way.
    pub(crate) async fn write(&self, file: SealedFile) -> Result<Id, Error> {
        let written = self.store.put(&file.path, file.bytes).await;
        if written.is_err()
            && let Err(error) = self.store.delete(&file.path).await
        {
            tracing::debug!(%error, path = file.path, "what a failed write may have left could not be removed");
        }
        written.map(|()| file.id)
    }

    /// Reads, checks and opens a file.
    pub(crate) async fn read(&self, folder: Folder, id: &Id) -> Result<Vec<u8>, Error> {
        let (path, cipher, id) = (folder.path(id), self.cipher.clone(), *id);
        let sealed = self.store.get(&path, encoding::MAX_FILE as u64).await?;
        tokio::task::spawn_blocking(move || {
            let found = Id::of(&sealed);
            if found != id {
                return Err(Error::damaged(path, format!("its content has the id {found}")));
            }
            encoding::open_file(&cipher, &sealed, &path)
        })
        .await?
    }

    /// Ids of all files of a folder. Names that are no ids are not restic's and not ours: they are passed over.
    pub(crate) async fn list(&self, folder: Folder) -> Result<Vec<Id>, Error> {
        let entries = self.store.list(folder.name()).await?;
        Ok(entries.iter().filter_map(|entry| entry.name.parse().ok()).collect())
    }

    /// Reads all files of a folder, a few ahead; one that was removed since it was listed is left out.
    pub(crate) async fn stream(&self, folder: Folder) -> Result<BoxStream<'_, Result<(Id, Vec<u8>), Error>>, Error> {
        let read = move |id: Id| async move {
            match self.read(folder, &id).await {
                Ok(content) => Ok(Some((id, content))),
                Err(error) if error.is_missing() => Ok(None),
                Err(error) => Err(error),
            }
        };
        let ids = self.list(folder).await?;
        Ok(stream::iter(ids).map(read).buffered(CONCURRENT).try_filter_map(async |found| Ok(found)).boxed())
    }

    /// Reads all files of a folder at once.
    pub(crate) async fn read_all(&self, folder: Folder) -> Result<Vec<(Id, Vec<u8>)>, Error> {
        self.stream(folder).await?.try_collect().await
    }

    /// Removes a file.
    pub(crate) async fn remove(&self, folder: Folder, id: &Id) -> Result<(), Error> {
        self.store.delete(&folder.path(id)).await
    }
}
