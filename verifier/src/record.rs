//! A verdict in the making.
//!
//! Whatever ends a test early, every check is in its verdict: those that did not run say why.

use jiff::Timestamp;
use stillpoint_api::{
    Check, CheckKind, Judgement, ScratchKind, SignerState, TestResult, Verdict, manifest::FORMAT_VERSION,
};
use stillpoint_catalog::Backup;

use crate::findings::not_judged;

/// Every check, in the order they run.
pub(crate) const ORDER: [CheckKind; 9] = [
    CheckKind::Signature,
    CheckKind::Integrity,
    CheckKind::Counts,
    CheckKind::References,
    CheckKind::Volumes,
    CheckKind::UserChecks,
    CheckKind::Accepted,
    CheckKind::StillThere,
    CheckKind::Equal,
];

/// What is known of the verdict so far, and which checks are to be in it.
#[derive(Debug)]
pub(crate) struct Record(pub(crate) Verdict, Vec<CheckKind>);

impl Record {
    /// Begins the verdict of a test with or without checks of the user's.
    pub(crate) fn begin(backup: &str, scratch: ScratchKind, has_user_checks: bool) -> Self {
        let now = Timestamp::now();
        let of_test = |kind: &CheckKind| match kind {
            CheckKind::Volumes => false,
            CheckKind::UserChecks => has_user_checks,
            _ => true,
        };
        let verdict = Verdict {
            format_version: FORMAT_VERSION,
            backup: backup.to_owned(),
            root: None,
            backup_outcome: None,
            scratch,
            scratch_version: None,
            signer: SignerState::Unknown,
            started: now,
            finished: now,
            result: TestResult::Failed,
            checks: Vec::new(),
            not_judged: Vec::new(),
            objects_restored: 0,
            rto_seconds: None,
            rpo_seconds: None,
            tool_version: env!("CARGO_PKG_VERSION").to_owned(),
        };
        Self(verdict, ORDER.into_iter().filter(of_test).collect())
    }

    pub(crate) fn opened(&mut self, backup: &Backup) {
        let Verdict { root, backup_outcome, signer, rpo_seconds, started, .. } = &mut self.0;
        *root = Some(backup.root);
        *backup_outcome = Some(backup.manifest.outcome);
        *signer = backup.signer.clone();
        // clocks may disagree, and no backup comes from the future
        let age = started.duration_since(backup.manifest.cut.read_at).as_secs_f64();
        *rpo_seconds = Some(age.max(0.0));
        if backup.manifest.volumes.iter().any(|record| record.data.held().is_some()) {
            self.1.push(CheckKind::Volumes);
        }
    }

    /// Adds a check; false if it failed.
    pub(crate) fn add(&mut self, check: Check) -> bool {
        let failed = check.judgement == Judgement::Failed;
        self.0.checks.push(check);
        !failed
    }

    /// The verdict; checks that did not run say `reason`.
    pub(crate) fn end(mut self, reason: &str) -> Verdict {
        let checks = &mut self.0.checks;
        for kind in self.1 {
            if !checks.iter().any(|check| check.kind == kind) {
                checks.push(not_judged(kind, reason));
            }
        }
        checks.sort_by_key(|check| ORDER.iter().position(|kind| *kind == check.kind));
        let failed = checks.iter().any(|check| check.judgement == Judgement::Failed);
        self.0.result = if failed { TestResult::Failed } else { TestResult::Proven };
        self.0.finished = Timestamp::now();
        self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::findings::Findings;

    fn without(kinds: &[CheckKind]) -> Vec<CheckKind> {
        ORDER.into_iter().filter(|kind| !kinds.contains(kind)).collect()
    }

    #[test]
    fn the_users_checks_are_in_a_verdict_that_ended_before_they_could_run() {
        let verdict = Record::begin("shop-1", ScratchKind::Embedded, true).end("the backup is damaged");
        let kinds: Vec<_> = verdict.checks.iter().map(|check| check.kind).collect();
        assert_eq!(kinds, without(&[CheckKind::Volumes]));
    }

    #[test]
    fn every_check_is_in_a_verdict_that_ended_early() {
        let mut findings = Findings::default();
        findings.add("a", "b");
        let mut record = Record::begin("shop-1", ScratchKind::Embedded, false);
        assert!(!record.add(findings.judge(CheckKind::Integrity, "damaged".into())));
        assert!(record.add(not_judged(CheckKind::Signature, "no key")));
        let verdict = record.end("the backup is damaged");
        assert_eq!(verdict.result, TestResult::Failed);
        assert_eq!(
            verdict.checks.iter().map(|check| check.kind).collect::<Vec<_>>(),
            without(&[CheckKind::Volumes, CheckKind::UserChecks])
        );
        assert_eq!(verdict.checks[6].summary, "the backup is damaged");
    }

    #[test]
    fn without_a_failed_check_the_backup_is_proven() {
        let mut record = Record::begin("shop-1", ScratchKind::Embedded, false);
        for kind in without(&[CheckKind::Volumes, CheckKind::UserChecks]) {
            record.add(Findings::default().judge(kind, String::new()));
        }
        assert_eq!(record.end("").result, TestResult::Proven);
    }
}
