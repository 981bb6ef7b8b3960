//! One claim's pod, from its making to its removal.

use std::time::{Duration, Instant};

use k8s_openapi::api::core::v1::{Event, PersistentVolumeClaim, Pod};
use kube::{
    Api, ResourceExt,
    api::{DeleteParams, ListParams, PostParams},
};
use stillpoint_hooks::hook::pod::PodId;
use tokio::sync::watch;

use super::{
    Done, Filled, Filling, Order, Unfilled,
    conversation::{self, Failure},
    pod::{self, LABEL},
    words,
};
use crate::{Error, apply::Progress, plan::Plan};

const POLL: Duration = Duration::from_millis(500);
/// How long a new namespace may take to admit pods: its account has to be made, its quotas to be counted.
const ADMITTED_WITHIN: Duration = Duration::from_secs(10);
/// How long a pod may take to go.
const GONE_WITHIN: Duration = Duration::from_secs(60);
/// How often a filling is begun whose connection was lost.
const ATTEMPTS: usize = 3;
/// Events that are quoted of an object.
const EVENTS: usize = 3;

pub(super) struct Helper<'a> {
    filling: &'a Filling,
    plan: &'a Plan,
    claim: &'a Unfilled,
    name: String,
    namespace: &'a str,
    pods: Api<Pod>,
}

impl<'a> Helper<'a> {
    pub(super) fn new(filling: &'a Filling, plan: &'a Plan, claim: &'a Unfilled) -> Self {
        let namespace = claim.claim.namespace.as_deref().unwrap_or_default();
        let pods = Api::namespaced(filling.client.clone(), namespace);
        Self { filling, plan, claim, name: pod::name(&claim.claim), namespace, pods }
    }

    /// Fills the claim; its pod is removed whatever comes of it.
    pub(super) async fn fill(self, progress: &watch::Sender<Progress>) -> Result<Filled, Error> {
        let started = Instant::now();
        let worked = self.filling.cancel.run_until_cancelled(Box::pin(self.work(progress))).await;
        // before the pod goes: a volume that is full and not said to be would be refused as not empty
        let marked = match &worked {
            Some(Ok(_)) => self.claim.done(&self.filling.client, self.plan.root).await,
            _ => Ok(()),
        };
        let removed = self.end().await;
        let done = worked.ok_or(Error::Cancelled)?.map_err(|reason| self.not_filled(reason))?;
        marked?;
        removed?;
        Ok(Filled { claim: self.claim.claim.clone(), done, seconds: started.elapsed().as_secs_f64() })
    }

    /// Removes the claim's pod, if there is one.
    pub(super) async fn end(&self) -> Result<(), Error> {
        self.remove().await.map_err(|reason| self.not_filled(reason))
    }

    fn not_filled(&self, reason: String) -> Error {
        Error::NotFilled { claim: self.claim.claim.clone(), reason: reason.into() }
    }

    async fn work(&self, progress: &watch::Sender<Progress>) -> Result<Done, String> {
        // one that an earlier restore could not remove
        self.remove().await?;
        self.refuse_in_use().await?;
        self.create().await?;
        let pod = self.running().await?;
        let order = Order {
            access: self.filling.access.clone(),
            backup: self.plan.backup.clone(),
            root: self.plan.root,
            volume: self.claim.volume.clone(),
        };
        let (mut attempt, mut counted) = (0, 0);
        loop {
            attempt += 1;
            match conversation::fill(&self.filling.client, &pod, &order, progress, &mut counted).await {
                Ok(done) => return Ok(done),
                Err(Failure::Lost(_)) if attempt < ATTEMPTS => tokio::time::sleep(POLL).await,
                Err(Failure::Lost(reason) | Failure::Final(reason)) => return Err(reason),
            }
        }
    }

    /// Whoever mounts the claim would see half of the data, and might write.
    async fn refuse_in_use(&self) -> Result<(), String> {
        let pods = self.pods.list(&ListParams::default()).await;
        let pods = pods.map_err(|error| format!("its namespace's pods cannot be listed: {}", words(&error)))?;
        match pods.items.iter().find(|pod| is_using(pod, &self.claim.claim.name)) {
            None => Ok(()),
            Some(pod) => Err(format!("the pod {} mounts it: scale its owner down until it is filled", pod.name_any())),
        }
    }

    async fn create(&self) -> Result<(), String> {
        let made = pod::pod(self.filling, &self.claim.claim).map_err(|error| error.to_string())?;
        let deadline = Instant::now() + ADMITTED_WITHIN;
        loop {
            match self.pods.create(&PostParams::default(), &made).await {
                Ok(_) => return Ok(()),
                Err(kube::Error::Api(status)) if status.code == 403 && Instant::now() < deadline => {
                    tokio::time::sleep(POLL).await;
                }
                Err(error) => {
                    return Err(format!(
                        "its pod is refused: {}; it must be let in until the claim is filled (pod security level \
                         baseline, or privileged with the node's network; quotas)",
                        words(&error)
                    ));
                }
            }
        }
    }

