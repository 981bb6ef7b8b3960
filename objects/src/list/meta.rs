//! The part of an object's metadata that capturing decides by.
//!
//! Borrowed from the page's text and read without the rest of the object: of a million objects, none is ever decoded
//! whole just to be filtered.

use std::{borrow::Cow, collections::BTreeMap};

use serde::{Deserialize, de::IgnoredAny};

/// What capturing needs to know of an object.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Meta<'a> {
    /// None for a cluster-scoped object.
    pub namespace: Option<Cow<'a, str>>,
    /// The name.
    pub name: Cow<'a, str>,
    /// Empty where the server gives none.
    pub uid: Cow<'a, str>,
    /// The labels.
    pub labels: BTreeMap<Cow<'a, str>, Cow<'a, str>>,
    /// The owner references.
    pub owners: Vec<Owner<'a>>,
    /// Whether its deletion has been asked for.
    pub being_deleted: bool,
    /// Whether the endpoints controller has noted when it last wrote it.
    pub written_by_endpoints_controller: bool,
}

/// An owner reference.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Owner<'a> {
    /// Such as `apps/v1`.
    #[serde(borrow)]
    pub api_version: Cow<'a, str>,
    /// Such as `ReplicaSet`.
    #[serde(borrow)]
    pub kind: Cow<'a, str>,
    /// The owner's name.
    #[serde(borrow)]
    pub name: Cow<'a, str>,
    /// The owner's uid.
    #[serde(borrow)]
    pub uid: Cow<'a, str>,
}

impl<'a> Meta<'a> {
    /// Reads the metadata of an object's JSON text.
    ///
    /// # Errors
    /// The text is no JSON object, or its metadata has no name.
    pub fn parse(object: &'a str) -> Result<Self, serde_json::Error> {
        let Object { metadata } = serde_json::from_str(object)?;
        let borrowed = metadata.labels.unwrap_or_default();
        Ok(Self {
            namespace: metadata.namespace.map(|text| text.0).filter(|namespace| !namespace.is_empty()),
            name: metadata.name.0,
            uid: metadata.uid.map(|text| text.0).unwrap_or_default(),
            labels: borrowed.into_iter().map(|(key, value)| (key.0, value.0)).collect(),
            owners: metadata.owner_references.unwrap_or_default(),
            being_deleted: metadata.deletion_timestamp.is_some(),
            written_by_endpoints_controller: metadata.annotations.is_some_and(|known| known.endpoints.is_some()),
        })
    }

    /// A label's value.
    pub fn label(&self, key: &str) -> Option<&str> {
        self.labels.get(key).map(AsRef::as_ref)
    }
}

/// Text that is borrowed where it holds no escapes, also inside maps and options, where serde would copy.
#[derive(PartialEq, Eq, PartialOrd, Ord, Deserialize)]
struct Text<'a>(#[serde(borrow)] Cow<'a, str>);

#[derive(Deserialize)]
struct Object<'a> {
    #[serde(borrow)]
    metadata: Metadata<'a>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Metadata<'a> {
    #[serde(borrow)]
    namespace: Option<Text<'a>>,
    #[serde(borrow)]
    name: Text<'a>,
    #[serde(borrow)]
    uid: Option<Text<'a>>,
    #[serde(borrow)]
    labels: Option<BTreeMap<Text<'a>, Text<'a>>>,
    #[serde(borrow)]
    owner_references: Option<Vec<Owner<'a>>>,
    deletion_timestamp: Option<IgnoredAny>,
    annotations: Option<KnownAnnotations>,
}

#[derive(Deserialize)]
struct KnownAnnotations {
    #[serde(rename = "endpoints.kubernetes.io/last-change-trigger-time")]
    endpoints: Option<IgnoredAny>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn metadata_is_borrowed_from_the_text() {
        let text = r#"{"spec":{"metadata":{"name":"inner"}},"metadata":{"namespace":"shop","name":"web","uid":"u",
            "labels":{"app":"web","escaped":"a\"b"},"ownerReferences":[{"apiVersion":"apps/v1","kind":"ReplicaSet",
            "name":"web-1","uid":"o","controller":true}],"deletionTimestamp":"2026-11-24T00:00:00Z"}}"#;
        let meta = Meta::parse(text).unwrap();
        assert_eq!((meta.namespace.as_deref(), meta.name.as_ref(), meta.uid.as_ref()), (Some("shop"), "web", "u"));
        assert_eq!((meta.label("app"), meta.label("escaped"), meta.label("none")), (Some("web"), Some("a\"b"), None));
        assert_eq!((meta.owners[0].kind.as_ref(), meta.owners[0].name.as_ref()), ("ReplicaSet", "web-1"));
        assert!(meta.being_deleted && !meta.written_by_endpoints_controller);
        assert!(meta.labels.iter().all(|(key, _)| matches!(key, Cow::Borrowed(_))));
        assert!(matches!(meta.namespace, Some(Cow::Borrowed(_))) && matches!(meta.name, Cow::Borrowed(_)));
    }

    #[test]
    fn empty_and_null_fields_are_absent_ones() {
        let text = r#"{"metadata":{"namespace":"","name":"a","labels":null,"ownerReferences":null,
            "deletionTimestamp":null,"annotations":null}}"#;
        assert_eq!(Meta::parse(text).unwrap(), Meta { name: "a".into(), ..Meta::default() });
    }

    #[test]
    fn an_object_without_a_name_is_refused() {
        for text in ["{}", r#"{"metadata":{}}"#, r#"{"metadata":{"name":7}}"#, "[]", "x"] {
            assert!(Meta::parse(text).is_err(), "{text}");
        }
    }
}
