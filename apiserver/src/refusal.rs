//! A request that is not granted, as the `Status` object that Kubernetes clients understand.
//!
//! One constructor per reason of the API, with the wording of real servers where tools are known to read it.

use std::fmt;

use axum::{
    body::Body,
    response::{IntoResponse, Response},
};
use http::{HeaderValue, StatusCode, header};
use serde::Serialize;
use serde_json::{Value, json};

use crate::{
    store::{ReadError, WriteError},
    types::ResourceType,
};

/// One field that is not acceptable.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct Cause {
    reason: &'static str,
    message: String,
    field: String,
}

impl Cause {
    pub(crate) fn invalid(field: impl Into<String>, value: &str, why: &str) -> Self {
        let message = format!("Invalid value: {value:?}: {why}");
        Self { reason: "FieldValueInvalid", message, field: field.into() }
    }

    pub(crate) fn required(field: impl Into<String>, why: &str) -> Self {
        let message = if why.is_empty() { "Required value".to_owned() } else { format!("Required value: {why}") };
        Self { reason: "FieldValueRequired", message, field: field.into() }
    }

    pub(crate) fn forbidden(field: impl Into<String>, why: &str) -> Self {
        Self { reason: "FieldValueForbidden", message: format!("Forbidden: {why}"), field: field.into() }
    }

    pub(crate) fn too_long(field: impl Into<String>, limit: usize) -> Self {
        let message = format!("Too long: may not be more than {limit} bytes");
        Self { reason: "FieldValueTooLong", message, field: field.into() }
    }

    pub(crate) fn not_supported(field: impl Into<String>, value: &str, supported: &[&str]) -> Self {
        let supported: Vec<String> = supported.iter().map(|s| format!("{s:?}")).collect();
        let message = format!("Unsupported value: {value:?}: supported values: {}", supported.join(", "));
        Self { reason: "FieldValueNotSupported", message, field: field.into() }
    }
}

/// Why a request is not granted.
#[derive(Debug)]
pub(crate) struct Refusal {
    code: StatusCode,
    reason: &'static str,
    message: String,
    details: Value,
    /// The token with which an expired list may go on, inconsistently.
    continue_token: Option<String>,
}

impl Refusal {
    fn new(code: StatusCode, reason: &'static str, message: impl Into<String>) -> Self {
        Self { code, reason, message: message.into(), details: Value::Null, continue_token: None }
    }

    fn about(self, resource: &ResourceType, name: &str) -> Self {
        let details = json!({"name": name, "group": resource.group, "kind": resource.plural});
        Self { details, ..self }
    }

    pub(crate) fn with_message(self, message: String) -> Self {
        Self { message, ..self }
    }

