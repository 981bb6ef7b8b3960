//! The cut of one backup, over its attempts.
//!
//! What is prepared outlives an attempt, because reading volumes is what takes long: a void cut is taken again from the
//! hooks on.

mod begin;

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use futures::future::join_all;
use jiff::{SignedDuration, Timestamp};
use stillpoint_api::{HookRecord, Manifest, Problem, Scope, Window};
use stillpoint_hooks::{
    hook::{
        exec::kubernetes::Kubernetes,
        plan::{self, Phase, Plan},
        pod, run,
        session::PlannedHooks,
    },
    session::{Ended, Limits, Pod, Report, Session},
};
use stillpoint_objects::{
    filter::Selection,
    list::{self, Revision},
    retry::Retry,
};
use stillpoint_repository::Id;
use tokio::{sync::watch, time};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use super::{
    HooksRequest, OnStep, VolumesRequest,
    claims::{self, Claim, Seen, Wishes},
    helpers::{Held, Helpers},
    link::LinkError,
    nodes::{Member, Nodes, NotStopped, Standing},
    record::HookResults,
    seen::Look,
};
use crate::{
    Error, Progress,
    node::wire::{self, cut_answer::Step as Answer, cut_request::Step},
};

/// How long a node may take to answer what it has at hand.
const ANSWER: Duration = Duration::from_secs(60);
/// How long a node may read or store: its stream tells earlier that it is gone.
const LONG: Duration = Duration::from_secs(7 * 24 * 3600);
/// How long a snapshot may take; the window's own end comes first.
const SNAPSHOT: Duration = Duration::from_secs(60);
/// Stopping includes what the guard may take to write back and to freeze.
const LIMITS: Limits =
    Limits { prepare: Duration::from_secs(60), sync: Duration::from_secs(60), stop: Duration::from_secs(90) };

/// An instant that held.
#[derive(Debug)]
pub(crate) struct Instant {
    pub(crate) revision: Revision,
    pub(crate) read_at: Timestamp,
    /// When writers stood still, if any were stopped.
    pub(crate) window: Option<Window>,
}

/// Why an attempt gave no instant.
#[derive(Debug)]
pub(crate) enum Void {
    /// Another attempt may give one.
    Retake(String),
    /// No other can.
    Final(Error),
}

/// What a backup asks a cut of.
pub(crate) struct Subject<'a> {
    pub(crate) client: kube::Client,
    pub(crate) retry: Retry,
    pub(crate) selection: &'a Selection,
    pub(crate) scope: &'a Scope,
    pub(crate) backup: &'a str,
    pub(crate) cluster: &'a str,
    /// The cluster's backup before this one.
    pub(crate) previous: Option<&'a Manifest>,
    /// The pods of ours that it may make; whoever asks ends them.
    pub(crate) helpers: Helpers,
    pub(crate) cancel: CancellationToken,
    pub(crate) progress: watch::Sender<Progress>,
}

/// The cut of one backup.
pub(crate) struct Quiesce {
    client: kube::Client,
    retry: Retry,
    request: VolumesRequest,
    hooks: Plan,
    pub(super) claims: Vec<Claim>,
    /// What was seen before the cut.
    seen: Seen,
    helpers: Helpers,
    /// What helper pods were found to be after the last cut.
    pub(super) held: Held,
    /// The backup's name and its cluster's.
    names: (String, String),
    /// What each node is asked for.
    asked: BTreeMap<String, Asked>,
    members: Vec<Member>,
    /// The nodes whose agents went away after they had prepared, and had to prepare again.
    revived: BTreeSet<String>,
    pub(super) prepared: BTreeMap<String, Prepared>,
    /// Why a volume is in no cut.
    pub(super) refused: BTreeMap<String, String>,
    /// Why a volume is not in the last cut.
    pub(super) left_out: BTreeMap<String, String>,
    pub(super) hook_results: HookResults,
    sessions: TaskTracker,
    cancel: CancellationToken,
    progress: watch::Sender<Progress>,
}

/// Volumes, each with the pods that mount it.
type Asked = Vec<(wire::Volume, Vec<Pod>)>;

