//! One claim's pod, from its making to its removal.

use std::time::{Duration, Instant};

use k8s_openapi::api::core::v1::Pod;
use kube::{Api, ResourceExt, api::ListParams};
use stillpoint_hooks::hook::pod::PodId;
use stillpoint_objects::helper::{self, HelperError, has_ended, words};
use tokio::sync::watch;

use super::{
    Done, Filled, Filling, Order, Unfilled,
    conversation::{self, Failure},
    pod,
};
use crate::{Error, apply::Progress, plan::Plan};

/// Before a filling is begun again.
const PAUSE: Duration = Duration::from_millis(500);
/// How often a filling is begun whose connection was lost.
const ATTEMPTS: usize = 3;

pub(super) struct Helper<'a> {
    filling: &'a Filling,
    plan: &'a Plan,
    claim: &'a Unfilled,
    pod: helper::Helper,
}

impl<'a> Helper<'a> {
    pub(super) fn new(filling: &'a Filling, plan: &'a Plan, claim: &'a Unfilled) -> Self {
        let pod = helper::Helper::new(&filling.client, pod::pod(filling, &claim.claim));
        Self { filling, plan, claim, pod }
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
        self.pod.remove().await.map_err(|error| self.not_filled(reason(&error)))
    }

    fn not_filled(&self, reason: String) -> Error {
        Error::NotFilled { claim: self.claim.claim.clone(), reason: reason.into() }
    }

    async fn work(&self, progress: &watch::Sender<Progress>) -> Result<Done, String> {
        let of_pod = |error: HelperError| reason(&error);
        // one that an earlier restore could not remove
        self.pod.remove().await.map_err(of_pod)?;
        self.refuse_in_use().await?;
        self.pod.create().await.map_err(of_pod)?;
        let deadline = Instant::now() + self.filling.patience;
        let pod = self.pod.running(|| deadline).await.map_err(of_pod)?;
        let namespace = self.pod.pod().namespace.clone();
        let pod = PodId { namespace, name: pod.name_any(), uid: pod.uid() };
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
                Err(Failure::Lost(_)) if attempt < ATTEMPTS => tokio::time::sleep(PAUSE).await,
                Err(Failure::Lost(reason) | Failure::Final(reason)) => return Err(reason),
            }
        }
    }

    /// Whoever mounts the claim would see half of the data, and might write.
    async fn refuse_in_use(&self) -> Result<(), String> {
        let pods: Api<Pod> = Api::namespaced(self.filling.client.clone(), &self.pod.pod().namespace);
        let pods = pods.list(&ListParams::default()).await;
        let pods = pods.map_err(|error| format!("its namespace's pods cannot be listed: {}", words(&error)))?;
        match pods.items.iter().find(|pod| is_using(pod, &self.claim.claim.name)) {
            None => Ok(()),
            Some(pod) => Err(format!("the pod {} mounts it: scale its owner down until it is filled", pod.name_any())),
        }
    }
}

/// Why a claim's pod does not do, and what to do.
fn reason(error: &HelperError) -> String {
    let unbound = error.circumstances().filter(|found| found.claim_phase == "Pending");
    match (error, unbound) {
        (HelperError::Refused(_), _) => format!(
            "{error}; it must be let in until the claim is filled (pod security level baseline, or privileged with the \
             node's network; quotas)"
        ),
        (_, Some(found)) => format!(
            "{error}; see that the storage class {:?} has a provisioner or a free volume, or delete the claim and give \
             it another class by --storage-class-mappings",
            found.storage_class
        ),
        _ => error.to_string(),
    }
}

fn is_using(pod: &Pod, claim: &str) -> bool {
    let volumes = pod.spec.iter().filter_map(|spec| spec.volumes.as_ref()).flatten();
    let mut claims = volumes.filter_map(|volume| Some(&volume.persistent_volume_claim.as_ref()?.claim_name));
    !has_ended(pod) && claims.any(|name| name == claim)
}
