//! Takes out of objects what a faithful restore may change, and nothing else.
//!
//! The rules are one published table, and the table is what runs: a rule that is not published hides nothing. A
//! default that some servers add and others do not is hidden only where it has exactly its default value, so that any
//! other value is a difference.

use std::fmt::Write;

use serde_json::Value;
use stillpoint_api::ResourceType;

mod rules;

pub use rules::RULES;

/// One thing that is not compared.
#[derive(Debug, Clone, Copy)]
pub struct Rule {
    /// The types it is for (`deployments.apps`); none means all.
    pub types: &'static [&'static str],
    /// Where: field names joined by dots, `[]` for each element of a list, `["..."]` for names that have dots.
    pub path: &'static str,
    /// What is hidden there.
    pub hides: Hides,
    /// Why a faithful restore may change it.
    pub why: &'static str,
}

/// What a rule hides where its path leads.
#[derive(Debug, Clone, Copy)]
pub enum Hides {
    /// Whatever is there.
    Everything,
    /// Exactly this value, given as JSON: being absent means the same.
    Value(&'static str),
    /// The values that a condition meets, which is given in words too.
    Where(&'static str, Condition),
    /// Nothing; the object is rewritten in another form that means the same, which is given in words too.
    Rewrite(&'static str, fn(&mut Value)),
}

/// Decides over one value, given the type, the whole object and the value.
pub type Condition = fn(&ResourceType, &Value, &Value) -> bool;

impl Rule {
    /// Whether the rule is for a type.
    pub fn is_for(&self, resource: &ResourceType) -> bool {
        self.types.is_empty() || self.types.iter().any(|name| *name == resource.name.to_string())
    }

    fn apply(&self, resource: &ResourceType, whole: &Value, object: &mut Value) {
        let hidden = |value: &Value| match self.hides {
            Hides::Everything => true,
            Hides::Value(text) => serde_json::from_str::<Value>(text).is_ok_and(|default| default == *value),
            Hides::Where(_, condition) => condition(resource, whole, value),
            Hides::Rewrite(..) => false,
        };
        match self.hides {
            Hides::Rewrite(_, rewrite) => rewrite(object),
            _ => hide(object, &steps(self.path), &hidden),
        }
    }
}

/// Applies every rule for its type to an object. Both a captured object and a restored one must be normalised before
/// they are compared.
pub fn normalise(resource: &ResourceType, object: Value) -> Value {
    let whole = object;
    let mut object = whole.clone();
    for rule in RULES.iter().filter(|rule| rule.is_for(resource)) {
        rule.apply(resource, &whole, &mut object);
    }
    object
}

/// The table of rules as a page for people: docs/normalisation.md.
pub fn rules_markdown() -> String {
    let mut page = String::from(
        "# What a restore test does not compare\n\n\
         <!-- generated from the rules in objects/src/normalise/rules.rs; a test checks that it is fresh -->\n\n\
         A restore test compares every restored object with the captured one, field by field. Before that, both lose \
         what a faithful restore may change. That is this list and nothing else; everything that it does not name is \
         compared. A map or list that a rule leads into counts as absent where nothing is left in it.\n\n\
         | types | field | what is not compared | why |\n|---|---|---|---|\n",
    );
    for Rule { types, path, hides, why } in RULES {
        let types = if types.is_empty() { "all".to_owned() } else { types.join("<br>") };
        let what = match hides {
            Hides::Everything => "any value".to_owned(),
            Hides::Value(value) => format!("`{value}`: the same as absent"),
            Hides::Where(condition, _) => format!("where {condition}"),
            Hides::Rewrite(form, _) => format!("compared as {form}"),
        };
        // writing to a String does not fail
        let _ = writeln!(page, "| {types} | `{path}` | {what} | {why} |");
    }
    page
}

/// One step of a rule's path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Step {
    Field(&'static str),
    Each,
}

fn steps(path: &'static str) -> Vec<Step> {
    let mut steps = Vec::new();
    let mut rest = path;
    while !rest.is_empty() {
        if let Some(after) = rest.strip_prefix("[]") {
            (steps, rest) = (push(steps, Step::Each), after);
        } else if let Some((name, after)) = rest.strip_prefix("[\"").and_then(|quoted| quoted.split_once("\"]")) {
            (steps, rest) = (push(steps, Step::Field(name)), after);
        } else {
            let (name, after) = rest.split_at(rest.find(['.', '[']).unwrap_or(rest.len()));
            (steps, rest) = (push(steps, Step::Field(name)), after);
        }
        rest = rest.strip_prefix('.').unwrap_or(rest);
    }
    steps
}

fn push(mut steps: Vec<Step>, step: Step) -> Vec<Step> {
    steps.push(step);
    steps
}

/// Removes what is hidden at the end of the steps, and the maps and lists on the way that hold nothing afterwards.
fn hide(value: &mut Value, steps: &[Step], hidden: &dyn Fn(&Value) -> bool) {
    let Some((step, further)) = steps.split_first() else { return };
    let gone = |value: &mut Value| {
        if further.is_empty() {
            return hidden(value);
        }
        hide(value, further, hidden);
        is_empty(value)
    };
    match (step, value) {
        (Step::Field(name), Value::Object(map)) => {
            let is_gone = map.get_mut(*name).is_some_and(gone);
            if is_gone {
                map.remove(*name);
            }
        }
        (Step::Each, Value::Array(list)) if further.is_empty() => list.retain(|element| !hidden(element)),
        // an element that is emptied keeps its place
        (Step::Each, Value::Array(list)) => list.iter_mut().for_each(|element| hide(element, further, hidden)),
        _ => {}
    }
}

fn is_empty(value: &Value) -> bool {
    match value {
        Value::Object(map) => map.is_empty(),
        Value::Array(list) => list.is_empty(),
        _ => false,
    }
}

#[cfg(test)]
mod tests;
