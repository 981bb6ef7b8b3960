//! What a check can find, what it means and what to do about it.
//!
//! A finding names one file and, where the damage reaches backups, which: a list of damaged ids would leave the
//! operator to find out what is lost. Whatever the damage, the list stays short; what did not fit is counted.

use std::collections::HashMap;

use jiff::Timestamp;
use serde::Serialize;

use crate::{Id, Snapshot};

/// Findings that are kept; the rest is counted.
const MAX_FINDINGS: usize = 1000;
/// Sentences of one finding.
const MAX_SENTENCES: usize = 5;
/// Paths and snapshots that a finding names.
pub(super) const MAX_NAMED: usize = 10;
/// Directories that a finding remembers to find out which snapshots it reaches.
const MAX_TREES: usize = 100_000;

/// How bad a finding is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum Severity {
    /// Worth knowing; nothing is lost.
    Hint,
    /// Data is lost, or may soon be.
    Error,
}

/// What was found.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "camelCase")]
#[non_exhaustive]
pub enum FindingKind {
    /// A key file cannot be used.
    KeyUnreadable,
    /// A lock cannot be read, so nobody can tell whether its holder lives.
    LockUnreadable,
    /// An index file cannot be read.
    IndexUnreadable,
    /// A snapshot cannot be read.
    SnapshotUnreadable,
    /// An index names a pack that does not exist.
    PackMissing,
    /// A pack has another size than the index says.
    PackSize,
    /// A pack, or blobs in it, are not what was written.
    PackDamaged,
    /// A directory or a snapshot needs blobs that no index names.
    BlobsMissing,
    /// A directory is not as a directory must be.
    TreeInvalid,
    /// Files have another size than their content.
    FileSize,
    /// Packs that no index names.
    UnreferencedPacks,
    /// Blobs that are stored more than once.
    DuplicateBlobs,
    /// A lock whose holder is gone.
    StaleLock,
    /// Something that is not the repository's.
    ForeignFile,
}

impl FindingKind {
    /// How bad it is.
    pub fn severity(self) -> Severity {
        match self {
            Self::UnreferencedPacks | Self::DuplicateBlobs | Self::StaleLock | Self::ForeignFile => Severity::Hint,
            _ => Severity::Error,
        }
    }

    /// What to do about it.
    pub fn advice(self) -> &'static str {
        match self {
            Self::KeyUnreadable => {
                "its password opens nothing any more: remove the file, and add a key by another password"
            }
            Self::LockUnreadable => {
                "nobody can take a lock beside it: once no other process works there, stillpoint repo unlock --remove-all removes it"
            }
            Self::IndexUnreadable => {
                "the packs still say what is in them: run restic repair index (rebuild-index before 0.15)"
            }
            Self::SnapshotUnreadable => {
                "bring the file back from a copy of the storage; without one this backup is lost: remove the file"
            }
            Self::PackMissing => {
                "bring the file back from a copy of the storage; without one back up again: what still exists at the \
                 source is stored anew and completes older backups too"
            }
            Self::PackSize | Self::PackDamaged => {
                "bring the file back from a copy of the storage; without one move it away, run restic repair index \
                 (rebuild-index before 0.15) and back up again: what still exists at the source is stored anew and \
                 completes older backups too"
            }
            Self::BlobsMissing => {
                "run restic repair index (rebuild-index before 0.15): packs that no index names may hold them; if not, \
                 bring missing packs back from a copy of the storage, or back up again"
            }
            Self::TreeInvalid | Self::FileSize => {
                "it was written like this: restore it to look at it, report it to the makers of the program that \
                 wrote the snapshot, and back up again"
            }
            Self::UnreferencedPacks => {
                "a backup that runs now, or one that was interrupted; stillpoint repo prune frees the space"
            }
            Self::DuplicateBlobs => "backups that ran side by side; stillpoint repo prune frees the space",
            Self::StaleLock => "nobody waits for it; stillpoint repo unlock removes it",
            Self::ForeignFile => "it is in nobody's way there, but does not belong there: remove it if you know it",
        }
    }
}

/// A snapshot that a finding reaches.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct AffectedSnapshot {
    /// Its id.
    pub id: Id,
    /// When it was taken.
    pub time: Timestamp,
    /// Of which host or cluster.
    pub host: String,
    /// Its tags.
    pub tags: Vec<String>,
}

impl From<&Snapshot> for AffectedSnapshot {
    fn from(snapshot: &Snapshot) -> Self {
        let Snapshot { id, time, hostname, tags, .. } = snapshot;
        Self { id: *id, time: *time, host: hostname.clone(), tags: tags.clone() }
    }
}

/// What a finding reaches.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Affected {
    /// The newest snapshots that it reaches.
    pub snapshots: Vec<AffectedSnapshot>,
    /// How many it reaches.
    pub snapshot_count: u64,
    /// Some of the files and directories that cannot be read, each once however many snapshots hold it.
    pub paths: Vec<String>,
    /// How many there are.
    pub path_count: u64,
}

