//! Objects that every cluster makes by itself.
//!
//! Named here once, for references that need not be demanded and for objects that need not be restored.

use stillpoint_api::ObjectRef;

/// Whether every cluster makes this object by itself.
pub(super) fn makes(object: &ObjectRef) -> bool {
    let name = object.name.as_str();
    match (object.resource.group.as_str(), object.resource.resource.as_str()) {
        ("", "namespaces") => matches!(name, "default" | "kube-system" | "kube-public" | "kube-node-lease"),
        ("", "serviceaccounts") => name == "default",
        ("", "configmaps") => name == "kube-root-ca.crt",
        ("", "services") => name == "kubernetes" && object.namespace.as_deref() == Some("default"),
        ("scheduling.k8s.io", "priorityclasses") => is_system_priority_class(name),
        ("rbac.authorization.k8s.io", "clusterroles") => {
            name.starts_with("system:") || matches!(name, "cluster-admin" | "admin" | "edit" | "view")
        }
        ("rbac.authorization.k8s.io", "roles") => {
            name.starts_with("system:") || name == "extension-apiserver-authentication-reader"
        }
        _ => false,
    }
}

fn is_system_priority_class(name: &str) -> bool {
    matches!(name, "system-cluster-critical" | "system-node-critical")
}
