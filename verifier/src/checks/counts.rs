//! Whether the backup holds exactly the objects that its manifest counts, each in its place.
//!
//! The manifest's numbers were asked from the server apart from the lists, so an object that is gone from a file shows
//! here even if everything else still fits together.

use std::{borrow::Cow, collections::BTreeMap};

use serde::Deserialize;
use stillpoint_api::{Check, CheckKind, GroupResource, Manifest, ProblemKind, ResourceType, TypeRecord};

use crate::findings::{Findings, counted};

/// What the objects of the backup say of themselves, counted.
#[derive(Debug, Default)]
pub(crate) struct Counts {
    objects: BTreeMap<GroupResource, u64>,
    findings: Findings,
}

/// One file that is being read.
#[derive(Debug)]
pub(crate) struct FileCounts<'a> {
    resource: &'a ResourceType,
    namespace: Option<&'a str>,
    path: &'a str,
    last: String,
    objects: u64,
    findings: Findings,
}

/// The part of an object that says where it belongs.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Header<'a> {
    #[serde(borrow)]
    api_version: Option<Cow<'a, str>>,
    #[serde(borrow)]
    kind: Option<Cow<'a, str>>,
    #[serde(borrow)]
    metadata: Place<'a>,
}

#[derive(Deserialize)]
struct Place<'a> {
    #[serde(borrow)]
    namespace: Option<Cow<'a, str>>,
}

impl<'a> FileCounts<'a> {
    /// Begins a file of one type in one namespace, or of cluster-scoped objects.
    pub(crate) fn new(resource: &'a ResourceType, namespace: Option<&'a str>, path: &'a str) -> Self {
        Self { resource, namespace, path, last: String::new(), objects: 0, findings: Findings::default() }
    }

    /// Counts the next object of the file.
    pub(crate) fn object(&mut self, name: &str, raw: &[u8]) {
        let subject = match self.namespace {
            Some(namespace) => format!("{}/{namespace}/{name}", self.resource.name),
            None => format!("{}/{name}", self.resource.name),
        };
        if self.objects > 0 && name == self.last {
            self.findings.add(&subject, format!("it is in {} twice", self.path));
        } else if self.objects > 0 && name < self.last.as_str() {
            self.findings.add(&subject, format!("it is out of order in {}", self.path));
        }
        for contradiction in self.contradictions(raw) {
            self.findings.add(&subject, contradiction);
        }
        name.clone_into(&mut self.last);
        self.objects += 1;
    }

    /// Where an object contradicts the file that it is in.
    fn contradictions(&self, raw: &[u8]) -> Vec<String> {
        let header: Header<'_> = match serde_json::from_slice(raw) {
            Ok(header) => header,
            Err(error) => return vec![format!("its metadata cannot be read: {error}")],
        };
        let api_version = self.resource.api_version();
        let namespace = header.metadata.namespace.filter(|namespace| !namespace.is_empty());
        let said = [
            ("apiVersion", header.api_version.as_deref(), Some(api_version.as_str())),
            ("kind", header.kind.as_deref(), Some(self.resource.kind.as_str())),
        ];
        // lists leave kind and version out of built-in types' items, and never the namespace
        let stated = said.into_iter().filter(|(_, said, _)| said.is_some());
        stated
            .chain([("namespace", namespace.as_deref(), self.namespace)])
            .filter(|(_, said, expected)| said != expected)
            .map(|(field, said, expected)| {
                let text = |value: Option<&str>| value.map_or_else(|| "none".to_owned(), |value| format!("{value:?}"));
                format!("its {field} is {}, in a file of {}", text(said), text(expected))
            })
            .collect()
    }
}

impl Counts {
    /// Adds a file that was read to its end.
    pub(crate) fn add(&mut self, file: FileCounts<'_>) {
        *self.objects.entry(file.resource.name.clone()).or_default() += file.objects;
        self.findings.extend(file.findings);
    }

    /// Compares with what the manifest says.
    pub(crate) fn judge(mut self, manifest: &Manifest) -> Check {
        let mut short = 0;
        for record in &manifest.types {
            let held = self.objects.get(&record.resource.name).copied().unwrap_or(0);
            if held != record.captured {
                let message =
                    format!("the manifest counts {}, the backup holds {held}", counted(record.captured, "object"));
                self.findings.add(&record.resource.name, message);
            }
            match imbalance(record) {
                // the capture said so itself, and the backup is degraded for it
                Some(_) if is_named(manifest, &record.resource.name) => short += 1,
                Some(message) => self.findings.add(&record.resource.name, message),
                None => {}
            }
        }
        let total = self.objects.values().sum();
        let types = self.objects.values().filter(|objects| **objects > 0).count() as u64;
        let mut summary = format!("{} of {}", counted(total, "object"), counted(types, "type"));
        if self.findings.total() == 0 {
            summary.push_str(", as the manifest counts them");
        }
        if short > 0 {
            summary.push_str(&format!("; {} incomplete, as the manifest names them", counted(short, "type")));
        }
        self.findings.judge(CheckKind::Counts, summary)
    }
}

