//! What became of each hook.
//!
//! Results are values with every outcome spelled out: a hook that may still be running is neither a success nor a
//! failure, and one that was never started has a reason.

use std::{collections::BTreeSet, fmt, time::Duration};

use serde::Serialize;

use super::{
    model::{Kind, OnError},
    output::Output,
    plan::Step,
    pod::PodId,
};

/// Why a hook was not started.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, thiserror::Error)]
#[serde(rename_all = "camelCase", tag = "reason", content = "detail")]
pub enum Skip {
    /// The pod's containers have ended.
    #[error("the pod has ended: there is nothing to bring to rest")]
    PodEnded,
    /// The pod that the hook belongs to is no more, and what its pre hooks did went with it.
    #[error("{0}")]
    PodGone(String),
    /// A hook of the pod failed before.
    #[error("the hook {0} failed before")]
    EarlierFailed(String),
    /// No pre hook of the pod was started, so that there is nothing to undo.
    #[error("no pre hook or hold of the pod was started")]
    NothingStarted,
    /// The whole was called off.
    #[error("it was called off before")]
    CalledOff,
}

/// How a hook ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase", tag = "is")]
pub enum Outcome {
    /// It ended with exit code 0.
    Succeeded,
    /// It ended otherwise, or could not be started.
    Failed {
        /// What happened.
        why: String,
    },
    /// It took too long and was ended.
    TimedOut {
        /// What was done about it.
        why: String,
    },
    /// Nobody knows whether it has ended.
    StillRunning {
        /// Why it was not ended.
        why: String,
    },
    /// It was not started.
    Skipped {
        /// Why not.
        why: Skip,
    },
}

impl Outcome {
    /// Whether the hook was started, as far as anybody can know.
    #[must_use]
    pub fn attempted(&self) -> bool {
        !matches!(self, Self::Skipped { .. })
    }

    /// Whether it was started and did not succeed.
    #[must_use]
    pub fn failed(&self) -> bool {
        self.attempted() && *self != Self::Succeeded
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Succeeded => f.write_str("succeeded"),
            Self::Failed { why } => write!(f, "failed: {why}"),
            Self::TimedOut { why } => write!(f, "timed out: {why}"),
            Self::StillRunning { why } => write!(f, "still running: {why}"),
            Self::Skipped { why } => write!(f, "skipped: {why}"),
        }
    }
}

/// What became of one hook.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct HookResult {
    /// In which pod.
    pub pod: PodId,
    /// In which of its containers.
    pub container: String,
    /// The hook's name.
    pub hook: String,
    /// When it ran.
    pub kind: Kind,
    /// What its failure means.
    pub on_error: OnError,
    /// How it ended.
    pub outcome: Outcome,
    /// How often it was started; more than once only for posts.
    pub attempts: u32,
    /// From its first start to its end; a hold's whole life.
    pub seconds: f64,
    /// What it printed, the last time that it was started.
    pub stdout: Output,
    /// What it complained of.
    pub stderr: Output,
}

impl HookResult {
    pub(super) fn new(pod: &PodId, step: &Step, outcome: Outcome) -> Self {
        Self {
            pod: pod.clone(),
            container: step.container.clone(),
            hook: step.hook.name.clone(),
            kind: step.hook.kind,
            on_error: step.hook.on_error,
            outcome,
            attempts: 0,
            seconds: 0.0,
            stdout: Output::default(),
            stderr: Output::default(),
        }
    }

    pub(super) fn took(mut self, attempts: u32, time: Duration) -> Self {
        self.attempts = attempts;
        self.seconds = time.as_secs_f64();
        self
    }

    pub(super) fn printed(mut self, stdout: Output, stderr: Output) -> Self {
        (self.stdout, self.stderr) = (stdout, stderr);
        self
    }

    /// Whether it is a reason not to snapshot the pod's volumes.
    #[must_use]
    pub fn rules_out(&self) -> bool {
        self.kind != Kind::Post && self.on_error == OnError::Fail && self.outcome.failed()
    }
}

/// A pod none of whose hooks could run, and why.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Refused {
    /// Which pod.
    pub pod: PodId,
    /// Why.
    pub why: String,
}

/// What became of all hooks, so far or at the end.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Report {
    /// Pods whose hooks could not run.
    pub refused: Vec<Refused>,
    /// One entry for each hook, in the order in which they ended.
    pub results: Vec<HookResult>,
}

impl Report {
    /// How many hooks were started.
    #[must_use]
    pub fn attempted(&self) -> usize {
        self.results.iter().filter(|result| result.outcome.attempted()).count()
    }

    /// How many of them did not succeed.
    #[must_use]
    pub fn failed(&self) -> usize {
        self.results.iter().filter(|result| result.outcome.failed()).count()
    }

    /// The pods whose volumes must not be snapshotted.
    #[must_use]
    pub fn ruled_out(&self) -> BTreeSet<&PodId> {
        let failed = self.results.iter().filter(|result| result.rules_out()).map(|result| &result.pod);
        self.refused.iter().map(|refused| &refused.pod).chain(failed).collect()
    }
}
