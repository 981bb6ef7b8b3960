//! What a user asks to be backed up.
//!
//! Written by users and kept in the manifest; matching it against objects is Kubernetes knowledge and lives elsewhere.

use serde::{Deserialize, Serialize};

/// Which objects belong to a backup. The default is everything.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Scope {
    /// Globs of the namespaces to take; empty takes all.
    pub include_namespaces: Vec<String>,
    /// Globs of the namespaces to leave out; wins over includes.
    pub exclude_namespaces: Vec<String>,
    /// Types to take (`deployments.apps`, `configmaps`, globs allowed); empty takes all that are captured by default.
    pub include_resources: Vec<String>,
    /// Types to leave out; wins over includes.
    pub exclude_resources: Vec<String>,
    /// A label selector in kubectl's syntax; objects of every type must match it.
    pub label_selector: Option<String>,
    /// What happens to cluster-scoped objects.
    pub cluster_resources: ClusterResources,
    /// Whether volumes' data is meant to be in the backup.
    pub volumes: VolumeIntent,
}

impl Scope {
    /// Whether the scope takes every namespace, so that lists can span the cluster.
    pub fn spans_all_namespaces(&self) -> bool {
        self.include_namespaces.is_empty() || self.include_namespaces.iter().any(|glob| glob == "*")
    }
}

/// What happens to cluster-scoped objects.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum ClusterResources {
    /// All of them when the scope spans the cluster; otherwise those that the captured objects need.
    #[default]
    Auto,
    /// All of them.
    All,
    /// None of them.
    None,
}

/// Whether volumes' data is meant to be in the backup.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum VolumeIntent {
    /// Claims whose data the backup does not hold degrade it.
    #[default]
    Wanted,
    /// The user said that volumes' data is meant to be absent.
    LeftOut,
}
