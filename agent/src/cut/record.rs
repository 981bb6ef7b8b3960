//! What a cut came to, as the manifest records it.
//!
//! In one place, so that what hooks, nodes and the capture say of one volume becomes one sentence about it.

use std::collections::BTreeSet;

use stillpoint_api::{
    Digest, HookOutcome, HookRecord, Level, Method, Problem, ProblemKind, VolumeData, VolumeRecord, VolumeSnapshot,
    Window,
};
use stillpoint_hooks::hook::{
    model::Kind,
    plan::Plan,
    report::{HookResult, Outcome, Report},
};
use stillpoint_repository::Node;

use super::{
    claims::Place,
    quiesce::{Prepared, Quiesce, Stored},
};
use crate::node::wire;

/// What became of the hooks of the last cut.
#[derive(Debug, Default)]
pub(crate) struct HookResults {
    pub(crate) records: Vec<HookRecord>,
    pub(crate) problems: Vec<Problem>,
    /// The pods that hooks brought to rest.
    at_rest: BTreeSet<String>,
}

impl HookResults {
    pub(super) fn of(report: &Report, plan: &Plan) -> Self {
        let records = report.results.iter().map(record).collect();
        let failed = report.results.iter().filter(|result| result.outcome.failed());
        let problem = |subject: String, message: String| Problem { kind: ProblemKind::Hook, subject, message };
        let mut problems: Vec<_> = failed
            .map(|result| problem(format!("{} {}", result.pod, result.hook), result.outcome.to_string()))
            .collect();
        problems.extend(report.refused.iter().map(|refused| problem(refused.pod.to_string(), refused.why.clone())));
        let ruled_out = report.ruled_out();
        let quiesced = plan.pods.iter().filter(|pod| pod.steps.iter().any(|step| step.hook.kind != Kind::Post));
        let at_rest = quiesced.filter(|pod| !ruled_out.contains(&pod.pod)).map(|pod| pod.pod.to_string()).collect();
        Self { records, problems, at_rest }
    }
}

fn record(result: &HookResult) -> HookRecord {
    let outcome = match result.outcome {
        Outcome::Succeeded => HookOutcome::Succeeded,
        Outcome::Failed { .. } => HookOutcome::Failed,
        Outcome::TimedOut { .. } => HookOutcome::TimedOut,
        Outcome::StillRunning { .. } => HookOutcome::StillRunning,
        Outcome::Skipped { .. } => HookOutcome::Skipped,
    };
    HookRecord {
        pod: result.pod.to_string(),
        container: result.container.clone(),
        hook: result.hook.clone(),
        outcome,
        message: result.outcome.to_string(),
        millis: std::time::Duration::try_from_secs_f64(result.seconds)
            .map_or(0, |took| u64::try_from(took.as_millis()).unwrap_or(u64::MAX)),
    }
}

/// A claim of the backup with what is recorded of it.
pub(crate) struct Recorded {
    pub(crate) data: VolumeData,
    /// Its root, if it is held.
    pub(crate) directory: Option<Node>,
    pub(crate) problem: Option<String>,
}

impl Quiesce {
    /// What is recorded of a claim that the backup holds.
    pub(crate) fn record(&self, record: &VolumeRecord, stored: &Stored, window: Option<Window>) -> Recorded {
        let id = format!("{}/{}", record.namespace, record.claim);
        if self.claims.iter().any(|claim| claim.id() == id && claim.place == Place::LeftOut) {
            return Recorded { data: VolumeData::LeftOut, directory: None, problem: None };
        }
        match self.snapshot(&id, stored, window) {
            Ok((snapshot, directory, problem)) => {
                Recorded { data: VolumeData::Held(Box::new(snapshot)), directory: Some(directory), problem }
            }
            Err(why) => Recorded { data: VolumeData::NotHeld, directory: None, problem: Some(why) },
        }
    }

    fn snapshot(
        &self,
        id: &str,
        stored: &Stored,
        window: Option<Window>,
    ) -> Result<(VolumeSnapshot, Node, Option<String>), String> {
        if let Some(why) = self.left_out.get(id).or_else(|| self.refused.get(id)) {
            return Err(why.clone());
        }
        let known = self.claims.iter().find(|claim| claim.id() == id);
        let claim = known.ok_or("the claim was made while the backup began: it is in the next one")?;
        let (Some(Prepared { node, volume }), Some(copy)) = (self.prepared.get(id), stored.volumes.get(id)) else {
            return Err("its node stored nothing of it".to_owned());
        };
        if !copy.failed.is_empty() {
            return Err(copy.failed.clone());
        }
        let directory: Node = serde_json::from_slice(&copy.directory)
            .map_err(|error| format!("node {node} described it wrongly: {error}"))?;
        let tree = directory.subtree.ok_or_else(|| format!("node {node} described it without its content"))?;
        let at_rest = !claim.pods.is_empty() && claim.pods.iter().all(|pod| self.hook_results.at_rest.contains(pod));
        let mut strangers = copy.strangers.clone();
        let mut level = match word::<Level>(&copy.level) {
            Some(Level::Filesystem) if at_rest => Level::Application,
            level => level.unwrap_or(Level::Fuzzy),
        };
        if let Some(writers) = self.held.elsewhere.get(id) {
            strangers.extend(writers.iter().cloned());
            level = Level::Fuzzy;
        }
        let through = if claim.unmounted { "; no running pod mounted it, a helper pod did" } else { "" };
        let snapshot = VolumeSnapshot {
            tree: Digest(tree.0),
            node: node.clone(),
            filesystem: volume.filesystem.clone(),
            method: method(&copy.method).ok_or_else(|| format!("node {node} used an unknown method"))?,
            reason: format!("{}{through}", copy.reason),
            level,
            stopped: window.filter(|_| level >= Level::Filesystem),
            strangers,
            files: copy.files,
            bytes: copy.bytes,
            bytes_read: copy.bytes_read,
            unread: copy.unread,
        };
        let doubts = doubts(copy, &snapshot);
        Ok((snapshot, directory, doubts))
    }
}

/// What a held copy lacks.
fn doubts(copy: &wire::StoredVolume, snapshot: &VolumeSnapshot) -> Option<String> {
    let VolumeSnapshot { level, strangers, .. } = snapshot;
    let mut doubts = Vec::new();
    if copy.unread > 0 {
        doubts.push(format!("{} of its files are not whole: {}", copy.unread, copy.problems.join("; ")));
    }
    if *level < Level::Filesystem {
        let strangers = if strangers.is_empty() { String::new() } else { format!(": {}", strangers.join("; ")) };
        doubts.push(format!("it was written while it was copied (level {level}){strangers}"));
    }
    (!doubts.is_empty()).then(|| doubts.join("; "))
}

fn word<T: serde::de::DeserializeOwned>(text: &str) -> Option<T> {
    serde_json::from_value(text.into()).ok()
}

/// The method that a word names.
pub(crate) fn method(text: &str) -> Option<Method> {
    [Method::Precopy, Method::Reflink, Method::Btrfs, Method::ReadPaused, Method::Live]
        .into_iter()
        .find(|method| method.to_string() == text)
}
