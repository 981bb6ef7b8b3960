//! Whether the scratch cluster accepted every object.
//!
//! An object that exists already is kept, as every restore keeps it; if it differs from the captured one, the restore
//! would not bring that one back, so it counts as not accepted. Objects whose namespace or definition is not in the
//! backup have been explained by the check of references, and are only counted here.

use std::collections::BTreeMap;

use stillpoint_api::{Check, CheckKind, ObjectRef};
use stillpoint_restore::{Applied, Kept};

use super::references::Absent;
use crate::{
    built_in::is_built_in,
    findings::{Findings, counted},
};

/// Judges a restore; `left_out` are the reasons why objects are never restored, one for each object, and `absent` is
/// what has been named as missing in the backup.
pub(crate) fn check<'a>(applied: &Applied, left_out: impl Iterator<Item = &'a str>, absent: &Absent) -> Check {
    let mut findings = Findings::default();
    let (explained, refused): (Vec<_>, Vec<_>) =
        applied.refused.iter().partition(|refused| absent.explains(&refused.object));
    for refused in &refused {
        findings.add(&refused.object, &refused.reason);
    }
    let differing: Vec<_> = differing(applied).filter(|kept| !is_built_in(&kept.object)).collect();
    for Kept { object, differs } in &differing {
        for change in differs {
            findings.add(object, format!("it existed and was kept, but differs: {change}"));
        }
    }
    let parts = [
        (refused.len(), "refused"),
        (explained.len(), "refused for what the references have named"),
        (applied.kept.len(), "existed and kept"),
        (differing.len(), "of those different"),
    ];
    let mut summary = format!("{} created", counted(applied.created, "object"));
    for (objects, what) in parts.into_iter().filter(|(objects, _)| *objects > 0) {
        summary.push_str(&format!("; {objects} {what}"));
    }
    summary.push_str(&reasons(left_out));
    findings.judge(CheckKind::Accepted, summary)
}

/// How many objects are never restored, by reason.
fn reasons<'a>(left_out: impl Iterator<Item = &'a str>) -> String {
    let mut reasons: BTreeMap<&str, u64> = BTreeMap::new();
    left_out.for_each(|reason| *reasons.entry(reason).or_default() += 1);
    if reasons.is_empty() {
        return String::new();
    }
    let each: Vec<_> = reasons.iter().map(|(reason, objects)| format!("{objects}: {reason}")).collect();
    format!("; {} never restored ({})", reasons.values().sum::<u64>(), each.join("; "))
}

/// The restore broke off because of what the backup holds.
pub(crate) fn broke_off(backup: &str, reason: impl std::fmt::Display) -> Check {
    let mut findings = Findings::default();
    findings.add(backup, &reason);
    findings.judge(CheckKind::Accepted, "the restore broke off".to_owned())
}

/// The kept objects that differ and that every cluster makes by itself: whether they are restored is not judged.
pub(crate) fn not_compared(applied: &Applied) -> impl Iterator<Item = &ObjectRef> {
    differing(applied).map(|kept| &kept.object).filter(|object| is_built_in(object))
}

fn differing(applied: &Applied) -> impl Iterator<Item = &Kept> {
    applied.kept.iter().filter(|kept| !kept.differs.is_empty())
}

#[cfg(test)]
mod tests {
    use serde_json::json;
    use stillpoint_api::Judgement;
    use stillpoint_objects::diff::{Change, ChangeKind};
    use stillpoint_restore::Refused;

    use super::*;

    fn kept(object: &str, path: &str) -> Kept {
        let (before, after) = (Some(json!("a")), Some(json!("b")));
        let change = Change { path: path.into(), kind: ChangeKind::Changed, before, after };
        Kept { object: object.parse().unwrap(), differs: vec![change] }
    }

    fn applied(kept: Vec<Kept>, refused: &[&str]) -> Applied {
        let refused = refused.iter().map(|object| Refused { object: object.parse().unwrap(), reason: "no".into() });
        Applied { created: 3, kept, refused: refused.collect(), ..Applied::default() }
    }

    #[test]
    fn a_refusal_is_named_in_the_servers_words() {
        let check =
            check(&applied(Vec::new(), &["configmaps/shop/a"]), ["an event"; 2].into_iter(), &Absent::default());
        assert_eq!(check.judgement, Judgement::Failed);
        assert_eq!(
            (check.findings[0].subject.as_str(), check.findings[0].message.as_str()),
            ("configmaps.core/shop/a", "no")
        );
        assert!(
            check.summary.contains("3 objects created; 1 refused; 2 never restored (2: an event)"),
            "{}",
            check.summary
        );
    }

    #[test]
    fn what_the_references_have_explained_is_counted_and_not_named_again() {
        let absent = Absent::of(&["customresourcedefinitions.apiextensions.k8s.io/orders.shop.example.com"]);
        let check = check(&applied(Vec::new(), &["orders.shop.example.com/shop/a"]), std::iter::empty(), &absent);
        assert_eq!(check.judgement, Judgement::Passed);
        assert!(check.summary.contains("1 refused for what the references"), "{}", check.summary);
    }

    #[test]
    fn a_kept_object_that_differs_is_named_unless_every_cluster_makes_it() {
        let restored = applied(
            vec![kept("configmaps/shop/settings", "data.colour"), kept("namespaces/kube-system", "metadata.labels.a")],
            &[],
        );
        let found = check(&restored, std::iter::empty(), &Absent::default());
        assert_eq!(found.findings.len(), 1);
        assert_eq!(found.findings[0].subject, "configmaps.core/shop/settings");
        assert!(found.summary.contains("2 existed and kept; 1 of those different"), "{}", found.summary);
        assert_eq!(
            not_compared(&restored).map(ToString::to_string).collect::<Vec<_>>(),
            ["namespaces.core/kube-system"]
        );
    }
}