    /// Waits until the pod runs.
    async fn running(&self) -> Result<PodId, String> {
        let (name, deadline) = (&self.name, Instant::now() + self.filling.patience);
        loop {
            let pod = self.pods.get_opt(name).await.map_err(|error| words(&error))?;
            let Some(pod) = pod else { return Err(format!("its pod {name} was removed by somebody")) };
            match pod.status.as_ref().and_then(|status| status.phase.as_deref()) {
                Some("Running") => {
                    return Ok(PodId { namespace: self.namespace.to_owned(), name: name.clone(), uid: pod.uid() });
                }
                Some("Failed" | "Succeeded") => {
                    return Err(format!("its pod {name} ended at once; {}", self.circumstances().await));
                }
                _ if Instant::now() >= deadline => {
                    let seconds = self.filling.patience.as_secs();
                    return Err(format!(
                        "its pod {name} does not run after {seconds} s; {}",
                        self.circumstances().await
                    ));
                }
                _ => tokio::time::sleep(POLL).await,
            }
        }
    }

    /// What the cluster says of the pod and the claim, and what to do.
    async fn circumstances(&self) -> String {
        let claims: Api<PersistentVolumeClaim> = Api::namespaced(self.filling.client.clone(), self.namespace);
        let claim = claims.get_opt(&self.claim.claim.name).await.ok().flatten().unwrap_or_default();
        let phase = claim.status.and_then(|status| status.phase).unwrap_or_else(|| "unknown".to_owned());
        let class = claim.spec.and_then(|spec| spec.storage_class_name).unwrap_or_default();
        let found = self.pods.get_opt(&self.name).await.ok().flatten();
        let node = found.and_then(|pod| pod.spec?.node_name);
        let node = node.map_or_else(|| "its pod has no node".to_owned(), |node| format!("its pod's node is {node}"));
        let mut words = vec![format!("the claim is {phase}"), node];
        for (of, name) in [("pod", &self.name), ("claim", &self.claim.claim.name)] {
            words.extend(self.events(name).await.into_iter().map(|event| format!("event of the {of}: {event}")));
        }
        if phase == "Pending" {
            words.push(format!(
                "see that the storage class {class:?} has a provisioner or a free volume, or delete the claim and give it another \
                 class by --storage-class-mappings"
            ));
        }
        words.join("; ")
    }

    /// The newest events of an object, that of the same name and another kind included.
    async fn events(&self, name: &str) -> Vec<String> {
        let events: Api<Event> = Api::namespaced(self.filling.client.clone(), self.namespace);
        let of = ListParams::default().fields(&format!("involvedObject.name={name}"));
        let Ok(mut found) = events.list(&of).await else { return Vec::new() };
        found.items.sort_by(|a, b| b.last_timestamp.cmp(&a.last_timestamp));
        let say = |event: Event| {
            format!("{}: {}", event.reason.unwrap_or_default(), event.message.unwrap_or_default().trim())
        };
        found.items.into_iter().take(EVENTS).map(say).collect()
    }

    /// Removes the claim's pod, if there is one and it is ours, and waits until it is gone.
    async fn remove(&self) -> Result<(), String> {
        let name = &self.name;
        let deadline = Instant::now() + GONE_WITHIN;
        let failed = |error: kube::Error| format!("its pod {name} cannot be removed: {}", words(&error));
        let mut asked = false;
        while let Some(found) = self.pods.get_opt(name).await.map_err(failed)? {
            if found.labels().get(LABEL) != Some(name) {
                return Err(format!("there is a pod {name} that is not ours"));
            }
            if !asked {
                match self.pods.delete(name, &DeleteParams::default().grace_period(1)).await {
                    Err(kube::Error::Api(status)) if status.code == 404 => {}
                    deleted => drop(deleted.map_err(failed)?),
                }
                asked = true;
            }
            if Instant::now() >= deadline {
                return Err(format!("its pod {name} is not gone after {} s", GONE_WITHIN.as_secs()));
            }
            tokio::time::sleep(POLL).await;
        }
        Ok(())
    }
}

fn is_using(pod: &Pod, claim: &str) -> bool {
    let phase = pod.status.as_ref().and_then(|status| status.phase.as_deref());
    let volumes = pod.spec.iter().filter_map(|spec| spec.volumes.as_ref()).flatten();
    let mut claims = volumes.filter_map(|volume| Some(&volume.persistent_volume_claim.as_ref()?.claim_name));
    !matches!(phase, Some("Succeeded" | "Failed")) && claims.any(|name| name == claim)
}
