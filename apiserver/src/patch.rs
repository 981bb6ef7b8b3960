//! JSON patches (RFC 6902) and JSON merge patches (RFC 7386), as changes of the present object.
//!
//! A patch goes through the same update as a PUT, so that preconditions and validation cannot differ.

use json_patch::{Patch, PatchOperation};
use serde_json::Value;

use crate::refusal::Refusal;

/// Operations that one JSON patch may have: the limit of real servers.
const MAX_OPERATIONS: usize = 10_000;

/// Size to which copy operations may make an object grow, in bytes of text.
const MAX_GROWTH: usize = 6 << 20;

/// How deep an object may be nested: what the parser of stored objects accepts.
const MAX_DEPTH: usize = 120;

const ACCEPTED: &str = "application/json-patch+json, application/merge-patch+json";

/// A parsed patch.
#[derive(Debug)]
pub(crate) enum Change {
    Json(Patch),
    Merge(Value),
}

impl Change {
    /// Reads a patch of the given content type.
    pub(crate) fn parse(content_type: &str, body: &[u8]) -> Result<Self, Refusal> {
        let unreadable = |error| Refusal::bad_request(format!("error decoding patch: {error}"));
        match content_type {
            "application/json-patch+json" => {
                let patch: Patch = serde_json::from_slice(body).map_err(unreadable)?;
                if patch.len() > MAX_OPERATIONS {
                    let why = format!("the allowed maximum operations in a JSON patch is {MAX_OPERATIONS}");
                    return Err(Refusal::body_too_large(MAX_OPERATIONS).with_message(why));
                }
                Ok(Self::Json(patch))
            }
            "application/merge-patch+json" => Ok(Self::Merge(serde_json::from_slice(body).map_err(unreadable)?)),
            other => Err(Refusal::unsupported_media_type(other, ACCEPTED)),
        }
    }

    /// The object after the patch.
    pub(crate) fn apply(&self, object: &Value) -> Result<Value, Refusal> {
        let mut object = object.clone();
        match self {
            Self::Merge(patch) => json_patch::merge(&mut object, patch),
            Self::Json(patch) => apply_json(&mut object, patch)?,
        }
        Ok(object)
    }
}

fn apply_json(object: &mut Value, patch: &[PatchOperation]) -> Result<(), Refusal> {
    for operation in patch {
        if operation.path().tokens().count() > MAX_DEPTH {
            return Err(too_deep());
        }
        json_patch::patch(object, std::slice::from_ref(operation))
            .map_err(|error| Refusal::unprocessable_patch(error.to_string()))?;
        if matches!(operation, PatchOperation::Copy(_) | PatchOperation::Move(_)) {
            check_growth(object)?;
        }
    }
    check_growth(object)
}

fn check_growth(object: &Value) -> Result<(), Refusal> {
    match weight(object, MAX_DEPTH) {
        None => Err(too_deep()),
        Some(weight) if weight > MAX_GROWTH => Err(Refusal::body_too_large(MAX_GROWTH)),
        Some(_) => Ok(()),
    }
}

fn too_deep() -> Refusal {
    Refusal::bad_request(format!("the patched object would be nested deeper than {MAX_DEPTH} levels"))
}

/// About how many bytes of text a value is; `None` if it is nested deeper than `depth`.
fn weight(value: &Value, depth: usize) -> Option<usize> {
    let inner = depth.checked_sub(1)?;
    match value {
        Value::Null | Value::Bool(_) | Value::Number(_) => Some(8),
        Value::String(text) => Some(text.len() + 8),
        Value::Array(items) => items.iter().try_fold(8, |sum, item| Some(sum + weight(item, inner)?)),
        Value::Object(members) => {
            members.iter().try_fold(8, |sum, (key, item)| Some(sum + key.len() + weight(item, inner)?))
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_patch_that_copies_itself_without_end_is_refused() {
        let mut operations = vec![json!({"op": "add", "path": "/a", "value": ["x".repeat(1000)]})];
        operations.extend((0..40).map(|_| json!({"op": "copy", "from": "/a", "path": "/a/0"})));
        let body = serde_json::to_vec(&operations).unwrap();
        let change = Change::parse("application/json-patch+json", &body).unwrap();
        let refusal = change.apply(&json!({})).unwrap_err();
        assert_eq!(refusal.status()["code"], 413);
    }

    #[test]
    fn a_patch_that_nests_too_deep_is_refused() {
        let deep = (0..100).fold(json!(1), |inner, _| json!([inner]));
        let add = json!({"op": "add", "path": "/a", "value": deep});
        let deeper = json!({"op": "add", "path": format!("/a{}", "/0".repeat(90)), "value": deep});
        for (operations, accepted) in [(json!([add]), true), (json!([add, deeper]), false)] {
            let change = Change::parse("application/json-patch+json", operations.to_string().as_bytes()).unwrap();
            assert_eq!(change.apply(&json!({})).is_ok(), accepted);
        }
    }

    #[test]
    fn strategic_and_apply_patches_are_refused_by_name() {
        for kind in ["application/strategic-merge-patch+json", "application/apply-patch+yaml"] {
            let refusal = Change::parse(kind, b"{}").unwrap_err().status();
            assert_eq!(refusal["code"], 415);
            assert!(refusal["message"].as_str().unwrap().contains("merge-patch+json"));
        }
    }
}
