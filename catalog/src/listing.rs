//! Which backups a repository holds.
//!
//! Names come from the snapshots' tags, because a list must not read every manifest to refuse a name; everything
//! that is shown of a backup comes from its manifest, because only that is signed.

use std::cmp::Reverse;

use futures::{StreamExt, stream};
use stillpoint_repository::{Id, Repository, Snapshot, signing::Trust};

use crate::{BACKUP_TAG, Backup, Error, NAME_TAG};

/// Manifests that are read at once.
const CONCURRENCY: usize = 8;

/// One backup of a repository.
#[derive(Debug)]
pub struct Entry {
    /// The snapshot that commits it.
    pub snapshot: Id,
    /// Its name, from the snapshot's tag.
    pub name: String,
    /// The backup; an error where it cannot be opened.
    pub backup: Result<Backup, Error>,
}

/// All backups, oldest first; one that cannot be opened is listed with the reason.
///
/// # Errors
/// The repository cannot be read.
pub async fn list(repository: &Repository, trust: &Trust) -> Result<Vec<Entry>, Error> {
    // the repository gives them in the order of their times
    let snapshots = snapshots(repository).await?;
    if snapshots.is_empty() {
        return Ok(Vec::new());
    }
    let reader = repository.reader().await?;
    let entries = stream::iter(snapshots)
        .map(|(snapshot, name)| {
            let reader = reader.clone();
            async move {
                let backup = Backup::open(reader, &name, &snapshot, trust).await;
                Entry { snapshot: snapshot.id, name, backup }
            }
        })
        .buffered(CONCURRENCY);
    Ok(entries.collect().await)
}

/// Opens the backup of one name: its manifest read, its signature judged, its trees compared with the manifest.
///
/// # Errors
/// There is no such backup, it is damaged, or the repository cannot be read.
pub async fn find(repository: &Repository, name: &str, trust: &Trust) -> Result<Backup, Error> {
    let snapshot = the_snapshot(repository, name).await?;
    Backup::open(repository.reader().await?, name, &snapshot, trust).await
}

/// The newest backup of a cluster that can be opened; none where there is none.
///
/// # Errors
/// The repository cannot be read.
pub async fn newest(repository: &Repository, cluster: &str, trust: &Trust) -> Result<Option<Backup>, Error> {
    let mut of_cluster = snapshots(repository).await?;
    of_cluster.retain(|(snapshot, _)| snapshot.hostname == cluster);
    if of_cluster.is_empty() {
        return Ok(None);
    }
    of_cluster.sort_by_key(|(snapshot, _)| Reverse(snapshot.time));
    let reader = repository.reader().await?;
    for (snapshot, name) in of_cluster {
        match Backup::open(reader.clone(), &name, &snapshot, trust).await {
            Err(Error::Damaged { .. }) => {}
            opened => return opened.map(Some),
        }
    }
    Ok(None)
}

/// Removes a backup's snapshot; its data stays until a prune.
///
/// # Errors
/// There is no such backup, or the repository refuses.
pub async fn forget(repository: &Repository, name: &str) -> Result<Id, Error> {
    let snapshot = the_snapshot(repository, name).await?;
    repository.forget(&snapshot.id).await?;
    Ok(snapshot.id)
}

/// Refuses a name that cannot be one or is in use.
pub(crate) async fn check_name(repository: &Repository, name: &str) -> Result<(), Error> {
    if !is_valid(name) {
        return Err(Error::InvalidName { name: name.to_owned() });
    }
    match snapshots(repository).await?.iter().any(|(_, taken)| taken == name) {
        true => Err(Error::NameTaken { name: name.to_owned() }),
        false => Ok(()),
    }
}

/// What Kubernetes allows as an object's name, because a backup becomes one.
fn is_valid(name: &str) -> bool {
    let edge = |c: Option<char>| c.is_some_and(|c| c.is_ascii_lowercase() || c.is_ascii_digit());
    name.len() <= 253
        && edge(name.chars().next())
        && edge(name.chars().next_back())
        && name.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-' || c == '.')
}

async fn the_snapshot(repository: &Repository, name: &str) -> Result<Snapshot, Error> {
    let mut found: Vec<_> = snapshots(repository).await?.into_iter().filter(|(_, taken)| taken == name).collect();
    match (found.pop(), found.len()) {
        (None, _) => Err(Error::NotFound { name: name.to_owned() }),
        (Some((snapshot, _)), 0) => Ok(snapshot),
        (Some(_), others) => Err(Error::Ambiguous { name: name.to_owned(), count: others + 1 }),
    }
}

async fn snapshots(repository: &Repository) -> Result<Vec<(Snapshot, String)>, Error> {
    let named = |snapshot: Snapshot| {
        let name = snapshot.tags.iter().find_map(|tag| tag.strip_prefix(NAME_TAG))?.to_owned();
        snapshot.has_tag(BACKUP_TAG).then_some((snapshot, name))
    };
    Ok(repository.snapshots().await?.into_iter().filter_map(named).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_backup_is_named_as_a_kubernetes_object_is() {
        for name in ["shop-1", "a", "1.2", &"x".repeat(253)] {
            assert!(is_valid(name), "{name:?}");
        }
        for name in ["", "-a", "a-", "A", "a b", "a/b", "a,b", &"x".repeat(254)] {
            assert!(!is_valid(name), "{name:?}");
        }
    }
}
