//! The rules of `metadata`, the same for every type.
//!
//! The shape is checked first and alone: a decoder of real servers refuses a wrong JSON type (400) before any rule is
//! asked (422), and the rules may then rely on it.

use serde_json::{Map, Value};

use super::{
    names::{check_label_value, check_name, check_qualified},
    text,
};
use crate::{
    refusal::{Cause, Refusal},
    types::ResourceType,
};

/// All annotations of an object together, in bytes.
const MAX_ANNOTATIONS: usize = 256 << 10;

/// Refuses an object whose metadata has members of the wrong JSON type.
pub(crate) fn check_shape(resource: &ResourceType, object: &Value) -> Result<(), Refusal> {
    let metadata = object.get("metadata").and_then(Value::as_object);
    let metadata = metadata.ok_or_else(|| unreadable(resource, "metadata", "an object"))?;
    for key in ["name", "generateName", "namespace", "uid", "resourceVersion"] {
        if metadata.get(key).is_some_and(|value| !value.is_string()) {
            return Err(unreadable(resource, &format!("metadata.{key}"), "a string"));
        }
    }
    for key in ["labels", "annotations"] {
        if !metadata.get(key).is_none_or(is_string_map) {
            return Err(unreadable(resource, &format!("metadata.{key}"), "a map of strings"));
        }
    }
    if !metadata.get("finalizers").is_none_or(|list| is_list_of(list, Value::is_string)) {
        return Err(unreadable(resource, "metadata.finalizers", "a list of strings"));
    }
    if !metadata.get("ownerReferences").is_none_or(|list| is_list_of(list, Value::is_object)) {
        return Err(unreadable(resource, "metadata.ownerReferences", "a list of objects"));
    }
    Ok(())
}

fn unreadable(resource: &ResourceType, field: &str, expected: &str) -> Refusal {
    let (kind, version) = (resource.kind(), &resource.version);
    Refusal::bad_request(format!(
        "{kind} in version {version:?} cannot be handled as a {kind}: {field} must be {expected}"
    ))
}

fn is_string_map(value: &Value) -> bool {
    value.as_object().is_some_and(|map| map.values().all(Value::is_string))
}

fn is_list_of(value: &Value, kind: impl Fn(&Value) -> bool) -> bool {
    value.as_array().is_some_and(|list| list.iter().all(kind))
}

/// What is wrong with an object's metadata; its shape was checked.
pub(crate) fn check_metadata(resource: &ResourceType, object: &Value, causes: &mut Vec<Cause>) {
    let name = text(object, "/metadata/name");
    if name.is_empty() {
        causes.push(Cause::required("metadata.name", "name or generateName is required"));
    } else {
        causes.extend(check_name(resource.names, "metadata.name", name));
    }
    check_labels(object, causes);
    check_annotations(object, causes);
    for finalizer in super::items(object, "/metadata/finalizers").iter().filter_map(Value::as_str) {
        causes.extend(check_qualified("metadata.finalizers", finalizer));
    }
    for (index, owner) in super::items(object, "/metadata/ownerReferences").iter().enumerate() {
        check_owner(index, owner, causes);
    }
}

fn members<'a>(object: &'a Value, pointer: &str) -> impl Iterator<Item = (&'a str, &'a str)> {
    let map = object.pointer(pointer).and_then(Value::as_object);
    map.into_iter().flat_map(Map::iter).filter_map(|(key, value)| Some((key.as_str(), value.as_str()?)))
}

fn check_labels(object: &Value, causes: &mut Vec<Cause>) {
    for (key, value) in members(object, "/metadata/labels") {
        causes.extend(check_qualified("metadata.labels", key));
        causes.extend(check_label_value("metadata.labels", value));
    }
}

fn check_annotations(object: &Value, causes: &mut Vec<Cause>) {
    let mut bytes = 0;
    for (key, value) in members(object, "/metadata/annotations") {
        bytes += key.len() + value.len();
        causes.extend(check_qualified("metadata.annotations", &key.to_lowercase()));
    }
    if bytes > MAX_ANNOTATIONS {
        causes.push(Cause::too_long("metadata.annotations", MAX_ANNOTATIONS));
    }
}

fn check_owner(index: usize, owner: &Value, causes: &mut Vec<Cause>) {
    for key in ["apiVersion", "kind", "name", "uid"] {
        if text(owner, &format!("/{key}")).is_empty() {
            let field = format!("metadata.ownerReferences[{index}].{key}");
            causes.push(Cause::required(field, "must not be empty"));
        }
    }
}
