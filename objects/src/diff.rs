//! How two objects differ, field by field.
//!
//! Lists are compared by the keys that Kubernetes merges them by.

use std::fmt;

use serde::Serialize;
use serde_json::Value;
use stillpoint_api::ResourceType;

/// One difference.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Change {
    /// Where, such as `spec.containers[name=web].image`.
    pub path: String,
    /// What sort of difference.
    pub kind: ChangeKind,
    /// The captured value; none where something was added.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub before: Option<Value>,
    /// The other value; none where something was removed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub after: Option<Value>,
}

/// The sorts of differences.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum ChangeKind {
    /// Only the other object has it.
    Added,
    /// Only the captured object has it.
    Removed,
    /// Both have it, with different values.
    Changed,
}

impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.path)
    }
}

/// Every difference between a captured object and another.
pub fn diff(captured: &Value, other: &Value) -> Vec<Change> {
    todo!("{captured} {other}")
}

/// Hides the values of Secrets.
pub fn redact(resource: &ResourceType, changes: Vec<Change>) -> Vec<Change> {
    todo!("{resource:?} {changes:?}")
}
