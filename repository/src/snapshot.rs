//! Models restic's snapshots: which tree, when, of whom.
//!
//! A snapshot is the commit of a backup. What its file says is read tolerantly, since other tools write snapshots into
//! the same repository.

use jiff::Timestamp;
use serde::{Deserialize, Deserializer, Serialize};

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
    /// What it comes to.
    pub summary: Option<SnapshotSummary>,
}

/// What a snapshot comes to, as restic records it since 0.17 and shows it in its list.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct SnapshotSummary {
    /// When the backup began.
    pub backup_start: Option<Timestamp>,
    /// When everything had been read.
    pub backup_end: Option<Timestamp>,
    /// Files that the parent does not have.
    pub files_new: u64,
    /// Files that differ from the parent's.
    pub files_changed: u64,
    /// Files that are as the parent has them.
    pub files_unmodified: u64,
    /// Bytes before compression that were not in the repository.
    pub data_added: u64,
    /// The same as stored.
    pub data_added_packed: u64,
    /// All files.
    pub total_files_processed: u64,
    /// Their bytes, holes included.
    pub total_bytes_processed: u64,
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
    /// What it comes to, if that was recorded.
    pub summary: Option<SnapshotSummary>,
}

impl Snapshot {
    /// Whether it carries the tag.
    pub fn has_tag(&self, tag: &str) -> bool {
        self.tags.iter().any(|own| own == tag)
    }

    pub(crate) fn new(id: Id, file: SnapshotFile) -> Self {
        let SnapshotFile { time, tree, paths, hostname, tags, program_version, summary } = file;
        let (paths, tags) = (paths.unwrap_or_default(), tags.unwrap_or_default());
        Self { id, time, tree, paths, hostname, tags, program_version, summary }
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
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "if_readable")]
    summary: Option<SnapshotSummary>,
}

/// Nobody depends on a summary, so one in another form must not hide its snapshot.
fn if_readable<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<SnapshotSummary>, D::Error> {
    let value = serde_json::Value::deserialize(deserializer)?;
    Ok(serde_json::from_value(value).ok())
}

impl From<SnapshotMeta> for SnapshotFile {
    fn from(meta: SnapshotMeta) -> Self {
        let SnapshotMeta { tree, hostname, paths, tags, time, program_version, summary } = meta;
        let tags = (!tags.is_empty()).then_some(tags);
        Self { time, tree, paths: Some(paths), hostname, tags, program_version, summary }
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
        assert_eq!(snapshot.summary.map(|summary| summary.files_new), Some(1));
    }

    #[test]
    fn a_summary_in_another_form_does_not_hide_its_snapshot() {
        for summary in ["7", "null", r#"{"files_new":-1}"#, r#"{"backup_start":"yesterday"}"#] {
            let json = format!(r#"{{"time":"2026-01-02T03:04:05Z","tree":"{}","summary":{summary}}}"#, Id([1; 32]));
            let snapshot = Snapshot::new(Id([2; 32]), serde_json::from_str(&json).unwrap());
            assert_eq!(snapshot.summary, None, "{summary}");
        }
    }
}