/// What a node said of a volume that it has prepared.
pub(super) struct Prepared {
    pub(super) node: String,
    pub(super) volume: wire::PreparedVolume,
}

/// What the nodes have stored.
#[derive(Default)]
pub(crate) struct Stored {
    pub(super) volumes: BTreeMap<String, wire::StoredVolume>,
    /// The snapshots that keep it until the backup is committed.
    pub(crate) parts: Vec<Id>,
}

impl Quiesce {
    /// Sees, plans, and has every node prepare what it can before anything is stopped.
    pub(crate) async fn prepare(subject: Subject<'_>, request: VolumesRequest) -> Result<Self, Error> {
        let Subject { client, retry, selection, scope, backup, cluster, previous, helpers, cancel, progress } = subject;
        let needs_volumes = !request.policies.is_empty();
        let seen = Look { client: &client, retry: &retry, selection, scope, needs_volumes }.take().await?;
        if let Some(hooks) = &request.hooks {
            settle(hooks).await;
        }
        let with_hooks = if request.hooks.is_some() { seen.pods.as_slice() } else { &[] };
        let pods: Vec<_> = with_hooks.iter().map(pod::Pod::of).collect();
        let mut quiesce = Self {
            hooks: plan::plan(&pods, &[], Phase::Both),
            claims: claims::plan(&seen, Wishes { method: request.method.as_deref(), policies: &request.policies }),
            seen,
            helpers,
            held: Held::default(),
            client,
            retry,
            request,
            names: (backup.to_owned(), cluster.to_owned()),
            asked: BTreeMap::new(),
            members: Vec::new(),
            revived: BTreeSet::new(),
            prepared: BTreeMap::new(),
            refused: BTreeMap::new(),
            left_out: BTreeMap::new(),
            hook_results: HookResults::default(),
            sessions: TaskTracker::new(),
            cancel: cancel.clone(),
            progress,
        };
        tokio::select! {
            () = Box::pin(quiesce.ready(previous)) => {}
            () = cancel.cancelled() => return Err(Error::Cancelled),
        }
        Ok(quiesce)
    }

    /// Has what no pod mounts mounted, and then every node begin.
    async fn ready(&mut self, previous: Option<&Manifest>) {
        self.mount().await;
        self.begin(previous).await;
    }

    /// Takes one cut: pre hooks, stop, R and snapshots, release, post hooks.
    /// After the last one nothing is left for a retaken cut to do better.
    pub(crate) async fn cut(&mut self, is_last: bool) -> Result<Instant, Void> {
        self.left_out.clear();
        self.held = Held::default();
        let cancel = self.cancel.clone();
        tokio::select! {
            () = Box::pin(self.revive()) => {}
            () = cancel.cancelled() => return Err(Void::Final(Error::Cancelled)),
        }
        let standing = watch::Sender::new(None);
        let nodes = Nodes { members: self.members.clone(), max: self.request.max, standing: standing.clone() };
        let hooks = self.planned_hooks();
        let (max, on_step) = (self.request.max, self.request.on_step.clone());
        let work = instant(self.client.clone(), self.retry.clone(), max, on_step, standing.subscribe());
        self.progress.send_modify(|progress| progress.quiescing = true);
        let session = Session::start(&self.sessions, hooks, nodes, LIMITS, work);
        let report = tokio::select! {
            report = session.ended() => report,
            // dropped, it goes on to release and post, which is waited for
            () = self.cancel.cancelled() => {
                self.end().await;
                return Err(Void::Final(Error::Cancelled));
            }
        };
        let since = standing.borrow().as_ref().map(|standing| standing.since);
        self.judge(report, since, is_last).await
    }

