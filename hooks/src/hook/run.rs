//! Runs a plan's hooks around a window in which the caller does its work.
//!
//! A task of its own owns the hooks, because a future that is dropped cannot undo anything: [`Running`] is only a
//! handle, and letting go of it, in whatever way, is what starts the way back.
//!
//! # Flow
//! Pre hooks and holds start by order groups, lowest first: the pods of a group at once, the hooks of a pod one after
//! the other. Then the window is open. On the way back the groups come in reverse: of each pod the holds are released,
//! then the posts run, last first.
//!
//! # Guarantees
//! - A pod of which a pre hook or hold was started gets all its posts, whatever became of what was started.
//! - No hook's failure, output or silence stops another's post; each post is tried again until its deadline.
//! - A pod's failed pre hook, unless it says Continue, starts no further pre hook of that pod.
//! - With a journal, what a pod is owed is on the disk before its first pre hook or hold is started, so that posts run
//!   even when this process is killed: [`owed`] runs them at its next start.
//! - A hold that dies while the window is open is known at once, and rules its pod out.
//!
//! # Caveats
//! The task lives in the caller's runtime: whoever ends the process before [`Running::finish`] ends the way back too.
//! Without a journal nobody runs the posts then.

mod attempt;
mod hold;
mod owed;
mod post;

use std::{sync::Arc, time::Duration};

use futures::{StreamExt, stream};
use tokio::{
    sync::{oneshot, watch},
    task::JoinHandle,
    time,
};
use tokio_util::sync::{CancellationToken, DropGuard};

use self::hold::Hold;
pub use self::owed::{Settled, owed};
use super::{
    exec::Executor,
    journal::{Entry, Journal},
    model::Kind,
    plan::{Plan, PodPlan, Step},
    report::{HookResult, Outcome, Refused, Report, Skip},
};

/// How many pods have hooks running at once.
const AT_ONCE: usize = 64;

/// How long things may take as a whole; each hook has its own timeout.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// After this the window is closed, whether the caller is done or not.
    pub window: Duration,
    /// How long a post is tried again, from its first start.
    pub post: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self { window: Duration::from_secs(600), post: Duration::from_secs(300) }
    }
}

/// Hooks on their way. Dropping it releases the holds and runs the posts, in the background.
#[derive(Debug)]
pub struct Running {
    ready: Option<oneshot::Receiver<Report>>,
    broken: watch::Receiver<Vec<HookResult>>,
    release: DropGuard,
    task: JoinHandle<Report>,
}

/// Starts the hooks of `plan`; `journal` is where posts are owed to. Must be called within a tokio runtime.
#[must_use]
pub fn start(plan: Plan, executor: Arc<dyn Executor>, limits: Limits, journal: Option<Journal>) -> Running {
    let release = CancellationToken::new();
    let (say_ready, ready) = oneshot::channel();
    let (say_broken, broken) = watch::channel(Vec::new());
    let crew = Crew { executor, limits, journal, release: release.clone(), broken: say_broken };
    let task = tokio::spawn(crew.run(plan, say_ready));
    Running { ready: Some(ready), broken, release: release.drop_guard(), task }
}

impl Running {
    /// Waits until every pre hook has ended and every hold holds or has failed; says what became of them.
    /// Only the first call has the answer.
    pub async fn ready(&mut self) -> Report {
        match self.ready.take() {
            Some(ready) => ready.await.unwrap_or_default(),
            None => Report::default(),
        }
    }

    /// The holds that have died since they held: what was done since then was not covered by them.
    #[must_use]
    pub fn broken(&self) -> Vec<HookResult> {
        self.broken.borrow().clone()
    }

    /// Waits until a hold dies whose pod that rules out; for ever while none does. May be dropped and called again.
    pub async fn broke(&mut self) -> HookResult {
        let first = |broken: &Vec<HookResult>| broken.iter().find(|result| result.rules_out()).cloned();
        match self.broken.wait_for(|broken| first(broken).is_some()).await.map(|broken| first(&broken)) {
            Ok(Some(first)) => first,
            _ => std::future::pending().await,
        }
    }

    /// Closes the window: releases the holds, runs the posts, and says what became of everything.
    pub async fn finish(self) -> Report {
        let Self { release, task, .. } = self;
        release.disarm().cancel();
        match task.await {
            Ok(report) => report,
            Err(error) => std::panic::resume_unwind(error.into_panic()),
        }
    }
}

/// Everything that the hooks of one run share.
struct Crew {
    executor: Arc<dyn Executor>,
    limits: Limits,
    journal: Option<Journal>,
    /// Cancelled when the window is to close, or not to open at all.
    release: CancellationToken,
    broken: watch::Sender<Vec<HookResult>>,
}

/// A pod on its way.
struct Pod {
    plan: PodPlan,
    /// Whether a pre hook or hold was started.
    touched: bool,
    /// What the journal has of it.
    entry: Option<Entry>,
    /// The hook whose failure keeps the others from starting.
    failed: Option<String>,
    holds: Vec<Hold>,
    results: Vec<HookResult>,
}

