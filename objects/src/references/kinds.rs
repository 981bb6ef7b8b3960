//! What each kind refers to.
//!
//! One function a kind; pod specs, which many kinds carry, have a module of their own.

use serde_json::Value;
use stillpoint_api::GroupResource;

use super::{Found, Need, pod};
use crate::value::{at, each, text};

const RBAC: &str = "rbac.authorization.k8s.io";

/// Finds what an object refers to because of its kind.
pub(super) fn find(resource: &GroupResource, object: &Value, found: &mut Found<'_>) {
    if let Some(path) = pod::spec_path(resource) {
        pod::find(path, object, found);
    }
    match (resource.group.as_str(), resource.resource.as_str()) {
        ("apps", "statefulsets") => stateful_set(object, found),
        ("", "serviceaccounts") => service_account(object, found),
        ("", "secrets") => secret(object, found),
        ("", "persistentvolumes") => persistent_volume(object, found),
        ("", "persistentvolumeclaims") => claim("spec", at(object, &["spec"]), found),
        ("networking.k8s.io" | "extensions", "ingresses") => ingress(object, found),
        ("networking.k8s.io", "ingressclasses") => ingress_class(object, found),
        ("autoscaling", "horizontalpodautoscalers") => autoscaler(object, found),
        (RBAC, "rolebindings" | "clusterrolebindings") => binding(object, found),
        ("admissionregistration.k8s.io", "validatingwebhookconfigurations" | "mutatingwebhookconfigurations") => {
            webhooks(object, found);
        }
        ("admissionregistration.k8s.io", "validatingadmissionpolicybindings") => policy_binding(object, found),
        ("apiregistration.k8s.io", "apiservices") => service("spec.service", at(object, &["spec", "service"]), found),
        ("apiextensions.k8s.io", "customresourcedefinitions") => {
            let path = ["spec", "conversion", "webhook", "clientConfig", "service"];
            service(&path.join("."), at(object, &path), found);
        }
        _ => {}
    }
}

fn stateful_set(object: &Value, found: &mut Found<'_>) {
    if let Some(name) = text(object, &["spec", "serviceName"]) {
        // many a chart names one that it does not make, and the pods run
        found.beside("spec.serviceName", "services", name, Need::Optional);
    }
    for (index, template) in each(object, &["spec", "volumeClaimTemplates"]).enumerate() {
        claim(&format!("spec.volumeClaimTemplates[{index}].spec"), template.get("spec"), found);
    }
}

fn service_account(object: &Value, found: &mut Found<'_>) {
    for field in ["secrets", "imagePullSecrets"] {
        for (index, secret) in each(object, &[field]).enumerate() {
            if let Some(name) = text(secret, &["name"]) {
                found.beside(&format!("{field}[{index}].name"), "secrets", name, Need::Optional);
            }
        }
    }
}

fn secret(object: &Value, found: &mut Found<'_>) {
    const ACCOUNT: &str = "kubernetes.io/service-account.name";
    if text(object, &["type"]) == Some("kubernetes.io/service-account-token")
        && let Some(name) = text(object, &["metadata", "annotations", ACCOUNT])
    {
        found.beside(&format!("metadata.annotations[{ACCOUNT}]"), "serviceaccounts", name, Need::Required);
    }
}

fn persistent_volume(object: &Value, found: &mut Found<'_>) {
    if let Some(name) = text(object, &["spec", "claimRef", "name"]) {
        let namespace = text(object, &["spec", "claimRef", "namespace"]);
        // a released volume still names the claim that is gone
        found.within("spec.claimRef", ("", "persistentvolumeclaims"), namespace, name, Need::Optional);
    }
    storage_class("spec", at(object, &["spec"]), found);
    let csi = ["spec", "csi"];
    for field in [
        "nodePublishSecretRef",
        "nodeStageSecretRef",
        "nodeExpandSecretRef",
        "controllerPublishSecretRef",
        "controllerExpandSecretRef",
    ] {
        let Some(secret) = at(object, &csi).and_then(|csi| csi.get(field)) else { continue };
        if let Some(name) = text(secret, &["name"]) {
            let path = format!("spec.csi.{field}");
            found.within(&path, ("", "secrets"), text(secret, &["namespace"]), name, Need::Required);
        }
    }
}

/// The spec of a claim, or of a template for one.
pub(super) fn claim(path: &str, spec: Option<&Value>, found: &mut Found<'_>) {
    let Some(spec) = spec else { return };
    storage_class(path, Some(spec), found);
    if let Some(name) = text(spec, &["volumeName"]) {
        found.cluster(&format!("{path}.volumeName"), ("", "persistentvolumes"), name, Need::Required);
    }
    if let Some(name) = text(spec, &["volumeAttributesClassName"]) {
        let class = ("storage.k8s.io", "volumeattributesclasses");
        found.cluster(&format!("{path}.volumeAttributesClassName"), class, name, Need::Optional);
    }
}