    async fn judge(
        &mut self,
        report: Report<PlannedHooks, Result<Read, NotRead>, NotStopped>,
        since: Option<Timestamp>,
        is_last: bool,
    ) -> Result<Instant, Void> {
        self.hook_results = HookResults::of(report.hooks.report(), &self.hooks);
        for failure in report.failed.iter().chain(&report.lost_holds) {
            self.leave_out(&failure.pod, &format!("a hook of pod {} failed: {}", failure.pod, failure.what));
        }
        // a hold may say only at its end that it had not held
        for pod in report.hooks.report().ruled_out() {
            self.leave_out(&pod.to_string(), &format!("the hooks of pod {pod} did not bring it to rest"));
        }
        let read = match report.ended {
            Ended::Whole(Ok(read)) => read,
            // without a window it was asked for as long as any
            Ended::Whole(Err(NotRead::Cluster(error))) if self.members.is_empty() => {
                return Err(Void::Final(error.into()));
            }
            Ended::Whole(Err(why)) => return Err(Void::Retake(why.to_string())),
            Ended::NotWhole(_) | Ended::Lost => {
                return Err(Void::Retake("the stop was not whole: somebody may have written meanwhile".to_owned()));
            }
            Ended::NotStopped(error) => return Err(Void::Retake(error.to_string())),
            Ended::TooLate(state) => return Err(Void::Retake(format!("it took too long while {state:?}"))),
            Ended::Panicked(message) => return Err(Void::Retake(format!("a bug: {message}"))),
            Ended::Cancelled => return Err(Void::Final(Error::Cancelled)),
            // there is nothing to stop for: the API is read all the same
            Ended::NothingLeft | Ended::HookFailed => {
                let revision = list::read_revision(&self.client, &self.retry).await;
                let revision = revision.map_err(|error| Void::Final(error.into()))?;
                Read { revision, at: Timestamp::now(), failed: BTreeMap::new(), give_way: BTreeMap::new() }
            }
        };
        if !read.give_way.is_empty() && !is_last {
            return Err(Void::Retake(read.give_way.into_values().collect::<Vec<_>>().join("; ")));
        }
        // after the release: who may have written in the window is there by now
        self.held = self.helpers.look(&self.client, &self.retry, &self.seen.pods).await;
        self.left_out.extend(std::mem::take(&mut self.held.lost));
        self.left_out.extend(read.failed.into_iter().chain(read.give_way));
        let length = report.release.map(|release| SignedDuration::from_secs_f64(release.window_ms / 1e3));
        let stopped = since.zip(length).filter(|_| !self.members.is_empty());
        let window = stopped.map(|(from, length)| Window { from, to: from + length });
        Ok(Instant { revision: read.revision, read_at: read.at, window })
    }

    fn planned_hooks(&self) -> PlannedHooks {
        let (plan, limits) = (self.hooks.clone(), run::Limits::default());
        match &self.request.hooks {
            Some(HooksRequest { client, journal }) => {
                let executor = Arc::new(Kubernetes::new(client.clone()));
                PlannedHooks::new(plan, executor, limits).journalled(journal.clone())
            }
            // the plan is empty then
            None => PlannedHooks::new(plan, Arc::new(Kubernetes::new(self.client.clone())), limits),
        }
    }

    /// Leaves all volumes out: the backup holds the API alone.
    pub(crate) fn give_up(&mut self, why: &str) {
        self.left_out = self.claims.iter().map(|claim| (claim.id(), why.to_owned())).collect();
    }

    /// What became of the last cut's hooks.
    pub(crate) fn hook_records(&self) -> Vec<HookRecord> {
        self.hook_results.records.clone()
    }

    /// What hooks failed in the last cut.
    pub(crate) fn hook_problems(&self) -> Vec<Problem> {
        self.hook_results.problems.clone()
    }

    fn leave_out(&mut self, pod: &str, why: &str) {
        for claim in self.claims.iter().filter(|claim| claim.pods.iter().any(|own| own == pod)) {
            self.left_out.entry(claim.id()).or_insert_with(|| why.to_owned());
        }
    }

