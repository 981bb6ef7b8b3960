//! What is changed in objects of each kind before they are created.
//!
//! One table, one function a row.

use serde_json::{Value, json};
use stillpoint_api::GroupResource;

use super::{Mapping, ports};
use crate::value::{at, at_mut, each, each_mut, remove, remove_entry, set_text, text};

type Change = fn(&mut Value, &Mapping);

/// Group, plural, and what is changed.
const CHANGES: &[(&str, &str, Change)] = &[
    ("", "namespaces", namespace),
    ("", "pods", pod),
    ("", "services", ports::service),
    ("", "serviceaccounts", service_account),
    ("", "secrets", secret),
    ("", "persistentvolumeclaims", claim),
    ("", "persistentvolumes", persistent_volume),
    ("batch", "jobs", job),
    ("rbac.authorization.k8s.io", "rolebindings", binding),
    ("rbac.authorization.k8s.io", "clusterrolebindings", binding),
    ("admissionregistration.k8s.io", "validatingwebhookconfigurations", webhooks),
    ("admissionregistration.k8s.io", "mutatingwebhookconfigurations", webhooks),
    ("apiregistration.k8s.io", "apiservices", api_service),
    ("apiextensions.k8s.io", "customresourcedefinitions", definition),
];

/// Says to which volume a claim was bound, and by whom; true only of the captured cluster.
const CLAIM_ANNOTATIONS: [&str; 5] = [
    "pv.kubernetes.io/bind-completed",
    "pv.kubernetes.io/bound-by-controller",
    "volume.beta.kubernetes.io/storage-provisioner",
    "volume.kubernetes.io/selected-node",
    "volume.kubernetes.io/storage-provisioner",
];

/// Labels by which a Job finds its Pods; the server makes them from the Job's uid.
const JOB_LABELS: [&str; 2] = ["batch.kubernetes.io/controller-uid", "controller-uid"];

/// Applies the rows of the object's kind.
pub(super) fn change(resource: &GroupResource, object: &mut Value, mapping: &Mapping) {
    for (_, _, change) in CHANGES.iter().filter(|(group, plural, _)| resource.is(group, plural)) {
        change(object, mapping);
    }
}

/// Whether a volume was made for its claim and would be deleted with it, so that another one can be made.
pub fn is_provisioned_on_demand(persistent_volume: &Value) -> bool {
    text(persistent_volume, &["spec", "persistentVolumeReclaimPolicy"]) == Some("Delete")
        && text(persistent_volume, &["metadata", "annotations", "pv.kubernetes.io/provisioned-by"]).is_some()
}

/// Whether a name is one that the cluster gives to a token it issues for an account unasked: `<account>-token-x1y2z`.
pub(crate) fn is_own_token_name(account: &str, name: &str) -> bool {
    let suffix = name.strip_prefix(account).and_then(|rest| rest.strip_prefix("-token-"));
    suffix.is_some_and(|suffix| suffix.len() == 5 && suffix.bytes().all(|byte| byte.is_ascii_alphanumeric()))
}

fn namespace(object: &mut Value, mapping: &Mapping) {
    const NAME_LABEL: &str = "kubernetes.io/metadata.name";
    let Some(name) = text(object, &["metadata", "name"]) else { return };
    let name = mapping.namespace(name).to_owned();
    set_text(object, &["metadata"], "name", &name);
    if text(object, &["metadata", "labels", NAME_LABEL]).is_some() {
        set_text(object, &["metadata", "labels"], NAME_LABEL, &name);
    }
}

fn pod(object: &mut Value, _: &Mapping) {
    // the scheduler chooses a node, admission computes the priority, and debugging containers cannot be created
    for field in ["nodeName", "priority", "ephemeralContainers"] {
        remove(object, &["spec"], field);
    }
    let account = text(object, &["spec", "serviceAccountName"]).unwrap_or("default");
    let tokens: Vec<String> = each(object, &["spec", "volumes"])
        .filter(|volume| text(volume, &["secret", "secretName"]).is_some_and(|name| is_own_token_name(account, name)))
        .filter_map(|volume| text(volume, &["name"]).map(str::to_owned))
        .collect();
    if tokens.is_empty() {
        return;
    }
    let is_token = |item: &Value| text(item, &["name"]).is_some_and(|name| tokens.iter().any(|token| token == name));
    drop_elements(object, &["spec"], "volumes", is_token);
    for containers in ["initContainers", "containers"] {
        for container in each_mut(object, &["spec", containers]) {
            drop_elements(container, &[], "volumeMounts", is_token);
        }
    }
}

/// Drops elements of a list, and the list with its last one.
fn drop_elements(value: &mut Value, path: &[&str], field: &str, dropped: impl Fn(&Value) -> bool) {
    let Some(list) = at_mut(value, path).and_then(|value| value.get_mut(field)).and_then(Value::as_array_mut) else {
        return;
    };
    list.retain(|element| !dropped(element));
    if list.is_empty() {
        remove(value, path, field);
    }
}

fn service_account(object: &mut Value, _: &Mapping) {
    let account = text(object, &["metadata", "name"]).unwrap_or_default().to_owned();
    drop_elements(object, &[], "secrets", |secret| {
        text(secret, &["name"]).is_some_and(|name| is_own_token_name(&account, name))
    });
}

