//! What can come of asking an API server, as outcomes that a caller can act on.
//!
//! Every variant names what was asked. Whether another attempt may help is decided here and nowhere else
//! ([`Error::is_transient`]), so that no caller has an opinion of its own about a status code.

use std::time::Duration;

use kube::core::{Status, response::reason};

/// A cause from the layers below: sockets, TLS, HTTP.
pub(crate) type Cause = Box<dyn std::error::Error + Send + Sync>;

/// Why a question to an API server has no answer, or why a scope cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The revision, or the list that was being read at it, has been compacted away: take a new cut.
    #[error("{what}: the revision is no longer kept by the server ({message}); read everything again at a new one")]
    Expired {
        /// What was asked.
        what: String,
        /// The server's words.
        message: String,
    },
    /// The server knows who asks and does not allow it.
    #[error("{what}: not allowed: {message}")]
    Forbidden {
        /// What was asked.
        what: String,
        /// The server's words.
        message: String,
    },
    /// The server does not accept the credentials, or they could not be obtained.
    #[error("{what}: the credentials are not accepted: {message}; check the kubeconfig's user")]
    Unauthorized {
        /// What was asked.
        what: String,
        /// The server's words.
        message: String,
    },
    /// There is no such type or object.
    #[error("{what}: not found: {message}")]
    NotFound {
        /// What was asked.
        what: String,
        /// The server's words.
        message: String,
    },
    /// The type does not support the verb.
    #[error("{what}: not supported: {message}")]
    MethodNotSupported {
        /// What was asked.
        what: String,
        /// The server's words.
        message: String,
    },
    /// An object of that name exists.
    #[error("{what}: it exists already: {message}")]
    AlreadyExists {
        /// What was asked.
        what: String,
        /// The server's words.
        message: String,
    },
    /// The list came from a store that does not share the revision.
    #[error("{what}: served revision {served} instead of {asked}; the type is kept in another store")]
    OtherStore {
        /// What was asked.
        what: String,
        /// The revision that was asked for.
        asked: u64,
        /// The revision that came, as the server wrote it.
        served: String,
    },
    /// The server listed a part and did not say how many objects remain.
    #[error("{what}: the server does not say how many objects remain, so they cannot be counted apart from the list")]
    Uncounted {
        /// What was asked.
        what: String,
    },
    /// The answer is longer than allowed.
    #[error("{what}: the answer is longer than {limit} bytes")]
    TooLarge {
        /// What was asked.
        what: String,
        /// The bound in bytes.
        limit: usize,
    },
    /// The server could not be reached, or the connection broke.
    #[error("{what}: the API server cannot be reached: {}; check it and the way to it", innermost(source.as_ref()))]
    Unreachable {
        /// What was asked.
        what: String,
        /// The cause.
        #[source]
        source: Cause,
    },
    /// The connection is not trusted, or its setup is refused in a way that no second attempt changes.
    #[error("{what}: no trusted connection to the API server: {}; check the kubeconfig's cluster", innermost(source.as_ref()))]
    Untrusted {
        /// What was asked.
        what: String,
        /// The cause.
        #[source]
        source: Cause,
    },
    /// No answer came in time.
    #[error("{what}: no answer from the API server within {} s; check it and the way to it", after.as_secs())]
    TimedOut {
        /// What was asked.
        what: String,
        /// How long one attempt may take.
        after: Duration,
    },
    /// Any other refusal.
    #[error("{what}: the server refuses with {}: {}", status.code, words(status))]
    Api {
        /// What was asked.
        what: String,
        /// The server's answer.
        status: Box<Status>,
    },
    /// The answer is no JSON, or not of the shape that was asked for.
    #[error("{what}: the answer cannot be understood")]
    Unreadable {
        /// What was asked.
        what: String,
        /// Why.
        #[source]
        source: serde_json::Error,
    },
    /// The request could not be made from what was given.
    #[error("{what}: no request can be made of it")]
    Request {
        /// What was asked.
        what: String,
        /// Why.
        #[source]
        source: Cause,
    },
    /// A task ended without an answer: it panicked, or the program is stopping.
    #[error("{what}: ended without an answer")]
    Ended {
        /// What was asked.
        what: String,
        /// Why.
        #[source]
        source: tokio::task::JoinError,
    },
    /// A glob of the scope cannot be read.
    #[error("{pattern:?} is no usable pattern")]
    Pattern {
        /// The pattern.
        pattern: String,
        /// Why.
        #[source]
        source: globset::Error,
    },
    /// The scope's label selector cannot be read.
    #[error("{selector:?} is no label selector: {reason}")]
    Selector {
        /// The selector.
        selector: String,
        /// What is wrong with it.
        reason: String,
    },
}

