//! What objects refer to.
//!
//! Read from the objects alone, without a cluster, so that a backup can be asked whether it is closed. How much depends
//! on a reference is judged as Kubernetes does: what it tolerates to be missing is [`Need::Optional`], because in many
//! a healthy cluster it is.

use serde_json::Value;
use stillpoint_api::{GroupResource, ObjectRef};

use crate::value::{each, text};

mod kinds;
mod pod;
mod system;

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
    /// An object of a kind that only discovery can turn into a type
    /// ([`crate::discovery::Discovery::of_kind`]).
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

/// All references of an object: to its namespace, its owners, its definition where it is a custom object, and whatever
/// its kind refers to.
///
/// A custom object's definition is [`Need::Required`], though a group that is served by an aggregated API server has
/// none: the caller knows that group by an APIService that names a service.
pub fn references(resource: &GroupResource, object: &Value) -> Vec<Reference> {
    let mut found = Found { namespace: text(object, &["metadata", "namespace"]), references: Vec::new() };
    if let Some(namespace) = found.namespace {
        found.cluster("metadata.namespace", ("", "namespaces"), namespace, Need::Required);
    }
    if !is_built_in(&resource.group) {
        let definition = format!("{}.{}", resource.resource, resource.group);
        found.cluster("apiVersion", ("apiextensions.k8s.io", "customresourcedefinitions"), &definition, Need::Required);
    }
    found.owners(object);
    kinds::find(resource, object, &mut found);
    found.references
}

/// Whether the API server itself serves a group.
pub(crate) fn is_built_in(group: &str) -> bool {
    // outside k8s.io only these have no dot; inside it, definitions of the community's projects share the ending
    match group.strip_suffix(".k8s.io") {
        None => !group.contains('.'),
        Some(name) => matches!(
            name,
            "admissionregistration"
                | "apiextensions"
                | "apiregistration"
                | "authentication"
                | "authorization"
                | "certificates"
                | "coordination"
                | "discovery"
                | "events"
                | "flowcontrol.apiserver"
                | "internal.apiserver"
                | "networking"
                | "node"
                | "rbac.authorization"
                | "resource"
                | "scheduling"
                | "storage"
                | "storagemigration"
        ),
    }
}

/// The references found so far in one object.
struct Found<'a> {
    /// The object's namespace.
    namespace: Option<&'a str>,
    references: Vec<Reference>,
}

impl Found<'_> {
    /// A reference to a cluster-scoped object.
    fn cluster(&mut self, path: &str, (group, resource): (&str, &str), name: &str, need: Need) {
        self.push(path, ObjectRef::new(GroupResource::new(group, resource), None, name), need);
    }

    /// A reference to an object of a namespace.
    fn within(&mut self, path: &str, (group, resource): (&str, &str), namespace: Option<&str>, name: &str, need: Need) {
        if namespace.is_some() {
            self.push(path, ObjectRef::new(GroupResource::new(group, resource), namespace, name), need);
        }
    }

    /// A reference to an object of the core group in the object's own namespace.
    fn beside(&mut self, path: &str, resource: &str, name: &str, need: Need) {
        self.within(path, ("", resource), self.namespace, name, need);
    }

    fn push(&mut self, path: &str, to: ObjectRef, need: Need) {
        let need = if system::makes(&to) { Need::System } else { need };
        self.references.push(Reference { from_path: path.to_owned(), to: Target::Object(to), need });
    }

    /// A reference by API version and kind.
    fn kind(&mut self, path: &str, reference: &Value, need: Need) {
        let (Some(kind), Some(name)) = (text(reference, &["kind"]), text(reference, &["name"])) else { return };
        let to = Target::Kind {
            api_version: text(reference, &["apiVersion"]).unwrap_or("v1").to_owned(),
            kind: kind.to_owned(),
            namespace: self.namespace.map(str::to_owned),
            name: name.to_owned(),
            uid: text(reference, &["uid"]).map(str::to_owned),
        };
        self.references.push(Reference { from_path: path.to_owned(), to, need });
    }

    fn owners(&mut self, object: &Value) {
        for (index, owner) in each(object, &["metadata", "ownerReferences"]).enumerate() {
            self.kind(&format!("metadata.ownerReferences[{index}]"), owner, Need::Owner);
        }
    }
}

#[cfg(test)]
mod tests;
