//! What one check finds, within bounds.
//!
//! A backup with a million objects may have a million findings, and a verdict is kept in the repository and shown to
//! people: the first are kept by name, the others are counted.

use std::fmt::Display;

use stillpoint_api::{Check, CheckKind, Finding, Judgement};

/// Findings that are kept of one check.
const MAX_FINDINGS: usize = 1000;
/// Characters that are kept of one text; a server's refusal of a large object may quote all of it.
const MAX_CHARACTERS: usize = 2000;

/// The findings of one check.
#[derive(Debug, Default)]
pub(crate) struct Findings {
    kept: Vec<Finding>,
    more: u64,
}

impl Findings {
    /// Adds what is wrong with `subject`.
    pub(crate) fn add(&mut self, subject: impl Display, message: impl Display) {
        if self.kept.len() < MAX_FINDINGS {
            self.kept.push(Finding { subject: bounded(subject), message: bounded(message) });
        } else {
            self.more += 1;
        }
    }

    /// Adds the findings of a part.
    pub(crate) fn extend(&mut self, part: Self) {
        self.more += part.more;
        for finding in part.kept {
            if self.kept.len() < MAX_FINDINGS {
                self.kept.push(finding);
            } else {
                self.more += 1;
            }
        }
    }

    /// How many there are, the ones that are only counted included.
    pub(crate) fn total(&self) -> u64 {
        self.kept.len() as u64 + self.more
    }

    /// The check: failed if there is any finding.
    pub(crate) fn judge(mut self, kind: CheckKind, summary: String) -> Check {
        // parts come in whatever order they are done
        self.kept.sort_by(|a, b| (&a.subject, &a.message).cmp(&(&b.subject, &b.message)));
        let judgement = if self.total() == 0 { Judgement::Passed } else { Judgement::Failed };
        Check { kind, judgement, summary, findings: self.kept, more_findings: self.more }
    }
}

/// A check that could not be made.
pub(crate) fn not_judged(kind: CheckKind, reason: impl Into<String>) -> Check {
    let judgement = Judgement::NotJudged;
    Check { kind, judgement, summary: reason.into(), findings: Vec::new(), more_findings: 0 }
}

/// `1 object`, `2 objects`.
pub(crate) fn counted(number: u64, thing: &str) -> String {
    let plural = if number == 1 { "" } else { "s" };
    format!("{number} {thing}{plural}")
}

fn bounded(text: impl Display) -> String {
    let mut text = text.to_string();
    if let Some((end, _)) = text.char_indices().nth(MAX_CHARACTERS) {
        text.truncate(end);
        text.push('…');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn findings_beyond_the_bound_are_only_counted() {
        let mut findings = Findings::default();
        (0..MAX_FINDINGS + 5).for_each(|n| findings.add(format!("{n:05}"), "gone"));
        let mut part = Findings::default();
        part.add("part", "gone");
        findings.extend(part);
        let check = findings.judge(CheckKind::Counts, "some".into());
        assert_eq!((check.findings.len(), check.more_findings), (MAX_FINDINGS, 6));
        assert_eq!(check.judgement, Judgement::Failed);
        assert_eq!(check.findings[0].subject, "00000");
    }

    #[test]
    fn a_text_is_cut_between_characters() {
        let mut findings = Findings::default();
        findings.add("a", "é".repeat(MAX_CHARACTERS + 1));
        let check = findings.judge(CheckKind::Equal, String::new());
        assert_eq!(check.findings[0].message.chars().count(), MAX_CHARACTERS + 1);
        assert!(check.findings[0].message.ends_with("é…"));
    }

    #[test]
    fn without_findings_a_check_has_passed() {
        let check = Findings::default().judge(CheckKind::Equal, "all".into());
        assert_eq!(check.judgement, Judgement::Passed);
    }
}
