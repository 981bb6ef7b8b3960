//! What a backup of directory trees came to, as values.
//!
//! Problems carry a kind besides their words, so that programs need not read prose.

use std::{fmt, path::Path};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use stillpoint_repository::{Id, Node, SnapshotSummary, Stats};

/// What went wrong with a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum ProblemKind {
    /// It was listed, and gone before it could be read: it is not in the backup.
    Vanished,
    /// It cannot be read: it is not in the backup, or without what is in it.
    Unreadable,
    /// It was another kind of file when it was opened: it is not in the backup.
    TypeChanged,
    /// It was written while it was read: what is stored may be a mixture.
    Changed,
    /// Its content is stored, some of its attributes are not.
    Attributes,
}

/// Something that a backup lacks or cannot vouch for.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Problem {
    /// What it happened to; bytes that are no text are replaced.
    pub path: String,
    /// What happened.
    pub kind: ProblemKind,
    /// The same in words.
    pub message: String,
}

impl Problem {
    pub(super) fn new(path: &Path, kind: ProblemKind, message: impl Into<String>) -> Self {
        Self { path: path.display().to_string(), kind, message: message.into() }
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.path, self.message)
    }
}

/// A file system that is mounted below what was backed up and was left out.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct LeftOut {
    /// The mount point.
    pub path: String,
}

/// How many of what.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Counts {
    /// Files that the parent does not have.
    pub files_new: u64,
    /// Files that differ from the parent's.
    pub files_changed: u64,
    /// Files that are as the parent has them, and were not read.
    pub files_unmodified: u64,
    /// Directories.
    pub directories: u64,
    /// Links, devices, pipes and sockets.
    pub others: u64,
    /// Bytes of all files, holes included.
    pub bytes: u64,
    /// Bytes read; holes are not.
    pub bytes_read: u64,
}

impl Counts {
    /// The same in restic's words, beside what the repository took.
    pub(super) fn summary(self, started: Timestamp, stats: Stats) -> SnapshotSummary {
        let Self { files_new, files_changed, files_unmodified, bytes, .. } = self;
        SnapshotSummary {
            backup_start: Some(started),
            backup_end: Some(Timestamp::now()),
            files_new,
            files_changed,
            files_unmodified,
            data_added: stats.bytes_new,
            data_added_packed: stats.bytes_packed,
            total_files_processed: files_new + files_changed + files_unmodified,
            total_bytes_processed: bytes,
        }
    }
}

/// How far a backup is.
pub type Progress = Counts;

/// What was read into the repository and is not committed yet.
#[derive(Debug, Clone)]
pub struct Read {
    /// Its tree.
    pub tree: Id,
    /// The directory that it is of, with all that the system says of it; none where the tree is of a whole host.
    pub root: Option<Node>,
    /// How many of what.
    pub counts: Counts,
    /// What it lacks, by path.
    pub problems: Vec<Problem>,
    /// Mount points that were not crossed.
    pub left_out: Vec<LeftOut>,
}

impl Read {
    pub(super) fn committed(self, snapshot: Id, parent: Option<Id>, stats: Stats, started: Timestamp) -> Report {
        let Self { tree, root: _, counts, problems, left_out } = self;
        let seconds = Timestamp::now().duration_since(started).as_secs_f64();
        Report { snapshot, tree, parent, counts, stats, problems, left_out, seconds }
    }
}

/// A backup that was committed.
#[derive(Debug, Clone)]
pub struct Report {
    /// The snapshot.
    pub snapshot: Id,
    /// Its tree.
    pub tree: Id,
    /// The snapshot that spared reading.
    pub parent: Option<Id>,
    /// How many of what.
    pub counts: Counts,
    /// What the repository took.
    pub stats: Stats,
    /// What it lacks, by path.
    pub problems: Vec<Problem>,
    /// Mount points that were not crossed.
    pub left_out: Vec<LeftOut>,
    /// How long it took.
    pub seconds: f64,
}
