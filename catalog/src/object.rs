//! One captured object.
//!
//! Kept as the bytes that the API server sent; it becomes a value only where somebody must look inside.

use bytes::Bytes;
use serde::Deserialize;
use serde_json::Value;
use stillpoint_api::ResourceType;

/// One line of an object file.
#[derive(Debug, Clone)]
pub struct CapturedObject {
    /// The object's bytes as the list gave them.
    pub raw: Bytes,
    /// Its name.
    pub name: String,
    /// Its uid; empty where the server gave none.
    pub uid: String,
}

#[derive(Deserialize)]
struct Named {
    metadata: Metadata,
}

#[derive(Deserialize)]
struct Metadata {
    name: String,
    #[serde(default)]
    uid: String,
}

impl CapturedObject {
    /// Reads the name and uid of a line.
    pub(crate) fn parse(raw: Bytes) -> Result<Self, serde_json::Error> {
        let Metadata { name, uid } = serde_json::from_slice::<Named>(&raw)?.metadata;
        Ok(Self { raw, name, uid })
    }

    /// The object as a value, with the `apiVersion` and `kind` that lists leave out of built-in types' items.
    ///
    /// # Errors
    /// The line is no JSON object.
    pub fn value(&self, resource: &ResourceType) -> Result<Value, serde_json::Error> {
        let mut object: serde_json::Map<String, Value> = serde_json::from_slice(&self.raw)?;
        object.entry("apiVersion").or_insert_with(|| resource.api_version().into());
        object.entry("kind").or_insert_with(|| resource.kind.clone().into());
        Ok(Value::Object(object))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_built_in_item_gets_its_type_back() {
        let object = CapturedObject::parse(Bytes::from_static(br#"{"metadata":{"name":"a","uid":"u"}}"#)).unwrap();
        let resource = ResourceType {
            name: "deployments.apps".parse().unwrap(),
            version: "v1".into(),
            kind: "Deployment".into(),
            namespaced: true,
        };
        let value = object.value(&resource).unwrap();
        assert_eq!((value["apiVersion"].as_str(), value["kind"].as_str()), (Some("apps/v1"), Some("Deployment")));
        assert_eq!((object.name.as_str(), object.uid.as_str()), ("a", "u"));
    }

    #[test]
    fn a_line_without_a_name_is_no_object() {
        assert!(CapturedObject::parse(Bytes::from_static(b"{\"metadata\":{}}")).is_err());
        assert!(CapturedObject::parse(Bytes::from_static(b"{\"metadata\":")).is_err());
    }
}
