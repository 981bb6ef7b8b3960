//! Label selectors in kubectl's syntax.
//!
//! Evaluated here and not by the server, because a server that filters cannot say how many objects it left out.

use std::{borrow::Cow, collections::BTreeMap};

use crate::Error;

/// Requirements that an object's labels must all meet.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct LabelSelector(Vec<Requirement>);

#[derive(Debug, Clone, PartialEq, Eq)]
struct Requirement {
    key: String,
    test: Test,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Test {
    Exists,
    Absent,
    /// Present, with one of these values.
    In(Vec<String>),
    /// Absent, or present with another value.
    NotIn(Vec<String>),
}

impl LabelSelector {
    pub(crate) fn parse(text: &str) -> Result<Self, Error> {
        let parts = split(text).into_iter().filter(|part| !part.trim().is_empty());
        let requirements: Result<Vec<_>, String> = parts.map(|part| requirement(part.trim())).collect();
        match requirements {
            Ok(requirements) if !requirements.is_empty() => Ok(Self(requirements)),
            Ok(_) => Err(invalid(text, "it is empty; leave it out to take every object")),
            Err(reason) => Err(invalid(text, &reason)),
        }
    }

    pub(crate) fn matches(&self, labels: &BTreeMap<Cow<'_, str>, Cow<'_, str>>) -> bool {
        self.0.iter().all(|requirement| {
            let value = labels.get(requirement.key.as_str());
            let among = |values: &[String]| value.is_some_and(|value| values.iter().any(|one| one == value));
            match &requirement.test {
                Test::Exists => value.is_some(),
                Test::Absent => value.is_none(),
                Test::In(values) => among(values),
                Test::NotIn(values) => !among(values),
            }
        })
    }
}

fn invalid(selector: &str, reason: &str) -> Error {
    Error::Selector { selector: selector.to_owned(), reason: reason.to_owned() }
}

/// Splits at the commas that are not inside parentheses.
fn split(text: &str) -> Vec<&str> {
    let mut depth = 0_usize;
    text.split(|c: char| {
        match c {
            '(' => depth += 1,
            ')' => depth = depth.saturating_sub(1),
            _ => {}
        }
        c == ',' && depth == 0
    })
    .collect()
}

fn requirement(part: &str) -> Result<Requirement, String> {
    if let Some(key) = part.strip_prefix('!') {
        return Ok(Requirement { key: checked_key(key)?, test: Test::Absent });
    }
    if part.ends_with(')') {
        return set_requirement(part);
    }
    for operator in ["!=", "==", "="] {
        if let Some((key, value)) = part.split_once(operator) {
            let values = vec![checked_value(value)?];
            let test = if operator == "!=" { Test::NotIn(values) } else { Test::In(values) };
            return Ok(Requirement { key: checked_key(key)?, test });
        }
    }
    Ok(Requirement { key: checked_key(part)?, test: Test::Exists })
}

/// `key in (a,b)` or `key notin (a,b)`.
fn set_requirement(part: &str) -> Result<Requirement, String> {
    let (head, values) = part.trim_end_matches(')').split_once('(').ok_or_else(|| format!("{part:?} has no ("))?;
    let values = values.split(',').map(checked_value).collect::<Result<Vec<_>, _>>()?;
    let mut words = head.split_whitespace();
    match (words.next(), words.next(), words.next()) {
        (Some(key), Some("in"), None) => Ok(Requirement { key: checked_key(key)?, test: Test::In(values) }),
        (Some(key), Some("notin"), None) => Ok(Requirement { key: checked_key(key)?, test: Test::NotIn(values) }),
        _ => Err(format!("{part:?} is neither key in (...) nor key notin (...)")),
    }
}

fn checked_key(key: &str) -> Result<String, String> {
    let key = key.trim();
    let (prefix, name) = key.rsplit_once('/').unwrap_or(("a", key));
    if is_label_text(name) && is_label_text(prefix) && !prefix.contains('_') {
        Ok(key.to_owned())
    } else {
        Err(format!("{key:?} is no label key"))
    }
}

fn checked_value(value: &str) -> Result<String, String> {
    let value = value.trim();
    if value.is_empty() || is_label_text(value) {
        Ok(value.to_owned())
    } else {
        Err(format!("{value:?} is no label value"))
    }
}

fn is_label_text(text: &str) -> bool {
    let alphanumeric = |c: Option<char>| c.is_some_and(|c| c.is_ascii_alphanumeric());
    text.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.'))
        && alphanumeric(text.chars().next())
        && alphanumeric(text.chars().last())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn matches(selector: &str, labels: &[(&'static str, &'static str)]) -> bool {
        let labels = labels.iter().map(|&(key, value)| (Cow::from(key), Cow::from(value))).collect();
        LabelSelector::parse(selector).unwrap().matches(&labels)
    }

    #[test]
    fn every_operator_means_what_kubectl_means_by_it() {
        let labels = [("app", "web"), ("tier", "front"), ("empty", "")];
        for (selector, expected) in [
            ("app=web", true),
            ("app==web", true),
            ("app = web", true),
            ("app=db", false),
            ("app!=db", true),
            ("app!=web", false),
            ("none!=web", true),
            ("app", true),
            ("none", false),
            ("!none", true),
            ("! none", true),
            ("!app", false),
            ("app in (web,db)", true),
            ("app in ( db , web )", true),
            ("app in (db)", false),
            ("none in (db)", false),
            ("app notin (db)", true),
            ("app notin (web, db)", false),
            ("none notin (web)", true),
            ("empty=", true),
            ("app=", false),
            ("app=web,tier=front", true),
            ("app in (web,db),tier notin (back),!none", true),
            ("app=web,tier=back", false),
        ] {
            assert_eq!(matches(selector, &labels), expected, "{selector}");
        }
    }

    #[test]
    fn a_prefixed_key_is_a_key() {
        assert!(matches("app.kubernetes.io/name=web", &[("app.kubernetes.io/name", "web")]));
    }

    #[test]
    fn what_is_no_selector_is_refused_by_name() {
        for text in
            ["", " , ", "app in web", "app in (web", "app among (web)", "a b", "=web", "app=we b", "a/b/", "in (x)"]
        {
            let error = LabelSelector::parse(text).unwrap_err().to_string();
            assert!(error.contains("is no label selector"), "{text:?}: {error}");
        }
    }
}
