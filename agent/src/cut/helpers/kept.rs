//! One helper pod, from its making to its removal, in a task of its own.

use std::{sync::Arc, time::Instant};

use jiff::Timestamp;
use k8s_openapi::api::core::v1::Pod;
use stillpoint_objects::helper::{Helper, HelperError, has_ended};
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore, watch},
    time,
};
use tokio_util::sync::CancellationToken;

use super::{Patience, RENEW, RENEWED_ANNOTATION};

/// What a helper pod is at.
#[derive(Debug, Clone)]
pub(super) enum State {
    /// It does not run yet.
    Waiting,
    /// It runs, as it was seen then.
    Runs(Box<Pod>),
    /// It did not come to run, or does not any more, and why.
    Lost(String),
}

/// A pod that is kept.
pub(super) struct Kept {
    pub(super) helper: Helper,
    /// Of those that come to run at once.
    pub(super) slots: Arc<Semaphore>,
    pub(super) patience: Arc<Patience>,
    pub(super) told: watch::Sender<State>,
}

impl Kept {
    /// Makes the pod, keeps it until it is lost or `stop` ends, and removes it.
    pub(super) async fn keep(self, stop: CancellationToken) {
        let slot = tokio::select! {
            biased;
            () = stop.cancelled() => return,
            slot = self.slot() => slot,
        };
        let Some(slot) = slot else {
            self.lost("no helper pod came to run meanwhile, so none was made for it".to_owned());
            return;
        };
        // never dropped: the server may do what a request asked for whose answer nobody waits for
        let lost = match self.helper.create().await {
            Err(error) => Some(error),
            Ok(_) => tokio::select! {
                biased;
                () = stop.cancelled() => None,
                lost = self.renew() => Some(lost),
                lost = self.run(slot) => Some(lost),
            },
        };
        if let Some(error) = &lost {
            self.lost(told(error));
        }
        if let Err(error) = self.helper.remove().await
            && !matches!(lost, Some(HelperError::Refused(_)))
        {
            let pod = self.helper.pod();
            let (namespace, pod) = (&pod.namespace, &pod.name);
            tracing::warn!(%error, namespace, pod, "a helper pod is left: it ends by itself, and a later backup removes it");
        }
    }

    fn lost(&self, why: String) {
        self.told.send_replace(State::Lost(why));
    }

    /// Waits for its turn; none once nobody is patient any more.
    async fn slot(&self) -> Option<OwnedSemaphorePermit> {
        let slot = self.slots.clone().acquire_owned().await.ok()?;
        (Instant::now() < self.patience.deadline()).then_some(slot)
    }

    /// Waits until it runs, says so, and goes on until it is dropped; returns if it does not come to run.
    async fn run(&self, slot: OwnedSemaphorePermit) -> HelperError {
        match self.helper.running(|| self.patience.deadline()).await {
            Err(error) => error,
            Ok(pod) => {
                self.patience.one_runs();
                self.told.send_replace(State::Runs(Box::new(pod)));
                drop(slot);
                std::future::pending().await
            }
        }
    }

    /// Says again and again that its backup lives; returns when there is nothing left to say it of.
    async fn renew(&self) -> HelperError {
        loop {
            match self.helper.annotate(RENEWED_ANNOTATION, &Timestamp::now().to_string()).await {
                Ok(pod) if has_ended(&pod) => return HelperError::Gone(self.helper.pod().name.clone()),
                // what others and the pod itself bear for much longer
                Ok(_) | Err(HelperError::Unknown { .. }) => time::sleep(RENEW).await,
                Err(error) => return error,
            }
        }
    }
}

/// Why there is no pod, and what to do.
fn told(error: &HelperError) -> String {
    match error {
        HelperError::Refused(_) | HelperError::NotChanged { .. } => format!(
            "{error}; it must be let in for the time of the backup (the right to create, get, patch and delete pods; pod \
             security level restricted, or privileged with the node's network; quotas)"
        ),
        _ => error.to_string(),
    }
}
