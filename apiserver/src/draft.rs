//! From what a client sent to what is stored: the server's own fields, defaults and what an update may not touch.
//!
//! Values in, values out, no store: every write, dry run or patch goes through these functions and is judged alike.

use base64::{Engine as _, engine::general_purpose::STANDARD};
use serde_json::{Map, Value, json};
use uuid::Uuid;

use crate::{
    crd,
    refusal::{Cause, Refusal},
    types::{CRD_TABLE, Generation, NAMESPACE_TABLE, ResourceType},
    validate::{MAX_GENERATED_BASE, check_kind, check_kind_update, check_metadata, check_shape, items, text},
};

/// Which part of an object a write is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Part {
    Main,
    Status,
    /// The whole object with what the server itself holds it by.
    Finalize,
}

/// Members of metadata that clients may send and servers never take from them.
const SYSTEM: [&str; 6] =
    ["selfLink", "managedFields", "deletionTimestamp", "deletionGracePeriodSeconds", "uid", "creationTimestamp"];

/// Now, as the API writes times.
pub(crate) fn now() -> String {
    jiff::Timestamp::now().strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}

/// Reads a body that shall be an object of `resource`.
pub(crate) fn parse(resource: &ResourceType, body: &[u8]) -> Result<Value, Refusal> {
    serde_json::from_slice(body).map_err(|error| {
        let (kind, version) = (resource.kind(), &resource.version);
        Refusal::bad_request(format!("{kind} in version {version:?} cannot be handled as a {kind}: {error}"))
    })
}

/// Takes off the types that an object says it has, and checks them and the shape of its metadata.
pub(crate) fn accept(resource: &ResourceType, mut value: Value) -> Result<Value, Refusal> {
    let Some(object) = value.as_object_mut() else {
        return Err(Refusal::bad_request("the body of the request must be a JSON object"));
    };
    let types = &resource.types;
    for (key, expected) in [("apiVersion", &types.api_version), ("kind", &types.kind)] {
        match object.remove(key) {
            None if !resource.is_custom() => {}
            None => return Err(Refusal::bad_request(format!("Object '{key}' is missing in the request body"))),
            Some(sent) if sent == expected.as_str() => {}
            Some(sent) => {
                return Err(Refusal::bad_request(format!(
                    "the {key} in the data ({}) does not match the expected {key} ({expected})",
                    sent.as_str().unwrap_or_default()
                )));
            }
        }
    }
    let metadata = object.entry("metadata").or_insert_with(|| json!({}));
    if let Some(metadata) = metadata.as_object_mut() {
        metadata.retain(|_, value| !value.is_null());
        metadata.retain(|key, value| !(OMITTED_EMPTY.contains(&key.as_str()) && is_empty(value)));
    }
    check_shape(resource, &value)?;
    Ok(value)
}

/// Members of metadata that real servers leave out when they are empty.
const OMITTED_EMPTY: [&str; 4] = ["labels", "annotations", "finalizers", "ownerReferences"];

fn is_empty(value: &Value) -> bool {
    value.as_object().is_some_and(Map::is_empty) || value.as_array().is_some_and(Vec::is_empty)
}

/// The namespace of a body must be that of the request; a body may leave it out.
pub(crate) fn place(resource: &ResourceType, namespace: &str, object: &mut Value) -> Result<(), Refusal> {
    let metadata = &mut object["metadata"];
    if !resource.is_namespaced() {
        remove(metadata, "namespace");
        return Ok(());
    }
    let sent = text(metadata, "/namespace");
    if !sent.is_empty() && sent != namespace {
        return Err(Refusal::bad_request(
            "the namespace of the provided object does not match the namespace sent on the request",
        ));
    }
    metadata["namespace"] = namespace.into();
    Ok(())
}

/// Completes an object that is about to be created, its name included.
pub(crate) fn prepare_create(resource: &ResourceType, namespace: &str, mut object: Value) -> Result<Value, Refusal> {
    place(resource, namespace, &mut object)?;
    if !text(&object, "/metadata/resourceVersion").is_empty() {
        return Err(Refusal::bad_request("resourceVersion should not be set on objects to be created"));
    }
    name_it(&mut object["metadata"]);
    let metadata = &mut object["metadata"];
    for key in SYSTEM.iter().chain(&["resourceVersion", "generation"]) {
        remove(metadata, key);
    }
    metadata["uid"] = Uuid::new_v4().to_string().into();
    metadata["creationTimestamp"] = now().into();
    if resource.generation == Generation::Kept {
        metadata["generation"] = 1.into();
    }
    first_status(resource, &mut object);
    complete_kind(resource, &mut object)?;
    Ok(object)
}

