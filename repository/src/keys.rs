//! The keys of a repository: each opens the one master key with a password of its own.
//!
//! A key file is small and in clear, and every password costs its KDF to try, so how many are looked at is bounded.
//! Whatever changes the keys writes before it removes: a crash leaves a key too many, never none.

use jiff::Timestamp;

use crate::{
    Error, Id, Kdf, Password, Repository, Store,
    key::{self, KeyFile, MasterKey, Unlocked},
    lock::{Lock, LockKind},
};

const FOLDER: &str = "keys";
const MAX_KEY_FILE: u64 = 1 << 20;
/// Each costs the KDF's time; restic tries twenty too.
const MAX_KEYS: usize = 20;

/// A key of a repository, as far as it is known without its password.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeyInfo {
    /// Name of its file.
    pub id: Id,
    /// Whether it opened this repository.
    pub in_use: bool,
    /// User that made it.
    pub user: String,
    /// Host it was made on.
    pub host: String,
    /// When it was made; absent if that is not told in a known form.
    pub created: Option<Timestamp>,
}

/// The key that opened a repository.
pub(crate) struct OpenKey {
    pub(crate) id: Id,
    pub(crate) master: MasterKey,
}

/// A key file that was made here.
pub(crate) struct NewKey {
    pub(crate) id: Id,
    bytes: Vec<u8>,
}

fn path(id: &Id) -> String {
    format!("{FOLDER}/{id}")
}

impl NewKey {
    pub(crate) async fn make(master: &MasterKey, password: &Password, kdf: Kdf) -> Result<Self, Error> {
        let (master, password) = (master.clone(), password.clone());
        let bytes = tokio::task::spawn_blocking(move || key::create(&master, &password, kdf)).await??;
        Ok(Self { id: Id::of(&bytes), bytes })
    }

    pub(crate) async fn write(&self, store: &Store) -> Result<(), Error> {
        store.put(&path(&self.id), self.bytes.clone().into()).await
    }

    pub(crate) async fn withdraw(&self, store: &Store) -> Result<(), Error> {
        store.delete(&path(&self.id)).await
    }

    /// Removes keys that an `init` left which crashed before its config: their master key opens nothing, and restic
    /// takes the first key that a password opens. Ours is written once more in case that init cleared it likewise.
    pub(crate) async fn clear_orphans(&self, store: &Store) -> Result<(), Error> {
        for entry in store.list(FOLDER).await? {
            if entry.name != self.id.to_string() {
                store.delete(&format!("{FOLDER}/{}", entry.name)).await?;
            }
        }
        self.write(store).await
    }
}

impl Repository {
    /// All keys, sorted by name.
    ///
    /// # Errors
    /// [`Error::Damaged`] names a key that cannot be read.
    pub async fn keys(&self) -> Result<Vec<KeyInfo>, Error> {
        let mut keys = Vec::new();
        for entry in self.store().list(FOLDER).await? {
            let path = format!("{FOLDER}/{}", entry.name);
            let bytes = match self.store().get(&path, MAX_KEY_FILE).await {
                Err(error) if error.is_missing() => continue,
                other => other?,
            };
            let file = KeyFile::parse(&bytes).map_err(|reason| Error::damaged(&path, reason))?;
            let id = entry.name.parse().map_err(|_| Error::damaged(&path, "this is no name of a key"))?;
            let in_use = id == self.key().id;
            let created = file.created.parse().ok();
            keys.push(KeyInfo { id, in_use, user: file.username, host: file.hostname, created });
        }
        Ok(keys)
    }

    /// Adds a key: from then on `password` opens the repository too.
    ///
    /// # Errors
    /// [`Error::Invalid`] if there are as many keys as anybody tries.
    pub async fn add_key(&self, password: &Password, kdf: Kdf) -> Result<Id, Error> {
        let lock = self.lock(LockKind::Shared).await?;
        let added = self.add_key_locked(password, kdf).await;
        lock.release().await;
        added
    }

    async fn add_key_locked(&self, password: &Password, kdf: Kdf) -> Result<Id, Error> {
        if self.store().list(FOLDER).await?.len() >= MAX_KEYS {
            return Err(Error::invalid("another key", format!("there are {MAX_KEYS} already; remove one first")));
        }
        let new = NewKey::make(&self.key().master, password, kdf).await?;
        new.write(self.store()).await?;
        match self.check_opens(&new.id, password).await {
            Ok(()) => Ok(new.id),
            Err(error) => {
                new.withdraw(self.store()).await?;
                Err(error)
            }
        }
    }

