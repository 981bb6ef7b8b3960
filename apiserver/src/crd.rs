//! CustomResourceDefinitions: what makes one acceptable, its status, and the types that it serves.
//!
//! Names are accepted and the type established in the same write, where real servers take a moment: nothing waits
//! for a controller here. Conversion is by `apiVersion` alone (strategy None).

use serde_json::{Value, json};

use crate::{
    draft::now,
    refusal::Cause,
    store::{Found, TypeMeta},
    types::{CRD_GROUP, Generation, NameRule, Origin, ResourceType, Scope, Subresource, group_version, qualified},
    validate::{is_label, is_subdomain, items, text},
};

/// Holds a deleted CRD until its objects are gone.
pub(crate) const CLEANUP_FINALIZER: &str = "customresourcecleanup.apiextensions.k8s.io";

const APPROVED: &str = "api-approved.kubernetes.io";

/// Fills in defaults and the status of a CRD; `old` is what it replaces.
pub(crate) fn complete(crd: &mut Value, old: Option<&Value>) {
    if !crd["spec"].is_object() || !crd["spec"]["names"].is_object() {
        return;
    }
    let kind = text(crd, "/spec/names/kind").to_owned();
    let names = &mut crd["spec"]["names"];
    if text(names, "/singular").is_empty() {
        names["singular"] = kind.to_lowercase().into();
    }
    if text(names, "/listKind").is_empty() {
        names["listKind"] = format!("{kind}List").into();
    }
    if crd["spec"]["conversion"].is_null() {
        crd["spec"]["conversion"] = json!({"strategy": "None"});
    }
    crd["status"] = status(crd, old);
}

fn status(crd: &Value, old: Option<&Value>) -> Value {
    let mut stored = old.map(|old| items(old, "/status/storedVersions").to_vec()).unwrap_or_default();
    let storage = items(crd, "/spec/versions").iter().find(|version| version["storage"] == true);
    if let Some(name) = storage.map(|version| version["name"].clone()).filter(|name| !stored.contains(name)) {
        stored.push(name);
    }
    let known = old.map(|old| items(old, "/status/conditions").to_vec()).filter(|known| !known.is_empty());
    json!({
        "acceptedNames": crd["spec"]["names"],
        "conditions": known.unwrap_or_else(|| vec![
            condition("NamesAccepted", "NoConflicts", "no conflicts found"),
            condition("Established", "InitialNamesAccepted", "the initial names have been accepted"),
        ]),
        "storedVersions": stored,
    })
}

fn condition(kind: &str, reason: &str, message: &str) -> Value {
    json!({"type": kind, "status": "True", "lastTransitionTime": now(), "reason": reason, "message": message})
}

/// Adds what a CRD shows while its objects are being removed.
pub(crate) fn mark_deleted(crd: &mut Value) {
    let mut finalizers = items(crd, "/metadata/finalizers").to_vec();
    if !finalizers.iter().any(|finalizer| finalizer == CLEANUP_FINALIZER) {
        finalizers.push(CLEANUP_FINALIZER.into());
    }
    crd["metadata"]["finalizers"] = finalizers.into();
    let message = "CustomResource deletion is in progress";
    let terminating = condition("Terminating", "InstanceDeletionInProgress", message);
    if let Some(conditions) = crd.pointer_mut("/status/conditions").and_then(Value::as_array_mut) {
        conditions.push(terminating);
    }
}

/// What is wrong with a CRD.
pub(crate) fn check(crd: &Value, causes: &mut Vec<Cause>) {
    let (group, plural) = (text(crd, "/spec/group"), text(crd, "/spec/names/plural"));
    let name = text(crd, "/metadata/name");
    if !is_subdomain(group) || !group.contains('.') {
        causes.push(Cause::invalid("spec.group", group, "should be a domain with at least one dot"));
    }
    if name != qualified(plural, group) {
        causes.push(Cause::invalid("metadata.name", name, "must be spec.names.plural+\".\"+spec.group"));
    }
    for key in ["plural", "singular", "kind", "listKind"] {
        let value = text(crd, &format!("/spec/names/{key}"));
        if !is_label(&value.to_lowercase()) {
            causes.push(Cause::invalid(format!("spec.names.{key}"), value, "must be a DNS label"));
        }
    }
    let scope = text(crd, "/spec/scope");
    if !["Namespaced", "Cluster"].contains(&scope) {
        causes.push(Cause::not_supported("spec.scope", scope, &["Cluster", "Namespaced"]));
    }
    check_approval(crd, group, causes);
    check_versions(crd, causes);
}

