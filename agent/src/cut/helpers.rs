//! Helper pods of ours for claims that no running pod mounts, for the time of the backup.
//!
//! Such a pod only sleeps: with it the volume is mounted on a node, whose agent finds it as it finds any pod's, and
//! still freezes it, because somebody may mount it meanwhile.
//!
//! # Whose a pod is
//! Every backup makes pods of its own, of a name that nobody else takes, and says that it lives by changing an
//! annotation of each. One pod for all would be taken away by the first of two backups that ends, and its name alone
//! does not say whether anybody still wants it. So:
//! - Whose annotation stood still for [`SILENT`], while the server answered, has no backup any more: the next backup
//!   that sees it removes it. Nobody's clock is compared with another's.
//! - The pod reads the annotation too and ends when it stood still for [`ABANDONED`]: whoever is killed leaves an idle
//!   pod for that long, which keeps a volume from being attached elsewhere. A deadline that is written down beforehand
//!   would end the pods of long backups, or leave others for as long.
//!
//! # Guarantees
//! - A pod is removed by a task of its own, so that it goes whatever becomes of who waited for it.
//! - A claim whose pod is lost before its data is copied is left out: who mounts it then cannot be told.

mod kept;
mod leftover;

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use futures::{StreamExt, stream};
use k8s_openapi::api::core::v1::Pod;
use kube::{Api, Client, ResourceExt, api::ListParams};
use stillpoint_objects::{
    helper::{Helper, HelperPod, Privileges, TOLD, has_ended, name, runs},
    retry::Retry,
};
use tokio::sync::{Semaphore, watch};
use tokio_util::{
    sync::{CancellationToken, DropGuard},
    task::TaskTracker,
};

use self::kept::{Kept, State};
use super::claims::{self, COPIES_LABEL, NOT_MOUNTED, Place, Seen, Unmounted};
use crate::Progress;

/// The backup that a pod is for, for people.
const BACKUP_ANNOTATION: &str = "stillpoint.dev/backup";
/// Changes as long as the pod's backup lives.
const RENEWED_ANNOTATION: &str = "stillpoint.dev/renewed";
/// How often it changes.
const RENEW: Duration = Duration::from_secs(10);
/// How long it stands still before its backup is taken for dead by others.
const SILENT: Duration = Duration::from_secs(45);
/// How long it stands still before the pod ends: longer than nodes take to hear of a change, and than an API server
/// takes to be restarted.
const ABANDONED: &str = "10m";
/// Pods that come to run at once.
const AT_ONCE: usize = 8;

/// What becomes of claims that no running pod mounts.
#[derive(Debug, Clone)]
pub enum UnmountedClaims {
    /// They are copied through helper pods.
    Copied(HelperPods),
    /// They are left out, by name; what to do about that, if anything is.
    LeftOut(Option<String>),
}

/// What helper pods are made of.
#[derive(Debug, Clone)]
pub struct HelperPods {
    /// Their image, with `stillpoint` on its PATH.
    pub image: String,
    /// Whether they use their nodes' network.
    pub host_network: bool,
    /// How long the first of them may take to run, and each time the next.
    pub patience: Duration,
}

/// The helper pods of one backup. Clones are of the same backup.
#[derive(Clone)]
pub(crate) struct Helpers {
    tasks: TaskTracker,
    stop: CancellationToken,
    cancel: CancellationToken,
    /// Those that came to run, by the claim's id.
    kept: Arc<Mutex<BTreeMap<String, watch::Receiver<State>>>>,
    /// Tells apart the pods of two backups.
    run: String,
}

/// What a claim is copied through, looked at after the stop.
#[derive(Debug, Default)]
pub(super) struct Held {
    /// Claims whose pod did not last, and why.
    pub(super) lost: BTreeMap<String, String>,
    /// Pods on other nodes that may have written to a claim meanwhile.
    pub(super) elsewhere: BTreeMap<String, Vec<String>>,
}

impl Helpers {
    /// Of a backup that `cancel` ends; the guard ends them too.
    pub(crate) fn new(cancel: &CancellationToken) -> (Self, DropGuard) {
        let stop = cancel.child_token();
        let guard = stop.clone().drop_guard();
        let run = uuid::Uuid::new_v4().simple().to_string()[..8].to_owned();
        let (tasks, kept, cancel) = (TaskTracker::new(), Arc::default(), cancel.clone());
        (Self { tasks, stop, cancel, kept, run }, guard)
    }