/// Statically bound volumes and claims share class names for which there need not be a class.
fn storage_class(path: &str, spec: Option<&Value>, found: &mut Found<'_>) {
    if let Some(name) = spec.and_then(|spec| text(spec, &["storageClassName"])) {
        let path = format!("{path}.storageClassName");
        found.cluster(&path, ("storage.k8s.io", "storageclasses"), name, Need::Optional);
    }
}

fn ingress(object: &Value, found: &mut Found<'_>) {
    if let Some(name) = text(object, &["spec", "ingressClassName"]) {
        let class = ("networking.k8s.io", "ingressclasses");
        found.cluster("spec.ingressClassName", class, name, Need::Optional);
    }
    for (index, tls) in each(object, &["spec", "tls"]).enumerate() {
        if let Some(name) = text(tls, &["secretName"]) {
            // issued later by certificate managers; until then the controller's own certificate serves
            found.beside(&format!("spec.tls[{index}].secretName"), "secrets", name, Need::Optional);
        }
    }
    for field in ["defaultBackend", "backend"] {
        backend(&format!("spec.{field}"), at(object, &["spec", field]), found);
    }
    for (rule_index, rule) in each(object, &["spec", "rules"]).enumerate() {
        for (index, path) in each(rule, &["http", "paths"]).enumerate() {
            let at = format!("spec.rules[{rule_index}].http.paths[{index}].backend");
            backend(&at, path.get("backend"), found);
        }
    }
}

fn backend(path: &str, backend: Option<&Value>, found: &mut Found<'_>) {
    let Some(backend) = backend else { return };
    // `serviceName` in the versions before v1
    for (field, name) in
        [("service.name", text(backend, &["service", "name"])), ("serviceName", text(backend, &["serviceName"]))]
    {
        if let Some(name) = name {
            found.beside(&format!("{path}.{field}"), "services", name, Need::Required);
        }
    }
    if let Some(resource) = backend.get("resource") {
        group_kind(&format!("{path}.resource"), resource, "v1", Need::Required, found);
    }
}

fn ingress_class(object: &Value, found: &mut Found<'_>) {
    if let Some(parameters) = at(object, &["spec", "parameters"]) {
        group_kind("spec.parameters", parameters, "v1", Need::Optional, found);
    }
}

/// A reference by `apiGroup`, kind and name.
fn group_kind(path: &str, reference: &Value, version: &str, need: Need, found: &mut Found<'_>) {
    let mut reference = reference.clone();
    let group = text(&reference, &["apiGroup"]).map(|group| format!("{group}/{version}"));
    reference["apiVersion"] = group.unwrap_or_else(|| version.to_owned()).into();
    found.kind(path, &reference, need);
}

fn autoscaler(object: &Value, found: &mut Found<'_>) {
    if let Some(target) = at(object, &["spec", "scaleTargetRef"]) {
        found.kind("spec.scaleTargetRef", target, Need::Required);
    }
}

fn binding(object: &Value, found: &mut Found<'_>) {
    if let Some(name) = text(object, &["roleRef", "name"]) {
        match text(object, &["roleRef", "kind"]) {
            Some("Role") => found.within("roleRef", (RBAC, "roles"), found.namespace, name, Need::Required),
            _ => found.cluster("roleRef", (RBAC, "clusterroles"), name, Need::Required),
        }
    }
    for (index, subject) in each(object, &["subjects"]).enumerate() {
        if let (Some("ServiceAccount"), Some(name)) = (text(subject, &["kind"]), text(subject, &["name"])) {
            let namespace = text(subject, &["namespace"]).or(found.namespace);
            let path = format!("subjects[{index}]");
            // bindings are made before accounts and outlive them
            found.within(&path, ("", "serviceaccounts"), namespace, name, Need::Optional);
        }
    }
}

fn webhooks(object: &Value, found: &mut Found<'_>) {
    for (index, webhook) in each(object, &["webhooks"]).enumerate() {
        let path = format!("webhooks[{index}].clientConfig.service");
        service(&path, at(webhook, &["clientConfig", "service"]), found);
    }
}

fn policy_binding(object: &Value, found: &mut Found<'_>) {
    if let Some(name) = text(object, &["spec", "policyName"]) {
        let policy = ("admissionregistration.k8s.io", "validatingadmissionpolicies");
        found.cluster("spec.policyName", policy, name, Need::Required);
    }
}

/// A service named with its namespace.
fn service(path: &str, service: Option<&Value>, found: &mut Found<'_>) {
    let Some(service) = service else { return };
    if let (namespace @ Some(_), Some(name)) = (text(service, &["namespace"]), text(service, &["name"])) {
        found.within(path, ("", "services"), namespace, name, Need::Required);
    }
}
