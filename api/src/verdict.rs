//! The verdict of a restore test, and the evidence that keeps it.
//!
//! A verdict is a value: exit code, table, HTML page and evidence are all made from it, so that they cannot disagree.

use std::fmt;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::{Digest, Outcome};

/// What one restore test found.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Verdict {
    /// [`crate::manifest::FORMAT_VERSION`].
    pub format_version: u32,
    /// The backup's name.
    pub backup: String,
    /// The backup's root; none where the manifest could not be read.
    pub root: Option<Digest>,
    /// Whether the backup itself was complete.
    pub backup_outcome: Option<Outcome>,
    /// Where it was restored.
    pub scratch: ScratchKind,
    /// What the scratch cluster's API server calls its version; none where the test ended before there was one.
    pub scratch_version: Option<String>,
    /// Who signed the backup.
    pub signer: SignerState,
    /// When the restore test began.
    pub started: Timestamp,
    /// When it ended.
    pub finished: Timestamp,
    /// The result.
    pub result: TestResult,
    /// Every check in the order it ran.
    pub checks: Vec<Check>,
    /// What the scratch cluster cannot judge.
    pub not_judged: Vec<String>,
    /// Objects that the restore created.
    pub objects_restored: u64,
    /// Recovery time: seconds from the first read of the backup to the last object's creation; none where nothing was
    /// restored.
    pub rto_seconds: Option<f64>,
    /// Recovery point: the age in seconds of the cut when the test began.
    pub rpo_seconds: Option<f64>,
    /// The version of Stillpoint that ran the test.
    pub tool_version: String,
}

impl Verdict {
    /// The check of one kind, where it ran.
    pub fn check(&self, kind: CheckKind) -> Option<&Check> {
        self.checks.iter().find(|check| check.kind == kind)
    }
}

/// A restore test's result.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum TestResult {
    /// Every check passed.
    Proven,
    /// At least one check failed.
    Failed,
}

impl fmt::Display for TestResult {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Proven => "Proven",
            Self::Failed => "Failed",
        })
    }
}

/// Where a restore test runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ScratchKind {
    /// The embedded API server.
    Embedded,
    /// etcd and kube-apiserver.
    ControlPlane,
}

impl fmt::Display for ScratchKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Embedded => "embedded",
            Self::ControlPlane => "control-plane",
        })
    }
}

/// Who signed a document, judged against the keys that are pinned. Keys are named by fingerprint.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", tag = "state", content = "key", deny_unknown_fields)]
pub enum SignerState {
    /// A pinned key.
    Trusted(String),
    /// A valid signature, but no key is pinned to compare with.
    Unverified(String),
    /// A valid signature by a key that is not among those pinned.
    Untrusted(String),
    /// No signature.
    Unsigned,
    /// A signature that does not fit.
    Invalid,
    /// The test ended before the signature could be read.
    Unknown,
}

impl fmt::Display for SignerState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Trusted(key) => write!(f, "trusted signer {key}"),
            Self::Unverified(key) => write!(f, "unverified signer {key}"),
            Self::Untrusted(key) => write!(f, "untrusted signer {key}"),
            Self::Unsigned => f.write_str("unsigned"),
            Self::Invalid => f.write_str("invalid signature"),
            Self::Unknown => f.write_str("signer unknown"),
        }
    }
}

/// One check of a restore test.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Check {
    /// Which check.
    pub kind: CheckKind,
    /// What it came to.
    pub judgement: Judgement,
    /// One sentence with the figures.
    pub summary: String,
    /// What it found, by name; bounded.
    pub findings: Vec<Finding>,
    /// Findings beyond the bound, only counted.
    pub more_findings: u64,
}

/// The checks of a restore test, in the order they run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum CheckKind {
    /// The signature is by a trusted key and fits the root.
    Signature,
    /// Every byte of the backup is there and is what its id says.
    Integrity,
    /// The manifest's counts are those of the objects in the backup.
    Counts,
    /// What captured objects refer to is in the backup, where its scope should hold it.
    References,
    /// The scratch cluster accepted every object.
    Accepted,
    /// Every object is still there after the cluster had time to collect garbage.
    StillThere,
    /// What was restored equals what was captured, after the published normalisation.
    Equal,
    /// Every file of every volume, restored into a directory, is what was captured; in verdicts on backups with volumes.
    Volumes,
    /// The user's own commands over restored volumes succeeded; in verdicts of tests that were given some.
    UserChecks,
}

impl fmt::Display for CheckKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Signature => "signature",
            Self::Integrity => "integrity",
            Self::Counts => "counts",
            Self::References => "references",
            Self::Accepted => "accepted",
            Self::StillThere => "still there",
            Self::Equal => "equal",
            Self::Volumes => "volumes",
            Self::UserChecks => "your checks",
        })
    }
}

/// What a check came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Judgement {
    /// Looked at, and as it should be.
    Passed,
    /// Looked at, and not as it should be.
    Failed,
    /// Not looked at; the summary says why.
    NotJudged,
}

impl fmt::Display for Judgement {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Passed => "passed",
            Self::Failed => "failed",
            Self::NotJudged => "not judged",
        })
    }
}

/// One thing a check found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Finding {
    /// What it is about: an object, a type, a file of the repository.
    pub subject: String,
    /// What is wrong with it; Secret values are redacted.
    pub message: String,
}

/// A verdict as it is kept in the repository: the exact bytes that were signed, and the signature's document.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Evidence {
    /// A [`Verdict`] as JSON text; its SHA-256 is what the signature covers.
    pub verdict: String,
    /// The signature; none where the verifier had no key.
    pub signature: Option<serde_json::Value>,
}
