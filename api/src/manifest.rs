//! The manifest: the signed document of a backup.
//!
//! It names everything the backup holds by digest, so that one signature over its own digest (the *root*) covers
//! every byte, and it counts what existed beside what was captured, so that nothing can be missing in silence.

use std::fmt;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::{Digest, GroupResource, HookRecord, ResourceType, Scope, VolumeRecord, Window};

/// The version of the manifest's format that this crate reads and writes.
pub const FORMAT_VERSION: u32 = 1;

/// The name of the manifest in a backup's root tree.
pub const MANIFEST_FILE: &str = "manifest.json";
/// The name of the detached signature in a backup's root tree.
pub const SIGNATURE_FILE: &str = "manifest.sig";
/// The name of the folder of API objects in a backup's root tree.
pub const RESOURCES_FOLDER: &str = "resources";
/// The name of the folder of volumes in a backup's root tree.
pub const VOLUMES_FOLDER: &str = "volumes";
/// The file name, without its ending, that holds a type's cluster-scoped objects.
pub const CLUSTER_FILE: &str = "_cluster";

/// What a backup is and holds.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Manifest {
    /// [`FORMAT_VERSION`].
    pub format_version: u32,
    /// The backup's name and uid.
    pub backup: Backup,
    /// The version of Stillpoint that wrote it.
    pub tool_version: String,
    /// The id of the repository it was written to.
    pub repository_id: String,
    /// The cluster it was taken from.
    pub cluster: Cluster,
    /// When the backup began.
    pub started: Timestamp,
    /// When the last object had been read.
    pub finished: Timestamp,
    /// The instant.
    pub cut: Cut,
    /// What was asked for.
    pub scope: Scope,
    /// Whether everything asked for is here.
    pub outcome: Outcome,
    /// What is missing or could not be known, by name.
    pub problems: Vec<Problem>,
    /// Every served type, with its counts.
    pub types: Vec<TypeRecord>,
    /// Every claim in scope, with what became of its data.
    pub volumes: Vec<VolumeRecord>,
    /// Every hook that ran, or was to run, around the cut that held.
    pub hooks: Vec<HookRecord>,
    /// The ids of the trees beside the manifest.
    pub trees: Trees,
    /// The root of this cluster's backup before this one.
    pub previous: Option<Digest>,
}

/// A backup's identity.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Backup {
    /// The name the user gave; unique in the repository.
    pub name: String,
    /// A UUID.
    pub uid: String,
}

/// The cluster a backup was taken from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Cluster {
    /// The name it goes by, from the kubeconfig or a flag.
    pub name: String,
    /// The uid of its `kube-system` namespace, which the field takes for a cluster's id; none where it cannot be read.
    pub uid: Option<String>,
    /// What its API server calls its version.
    pub version: String,
}

/// The instant.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Cut {
    /// The etcd revision at which every object was read.
    pub revision: u64,
    /// When the revision was read.
    pub read_at: Timestamp,
    /// How many cuts were taken until one held; 1 is the first.
    pub attempts: u32,
    /// When writers stood still; none where no volume was stopped. The revision was read in it.
    pub window: Option<Window>,
}

/// Whether everything asked for is in the backup.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Outcome {
    /// Everything asked for is here.
    Complete,
    /// Something is missing, by name.
    Degraded,
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Complete => "Complete",
            Self::Degraded => "Degraded",
        })
    }
}

/// One thing that is missing or could not be known.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Problem {
    /// What sort of thing.
    pub kind: ProblemKind,
    /// What it happened to: a group and version, a type, a claim.
    pub subject: String,
    /// What happened, in the server's words where it had any.
    pub message: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}: {}", self.kind, self.subject, self.message)
    }
}

/// The sorts of things that degrade a backup.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum ProblemKind {
    /// The types of a group could not be learnt.
    Discovery,
    /// A type's objects could not be listed.
    List,
    /// How many objects existed could not be learnt independently of the list.
    Count,
    /// The list held another number of objects than existed.
    Mismatch,
    /// The type lives in another store and has no state at the revision.
    OtherStore,
    /// A claim's data is not in the backup, or not whole.
    Volume,
    /// A hook failed, or may still run.
    Hook,
    /// A pattern of the scope includes nothing: a typing error, or what it meant is not there.
    Unmatched,
}

