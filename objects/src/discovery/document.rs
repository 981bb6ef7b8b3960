//! Discovery documents, aggregated and plain, as one kind of value.
//!
//! Both say the same in different shapes; from here on nothing knows which of them a server had.

use std::fmt;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{APIGroup, APIResourceList};
use kube::client::{APIGroupDiscoveryList, APIResourceDiscovery, APIVersionDiscovery};
use serde::de::DeserializeOwned;
use stillpoint_api::{GroupResource, ResourceType};

use super::{ServedType, Verbs};
use crate::Error;

/// One version of a group.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct GroupVersion {
    group: String,
    version: String,
    /// Its place among the group's versions; 0 is the preferred one.
    rank: usize,
}

impl GroupVersion {
    pub(super) fn new(group: &str, version: &str, rank: usize) -> Self {
        Self { group: group.to_owned(), version: version.to_owned(), rank }
    }

    pub(super) fn path(&self) -> String {
        match self.group.as_str() {
            "" => format!("/api/{}", self.version),
            group => format!("/apis/{group}/{}", self.version),
        }
    }

    fn candidate(&self, plural: &str, kind: &str, namespaced: bool, verbs: &[String]) -> Candidate {
        let resource = ResourceType {
            name: GroupResource::new(self.group.as_str(), plural),
            version: self.version.clone(),
            kind: kind.to_owned(),
            namespaced,
        };
        Candidate { served: ServedType { resource, verbs: Verbs::named(verbs) }, rank: self.rank }
    }
}

impl fmt::Display for GroupVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let group = if self.group.is_empty() { "core" } else { &self.group };
        write!(f, "{group}/{}", self.version)
    }
}

/// A type in one version of its group.
#[derive(Debug)]
pub(super) struct Candidate {
    pub(super) served: ServedType,
    pub(super) rank: usize,
}

/// What one version of a group came to.
#[derive(Debug)]
pub(super) enum Outcome {
    Served(Vec<Candidate>),
    Failed(GroupVersion, String),
}

pub(super) fn read<T: DeserializeOwned>(what: &str, body: &[u8]) -> Result<T, Error> {
    serde_json::from_slice(body).map_err(|source| Error::Unreadable { what: what.to_owned(), source })
}

/// The versions of a group with their ranks, the preferred one first whatever the order of the list.
pub(super) fn ranked_versions(group: &APIGroup) -> Vec<GroupVersion> {
    let preferred = group.preferred_version.as_ref().map(|version| version.version.as_str());
    let mut versions: Vec<_> = group.versions.iter().map(|version| version.version.as_str()).collect();
    versions.sort_by_key(|version| Some(*version) != preferred);
    versions.into_iter().enumerate().map(|(rank, version)| GroupVersion::new(&group.name, version, rank)).collect()
}

/// The types of a plain document. Subresources have a slash in their name.
pub(super) fn from_plain(version: &GroupVersion, list: &APIResourceList) -> Vec<Candidate> {
    let types = list.resources.iter().filter(|resource| !resource.name.contains('/') && !resource.verbs.is_empty());
    types.map(|r| version.candidate(&r.name, &r.kind, r.namespaced, &r.verbs)).collect()
}

/// The outcome of every group and version of an aggregated document.
pub(super) fn from_aggregated(list: APIGroupDiscoveryList) -> Vec<Outcome> {
    let mut outcomes = Vec::new();
    for group in list.items {
        let name = group.metadata.and_then(|metadata| metadata.name).unwrap_or_default();
        for (rank, version) in group.versions.iter().enumerate() {
            let of = GroupVersion::new(&name, version.version.as_deref().unwrap_or_default(), rank);
            outcomes.push(from_version(of, version));
        }
    }
    outcomes
}

fn from_version(of: GroupVersion, version: &APIVersionDiscovery) -> Outcome {
    if version.freshness.as_deref() == Some("Stale") {
        let message = "the API server behind it does not answer; what is known of it is stale";
        return Outcome::Failed(of, message.to_owned());
    }
    // without verbs of its own, an entry only carries subresources
    let types = version.resources.iter().filter(|resource| !resource.verbs.is_empty());
    match types.map(|resource| from_resource(&of, resource)).collect() {
        Some(candidates) => Outcome::Served(candidates),
        None => Outcome::Failed(of, "its discovery document names a type without plural or kind".to_owned()),
    }
}

fn from_resource(of: &GroupVersion, resource: &APIResourceDiscovery) -> Option<Candidate> {
    let plural = resource.resource.as_deref()?;
    let kind = resource.response_kind.as_ref()?.kind.as_deref()?;
    let namespaced = resource.scope.as_deref() == Some("Namespaced");
    Some(of.candidate(plural, kind, namespaced, &resource.verbs))
}
