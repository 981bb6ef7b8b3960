//! The report of a restore test: one HTML file for people.
//!
//! Made from the verdict and the manifest alone, so that it can say nothing that the evidence does not. The template
//! holds no logic but loops; every word that needs deciding is decided here, where it can be tested. The page loads
//! nothing and runs nothing, and everything that comes from a cluster is escaped: names in it may be hostile.

mod text;

use askama::Template;
use stillpoint_api::{
    Check, CheckKind, Finding, Judgement, Manifest, Outcome, Problem, SignerState, TestResult, TypeRecord, Verdict,
};
use text::{ago, count, counted, duration, moment};

/// The report could not be written.
#[derive(Debug, thiserror::Error)]
#[error("the report could not be written")]
pub struct Error(#[from] askama::Error);

/// The report of a verdict; what the backup holds is told where its manifest could be read.
///
/// # Errors
/// The template could not be filled, which no verdict should be able to cause.
pub fn html(verdict: &Verdict, manifest: Option<&Manifest>) -> Result<String, Error> {
    Ok(Page::new(verdict, manifest).render()?)
}

#[derive(Template)]
#[template(path = "report.html")]
struct Page<'a> {
    verdict: &'a Verdict,
    tone: &'static str,
    mark: &'static str,
    headline: String,
    lead: String,
    notices: Vec<String>,
    figures: Vec<Figure>,
    facts: Vec<Fact>,
    checks: Vec<CheckView<'a>>,
    capture: Option<CaptureView<'a>>,
}

/// One of the few numbers that people look for.
struct Figure {
    name: &'static str,
    value: String,
    note: String,
}

/// One line of what was tested, where and when.
struct Fact {
    name: &'static str,
    value: String,
    /// Whether it is to be compared character by character.
    code: bool,
}

struct CheckView<'a> {
    name: String,
    judgement: String,
    tone: &'static str,
    asks: &'static str,
    summary: &'a str,
    findings: &'a [Finding],
    more: Option<String>,
}

struct CaptureView<'a> {
    types: Vec<TypeView>,
    existed: String,
    captured: String,
    excluded: String,
    empty: Option<String>,
    problems: &'a [Problem],
}

struct TypeView {
    name: String,
    existed: String,
    captured: String,
    excluded: String,
    rules: String,
}

impl<'a> Page<'a> {
    fn new(verdict: &'a Verdict, manifest: Option<&'a Manifest>) -> Self {
        let (tone, mark) = match verdict.result {
            TestResult::Proven => ("good", "✓"),
            TestResult::Failed => ("bad", "✕"),
        };
        Self {
            verdict,
            tone,
            mark,
            headline: headline(verdict),
            lead: lead(verdict),
            notices: notices(verdict),
            figures: figures(verdict, manifest),
            facts: facts(verdict, manifest),
            checks: verdict.checks.iter().map(CheckView::new).collect(),
            capture: manifest.map(CaptureView::new),
        }
    }
}

fn headline(verdict: &Verdict) -> String {
    match verdict.result {
        TestResult::Proven => format!("Backup {} is proven to restore", verdict.backup),
        TestResult::Failed => format!("Backup {} failed its restore test", verdict.backup),
    }
}

fn lead(verdict: &Verdict) -> String {
    let judged = |judgement| verdict.checks.iter().filter(move |check| check.judgement == judgement);
    let restored = match verdict.rto_seconds {
        Some(_) => {
            let objects = counted(verdict.objects_restored, "object");
            format!("Restored {objects} into the {} scratch cluster", verdict.scratch)
        }
        None => "Nothing was restored".to_owned(),
    };
    let failed: Vec<_> = judged(Judgement::Failed).map(|check| check.kind.to_string()).collect();
    let passed = judged(Judgement::Passed).count();
    let skipped = judged(Judgement::NotJudged).count();
    let mut lead = match failed.as_slice() {
        [] => format!("{restored}; {passed} of {} checks passed", verdict.checks.len()),
        failed => format!("{restored}; failed: {}", failed.join(", ")),
    };
    if skipped > 0 {
        lead.push_str(&format!("; {} not judged", counted(skipped as u64, "check")));
    }
    lead + "."
}

/// What qualifies the answer, so that nobody reads it as more than it is.
fn notices(verdict: &Verdict) -> Vec<String> {
    let signer = match &verdict.signer {
        SignerState::Trusted(_) => None,
        SignerState::Unverified(key) => Some(format!(
            "Unverified signer {key}: no trusted key is pinned, so anybody could have signed this backup."
        )),
        SignerState::Untrusted(key) => {
            Some(format!("Untrusted signer {key}: it is not among the keys that are pinned."))
        }
        SignerState::Unsigned => Some("Unsigned: nothing says who made this backup or that it was not changed.".into()),
        SignerState::Invalid => Some("Invalid signature: the manifest is not the one that was signed.".into()),
        SignerState::Unknown => Some("Signer unknown: the test ended before the signature could be read.".into()),
    };
    let degraded = (verdict.backup_outcome == Some(Outcome::Degraded))
        .then(|| "The backup itself is degraded: not everything that was asked for is in it.".to_owned());
    signer.into_iter().chain(degraded).collect()
}

