//! Lists objects at exactly one etcd revision.
//!
//! Every answer is checked to be of the revision that was asked for, and is handed on as the bytes that came. Pages are
//! sized by bytes instead of objects, and one page is fetched while the one before it is processed: memory is bounded
//! by two pages a list, whatever the number and size of objects.

use std::fmt;

use kube::core::{
    Request,
    params::{ListParams, VersionMatch},
};
use serde::Deserialize;
use serde_json::value::RawValue;
use stillpoint_api::{GroupResource, ResourceType};

use crate::{
    Error,
    request::{Ask, MAX_OBJECT_BYTES, collection, segment},
    retry::Retry,
};

mod meta;
mod page;

pub use meta::{Meta, Owner};
pub use page::{Item, Page, Pages};

/// An etcd revision; one counter counts the changes of everything in the store.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Revision(pub u64);

impl fmt::Display for Revision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// The type of namespaces: served by every cluster, never empty, and small.
pub fn namespaces() -> ResourceType {
    let (kind, version) = ("Namespace".to_owned(), "v1".to_owned());
    ResourceType { name: GroupResource::core("namespaces"), version, kind, namespaced: false }
}

/// The newest revision, by a quorum read: whatever was written before this was called is at it.
///
/// # Errors
/// Namespaces cannot be listed.
pub async fn read_revision(client: &kube::Client, retry: &Retry) -> Result<Revision, Error> {
    let resource = namespaces();
    fresh_revision(client, &resource, &retry.brief()).await?.ok_or_else(|| Error::OtherStore {
        what: format!("list {}", resource.name),
        asked: 0,
        served: "none".to_owned(),
    })
}

/// The revision of a type's newest list; none where the list carries none.
///
/// # Errors
/// The type cannot be listed.
pub async fn fresh_revision(
    client: &kube::Client,
    resource: &ResourceType,
    retry: &Retry,
) -> Result<Option<Revision>, Error> {
    let what = format!("list {}", resource.name);
    let head = head(client, resource, None, what, &ListParams::default().limit(1), retry).await?;
    Ok(head.revision())
}

/// Counts a type's objects at a revision, without listing them: independent of any list that is to be checked.
///
/// # Errors
/// [`Error::Uncounted`] where the server does not say; otherwise as [`Pages::next`].
pub async fn count_at(
    client: &kube::Client,
    resource: &ResourceType,
    namespace: Option<&str>,
    revision: Revision,
    retry: &Retry,
) -> Result<u64, Error> {
    let what = format!("count {} at revision {revision}", place(resource, namespace));
    let head = head(client, resource, namespace, what.clone(), &exact(revision).limit(1), retry).await?;
    head.metadata.check(&what, revision)?;
    match (head.metadata.remaining, head.metadata.token()) {
        (Some(remaining), _) => Ok(head.items + remaining),
        (None, None) => Ok(head.items),
        (None, Some(_)) => Err(Error::Uncounted { what }),
    }
}

/// Lists a type's objects at a revision, in one namespace or wherever they are. Nothing is asked until
/// [`Pages::next`] is.
pub fn list_at(
    client: &kube::Client,
    resource: &ResourceType,
    namespace: Option<&str>,
    revision: Revision,
    retry: &Retry,
) -> Pages {
    let what = format!("list {} at revision {revision}", place(resource, namespace));
    Pages::new(client.clone(), what, collection(resource, namespace), revision, retry.clone())
}

/// The names of all namespaces, sorted.
///
/// # Errors
/// Namespaces cannot be listed.
pub async fn namespace_names(client: &kube::Client, retry: &Retry) -> Result<Vec<String>, Error> {
    let resource = namespaces();
    let revision = read_revision(client, retry).await?;
    let mut pages = list_at(client, &resource, None, revision, retry);
    let mut names = Vec::new();
    while let Some(page) = pages.next().await? {
        for item in page.items() {
            names.push(item?.meta.name.into_owned());
        }
    }
    names.sort();
    Ok(names)
}

/// The uid of a namespace; none where there is no such namespace.
///
/// # Errors
/// The namespace cannot be read.
pub async fn namespace_uid(client: &kube::Client, name: &str, retry: &Retry) -> Result<Option<String>, Error> {
    let target = format!("{}/{}", collection(&namespaces(), None), segment(name));
    let ask = Ask::get(format!("get namespaces.core/{name}"), target, MAX_OBJECT_BYTES);
    match ask.json::<serde_json::Value>(client, retry).await {
        Ok(namespace) => Ok(namespace["metadata"]["uid"].as_str().map(str::to_owned)),
        Err(Error::NotFound { .. }) => Ok(None),
        Err(error) => Err(error),
    }
}

fn exact(revision: Revision) -> ListParams {
    ListParams::default().at(&revision.to_string()).matching(VersionMatch::Exact)
}

fn place(resource: &ResourceType, namespace: Option<&str>) -> String {
    match namespace {
        Some(namespace) => format!("{} in {namespace}", resource.name),
        None => resource.name.to_string(),
    }
}

/// What a list says of itself.
#[derive(Debug, Default, Deserialize)]
struct ListMeta {
    #[serde(rename = "resourceVersion", default)]
    revision: String,
    #[serde(rename = "continue", default)]
    token: String,
    #[serde(rename = "remainingItemCount")]
    remaining: Option<u64>,
}

impl ListMeta {
    fn token(&self) -> Option<&str> {
        Some(self.token.as_str()).filter(|token| !token.is_empty())
    }

    /// The list must be of the revision that was asked for, to the digit.
    fn check(&self, what: &str, asked: Revision) -> Result<(), Error> {
        if self.revision == asked.to_string() {
            return Ok(());
        }
        let served = if self.revision.is_empty() { "none".to_owned() } else { self.revision.clone() };
        Err(Error::OtherStore { what: what.to_owned(), asked: asked.0, served })
    }
}

/// The beginning of a list: its metadata, and how many objects it holds.
struct Head {
    metadata: ListMeta,
    items: u64,
}

impl Head {
    fn revision(&self) -> Option<Revision> {
        // some aggregated servers answer 0, which is nobody's revision
        self.metadata.revision.parse().ok().filter(|revision| *revision > 0).map(Revision)
    }
}

async fn head(
    client: &kube::Client,
    resource: &ResourceType,
    namespace: Option<&str>,
    what: String,
    params: &ListParams,
    retry: &Retry,
) -> Result<Head, Error> {
    #[derive(Deserialize)]
    struct Document {
        #[serde(default)]
        metadata: ListMeta,
        items: Option<Vec<Box<RawValue>>>,
    }
    let target = target(&what, &collection(resource, namespace), params)?;
    // a server that ignores the limit answers with everything: the bound of a page applies
    let document: Document = Ask::get(what, target, page::MAX_PAGE_BYTES).json(client, retry).await?;
    let items = document.items.map_or(0, |items| items.len() as u64);
    Ok(Head { metadata: document.metadata, items })
}

/// Path and query of a list.
fn target(what: &str, path: &str, params: &ListParams) -> Result<String, Error> {
    let invalid = |source| Error::Request { what: what.to_owned(), source };
    let request = Request::new(path).list(params).map_err(|error| invalid(error.into()))?;
    Ok(request.uri().to_string())
}
