//! Which volumes are copied how, as an operator writes it down for all of them.
//!
//! The format is Velero's of volume policies, so that a file that exists serves here too; what it lacks there
//! (namespaces, claims, a copy's parameters) is optional.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::Method;

/// Policies for volumes. The first whose conditions a volume meets is the one for it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct VolumePolicies {
    /// The format's version.
    pub version: PolicyVersion,
    /// The policies, in order.
    pub volume_policies: Vec<VolumePolicy>,
}

/// Versions of the format.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum PolicyVersion {
    /// The only one.
    V1,
}

/// What is done with the volumes that meet some conditions.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct VolumePolicy {
    /// All of them must be met.
    pub conditions: VolumeConditions,
    /// What is done then.
    pub action: VolumeAction,
}

/// What is asked of a claim and its volume. What is left out is not asked.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct VolumeConditions {
    /// Globs, one of which its namespace matches.
    pub namespaces: Vec<String>,
    /// Globs, one of which the claim's name matches.
    pub claims: Vec<String>,
    /// The least and the most that it can hold, as quantities: `10Gi,100Gi`, `,100Gi` or `10Gi,`.
    pub capacity: Option<String>,
    /// Storage classes, one of which is the claim's.
    pub storage_class: Vec<String>,
    /// It is on NFS.
    pub nfs: Option<NfsCondition>,
    /// A CSI driver provides it.
    pub csi: Option<CsiCondition>,
    /// Sources as a PersistentVolume names them, such as `local` or `hostPath`, one of which is the volume's.
    pub volume_types: Vec<String>,
    /// Labels that the claim has.
    pub pvc_labels: BTreeMap<String, String>,
    /// Phases, one of which the claim is in.
    pub pvc_phase: Vec<String>,
}

/// What is asked of a volume on NFS.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct NfsCondition {
    /// The server.
    pub server: Option<String>,
    /// The exported path.
    pub path: Option<String>,
}

/// What is asked of a volume that a CSI driver provides.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct CsiCondition {
    /// The driver's name.
    pub driver: Option<String>,
    /// Attributes that the volume has.
    pub volume_attributes: BTreeMap<String, String>,
}

/// What is done with a volume.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "kebab-case", deny_unknown_fields)]
pub enum VolumeAction {
    /// Its data is meant to be absent.
    Skip,
    /// Its files are copied.
    FsBackup {
        /// How.
        #[serde(default)]
        parameters: CopyParameters,
    },
}

/// How a volume's files are copied; a claim's annotations say the same of one volume.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct CopyParameters {
    /// By this method, instead of the one that fits best.
    pub method: Option<Method>,
    /// Whether its filesystem may be frozen.
    pub freeze: Option<bool>,
}
