//! One bounded request to an API server.
//!
//! kube's own calls read a body of any length into memory and lose the `Retry-After` header; this is the one place
//! that sends, bounds, and turns every failure into an outcome.

use http::{HeaderMap, Method, Request, StatusCode, header};
use http_body_util::BodyExt;
use kube::{
    client::Body,
    core::{Status, response::StatusDetails},
};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use serde::de::DeserializeOwned;
use stillpoint_api::ResourceType;

use crate::{Error, retry::Retry};

/// Bound of answers that are neither lists nor discovery documents; etcd holds no object half as large.
pub(crate) const MAX_OBJECT_BYTES: usize = 16 << 20;
/// Bound of an error's text.
const MAX_STATUS_BYTES: usize = 1 << 20;

/// What to send; made anew for every attempt.
#[derive(Debug, Clone)]
pub(crate) struct Ask {
    /// What is asked, for errors.
    pub(crate) what: String,
    method: Method,
    /// Path and query.
    target: String,
    accept: &'static str,
    body: Vec<u8>,
    /// Bound of the answer in bytes.
    pub(crate) limit: usize,
}

impl Ask {
    pub(crate) fn get(what: impl Into<String>, target: impl Into<String>, limit: usize) -> Self {
        let (what, target) = (what.into(), target.into());
        Self { what, method: Method::GET, target, accept: "application/json", body: Vec::new(), limit }
    }

    pub(crate) fn post(what: impl Into<String>, target: impl Into<String>, body: Vec<u8>) -> Self {
        Self { method: Method::POST, body, ..Self::get(what, target, MAX_OBJECT_BYTES) }
    }

    pub(crate) fn accepting(self, accept: &'static str) -> Self {
        Self { accept, ..self }
    }

    /// Asks until there is an answer or patience ends.
    pub(crate) async fn send(&self, client: &kube::Client, retry: &Retry) -> Result<Vec<u8>, Error> {
        retry.run(|| retry.within(&self.what, self.once(client))).await
    }

    /// Asks, and reads the answer as JSON.
    pub(crate) async fn json<T: DeserializeOwned>(&self, client: &kube::Client, retry: &Retry) -> Result<T, Error> {
        let body = self.send(client, retry).await?;
        serde_json::from_slice(&body).map_err(|source| Error::Unreadable { what: self.what.clone(), source })
    }

    /// Asks once, without a deadline.
    pub(crate) async fn once(&self, client: &kube::Client) -> Result<Vec<u8>, Error> {
        let failed = |error| Error::from_kube(&self.what, error);
        let response = client.send(self.request()?).await.map_err(failed)?;
        let (head, body) = response.into_parts();
        if head.status.is_success() {
            return read(body, self.limit).await.map_err(failed)?.ok_or_else(|| self.too_large());
        }
        let text = read(body, MAX_STATUS_BYTES).await.map_err(failed)?.unwrap_or_default();
        Err(Error::from_status(self.what.clone(), status(head.status, &head.headers, &text)))
    }

    fn request(&self) -> Result<Request<Body>, Error> {
        Request::builder()
            .method(self.method.clone())
            .uri(&self.target)
            .header(header::ACCEPT, self.accept)
            .header(header::CONTENT_TYPE, "application/json")
            .body(Body::from(self.body.clone()))
            .map_err(|source| Error::Request { what: self.what.clone(), source: source.into() })
    }

    fn too_large(&self) -> Error {
        Error::TooLarge { what: self.what.clone(), limit: self.limit }
    }
}

/// The URL path of a type's objects, in one namespace or wherever they are.
pub(crate) fn collection(resource: &ResourceType, namespace: Option<&str>) -> String {
    let root = if resource.name.group.is_empty() { "/api" } else { "/apis" };
    let plural = &resource.name.resource;
    match namespace {
        Some(namespace) => format!("{root}/{}/namespaces/{}/{plural}", resource.api_version(), segment(namespace)),
        None => format!("{root}/{}/{plural}", resource.api_version()),
    }
}