impl Error {
    /// The outcome of a kube call, described as `what` ("create deployments.apps/shop/web").
    pub fn from_kube(what: &str, error: kube::Error) -> Self {
        let what = what.to_owned();
        match error {
            kube::Error::Api(status) => Self::from_status(what, *status),
            kube::Error::SerdeError(source) => Self::Unreadable { what, source },
            kube::Error::Auth(error) => Self::Unauthorized { what, message: error.to_string() },
            kube::Error::BuildRequest(error) => Self::Request { what, source: error.into() },
            kube::Error::Service(source) => Self::from_connection(what, source),
            other => Self::from_connection(what, other.into()),
        }
    }

    /// The outcome that a status of the server means.
    pub(crate) fn from_status(what: String, status: Status) -> Self {
        let message = words(&status);
        match (status.reason.as_str(), status.code) {
            (reason::EXPIRED | reason::GONE, _) | (_, 410) => Self::Expired { what, message },
            (reason::ALREADY_EXISTS, _) => Self::AlreadyExists { what, message },
            (_, 401) => Self::Unauthorized { what, message },
            (_, 403) => Self::Forbidden { what, message },
            (_, 404) => Self::NotFound { what, message },
            (_, 405) => Self::MethodNotSupported { what, message },
            _ => Self::Api { what, status: status.boxed() },
        }
    }

    fn from_connection(what: String, source: Cause) -> Self {
        if let Some(auth) = causes(source.as_ref()).find_map(|cause| cause.downcast_ref::<kube::client::AuthError>()) {
            return Self::Unauthorized { what, message: auth.to_string() };
        }
        let hopeless = causes(source.as_ref())
            .filter_map(|cause| cause.downcast_ref::<std::io::Error>())
            // a certificate that does not verify arrives as invalid data
            .any(|error| matches!(error.kind(), std::io::ErrorKind::InvalidData | std::io::ErrorKind::InvalidInput));
        if hopeless { Self::Untrusted { what, source } } else { Self::Unreachable { what, source } }
    }

    /// Whether the same question may be answered if it is asked again.
    pub fn is_transient(&self) -> bool {
        match self {
            Self::Unreachable { .. } | Self::TimedOut { .. } => true,
            Self::Api { status, .. } => match status.code {
                429 => true,
                501 => false,
                // a revision that the server has not seen does not come nearer by asking
                504 => !is_future_revision(status),
                // its policy is to refuse where it does not answer, and that is an answer
                500 if is_failing_webhook(status) => false,
                code => (500..600).contains(&code) && !is_future_revision(status),
            },
            _ => false,
        }
    }

    /// How long the server asks to wait before the next attempt.
    pub fn retry_after(&self) -> Option<Duration> {
        let Self::Api { status, .. } = self else { return None };
        let seconds = status.details.as_ref()?.retry_after_seconds;
        (seconds > 0).then(|| Duration::from_secs(seconds.into()))
    }
}

fn is_failing_webhook(status: &Status) -> bool {
    status.message.contains("failed calling webhook")
}

fn is_future_revision(status: &Status) -> bool {
    let causes = status.details.iter().flat_map(|details| &details.causes);
    causes.into_iter().any(|cause| cause.reason == "ResourceVersionTooLarge")
        || status.message.contains("Too large resource version")
        || status.message.contains("required revision is a future revision")
}

/// The server's words, or its code where it had none.
fn words(status: &Status) -> String {
    match (status.message.trim(), status.reason.as_str()) {
        ("", "") => format!("HTTP status {}", status.code),
        ("", reason) => reason.to_owned(),
        // some proxies answer with a page
        (message, _) => message.chars().take(1000).collect(),
    }
}

