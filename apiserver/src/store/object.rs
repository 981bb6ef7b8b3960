//! One version of one object, as bytes that every endpoint can send without parsing them again.
//!
//! What differs between endpoints (`apiVersion`, `kind`, presence in a list) and what is known only at commit
//! (`resourceVersion`) is left out of the bytes and written in front of them when they are sent; labels and the few
//! selectable fields are kept parsed, so that a selector over 100,000 objects reads no JSON.

use std::io::Write;

use serde_json::{Map, Value};

/// Heap and bookkeeping that an object costs besides its bytes, for the memory bound; an estimate on the high side.
const OVERHEAD: usize = 256;

/// The two keys that an object carries outside lists of built-in types.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct TypeMeta {
    pub(crate) api_version: String,
    pub(crate) kind: String,
}

/// An immutable version of an object.
#[derive(Debug)]
pub(crate) struct Object {
    /// Everything after `"metadata":{"resourceVersion":"N",`.
    tail: Box<[u8]>,
    labels: Box<[(Box<str>, Box<str>)]>,
    fields: Box<[Box<str>]>,
    deleting: bool,
}

impl Object {
    /// Encodes `value`; `fields` are JSON pointers to what the type's field selectors may name.
    ///
    /// `value` must be an object whose `metadata` is an object with at least a name: what validation let through.
    pub(crate) fn encode(value: &Value, fields: &[&str]) -> Self {
        let metadata = value.get("metadata");
        Self {
            tail: encode_tail(value).into_boxed_slice(),
            labels: metadata.and_then(|m| m.get("labels")).map(labels).unwrap_or_default(),
            fields: fields.iter().map(|pointer| field(value, pointer)).collect(),
            deleting: metadata.is_some_and(|m| m.get("deletionTimestamp").is_some()),
        }
    }

    /// Writes the object as JSON with `revision` as its resourceVersion, and with `types` in front when given.
    pub(crate) fn write(&self, out: &mut Vec<u8>, types: Option<&TypeMeta>, revision: u64) {
        out.push(b'{');
        if let Some(types) = types {
            write_field(out, "apiVersion", &types.api_version);
            write_field(out, "kind", &types.kind);
        }
        // Writing to a Vec cannot fail.
        let _ = write!(out, "\"metadata\":{{\"resourceVersion\":\"{revision}\",");
        out.extend_from_slice(&self.tail);
    }

    /// The object as a JSON value, with its types and `revision`.
    pub(crate) fn to_value(&self, types: &TypeMeta, revision: u64) -> Value {
        let mut json = Vec::with_capacity(self.tail.len() + OVERHEAD);
        self.write(&mut json, Some(types), revision);
        serde_json::from_slice(&json).unwrap_or_default()
    }

    /// Whether both encode the same content.
    pub(crate) fn same_content(&self, other: &Self) -> bool {
        self.tail == other.tail
    }

    /// The value of label `key`.
    pub(crate) fn label(&self, key: &str) -> Option<&str> {
        self.labels.iter().find(|(name, _)| &**name == key).map(|(_, value)| &**value)
    }

    /// The value of the type's selectable field number `index`; absent fields are empty, as the API has them.
    pub(crate) fn field(&self, index: usize) -> &str {
        self.fields.get(index).map_or("", |value| value)
    }

    /// Whether its deletion was asked for.
    pub(crate) fn is_deleting(&self) -> bool {
        self.deleting
    }

    /// Memory that it holds, in bytes.
    pub(crate) fn size(&self) -> usize {
        self.tail.len() + OVERHEAD
    }
}

fn write_field(out: &mut Vec<u8>, key: &str, value: &str) {
    // Serializing a string to a Vec cannot fail.
    let _ = serde_json::to_writer(&mut *out, key);
    out.push(b':');
    let _ = serde_json::to_writer(&mut *out, value);
    out.push(b',');
}

fn encode_tail(value: &Value) -> Vec<u8> {
    let empty = Map::new();
    let object = value.as_object().unwrap_or(&empty);
    let mut tail = Vec::with_capacity(512);
    if let Some(metadata) = object.get("metadata").and_then(Value::as_object) {
        write_members(&mut tail, metadata, &["resourceVersion"]);
    }
    tail.push(b'}');
    if object.keys().any(|key| !OUTSIDE.contains(&key.as_str())) {
        tail.push(b',');
        write_members(&mut tail, object, &OUTSIDE);
    }
    tail.push(b'}');
    tail
}

/// The keys that are not part of the tail's second half.
const OUTSIDE: [&str; 3] = ["apiVersion", "kind", "metadata"];

fn write_members(out: &mut Vec<u8>, object: &Map<String, Value>, without: &[&str]) {
    let mut first = true;
    for (key, value) in object.iter().filter(|(key, _)| !without.contains(&key.as_str())) {
        if !first {
            out.push(b',');
        }
        first = false;
        // Serializing a JSON value to a Vec cannot fail: its keys are strings.
        let _ = serde_json::to_writer(&mut *out, key);
        out.push(b':');
        let _ = serde_json::to_writer(&mut *out, value);
    }
}

fn labels(labels: &Value) -> Box<[(Box<str>, Box<str>)]> {
    let labels = labels.as_object().into_iter().flatten();
    labels.filter_map(|(key, value)| Some((key.as_str().into(), value.as_str()?.into()))).collect()
}

fn field(value: &Value, pointer: &str) -> Box<str> {
    match value.pointer(pointer) {
        Some(Value::String(text)) => text.as_str().into(),
        Some(Value::Bool(flag)) => flag.to_string().into(),
        Some(Value::Number(number)) => number.to_string().into(),
        _ => "".into(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn types() -> TypeMeta {
        TypeMeta { api_version: "v1".into(), kind: "ConfigMap".into() }
    }

    #[test]
    fn an_encoded_object_comes_back_with_its_types_and_revision() {
        let value = json!({"metadata": {"name": "a", "labels": {"x": "y"}}, "data": {"k": "v\n\u{1}"}});
        let object = Object::encode(&value, &["/data/k"]);
        let mut expected = value;
        expected["apiVersion"] = "v1".into();
        expected["kind"] = "ConfigMap".into();
        expected["metadata"]["resourceVersion"] = "7".into();
        assert_eq!(object.to_value(&types(), 7), expected);
        assert_eq!((object.label("x"), object.field(0)), (Some("y"), "v\n\u{1}"));
    }

    #[test]
    fn an_object_of_metadata_alone_is_valid_json() {
        let object = Object::encode(&json!({"metadata": {"name": "a"}}), &[]);
        let mut json = Vec::new();
        object.write(&mut json, None, 1);
        assert_eq!(json, br#"{"metadata":{"resourceVersion":"1","name":"a"}}"#);
    }
}