fn check_approval(crd: &Value, group: &str, causes: &mut Vec<Cause>) {
    let protected = ["k8s.io", "kubernetes.io"].iter().any(|end| group == *end || group.ends_with(&format!(".{end}")));
    let approved = crd["metadata"].get("annotations").is_some_and(|annotations| annotations.get(APPROVED).is_some());
    if protected && !approved {
        let why = "protected groups must have approval annotation \"api-approved.kubernetes.io\"";
        causes.push(Cause::required("metadata.annotations[api-approved.kubernetes.io]", why));
    }
}

fn check_versions(crd: &Value, causes: &mut Vec<Cause>) {
    let versions = items(crd, "/spec/versions");
    let count = |key: &str| versions.iter().filter(|version| version[key] == true).count();
    if count("storage") != 1 {
        let why = "must have exactly one version marked as storage version";
        causes.push(Cause::invalid("spec.versions", "", why));
    }
    if count("served") == 0 {
        causes.push(Cause::invalid("spec.versions", "", "must have at least one served version"));
    }
    for (index, version) in versions.iter().enumerate() {
        let name = text(version, "/name");
        if !is_label(name) || versions[..index].iter().any(|other| other["name"] == name) {
            let field = format!("spec.versions[{index}].name");
            causes.push(Cause::invalid(field, name, "must be a DNS label and unique"));
        }
        if version.pointer("/schema/openAPIV3Schema").is_none() {
            let field = format!("spec.versions[{index}].schema.openAPIV3Schema");
            causes.push(Cause::required(field, "schemas are required"));
        }
    }
}

/// What an update of a CRD may not change.
pub(crate) fn check_update(old: &Value, crd: &Value, causes: &mut Vec<Cause>) {
    for field in ["/spec/group", "/spec/scope", "/spec/names/plural", "/spec/names/kind"] {
        if old.pointer(field) != crd.pointer(field) {
            let name = field.trim_start_matches('/').replace('/', ".");
            causes.push(Cause::invalid(name, text(crd, field), "field is immutable"));
        }
    }
    let versions = items(crd, "/spec/versions");
    for (index, stored) in items(old, "/status/storedVersions").iter().enumerate() {
        if !versions.iter().any(|version| version["name"] == *stored) {
            let stored = stored.as_str().unwrap_or_default();
            let field = format!("status.storedVersions[{index}]");
            causes.push(Cause::invalid(field, stored, "missing from spec.versions; must be in spec.versions"));
        }
    }
}

/// The types that a stored CRD serves, one a served version.
pub(crate) fn served_types(found: &Found) -> Vec<ResourceType> {
    let types = TypeMeta { api_version: group_version(CRD_GROUP, "v1"), kind: "CustomResourceDefinition".to_owned() };
    let crd = found.object.to_value(&types, found.revision);
    let versions = items(&crd, "/spec/versions").iter().filter(|version| version["served"] == true);
    versions.map(|version| served_type(&crd, version)).collect()
}

fn served_type(crd: &Value, version: &Value) -> ResourceType {
    let group = text(crd, "/spec/group").to_owned();
    let names = |key: &str| text(crd, &format!("/spec/names/{key}")).to_owned();
    let list = |key: &str| {
        let values = items(crd, &format!("/spec/names/{key}"));
        values.iter().filter_map(Value::as_str).map(ToOwned::to_owned).collect()
    };
    let namespaced = text(crd, "/spec/scope") == "Namespaced";
    ResourceType {
        types: TypeMeta { api_version: group_version(&group, text(version, "/name")), kind: names("kind") },
        version: text(version, "/name").to_owned(),
        singular: names("singular"),
        list_kind: names("listKind"),
        short_names: list("shortNames"),
        categories: list("categories"),
        scope: if namespaced { Scope::Namespaced } else { Scope::Cluster },
        subresources: subresources(version),
        generation: Generation::Kept,
        origin: Origin::Custom,
        names: NameRule::Subdomain,
        fields: &[],
        table: qualified(&names("plural"), &group).into(),
        plural: names("plural"),
        group,
    }
}

fn subresources(version: &Value) -> Vec<Subresource> {
    let served = |key: &str| version.pointer(&format!("/subresources/{key}")).is_some_and(|value| !value.is_null());
    let known = [("status", Subresource::Status), ("scale", Subresource::Scale)];
    known.into_iter().filter(|(key, _)| served(key)).map(|(_, subresource)| subresource).collect()
}
