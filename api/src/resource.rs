//! Names of Kubernetes types and objects, as Stillpoint writes them.
//!
//! A type is named by its plural and its group (`deployments.apps`, `configmaps.core`), never by its kind: the
//! plural is what the URL, the repository's folders and the user's flags have in common.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

/// A type by plural and group: `deployments.apps`; the core group is written `core` and may be left out when read.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct GroupResource {
    /// The API group; empty for the core group.
    pub group: String,
    /// The plural, as in the URL.
    pub resource: String,
}

/// The text names no type or object.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidName {
    /// Not `resource` or `resource.group`.
    #[error("{0:?} names no type: write resource or resource.group, such as configmaps or deployments.apps")]
    Type(String),
    /// Not `resource.group/namespace/name` or `resource.group/name`.
    #[error("{0:?} names no object: write resource.group/namespace/name, such as deployments.apps/shop/web")]
    Object(String),
}

impl GroupResource {
    /// `group` is empty for the core group.
    pub fn new(group: impl Into<String>, resource: impl Into<String>) -> Self {
        Self { group: group.into(), resource: resource.into() }
    }

    /// A type of the core group.
    pub fn core(resource: impl Into<String>) -> Self {
        Self::new("", resource)
    }

    /// Whether this is `resource` of `group` (empty for core).
    pub fn is(&self, group: &str, resource: &str) -> bool {
        self.group == group && self.resource == resource
    }
}

impl fmt::Display for GroupResource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let group = if self.group.is_empty() { "core" } else { &self.group };
        write!(f, "{}.{group}", self.resource)
    }
}

impl FromStr for GroupResource {
    type Err = InvalidName;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (resource, group) = text.split_once('.').unwrap_or((text, "core"));
        if !is_path_segment(resource) || !is_path_segment(group) {
            return Err(InvalidName::Type(text.to_owned()));
        }
        Ok(Self::new(if group == "core" { "" } else { group }, resource))
    }
}

impl Serialize for GroupResource {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for GroupResource {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(de::Error::custom)
    }
}

/// One served type in the version that was read.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ResourceType {
    /// Plural and group.
    pub name: GroupResource,
    /// The version of the group, such as `v1`.
    pub version: String,
    /// The kind of one object, such as `Deployment`.
    pub kind: String,
    /// Whether its objects live in namespaces.
    pub namespaced: bool,
}

impl ResourceType {
    /// `v1` or `apps/v1`, as an object's `apiVersion` says it.
    pub fn api_version(&self) -> String {
        match self.name.group.as_str() {
            "" => self.version.clone(),
            group => format!("{group}/{}", self.version),
        }
    }
}

/// One object by type, namespace and name; written `deployments.apps/shop/web`, cluster-scoped `namespaces.core/shop`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ObjectRef {
    /// The object's type.
    pub resource: GroupResource,
    /// Its namespace; none for a cluster-scoped object.
    pub namespace: Option<String>,
    /// Its name.
    pub name: String,
}

impl ObjectRef {
    /// Names an object; `namespace` is none for a cluster-scoped one.
    pub fn new(resource: GroupResource, namespace: Option<&str>, name: impl Into<String>) -> Self {
        Self { resource, namespace: namespace.map(str::to_owned), name: name.into() }
    }
}

impl fmt::Display for ObjectRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.namespace {
            Some(namespace) => write!(f, "{}/{namespace}/{}", self.resource, self.name),
            None => write!(f, "{}/{}", self.resource, self.name),
        }
    }
}

impl FromStr for ObjectRef {
    type Err = InvalidName;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let invalid = || InvalidName::Object(text.to_owned());
        let parts: Vec<&str> = text.split('/').collect();
        let (resource, namespace, name) = match parts[..] {
            [resource, name] => (resource, None, name),
            [resource, namespace, name] => (resource, Some(namespace), name),
            _ => return Err(invalid()),
        };
        if !is_path_segment(name) || !namespace.is_none_or(is_path_segment) {
            return Err(invalid());
        }
        Ok(Self::new(resource.parse()?, namespace, name))
    }
}

impl Serialize for ObjectRef {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for ObjectRef {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(de::Error::custom)
    }
}

/// What Kubernetes allows as one segment of a URL's path, and what is safe as one name in a tree.
fn is_path_segment(text: &str) -> bool {
    !text.is_empty() && text != "." && text != ".." && !text.contains(['/', '%', '\0'])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_type_is_read_with_and_without_its_group() {
        let core: GroupResource = "configmaps".parse().unwrap();
        assert_eq!(core, "configmaps.core".parse().unwrap());
        assert_eq!(core.to_string(), "configmaps.core");
        let crd: GroupResource = "orders.shop.example.com".parse().unwrap();
        assert!(crd.is("shop.example.com", "orders"));
    }

    #[test]
    fn an_object_survives_its_text_form() {
        for text in ["deployments.apps/shop/web", "namespaces.core/shop", "clusterroles.rbac.authorization.k8s.io/a:b"]
        {
            assert_eq!(text.parse::<ObjectRef>().unwrap().to_string(), text);
        }
    }

    #[test]
    fn what_could_leave_its_folder_is_refused() {
        for text in ["", "a", "pods/../x", "pods/ns/", "pods/ns/a/b", "../pods/x", "pods/."] {
            assert!(text.parse::<ObjectRef>().is_err(), "{text:?}");
        }
        assert!("/".parse::<GroupResource>().is_err());
    }

    #[test]
    fn the_core_group_has_no_group_in_its_api_version() {
        let of = |name: &str| ResourceType {
            name: name.parse().unwrap(),
            version: "v1".into(),
            kind: "K".into(),
            namespaced: true,
        };
        assert_eq!(of("pods").api_version(), "v1");
        assert_eq!(of("deployments.apps").api_version(), "apps/v1");
    }
}
