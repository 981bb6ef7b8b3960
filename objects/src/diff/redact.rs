//! Hides the values of Secrets in differences.
//!
//! A mark says how long the value was and nothing that could be compared with a guess, such as a digest.

use serde_json::Value;
use stillpoint_api::ResourceType;

use super::Change;

/// Fields whose values are hidden, as paths of a difference.
const HIDDEN: [&str; 3] = ["data", "stringData", LAST_APPLIED];
/// kubectl keeps a copy of everything that was applied.
const LAST_APPLIED: &str = r#"metadata.annotations["kubectl.kubernetes.io/last-applied-configuration"]"#;

/// Hides the values of Secrets: what they hold, and kubectl's copy of it. Differences of other types stay as they are.
pub fn redact(resource: &ResourceType, changes: Vec<Change>) -> Vec<Change> {
    if !resource.name.is("", "secrets") {
        return changes;
    }
    changes.into_iter().map(redact_change).collect()
}

fn redact_change(change: Change) -> Change {
    let hide = |value: Option<Value>| value.map(|value| hide_below(&change.path, value));
    let (before, after) = (hide(change.before), hide(change.after));
    Change { before, after, ..change }
}

/// Hides what is secret in a value that stands at `path`.
fn hide_below(path: &str, value: Value) -> Value {
    if HIDDEN.iter().any(|hidden| is_within(path, hidden)) {
        return mark(value, path.starts_with("data"));
    }
    match value {
        Value::Object(map) => {
            let hide = |(name, value): (String, Value)| {
                let value = hide_below(&super::join(path, &name), value);
                (name, value)
            };
            Value::Object(map.into_iter().map(hide).collect())
        }
        // nothing else above a hidden field is anything but a map
        other => other,
    }
}

/// Whether a path is `field` or leads into it.
fn is_within(path: &str, field: &str) -> bool {
    path.strip_prefix(field).is_some_and(|rest| rest.is_empty() || rest.starts_with(['.', '[']))
}

fn mark(value: Value, is_base64: bool) -> Value {
    match value {
        Value::String(text) => {
            let bytes = if is_base64 { decoded_len(&text) } else { text.len() };
            format!("<redacted, {bytes} bytes>").into()
        }
        Value::Object(map) => map.into_iter().map(|(name, value)| (name, mark(value, is_base64))).collect(),
        Value::Null => Value::Null,
        _ => "<redacted>".into(),
    }
}

fn decoded_len(base64: &str) -> usize {
    base64.trim_end_matches('=').len() * 3 / 4
}
