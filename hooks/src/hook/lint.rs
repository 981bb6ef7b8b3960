//! What can be said about hooks before they run.
//!
//! Everything that a plan refuses is an error here; warnings are what runs, and seldom does what its author meant.

use std::{path::Path, time::Duration};

use serde::Serialize;

use super::{
    annotations::{self, Declared, Fault, Problem},
    duration,
    manifest::Subject,
    model::{Hook, Kind, Source},
    plan,
    pod::Pod,
};

/// How bad a finding is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// The pod's hooks do not run, or leave something behind.
    Error,
    /// They run, and may not do what is wanted.
    Warning,
}

impl Severity {
    /// As results spell it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Error => "error",
            Self::Warning => "warning",
        }
    }
}

/// One thing to look at.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Finding {
    /// How bad it is.
    pub severity: Severity,
    /// The object that it is in.
    pub place: String,
    /// The annotation, hook or container that it is about.
    pub subject: String,
    /// What is wrong.
    pub message: String,
    /// What to do.
    pub advice: String,
}

/// Looks at the hooks of `subjects`; their writers would stand still for `window`.
#[must_use]
pub fn lint(subjects: &[Subject], window: Duration) -> Vec<Finding> {
    let mut findings: Vec<Finding> = subjects.iter().flat_map(|subject| of_subject(subject, window)).collect();
    findings.sort();
    findings.dedup();
    findings
}

fn of_subject(Subject { place, pod }: &Subject, window: Duration) -> Vec<Finding> {
    let declared = annotations::read(&pod.annotations);
    let mut notes: Vec<Note> = declared.problems.iter().map(of_problem).collect();
    notes.extend(declared.hooks.iter().filter_map(|hook| no_container(pod, hook)));
    notes.extend(freezes(&declared));
    notes.extend(no_post(&declared));
    notes.extend(impatient(pod, &declared, window));
    let finding = |Note { severity, subject, message, advice }| Finding {
        severity,
        place: place.clone(),
        subject,
        message,
        advice,
    };
    notes.into_iter().map(finding).collect()
}

/// A finding without its place.
struct Note {
    severity: Severity,
    subject: String,
    message: String,
    advice: String,
}

impl Note {
    fn new(severity: Severity, subject: &str, message: impl ToString, advice: &str) -> Self {
        Self { severity, subject: subject.to_owned(), message: message.to_string(), advice: advice.to_owned() }
    }
}

fn of_problem(problem: &Problem) -> Note {
    let severity = if problem.is_error() { Severity::Error } else { Severity::Warning };
    Note::new(severity, &problem.annotation, &problem.fault, advice(&problem.fault))
}

fn advice(fault: &Fault) -> &'static str {
    match fault {
        Fault::NotJson(_) | Fault::VeleroNotJson(_) => {
            r#"write it as ["program", "argument"]; the quotes are JSON's double ones"#
        }
        Fault::EmptyCommand => "name a program, or remove the annotation",
        Fault::Duration { .. } | Fault::VeleroDuration { .. } => "write a number and a unit: 30s, 5m, 1h30m",
        Fault::OnError(_) | Fault::VeleroOnError(_) => "write Fail or Continue, with a capital letter",
        Fault::Order(_) => "write a whole number; lower orders come first",
        Fault::Switch(_) => "write true or false, in quotes",
        Fault::Preset(_) => "docs/hooks.md lists the presets",
        Fault::CommandAndShell => "keep shell for a script, command for a program with arguments",
        Fault::NoCommand(_) | Fault::VeleroNoCommand(_) => "add the command, or remove the annotation",
        Fault::Unknown | Fault::VeleroUnknown => "look for a slip of the pen",
        Fault::Overridden | Fault::Legacy(_) => "remove the one that is not meant",
    }
}

fn no_container(pod: &Pod, hook: &Hook) -> Option<Note> {
    let fault = plan::container(pod, hook).err()?;
    Some(Note::new(
        Severity::Error,
        &hook.name,
        fault,
        "name a container of the pod; an init container has ended by then",
    ))
}

/// Whether a word of the command, or of the script in it, is a program that freezes a filesystem.
fn calls_fsfreeze(hook: &Hook) -> bool {
    let words = hook.command.iter().flat_map(|text| text.split(|c: char| !(c.is_alphanumeric() || "-_./".contains(c))));
    words.into_iter().any(|word| {
        let program = Path::new(word).file_name().and_then(|name| name.to_str());
        program.is_some_and(|name| matches!(name, "fsfreeze" | "xfs_freeze"))
    })
}

fn freezes(declared: &Declared) -> Vec<Note> {
    let freezing: Vec<&Hook> = declared.hooks.iter().filter(|hook| calls_fsfreeze(hook)).collect();
    let mut notes: Vec<Note> = freezing
        .iter()
        .map(|hook| {
            Note::new(
                Severity::Warning,
                &hook.name,
                "calls fsfreeze",
                "remove it: the node freezes the pod's volumes by itself, with a deadline, and the pod needs neither \
                 privilege nor the program",
            )
        })
        .collect();
    let thawed = freezing.iter().any(|hook| hook.kind == Kind::Post);
    if let Some(hook) = freezing.iter().find(|hook| hook.kind != Kind::Post && !thawed) {
        let message = "no post hook thaws what this one freezes";
        notes.push(Note::new(Severity::Error, &hook.name, message, "remove it, or add the post hook that thaws"));
    }
    notes
}

