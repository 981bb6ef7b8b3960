//! What the target serves.
//!
//! Looked up by kind for owners and by plural for objects; types that definitions of the backup will add count as
//! served.

use std::collections::BTreeMap;

use serde_json::Value;
use stillpoint_api::GroupResource;
use stillpoint_objects::discovery::Discovery;

/// The types that a target serves or will serve once the backup's definitions are there.
#[derive(Debug, Default)]
pub(crate) struct Target {
    /// The served types with their preferred versions.
    served: BTreeMap<GroupResource, String>,
    defined: BTreeMap<GroupResource, Definition>,
}

/// What a definition of the backup adds.
#[derive(Debug)]
struct Definition {
    /// The definition's uid as captured.
    uid: String,
    /// The served versions.
    versions: Vec<String>,
}

impl Target {
    pub(crate) fn new(discovery: &Discovery) -> Self {
        let types = discovery.types.iter().map(|served| &served.resource);
        let served = types.map(|resource| (resource.name.clone(), resource.version.clone())).collect();
        Self { served, defined: BTreeMap::new() }
    }

    /// Notes what a custom resource definition, captured with `uid`, will add.
    pub(crate) fn define(&mut self, uid: &str, definition: &Value) {
        let spec = &definition["spec"];
        let (Some(group), Some(plural)) = (spec["group"].as_str(), spec["names"]["plural"].as_str()) else { return };
        let versions = spec["versions"].as_array().into_iter().flatten();
        let served = versions.filter(|version| version["served"] == true);
        let versions = served.filter_map(|version| version["name"].as_str().map(str::to_owned)).collect();
        self.defined.insert(GroupResource::new(group, plural), Definition { uid: uid.to_owned(), versions });
    }

    /// Whether objects of the type can be written, now or once the definitions are there.
    pub(crate) fn serves(&self, resource: &GroupResource) -> bool {
        self.served.contains_key(resource) || self.defined.contains_key(resource)
    }

    /// Whether the type is served now.
    pub(crate) fn serves_already(&self, resource: &GroupResource) -> bool {
        self.served.contains_key(resource)
    }

    /// The uid, as captured, of the backup's definition of a type.
    pub(crate) fn definition(&self, resource: &GroupResource) -> Option<&str> {
        self.defined.get(resource).map(|definition| definition.uid.as_str())
    }

    /// The version that the target prefers of a type it serves.
    pub(crate) fn version(&self, resource: &GroupResource) -> Option<&str> {
        self.served.get(resource).map(String::as_str)
    }

    /// The types that the backup's definitions add, with their served versions.
    pub(crate) fn defined(&self) -> impl Iterator<Item = (&GroupResource, &[String])> {
        self.defined.iter().map(|(resource, definition)| (resource, definition.versions.as_slice()))
    }
}