/// Something that a check found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Finding {
    /// How bad it is.
    pub severity: Severity,
    /// What it is.
    pub kind: FindingKind,
    /// The file of the repository, or the folder if there are several.
    pub file: String,
    /// What is wrong with it.
    pub message: String,
    /// Which backups and files need what is lost.
    #[serde(skip_serializing_if = "Affected::is_empty")]
    pub affected: Affected,
    /// What to do.
    pub advice: &'static str,
}

impl Affected {
    fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

/// A finding that still grows.
#[derive(Debug)]
pub(super) struct Draft {
    kind: FindingKind,
    file: String,
    sentences: Vec<String>,
    more_sentences: u64,
    /// Directories in which it was met, and the names there: as many as are named at the end.
    pub(super) met: Vec<(u32, String)>,
    pub(super) met_count: u64,
    /// The same directories for the question which snapshots hold them.
    pub(super) trees: Vec<u32>,
    pub(super) affected: Affected,
}

/// All findings of a check.
#[derive(Debug, Default)]
pub(super) struct Findings {
    pub(super) drafts: Vec<Draft>,
    by_file: HashMap<(FindingKind, String), usize>,
    more_errors: u64,
    more_hints: u64,
}

impl Findings {
    /// Adds a sentence about a file; the number of the finding, unless there are too many already.
    pub(super) fn add(&mut self, kind: FindingKind, file: &str, sentence: impl Into<String>) -> Option<usize> {
        if let Some(number) = self.number(kind, file) {
            self.drafts[number].say(sentence.into());
            return Some(number);
        }
        if self.drafts.len() >= MAX_FINDINGS {
            match kind.severity() {
                Severity::Error => self.more_errors += 1,
                Severity::Hint => self.more_hints += 1,
            }
            return None;
        }
        let number = self.drafts.len();
        self.drafts.push(Draft::new(kind, file, sentence.into()));
        self.by_file.insert((kind, file.to_owned()), number);
        Some(number)
    }

    /// The finding of this kind about this file.
    pub(super) fn number(&self, kind: FindingKind, file: &str) -> Option<usize> {
        self.by_file.get(&(kind, file.to_owned())).copied()
    }

    /// Errors first, each kind together; and how many errors and hints did not fit.
    pub(super) fn into_parts(self) -> (Vec<Finding>, u64, u64) {
        let mut findings: Vec<_> = self.drafts.into_iter().map(Draft::finish).collect();
        findings.sort_by(|a, b| (b.severity, a.kind as u8, &a.file).cmp(&(a.severity, b.kind as u8, &b.file)));
        (findings, self.more_errors, self.more_hints)
    }
}

impl Draft {
    fn new(kind: FindingKind, file: &str, sentence: String) -> Self {
        Self {
            kind,
            file: file.to_owned(),
            sentences: vec![sentence],
            more_sentences: 0,
            met: Vec::new(),
            met_count: 0,
            trees: Vec::new(),
            affected: Affected::default(),
        }
    }

    fn say(&mut self, sentence: String) {
        if self.sentences.contains(&sentence) {
            return;
        }
        if self.sentences.len() < MAX_SENTENCES {
            self.sentences.push(sentence);
        } else {
            self.more_sentences += 1;
        }
    }

    /// Remembers that a node of a directory needs what is lost.
    pub(super) fn meet(&mut self, tree: u32, name: &str) {
        if self.met.last().is_some_and(|(last, named)| *last == tree && named == name) {
            return;
        }
        self.met_count += 1;
        if self.met.len() < MAX_NAMED {
            self.met.push((tree, name.to_owned()));
        }
        if self.trees.last() != Some(&tree) && self.trees.len() < MAX_TREES {
            self.trees.push(tree);
        }
    }

    fn finish(self) -> Finding {
        let Self { kind, file, mut sentences, more_sentences, affected, .. } = self;
        if more_sentences > 0 {
            sentences.push(format!("and {more_sentences} more"));
        }
        let message = sentences.join("; ");
        Finding { severity: kind.severity(), kind, file, message, affected, advice: kind.advice() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_has_one_finding_of_a_kind_and_few_sentences() {
        let mut findings = Findings::default();
        for n in 0..20 {
            findings.add(FindingKind::PackDamaged, "data/ab/abc", format!("blob {n}"));
            findings.add(FindingKind::PackDamaged, "data/ab/abc", "blob 0");
        }
        let (findings, 0, 0) = findings.into_parts() else { panic!("more") };
        let [finding] = &findings[..] else { panic!("{findings:?}") };
        assert_eq!(finding.message, "blob 0; blob 1; blob 2; blob 3; blob 4; and 15 more");
    }

    #[test]
    fn what_does_not_fit_is_counted_and_errors_come_first() {
        let mut findings = Findings::default();
        for n in 0..MAX_FINDINGS + 7 {
            findings.add(FindingKind::ForeignFile, &format!("data/{n}"), "foreign");
        }
        findings.add(FindingKind::PackMissing, "data/ab/abc", "missing");
        let (kept, errors, hints) = findings.into_parts();
        assert_eq!((kept.len(), errors, hints), (MAX_FINDINGS, 1, 7));

        let mut findings = Findings::default();
        findings.add(FindingKind::StaleLock, "locks/a", "stale");
        findings.add(FindingKind::PackMissing, "data/ab/abc", "missing");
        assert_eq!(findings.into_parts().0[0].kind, FindingKind::PackMissing);
    }
}
