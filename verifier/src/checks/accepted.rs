//! Whether the scratch cluster accepted every object.
//!
//! An object that exists already is kept, as every restore keeps it; if it differs from the captured one, the restore
//! would not bring that one back, so it counts as not accepted. Objects of types without a X

use stillpoint_api::{Check, CheckKind, ObjectRef};
use stillpoint_restore::{Applied, Kept};

use super::references::Absent;
use crate::{
    built_in::is_built_in,
    findings::{Findings, counted},
};

/// Judges a restore; `left_out` counts the objects that are never restored, `absent` is what has been named as missing
/// in the backup.
pub(crate) fn check(applied: &Applied, left_out: usize, absent: &Absent) -> Check {
    let mut findings = Findings::default();
    let mut explained = 0;
    for refused in &applied.refused {
        if absent.explains(&refused.object) {
            explained += 1;
        } else {
            findings.add(&refused.object, &refused.reason);
        }
    }
    for Kept { object, differs } in applied.kept.iter().filter(|kept| !is_built_in(&kept.object)) {
        for change in differs {
            findings.add(object, format!("it existed and was kept, but differs: {change}"));
        }
    }
    let parts = [
        (left_out as u64, "never restored, by rule"),
        (applied.kept.len() as u64, "existed and kept"),
        (explained, "refused for what the references have named"),
    ];
    let mut summary = format!("{} created", counted(applied.created, "object"));
    for (objects, what) in parts.into_iter().filter(|(objects, _)| *objects > 0) {
        summary.push_str(&format!("; {objects} {what}"));
    }
    if findings.total() > 0 {
        summary = format!("{} not accepted as captured; {summary}", counted(findings.total(), "time"));
    }
    findings.judge(CheckKind::Accepted, summary)
}

/// The restore broke off because of what the backup holds.
pub(crate) fn broke_off(backup: &str, reason: impl std::fmt::Display) -> Check {
    let mut findings = Findings::default();
    findings.add(backup, &reason);
    findings.judge(CheckKind::Accepted, "the restore broke off".to_owned())
}

/// The kept objects that differ and that every cluster makes by itself: whether they are restored is not judged.
pub(crate) fn not_compared(applied: &Applied) -> impl Iterator<Item = &ObjectRef> {
    let kept = applied.kept.iter().filter(|kept| !kept.differs.is_empty());
    kept.map(|kept| &kept.object).filter(|object| is_built_in(object))
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
        let check = check(&applied(Vec::new(), &["configmaps/shop/a"]), 2, &Absent::default());
        assert_eq!(check.judgement, Judgement::Failed);
        assert_eq!(
            (check.findings[0].subject.as_str(), check.findings[0].message.as_str()),
            ("configmaps.core/shop/a", "no")
        );
        assert!(check.summary.contains("3 objects created; 2 never restored, by rule"), "{}", check.summary);
    }

    #[test]
    fn what_the_references_have_explained_is_counted_and_not_named_again() {
        let absent = Absent::of(&["customresourcedefinitions.apiextensions.k8s.io/orders.shop.example.com"]);
        let check = check(&applied(Vec::new(), &["orders.shop.example.com/shop/a"]), 0, &absent);
        assert_eq!(check.judgement, Judgement::Passed);
        assert!(check.summary.contains("1 refused for what the references"), "{}", check.summary);
    }

    #[test]
    fn a_kept_object_that_differs_is_named_unless_every_cluster_makes_it() {
        let restored = applied(
            vec![kept("configmaps/shop/settings", "data.colour"), kept("namespaces/kube-system", "metadata.labels.a")],
            &[],
        );
        let found = check(&restored, 0, &Absent::default());
        assert_eq!(found.findings.len(), 1);
        assert_eq!(found.findings[0].subject, "configmaps.core/shop/settings");
        assert!(found.summary.contains("2 existed and kept"), "{}", found.summary);
        assert_eq!(
            not_compared(&restored).map(ToString::to_string).collect::<Vec<_>>(),
            ["namespaces.core/kube-system"]
        );
    }
}
