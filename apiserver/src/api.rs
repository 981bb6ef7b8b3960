//! What every request handler shares, and what a path names.
//!
//! Types come and go with CRDs, so a path is resolved against the registry at each request instead of by a router.

use std::{
    borrow::Cow,
    sync::{Arc, Mutex},
    time::Duration,
};

use http::Method;
use percent_encoding::percent_decode_str;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use crate::{
    draft::Part,
    refusal::Refusal,
    registry::{Registry, Types},
    store::Store,
    types::ResourceType,
};

/// The server's state.
pub(crate) struct Api {
    pub(crate) store: Store,
    pub(crate) registry: Registry,
    /// Held while a CRD is written and the registry follows.
    pub(crate) crd_writes: Mutex<()>,
    /// Wakes the task that empties deleted namespaces and CRDs.
    pub(crate) lifecycle: Notify,
    pub(crate) token: String,
    pub(crate) kubernetes_version: String,
    pub(crate) bookmark_interval: Duration,
    /// Ends watches and owned tasks.
    pub(crate) stop: CancellationToken,
}

/// The object or collection that a path names; an empty name is a collection.
#[derive(Clone, Debug)]
pub(crate) struct Target {
    pub(crate) resource: Arc<ResourceType>,
    pub(crate) namespace: String,
    pub(crate) name: String,
}

/// What a path asks for.
#[derive(Debug)]
pub(crate) enum Route {
    Version,
    CoreVersions,
    Groups,
    Group(String),
    Resources { group: String, version: String },
    Object { target: Target, part: Part },
}

/// Resolves a path.
pub(crate) fn route(types: &Types, path: &str) -> Result<Route, Refusal> {
    let segments = path.trim_matches('/').split('/').map(decode).collect::<Result<Vec<_>, _>>()?;
    let segments: Vec<&str> = segments.iter().map(AsRef::as_ref).collect();
    match segments.as_slice() {
        ["version"] => Ok(Route::Version),
        ["api"] => Ok(Route::CoreVersions),
        ["apis"] => Ok(Route::Groups),
        ["apis", group] => Ok(Route::Group((*group).to_owned())),
        ["api", version] => Ok(Route::Resources { group: String::new(), version: (*version).to_owned() }),
        ["apis", group, version] => Ok(Route::Resources { group: (*group).to_owned(), version: (*version).to_owned() }),
        ["api", version, rest @ ..] => object(types, "", version, rest),
        ["apis", group, version, rest @ ..] => object(types, group, version, rest),
        _ => Err(Refusal::no_such_path()),
    }
}

fn decode(segment: &str) -> Result<Cow<'_, str>, Refusal> {
    percent_decode_str(segment).decode_utf8().map_err(|_| Refusal::bad_request("the path is not valid UTF-8"))
}

fn object(types: &Types, group: &str, version: &str, rest: &[&str]) -> Result<Route, Refusal> {
    let (namespace, plural, rest) = match rest {
        // The namespace itself, or its status: what else follows a namespace's name is a type in it.
        ["namespaces", name, "status"] if group.is_empty() => ("", "namespaces", vec![*name, "status"]),
        ["namespaces", namespace, plural, rest @ ..] => (*namespace, *plural, rest.to_vec()),
        [plural, rest @ ..] => ("", *plural, rest.to_vec()),
        [] => return Err(Refusal::no_such_path()),
    };
    let resource = types.find(group, version, plural).ok_or_else(Refusal::no_such_path)?;
    let (name, part) = match rest.as_slice() {
        [] => ("", Part::Main),
        [name] => (*name, Part::Main),
        [name, "status"] if resource.has_status() => (*name, Part::Status),
        _ => return Err(Refusal::no_such_path()),
    };
    let misplaced = !resource.is_namespaced() && !namespace.is_empty();
    let homeless = resource.is_namespaced() && namespace.is_empty() && !name.is_empty();
    if misplaced || homeless {
        return Err(Refusal::no_such_path());
    }
    let target = Target { resource, namespace: namespace.to_owned(), name: name.to_owned() };
    Ok(Route::Object { target, part })
}

/// What a request does to its target.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verb {
    Get,
    List,
    Create,
    Update,
    Patch,
    Delete,
    DeleteCollection,
}

impl Verb {
    /// The verb of a method on a target.
    pub(crate) fn of(method: &Method, target: &Target, part: Part) -> Result<Self, Refusal> {
        let collection = target.name.is_empty();
        let homeless = target.resource.is_namespaced() && target.namespace.is_empty();
        let verb = match *method {
            Method::GET if collection => Self::List,
            Method::GET => Self::Get,
            Method::POST if collection && !homeless => Self::Create,
            Method::PUT if !collection => Self::Update,
            Method::PATCH if !collection => Self::Patch,
            Method::DELETE if !collection && part == Part::Main => Self::Delete,
            Method::DELETE if collection && !homeless => Self::DeleteCollection,
            _ => return Err(Refusal::method_not_allowed()),
        };
        Ok(verb)
    }
}
