//! Hooks in a pod's annotations: Velero's syntax, and ours.
//!
//! Velero's is read exactly as Velero reads it, its forgiving parts included, so that manifests work unchanged; what it
//! forgives is a warning here. In ours a mistake is an error: a hook that is not understood must not look as if it ran.
//! The first annotation of ours that makes a hook turns Velero's off for the pod: a pre hook of one and a post hook of
//! the other are not a pair.

mod ours;
mod velero;

use std::collections::BTreeMap;

use serde::Serialize;

use super::{duration::DurationError, model::Hook, preset::PresetError};

/// What our annotations begin with.
pub const PREFIX: &str = "hooks.stillpoint.dev/";

/// A pod's annotations, as Kubernetes gives them.
pub type Annotations = BTreeMap<String, String>;

/// What a pod's annotations say.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Declared {
    /// The hooks, in no order that means anything.
    pub hooks: Vec<Hook>,
    /// Whether the pod's volumes are to be frozen; the cut decides when nothing is said.
    pub freeze: Option<bool>,
    /// What is wrong or doubtful, by annotation.
    #[serde(skip)]
    pub problems: Vec<Problem>,
}

impl Declared {
    /// The first mistake for which the pod's hooks must not be believed.
    #[must_use]
    pub fn mistake(&self) -> Option<&Problem> {
        self.problems.iter().find(|problem| problem.is_error())
    }
}

/// Something wrong or doubtful about one annotation.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{annotation}: {fault}")]
pub struct Problem {
    /// The whole key.
    pub annotation: String,
    /// What is wrong with it.
    pub fault: Fault,
}

/// What is wrong with an annotation.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Fault {
    /// A command that begins like a JSON array and is none.
    #[error("begins with [ but is no JSON array of strings ({0})")]
    NotJson(String),
    /// The same in Velero's annotations, where it is no error.
    #[error("begins with [ but is no JSON array of strings ({0}): Velero runs the whole text as one program name")]
    VeleroNotJson(String),
    /// A command without a program.
    #[error("the command is empty")]
    EmptyCommand,
    /// A timeout that cannot be read.
    #[error("{value:?} is no duration: {error}")]
    Duration {
        /// What stands there.
        value: String,
        /// Why it is none.
        error: DurationError,
    },
    /// The same in Velero's annotations.
    #[error("{value:?} is no duration ({error}): Velero takes 30s")]
    VeleroDuration {
        /// What stands there.
        value: String,
        /// Why it is none.
        error: DurationError,
    },
    /// An on-error that is neither.
    #[error("{0:?} is neither Fail nor Continue")]
    OnError(String),
    /// The same in Velero's annotations.
    #[error("{0:?} is neither Fail nor Continue: taken as Fail")]
    VeleroOnError(String),
    /// An order that is no number.
    #[error("{0:?} is no whole number")]
    Order(String),
    /// A switch that is neither.
    #[error("{0:?} is neither true nor false")]
    Switch(String),
    /// A preset that does not exist or lacks something.
    #[error(transparent)]
    Preset(#[from] PresetError),
    /// Both `command` and `shell`.
    #[error("the hook has a command as well; keep one of them")]
    CommandAndShell,
    /// Settings of a hook that has no command.
    #[error("there is no command for it: neither {0}command nor {0}shell")]
    NoCommand(String),
    /// The same in Velero's annotations, which knows no shell.
    #[error("there is no {0}: Velero runs no hook")]
    VeleroNoCommand(String),
    /// A key of ours that means nothing.
    #[error("is not known; see docs/hooks.md for those that are")]
    Unknown,
    /// A key like Velero's that means nothing to Velero.
    #[error("is not known to Velero, which ignores it")]
    VeleroUnknown,
    /// Velero's command, where ours are there too.
    #[error("is ignored, because the pod has hooks of {PREFIX}")]
    Overridden,
    /// The form without a phase, where `pre.` is there too.
    #[error("is ignored, because the pod has {0} as well")]
    Legacy(String),
}

