//! What a pod spec refers to, wherever it lives.
//!
//! Pods and the templates of everything that makes Pods are read by the same code, so that a new workload kind is one
//! line here.

use serde_json::Value;
use stillpoint_api::GroupResource;

use super::{Found, Need, kinds};
use crate::value::{at, each, text};

/// Where a kind keeps its pod spec.
pub(crate) fn spec_path(resource: &GroupResource) -> Option<&'static [&'static str]> {
    match (resource.group.as_str(), resource.resource.as_str()) {
        ("", "pods") => Some(&["spec"]),
        ("", "podtemplates") => Some(&["template", "spec"]),
        ("", "replicationcontrollers")
        | ("apps" | "extensions", "deployments" | "daemonsets" | "replicasets" | "statefulsets")
        | ("batch", "jobs") => Some(&["spec", "template", "spec"]),
        ("batch", "cronjobs") => Some(&["spec", "jobTemplate", "spec", "template", "spec"]),
        _ => None,
    }
}

/// Finds what the pod spec at `path` refers to.
pub(super) fn find(path: &[&str], object: &Value, found: &mut Found<'_>) {
    let Some(spec) = at(object, path) else { return };
    let path = path.join(".");
    identity(&path, spec, found);
    for (index, secret) in each(spec, &["imagePullSecrets"]).enumerate() {
        if let Some(name) = text(secret, &["name"]) {
            // kubelet pulls without it where the registry lets it
            found.beside(&format!("{path}.imagePullSecrets[{index}].name"), "secrets", name, Need::Optional);
        }
    }
    for (index, volume) in each(spec, &["volumes"]).enumerate() {
        volume_source(&format!("{path}.volumes[{index}]"), volume, found);
    }
    for field in ["initContainers", "containers", "ephemeralContainers"] {
        for (index, container) in each(spec, &[field]).enumerate() {
            environment(&format!("{path}.{field}[{index}]"), container, found);
        }
    }
}

/// What admission refuses a Pod without.
fn identity(path: &str, spec: &Value, found: &mut Found<'_>) {
    if let Some(name) = text(spec, &["serviceAccountName"]) {
        found.beside(&format!("{path}.serviceAccountName"), "serviceaccounts", name, Need::Required);
    }
    if let Some(name) = text(spec, &["priorityClassName"]) {
        let class = ("scheduling.k8s.io", "priorityclasses");
        found.cluster(&format!("{path}.priorityClassName"), class, name, Need::Required);
    }
    if let Some(name) = text(spec, &["runtimeClassName"]) {
        let class = ("node.k8s.io", "runtimeclasses");
        found.cluster(&format!("{path}.runtimeClassName"), class, name, Need::Required);
    }
}

fn volume_source(path: &str, volume: &Value, found: &mut Found<'_>) {
    if let Some(name) = text(volume, &["persistentVolumeClaim", "claimName"]) {
        let path = format!("{path}.persistentVolumeClaim.claimName");
        found.beside(&path, "persistentvolumeclaims", name, Need::Required);
    }
    if let Some(secret) = volume.get("secret") {
        maybe(&format!("{path}.secret.secretName"), "secrets", secret, "secretName", found);
    }
    if let Some(map) = volume.get("configMap") {
        maybe(&format!("{path}.configMap.name"), "configmaps", map, "name", found);
    }
    for (index, source) in each(volume, &["projected", "sources"]).enumerate() {
        for (field, resource) in [("secret", "secrets"), ("configMap", "configmaps")] {
            if let Some(projected) = source.get(field) {
                let path = format!("{path}.projected.sources[{index}].{field}.name");
                maybe(&path, resource, projected, "name", found);
            }
        }
    }
    for driver in ["cephfs", "flexVolume", "iscsi", "rbd", "scaleIO", "storageos"] {
        if let Some(name) = text(volume, &[driver, "secretRef", "name"]) {
            found.beside(&format!("{path}.{driver}.secretRef.name"), "secrets", name, Need::Required);
        }
    }
    if let Some(name) = text(volume, &["csi", "nodePublishSecretRef", "name"]) {
        found.beside(&format!("{path}.csi.nodePublishSecretRef.name"), "secrets", name, Need::Required);
    }
    if let Some(name) = text(volume, &["azureFile", "secretName"]) {
        found.beside(&format!("{path}.azureFile.secretName"), "secrets", name, Need::Required);
    }
    let template = ["ephemeral", "volumeClaimTemplate", "spec"];
    kinds::claim(&format!("{path}.{}", template.join(".")), at(volume, &template), found);
}

fn environment(path: &str, container: &Value, found: &mut Found<'_>) {
    for (index, source) in each(container, &["envFrom"]).enumerate() {
        for (field, resource) in [("secretRef", "secrets"), ("configMapRef", "configmaps")] {
            if let Some(reference) = source.get(field) {
                maybe(&format!("{path}.envFrom[{index}].{field}.name"), resource, reference, "name", found);
            }
        }
    }
    for (index, variable) in each(container, &["env"]).enumerate() {
        for (field, resource) in [("secretKeyRef", "secrets"), ("configMapKeyRef", "configmaps")] {
            if let Some(reference) = at(variable, &["valueFrom", field]) {
                let path = format!("{path}.env[{index}].valueFrom.{field}.name");
                maybe(&path, resource, reference, "name", found);
            }
        }
    }
}

/// A reference that may say of itself that it is optional.
fn maybe(path: &str, resource: &str, reference: &Value, field: &str, found: &mut Found<'_>) {
    let optional = reference.get("optional").and_then(Value::as_bool) == Some(true);
    if let Some(name) = text(reference, &[field]) {
        found.beside(path, resource, name, if optional { Need::Optional } else { Need::Required });
    }
}