fn causes<'a>(
    error: &'a (dyn std::error::Error + Send + Sync + 'static),
) -> impl Iterator<Item = &'a (dyn std::error::Error + 'static)> {
    let first: &(dyn std::error::Error + 'static) = error;
    std::iter::successors(Some(first), |error| match error.downcast_ref::<std::io::Error>() {
        // its source is its inner error's source, not the inner error itself
        Some(io) => io.get_ref().map(|inner| inner as &(dyn std::error::Error + 'static)),
        None => error.source(),
    })
}

/// The last cause of a chain: the outer ones only say "client error".
fn innermost(error: &(dyn std::error::Error + Send + Sync + 'static)) -> String {
    match causes(error).last() {
        Some(cause) if cause.is::<tokio::time::error::Elapsed>() => "it does not answer".to_owned(),
        cause => cause.map(ToString::to_string).unwrap_or_default(),
    }
}

#[cfg(test)]
mod tests {
    use kube::core::response::{StatusCause, StatusDetails};

    use super::*;

    fn status(code: u16, reason: &str) -> Status {
        Status::failure("said so", reason).with_code(code)
    }

    fn of(code: u16, reason: &str) -> Error {
        Error::from_status("list pods.core".into(), status(code, reason))
    }

    fn details(cause: &str, retry_after_seconds: u32) -> StatusDetails {
        let cause = StatusCause { reason: cause.into(), message: String::new(), field: String::new() };
        let empty = String::new;
        let causes = vec![cause];
        StatusDetails { name: empty(), group: empty(), kind: empty(), uid: empty(), causes, retry_after_seconds }
    }

    #[test]
    fn each_refusal_is_an_outcome_in_the_servers_words() {
        assert!(matches!(of(410, "Expired"), Error::Expired { .. }));
        assert!(matches!(of(410, "Gone"), Error::Expired { .. }));
        assert!(matches!(of(401, "Unauthorized"), Error::Unauthorized { .. }));
        assert!(matches!(of(403, "Forbidden"), Error::Forbidden { .. }));
        assert!(matches!(of(404, "NotFound"), Error::NotFound { .. }));
        assert!(matches!(of(405, "MethodNotAllowed"), Error::MethodNotSupported { .. }));
        assert!(matches!(of(409, "AlreadyExists"), Error::AlreadyExists { .. }));
        assert!(matches!(of(409, "Conflict"), Error::Api { .. }));
        assert_eq!(of(403, "Forbidden").to_string(), "list pods.core: not allowed: said so");
        assert_eq!(of(422, "Invalid").to_string(), "list pods.core: the server refuses with 422: said so");
    }

    #[test]
    fn only_what_may_be_answered_later_is_asked_again() {
        for (code, reason, expected) in [
            (429, "TooManyRequests", true),
            (500, "InternalError", true),
            (502, "", true),
            (503, "ServiceUnavailable", true),
            (504, "Timeout", true),
            (501, "", false),
            (400, "BadRequest", false),
            (401, "Unauthorized", false),
            (403, "Forbidden", false),
            (404, "NotFound", false),
            (409, "Conflict", false),
            (410, "Expired", false),
            (422, "Invalid", false),
        ] {
            assert_eq!(of(code, reason).is_transient(), expected, "{code}");
        }
    }

    #[test]
    fn a_revision_that_the_server_has_not_seen_is_not_waited_for() {
        let too_large = status(504, "Timeout").with_details(details("ResourceVersionTooLarge", 1));
        assert!(!Error::from_status("list".into(), too_large).is_transient());
        let future = Status::failure("etcdserver: mvcc: required revision is a future revision", "").with_code(500);
        assert!(!Error::from_status("list".into(), future).is_transient());
    }

    #[test]
    fn a_webhook_that_fails_has_refused() {
        let message = "Internal error occurred: failed calling webhook \"policy.example.com\": no endpoints available";
        let failing = Status::failure(message, "InternalError").with_code(500);
        assert!(!Error::from_status("create".into(), failing).is_transient());
    }

    #[test]
    fn the_servers_wish_to_wait_is_known() {
        let busy = status(429, "TooManyRequests").with_details(details("", 3));
        assert_eq!(Error::from_status("list".into(), busy).retry_after(), Some(Duration::from_secs(3)));
        assert_eq!(of(429, "TooManyRequests").retry_after(), None);
    }

    #[test]
    fn a_certificate_that_is_not_trusted_is_told_from_a_broken_connection() {
        let of = |kind: std::io::ErrorKind| {
            let inner = std::io::Error::new(kind, "the cause");
            Error::from_kube("list", kube::Error::Service(Box::new(std::io::Error::other(inner))))
        };
        let broken = of(std::io::ErrorKind::ConnectionRefused);
        assert!(matches!(broken, Error::Unreachable { .. }) && broken.is_transient());
        assert!(broken.to_string().ends_with("cannot be reached: the cause; check it and the way to it"), "{broken}");
        let untrusted = of(std::io::ErrorKind::InvalidData);
        assert!(matches!(untrusted, Error::Untrusted { .. }) && !untrusted.is_transient());
    }
}
