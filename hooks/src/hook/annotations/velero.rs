//! `pre.hook.backup.velero.io/*`, `post.…` and the older form without a phase.
//!
//! Read as Velero's code reads them: an unreadable array is one program name, an unreadable timeout is 30 s. Only an
//! unset on-error differs: Velero documents it as Fail and then goes on; here it fails.

use super::{Annotations, Fault, Problem};
use crate::hook::{
    duration,
    model::{Hook, Kind, OnError, Source, bounded_timeout},
};

const KEY: &str = "hook.backup.velero.io/";
const SETTINGS: [&str; 4] = ["command", "container", "on-error", "timeout"];

/// What Velero would make of the annotations.
#[derive(Debug, Default)]
pub(super) struct Velero {
    pub(super) hooks: Vec<Hook>,
    pub(super) problems: Vec<Problem>,
    /// The keys of the commands, in the order pre, post.
    pub(super) commands: Vec<String>,
}

pub(super) fn read(annotations: &Annotations) -> Velero {
    let mut velero = Velero::default();
    let has = |prefix: &str| annotations.get(&format!("{prefix}command")).is_some_and(|command| !command.is_empty());
    let (pre, post) = (format!("pre.{KEY}"), format!("post.{KEY}"));
    if has(&pre) {
        velero.take(annotations, &pre, Kind::Pre);
        if has(KEY) {
            let legacy = Fault::Legacy(format!("{pre}command"));
            velero.problems.push(Problem::new(format!("{KEY}command"), legacy));
        }
    } else if has(KEY) {
        velero.take(annotations, KEY, Kind::Pre);
    }
    if has(&post) {
        velero.take(annotations, &post, Kind::Post);
    }
    velero.problems.extend(without_effect(annotations, has));
    velero
}

/// Keys that look like Velero's and do nothing.
fn without_effect(annotations: &Annotations, has: impl Fn(&str) -> bool) -> Vec<Problem> {
    let mut problems = Vec::new();
    for key in annotations.keys() {
        let Some((phase, setting)) = key.split_once(KEY) else { continue };
        if !["", "pre.", "post."].contains(&phase) || !SETTINGS.contains(&setting) {
            problems.push(Problem::new(key, Fault::VeleroUnknown));
        } else if !has(&format!("{phase}{KEY}")) {
            problems.push(Problem::new(key, Fault::VeleroNoCommand(format!("{phase}{KEY}command"))));
        }
    }
    problems
}

impl Velero {
    fn take(&mut self, annotations: &Annotations, prefix: &str, kind: Kind) {
        let get = |setting| annotations.get(&format!("{prefix}{setting}")).filter(|value: &&String| !value.is_empty());
        let Some(text) = get("command") else { return };
        let key = |setting| format!("{prefix}{setting}");
        self.commands.push(key("command"));
        let command = self.command(text, key("command"));
        let mut hook = Hook::new(kind.name(), kind, Source::Velero, command);
        hook.container = get("container").cloned();
        if let Some(value) = get("on-error") {
            match &**value {
                "Fail" => hook.on_error = OnError::Fail,
                "Continue" => hook.on_error = OnError::Continue,
                _ => self.problems.push(Problem::new(key("on-error"), Fault::VeleroOnError(value.clone()))),
            }
        }
        if let Some(value) = get("timeout") {
            match duration::parse(value) {
                Ok(timeout) => hook.timeout = bounded_timeout(timeout),
                Err(error) => {
                    let fault = Fault::VeleroDuration { value: value.clone(), error };
                    self.problems.push(Problem::new(key("timeout"), fault));
                }
            }
        }
        self.hooks.push(hook);
    }