/// How a record's numbers contradict each other.
fn imbalance(record: &TypeRecord) -> Option<String> {
    let existed = record.existed?;
    let (captured, excluded) = (record.captured, record.excluded_objects());
    // sums of what a hostile manifest says may overflow
    (captured.checked_add(excluded) != Some(existed))
        .then(|| format!("{existed} existed, but {captured} were captured and {excluded} left out"))
}

/// Whether the manifest itself names the type among its problems; its subject is the type, or the type in a namespace.
fn is_named(manifest: &Manifest, resource: &GroupResource) -> bool {
    let name = resource.to_string();
    let concerns =
        |subject: &str| subject.strip_prefix(&name).is_some_and(|rest| rest.is_empty() || rest.starts_with(" in "));
    manifest.problems.iter().any(|problem| problem.kind != ProblemKind::Volume && concerns(&problem.subject))
}

#[cfg(test)]
mod tests {
    use stillpoint_api::{Judgement, Problem};

    use super::*;
    use crate::fixtures::{manifest, record, resource};

    fn judge(manifest: &Manifest, objects: &[(&str, &str)]) -> Check {
        let maps = resource("configmaps", "ConfigMap", true);
        let mut file = FileCounts::new(&maps, Some("shop"), "resources/configmaps.core/shop.jsonl");
        objects.iter().for_each(|(name, raw)| file.object(name, raw.as_bytes()));
        let mut counts = Counts::default();
        counts.add(file);
        counts.judge(manifest)
    }

    fn messages(check: &Check) -> Vec<&str> {
        check.findings.iter().map(|finding| finding.message.as_str()).collect()
    }

    const A: (&str, &str) = ("a", r#"{"metadata":{"name":"a","namespace":"shop"}}"#);
    const B: (&str, &str) = ("b", r#"{"metadata":{"name":"b","namespace":"shop"}}"#);

    #[test]
    fn what_the_manifest_counts_passes() {
        let check = judge(&manifest(vec![record("configmaps", "ConfigMap", 2)]), &[A, B]);
        assert_eq!(check.judgement, Judgement::Passed, "{check:?}");
        assert_eq!(check.summary, "2 objects of 1 type, as the manifest counts them");
    }

    #[test]
    fn an_object_that_is_gone_or_added_is_found() {
        let two = manifest(vec![record("configmaps", "ConfigMap", 2)]);
        assert_eq!(messages(&judge(&two, &[A])), ["the manifest counts 2 objects, the backup holds 1"]);
        let none = manifest(vec![record("configmaps", "ConfigMap", 0)]);
        assert_eq!(messages(&judge(&none, &[A])), ["the manifest counts 0 objects, the backup holds 1"]);
    }

    #[test]
    fn what_existed_and_is_neither_captured_nor_left_out_is_found_unless_the_capture_said_so() {
        let mut short = manifest(vec![TypeRecord { existed: Some(3), ..record("configmaps", "ConfigMap", 2) }]);
        assert_eq!(messages(&judge(&short, &[A, B])), ["3 existed, but 2 were captured and 0 left out"]);
        let subject = "configmaps.core in shop".to_owned();
        short.problems = vec![Problem { kind: ProblemKind::List, subject, message: "forbidden".into() }];
        let check = judge(&short, &[A, B]);
        assert_eq!(check.judgement, Judgement::Passed);
        assert!(check.summary.contains("1 type incomplete"), "{check:?}");
        short.problems[0].subject = "configmaps.core.example.com".into();
        assert_eq!(judge(&short, &[A, B]).judgement, Judgement::Failed);
    }

    #[test]
    fn an_object_twice_or_out_of_order_is_found() {
        let three = manifest(vec![record("configmaps", "ConfigMap", 3)]);
        assert_eq!(messages(&judge(&three, &[A, A, B])), ["it is in resources/configmaps.core/shop.jsonl twice"]);
        let disorder = judge(&three, &[A, B, A]);
        assert_eq!(messages(&disorder), ["it is out of order in resources/configmaps.core/shop.jsonl"]);
        assert_eq!(disorder.findings[0].subject, "configmaps.core/shop/a");
    }

    #[test]
    fn an_object_that_belongs_elsewhere_is_found() {
        let one = manifest(vec![record("configmaps", "ConfigMap", 1)]);
        let of = |raw| judge(&one, &[("a", raw)]);
        let moved = of(r#"{"metadata":{"name":"a","namespace":"other"}}"#);
        assert_eq!(messages(&moved), [r#"its namespace is "other", in a file of "shop""#]);
        let nowhere = of(r#"{"metadata":{"name":"a","namespace":""}}"#);
        assert_eq!(messages(&nowhere), [r#"its namespace is none, in a file of "shop""#]);
        let other = of(r#"{"apiVersion":"v1","kind":"Secret","metadata":{"name":"a","namespace":"shop"}}"#);
        assert_eq!(messages(&other), [r#"its kind is "Secret", in a file of "ConfigMap""#]);
    }

    #[test]
    fn numbers_that_overflow_are_no_sum() {
        let record = TypeRecord { existed: Some(1), ..record("configmaps", "ConfigMap", u64::MAX) };
        let excluded = vec![stillpoint_api::Exclusion { rule: stillpoint_api::ExclusionRule::Selector, objects: 2 }];
        assert!(imbalance(&TypeRecord { excluded, ..record }).is_some());
    }
}
