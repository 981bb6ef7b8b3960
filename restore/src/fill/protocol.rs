//! What passes between a restore and the program in its pod: one line of JSON there, some lines back.
//!
//! A line each, so that what an exec's streams cut anywhere is put together again.

use serde::{Deserialize, Serialize};
use serde_json::Value;
use stillpoint_api::Digest;

/// What is to be restored. Holds credentials: never printed.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Order {
    /// What the repository is opened with.
    pub access: Value,
    /// The backup's name.
    pub backup: String,
    /// The root that it must have: the caller has judged its signature.
    pub root: Digest,
    /// The claim as captured, as `namespace/name`.
    pub volume: String,
}

/// What the program in the pod says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", tag = "said", deny_unknown_fields)]
pub enum Said {
    /// How far it is.
    Progress {
        /// Bytes written.
        bytes: u64,
    },
    /// The volume is restored.
    Done(Done),
    /// It is not.
    Failed {
        /// Why.
        reason: String,
    },
}

/// A volume that was restored.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Done {
    /// Files that were written and read back.
    pub files: u64,
    /// Their bytes.
    pub bytes: u64,
    /// What is not as it was, by path; the first of them.
    pub problems: Vec<String>,
    /// Problems beyond those, only counted.
    pub more_problems: u64,
}
