//! The grammars of names, labels and annotations.
//!
//! Written as character checks: the patterns are short, and the messages are what tools print.

use crate::{refusal::Cause, types::NameRule};

/// The longest generateName prefix that is kept: a name of 63 less the random suffix.
pub(crate) const MAX_GENERATED_BASE: usize = 58;

const SUBDOMAIN: &str = "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and must start and end with an alphanumeric character (e.g. 'example.com', regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?(\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')";
const LABEL: &str = "a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', and must start and end with an alphanumeric character (e.g. 'my-name',  or '123-abc', regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?')";
const DNS_1035: &str = "a DNS-1035 label must consist of lower case alphanumeric characters or '-', start with an alphabetic character, and end with an alphanumeric character (e.g. 'my-name',  or 'abc-123', regex used for validation is '[a-z]([-a-z0-9]*[a-z0-9])?')";
const QUALIFIED: &str = "name part must consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character (e.g. 'MyName',  or 'my.name',  or '123-abc', regex used for validation is '([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]')";
const LABEL_VALUE: &str = "a valid label must be an empty string or consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character (e.g. 'MyValue',  or 'my_value',  or '12345', regex used for validation is '(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?')";

/// Whether `name` is an RFC 1123 label of at most 63 characters.
pub(crate) fn is_label(name: &str) -> bool {
    name.len() <= 63 && has_label_characters(name)
}

/// Whether `name` is an RFC 1123 subdomain of at most 253 characters.
pub(crate) fn is_subdomain(name: &str) -> bool {
    name.len() <= 253 && name.split('.').all(has_label_characters)
}

fn has_label_characters(name: &str) -> bool {
    let alphanumeric = |b: &u8| b.is_ascii_lowercase() || b.is_ascii_digit();
    let bytes = name.as_bytes();
    bytes.first().is_some_and(alphanumeric)
        && bytes.last().is_some_and(alphanumeric)
        && bytes.iter().all(|b| alphanumeric(b) || *b == b'-')
}

/// What is wrong with `name` under `rule`.
pub(super) fn check_name(rule: NameRule, field: &str, name: &str) -> Option<Cause> {
    let (limit, grammar, holds): (usize, &str, bool) = match rule {
        NameRule::Subdomain => (253, SUBDOMAIN, name.split('.').all(has_label_characters)),
        NameRule::Subdomain52 => (52, SUBDOMAIN, name.split('.').all(has_label_characters)),
        NameRule::Label => (63, LABEL, has_label_characters(name)),
        NameRule::Dns1035Label => {
            let letter = name.starts_with(|c: char| c.is_ascii_lowercase());
            (63, DNS_1035, letter && has_label_characters(name))
        }
        NameRule::PathSegment => (usize::MAX, "", true),
    };
    if !holds {
        return Some(Cause::invalid(field, name, grammar));
    }
    if name.len() > limit {
        return Some(Cause::invalid(field, name, &format!("must be no more than {limit} characters")));
    }
    check_path_segment(field, name)
}

fn check_path_segment(field: &str, name: &str) -> Option<Cause> {
    let why = match name {
        "." => "may not be '.'",
        ".." => "may not be '..'",
        name if name.contains('/') => "may not contain '/'",
        name if name.contains('%') => "may not contain '%'",
        _ => return None,
    };
    Some(Cause::invalid(field, name, why))
}

/// What is wrong with a qualified name: an optional subdomain and `/`, then a name.
pub(super) fn check_qualified(field: &str, key: &str) -> Option<Cause> {
    let (prefix, name) = match key.split_once('/') {
        Some((prefix, name)) => (Some(prefix), name),
        None => (None, key),
    };
    if prefix.is_some_and(|prefix| !is_subdomain(prefix)) {
        return Some(Cause::invalid(field, key, &format!("prefix part {SUBDOMAIN}")));
    }
    if name.len() > 63 {
        return Some(Cause::invalid(field, key, "name part must be no more than 63 characters"));
    }
    (!has_name_characters(name)).then(|| Cause::invalid(field, key, QUALIFIED))
}

/// What is wrong with a label's value.
pub(super) fn check_label_value(field: &str, value: &str) -> Option<Cause> {
    if value.len() > 63 {
        return Some(Cause::invalid(field, value, "must be no more than 63 characters"));
    }
    let holds = value.is_empty() || has_name_characters(value);
    (!holds).then(|| Cause::invalid(field, value, LABEL_VALUE))
}

fn has_name_characters(name: &str) -> bool {
    let bytes = name.as_bytes();
    bytes.first().is_some_and(u8::is_ascii_alphanumeric)
        && bytes.last().is_some_and(u8::is_ascii_alphanumeric)
        && bytes.iter().all(|b| b.is_ascii_alphanumeric() || b"-_.".contains(b))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn accepts(rule: NameRule, name: &str) -> bool {
        check_name(rule, "metadata.name", name).is_none()
    }

    #[test]
    fn each_rule_accepts_and_refuses_what_real_servers_do() {
        let long = "a".repeat(64);
        let cases = [
            (NameRule::Subdomain, vec!["a", "a.b-c", &long], vec!["", "A", "a..b", "-a", "a_b", "a/b"]),
            (NameRule::Label, vec!["a", "1a"], vec!["a.b", &long, "a-"]),
            (NameRule::Dns1035Label, vec!["a1"], vec!["1a", "a.b"]),
            (NameRule::PathSegment, vec!["system:node", "A_b"], vec![".", "..", "a/b", "a%b"]),
            (NameRule::Subdomain52, vec!["a"], vec![&long]),
        ];
        for (rule, good, bad) in cases {
            assert!(good.iter().all(|name| accepts(rule, name)), "{rule:?} {good:?}");
            assert!(bad.iter().all(|name| !accepts(rule, name)), "{rule:?} {bad:?}");
        }
    }

    #[test]
    fn labels_are_qualified_names_with_short_values() {
        assert_eq!(check_qualified("f", "app.kubernetes.io/name"), None);
        assert!(check_qualified("f", "a/b/c").is_some());
        assert!(check_qualified("f", "UPPER/x").is_some());
        assert!(check_qualified("f", "").is_some());
        assert_eq!(check_label_value("f", ""), None);
        assert!(check_label_value("f", "a b").is_some());
    }
}