/// A token that a person asked for: the cluster fills it again.
fn secret(object: &mut Value, _: &Mapping) {
    if text(object, &["type"]) != Some("kubernetes.io/service-account-token") {
        return;
    }
    remove_entry(object, &["metadata", "annotations"], "kubernetes.io/service-account.uid");
    for key in ["ca.crt", "namespace", "token"] {
        remove_entry(object, &["data"], key);
    }
}

/// Whether a claim whose data is put back gets another volume than this one: it was made for that claim alone, or the
/// claim gets another class.
pub(super) fn is_replaced(persistent_volume: &Value, mapping: &Mapping) -> bool {
    let claim = |field: &str| text(persistent_volume, &["spec", "claimRef", field]).unwrap_or_default().to_owned();
    let is_refilled = || mapping.refilled.contains(&(claim("namespace"), claim("name")));
    let was_provisioned =
        text(persistent_volume, &["metadata", "annotations", "pv.kubernetes.io/provisioned-by"]).is_some();
    let class = text(persistent_volume, &["spec", "storageClassName"]);
    (was_provisioned || class.is_some_and(|class| mapping.storage_classes.contains_key(class))) && is_refilled()
}

/// The namespace is the captured one still.
fn claim(object: &mut Value, mapping: &Mapping) {
    const CLASS_ANNOTATION: &str = "volume.beta.kubernetes.io/storage-class";
    for annotation in CLAIM_ANNOTATIONS {
        remove_entry(object, &["metadata", "annotations"], annotation);
    }
    let named = |field: &str| text(object, &["metadata", field]).unwrap_or_default().to_owned();
    if mapping.refilled.contains(&(named("namespace"), named("name"))) {
        for field in ["volumeName", "dataSource", "dataSourceRef"] {
            remove(object, &["spec"], field);
        }
    }
    let places = [(&["spec"] as &[&str], "storageClassName"), (&["metadata", "annotations"], CLASS_ANNOTATION)];
    for (path, field) in places {
        let class = at(object, path).and_then(|value| text(value, &[field]));
        if let Some(class) = class.and_then(|class| mapping.storage_classes.get(class)) {
            set_text(object, path, field, class);
            // it was bound to a volume of the other class
            remove(object, &["spec"], "volumeName");
        }
    }
    if text(object, &["spec", "volumeName"]).is_some_and(|volume| mapping.reprovisioned.contains(volume)) {
        remove(object, &["spec"], "volumeName");
    }
}

fn persistent_volume(object: &mut Value, mapping: &Mapping) {
    for field in ["uid", "resourceVersion"] {
        remove(object, &["spec", "claimRef"], field);
    }
    map_namespace(object, &["spec", "claimRef"], mapping);
}

fn job(object: &mut Value, _: &Mapping) {
    if at(object, &["spec", "manualSelector"]) == Some(&Value::Bool(true)) {
        return;
    }
    remove(object, &["spec"], "selector");
    for label in JOB_LABELS {
        remove_entry(object, &["metadata", "labels"], label);
        remove_entry(object, &["spec", "template", "metadata", "labels"], label);
    }
}

fn binding(object: &mut Value, mapping: &Mapping) {
    for subject in each_mut(object, &["subjects"]) {
        map_namespace(subject, &[], mapping);
    }
}

fn webhooks(object: &mut Value, mapping: &Mapping) {
    for webhook in each_mut(object, &["webhooks"]) {
        // v1 refuses what v1beta1 allowed, and lists still show it
        if matches!(text(webhook, &["sideEffects"]), Some("Unknown" | "Some")) {
            set_text(webhook, &[], "sideEffects", "None");
        }
        map_namespace(webhook, &["clientConfig", "service"], mapping);
    }
}

fn api_service(object: &mut Value, mapping: &Mapping) {
    map_namespace(object, &["spec", "service"], mapping);
}

fn definition(object: &mut Value, mapping: &Mapping) {
    map_namespace(object, &["spec", "conversion", "webhook", "clientConfig", "service"], mapping);
    accept_structural_schema(object);
}

/// v1 refuses `preserveUnknownFields: true`, which lists still show of definitions that were made before it; each
/// schema then says the same.
pub(crate) fn accept_structural_schema(object: &mut Value) {
    if at(object, &["spec", "preserveUnknownFields"]) != Some(&Value::Bool(true)) {
        return;
    }
    remove(object, &["spec"], "preserveUnknownFields");
    for version in each_mut(object, &["spec", "versions"]) {
        if at(version, &["schema", "openAPIV3Schema"]).is_none() && version.is_object() {
            version["schema"] = json!({"openAPIV3Schema": {"type": "object"}});
        }
        if let Some(schema) = at_mut(version, &["schema", "openAPIV3Schema"]).and_then(Value::as_object_mut) {
            schema.insert("x-kubernetes-preserve-unknown-fields".to_owned(), true.into());
        }
    }
}

/// Maps the `namespace` field below a path.
fn map_namespace(object: &mut Value, path: &[&str], mapping: &Mapping) {
    let Some(namespace) = at(object, path).and_then(|at| text(at, &["namespace"])) else { return };
    let namespace = mapping.namespace(namespace).to_owned();
    set_text(object, path, "namespace", &namespace);
}