fn name_it(metadata: &mut Value) {
    let base = text(metadata, "/generateName");
    if text(metadata, "/name").is_empty() && !base.is_empty() {
        let base: String = base.chars().take(MAX_GENERATED_BASE).collect();
        metadata["name"] = format!("{base}{}", random_suffix()).into();
    }
}

/// Five characters of those that real servers use: no vowels, nothing easily confused.
fn random_suffix() -> String {
    const ALPHABET: &[u8] = b"bcdfghjklmnpqrstvwxz2456789";
    let random = Uuid::new_v4();
    let pick = |byte: &u8| char::from(ALPHABET[usize::from(*byte) % ALPHABET.len()]);
    random.as_bytes().iter().take(5).map(pick).collect()
}

fn remove(value: &mut Value, key: &str) {
    if let Some(object) = value.as_object_mut() {
        object.remove(key);
    }
}

/// What the status is before any controller has seen the object; nodes keep the one they send.
fn first_status(resource: &ResourceType, object: &mut Value) {
    if !resource.has_status() || resource.table.as_ref() == "nodes" {
        return;
    }
    remove(object, "status");
    if resource.is_custom() {
        return;
    }
    object["status"] = match resource.table.as_ref() {
        NAMESPACE_TABLE => json!({"phase": "Active"}),
        "pods" | "persistentvolumes" | "persistentvolumeclaims" => json!({"phase": "Pending"}),
        "services" => json!({"loadBalancer": {}}),
        _ => json!({}),
    };
}

fn complete_kind(resource: &ResourceType, object: &mut Value) -> Result<(), Refusal> {
    match resource.table.as_ref() {
        NAMESPACE_TABLE => {
            let name = text(object, "/metadata/name").to_owned();
            object["spec"] = json!({"finalizers": ["kubernetes"]});
            label_namespace(object, &name);
        }
        "secrets" => complete_secret(object)?,
        CRD_TABLE => crd::complete(object, None),
        _ => {}
    }
    Ok(())
}

fn label_namespace(object: &mut Value, name: &str) {
    let metadata = &mut object["metadata"];
    if metadata.get("labels").is_none() {
        metadata["labels"] = json!({});
    }
    metadata["labels"]["kubernetes.io/metadata.name"] = name.into();
}

fn complete_secret(object: &mut Value) -> Result<(), Refusal> {
    let plain = object.as_object_mut().and_then(|object| object.remove("stringData"));
    let plain = plain.as_ref().and_then(Value::as_object).into_iter().flatten();
    for (key, value) in plain {
        let value = value.as_str().ok_or_else(|| bad_secret(&format!("stringData[{key}] must be a string")))?;
        if !object["data"].is_object() {
            object["data"] = json!({});
        }
        object["data"][key] = STANDARD.encode(value).into();
    }
    for (key, value) in object.get("data").and_then(Value::as_object).into_iter().flatten() {
        let valid = value.is_null() || value.as_str().is_some_and(|text| STANDARD.decode(text).is_ok());
        if !valid {
            return Err(bad_secret(&format!("illegal base64 data in data[{key}]")));
        }
    }
    if text(object, "/type").is_empty() {
        object["type"] = "Opaque".into();
    }
    Ok(())
}

fn bad_secret(why: &str) -> Refusal {
    Refusal::bad_request(format!("Secret in version \"v1\" cannot be handled as a Secret: {why}"))
}

