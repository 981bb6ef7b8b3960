//! Turns what a store says into an outcome that a caller can act on.
//!
//! Providers have other words for the same thing, and the library puts them into sentences; both are read here and
//! nowhere else.

use std::io::ErrorKind;

use object_store::{
    Error as StoreError,
    client::{HttpError, HttpErrorKind},
};
use serde::Deserialize;

use super::{
    connect::{chain, innermost},
    http::Hopeless,
    place::Place,
};
use crate::Error;

/// How the library begins to quote an answer.
const QUOTE: &str = "Server returned non-2xx status code: ";
/// Characters of an answer that are shown.
const SHOWN: usize = 300;

/// What was to be done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Act {
    Read,
    Write,
    Create,
    Delete,
}

/// A refusal by a server, which all providers write alike.
#[derive(Debug, PartialEq, Eq)]
struct Answer {
    status: u16,
    code: String,
    message: String,
}

#[derive(Deserialize)]
struct Body {
    #[serde(rename = "Code")]
    code: String,
    #[serde(rename = "Message", default)]
    message: String,
}

impl Answer {
    fn parse(text: &str) -> Option<Self> {
        let (status, body) = text.strip_prefix(QUOTE)?.split_once(": ")?;
        let status = status.split(' ').next()?.parse().ok()?;
        let shown = |text: &str| text.lines().next().unwrap_or_default().chars().take(SHOWN).collect();
        Some(match quick_xml::de::from_str::<Body>(body) {
            Ok(body) => Self { status, message: shown(&body.message), code: body.code },
            Err(_) => Self { status, code: String::new(), message: shown(body) },
        })
    }

    fn says_full(&self) -> bool {
        self.status == 507 || ["QuotaExceeded", "StorageFull"].iter().any(|word| self.code.contains(word))
    }

    fn says_no_bucket(&self) -> bool {
        matches!(self.code.as_str(), "NoSuchBucket" | "ContainerNotFound" | "ContainerBeingDeleted")
    }

    /// Whether it is the time of a request, rather than its signature, that was refused.
    fn says_other_time(&self) -> bool {
        self.code == "RequestTimeTooSkewed" || self.message.contains("Request date header too old")
    }

    /// Whether it is a right that is missing, rather than proof of who we are.
    fn says_forbidden(&self) -> bool {
        let of_identity =
            ["InvalidAccessKeyId", "SignatureDoesNotMatch", "ExpiredToken", "InvalidToken", "AuthenticationFailed"];
        // Azurite calls a wrong signature AuthorizationFailure, Azure's word for a missing right
        let unsigned = of_identity.contains(&self.code.as_str()) || self.message.contains("failed to authenticate");
        self.status == 403 && !unsigned
    }

    fn says_immutable(&self) -> bool {
        self.code.starts_with("BlobImmutable")
    }

    fn words(&self) -> String {
        [self.status.to_string(), self.code.clone(), self.message.clone()]
            .into_iter()
            .filter(|part| !part.is_empty())
            .collect::<Vec<_>>()
            .join(" ")
    }
}

/// The outcome of something that failed.
pub(super) fn classify(place: &Place, act: Act, path: &str, error: StoreError) -> Error {
    let (store, path) = (place.to_string(), path.to_owned());
    let text = innermost(&error);
    if let Some(answer) = Answer::parse(&text) {
        return answered(store, act, path, &answer, error);
    }
    if let Some(kind) = find::<std::io::Error>(&error).map(std::io::Error::kind) {
        match kind {
            ErrorKind::StorageFull | ErrorKind::QuotaExceeded => {
                return Error::Full { store, path, reason: text, source: error.into() };
            }
            ErrorKind::ReadOnlyFilesystem => {
                return Error::ReadOnly { store, path, reason: text, source: error.into() };
            }
            ErrorKind::PermissionDenied if act != Act::Read => {
                return Error::ReadOnly { store, path, reason: text, source: error.into() };
            }
            ErrorKind::PermissionDenied => {
                return Error::AccessDenied { store, path, reason: text, source: error.into() };
            }
            _ => {}
        }
    }
    if is_connection_error(&error) || find::<Hopeless>(&error).is_some() {
        return unreachable(place, text, error.into());
    }
    match error {
        StoreError::NotFound { .. } => Error::FileMissing { store, path },
        StoreError::AlreadyExists { .. } | StoreError::Precondition { .. } => Error::FileExists { store, path },
        StoreError::PermissionDenied { .. } | StoreError::Unauthenticated { .. } => {
            Error::AccessDenied { store, path, reason: text, source: error.into() }
        }
        _ => Error::Store { store, path, reason: text, source: error.into() },
    }
}