/// A name as one segment of a path: names of RBAC objects may hold almost any sign.
pub(crate) fn segment(name: &str) -> String {
    const KEPT: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~').remove(b':');
    utf8_percent_encode(name, KEPT).to_string()
}

/// The body, or none where it is longer than `limit`.
async fn read(mut body: Body, limit: usize) -> Result<Option<Vec<u8>>, kube::Error> {
    let mut bytes = Vec::new();
    while let Some(frame) = body.frame().await {
        if let Ok(data) = frame?.into_data() {
            if bytes.len() + data.len() > limit {
                return Ok(None);
            }
            bytes.extend_from_slice(&data);
        }
    }
    Ok(Some(bytes))
}

/// The status that an error's answer holds, or one made of what there is: proxies and the server's own overload
/// protection answer with plain text.
fn status(code: StatusCode, headers: &HeaderMap, text: &[u8]) -> Status {
    let mut status = match serde_json::from_slice::<Status>(text) {
        Ok(status) if status.is_failure() => status,
        _ => Status::failure(String::from_utf8_lossy(text).trim(), ""),
    };
    status.code = code.as_u16();
    let wish = headers.get(header::RETRY_AFTER).and_then(|value| value.to_str().ok()?.parse().ok());
    if let Some(seconds) = wish.filter(|_| status.details.as_ref().is_none_or(|d| d.retry_after_seconds == 0)) {
        let details = status.details.get_or_insert_with(no_details);
        details.retry_after_seconds = seconds;
    }
    status
}

fn no_details() -> StatusDetails {
    StatusDetails {
        name: String::new(),
        group: String::new(),
        kind: String::new(),
        uid: String::new(),
        causes: Vec::new(),
        retry_after_seconds: 0,
    }
}

#[cfg(test)]
mod tests {
    use stillpoint_api::GroupResource;

    use super::*;

    fn answered(code: u16, headers: &[(&'static str, &'static str)], text: &str) -> Status {
        let headers = headers.iter().map(|&(name, value)| (name.parse().unwrap(), value.parse().unwrap())).collect();
        status(StatusCode::from_u16(code).unwrap(), &headers, text.as_bytes())
    }

    fn wish(status: &Status) -> u32 {
        status.details.as_ref().map_or(0, |details| details.retry_after_seconds)
    }

    #[test]
    fn a_refusal_without_a_status_keeps_its_words_and_its_wish() {
        let status = answered(429, &[("retry-after", "2")], "Too many requests, please try again later.\n");
        assert_eq!((status.code, status.message.as_str()), (429, "Too many requests, please try again later."));
        assert_eq!(wish(&status), 2);
        assert_eq!(wish(&answered(503, &[("retry-after", "Wed, 21 Oct 2026 07:28:00 GMT")], "")), 0);
        assert_eq!(answered(502, &[], "<html>").message, "<html>");
    }

    #[test]
    fn a_status_keeps_its_own_wish() {
        let text = r#"{"kind":"Status","status":"Failure","message":"m","reason":"TooManyRequests","code":429,
            "details":{"retryAfterSeconds":5}}"#;
        let status = answered(429, &[("retry-after", "1")], text);
        assert_eq!((wish(&status), status.reason.as_str()), (5, "TooManyRequests"));
    }

    #[test]
    fn paths_are_those_of_the_api() {
        let of = |group: &str, plural: &str| ResourceType {
            name: GroupResource::new(group, plural),
            version: "v1".into(),
            kind: String::new(),
            namespaced: true,
        };
        assert_eq!(collection(&of("", "pods"), Some("shop")), "/api/v1/namespaces/shop/pods");
        assert_eq!(collection(&of("", "pods"), None), "/api/v1/pods");
        assert_eq!(collection(&of("apps", "deployments"), Some("shop")), "/apis/apps/v1/namespaces/shop/deployments");
    }

    #[test]
    fn a_name_with_signs_stays_one_segment() {
        assert_eq!(segment("system:node/a?b#c%d e"), "system:node%2Fa%3Fb%23c%25d%20e");
        assert_eq!(segment("web-1.example_x~"), "web-1.example_x~");
    }
}
