//! Whether every restored object is still there.
//!
//! An object whose owner reference leads nowhere is accepted, and deleted by garbage collection a little later: only
//! looking again after the collector has been at work tells.

use stillpoint_api::{Check, CheckKind, ObjectRef};

use crate::{
    collector::Collected,
    findings::{Findings, counted},
};

/// What was looked for in the scratch cluster.
#[derive(Debug, Default)]
pub(crate) struct StillThere {
    there: u64,
    findings: Findings,
}

impl StillThere {
    pub(crate) fn there(&mut self) {
        self.there += 1;
    }

    pub(crate) fn gone(&mut self, object: &ObjectRef) {
        self.findings.add(object, "it was accepted, and is not there any more");
    }

    pub(crate) fn extend(&mut self, part: Self) {
        self.there += part.there;
        self.findings.extend(part.findings);
    }

    pub(crate) fn judge(self, collected: Collected) -> Check {
        let there = counted(self.there, "object");
        let gone = match self.findings.total() {
            0 => String::new(),
            gone => format!(", {gone} gone"),
        };
        let collector = match collected {
            Collected::AtWork => "after garbage collection was seen at work",
            Collected::NoCollector => "garbage collection is not judged: nothing collects here",
            Collected::TooSlow => "garbage collection is not judged: it was not seen at work in time",
        };
        self.findings.judge(CheckKind::StillThere, format!("{there} there{gone}; {collector}"))
    }
}

#[cfg(test)]
mod tests {
    use stillpoint_api::Judgement;

    use super::*;

    #[test]
    fn what_is_gone_is_named_and_an_absent_collector_is_said() {
        let mut seen = StillThere::default();
        seen.there();
        assert_eq!(
            StillThere { there: 1, ..StillThere::default() }.judge(Collected::AtWork).judgement,
            Judgement::Passed
        );
        seen.gone(&"pods/shop/web".parse().unwrap());
        let check = seen.judge(Collected::NoCollector);
        assert_eq!((check.judgement, check.findings[0].subject.as_str()), (Judgement::Failed, "pods.core/shop/web"));
        assert!(check.summary.starts_with("1 object there, 1 gone; garbage collection is not judged"));
    }
}
