//! What whole groups of objects need before any server takes one of them: their namespace, and their type's definition.
//!
//! Named once with the number of objects, not once for each: a namespace that is missing is one cause.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;
use stillpoint_api::{GroupResource, ObjectRef, ResourceType};
use stillpoint_objects::references::{Reference, Target};

/// The prerequisites that objects have named so far.
#[derive(Debug, Default)]
pub(super) struct Prerequisites {
    needed: BTreeMap<ObjectRef, u64>,
    /// Groups that an API server of their own serves: their types have no definition.
    aggregated: BTreeSet<String>,
}

/// Prerequisites that are not in the backup, although they should be.
#[derive(Debug, Default)]
pub(crate) struct Absent(BTreeSet<ObjectRef>);

impl Prerequisites {
    /// Notes a reference of an object; false where it is none to a prerequisite.
    pub(super) fn take(&mut self, resource: &ResourceType, object: &ObjectRef, reference: &Reference) -> bool {
        let Target::Object(to) = &reference.to else { return false };
        if !needs(&resource.name, object.namespace.as_deref()).any(|needed| needed == *to) {
            return false;
        }
        match self.needed.get_mut(to) {
            Some(objects) => *objects += 1,
            None => drop(self.needed.insert(to.clone(), 1)),
        }
        true
    }

    /// Notes what an APIService says of a group.
    pub(super) fn learn(&mut self, resource: &ResourceType, value: &Value) {
        if resource.name.is("apiregistration.k8s.io", "apiservices") && value["spec"]["service"].is_object() {
            self.aggregated.extend(value["spec"]["group"].as_str().map(str::to_owned));
        }
    }

    /// Every prerequisite, with the number of objects that have it.
    pub(super) fn needed(&self) -> impl Iterator<Item = (&ObjectRef, u64)> {
        let is_aggregated = |needed: &ObjectRef| {
            let group = needed.name.split_once('.').map_or("", |(_, group)| group);
            needed.resource.resource == DEFINITIONS.1 && self.aggregated.contains(group)
        };
        self.needed.iter().filter(move |(needed, _)| !is_aggregated(needed)).map(|(needed, objects)| (needed, *objects))
    }
}

impl Absent {
    pub(super) fn insert(&mut self, prerequisite: ObjectRef) {
        self.0.insert(prerequisite);
    }

    #[cfg(test)]
    pub(crate) fn of(prerequisites: &[&str]) -> Self {
        Self(prerequisites.iter().map(|prerequisite| prerequisite.parse().unwrap()).collect())
    }

    /// Whether no server can take an object because of what is absent.
    pub(crate) fn explains(&self, object: &ObjectRef) -> bool {
        needs(&object.resource, object.namespace.as_deref()).any(|needed| self.0.contains(&needed))
    }
}

const DEFINITIONS: (&str, &str) = ("apiextensions.k8s.io", "customresourcedefinitions");

/// What an object of a type in a namespace needs; built-in types have no definition, but nothing is named like one.
fn needs(resource: &GroupResource, namespace: Option<&str>) -> impl Iterator<Item = ObjectRef> {
    let definition = format!("{}.{}", resource.resource, resource.group);
    let definition = ObjectRef::new(GroupResource::new(DEFINITIONS.0, DEFINITIONS.1), None, definition);
    let namespace = namespace.map(|name| ObjectRef::new(GroupResource::core("namespaces"), None, name));
    namespace.into_iter().chain([definition])
}