fn answered(store: String, act: Act, path: String, answer: &Answer, error: StoreError) -> Error {
    let reason = answer.words();
    let source = error.into();
    match answer.status {
        _ if answer.says_no_bucket() => Error::BucketAbsent { store },
        _ if answer.says_full() => Error::Full { store, path, reason, source },
        _ if answer.says_other_time() => Error::Clock { store, source },
        _ if act != Act::Read && (answer.says_forbidden() || answer.says_immutable()) => {
            Error::ReadOnly { store, path, reason, source }
        }
        401 | 403 => Error::AccessDenied { store, path, reason, source },
        404 => Error::FileMissing { store, path },
        409 | 412 if act == Act::Create => Error::FileExists { store, path },
        _ => Error::Store { store, path, reason, source },
    }
}

/// The outcome where nobody answered: no server, or nobody who knows who we are.
pub(super) fn unreachable(place: &Place, reason: String, source: crate::Cause) -> Error {
    let store = place.to_string();
    match place.missing_credentials() {
        Some(hint) => Error::NoCredentials { store, hint, source },
        None => Error::Unreachable { store, reason, source },
    }
}

/// The first error of type `T` in a chain of causes.
fn find<'a, T: std::error::Error + 'static>(error: &'a (dyn std::error::Error + 'static)) -> Option<&'a T> {
    chain(error).find_map(|error| error.downcast_ref())
}

/// Whether a server was not reached at all, as opposed to answering with an error.
fn is_connection_error(error: &(dyn std::error::Error + 'static)) -> bool {
    use HttpErrorKind::{Connect, Interrupted, Request, Timeout};
    find::<HttpError>(error).is_some_and(|error| matches!(error.kind(), Connect | Request | Timeout | Interrupted))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn quoted(status: &str, body: &str) -> StoreError {
        StoreError::Generic { store: "test", source: format!("{QUOTE}{status}: {body}").into() }
    }

    fn outcome(act: Act, status: &str, code: &str) -> Error {
        let body = format!("<?xml version=\"1.0\"?><Error><Code>{code}</Code><Message>why\nand more</Message></Error>");
        classify(&Place::other("test://store".into()), act, "config", quoted(status, &body))
    }

    #[test]
    fn the_words_of_all_providers_become_the_same_outcomes() {
        use Act::{Create, Delete, Read, Write};
        assert!(matches!(outcome(Read, "404 Not Found", "NoSuchBucket"), Error::BucketAbsent { .. }));
        assert!(matches!(outcome(Write, "404 Not Found", "ContainerNotFound"), Error::BucketAbsent { .. }));
        assert!(matches!(outcome(Read, "404 Not Found", "BlobNotFound"), Error::FileMissing { .. }));
        assert!(matches!(outcome(Create, "409 Conflict", "BlobAlreadyExists"), Error::FileExists { .. }));
        assert!(matches!(outcome(Create, "412 Precondition Failed", "x"), Error::FileExists { .. }));
        assert!(matches!(outcome(Write, "409 Conflict", "OperationAborted"), Error::Store { .. }));
        assert!(matches!(outcome(Read, "403 Forbidden", "AccessDenied"), Error::AccessDenied { .. }));
        assert!(matches!(outcome(Write, "403 Forbidden", "AccessDenied"), Error::ReadOnly { .. }));
        assert!(matches!(outcome(Write, "403 Forbidden", "ExpiredToken"), Error::AccessDenied { .. }));
        assert!(matches!(outcome(Delete, "409 Conflict", "BlobImmutableDueToPolicy"), Error::ReadOnly { .. }));
        assert!(matches!(outcome(Read, "403 Forbidden", "RequestTimeTooSkewed"), Error::Clock { .. }));
        assert!(matches!(outcome(Write, "507 Insufficient Storage", "XMinioStorageFull"), Error::Full { .. }));
        assert!(matches!(outcome(Write, "403 Forbidden", "QuotaExceeded"), Error::Full { .. }));
    }

    #[test]
    fn an_answer_is_shown_in_one_short_line() {
        let message = outcome(Act::Read, "400 Bad Request", "AuthorizationHeaderMalformed").to_string();
        assert_eq!(message, "test://store failed at config: 400 AuthorizationHeaderMalformed why");
        let page = "x".repeat(100_000);
        let long =
            classify(&Place::other("test://store".into()), Act::Read, "config", quoted("502 Bad Gateway", &page));
        assert!(long.to_string().len() < 400, "{long}");
    }

    #[test]
    fn a_full_and_a_read_only_file_system_have_outcomes_of_their_own() {
        let outcome = |act, kind: ErrorKind| {
            let error = StoreError::Generic { store: "local", source: Box::new(std::io::Error::from(kind)) };
            classify(&Place::other("/srv".into()), act, "config", error)
        };
        assert!(matches!(outcome(Act::Write, ErrorKind::StorageFull), Error::Full { .. }));
        assert!(matches!(outcome(Act::Write, ErrorKind::QuotaExceeded), Error::Full { .. }));
        assert!(matches!(outcome(Act::Write, ErrorKind::ReadOnlyFilesystem), Error::ReadOnly { .. }));
        assert!(matches!(outcome(Act::Delete, ErrorKind::PermissionDenied), Error::ReadOnly { .. }));
        assert!(matches!(outcome(Act::Read, ErrorKind::PermissionDenied), Error::AccessDenied { .. }));
    }
}
