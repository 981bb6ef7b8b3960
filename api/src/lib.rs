//! What Stillpoint writes down: scope, policies, cut, manifest, verdict, evidence.
//!
//! Pure data with no I/O, so that every other crate may depend on it and nothing here can depend on them. All that
//! is read back refuses unknown fields: a document from a newer version is recognised, never half understood.

#![cfg_attr(test, allow(clippy::unwrap_used))]

pub mod digest;
pub mod installation;
pub mod manifest;
pub mod policy;
pub mod resource;
pub mod scope;
pub mod verdict;
pub mod volume;

pub use digest::Digest;
pub use manifest::{
    Backup, Cluster, Cut, Exclusion, ExclusionRule, Manifest, Outcome, Problem, ProblemKind, Trees, TypeRecord,
};
pub use policy::{
    CopyParameters, CsiCondition, NfsCondition, PolicyVersion, VolumeAction, VolumeConditions, VolumePolicies,
    VolumePolicy,
};
pub use resource::{GroupResource, ObjectRef, ResourceType};
pub use scope::{ClusterResources, Scope, VolumeIntent};
pub use verdict::{Check, CheckKind, Evidence, Finding, Judgement, ScratchKind, SignerState, TestResult, Verdict};
pub use volume::{HookOutcome, HookRecord, Level, Method, VolumeData, VolumeRecord, VolumeSnapshot, Window};
