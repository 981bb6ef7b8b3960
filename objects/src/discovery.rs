//! What an API server serves.
//!
//! Each group answers for itself: one that fails is a failure by name and the others go on, because a backup that
//! knows what it misses is worth more than none. kube's own discovery gives up at the first failing group, and its
//! aggregated form does not tell a stale group from an empty one.

use std::{cmp::Reverse, collections::BTreeMap};

use futures::{StreamExt, stream};
use k8s_openapi::apimachinery::pkg::{
    apis::meta::v1::{APIGroupList, APIResourceList, APIVersions},
    version::Info,
};
use kube::{client::APIGroupDiscoveryList, core::Version};
use stillpoint_api::{GroupResource, Problem, ProblemKind, ResourceType};

use crate::{Error, request::Ask, retry::Retry};

mod document;

use document::{GroupVersion, Outcome};

/// Bound of one discovery document; thousands of definitions stay far below.
const MAX_DOCUMENT_BYTES: usize = 64 << 20;
/// Groups that are asked at once.
const CONCURRENCY: usize = 8;
/// Attempts where the answer is most likely final: the first question to a server, which tells whether there is one,
/// and a group whose own API server is gone and which answers 503 for weeks.
const IMPATIENT_ATTEMPTS: usize = 3;
/// Asks for the aggregated document and takes the plain one.
const ACCEPT: &str = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList,\
                      application/json;g=apidiscovery.k8s.io;v=v2beta1;as=APIGroupDiscoveryList,application/json";

/// Everything a server serves, and what could not be learnt.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Discovery {
    /// What the server calls its version, such as `v1.36.2`.
    pub server_version: String,
    /// Every type once, in its group's preferred version where that serves it, else in the best that does; sorted by
    /// group and plural.
    pub types: Vec<ServedType>,
    /// Versions of groups whose types could not be learnt, by name; sorted.
    pub failures: Vec<Problem>,
}

/// One type, and what can be done with it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServedType {
    /// The type, in the version that is to be used.
    pub resource: ResourceType,
    /// What can be done with its objects.
    pub verbs: Verbs,
}

/// The verbs that a type supports.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Verbs {
    /// One object can be created.
    pub create: bool,
    /// One object can be deleted.
    pub delete: bool,
    /// One object can be read.
    pub get: bool,
    /// All objects can be listed.
    pub list: bool,
    /// One object can be patched.
    pub patch: bool,
    /// One object can be replaced.
    pub update: bool,
    /// Changes can be watched.
    pub watch: bool,
}

impl Verbs {
    fn named(names: &[String]) -> Self {
        let has = |verb: &str| names.iter().any(|name| name == verb);
        Self {
            create: has("create"),
            delete: has("delete"),
            get: has("get"),
            list: has("list"),
            patch: has("patch"),
            update: has("update"),
            watch: has("watch"),
        }
    }
}

impl Discovery {
    /// The served type of that name.
    pub fn get(&self, resource: &GroupResource) -> Option<&ServedType> {
        self.types.iter().find(|served| served.resource.name == *resource)
    }

    /// The served type of a kind, as owner references name it: in any version of `api_version`'s group.
    pub fn of_kind(&self, api_version: &str, kind: &str) -> Option<&ServedType> {
        let group = api_version.split_once('/').map_or("", |(group, _)| group);
        self.types.iter().find(|served| served.resource.name.group == group && served.resource.kind == kind)
    }
}

/// Learns what a server serves.
///
/// # Errors
/// The server's version or its list of groups cannot be read. A group that fails is no error but a failure by name.
pub async fn discover(client: &kube::Client, retry: &Retry) -> Result<Discovery, Error> {
    let ask = Ask::get("read the server's version", "/version", MAX_DOCUMENT_BYTES);
    let version: Info = ask.json(client, &impatient(retry)).await?;
    let mut outcomes = core(client, retry).await?;
    outcomes.extend(groups(client, retry).await?);
    Ok(assemble(version.git_version, outcomes))
}