    /// Reads a key back: one that does not open would be noticed when it is the last.
    async fn check_opens(&self, id: &Id, password: &Password) -> Result<(), Error> {
        match open(self.store(), &id.to_string(), password).await? {
            Unlocked::Master(master) if master == self.key().master => Ok(()),
            _ => Err(Error::damaged(path(id), "it does not open the repository that it was made for")),
        }
    }

    /// Removes a key. Its password opens the repository no more; whoever knows the master key still reads everything.
    ///
    /// # Errors
    /// [`Error::KeyInUse`] for the one that opened this repository, [`Error::FileMissing`] if there is none of this
    /// name, [`Error::Locked`] while anybody works on the repository.
    pub async fn remove_key(&self, id: &Id) -> Result<(), Error> {
        if *id == self.key().id {
            return Err(Error::KeyInUse { store: self.store().to_string(), id: *id });
        }
        let lock = self.lock(LockKind::Exclusive).await?;
        let removed = self.remove_key_locked(id, &lock).await;
        lock.release().await;
        removed
    }

    async fn remove_key_locked(&self, id: &Id, lock: &Lock) -> Result<(), Error> {
        let present = self.store().list(FOLDER).await?;
        // ours too: removed by somebody since, it would leave none
        for wanted in [id, &self.key().id] {
            if !present.iter().any(|entry| entry.name == wanted.to_string()) {
                return Err(Error::FileMissing { store: self.store().to_string(), path: path(wanted) });
            }
        }
        lock.verify().await?;
        self.store().delete(&path(id)).await
    }

    /// Replaces the key that opened this repository by one with another password, and returns its name.
    ///
    /// # Errors
    /// [`Error::Locked`] while anybody works on the repository. After any error the old password opens it.
    pub async fn change_password(&self, password: &Password, kdf: Kdf) -> Result<Id, Error> {
        let lock = self.lock(LockKind::Exclusive).await?;
        let changed = self.change_password_locked(password, kdf, &lock).await;
        lock.release().await;
        changed
    }

    async fn change_password_locked(&self, password: &Password, kdf: Kdf, lock: &Lock) -> Result<Id, Error> {
        let new = self.add_key_locked(password, kdf).await?;
        lock.verify().await?;
        self.store().delete(&path(&self.key().id)).await?;
        Ok(new)
    }
}

async fn open(store: &Store, name: &str, password: &Password) -> Result<Unlocked, Error> {
    let bytes = store.get(&format!("{FOLDER}/{name}"), MAX_KEY_FILE).await?;
    let (password, named) = (password.clone(), name.parse().ok());
    let unlock = move || match Id::of(&bytes) {
        found if named != Some(found) => Unlocked::Damaged(format!("its content has the id {found}")),
        _ => key::unlock(&bytes, &password),
    };
    Ok(tokio::task::spawn_blocking(unlock).await?)
}

/// All keys that the password opens: normally one, several after an `init` that crashed.
pub(crate) async fn unlock(store: &Store, password: &Password) -> Result<Vec<OpenKey>, Error> {
    let entries = store.list(FOLDER).await?;
    let (mut opened, mut damage) = (Vec::new(), None);
    for entry in entries.iter().take(MAX_KEYS) {
        match open(store, &entry.name, password).await? {
            Unlocked::Master(master) => {
                // it was compared with the content's id
                let id = entry.name.parse().map_err(|_| Error::damaged(&entry.name, "this is no name of a key"))?;
                opened.push(OpenKey { id, master });
            }
            Unlocked::OtherPassword => {}
            Unlocked::Damaged(reason) => damage = Some(Error::damaged(format!("{FOLDER}/{}", entry.name), reason)),
        }
    }
    match damage {
        _ if !opened.is_empty() => Ok(opened),
        Some(damage) => Err(damage),
        None if entries.is_empty() => Err(Error::damaged(FOLDER, "there is no key file")),
        None => Err(Error::WrongPassword { store: store.to_string(), keys: entries.len() }),
    }
}
