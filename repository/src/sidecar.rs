//! Keeps files of ours beside restic's, in the top-level folder `stillpoint/`.
//!
//! Evidence about a snapshot comes after it and must not change it, so it cannot be inside. The files are sealed like
//! all others, and each carries its own path inside: one moved to another name is refused.

use crate::{
    Error, Repository,
    encoding::{self, MAX_FILE},
};

const FOLDER: &str = "stillpoint";
/// Ends the path inside a sidecar; no path holds one.
const SEPARATOR: u8 = b'\n';

impl Repository {
    /// Writes a sidecar file, over an older one of the same path. A path is made of parts of letters, digits, `.`,
    /// `_` and `-`, joined by slashes.
    ///
    /// # Errors
    /// [`Error::Invalid`] for any other path.
    pub async fn put_sidecar(&self, path: &str, content: &[u8]) -> Result<(), Error> {
        check_path(path)?;
        let framed = frame(path, content);
        if framed.len() > MAX_FILE {
            return Err(Error::TooLarge { what: stored(path), limit: MAX_FILE as u64 });
        }
        let cipher = self.files().cipher.clone();
        let sealed = tokio::task::spawn_blocking(move || encoding::seal_file(&cipher, &framed)).await??;
        self.store().put(&stored(path), sealed.into()).await
    }

    /// Reads a sidecar file.
    ///
    /// # Errors
    /// [`Error::FileMissing`] if there is none of this path, [`Error::Damaged`] if it was changed or moved.
    pub async fn get_sidecar(&self, path: &str) -> Result<Vec<u8>, Error> {
        check_path(path)?;
        let (path, location) = (path.to_owned(), stored(path));
        let sealed = self.store().get(&location, MAX_FILE as u64).await?;
        let cipher = self.files().cipher.clone();
        tokio::task::spawn_blocking(move || {
            let framed = encoding::open_file(&cipher, &sealed, &location)?;
            unframe(&path, framed).ok_or_else(|| Error::damaged(location, "it was written under another name"))
        })
        .await?
    }

    /// Paths of all sidecar files whose path starts with `prefix`, sorted.
    ///
    /// # Errors
    /// Those of the store.
    pub async fn list_sidecars(&self, prefix: &str) -> Result<Vec<String>, Error> {
        let entries = self.store().list(FOLDER).await?;
        let ours = |name: &String| name.starts_with(prefix) && check_path(name).is_ok();
        Ok(entries.into_iter().map(|entry| entry.name).filter(ours).collect())
    }

    /// Removes a sidecar file; one that is not there is removed already.
    ///
    /// # Errors
    /// Those of the store.
    pub async fn delete_sidecar(&self, path: &str) -> Result<(), Error> {
        check_path(path)?;
        self.store().delete(&stored(path)).await
    }
}

/// A path and the content that was stored under it.
pub(crate) fn frame(path: &str, content: &[u8]) -> Vec<u8> {
    [path.as_bytes(), &[SEPARATOR], content].concat()
}

/// The content, if it was stored under this path.
pub(crate) fn unframe(path: &str, mut framed: Vec<u8>) -> Option<Vec<u8>> {
    let named = framed.iter().position(|byte| *byte == SEPARATOR)?;
    if framed[..named] != *path.as_bytes() {
        return None;
    }
    framed.drain(..=named);
    Some(framed)
}

fn stored(path: &str) -> String {
    format!("{FOLDER}/{path}")
}

fn check_path(path: &str) -> Result<(), Error> {
    let letter = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
    let safe = |part: &str| !matches!(part, "" | "." | "..") && part.chars().all(letter);
    if path.split('/').all(safe) {
        return Ok(());
    }
    Err(Error::invalid(format!("a sidecar {path:?}"), "parts of its path may hold letters, digits, '.', '_' and '-'"))
}
