//! What a run writes down before it starts, and what the next start does about one that was killed.

use std::sync::Arc;

use tokio::{
    sync::watch,
    task::{JoinError, spawn_blocking},
};
use tokio_util::sync::CancellationToken;

use super::{Crew, Limits, Pod};
use crate::{
    hook::{
        exec::Executor,
        journal::{Entry, Journal, Owed},
        model::Kind,
        plan::{Plan, PodPlan, Step},
        report::Report,
    },
    journal::Error,
};

/// What became of the posts that were owed.
#[derive(Debug, Default)]
pub struct Settled {
    /// The posts that were run.
    pub report: Report,
    /// The files of the journal that cannot be read: whatever they owe was not run.
    pub unreadable: Vec<Error>,
}

/// Runs the posts that processes owe which were killed: those of every pod of which a pre hook or hold was started, in
/// reverse order. For the start of whatever runs hooks, before it runs any.
///
/// # Guarantees
/// - A post that has run is not run again. One that was running when its process was killed is: posts must bear that.
/// - One that nobody answered for stays owed. One whose pod is gone is not owed any more.
/// - What a process that lives owes is its own; two that start at once run no post twice.
///
/// # Errors
/// When the journal's folder cannot be read.
pub async fn owed(journal: &Journal, executor: Arc<dyn Executor>, limits: Limits) -> Result<Settled, Error> {
    let reader = journal.clone();
    let found = unless_panicked(spawn_blocking(move || reader.owed()).await)?;
    let mut settled = Settled::default();
    let mut pods = Vec::new();
    for found in found {
        match found {
            Ok(owed) => pods.push(pod(owed)),
            Err(error) => settled.unreadable.push(error),
        }
    }
    let plan = Plan { pods: pods.iter().map(|pod| pod.plan.clone()).collect() };
    let (broken, _) = watch::channel(Vec::new());
    let crew = Crew { executor, limits, journal: None, release: CancellationToken::new(), broken };
    crew.way_back(pods, &plan.groups(), &mut settled.report).await;
    Ok(settled)
}

fn pod(owed: Owed) -> Pod {
    let Owed { pod, posts, entry } = owed;
    let plan = PodPlan { pod, freeze: None, fault: None, ended: false, steps: posts };
    Pod { touched: true, entry: Some(entry), ..Pod::new(plan) }
}

/// Writes down what a pod is owed, before the first of its hooks is started.
pub(super) async fn write_down(crew: &Crew, pod: &mut Pod) -> Result<(), String> {
    let Some(journal) = crew.journal.clone() else { return Ok(()) };
    let posts: Vec<Step> = pod.plan.steps.iter().filter(|step| step.hook.kind == Kind::Post).cloned().collect();
    if posts.is_empty() {
        return Ok(());
    }
    let id = pod.plan.pod.clone();
    let begun = unless_panicked(spawn_blocking(move || journal.begin(id, posts)).await);
    pod.entry =
        Some(begun.map_err(|error| format!("not started, because its post could not be written down: {error}"))?);
    Ok(())
}

/// Notes that a post has run.
pub(super) async fn settle(pod: &mut Pod, step: &Step) {
    let Some(mut entry) = pod.entry.take() else { return };
    let post = step.hook.name.clone();
    let note = move || {
        let noted = entry.done(&post);
        (entry, noted)
    };
    let (entry, noted): (Entry, _) = unless_panicked(spawn_blocking(note).await);
    if let Err(error) = noted {
        tracing::warn!(pod = %pod.plan.pod, post = %step.hook.name, %error, "the post has run and is still written down as owed");
    }
    pod.entry = Some(entry);
}

fn unless_panicked<T>(ended: Result<T, JoinError>) -> T {
    ended.unwrap_or_else(|error| std::panic::resume_unwind(error.into_panic()))
}
