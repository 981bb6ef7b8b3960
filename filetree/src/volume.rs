//! Knows which snapshots are volume backups, and which one is meant by a name.
//!
//! A volume backup is a plain restic snapshot with two tags, [`TAG`] and the volume's name, of the host whose paths it
//! holds. Nothing else tells it apart, so restic's own `backup --tag` makes one as well.

use jiff::Timestamp;
use serde::Serialize;
use stillpoint_repository::{Id, Repository, Snapshot};

/// The tag of every volume backup.
pub const TAG: &str = "stillpoint-volume";

/// The tag of a volume backup that lacks something.
pub const DEGRADED: &str = "stillpoint-degraded";

/// The tag of a volume backup that was read while its files could be written. A change that leaves no trace in times and
/// sizes may be missing in it, which whoever spares reading because of it must know.
pub const READ_LIVE: &str = "stillpoint-read-live";

/// Whether a volume can have this name; the error says why not.
pub(crate) fn check_name(name: &str) -> Result<(), &'static str> {
    if name.is_empty() {
        return Err("it is empty");
    }
    if name.starts_with("stillpoint-") {
        return Err("tags that begin with stillpoint- have a meaning of their own");
    }
    if name.contains([',', '/']) || name.chars().any(char::is_control) {
        return Err("it is a tag: commas, slashes and control characters do not go into one");
    }
    Ok(())
}

/// Why there is no such volume backup.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// No snapshot fits.
    #[error("there is no backup of the volume {name:?} of {host}{}; volume get lists what there is", snapshot.as_ref().map(|id| format!(" with the snapshot id {id}")).unwrap_or_default())]
    Absent {
        /// The volume's name.
        name: String,
        /// Of which host.
        host: HostFilter,
        /// The id asked for.
        snapshot: Option<String>,
    },
    /// An abbreviated id fits several snapshots.
    #[error("the snapshot id {id} fits {count} backups of the volume {name:?}; give more digits of it")]
    Ambiguous {
        /// The volume's name.
        name: String,
        /// The id asked for.
        id: String,
        /// How many it fits.
        count: usize,
    },
    /// The repository cannot be read.
    #[error(transparent)]
    Repository(#[from] stillpoint_repository::Error),
}

/// One backup of a volume.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct VolumeBackup {
    /// The volume's name: the tag beside [`TAG`].
    pub name: String,
    /// The snapshot.
    pub snapshot: Id,
    /// When it was taken.
    pub time: Timestamp,
    /// The host whose paths it holds.
    pub host: String,
    /// Paths that were backed up.
    pub paths: Vec<String>,
    /// The root tree: `/` of that host.
    pub tree: Id,
    /// Whether it lacks something: [`crate::backup::problems`] tells what.
    pub degraded: bool,
    /// How many files it holds, if that was recorded: restic does so since 0.17.
    pub files: Option<u64>,
    /// Their bytes, holes included.
    pub bytes: Option<u64>,
}

impl VolumeBackup {
    /// Reads a snapshot as a volume backup; `None` if it is none.
    fn from_snapshot(snapshot: Snapshot) -> Option<Self> {
        let Snapshot { id, time, tree, paths, hostname, tags, summary, .. } = snapshot;
        tags.iter().any(|tag| tag == TAG).then_some(())?;
        let degraded = tags.iter().any(|tag| tag == DEGRADED);
        let name = tags.into_iter().find(|tag| check_name(tag).is_ok())?;
        let (files, bytes) = summary.map(|all| (all.total_files_processed, all.total_bytes_processed)).unzip();
        Some(Self { name, snapshot: id, time, host: hostname, paths, tree, degraded, files, bytes })
    }
}

/// Of which host a volume is meant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum HostFilter {
    /// The host of this name.
    Named(String),
    /// Any.
    Any,
}

impl HostFilter {
    /// This host.
    pub fn this() -> Self {
        Self::Named(this_host())
    }