fn impatient(retry: &Retry) -> Retry {
    Retry { attempts: retry.attempts.min(IMPATIENT_ATTEMPTS), ..retry.clone() }
}

/// The core group, which has a root of its own.
async fn core(client: &kube::Client, retry: &Retry) -> Result<Vec<Outcome>, Error> {
    let ask = Ask::get("discover the core group", "/api", MAX_DOCUMENT_BYTES).accepting(ACCEPT);
    let body = ask.send(client, retry).await?;
    if let Some(aggregated) = aggregated(&ask.what, &body)? {
        return Ok(document::from_aggregated(aggregated));
    }
    let versions: APIVersions = document::read(&ask.what, &body)?;
    let ranked = versions.versions.iter().enumerate();
    Ok(each(client, retry, ranked.map(|(rank, version)| GroupVersion::new("", version, rank)).collect()).await)
}

async fn groups(client: &kube::Client, retry: &Retry) -> Result<Vec<Outcome>, Error> {
    let ask = Ask::get("discover the API groups", "/apis", MAX_DOCUMENT_BYTES).accepting(ACCEPT);
    let body = ask.send(client, retry).await?;
    if let Some(aggregated) = aggregated(&ask.what, &body)? {
        return Ok(document::from_aggregated(aggregated));
    }
    let list: APIGroupList = document::read(&ask.what, &body)?;
    Ok(each(client, retry, list.groups.iter().flat_map(document::ranked_versions).collect()).await)
}

/// The aggregated document; none where the server answered with the plain one.
fn aggregated(what: &str, body: &[u8]) -> Result<Option<APIGroupDiscoveryList>, Error> {
    #[derive(serde::Deserialize)]
    struct Kind {
        kind: String,
    }
    let Kind { kind } = document::read(what, body)?;
    if kind == "APIGroupDiscoveryList" { document::read(what, body).map(Some) } else { Ok(None) }
}

/// Asks each version of each group.
async fn each(client: &kube::Client, retry: &Retry, versions: Vec<GroupVersion>) -> Vec<Outcome> {
    let retry = &impatient(retry);
    stream::iter(versions)
        .map(|version| async move {
            let ask = Ask::get(format!("discover {version}"), version.path(), MAX_DOCUMENT_BYTES);
            match ask.json::<APIResourceList>(client, retry).await {
                Ok(list) => Outcome::Served(document::from_plain(&version, &list)),
                Err(error) => Outcome::Failed(version, error.to_string()),
            }
        })
        .buffered(CONCURRENCY)
        .collect()
        .await
}

/// Chooses one version of each type and sorts.
fn assemble(server_version: String, outcomes: Vec<Outcome>) -> Discovery {
    let mut best: BTreeMap<GroupResource, document::Candidate> = BTreeMap::new();
    let mut failures = Vec::new();
    for outcome in outcomes {
        match outcome {
            Outcome::Served(candidates) => candidates.into_iter().for_each(|candidate| {
                let name = candidate.served.resource.name.clone();
                if best.get(&name).is_none_or(|chosen| preference(&candidate) < preference(chosen)) {
                    best.insert(name, candidate);
                }
            }),
            Outcome::Failed(version, message) => {
                failures.push(Problem { kind: ProblemKind::Discovery, subject: version.to_string(), message });
            }
        }
    }
    let mut types: Vec<_> = best.into_values().map(|candidate| candidate.served).collect();
    types.sort_by(|a, b| a.resource.name.cmp(&b.resource.name));
    failures.sort_by(|a, b| a.subject.cmp(&b.subject));
    Discovery { server_version, types, failures }
}

/// The least is the best: the group's preferred version, else the most mature.
fn preference(candidate: &document::Candidate) -> (bool, impl Ord + use<>) {
    (candidate.rank != 0, Reverse(Version::parse(&candidate.served.resource.version).priority()))
}

#[cfg(test)]
mod tests;
