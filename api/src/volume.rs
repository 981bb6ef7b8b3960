//! What became of a volume's data, and of the hooks around it.
//!
//! A part of the manifest apart from its counts of objects, so that whoever restores a volume finds in one place what
//! was copied, how, and what it is worth.

use std::fmt;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::Digest;

/// What became of one claim's data.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct VolumeRecord {
    /// The claim's namespace.
    pub namespace: String,
    /// The claim's name.
    pub claim: String,
    /// What became of its data.
    pub data: VolumeData,
}

/// What became of a claim's data.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum VolumeData {
    /// It was wanted and is not in the backup.
    NotHeld,
    /// It was meant to be absent.
    LeftOut,
    /// It is in the backup.
    Held(Box<VolumeSnapshot>),
}

impl VolumeData {
    /// What is in the backup, if anything is.
    pub fn held(&self) -> Option<&VolumeSnapshot> {
        match self {
            Self::Held(snapshot) => Some(snapshot),
            Self::NotHeld | Self::LeftOut => None,
        }
    }
}

/// A volume's point-in-time copy.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct VolumeSnapshot {
    /// The id of its tree, which is `/volumes/<namespace>/<claim>` in the backup.
    pub tree: Digest,
    /// The node that it was read on.
    pub node: String,
    /// The filesystem that it lies on, such as `ext4`.
    pub filesystem: String,
    /// How it was copied.
    pub method: Method,
    /// Why by that method.
    pub reason: String,
    /// What the copy is worth.
    pub level: Level,
    /// When its writers stood still; none where they were not stopped.
    pub stopped: Option<Window>,
    /// Who could write to it meanwhile though its writers stood still.
    pub strangers: Vec<String>,
    /// Files in the copy.
    pub files: u64,
    /// Bytes of all files.
    pub bytes: u64,
    /// Bytes of files that were read for it; an earlier copy had the others.
    pub bytes_read: u64,
    /// Files and directories that could not be read, or not whole.
    pub unread: u64,
}

/// From when to when.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Window {
    /// The first stop began then.
    pub from: Timestamp,
    /// The last release had ended by then.
    pub to: Timestamp,
}

/// How a volume is copied.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Method {
    /// Read before the stop; what changed is read again while the filesystem is frozen.
    Precopy,
    /// Cloned file by file on its own filesystem while its writers are paused, read later.
    Reflink,
    /// Its subvolume snapshotted while its writers are paused, read later.
    Btrfs,
    /// Read to the end while its writers are paused.
    // as people write it
    #[serde(alias = "read-paused")]
    ReadPaused,
    /// Read while it is written.
    Live,
}

impl fmt::Display for Method {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Precopy => "precopy",
            Self::Reflink => "reflink",
            Self::Btrfs => "btrfs",
            Self::ReadPaused => "read-paused",
            Self::Live => "live",
        })
    }
}

/// What a volume's copy is worth; the best is the greatest.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Level {
    /// It was read while it changed.
    Fuzzy,
    /// It is one instant, while it was written: the order of writes that were not synced is lost.
    Crash,
    /// Its writers stood still and their writes were drained.
    Filesystem,
    /// So it was, and its hooks had brought the application to rest.
    Application,
}

impl fmt::Display for Level {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Fuzzy => "fuzzy",
            Self::Crash => "crash",
            Self::Filesystem => "filesystem",
            Self::Application => "application",
        })
    }
}

/// One hook that was to run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct HookRecord {
    /// The pod, as `namespace/name`.
    pub pod: String,
    /// The container.
    pub container: String,
    /// The hook's name, such as `pre` or `post.2`.
    pub hook: String,
    /// Whether it did what it was to do.
    pub outcome: HookOutcome,
    /// What happened, for people.
    pub message: String,
    /// How long it took, in milliseconds.
    pub millis: u64,
}

/// How a hook ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum HookOutcome {
    /// It did what it was to do.
    Succeeded,
    /// It did not.
    Failed,
    /// It did not end in time and was ended.
    TimedOut,
    /// It did not end in time and may still run.
    StillRunning,
    /// It was not started.
    Skipped,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_better_level_is_greater() {
        assert!(
            Level::Fuzzy < Level::Crash && Level::Crash < Level::Filesystem && Level::Filesystem < Level::Application
        );
    }

    #[test]
    fn what_is_not_held_reads_as_a_word() {
        let record: VolumeRecord =
            serde_json::from_str(r#"{"namespace":"shop","claim":"data","data":"leftOut"}"#).unwrap();
        assert_eq!((record.data.held(), &record.data), (None, &VolumeData::LeftOut));
    }
}