    /// Has the nodes upload what they copied in the last cut.
    pub(crate) async fn store(&mut self) -> Stored {
        let members = std::mem::take(&mut self.members);
        let in_cut = |member: &Member| member.volumes.keys().any(|id| !self.left_out.contains_key(id));
        let stores = members.iter().filter(|member| in_cut(member)).map(async |member| {
            let link = &member.link;
            match self.noting(link, link.ask(Step::Store(wire::Empty {}), LONG)).await {
                Ok(Answer::Stored(stored)) => Ok(stored),
                Ok(other) => Err((member, link.unexpected(&other))),
                Err(error) => Err((member, error)),
            }
        });
        let (mut all, mut failed) = (Stored::default(), Vec::new());
        for stored in join_all(stores).await {
            match stored {
                Ok(stored) => {
                    all.parts.extend(stored.part.parse::<Id>().ok());
                    all.volumes.extend(stored.volumes.into_iter().map(|volume| (volume.id.clone(), volume)));
                }
                Err((member, error)) => {
                    failed.extend(member.volumes.keys().map(|id| (id.clone(), error.to_string())));
                }
            }
        }
        self.left_out.extend(failed);
        all
    }

    /// Waits until every session has released and run its post hooks.
    pub(crate) async fn end(&self) {
        self.sessions.close();
        self.sessions.wait().await;
    }
}

/// Runs the posts that a backup owes which was killed; its pods would stay at rest.
async fn settle(HooksRequest { client, journal }: &HooksRequest) {
    let executor = Arc::new(Kubernetes::new(client.clone()));
    match run::owed(journal, executor, run::Limits::default()).await {
        Ok(settled) => {
            for result in &settled.report.results {
                tracing::warn!(pod = %result.pod, hook = result.hook, outcome = %result.outcome, "a post was owed");
            }
        }
        Err(error) => tracing::warn!(%error, "what posts are owed cannot be told"),
    }
}

/// What was read in a window.
struct Read {
    revision: Revision,
    at: Timestamp,
    /// The volumes that could not be copied.
    failed: BTreeMap<String, String>,
    /// Those that another method may copy in a retaken cut.
    give_way: BTreeMap<String, String>,
}

/// Why nothing was read in a window.
#[derive(Debug, thiserror::Error)]
enum NotRead {
    #[error(transparent)]
    Cluster(stillpoint_objects::Error),
    #[error("the API server told no revision within {} s, while writers stood still", .0.as_secs())]
    NoRevision(Duration),
    #[error(transparent)]
    Node(#[from] LinkError),
}

/// Reads R while every node copies its volumes; where any stands still, R is of no use after `max`.
async fn instant(
    client: kube::Client,
    retry: Retry,
    max: Duration,
    on_step: Option<OnStep>,
    standing: watch::Receiver<Option<Standing>>,
) -> Result<Read, NotRead> {
    let links = standing.borrow().as_ref().map(|standing| standing.links.clone()).unwrap_or_default();
    let reach = async |step| {
        if let Some(on_step) = &on_step {
            on_step(step).await;
        }
    };
    let revision = async {
        reach(super::Step::Revision).await;
        let read = list::read_revision(&client, &retry);
        let read = match links.is_empty() {
            true => read.await,
            false => time::timeout(max, read).await.map_err(|_| NotRead::NoRevision(max))?,
        };
        read.map(|revision| (revision, Timestamp::now())).map_err(NotRead::Cluster)
    };
    // all volumes of a node at once, unless each one's step is to be told
    let asked = links.iter().flat_map(|(link, volumes)| {
        let together = if on_step.is_some() { 1 } else { volumes.len().max(1) };
        volumes.chunks(together).map(move |volumes| (link, volumes.to_vec()))
    });
    let snapshots = join_all(asked.map(async |(link, volumes)| {
        for volume in &volumes {
            reach(super::Step::Snapshot(volume.clone())).await;
        }
        (link, link.ask(Step::Snapshot(wire::Ids { volumes }), SNAPSHOT).await)
    }));
    let (revision, snapshots) = tokio::join!(revision, snapshots);
    let (revision, at) = revision?;
    let (mut failed, mut give_way) = (BTreeMap::new(), BTreeMap::new());
    for (link, snapshot) in snapshots {
        match snapshot? {
            Answer::Snapshotted(wire::Failures { failures }) => {
                for wire::Failure { subject, reason, gives_way } in failures {
                    if gives_way { &mut give_way } else { &mut failed }.insert(subject, reason);
                }
            }
            other => return Err(link.unexpected(&other).into()),
        }
    }
    Ok(Read { revision, at, failed, give_way })
}