    fn command(&mut self, text: &str, key: String) -> Vec<String> {
        if !text.starts_with('[') {
            return vec![text.to_owned()];
        }
        // Go reads a null as an empty string
        match serde_json::from_str::<Vec<Option<String>>>(text) {
            Ok(command) => {
                if command.is_empty() {
                    self.problems.push(Problem::new(key, Fault::EmptyCommand));
                }
                command.into_iter().map(Option::unwrap_or_default).collect()
            }
            Err(error) => {
                self.problems.push(Problem::new(key, Fault::VeleroNotJson(error.to_string())));
                vec![text.to_owned()]
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::hook::{
        annotations::annotations,
        duration::DurationError,
        model::{DEFAULT_TIMEOUT, MAX_TIMEOUT},
    };

    fn one<const N: usize>(pairs: [(&str, &str); N]) -> (Hook, Vec<Fault>) {
        let mut velero = read(&annotations(pairs));
        assert_eq!(velero.hooks.len(), 1, "{velero:?}");
        (velero.hooks.remove(0), velero.problems.into_iter().map(|problem| problem.fault).collect())
    }

    #[test]
    fn everything_that_velero_documents_is_read() {
        let (hook, problems) = one([
            ("post.hook.backup.velero.io/command", r#"["/sbin/fsfreeze", "--unfreeze", "/data"]"#),
            ("post.hook.backup.velero.io/container", "fsfreeze"),
            ("post.hook.backup.velero.io/on-error", "Continue"),
            ("post.hook.backup.velero.io/timeout", "1m30s"),
        ]);
        assert_eq!(hook.command, ["/sbin/fsfreeze", "--unfreeze", "/data"]);
        assert_eq!((hook.kind, hook.name.as_str(), hook.container.as_deref()), (Kind::Post, "post", Some("fsfreeze")));
        assert_eq!((hook.on_error, hook.timeout), (OnError::Continue, Duration::from_secs(90)));
        assert_eq!(problems, []);
    }

    #[test]
    fn without_settings_the_defaults_hold_and_failing_is_strict() {
        let (hook, problems) = one([("pre.hook.backup.velero.io/command", "/bin/sync all")]);
        assert_eq!(hook.command, ["/bin/sync all"], "one program name, no shell");
        assert_eq!((hook.container, hook.on_error, hook.timeout), (None, OnError::Fail, DEFAULT_TIMEOUT));
        assert_eq!(problems, []);
    }

    #[test]
    fn the_form_without_a_phase_is_pre_unless_pre_is_there() {
        let legacy = ("hook.backup.velero.io/command", "/old");
        let (hook, _) = one([legacy, ("hook.backup.velero.io/timeout", "5s")]);
        assert_eq!(
            (hook.kind, hook.command, hook.timeout),
            (Kind::Pre, vec!["/old".to_owned()], Duration::from_secs(5))
        );
        let (hook, problems) = one([legacy, ("pre.hook.backup.velero.io/command", "/new")]);
        assert_eq!(hook.command, ["/new"]);
        assert_eq!(problems, [Fault::Legacy("pre.hook.backup.velero.io/command".to_owned())]);
    }

    #[test]
    fn an_unreadable_array_is_one_program_name() {
        for text in ["[\"a\", ", "[1, 2]", "[a]"] {
            let (hook, problems) = one([("pre.hook.backup.velero.io/command", text)]);
            assert_eq!(hook.command, [text]);
            assert!(matches!(problems[..], [Fault::VeleroNotJson(_)]));
        }
        let (hook, problems) = one([("pre.hook.backup.velero.io/command", r#"["a", null]"#)]);
        assert_eq!((hook.command, problems), (vec!["a".to_owned(), String::new()], Vec::new()));
    }

    #[test]
    fn an_unreadable_timeout_is_the_default_and_none_is_longer_than_four_hours() {
        let command = ("pre.hook.backup.velero.io/command", "/x");
        let key = "pre.hook.backup.velero.io/timeout";
        let (hook, problems) = one([command, (key, "300")]);
        let fault = Fault::VeleroDuration { value: "300".to_owned(), error: DurationError::NoUnit };
        assert_eq!((hook.timeout, problems), (DEFAULT_TIMEOUT, vec![fault]));
        assert_eq!(one([command, (key, "-5s")]).0.timeout, DEFAULT_TIMEOUT);
        assert_eq!(one([command, (key, "0")]).0.timeout, DEFAULT_TIMEOUT);
        assert_eq!(one([command, (key, "100h")]).0.timeout, MAX_TIMEOUT);
    }

    #[test]
    fn keys_without_effect_are_named() {
        let velero = read(&annotations([
            ("pre.hook.backup.velero.io/comand", "/x"),
            ("pre.hook.backup.velero.io/container", "db"),
            ("post.hook.backup.velero.io/command", ""),
            ("post.hook.restore.velero.io/command", "/restore"),
        ]));
        assert_eq!(velero.hooks, []);
        let faults: Vec<_> = velero.problems.into_iter().map(|problem| problem.fault).collect();
        let missing = Fault::VeleroNoCommand("pre.hook.backup.velero.io/command".to_owned());
        let empty = Fault::VeleroNoCommand("post.hook.backup.velero.io/command".to_owned());
        assert_eq!(faults, [empty, Fault::VeleroUnknown, missing]);
    }
}
