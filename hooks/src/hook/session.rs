//! The hooks of a plan, as a session runs them.
//!
//! A run goes through its order groups in a task of its own, so that to the session all of them are one group: its
//! question may be dropped at any moment, and the way back starts all the same.
//!
//! # Caveats
//! A hold that dies ends the window at once. One that lives may tell only when it is released that its lock was lost long
//! before. A caller that has copied something asks [`PlannedHooks::report`] for [`Report::ruled_out`] at the end.

use std::sync::Arc;

use super::{
    exec::Executor,
    journal::Journal,
    plan::Plan,
    pod::PodId,
    report::{HookResult, Report},
    run::{self, Limits, Running},
};
use crate::session::{HookFailure, Hooks};

/// A plan's hooks before, in and after a session.
pub struct PlannedHooks {
    executor: Arc<dyn Executor>,
    limits: Limits,
    journal: Option<Journal>,
    stage: Stage,
    report: Report,
}

enum Stage {
    Planned(Plan),
    Running(Box<Running>),
    Ended,
}

impl PlannedHooks {
    /// The hooks of `plan`, which `executor` will run.
    #[must_use]
    pub fn new(plan: Plan, executor: Arc<dyn Executor>, limits: Limits) -> Self {
        Self { executor, limits, journal: None, stage: Stage::Planned(plan), report: Report::default() }
    }

    /// The same, with what the pods are owed in `journal`, so that their posts run even when this process is killed.
    #[must_use]
    pub fn journalled(self, journal: Journal) -> Self {
        Self { journal: Some(journal), ..self }
    }

    /// What became of the hooks, as far as it is known.
    #[must_use]
    pub fn report(&self) -> &Report {
        &self.report
    }
}

impl Hooks for PlannedHooks {
    fn groups(&self) -> usize {
        match &self.stage {
            Stage::Planned(plan) if plan.pods.is_empty() => 0,
            _ => 1,
        }
    }

    async fn pre(&mut self, _group: usize) -> Vec<HookFailure> {
        if let Stage::Planned(plan) = &mut self.stage {
            let running =
                run::start(std::mem::take(plan), Arc::clone(&self.executor), self.limits, self.journal.clone());
            self.stage = Stage::Running(Box::new(running));
        }
        let Stage::Running(running) = &mut self.stage else { return Vec::new() };
        self.report = running.ready().await;
        let refused = self.report.refused.iter().map(|refused| failure(&refused.pod, refused.why.clone()));
        refused.chain(self.report.results.iter().filter(|result| result.rules_out()).map(of_result)).collect()
    }

    async fn hold_lost(&mut self) {
        match &mut self.stage {
            Stage::Running(running) => drop(running.broke().await),
            Stage::Planned(_) | Stage::Ended => std::future::pending().await,
        }
    }

    fn lost_holds(&mut self) -> Vec<HookFailure> {
        let Stage::Running(running) = &self.stage else { return Vec::new() };
        let lost = running.broken();
        let failures = lost.iter().filter(|result| result.rules_out()).map(of_result).collect();
        // so that the way back tells only what is new
        self.report.results.extend(lost);
        failures
    }

    async fn post(&mut self) -> Vec<HookFailure> {
        let Stage::Running(running) = std::mem::replace(&mut self.stage, Stage::Ended) else { return Vec::new() };
        let told = std::mem::replace(&mut self.report, running.finish().await).results;
        let known = |result: &HookResult| {
            let same = |other: &HookResult| (&other.pod, &other.hook) == (&result.pod, &result.hook);
            told.iter().any(|other| same(other) && other.outcome.failed())
        };
        let failed = self.report.results.iter().filter(|result| result.outcome.failed() && !known(result));
        failed.map(of_result).collect()
    }
}

fn of_result(result: &HookResult) -> HookFailure {
    failure(&result.pod, format!("{}: {}", result.hook, result.outcome))
}

/// Whether a pod may be missing is the caller's policy, which looks at what was left out.
fn failure(pod: &PodId, what: String) -> HookFailure {
    HookFailure { pod: pod.to_string(), what, fatal: false }
}