fn no_post(declared: &Declared) -> Option<Note> {
    let has_post = declared.hooks.iter().any(|hook| hook.kind == Kind::Post);
    let pre = declared.hooks.iter().find(|hook| hook.kind == Kind::Pre && !matches!(hook.source, Source::Preset(_)))?;
    // those that freeze are errors of their own
    (!has_post && !calls_fsfreeze(pre)).then(|| {
        let advice = "add the post hook that undoes it; there is none to add where it only flushes";
        Note::new(Severity::Warning, &pre.name, "the pod has a pre hook and no post hook", advice)
    })
}

/// Liveness probes that would have a container killed while its writers stand still.
fn impatient(pod: &Pod, declared: &Declared, window: Duration) -> Vec<Note> {
    let holds = declared.hooks.iter().any(|hook| hook.kind == Kind::Hold);
    let stands_still = declared.freeze.unwrap_or(!declared.hooks.is_empty()) || holds;
    if !stands_still {
        return Vec::new();
    }
    let short = |patience: &Duration| *patience < window;
    let impatient = pod.containers.iter().filter_map(|container| Some((container, container.patience.filter(short)?)));
    impatient
        .map(|(container, patience)| {
            let message = format!(
                "its liveness probe has it killed after {}, a window lasts up to {}",
                duration::format(patience),
                duration::format(window)
            );
            let advice = "raise the probe's failureThreshold or periodSeconds, or shorten the window";
            Note::new(Severity::Warning, &format!("container {}", container.name), message, advice)
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::hook::manifest;

    const WINDOW: Duration = Duration::from_secs(10);

    fn lint_pod(annotations: Value, container: Value) -> Vec<Finding> {
        let pod = json!({
            "kind": "Pod", "metadata": {"name": "db", "namespace": "shop", "annotations": annotations},
            "spec": {"containers": [container]},
        });
        lint(&manifest::subjects(&pod, "default").unwrap(), WINDOW)
    }

    fn found(annotations: Value) -> Vec<(Severity, String, String)> {
        let findings = lint_pod(annotations, json!({"name": "db"}));
        findings.into_iter().map(|finding| (finding.severity, finding.subject, finding.message)).collect()
    }

    #[test]
    fn hooks_that_are_right_have_no_findings() {
        assert_eq!(found(json!({"hooks.stillpoint.dev/preset": "postgresql"})), []);
        assert_eq!(
            found(json!({
                "pre.hook.backup.velero.io/command": "[\"/bin/lock\"]",
                "post.hook.backup.velero.io/command": "[\"/bin/unlock\"]",
            })),
            []
        );
    }

    #[test]
    fn a_missing_container_is_an_error() {
        let findings =
            found(json!({"post.hook.backup.velero.io/command": "/x", "post.hook.backup.velero.io/container": "nginx"}));
        assert_eq!((findings[0].0, &*findings[0].1), (Severity::Error, "post"));
        assert!(findings[0].2.contains("\"nginx\"; the pod has db"), "{findings:?}");
    }

    #[test]
    fn fsfreeze_is_found_wherever_it_stands_in_a_command() {
        for command in
            ["/sbin/fsfreeze", "[\"/sbin/fsfreeze\", \"-f\", \"/data\"]", "[\"sh\", \"-c\", \"sync;xfs_freeze -f /d\"]"]
        {
            let findings = found(json!({
                "pre.hook.backup.velero.io/command": command, "post.hook.backup.velero.io/command": command,
            }));
            assert_eq!(findings.len(), 2, "{findings:?}");
            assert!(findings.iter().all(|(severity, ..)| *severity == Severity::Warning));
        }
        assert_eq!(found(json!({"post.hook.backup.velero.io/command": "/opt/no-fsfreeze-here"})), []);
    }

    #[test]
    fn a_freeze_without_a_thaw_is_an_error() {
        let findings = found(json!({"pre.hook.backup.velero.io/command": "/sbin/fsfreeze"}));
        assert!(findings.iter().any(|(severity, ..)| *severity == Severity::Error), "{findings:?}");
    }

    #[test]
    fn a_pre_hook_without_a_post_hook_is_a_warning() {
        let findings = found(json!({"hooks.stillpoint.dev/pre.shell": "lock"}));
        assert_eq!(findings.len(), 1);
        assert_eq!((findings[0].0, &*findings[0].1), (Severity::Warning, "pre"));
    }

    #[test]
    fn a_liveness_probe_shorter_than_the_window_is_a_warning() {
        let annotations = json!({"hooks.stillpoint.dev/freeze": "true"});
        let probe = |seconds| json!({"name": "db", "livenessProbe": {"periodSeconds": seconds, "failureThreshold": 2}});
        let findings = lint_pod(annotations.clone(), probe(5));
        assert_eq!((findings[0].severity, &*findings[0].subject), (Severity::Warning, "container db"));
        assert!(findings[0].message.contains("killed after 6s, a window lasts up to 10s"), "{findings:?}");
        assert_eq!(lint_pod(annotations, probe(9)), [], "one that waits long enough");
        assert_eq!(lint_pod(json!({}), probe(5)), [], "a pod that never stands still");
    }

    #[test]
    fn mistakes_and_doubts_about_annotations_are_told_apart() {
        let severities =
            |annotations| found(annotations).into_iter().map(|(severity, ..)| severity).collect::<Vec<_>>();
        assert_eq!(severities(json!({"hooks.stillpoint.dev/poste.shell": "x"})), [Severity::Error]);
        let velero = json!({
            "post.hook.backup.velero.io/command": "[\"x\"", "post.hook.backup.velero.io/timeout": "300",
        });
        assert_eq!(severities(velero), [Severity::Warning, Severity::Warning]);
        let both = json!({"post.hook.backup.velero.io/command": "/x", "hooks.stillpoint.dev/post.command": "/y"});
        assert_eq!(severities(both), [Severity::Warning]);
    }
}
