//! Owner references: relinked, never just dropped.
//!
//! A captured reference carries a uid that means nothing in the target: left in, garbage collection deletes the object
//! minutes later, unseen; dropped, controllers adopt at random. So it gets the uid that its owner has there.

use std::collections::{HashMap, HashSet};

use serde_json::Value;

/// One owner as captured.
#[derive(Debug, Clone)]
pub(crate) struct Owner {
    pub(crate) uid: String,
    kind: String,
    name: String,
}

/// The owners that a captured object names.
pub(crate) fn of(object: &Value) -> Vec<Owner> {
    let text = |reference: &Value, key: &str| reference[key].as_str().unwrap_or_default().to_owned();
    let references = object["metadata"]["ownerReferences"].as_array().into_iter().flatten();
    references
        .map(|reference| Owner {
            uid: text(reference, "uid"),
            kind: text(reference, "kind"),
            name: text(reference, "name"),
        })
        .collect()
}

/// What to warn of: every owner that the restore will not create.
pub(crate) fn lost(owners: &[Owner], planned: &HashSet<&str>) -> impl Iterator<Item = String> {
    owners.iter().filter(|owner| !planned.contains(owner.uid.as_str())).map(|Owner { kind, name, .. }| {
        format!("its owner {kind} {name} is not restored: the owner reference is dropped, or it would be collected")
    })
}

/// Gives every owner reference its owner's uid in the target and drops those whose owner is not there. Returns the
/// dropped ones that were `planned`: of the others the plan has warned already.
pub(crate) fn relink(
    object: &mut Value,
    uids: &HashMap<String, String>,
    planned: impl Fn(&str) -> bool,
) -> Vec<String> {
    let Some(references) = object["metadata"].get_mut("ownerReferences").and_then(Value::as_array_mut) else {
        return Vec::new();
    };
    let mut dropped = Vec::new();
    references.retain_mut(|reference| match reference["uid"].as_str().and_then(|uid| uids.get(uid)) {
        Some(uid) => {
            reference["uid"] = uid.clone().into();
            true
        }
        None => {
            let text = |key: &str| reference[key].as_str().unwrap_or("?");
            if planned(text("uid")) {
                dropped.push(format!("{} {}", text("kind"), text("name")));
            }
            false
        }
    });
    if references.is_empty()
        && let Some(metadata) = object["metadata"].as_object_mut()
    {
        metadata.remove("ownerReferences");
    }
    dropped
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_reference_gets_its_owners_new_uid_and_keeps_the_rest() {
        let mut object = json!({"metadata": {"ownerReferences": [
            {"kind": "ReplicaSet", "name": "web-1", "uid": "old", "controller": true},
            {"kind": "Node", "name": "n", "uid": "gone"}]}});
        let uids = HashMap::from([("old".to_owned(), "new".to_owned())]);
        assert_eq!(relink(&mut object, &uids, |_| true), ["Node n"]);
        assert_eq!(
            object["metadata"]["ownerReferences"],
            json!([{"kind": "ReplicaSet", "name": "web-1", "uid": "new", "controller": true}])
        );
    }

    #[test]
    fn an_object_that_loses_all_owners_has_no_empty_list() {
        let mut object = json!({"metadata": {"ownerReferences": [{"kind": "Node", "name": "n", "uid": "gone"}]}});
        assert!(relink(&mut object, &HashMap::new(), |_| false).is_empty());
        assert_eq!(object, json!({"metadata": {}}));
        let mut plain = json!({"metadata": {}});
        assert!(relink(&mut plain, &HashMap::new(), |_| true).is_empty());
    }
}