fn figures(verdict: &Verdict, manifest: Option<&Manifest>) -> Vec<Figure> {
    let none = || ("—".to_owned(), "nothing was restored".to_owned());
    let (rto, rto_note) = verdict
        .rto_seconds
        .map_or_else(none, |seconds| (duration(seconds), "from the first read to the last object".to_owned()));
    let (rpo, rpo_note) = match (verdict.rpo_seconds, manifest) {
        (Some(seconds), manifest) => (ago(seconds), manifest.map(|m| moment(m.cut.read_at)).unwrap_or_default()),
        (None, _) => ("—".to_owned(), "the instant is unknown".to_owned()),
    };
    let held = manifest.map(|manifest| sum(manifest.types.iter().map(|record| record.captured)));
    let restored = held.map(|held| format!("of {} captured", count(held))).unwrap_or_default();
    vec![
        Figure { name: "Recovery time (RTO)", value: rto, note: rto_note },
        Figure { name: "Recovery point (RPO)", value: rpo, note: rpo_note },
        Figure { name: "Objects restored", value: count(verdict.objects_restored), note: restored },
    ]
}

fn facts(verdict: &Verdict, manifest: Option<&Manifest>) -> Vec<Fact> {
    let fact = |name, value: String| Fact { name, value, code: false };
    let mut facts = vec![fact("Backup", verdict.backup.clone())];
    if let Some(Manifest { cluster, cut, .. }) = manifest {
        facts.push(fact("Cluster", format!("{} ({})", cluster.name, cluster.version)));
        facts.push(fact("Instant", format!("revision {}, read {}", cut.revision, moment(cut.read_at))));
    }
    facts.extend(verdict.backup_outcome.map(|outcome| fact("Capture", outcome.to_string())));
    facts.push(fact("Signer", verdict.signer.to_string()));
    facts.extend(verdict.root.map(|root| Fact { name: "Root", value: root.to_string(), code: true }));
    let version = verdict.scratch_version.as_deref().unwrap_or("not started");
    facts.push(fact("Scratch cluster", format!("{} ({version})", verdict.scratch)));
    let took = duration(verdict.finished.duration_since(verdict.started).as_secs_f64());
    facts.push(fact("Tested", format!("{}, took {took}", moment(verdict.started))));
    facts
}

impl<'a> CheckView<'a> {
    fn new(check: &'a Check) -> Self {
        let (tone, mark) = match check.judgement {
            Judgement::Passed => ("good", "✓"),
            Judgement::Failed => ("bad", "✕"),
            Judgement::NotJudged => ("mute", "–"),
        };
        let more = (check.more_findings > 0)
            .then(|| format!("And {} more, of which only the number is kept.", count(check.more_findings)));
        Self {
            name: check.kind.to_string(),
            judgement: format!("{mark} {}", check.judgement),
            tone,
            asks: asks(check.kind),
            summary: &check.summary,
            findings: &check.findings,
            more,
        }
    }
}

/// The question that a check answers.
fn asks(kind: CheckKind) -> &'static str {
    match kind {
        CheckKind::Signature => "Is the manifest signed by a key that is trusted, and is it the one that was signed?",
        CheckKind::Integrity => "Is every byte of the backup there, and is each what its SHA-256 says?",
        CheckKind::Counts => "Does the backup hold exactly the objects that its manifest counts, each in its place?",
        CheckKind::References => {
            "Is everything that captured objects refer to in the backup, where its scope should hold it?"
        }
        CheckKind::Accepted => "Does a server that has none of these objects accept every one of them?",
        CheckKind::StillThere => "Is every restored object still there after the cluster had time to collect garbage?",
        CheckKind::Volumes => {
            "Is every file of every volume, restored into a directory, what was captured, byte for byte?"
        }
        CheckKind::UserChecks => "Do the commands that you gave succeed over the restored volumes?",
        CheckKind::Equal => {
            "Is what was restored what was captured, field by field, after the published normalisation?"
        }
    }
}

impl<'a> CaptureView<'a> {
    fn new(manifest: &'a Manifest) -> Self {
        let types = &manifest.types;
        let is_empty =
            |record: &&TypeRecord| record.existed == Some(0) && record.captured == 0 && record.excluded.is_empty();
        let empty = types.iter().filter(is_empty).count() as u64;
        let existed: Option<Vec<u64>> = types.iter().map(|record| record.existed).collect();
        Self {
            types: types.iter().filter(|record| !is_empty(record)).map(TypeView::new).collect(),
            existed: existed.map_or_else(|| "unknown".to_owned(), |existed| count(sum(existed))),
            captured: count(sum(types.iter().map(|record| record.captured))),
            excluded: count(sum(types.iter().map(TypeRecord::excluded_objects))),
            empty: (empty > 0).then(|| format!("Types without objects in scope: {}.", count(empty))),
            problems: &manifest.problems,
        }
    }
}

/// A sum of what a manifest says: it may say anything.
fn sum(numbers: impl IntoIterator<Item = u64>) -> u64 {
    numbers.into_iter().fold(0, u64::saturating_add)
}

impl TypeView {
    fn new(record: &TypeRecord) -> Self {
        let rules = record.excluded.iter().map(|e| format!("{} ({})", e.rule, count(e.objects))).collect::<Vec<_>>();
        Self {
            name: record.resource.name.to_string(),
            existed: record.existed.map_or_else(|| "unknown".to_owned(), count),
            captured: count(record.captured),
            excluded: if rules.is_empty() { String::new() } else { count(record.excluded_objects()) },
            rules: rules.join(", "),
        }
    }
}

#[cfg(test)]
mod tests;