    /// Removes them, and waits until they are gone and it is settled what becomes of others' leftovers.
    pub(crate) async fn end(&self, progress: &watch::Sender<Progress>) {
        progress.send_modify(|progress| progress.removing_helpers = !self.tasks.is_empty());
        self.stop.cancel();
        self.tasks.close();
        self.tasks.wait().await;
    }

    /// Gives each unmounted claim a pod, on `only` if they are to be on one node, and waits until it runs; the claim's
    /// place is then there. The order of `claims` is that of what was seen.
    pub(super) async fn provide(
        &self,
        claims: &mut [claims::Claim],
        seen: &Seen,
        (client, pods, backup): (&Client, &HelperPods, &str),
        only: Option<&str>,
        progress: &watch::Sender<Progress>,
    ) {
        let patience = Arc::new(Patience::new(pods.patience));
        let slots = Arc::new(Semaphore::new(AT_ONCE));
        let mut waiting = Vec::new();
        for (claim, found) in claims.iter_mut().zip(&seen.claims) {
            let Place::Unmounted(unmounted) = &claim.place else { continue };
            let node = match node(unmounted, only) {
                Ok(node) => node,
                Err(why) => {
                    claim.place = Place::Refused(format!("{NOT_MOUNTED}, and {why}"));
                    continue;
                }
            };
            let pod = self.describe(claim, pods, backup, (node, unmounted.read_only));
            let (told, state) = watch::channel(State::Waiting);
            let kept =
                Kept { helper: Helper::new(client, pod), slots: slots.clone(), patience: patience.clone(), told };
            self.tasks.spawn(kept.keep(self.stop.clone()));
            waiting.push((claim, found, state));
        }
        let total = waiting.len() as u64;
        let note = |done| progress.send_modify(|progress| progress.helpers = done);
        note((total > 0).then_some((0, total)));
        let waits = waiting.into_iter().map(async |(claim, found, mut state)| {
            let ended = state.wait_for(|state| !matches!(state, State::Waiting)).await;
            let ended = ended.map_or(State::Waiting, |state| state.clone());
            claim.place = match ended {
                State::Runs(pod) => {
                    self.kept().insert(claim.id(), state);
                    claims::through(&pod, found, &claim.wished)
                }
                State::Lost(why) => {
                    Place::Refused(format!("{NOT_MOUNTED}; it was to be copied through a helper pod, but {why}"))
                }
                // its task ended without a word: this backup was asked to end
                State::Waiting => Place::Refused(NOT_MOUNTED.to_owned()),
            };
        });
        let mut waits = stream::iter(waits).buffer_unordered(usize::MAX);
        let mut done = 0;
        while waits.next().await.is_some() {
            done += 1;
            note(Some((done, total)));
        }
        note(None);
    }

    fn describe(
        &self,
        claim: &claims::Claim,
        pods: &HelperPods,
        backup: &str,
        (node, read_only): (Option<String>, bool),
    ) -> HelperPod {
        let of_claim = name("stillpoint-copy", &claim.name);
        let hold = ["stillpoint", "helper", "hold", "--while-changing", TOLD, "--within", ABANDONED];
        HelperPod {
            namespace: claim.namespace.clone(),
            name: format!("{of_claim}-{}", self.run),
            claim: claim.name.clone(),
            label: (COPIES_LABEL, of_claim),
            annotations: [(BACKUP_ANNOTATION, backup), (RENEWED_ANNOTATION, "")]
                .map(|(name, value)| (name.to_owned(), value.to_owned()))
                .into(),
            image: pods.image.clone(),
            host_network: pods.host_network,
            command: hold.map(str::to_owned).to_vec(),
            read_only,
            privileges: Privileges::Nobody,
            requests: ("10m", "32Mi"),
            node,
            told: Some(RENEWED_ANNOTATION),
        }
    }

    /// Begins to find out which helper pods of other backups nobody wants any more, and removes those.
    pub(super) fn settle(&self, client: &Client, seen: &[Pod]) {
        let others = seen.iter().filter(|pod| claims::copies(pod) && pod.metadata.deletion_timestamp.is_none());
        for pod in others.cloned() {
            self.tasks.spawn(leftover::settle(client.clone(), pod, self.cancel.clone()));
        }
    }

