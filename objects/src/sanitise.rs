//! What of a captured object is sent to a server that is to have it again.
//!
//! An object is either changed and created, or left out for a reason with a name; nothing is half kept. Owner
//! references stay as they are, because only who creates the owners knows their new uids. Whatever is changed here is
//! also a rule of [`crate::normalise`], or the comparison after a restore says so.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
};

use serde::Serialize;
use serde_json::Value;
use stillpoint_api::{ObjectRef, ResourceType};

use crate::value::{remove, set_text, text};

mod kinds;
mod ports;
mod skip;

pub use kinds::is_provisioned_on_demand;
pub(crate) use kinds::{accept_structural_schema, is_own_token_name};
pub(crate) use ports::{asks_for_health_port, asks_for_node_port};

/// The label that names the backup an object was restored from.
pub const BACKUP_LABEL: &str = "stillpoint.dev/backup-name";
/// The label that names the restore that created an object.
pub const RESTORE_LABEL: &str = "stillpoint.dev/restore-name";

/// What a server sets by itself, or refuses to be given.
const SERVER_METADATA: [&str; 8] = [
    "creationTimestamp",
    "deletionGracePeriodSeconds",
    "deletionTimestamp",
    "generation",
    "managedFields",
    "resourceVersion",
    "selfLink",
    "uid",
];

/// How objects are changed on their way into a cluster, beyond what every restore changes.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Mapping {
    /// The new names of namespaces, by captured name; others keep theirs.
    pub namespaces: BTreeMap<String, String>,
    /// Names of persistent volumes that are provisioned anew for their claims instead of being restored
    /// ([`is_provisioned_on_demand`] tells which can be): they are left out, and their claims bound to none.
    pub reprovisioned: BTreeSet<String>,
    /// Claims, by captured namespace and name, whose data the restore puts back: they are bound to no volume and made from
    /// no source, and a volume that was provisioned for one is left out.
    pub refilled: BTreeSet<(String, String)>,
    /// The storage classes that claims get, by the captured ones; others keep theirs.
    pub storage_classes: BTreeMap<String, String>,
    /// Labels to add to every object, where they are wanted.
    pub labels: Option<RestoreLabels>,
    /// Whether node ports are kept that nobody asked for by number.
    pub preserve_node_ports: bool,
}

impl Mapping {
    /// The namespace that takes the place of a captured one.
    pub fn namespace<'a>(&'a self, captured: &'a str) -> &'a str {
        self.namespaces.get(captured).map_or(captured, String::as_str)
    }

    /// Whether a captured object is a claim whose data the restore puts back.
    pub fn is_refilled(&self, captured: &ObjectRef) -> bool {
        let ObjectRef { resource, namespace, name } = captured;
        let is_claim = resource.group.is_empty() && resource.resource == "persistentvolumeclaims";
        is_claim && self.refilled.contains(&(namespace.clone().unwrap_or_default(), name.clone()))
    }
}

/// The labels that tell where an object was restored from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RestoreLabels {
    /// Value of [`BACKUP_LABEL`].
    pub backup: String,
    /// Value of [`RESTORE_LABEL`].
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
    /// It is a record of what happened there.
    Event,
    /// It has run to its end, and would run again.
    Finished,
    /// A node's kubelet shows it; the node's own file makes it.
    MirrorPod,
    /// Its Job starts another, and would take this one for a stranger's.
    MadeByJob,
    /// The cluster issues another token for its account.
    AccountToken,
    /// Every cluster makes its own.
    MadeByCluster,
    /// Signed for who asked then; who needs it asks again.
    Request,
    /// It is the state of a backup tool.
    BackupTool,
    /// Its claim has another one provisioned.
    Reprovisioned,
}

impl fmt::Display for SkipReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NodeBound => "belongs to the captured cluster's nodes",
            Self::Event => "a record of what happened in the captured cluster",
            Self::Finished => "has run to its end and would run again",
            Self::MirrorPod => "a static pod's mirror, made by its node",
            Self::MadeByJob => "its Job starts another",
            Self::AccountToken => "the cluster issues a new token",
            Self::MadeByCluster => "every cluster makes its own",
            Self::Request => "a request that its sender repeats",
            Self::BackupTool => "the state of a backup tool",
            Self::Reprovisioned => "provisioned anew for its claim",
        })
    }
}

/// Makes a captured object ready to be created, or says why it is not.
///
/// The `default` ServiceAccount and the namespaces of every cluster are created like others, although they are there:
/// people change them, so that the captured ones must be comparable with what is kept. What a cluster fills with its
/// own secrets (`kube-root-ca.crt`, account tokens) is left out.
pub fn sanitise(resource: &ResourceType, mut object: Value, mapping: &Mapping) -> Sanitised {
    if let Some(reason) = skip::reason(&resource.name, &object, mapping) {
        return Sanitised::Skip(reason);
    }
    add_type(resource, &mut object);
    // before the managed fields go: they tell what of a Service was asked for
    kinds::change(&resource.name, &mut object, mapping);
    for field in SERVER_METADATA {
        remove(&mut object, &["metadata"], field);
    }
    remove(&mut object, &[], "status");
    if let Some(namespace) = text(&object, &["metadata", "namespace"]) {
        let namespace = mapping.namespace(namespace).to_owned();
        set_text(&mut object, &["metadata"], "namespace", &namespace);
    }
    if let Some(labels) = &mapping.labels {
        add_labels(&mut object, labels);
    }
    Sanitised::Create(object)
}

/// Lists name the type of their items once, so that the items do not.
fn add_type(resource: &ResourceType, object: &mut Value) {
    for (field, value) in [("apiVersion", resource.api_version()), ("kind", resource.kind.clone())] {
        if text(object, &[field]).is_none() {
            set_text(object, &[], field, &value);
        }
    }
}

fn add_labels(object: &mut Value, labels: &RestoreLabels) {
    let Some(metadata) = object.get_mut("metadata").and_then(Value::as_object_mut) else { return };
    let map = metadata.entry("labels").or_insert_with(|| Value::Object(serde_json::Map::new()));
    set_text(map, &[], BACKUP_LABEL, &labels.backup);
    set_text(map, &[], RESTORE_LABEL, &labels.restore);
}

#[cfg(test)]
mod tests;