    /// Whether a host of this name is meant.
    pub fn takes(&self, host: &str) -> bool {
        match self {
            Self::Named(name) => name == host,
            Self::Any => true,
        }
    }
}

impl std::fmt::Display for HostFilter {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Named(name) => write!(f, "host {name}"),
            Self::Any => f.write_str("any host"),
        }
    }
}

/// The name of this host, as it stands in snapshots.
pub fn this_host() -> String {
    rustix::system::uname().nodename().to_string_lossy().into_owned()
}

/// All volume backups, oldest first.
///
/// # Errors
/// Those of [`Repository::snapshots`].
pub async fn list(repository: &Repository) -> Result<Vec<VolumeBackup>, stillpoint_repository::Error> {
    let snapshots = repository.snapshots().await?;
    Ok(snapshots.into_iter().filter_map(VolumeBackup::from_snapshot).collect())
}

/// All backups of a volume of the host, oldest first.
///
/// # Errors
/// [`Error::Absent`] if there is none.
pub async fn all(repository: &Repository, name: &str, host: &HostFilter) -> Result<Vec<VolumeBackup>, Error> {
    let mut backups = list(repository).await?;
    backups.retain(|backup| backup.name == name && host.takes(&backup.host));
    if backups.is_empty() {
        return Err(Error::Absent { name: name.to_owned(), host: host.clone(), snapshot: None });
    }
    Ok(backups)
}

/// The backup of a volume that `snapshot` names by the first digits of its id, or the newest of all for `None`.
///
/// # Errors
/// [`Error::Absent`] and [`Error::Ambiguous`].
pub async fn find(
    repository: &Repository,
    name: &str,
    host: &HostFilter,
    snapshot: Option<&str>,
) -> Result<VolumeBackup, Error> {
    pick(all(repository, name, host).await?, name, host, snapshot)
}

/// Picks one of all backups of a volume.
///
/// # Errors
/// [`Error::Absent`] and [`Error::Ambiguous`].
pub fn pick(
    mut backups: Vec<VolumeBackup>,
    name: &str,
    host: &HostFilter,
    snapshot: Option<&str>,
) -> Result<VolumeBackup, Error> {
    if let Some(id) = snapshot {
        backups.retain(|backup| backup.snapshot.to_string().starts_with(id));
        if backups.len() > 1 {
            return Err(Error::Ambiguous { name: name.to_owned(), id: id.to_owned(), count: backups.len() });
        }
    }
    let absent =
        || Error::Absent { name: name.to_owned(), host: host.clone(), snapshot: snapshot.map(ToOwned::to_owned) };
    backups.pop().ok_or_else(absent)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn backup(id: u8, host: &str) -> VolumeBackup {
        VolumeBackup {
            name: "data".into(),
            snapshot: Id([id; 32]),
            time: Timestamp::UNIX_EPOCH,
            host: host.into(),
            paths: vec!["/srv/data".into()],
            tree: Id([0; 32]),
            degraded: false,
            files: None,
            bytes: None,
        }
    }

    #[test]
    fn the_newest_is_meant_unless_an_id_is_given() {
        let all = vec![backup(0x1a, "a"), backup(0x1b, "a"), backup(0x2c, "a")];
        let pick = |id| pick(all.clone(), "data", &HostFilter::Any, id);
        assert_eq!(pick(None).unwrap().snapshot, Id([0x2c; 32]));
        assert_eq!(pick(Some("1b1")).unwrap().snapshot, Id([0x1b; 32]));
        assert!(matches!(pick(Some("1")).unwrap_err(), Error::Ambiguous { count: 2, .. }));
        let absent = pick(Some("ff")).unwrap_err().to_string();
        assert!(absent.contains("\"data\" of any host with the snapshot id ff"), "{absent}");
    }

    #[test]
    fn this_host_has_a_name_and_fits_itself_alone() {
        assert!(!this_host().is_empty());
        assert!(HostFilter::this().takes(&this_host()));
        assert!(!HostFilter::this().takes("another.example"));
        assert!(HostFilter::Any.takes("another.example"));
    }
}