    fn kept(&self) -> std::sync::MutexGuard<'_, BTreeMap<String, watch::Receiver<State>>> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Looks whether pods held until now, and who has come to mount their claims on other nodes since `before`: the stop
    /// of one node is none for these.
    pub(super) async fn look(&self, client: &Client, retry: &Retry, before: &[Pod]) -> Held {
        let kept: Vec<_> = self.kept().iter().map(|(id, state)| (id.clone(), state.borrow().clone())).collect();
        let mut held = Held::default();
        let mut by_namespace: BTreeMap<String, Vec<(String, Box<Pod>)>> = BTreeMap::new();
        for (id, state) in kept {
            match state {
                State::Runs(pod) => {
                    by_namespace.entry(pod.namespace().unwrap_or_default()).or_default().push((id, pod))
                }
                State::Lost(why) => drop(held.lost.insert(id, format!("{LOST}: {why}"))),
                State::Waiting => {}
            }
        }
        let ended: BTreeSet<_> = before.iter().filter(|pod| has_ended(pod)).filter_map(ResourceExt::uid).collect();
        let looks = by_namespace.into_iter().map(async |(namespace, helpers)| {
            let pods: Api<Pod> = Api::namespaced(client.clone(), &namespace);
            let all = ListParams::default();
            let listed = retry.call(&format!("list pods in {namespace}"), || pods.list(&all)).await;
            (namespace, helpers, listed)
        });
        let mut looks = stream::iter(looks).buffer_unordered(AT_ONCE);
        while let Some((namespace, helpers, pods)) = looks.next().await {
            match pods {
                Ok(pods) => held.add(&namespace, &helpers, &pods.items, &ended),
                Err(error) => {
                    let why = format!("whether its helper pod held cannot be told: {error}");
                    held.lost.extend(helpers.into_iter().map(|(id, _)| (id, why.clone())));
                }
            }
        }
        held
    }
}

/// What is said of a claim whose pod did not last.
const LOST: &str = "its helper pod did not hold until it was copied";

impl Held {
    fn add(&mut self, namespace: &str, helpers: &[(String, Box<Pod>)], pods: &[Pod], ended: &BTreeSet<String>) {
        for (id, helper) in helpers {
            if !pods.iter().any(|pod| pod.uid() == helper.uid() && runs(pod)) {
                self.lost.insert(id.clone(), LOST.to_owned());
                continue;
            }
            let claim = id.split_once('/').map_or(id.as_str(), |(_, claim)| claim);
            let here = helper.spec.as_ref().and_then(|spec| spec.node_name.as_deref());
            let others = pods.iter().filter(|pod| !claims::copies(pod));
            let others = others.filter(|pod| pod.uid().is_none_or(|uid| !ended.contains(&uid)));
            let writers = others.filter_map(|pod| {
                let node = claims::writes_on(pod, namespace, claim).filter(|node| Some(*node) != here)?;
                Some(format!("pod {} on node {node} mounted it meanwhile", pod.name_any()))
            });
            let writers: Vec<_> = writers.collect();
            if !writers.is_empty() {
                self.elsewhere.insert(id.clone(), writers);
            }
        }
    }
}

/// The node that a claim's pod must run on, if that is not the scheduler's to choose.
fn node(unmounted: &Unmounted, only: Option<&str>) -> Result<Option<String>, String> {
    let Unmounted { only_on, beside, .. } = unmounted;
    match (only, only_on.as_ref().or(beside.as_ref())) {
        (Some(only), Some(node)) if node != only => {
            Err(format!("it is of node {node}, while --node-local copies on {only} alone"))
        }
        (Some(only), _) => Ok(Some(only.to_owned())),
        (None, _) => Ok(beside.clone()),
    }
}

/// How long pods are waited for: so long since one last came to run. Where none can run all give up together, instead of
/// a few at a time; where they come one by one none has to be quick.
pub(super) struct Patience {
    each: Duration,
    since: Mutex<Instant>,
}

impl Patience {
    fn new(each: Duration) -> Self {
        Self { each, since: Mutex::new(Instant::now()) }
    }

    fn deadline(&self) -> Instant {
        *self.since.lock().unwrap_or_else(PoisonError::into_inner) + self.each
    }

    fn one_runs(&self) {
        *self.since.lock().unwrap_or_else(PoisonError::into_inner) = Instant::now();
    }
}

#[cfg(test)]
mod tests;
