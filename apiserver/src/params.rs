//! The query parameters of the API, read once into types.
//!
//! Unknown parameters are ignored, as real servers do; a known one with a senseless value is refused.

use axum::extract::Query;
use http::Uri;
use serde::Deserialize;

use crate::{
    refusal::{Cause, Refusal},
    store::Mode,
};

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct Params {
    pub(crate) label_selector: Option<String>,
    pub(crate) field_selector: Option<String>,
    limit: Option<String>,
    #[serde(rename = "continue")]
    continue_token: Option<String>,
    resource_version: Option<String>,
    resource_version_match: Option<String>,
    watch: Option<String>,
    allow_watch_bookmarks: Option<String>,
    send_initial_events: Option<String>,
    timeout_seconds: Option<String>,
    dry_run: Option<String>,
}

/// Which state a list shall show.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum At {
    /// The newest, which is at or after any revision asked for.
    Newest { not_older_than: u64 },
    /// Exactly this revision.
    Exact(u64),
    /// The next page of a list.
    Continue(String),
}

impl Params {
    pub(crate) fn parse(uri: &Uri) -> Result<Self, Refusal> {
        let query = Query::<Self>::try_from_uri(uri);
        query.map(|Query(params)| params).map_err(|error| Refusal::bad_request(error.body_text()))
    }

    pub(crate) fn is_watch(&self) -> bool {
        is_true(self.watch.as_deref())
    }

    pub(crate) fn wants_bookmarks(&self) -> bool {
        is_true(self.allow_watch_bookmarks.as_deref())
    }

    pub(crate) fn wants_initial_events(&self) -> Option<bool> {
        self.send_initial_events.as_deref().map(|value| is_true(Some(value)))
    }

    pub(crate) fn timeout_seconds(&self) -> Result<Option<u64>, Refusal> {
        number("timeoutSeconds", self.timeout_seconds.as_deref())
    }

    /// The page size; `None` for no limit.
    pub(crate) fn limit(&self) -> Result<Option<usize>, Refusal> {
        let limit = number("limit", self.limit.as_deref())?.filter(|limit| *limit > 0);
        Ok(limit.map(|limit| usize::try_from(limit).unwrap_or(usize::MAX)))
    }

    /// The resourceVersion; `None` if unset or empty.
    pub(crate) fn resource_version(&self) -> Result<Option<u64>, Refusal> {
        number("resourceVersion", self.resource_version.as_deref())
    }

    pub(crate) fn mode(&self) -> Result<Mode, Refusal> {
        match non_empty(self.dry_run.as_deref()) {
            None => Ok(Mode::Commit),
            Some("All") => Ok(Mode::DryRun),
            Some(other) => {
                Err(Refusal::bad_request(format!("dryRun: Unsupported value: {other:?}: supported values: \"All\"")))
            }
        }
    }

    /// The combination of continue, resourceVersion, resourceVersionMatch and limit, judged as real servers do.
    pub(crate) fn at(&self) -> Result<At, Refusal> {
        let matching = non_empty(self.resource_version_match.as_deref());
        let version = self.resource_version()?;
        if let Some(token) = non_empty(self.continue_token.as_deref()) {
            return continue_at(token, version, matching);
        }
        match (matching, version) {
            (None, None) => Ok(At::Newest { not_older_than: 0 }),
            (Some(_), None) => {
                Err(match_forbidden("resourceVersionMatch is forbidden unless resourceVersion is provided"))
            }
            (Some("Exact"), Some(0)) => {
                Err(match_forbidden("resourceVersionMatch \"Exact\" is forbidden for resourceVersion \"0\""))
            }
            (Some("Exact"), Some(revision)) => Ok(At::Exact(revision)),
            (Some("NotOlderThan"), Some(revision)) => Ok(At::Newest { not_older_than: revision }),
            (Some(other), Some(_)) => {
                let supported = ["Exact", "NotOlderThan"];
                Err(Refusal::invalid_list_options(Cause::not_supported("resourceVersionMatch", other, &supported)))
            }
            (None, Some(revision)) if revision > 0 && self.limit()?.is_some() => Ok(At::Exact(revision)),
            (None, Some(revision)) => Ok(At::Newest { not_older_than: revision }),
        }
    }
}

fn continue_at(token: &str, version: Option<u64>, matching: Option<&str>) -> Result<At, Refusal> {
    if matching.is_some() {
        return Err(match_forbidden("resourceVersionMatch is forbidden when continue is provided"));
    }
    if version.is_some_and(|version| version > 0) {
        return Err(Refusal::bad_request("specifying resource version is not allowed when using continue"));
    }
    Ok(At::Continue(token.to_owned()))
}

fn match_forbidden(why: &str) -> Refusal {
    Refusal::invalid_list_options(Cause::forbidden("resourceVersionMatch", why))
}

fn is_true(value: Option<&str>) -> bool {
    value.is_some_and(|value| !matches!(value, "false" | "0"))
}

fn non_empty(value: Option<&str>) -> Option<&str> {
    value.filter(|value| !value.is_empty())
}

fn number(name: &str, value: Option<&str>) -> Result<Option<u64>, Refusal> {
    let parse = |value: &str| value.parse().map_err(|_| bad_number(name, value));
    non_empty(value).map(parse).transpose()
}

fn bad_number(name: &str, value: &str) -> Refusal {
    Refusal::bad_request(format!("{name}: Invalid value: {value:?}: must be a non-negative number"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(query: &str) -> Result<At, u64> {
        let params = Params::parse(&format!("/x?{query}").parse().unwrap()).unwrap();
        params.at().map_err(|refusal| refusal.status()["code"].as_u64().unwrap())
    }

    #[test]
    fn the_revision_of_a_list_follows_the_published_table() {
        assert_eq!(at(""), Ok(At::Newest { not_older_than: 0 }));
        assert_eq!(at("resourceVersion=0&limit=5"), Ok(At::Newest { not_older_than: 0 }));
        assert_eq!(at("resourceVersion=7"), Ok(At::Newest { not_older_than: 7 }));
        assert_eq!(at("resourceVersion=7&limit=5"), Ok(At::Exact(7)));
        assert_eq!(at("resourceVersion=7&resourceVersionMatch=Exact"), Ok(At::Exact(7)));
        assert_eq!(
            at("resourceVersion=7&limit=5&resourceVersionMatch=NotOlderThan"),
            Ok(At::Newest { not_older_than: 7 })
        );
        assert_eq!(at("continue=t&limit=5"), Ok(At::Continue("t".into())));
    }

    #[test]
    fn senseless_combinations_are_refused() {
        assert_eq!(at("resourceVersion=0&resourceVersionMatch=Exact"), Err(422));
        assert_eq!(at("resourceVersionMatch=Exact"), Err(422));
        assert_eq!(at("resourceVersion=7&resourceVersionMatch=Sometimes"), Err(422));
        assert_eq!(at("continue=t&resourceVersionMatch=Exact&resourceVersion=7"), Err(422));
        assert_eq!(at("continue=t&resourceVersion=7"), Err(400));
        assert_eq!(at("resourceVersion=seven"), Err(400));
    }
}