impl Problem {
    fn new(annotation: impl Into<String>, fault: impl Into<Fault>) -> Self {
        Self { annotation: annotation.into(), fault: fault.into() }
    }

    /// Whether the pod's hooks must not be believed; otherwise it is a matter of advice.
    #[must_use]
    pub fn is_error(&self) -> bool {
        match self.fault {
            Fault::NotJson(_)
            | Fault::EmptyCommand
            | Fault::Duration { .. }
            | Fault::OnError(_)
            | Fault::Order(_)
            | Fault::Switch(_)
            | Fault::Preset(_)
            | Fault::CommandAndShell
            | Fault::NoCommand(_)
            | Fault::Unknown => true,
            Fault::VeleroNotJson(_)
            | Fault::VeleroDuration { .. }
            | Fault::VeleroOnError(_)
            | Fault::VeleroNoCommand(_)
            | Fault::VeleroUnknown
            | Fault::Overridden
            | Fault::Legacy(_) => false,
        }
    }
}

/// Reads the hooks of a pod.
#[must_use]
pub fn read(annotations: &Annotations) -> Declared {
    let mut declared = ours::read(annotations);
    let velero = velero::read(annotations);
    if declared.hooks.is_empty() && !ours::any(annotations) {
        declared.hooks = velero.hooks;
        declared.problems.extend(velero.problems);
    } else {
        declared.problems.extend(velero.commands.into_iter().map(|key| Problem::new(key, Fault::Overridden)));
    }
    declared
}

#[cfg(test)]
pub(crate) fn annotations<const N: usize>(pairs: [(&str, &str); N]) -> Annotations {
    pairs.into_iter().map(|(key, value)| (key.to_owned(), value.to_owned())).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hook::model::{Kind, Source};

    #[test]
    fn ours_turn_veleros_off_and_say_so() {
        let declared = read(&annotations([
            ("pre.hook.backup.velero.io/command", "/freeze"),
            ("post.hook.backup.velero.io/command", "/thaw"),
            ("hooks.stillpoint.dev/pre.shell", "sync"),
        ]));
        assert_eq!(declared.hooks.len(), 1);
        assert_eq!(declared.hooks[0].source, Source::Stillpoint);
        let overridden: Vec<_> = declared.problems.iter().map(|problem| &*problem.annotation).collect();
        assert_eq!(overridden, ["pre.hook.backup.velero.io/command", "post.hook.backup.velero.io/command"]);
        assert!(declared.mistake().is_none());
    }

    #[test]
    fn a_preset_turns_veleros_off_even_when_it_needs_no_hook() {
        let declared = read(&annotations([
            ("pre.hook.backup.velero.io/command", "/freeze"),
            ("hooks.stillpoint.dev/preset", "etcd"),
        ]));
        assert_eq!(declared.hooks, []);
        assert_eq!(declared.problems[0].fault, Fault::Overridden);
    }

    #[test]
    fn a_setting_of_ours_that_makes_no_hook_leaves_veleros_on() {
        let declared = read(&annotations([
            ("pre.hook.backup.velero.io/command", "/freeze"),
            ("hooks.stillpoint.dev/freeze", "false"),
        ]));
        assert_eq!((declared.hooks[0].kind, declared.hooks[0].source), (Kind::Pre, Source::Velero));
        assert_eq!((declared.freeze, declared.problems), (Some(false), Vec::new()));
    }

    #[test]
    fn a_mistake_in_ours_does_not_let_veleros_run_instead() {
        let declared = read(&annotations([
            ("pre.hook.backup.velero.io/command", "/freeze"),
            ("hooks.stillpoint.dev/pre.command", "[\"sync\""),
        ]));
        assert_eq!(declared.hooks, []);
        assert!(matches!(declared.mistake().unwrap().fault, Fault::NotJson(_)));
    }
}
