//! From an HTTP request to its answer: who asks, what for, in which format, and on which thread it is done.
//!
//! The work itself is synchronous; what may take long (lists, collections, large bodies) leaves the runtime's threads.

use std::{sync::Arc, time::Duration};

use axum::{
    Router,
    body::{Body, to_bytes},
    extract::{Request, State},
    response::{IntoResponse, Response},
    routing::get,
};
use bytes::Bytes;
use http::{HeaderMap, Method, StatusCode, header};
use serde_json::json;
use tokio::{task::spawn_blocking, time::timeout};

use crate::{
    api::{Api, Route, Target, Verb, route},
    discovery,
    draft::{self, Part},
    list,
    params::Params,
    patch::Change,
    refusal::{Refusal, json_response},
    selector::Selector,
    store::{Found, Mode, Range},
    types::ResourceType,
    watch,
    write::{self, DeleteOptions, Deleted},
};

/// The largest request body, in bytes: the limit of real servers.
const MAX_BODY: usize = 3 << 20;

/// Bodies up to this size are handled on the runtime's own threads.
const SMALL_BODY: usize = 32 << 10;

/// How long a client may take to send a body.
const BODY_DEADLINE: Duration = Duration::from_secs(30);

/// The service: probes for everybody, the API for who has the token.
pub(crate) fn router(api: Arc<Api>) -> Router {
    let ok = || async { "ok" };
    Router::new()
        .route("/healthz", get(ok))
        .route("/readyz", get(ok))
        .route("/livez", get(ok))
        .fallback(handle)
        .with_state(api)
}

async fn handle(State(api): State<Arc<Api>>, request: Request) -> Response {
    match answer(api, request).await {
        Ok(response) => response,
        Err(refusal) => refusal.into_response(),
    }
}

async fn answer(api: Arc<Api>, request: Request) -> Result<Response, Refusal> {
    let headers = request.headers();
    if !is_authorized(&api, headers) {
        return Err(Refusal::unauthorized());
    }
    if !accepts_json(headers) {
        return Err(Refusal::not_acceptable());
    }
    let types = api.registry.types();
    match route(&types, request.uri().path())? {
        Route::Object { target, part } => answer_object(api, target, part, request).await,
        _ if request.method() != Method::GET => Err(Refusal::method_not_allowed()),
        Route::Version => Ok(discovery::version(&api.kubernetes_version)),
        Route::CoreVersions => Ok(discovery::core_versions(&types, headers)),
        Route::Groups => Ok(discovery::groups(&types, headers)),
        Route::Group(group) => discovery::group(&types, &group),
        Route::Resources { group, version } => discovery::resources(&types, &group, &version),
    }
}

/// Compares in a time that does not depend on where the two differ.
fn is_authorized(api: &Api, headers: &HeaderMap) -> bool {
    let sent = headers.get(header::AUTHORIZATION).map_or(&[][..], |value| value.as_bytes());
    let Some(sent) = sent.strip_prefix(b"Bearer ") else { return false };
    let expected = api.token.as_bytes();
    let differences = sent.iter().zip(expected).fold(0, |sum, (a, b)| sum | (a ^ b));
    sent.len() == expected.len() && differences == 0
}

fn accepts_json(headers: &HeaderMap) -> bool {
    let Some(accept) = headers.get(header::ACCEPT).and_then(|value| value.to_str().ok()) else { return true };
    accept.split(',').any(|range| {
        let (media, parameters) = range.split_once(';').unwrap_or((range, ""));
        let json = matches!(media.trim(), "application/json" | "application/*" | "*/*");
        json && (!parameters.contains("as=") || parameters.contains("as=APIGroupDiscoveryList"))
    })
}

async fn answer_object(api: Arc<Api>, target: Target, part: Part, request: Request) -> Result<Response, Refusal> {
    let verb = Verb::of(request.method(), &target, part)?;
    let params = Params::parse(request.uri())?;
    if verb == Verb::List && params.is_watch() {
        return watch::watch(api, &target, &params);
    }
    let content_type = content_type(request.headers());
    let body = read_body(request).await?;
    let call = Call { target, part, verb, params, content_type, body };
    let long = matches!(verb, Verb::List | Verb::DeleteCollection) || call.body.len() > SMALL_BODY;
    if !long {
        return call.answer(&api);
    }
    let done = spawn_blocking(move || call.answer(&api)).await;
    done.unwrap_or_else(|_| Err(Refusal::internal("the request handler failed")))
}

fn content_type(headers: &HeaderMap) -> String {
    let value = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    value.split(';').next().unwrap_or_default().trim().to_owned()
}

