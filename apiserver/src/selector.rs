//! Label and field selectors, parsed once a request and matched against what the store keeps parsed.
//!
//! Equality and set expressions share one shape, a key and a condition, because that is all that matching needs.

use crate::{params::Params, refusal::Refusal, store::Object, types::ResourceType};

#[derive(Debug, Clone, PartialEq, Eq)]
enum Condition {
    In(Vec<String>),
    NotIn(Vec<String>),
    Exists,
    Absent,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Requirement {
    key: String,
    condition: Condition,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Field {
    Name,
    Namespace,
    Other(usize),
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct FieldRequirement {
    field: Field,
    value: String,
    equal: bool,
}

/// Which objects a list, a watch or a collection's deletion is about.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Selector {
    labels: Vec<Requirement>,
    fields: Vec<FieldRequirement>,
}

impl Selector {
    pub(crate) fn parse(params: &Params, resource: &ResourceType) -> Result<Self, Refusal> {
        let labels = params.label_selector.as_deref().unwrap_or_default();
        let fields = params.field_selector.as_deref().unwrap_or_default();
        Ok(Self { labels: parse_labels(labels)?, fields: parse_fields(fields, resource)? })
    }

    /// Whether it selects everything.
    pub(crate) fn is_empty(&self) -> bool {
        self.labels.is_empty() && self.fields.is_empty()
    }

    /// Whether the object stored under `key` is selected.
    pub(crate) fn matches(&self, key: &str, object: &Object) -> bool {
        self.labels.iter().all(|requirement| requirement.condition.holds(object.label(&requirement.key)))
            && self.fields.iter().all(|requirement| requirement.holds(key, object))
    }
}

impl Condition {
    fn holds(&self, value: Option<&str>) -> bool {
        match self {
            Self::In(values) => value.is_some_and(|value| values.iter().any(|v| v == value)),
            Self::NotIn(values) => value.is_none_or(|value| values.iter().all(|v| v != value)),
            Self::Exists => value.is_some(),
            Self::Absent => value.is_none(),
        }
    }
}

impl FieldRequirement {
    fn holds(&self, key: &str, object: &Object) -> bool {
        let (namespace, name) = key.rsplit_once('/').unwrap_or(("", key));
        let value = match self.field {
            Field::Name => name,
            Field::Namespace => namespace,
            Field::Other(index) => object.field(index),
        };
        (value == self.value) == self.equal
    }
}

fn parse_labels(text: &str) -> Result<Vec<Requirement>, Refusal> {
    let terms = split_outside_parentheses(text);
    terms.into_iter().filter(|term| !term.is_empty()).map(parse_label).collect()
}

/// Splits at commas, but not at those of a set.
fn split_outside_parentheses(text: &str) -> Vec<&str> {
    let mut depth = 0;
    let at_comma = |c: char| {
        match c {
            '(' => depth += 1,
            ')' => depth -= 1,
            _ => {}
        }
        c == ',' && depth == 0
    };
    text.split(at_comma).map(str::trim).collect()
}

fn parse_label(term: &str) -> Result<Requirement, Refusal> {
    let one = |value: &str| vec![value.trim().to_owned()];
    let (key, condition) = if let Some((key, value)) = term.split_once("!=") {
        (key, Condition::NotIn(one(value)))
    } else if let Some((key, value)) = term.split_once("==").or_else(|| term.split_once('=')) {
        (key, Condition::In(one(value)))
    } else if let Some(key) = term.strip_prefix('!') {
        (key, Condition::Absent)
    } else if let Some((head, set)) = term.split_once('(') {
        parse_set(term, head, set)?
    } else {
        (term, Condition::Exists)
    };
    let key = key.trim();
    if key.is_empty() || key.contains(|c: char| c.is_whitespace() || "()=!,".contains(c)) {
        return Err(unparsable(term));
    }
    Ok(Requirement { key: key.to_owned(), condition })
}

fn parse_set<'a>(term: &str, head: &'a str, set: &str) -> Result<(&'a str, Condition), Refusal> {
    let set = set.strip_suffix(')').ok_or_else(|| unparsable(term))?;
    let values = set.split(',').map(|value| value.trim().to_owned()).collect();
    match head.trim().rsplit_once(char::is_whitespace) {
        Some((key, "in")) => Ok((key, Condition::In(values))),
        Some((key, "notin")) => Ok((key, Condition::NotIn(values))),
        _ => Err(unparsable(term)),
    }
}

fn unparsable(term: &str) -> Refusal {
    Refusal::bad_request(format!("unable to parse requirement: {term:?}"))
}

fn parse_fields(text: &str, resource: &ResourceType) -> Result<Vec<FieldRequirement>, Refusal> {
    text.split(',').filter(|term| !term.is_empty()).map(|term| parse_field(term, resource)).collect()
}

fn parse_field(term: &str, resource: &ResourceType) -> Result<FieldRequirement, Refusal> {
    let (path, value, equal) = if let Some((path, value)) = term.split_once("!=") {
        (path, value, false)
    } else if let Some((path, value)) = term.split_once("==").or_else(|| term.split_once('=')) {
        (path, value, true)
    } else {
        return Err(Refusal::bad_request(format!("invalid selector: {term:?}; can't understand it")));
    };
    let field = match path {
        "metadata.name" => Field::Name,
        "metadata.namespace" => Field::Namespace,
        other => Field::Other(field_index(other, resource)?),
    };
    Ok(FieldRequirement { field, value: value.to_owned(), equal })
}

fn field_index(path: &str, resource: &ResourceType) -> Result<usize, Refusal> {
    let pointer = format!("/{}", path.replace('.', "/"));
    let index = resource.fields.iter().position(|known| *known == pointer);
    index.ok_or_else(|| Refusal::bad_request(format!("field label not supported: {path}")))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn selects(selector: &str) -> bool {
        let labels = json!({"app": "web", "tier": "front"});
        let object = Object::encode(&json!({"metadata": {"name": "a", "labels": labels}}), &[]);
        Selector { labels: parse_labels(selector).unwrap(), fields: Vec::new() }.matches("ns/a", &object)
    }

    #[test]
    fn label_selectors_select_by_equality_sets_and_existence() {
        for yes in ["app=web", "app==web,tier", "app!=db", "other!=x", "app in (db, web)", "app notin (db)", "!other"] {
            assert!(selects(yes), "{yes}");
        }
        for no in ["app=db", "app=web,other", "app!=web", "app in (db)", "app notin (db,web)", "other notin (x),!app"] {
            assert!(!selects(no), "{no}");
        }
    }

    #[test]
    fn malformed_selectors_are_refused() {
        for bad in ["app in (a", "app within (a)", "a b", "=x", "!"] {
            assert!(parse_labels(bad).is_err(), "{bad}");
        }
        let pods = crate::types::built_in().find(|t| t.plural == "pods").unwrap();
        assert!(parse_fields("spec.color=red", &pods).is_err());
        assert!(parse_fields("spec.nodeName", &pods).is_err());
        assert_eq!(parse_fields("metadata.name=a,spec.nodeName!=n", &pods).unwrap().len(), 2);
    }
}
