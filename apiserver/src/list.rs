//! Lists: a page of objects at one revision, sent in chunks straight from the store's bytes.
//!
//! A page holds pointers; its JSON exists only one chunk at a time, so a list of everything costs little memory.

use std::{convert::Infallible, fmt::Write as _, sync::Arc};

use axum::{body::Body, response::Response};
use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use bytes::Bytes;
use futures::stream;
use http::{HeaderValue, header};
use serde::{Deserialize, Serialize};

use crate::{
    params::{At, Params},
    refusal::Refusal,
    selector::Selector,
    store::{Found, Page, Range, ReadError, Store},
    types::ResourceType,
};

/// Bytes of JSON that are gathered before they are sent.
const CHUNK_BYTES: usize = 64 << 10;

/// What a continue token says; opaque to clients.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Token {
    /// `None` goes on at the newest revision, inconsistently.
    revision: Option<u64>,
    after: String,
    /// How many objects follow `after` at this revision, where that is known.
    remaining: Option<u64>,
}

impl Token {
    fn encode(&self) -> String {
        // A struct of numbers and a string always serializes.
        URL_SAFE_NO_PAD.encode(serde_json::to_vec(self).unwrap_or_default())
    }

    fn decode(text: &str) -> Result<Self, Refusal> {
        let bytes = URL_SAFE_NO_PAD.decode(text).ok();
        let token = bytes.and_then(|bytes| serde_json::from_slice(&bytes).ok());
        token.ok_or_else(|| Refusal::bad_request("continue key is not valid"))
    }
}

/// Where a page begins.
struct Start {
    at: Option<u64>,
    after: Option<String>,
    remaining: Option<u64>,
}

/// The key prefix of a namespace, or of everything.
pub(crate) fn prefix(namespace: &str) -> String {
    if namespace.is_empty() { String::new() } else { format!("{namespace}/") }
}

/// Answers a list request.
pub(crate) fn list(
    store: &Store,
    resource: Arc<ResourceType>,
    namespace: &str,
    params: &Params,
) -> Result<Response, Refusal> {
    let selector = Selector::parse(params, &resource)?;
    let limit = params.limit()?.unwrap_or(usize::MAX);
    let start = start(store, params.at()?)?;
    let range = Range { prefix: prefix(namespace), after: start.after.clone() };
    let page = store
        .scan(&resource.table, &range, start.at, limit, |key, object| selector.matches(key, object))
        .map_err(|error| refuse(&error, &start))?;
    let remaining = if selector.is_empty() { remaining(store, &resource, &range, &start, &page)? } else { None };
    let head = head(&resource, &page, remaining);
    Ok(respond(head, resource, page.items))
}

fn start(store: &Store, at: At) -> Result<Start, Refusal> {
    match at {
        At::Exact(revision) => Ok(Start { at: Some(revision), after: None, remaining: None }),
        At::Newest { not_older_than } => {
            let current = store.revision();
            if not_older_than > current {
                return Err(Refusal::future(not_older_than, current));
            }
            Ok(Start { at: None, after: None, remaining: None })
        }
        At::Continue(token) => {
            let token = Token::decode(&token)?;
            Ok(Start { at: token.revision, after: Some(token.after), remaining: token.remaining })
        }
    }
}

fn refuse(error: &ReadError, start: &Start) -> Refusal {
    match (error, &start.after) {
        (ReadError::Compacted { .. }, Some(after)) => {
            let token = Token { revision: None, after: after.clone(), remaining: None };
            Refusal::expired_token(token.encode())
        }
        _ => Refusal::from_read(error, start.at.unwrap_or_default()),
    }
}

/// How many objects follow the page: counted for the first page, carried on by the tokens.
fn remaining(
    store: &Store,
    resource: &ResourceType,
    range: &Range,
    start: &Start,
    page: &Page,
) -> Result<Option<u64>, Refusal> {
    if !page.more {
        return Ok(None);
    }
    let total = match start.remaining {
        Some(remaining) => remaining,
        None => store.count(&resource.table, range, page.revision).map_err(|error| refuse(&error, start))?,
    };
    Ok(Some(total.saturating_sub(page.items.len() as u64)))
}

fn head(resource: &ResourceType, page: &Page, remaining: Option<u64>) -> Vec<u8> {
    let mut head = format!(
        "{{\"kind\":{kind:?},\"apiVersion\":{version:?},\"metadata\":{{\"resourceVersion\":\"{revision}\"",
        kind = resource.list_kind,
        version = resource.types.api_version,
        revision = page.revision,
    );
    if let (true, Some(last)) = (page.more, page.items.last()) {
        let token = Token { revision: Some(page.revision), after: last.key.to_string(), remaining };
        // Writing to a String cannot fail.
        let _ = write!(head, ",\"continue\":\"{}\"", token.encode());
    }
    if let Some(remaining) = remaining {
        let _ = write!(head, ",\"remainingItemCount\":{remaining}");
    }
    head.push_str("},\"items\":[");
    head.into_bytes()
}

/// The chunks of a list's body.
struct Chunks {
    head: Option<Vec<u8>>,
    items: std::vec::IntoIter<Found>,
    resource: Arc<ResourceType>,
    ended: bool,
}

impl Iterator for Chunks {
    type Item = Result<Bytes, Infallible>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.ended {
            return None;
        }
        let first = self.head.is_some();
        let mut chunk = self.head.take().unwrap_or_default();
        let mut separate = !first;
        for found in self.items.by_ref() {
            if separate {
                chunk.push(b',');
            }
            separate = true;
            found.object.write(&mut chunk, self.resource.item_types(), found.revision);
            if chunk.len() >= CHUNK_BYTES {
                return Some(Ok(chunk.into()));
            }
        }
        self.ended = true;
        chunk.extend_from_slice(b"]}\n");
        Some(Ok(chunk.into()))
    }
}

fn respond(head: Vec<u8>, resource: Arc<ResourceType>, items: Vec<Found>) -> Response {
    let chunks = Chunks { head: Some(head), items: items.into_iter(), resource, ended: false };
    let mut response = Response::new(Body::from_stream(stream::iter(chunks)));
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}

/// A list of `items` as a response, for the deletion of a collection.
pub(crate) fn list_of(resource: Arc<ResourceType>, revision: u64, items: Vec<Found>) -> Response {
    let page = Page { revision, items, more: false };
    respond(head(&resource, &page, None), resource, page.items)
}
