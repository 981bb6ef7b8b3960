//! Whether what was restored is what was captured, after the published normalisation.
//!
//! The captured object itself is compared, not what sanitising made of it: a rule of sanitising that normalisation does
//! not publish shows up here. Owners that are not restored have been named by the check that they belong to, so their
//! references are taken out of the captured side.

use serde_json::Value;
use stillpoint_api::{Check, CheckKind, ObjectRef, ResourceType};
use stillpoint_objects::{
    diff::{self, Change},
    normalise::normalise,
};

use crate::findings::{Findings, counted};

/// Differences that are kept of one object; one that has nothing in common with its original needs no more.
const MAX_CHANGES: usize = 20;

/// What was compared.
#[derive(Debug, Default)]
pub(crate) struct Equal {
    equal: u64,
    different: u64,
    files_not_in_order: u64,
    findings: Findings,
}

impl Equal {
    /// Compares an object with what the cluster has of it; `restored` says which owners the restore has relinked.
    pub(crate) fn compare(
        &mut self,
        resource: &ResourceType,
        object: &ObjectRef,
        mut captured: Value,
        found: Value,
        restored: impl Fn(&Value) -> bool,
    ) {
        without_lost_owners(&mut captured, restored);
        let changes = diff::diff(&normalise(resource, captured), &normalise(resource, found));
        self.judge_changes(object, &diff::redact(resource, changes));
    }

    fn judge_changes(&mut self, object: &ObjectRef, changes: &[Change]) {
        if changes.is_empty() {
            self.equal += 1;
        } else {
            self.different += 1;
        }
        for change in changes.iter().take(MAX_CHANGES) {
            self.findings.add(object, change);
        }
        if let Some(more) = changes.len().checked_sub(MAX_CHANGES).filter(|more| *more > 0) {
            self.findings.add(object, format!("and {} more", counted(more as u64, "difference")));
        }
    }

    /// Notes a file that could not be compared to its end, because its objects are out of order.
    pub(crate) fn file_not_in_order(&mut self) {
        self.files_not_in_order += 1;
    }

    pub(crate) fn extend(&mut self, part: Self) {
        self.equal += part.equal;
        self.different += part.different;
        self.files_not_in_order += part.files_not_in_order;
        self.findings.extend(part.findings);
    }

    pub(crate) fn judge(self) -> Check {
        let mut summary = format!("{} equal", counted(self.equal, "object"));
        if self.different > 0 {
            summary.push_str(&format!("; {} different", self.different));
        }
        if self.files_not_in_order > 0 {
            let files = counted(self.files_not_in_order, "file");
            summary.push_str(&format!("; {files} out of order, and not compared from there on"));
        }
        self.findings.judge(CheckKind::Equal, summary)
    }
}

/// Takes out the owner references that no restore could relink.
fn without_lost_owners(object: &mut Value, restored: impl Fn(&Value) -> bool) {
    let Some(metadata) = object.get_mut("metadata").and_then(Value::as_object_mut) else { return };
    let Some(owners) = metadata.get_mut("ownerReferences").and_then(Value::as_array_mut) else { return };
    owners.retain(restored);
    if owners.is_empty() {
        metadata.remove("ownerReferences");
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;
    use stillpoint_api::Judgement;
    use stillpoint_objects::diff::ChangeKind;

    use super::*;

    fn changes(paths: &[&str]) -> Vec<Change> {
        let change = |path: &&str| Change {
            path: (*path).into(),
            kind: ChangeKind::Removed,
            before: Some(json!(1)),
            after: None,
        };
        paths.iter().map(change).collect()
    }

    #[test]
    fn every_difference_is_named_by_object_and_path() {
        let mut equal = Equal::default();
        equal.judge_changes(&"configmaps/shop/a".parse().unwrap(), &changes(&["data.x", "data.y"]));
        equal.judge_changes(&"configmaps/shop/b".parse().unwrap(), &[]);
        let check = equal.judge();
        assert_eq!((check.judgement, check.findings.len()), (Judgement::Failed, 2));
        assert_eq!(check.findings[0].subject, "configmaps.core/shop/a");
        assert!(check.findings[0].message.starts_with("data.x: removed 1"));
        assert_eq!(check.summary, "1 object equal; 1 different");
    }

    #[test]
    fn an_object_that_differs_everywhere_does_not_fill_the_report() {
        let paths: Vec<String> = (0..100).map(|n| format!("data.k{n}")).collect();
        let mut equal = Equal::default();
        let paths: Vec<&str> = paths.iter().map(String::as_str).collect();
        equal.judge_changes(&"configmaps/shop/a".parse().unwrap(), &changes(&paths));
        let check = equal.judge();
        assert_eq!(check.findings.len(), MAX_CHANGES + 1);
        assert!(check.findings.iter().any(|finding| finding.message == "and 80 differences more"));
    }

    #[test]
    fn only_owners_that_were_not_restored_are_taken_out() {
        let mut object = json!({"metadata": {"ownerReferences": [{"uid": "here"}, {"uid": "gone"}]}});
        without_lost_owners(&mut object, |owner| owner["uid"] == "here");
        assert_eq!(object, json!({"metadata": {"ownerReferences": [{"uid": "here"}]}}));
        without_lost_owners(&mut object, |_| false);
        assert_eq!(object, json!({"metadata": {}}));
    }
}
