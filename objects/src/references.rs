//! What objects refer to.
//!
//! Read from the objects alone, without a cluster, so that a backup can be asked whether it is closed.

use serde_json::Value;
use stillpoint_api::{GroupResource, ObjectRef};

/// One object that another refers to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reference {
    /// Where the reference stands, such as `spec.template.spec.volumes[0].secret.secretName`.
    pub from_path: String,
    /// What it refers to.
    pub to: Target,
    /// How much depends on it.
    pub need: Need,
}

/// What a reference points at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Target {
    /// An object of a type that the reference itself fixes.
    Object(ObjectRef),
    /// An object of a kind that only discovery can turn into a type.
    Kind {
        /// Such as `apps/v1`.
        api_version: String,
        /// Such as `Deployment`.
        kind: String,
        /// The namespace of the referring object; a target of a cluster-scoped kind has none of its own.
        namespace: Option<String>,
        /// The name.
        name: String,
        /// The uid, which only owner references have.
        uid: Option<String>,
    },
}

/// How much depends on a reference.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Need {
    /// Without it the object is refused or cannot do its work.
    Required,
    /// The object works without it, or says itself that it may be missing.
    Optional,
    /// Garbage collection deletes the object where its owners are gone.
    Owner,
    /// Every cluster makes it by itself; no backup needs to hold it.
    System,
}

/// All references of an object.
pub fn references(resource: &GroupResource, object: &Value) -> Vec<Reference> {
    todo!("{resource} {object}")
}