async fn read_body(request: Request<Body>) -> Result<Bytes, Refusal> {
    let read = timeout(BODY_DEADLINE, to_bytes(request.into_body(), MAX_BODY)).await;
    let read = read.map_err(|_| Refusal::timeout("the request body took too long to arrive"))?;
    // A connection that broke midway has nobody left to read the answer.
    read.map_err(|_| Refusal::body_too_large(MAX_BODY))
}

/// A request for an object or a collection, read completely.
struct Call {
    target: Target,
    part: Part,
    verb: Verb,
    params: Params,
    content_type: String,
    body: Bytes,
}

impl Call {
    fn answer(&self, api: &Api) -> Result<Response, Refusal> {
        let resource = &self.target.resource;
        match self.verb {
            Verb::Get => self.get(api),
            Verb::List => list::list(&api.store, Arc::clone(resource), &self.target.namespace, &self.params),
            Verb::Create => {
                let body = self.json_body()?;
                let written = write::create(api, &self.target, body, self.params.mode()?)?;
                Ok(written.respond(StatusCode::CREATED, resource))
            }
            Verb::Update => {
                let body = self.json_body()?;
                self.update(api, |_| Ok(body.clone()))
            }
            Verb::Patch => {
                let patch = Change::parse(&self.content_type, &self.body)?;
                self.update(api, |present| patch.apply(present))
            }
            Verb::Delete => self.delete(api),
            Verb::DeleteCollection => self.delete_collection(api),
        }
    }

    fn json_body(&self) -> Result<serde_json::Value, Refusal> {
        match self.content_type.as_str() {
            "" | "application/json" => draft::parse(&self.target.resource, &self.body),
            other => Err(Refusal::unsupported_media_type(other, "application/json")),
        }
    }

    fn get(&self, api: &Api) -> Result<Response, Refusal> {
        let wanted = self.params.resource_version()?.unwrap_or_default();
        let current = api.store.revision();
        if wanted > current {
            return Err(Refusal::future(wanted, current));
        }
        let found = write::read(api, &self.target)?;
        Ok(respond(&self.target.resource, &found))
    }

    fn update(
        &self,
        api: &Api,
        change: impl Fn(&serde_json::Value) -> Result<serde_json::Value, Refusal>,
    ) -> Result<Response, Refusal> {
        let written = write::update(api, &self.target, self.part, self.params.mode()?, change)?;
        Ok(written.respond(StatusCode::OK, &self.target.resource))
    }

    fn delete(&self, api: &Api) -> Result<Response, Refusal> {
        let (options, mode) = self.delete_options()?;
        match write::delete(api, &self.target, &options, mode)? {
            Deleted::Pending(written) => Ok(written.respond(StatusCode::OK, &self.target.resource)),
            Deleted::Gone(found) => Ok(gone(&self.target, &found)),
        }
    }

    fn delete_options(&self) -> Result<(DeleteOptions, Mode), Refusal> {
        let options = DeleteOptions::parse(&self.body)?;
        let mode = options.mode(self.params.mode()?);
        Ok((options, mode))
    }

    /// Deletes what the selectors select, one object after the other, as real servers do.
    fn delete_collection(&self, api: &Api) -> Result<Response, Refusal> {
        let resource = &self.target.resource;
        let (options, mode) = self.delete_options()?;
        let selector = Selector::parse(&self.params, resource)?;
        let range = Range { prefix: list::prefix(&self.target.namespace), after: None };
        let selected = |key: &str, object: &_| selector.matches(key, object);
        let page = api.store.scan(&resource.table, &range, None, usize::MAX, selected);
        let page = page.map_err(|error| Refusal::from_read(&error, 0))?;
        let mut deleted = Vec::new();
        for found in page.items {
            let name = found.key.rsplit('/').next().unwrap_or_default().to_owned();
            let target = Target { name, ..self.target.clone() };
            match write::delete(api, &target, &options, mode) {
                Err(refusal) if !refusal.is_not_found() => return Err(refusal),
                _ => deleted.push(found),
            }
        }
        Ok(list::list_of(Arc::clone(resource), api.store.revision(), deleted))
    }
}

fn respond(resource: &ResourceType, found: &Found) -> Response {
    let mut json = Vec::with_capacity(found.object.size());
    found.object.write(&mut json, Some(&resource.types), found.revision);
    json_response(StatusCode::OK, json)
}

fn gone(target: &Target, found: &Found) -> Response {
    let resource = &target.resource;
    let value = found.object.to_value(&resource.types, found.revision);
    let status = json!({
        "kind": "Status",
        "apiVersion": "v1",
        "metadata": {},
        "status": "Success",
        "details": {
            "name": target.name,
            "group": resource.group,
            "kind": resource.plural,
            "uid": value["metadata"]["uid"],
        },
    });
    json_response(StatusCode::OK, status.to_string().into_bytes())
}
