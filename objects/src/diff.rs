//! How two objects differ, field by field.
//!
//! Lists are compared by the keys that Kubernetes merges them by, so that one added variable is one change and not a
//! change of every variable after it. Nothing is tolerated here: two objects have no difference only if they are equal.

use std::{collections::BTreeSet, fmt};

use serde::Serialize;
use serde_json::Value;

mod keys;
mod redact;

pub use redact::redact;

/// Characters of a value that are shown to people.
const SHOWN: usize = 120;

/// One difference.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Change {
    /// Where, such as `spec.containers[name=web].image`; empty for the object itself. A path that ends in `[order]`
    /// says that a list holds its elements in another order.
    pub path: String,
    /// What sort of difference.
    pub kind: ChangeKind,
    /// The captured value; none where something was added.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub before: Option<Value>,
    /// The other value; none where something was removed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub after: Option<Value>,
}

/// The sorts of differences.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum ChangeKind {
    /// Only the other object has it.
    Added,
    /// Only the captured object has it.
    Removed,
    /// Both have it, with different values.
    Changed,
}

impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let path = if self.path.is_empty() { "the object" } else { &self.path };
        let shown = |value: &Option<Value>| value.as_ref().map(shorten).unwrap_or_default();
        match self.kind {
            ChangeKind::Added => write!(f, "{path}: added {}", shown(&self.after)),
            ChangeKind::Removed => write!(f, "{path}: removed {}", shown(&self.before)),
            ChangeKind::Changed => write!(f, "{path}: {} became {}", shown(&self.before), shown(&self.after)),
        }
    }
}

fn shorten(value: &Value) -> String {
    let text = value.to_string();
    match text.char_indices().nth(SHOWN) {
        Some((end, _)) => format!("{}… ({} bytes)", &text[..end], text.len()),
        None => text,
    }
}

/// Every difference between a captured object and another, in the order of their fields.
pub fn diff(captured: &Value, other: &Value) -> Vec<Change> {
    let mut changes = Vec::new();
    compare("", "", captured, other, &mut changes);
    changes
}

/// `field` is the name of the field that holds the values, wherever in a list they are.
fn compare(path: &str, field: &str, before: &Value, after: &Value, changes: &mut Vec<Change>) {
    match (before, after) {
        (Value::Object(before), Value::Object(after)) => {
            let names: BTreeSet<&String> = before.keys().chain(after.keys()).collect();
            for name in names {
                either(&join(path, name), name, before.get(name), after.get(name), changes);
            }
        }
        (Value::Array(before), Value::Array(after)) => match keys::of_both(field, before, after) {
            Some((before, after)) => keyed(path, &before, &after, changes),
            None => indexed(path, before, after, changes),
        },
        (before, after) if before == after => {}
        (before, after) => either_way(path, Some(before), Some(after), changes),
    }
}

fn either(path: &str, field: &str, before: Option<&Value>, after: Option<&Value>, changes: &mut Vec<Change>) {
    match (before, after) {
        (Some(before), Some(after)) => compare(path, field, before, after, changes),
        (before, after) => either_way(path, before, after, changes),
    }
}

fn either_way(path: &str, before: Option<&Value>, after: Option<&Value>, changes: &mut Vec<Change>) {
    let kind = match (before, after) {
        (None, _) => ChangeKind::Added,
        (_, None) => ChangeKind::Removed,
        _ => ChangeKind::Changed,
    };
    changes.push(Change { path: path.to_owned(), kind, before: before.cloned(), after: after.cloned() });
}

fn indexed(path: &str, before: &[Value], after: &[Value], changes: &mut Vec<Change>) {
    for index in 0..before.len().max(after.len()) {
        either(&format!("{path}[{index}]"), "", before.get(index), after.get(index), changes);
    }
}

fn keyed(path: &str, before: &[(String, &Value)], after: &[(String, &Value)], changes: &mut Vec<Change>) {
    let find = |list: &[(String, &'_ Value)], key: &str| list.iter().position(|(other, _)| other == key);
    for (key, value) in before {
        let other = find(after, key).map(|at| after[at].1);
        either(&format!("{path}[{key}]"), "", Some(value), other, changes);
    }
    for (key, value) in after.iter().filter(|(key, _)| find(before, key).is_none()) {
        either(&format!("{path}[{key}]"), "", None, Some(value), changes);
    }
    let common = |list: &[(String, &Value)], other: &[(String, &Value)]| -> Vec<Value> {
        list.iter().filter(|(key, _)| find(other, key).is_some()).map(|(key, _)| key.as_str().into()).collect()
    };
    let (order, other_order) = (common(before, after), common(after, before));
    if order != other_order {
        either_way(&format!("{path}[order]"), Some(&order.into()), Some(&other_order.into()), changes);
    }
}

/// The path of a field; names that would be misread are quoted.
fn join(path: &str, name: &str) -> String {
    if name.is_empty() || name.contains(['.', '[', ']', '/', '"', ' ']) {
        format!("{path}[{name:?}]")
    } else if path.is_empty() {
        name.to_owned()
    } else {
        format!("{path}.{name}")
    }
}

#[cfg(test)]
mod tests;