impl Pod {
    fn new(plan: PodPlan) -> Self {
        Self { plan, touched: false, entry: None, failed: None, holds: Vec::new(), results: Vec::new() }
    }
}

impl Crew {
    async fn run(self, plan: Plan, ready: oneshot::Sender<Report>) -> Report {
        let groups = plan.groups();
        let mut report = Report::default();
        let mut pods = Vec::new();
        for plan in plan.pods {
            match &plan.fault {
                Some(fault) => report.refused.push(Refused { pod: plan.pod, why: fault.to_string() }),
                None => pods.push(Pod::new(plan)),
            }
        }
        for &group in &groups {
            pods = each(pods, |pod| self.pre(pod, group)).await;
        }
        collect(&mut pods, &mut report);
        let mut so_far = report.clone();
        so_far.results.extend(pods.iter().flat_map(|pod| pod.holds.iter().map(|hold| hold.so_far(&pod.plan.pod))));
        if ready.send(so_far).is_ok() {
            // a caller that forgets the window must not keep the application at rest
            let _ = time::timeout(self.limits.window, self.release.cancelled()).await;
        }
        self.way_back(pods, &groups, &mut report).await;
        report
    }

    async fn way_back(&self, mut pods: Vec<Pod>, groups: &[i32], report: &mut Report) {
        for &group in groups.iter().rev() {
            pods = each(pods, |pod| self.post(pod, group)).await;
            collect(&mut pods, report);
        }
    }

    /// Runs the pre hooks of one group in one pod and starts its holds.
    async fn pre(&self, mut pod: Pod, group: i32) -> Pod {
        let steps: Vec<Step> = pod.plan.steps_of(group).filter(|step| step.hook.kind != Kind::Post).cloned().collect();
        for step in steps {
            if let Some(why) = self.no_start(&pod) {
                pod.results.push(HookResult::new(&pod.plan.pod, &step, Outcome::Skipped { why }));
                continue;
            }
            if !pod.touched
                && let Err(why) = owed::write_down(self, &mut pod).await
            {
                let result = HookResult::new(&pod.plan.pod, &step, Outcome::Failed { why });
                pod.failed = result.rules_out().then(|| result.hook.clone());
                pod.results.push(result);
                continue;
            }
            pod.touched = true;
            let result = match step.hook.kind {
                Kind::Hold => match hold::start(self, &pod.plan.pod, &step).await {
                    Ok(hold) => {
                        pod.holds.push(hold);
                        continue;
                    }
                    Err(result) => *result,
                },
                Kind::Pre | Kind::Post => attempt::run(self, &pod.plan.pod, &step, Some(&self.release)).await,
            };
            if result.rules_out() {
                pod.failed = Some(result.hook.clone());
            }
            pod.results.push(result);
        }
        pod
    }

    fn no_start(&self, pod: &Pod) -> Option<Skip> {
        if pod.plan.ended {
            Some(Skip::PodEnded)
        } else if let Some(failed) = &pod.failed {
            Some(Skip::EarlierFailed(failed.clone()))
        } else {
            self.release.is_cancelled().then_some(Skip::CalledOff)
        }
    }

    /// Releases the holds of one group in one pod and runs its posts.
    async fn post(&self, mut pod: Pod, group: i32) -> Pod {
        let (now, later) = std::mem::take(&mut pod.holds).into_iter().partition(|hold| hold.group() == group);
        pod.holds = later;
        let now: Vec<Hold> = now;
        for hold in now.into_iter().rev() {
            pod.results.push(hold.release(&pod.plan.pod).await);
        }
        let posts: Vec<Step> = pod.plan.steps_of(group).filter(|step| step.hook.kind == Kind::Post).cloned().collect();
        for step in posts.into_iter().rev() {
            let result = match no_post(&pod) {
                Some(why) => HookResult::new(&pod.plan.pod, &step, Outcome::Skipped { why }),
                None => {
                    let (result, unanswered) = post::run(self, &pod.plan.pod, &step).await;
                    if !unanswered {
                        owed::settle(&mut pod, &step).await;
                    }
                    result
                }
            };
            pod.results.push(result);
        }
        pod
    }
}

fn no_post(pod: &Pod) -> Option<Skip> {
    let has_pre = pod.plan.steps.iter().any(|step| step.hook.kind != Kind::Post);
    if pod.plan.ended { Some(Skip::PodEnded) } else { (has_pre && !pod.touched).then_some(Skip::NothingStarted) }
}

/// Does something with every pod, many at once.
async fn each<F: Future<Output = Pod>>(pods: Vec<Pod>, act: impl Fn(Pod) -> F) -> Vec<Pod> {
    stream::iter(pods.into_iter().map(act)).buffered(AT_ONCE).collect().await
}

fn collect(pods: &mut [Pod], report: &mut Report) {
    for pod in pods {
        report.results.append(&mut pod.results);
    }
}