/// Completes an object that is about to replace `old`, which keeps what the client may not change.
pub(crate) fn prepare_update(
    resource: &ResourceType,
    part: Part,
    old: &Value,
    mut object: Value,
) -> Result<Value, Refusal> {
    if part == Part::Status {
        let mut next = old.clone();
        copy(&object, &mut next, "status");
        return Ok(next);
    }
    for key in SYSTEM.iter().chain(&["generation", "generateName"]) {
        remove(&mut object["metadata"], key);
        copy(&old["metadata"], &mut object["metadata"], key);
    }
    if resource.has_status() {
        copy(old, &mut object, "status");
    }
    match resource.table.as_ref() {
        NAMESPACE_TABLE if part == Part::Main => {
            copy(old, &mut object, "spec");
            label_namespace(&mut object, text(old, "/metadata/name"));
        }
        "secrets" => complete_secret(&mut object)?,
        CRD_TABLE => crd::complete(&mut object, Some(old)),
        _ => {}
    }
    if resource.generation == Generation::Kept && content(resource, old) != content(resource, &object) {
        let generation = old["metadata"]["generation"].as_i64().unwrap_or_default();
        object["metadata"]["generation"] = (generation + 1).into();
    }
    Ok(object)
}

fn copy(from: &Value, to: &mut Value, key: &str) {
    match from.get(key) {
        Some(value) => to[key] = value.clone(),
        None => remove(to, key),
    }
}

/// The members of an object whose changes count as a new generation.
fn content<'a>(resource: &ResourceType, object: &'a Value) -> Vec<(&'a String, &'a Value)> {
    let status = resource.has_status();
    let skip = |key: &str| matches!(key, "metadata" | "apiVersion" | "kind") || (status && key == "status");
    let mut members: Vec<_> = object.as_object().into_iter().flatten().filter(|(key, _)| !skip(key)).collect();
    members.sort_by_key(|(key, _)| *key);
    members
}

/// Judges an object that is about to be created.
pub(crate) fn validate_create(resource: &ResourceType, object: &Value) -> Result<(), Refusal> {
    let mut causes = Vec::new();
    check_metadata(resource, object, &mut causes);
    check_kind(resource, object, &mut causes);
    if resource.table.as_ref() == CRD_TABLE {
        crd::check(object, &mut causes);
    }
    refuse(resource, object, &causes)
}

/// Judges an object that is about to replace `old`.
pub(crate) fn validate_update(resource: &ResourceType, old: &Value, object: &Value) -> Result<(), Refusal> {
    let mut causes = Vec::new();
    check_metadata(resource, object, &mut causes);
    check_kind(resource, object, &mut causes);
    check_kind_update(resource, old, object, &mut causes);
    check_finalizers(old, object, &mut causes);
    if resource.table.as_ref() == CRD_TABLE {
        crd::check(object, &mut causes);
        crd::check_update(old, object, &mut causes);
    }
    refuse(resource, object, &causes)
}

fn check_finalizers(old: &Value, object: &Value, causes: &mut Vec<Cause>) {
    if old["metadata"].get("deletionTimestamp").is_none() {
        return;
    }
    let known = items(old, "/metadata/finalizers");
    for added in items(object, "/metadata/finalizers").iter().filter(|finalizer| !known.contains(finalizer)) {
        let why = format!("no new finalizers can be added if the object is being deleted, found new finalizer {added}");
        causes.push(Cause::forbidden("metadata.finalizers", &why));
    }
}

fn refuse(resource: &ResourceType, object: &Value, causes: &[Cause]) -> Result<(), Refusal> {
    if causes.is_empty() {
        return Ok(());
    }
    Err(Refusal::invalid(resource, text(object, "/metadata/name"), causes))
}

/// Whether something still holds an object whose deletion was asked for.
pub(crate) fn is_held(resource: &ResourceType, object: &Value) -> bool {
    let namespace = resource.table.as_ref() == NAMESPACE_TABLE;
    !items(object, "/metadata/finalizers").is_empty() || (namespace && !items(object, "/spec/finalizers").is_empty())
}

/// Marks an object as being deleted.
pub(crate) fn mark_deleted(resource: &ResourceType, object: &mut Value) {
    let metadata = &mut object["metadata"];
    metadata["deletionTimestamp"] = now().into();
    metadata["deletionGracePeriodSeconds"] = 0.into();
    if let Some(generation) = metadata.get("generation").and_then(Value::as_i64) {
        metadata["generation"] = (generation + 1).into();
    }
    match resource.table.as_ref() {
        NAMESPACE_TABLE => object["status"]["phase"] = "Terminating".into(),
        CRD_TABLE => crd::mark_deleted(object),
        _ => {}
    }
}