impl fmt::Display for ProblemKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Discovery => "discovery failed",
            Self::List => "not listed",
            Self::Count => "not counted",
            Self::Mismatch => "objects missing",
            Self::OtherStore => "not at the revision",
            Self::Volume => "data not held",
            Self::Hook => "hook failed",
            Self::Unmatched => "nothing matches",
        })
    }
}

/// One type's counts. Where everything could be asked, `existed` is `captured` plus all `excluded`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct TypeRecord {
    /// The type as it was read.
    #[serde(rename = "type")]
    pub resource: ResourceType,
    /// Objects that existed at the revision where the backup looked, asked independently of the list; none where that
    /// could not be asked.
    pub existed: Option<u64>,
    /// Objects in the backup.
    pub captured: u64,
    /// Objects left out, by rule.
    pub excluded: Vec<Exclusion>,
}

impl TypeRecord {
    /// Objects left out by any rule; the numbers of a manifest that is not to be trusted may not add up.
    pub fn excluded_objects(&self) -> u64 {
        self.excluded.iter().fold(0, |sum, exclusion| sum.saturating_add(exclusion.objects))
    }
}

/// How many objects one rule left out.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Exclusion {
    /// The rule.
    pub rule: ExclusionRule,
    /// Objects that it left out.
    pub objects: u64,
}

/// Why an object is not in a backup.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum ExclusionRule {
    /// Its namespace is not in the scope.
    Namespace,
    /// Its type is excluded by the scope, or not among those the scope includes.
    Resource,
    /// Its labels do not match the scope's selector.
    Selector,
    /// It carries a label that excludes it (`stillpoint.dev/exclude-from-backup` or Velero's).
    ExcludeLabel,
    /// Cluster-scoped objects are excluded by the scope.
    ClusterScoped,
    /// Cluster-scoped, and nothing captured needs it.
    NotNeeded,
    /// Its type is only captured when the scope names it (Events, Leases, ComponentStatuses, Stillpoint's own).
    NotByDefault,
    /// A controller makes it again from its Service (EndpointSlices, Endpoints).
    OwnedByService,
    /// It was being deleted.
    BeingDeleted,
    /// Its type cannot be created through the API, so it could not be restored.
    NotCreatable,
    /// The same objects are captured under another group.
    SameAs(GroupResource),
}

impl fmt::Display for ExclusionRule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Namespace => f.write_str("namespace not in scope"),
            Self::Resource => f.write_str("type not in scope"),
            Self::Selector => f.write_str("labels do not match"),
            Self::ExcludeLabel => f.write_str("label excludes it"),
            Self::ClusterScoped => f.write_str("cluster-scoped"),
            Self::NotNeeded => f.write_str("nothing captured needs it"),
            Self::NotByDefault => f.write_str("not captured unless named"),
            Self::OwnedByService => f.write_str("made again from its Service"),
            Self::BeingDeleted => f.write_str("being deleted"),
            Self::NotCreatable => f.write_str("cannot be created"),
            Self::SameAs(other) => write!(f, "same objects as {other}"),
        }
    }
}

/// The ids of the trees beside the manifest; restic's tree ids cover every byte below them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Trees {
    /// The tree of `/resources`.
    pub resources: Digest,
    /// The tree of `/volumes`; none where the backup holds no volume's data.
    pub volumes: Option<Digest>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_exclusion_rule_is_readable_in_the_document() {
        let same = Exclusion { rule: ExclusionRule::SameAs("events.events.k8s.io".parse().unwrap()), objects: 2 };
        let json = serde_json::to_string(&same).unwrap();
        assert_eq!(json, r#"{"rule":{"sameAs":"events.events.k8s.io"},"objects":2}"#);
        assert_eq!(serde_json::from_str::<Exclusion>(&json).unwrap(), same);
    }

    #[test]
    fn a_document_with_an_unknown_field_is_refused() {
        let error = serde_json::from_str::<Cut>(
            r#"{"revision":1,"readAt":"2026-11-24T00:00:00Z","attempts":1,"window":null,"volumes":[]}"#,
        )
        .unwrap_err();
        assert!(error.to_string().contains("unknown field `volumes`"), "{error}");
    }
}
