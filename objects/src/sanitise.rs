//! What of a captured object is sent to a server that is to have it again.
//!
//! One table of rules by kind; an object is either changed and created, or left out for a reason with a name.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
};

use serde::Serialize;
use serde_json::Value;
use stillpoint_api::ResourceType;

/// How objects are changed on their way into a cluster, beyond what every restore changes.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Mapping {
    /// The new names of namespaces, by captured name; others keep theirs.
    pub namespaces: BTreeMap<String, String>,
    /// Persistent volumes that are provisioned anew for their claims instead of being restored.
    pub reprovisioned: BTreeSet<String>,
    /// Labels to add to every object, where they are wanted.
    pub labels: Option<RestoreLabels>,
    /// Whether node ports are kept that nobody asked for by number.
    pub preserve_node_ports: bool,
}

/// The labels that tell from where an object was restored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RestoreLabels {
    /// Value of `stillpoint.dev/backup-name`.
    pub backup: String,
    /// Value of `stillpoint.dev/restore-name`.
    pub restore: String,
}

/// What becomes of an object.
#[derive(Debug, Clone, PartialEq)]
pub enum Sanitised {
    /// It is created so.
    Create(Value),
    /// It is not created.
    Skip(SkipReason),
}

/// Why an object is not restored.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum SkipReason {
    /// It speaks of the captured cluster's nodes.
    NodeBound,
}

impl fmt::Display for SkipReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("")
    }
}

/// Makes a captured object ready to be created, or says why it is not.
pub fn sanitise(resource: &ResourceType, object: Value, mapping: &Mapping) -> Sanitised {
    todo!("{resource:?} {object} {mapping:?}")
}