    pub(crate) fn bad_request(message: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "BadRequest", message)
    }

    pub(crate) fn unauthorized() -> Self {
        Self::new(StatusCode::UNAUTHORIZED, "Unauthorized", "Unauthorized")
    }

    pub(crate) fn no_such_path() -> Self {
        Self::new(StatusCode::NOT_FOUND, "NotFound", "the server could not find the requested resource")
    }

    pub(crate) fn not_found(resource: &ResourceType, name: &str) -> Self {
        let message = format!("{} {name:?} not found", resource.qualified());
        Self::new(StatusCode::NOT_FOUND, "NotFound", message).about(resource, name)
    }

    fn guard_not_found(resource: &ResourceType, guard: &str) -> Self {
        if guard == resource.qualified() {
            return Self::no_such_path();
        }
        let refusal = Self::new(StatusCode::NOT_FOUND, "NotFound", format!("namespaces {guard:?} not found"));
        Self { details: json!({"name": guard, "kind": "namespaces"}), ..refusal }
    }

    fn guard_deleting(resource: &ResourceType, name: &str, guard: &str) -> Self {
        if guard == resource.qualified() {
            let why = "create not allowed while custom resource definition is terminating";
            return Self::new(StatusCode::METHOD_NOT_ALLOWED, "MethodNotAllowed", why);
        }
        let why = format!("unable to create new content in namespace {guard} because it is being terminated");
        let mut refusal = Self::forbidden(resource, name, &why);
        refusal.details["causes"] = json!([{
            "reason": "NamespaceTerminating",
            "message": format!("namespace {guard} is being terminated"),
            "field": "metadata.namespace",
        }]);
        refusal
    }

    pub(crate) fn already_exists(resource: &ResourceType, name: &str) -> Self {
        let message = format!("{} {name:?} already exists", resource.qualified());
        Self::new(StatusCode::CONFLICT, "AlreadyExists", message).about(resource, name)
    }

    pub(crate) fn conflict(resource: &ResourceType, name: &str, why: &str) -> Self {
        let message = format!("Operation cannot be fulfilled on {} {name:?}: {why}", resource.qualified());
        Self::new(StatusCode::CONFLICT, "Conflict", message).about(resource, name)
    }

    pub(crate) fn modified(resource: &ResourceType, name: &str) -> Self {
        let why = "the object has been modified; please apply your changes to the latest version and try again";
        Self::conflict(resource, name, why)
    }

    pub(crate) fn forbidden(resource: &ResourceType, name: &str, why: &str) -> Self {
        let message = format!("{} {name:?} is forbidden: {why}", resource.qualified());
        Self::new(StatusCode::FORBIDDEN, "Forbidden", message).about(resource, name)
    }

    /// 422 for an object, naming every field.
    pub(crate) fn invalid(resource: &ResourceType, name: &str, causes: &[Cause]) -> Self {
        let kind = match resource.group.as_str() {
            "" => resource.kind().to_owned(),
            group => format!("{}.{group}", resource.kind()),
        };
        let mut refusal = Self::unprocessable(&format!("{kind} {name:?} is invalid"), causes);
        refusal.details["name"] = name.into();
        refusal.details["group"] = resource.group.as_str().into();
        refusal.details["kind"] = resource.kind().into();
        refusal
    }

    /// 422 for the options of a list.
    pub(crate) fn invalid_list_options(cause: Cause) -> Self {
        let mut refusal = Self::unprocessable("ListOptions.meta.k8s.io \"\" is invalid", &[cause]);
        refusal.details["group"] = "meta.k8s.io".into();
        refusal.details["kind"] = "ListOptions".into();
        refusal
    }

    fn unprocessable(what: &str, causes: &[Cause]) -> Self {
        let each: Vec<String> = causes.iter().map(|c| format!("{}: {}", c.field, c.message)).collect();
        let all = if let [one] = each.as_slice() { one.clone() } else { format!("[{}]", each.join(", ")) };
        let refusal = Self::new(StatusCode::UNPROCESSABLE_ENTITY, "Invalid", format!("{what}: {all}"));
        Self { details: json!({"causes": causes}), ..refusal }
    }

    /// 422 for a patch that does not apply.
    pub(crate) fn unprocessable_patch(message: impl Into<String>) -> Self {
        Self::new(StatusCode::UNPROCESSABLE_ENTITY, "Invalid", message)
    }

    pub(crate) fn method_not_allowed() -> Self {
        let message = "the server does not allow this method on the requested resource";
        Self::new(StatusCode::METHOD_NOT_ALLOWED, "MethodNotAllowed", message)
    }

    pub(crate) fn not_acceptable() -> Self {
        let message = "only the following media types are accepted: application/json";
        Self::new(StatusCode::NOT_ACCEPTABLE, "NotAcceptable", message)
    }

    pub(crate) fn unsupported_media_type(sent: &str, accepted: &str) -> Self {
        let message = format!(
            "the body of the request was in an unknown format ({sent:?}) - accepted media types include: {accepted}"
        );
        Self::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, "UnsupportedMediaType", message)
    }

    pub(crate) fn body_too_large(limit: usize) -> Self {
        let message = format!("Request entity too large: limit is {limit}");
        Self::new(StatusCode::PAYLOAD_TOO_LARGE, "RequestEntityTooLarge", message)
    }

    pub(crate) fn timeout(message: &str) -> Self {
        Self::new(StatusCode::GATEWAY_TIMEOUT, "Timeout", message)
    }

    pub(crate) fn internal(message: &str) -> Self {
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, "InternalError", message)
    }

    /// 410: the history that the request needs was compacted away.
    pub(crate) fn expired(message: impl Into<String>) -> Self {
        Self::new(StatusCode::GONE, "Expired", message)
    }

    /// 410 for a continue token, with a token that goes on at the newest revision.
    pub(crate) fn expired_token(continue_token: String) -> Self {
        let message = "The provided continue parameter is too old to display a consistent list result. You can start \
             a new list without the continue parameter, or use the continue token in this response to retrieve the \
             remainder of the results. Continuing with the provided token results in an inconsistent list - objects \
             that were created, modified, or deleted between the time the first chunk was returned and now may show \
             up in the list.";
        Self { continue_token: Some(continue_token), ..Self::expired(message) }
    }

    /// 504: the request names a revision that does not exist yet.
    pub(crate) fn future(revision: u64, current: u64) -> Self {
        let message = format!("Too large resource version: {revision}, current: {current}");
        let refusal = Self::new(StatusCode::GATEWAY_TIMEOUT, "Timeout", format!("Timeout: {message}"));
        let cause = json!({"reason": "ResourceVersionTooLarge", "message": "Too large resource version"});
        Self { details: json!({"causes": [cause], "retryAfterSeconds": 1}), ..refusal }
    }

    /// What a list at `revision` is answered when the store refuses it.
    pub(crate) fn from_read(error: &ReadError, revision: u64) -> Self {
        match *error {
            ReadError::Future { current } => Self::future(revision, current),
            ReadError::Compacted { .. } => Self::expired("The resourceVersion for the provided list is too old."),
        }
    }

    /// What a write is answered when the store refuses it.
    pub(crate) fn from_write(error: WriteError, resource: &ResourceType, name: &str) -> Self {
        match error {
            WriteError::Exists => Self::already_exists(resource, name),
            WriteError::Absent => Self::not_found(resource, name),
            WriteError::Changed => Self::modified(resource, name),
            WriteError::GuardAbsent(guard) => Self::guard_not_found(resource, &guard),
            WriteError::GuardDeleting(guard) => Self::guard_deleting(resource, name, &guard),
            WriteError::Full => Self::internal("etcdserver: mvcc: database space exceeded"),
        }
    }

    pub(crate) fn is_not_found(&self) -> bool {
        self.code == StatusCode::NOT_FOUND
    }

    /// The `Status` object.
    pub(crate) fn status(&self) -> Value {
        let mut metadata = json!({});
        if let Some(token) = &self.continue_token {
            metadata["continue"] = token.as_str().into();
        }
        let mut status = json!({
            "kind": "Status",
            "apiVersion": "v1",
            "metadata": metadata,
            "status": "Failure",
            "message": self.message,
            "reason": self.reason,
            "code": self.code.as_u16(),
        });
        if !self.details.is_null() {
            status["details"] = self.details.clone();
        }
        status
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({})", self.message, self.code.as_u16())
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        json_response(self.code, self.status().to_string().into_bytes())
    }
}

/// A response with a JSON body.
pub(crate) fn json_response(code: StatusCode, body: Vec<u8>) -> Response {
    let mut response = Response::new(Body::from(body));
    *response.status_mut() = code;
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}
