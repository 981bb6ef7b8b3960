//! What passes between a restore and the program in its pod: one line of JSON there, some lines back.
//!
//! A line each, so that what an exec's streams cut anywhere is put together again.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::Value;
use stillpoint_api::{Digest, ObjectRef};

use super::Filled;

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
    Done {
        /// Files that were read back.
        files: u64,
        /// Their bytes.
        bytes: u64,
        /// What is not as it was, by path; the first of them.
        problems: Vec<String>,
        /// Problems beyond those.
        more_problems: u64,
    },
    /// It is not.
    Failed {
        /// Why.
        reason: String,
    },
}

/// A volume that was restored.
pub(super) struct Done {
    pub(super) files: u64,
    pub(super) bytes: u64,
    pub(super) problems: Vec<String>,
    pub(super) more_problems: u64,
}

impl Done {
    pub(super) fn of(self, claim: ObjectRef, took: Duration) -> Filled {
        let Self { files, bytes, problems, more_problems } = self;
        Filled { claim, files, bytes, problems, more_problems, seconds: took.as_secs_f64() }
    }
}
