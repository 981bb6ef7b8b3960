//! Models restic's snapshots: which tree, when, of whom.
//!
//! A snapshot is the commit of a backup. What its file says is read tolerantly, since other tools write snapshots into
//! the same repository.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::Id;

/// The tag of a snapshot that keeps what several writers store together alive until one of them commits the whole: all of
/// them hold the repository's lock until then, so one that is found while nobody does is an orphan.
pub const PART_TAG: &str = "stillpoint-part";

/// What a caller decides about a new snapshot.
#[derive(Debug, Clone)]
pub struct SnapshotMeta {
    /// Root tree, stored by the same writer or before.
    pub tree: Id,
    /// Host that restic shows and groups by.
    pub hostname: String,
    /// Paths that restic shows and groups by; absolute.
    pub paths: Vec<String>,
    /// Tags.
    pub tags: Vec<String>,
    /// Time that the snapshot stands for.
    pub time: Timestamp,
    /// Program and version that wrote it.
    pub program_version: Option<String>,
}

/// A snapshot in the repository.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Snapshot {
    /// Its id: the name of its file.
    pub id: Id,
    /// Time that it stands for.
    pub time: Timestamp,
    /// Root tree.
    pub tree: Id,
    /// Paths.
    pub paths: Vec<String>,
    /// Host.
    pub hostname: String,
    /// Tags.
    pub tags: Vec<String>,
    /// Program and version that wrote it.
    pub program_version: Option<String>,
}

impl Snapshot {
    /// Whether it carries the tag.
    pub fn has_tag(&self, tag: &str) -> bool {
        self.tags.iter().any(|own| own == tag)
    }

    pub(crate) fn new(id: Id, file: SnapshotFile) -> Self {
        let SnapshotFile { time, tree, paths, hostname, tags, program_version } = file;
        let (paths, tags) = (paths.unwrap_or_default(), tags.unwrap_or_default());
        Self { id, time, tree, paths, hostname, tags, program_version }
    }
}

/// A file in `snapshots/`.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct SnapshotFile {
    time: Timestamp,
    tree: Id,
    #[serde(default)]
    paths: Option<Vec<String>>,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    hostname: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    tags: Option<Vec<String>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    program_version: Option<String>,
}

impl From<SnapshotMeta> for SnapshotFile {
    fn from(meta: SnapshotMeta) -> Self {
        let SnapshotMeta { tree, hostname, paths, tags, time, program_version } = meta;
        let tags = (!tags.is_empty()).then_some(tags);
        Self { time, tree, paths: Some(paths), hostname, tags, program_version }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_snapshot_of_restics_own_reads() {
        let json = format!(
            r#"{{"time":"2015-01-02T18:10:50.895208559+01:00","parent":"{id}","tree":"{id}","paths":["/tmp/x"],
            "hostname":"kasimir","username":"fd0","uid":1000,"gid":100,"summary":{{"files_new":1}}}}"#,
            id = Id([1; 32])
        );
        let snapshot = Snapshot::new(Id([2; 32]), serde_json::from_str(&json).unwrap());
        assert_eq!(snapshot.time.to_string(), "2015-01-02T17:10:50.895208559Z");
        assert_eq!((snapshot.hostname.as_str(), snapshot.paths.len()), ("kasimir", 1));
        assert!(!snapshot.has_tag("NL"));
    }
}
