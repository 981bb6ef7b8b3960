//! One helper pod's life: made, waited for, removed.
//!
//! By polling and not by watches: a pod takes seconds to come and to go, and a watch that breaks would have to be begun
//! again.

use std::time::{Duration, Instant};

use k8s_openapi::api::core::v1::{ContainerState, Event, PersistentVolumeClaim, Pod};
use kube::{
    Api, Client, ResourceExt,
    api::{DeleteParams, ListParams, Patch, PatchParams, PostParams, Preconditions},
};
use serde_json::json;

use super::{CONTAINER, Circumstances, HelperError, HelperPod};

const POLL: Duration = Duration::from_millis(500);
/// How long a new namespace may take to admit pods: its account has to be made, its quotas to be counted.
const ADMITTED_WITHIN: Duration = Duration::from_secs(10);
/// What the API server says to whom may never create pods: waiting helps nobody.
const NO_RIGHT: &str = "cannot create resource";
/// How long a pod may take to go.
const GONE_WITHIN: Duration = Duration::from_secs(60);
/// Events that are quoted of an object.
const EVENTS: usize = 3;

/// A helper pod and the cluster that it is for.
pub struct Helper {
    client: Client,
    pods: Api<Pod>,
    pod: HelperPod,
}

impl Helper {
    /// This pod in that cluster, where it may be already.
    pub fn new(client: &Client, pod: HelperPod) -> Self {
        let pods = Api::namespaced(client.clone(), &pod.namespace);
        Self { client: client.clone(), pods, pod }
    }

    /// What it is to be.
    pub fn pod(&self) -> &HelperPod {
        &self.pod
    }

    /// Makes it.
    ///
    /// # Errors
    /// [`HelperError::Refused`], with the server's words.
    pub async fn create(&self) -> Result<Pod, HelperError> {
        let pod = self.pod.manifest()?;
        let deadline = Instant::now() + ADMITTED_WITHIN;
        loop {
            match self.pods.create(&PostParams::default(), &pod).await {
                Ok(made) => return Ok(made),
                Err(kube::Error::Api(status))
                    if status.code == 403 && !status.message.contains(NO_RIGHT) && Instant::now() < deadline =>
                {
                    tokio::time::sleep(POLL).await;
                }
                Err(error) => return Err(HelperError::Refused(words(&error))),
            }
        }
    }

    /// Waits until its container runs; `deadline` is asked again and again, because it may move.
    ///
    /// # Errors
    /// It does not run by then, it ended, or somebody removed it; with the circumstances.
    pub async fn running(&self, deadline: impl Fn() -> Instant) -> Result<Pod, HelperError> {
        let began = Instant::now();
        loop {
            let is_late = Instant::now() >= deadline();
            let found = match self.pods.get_opt(&self.pod.name).await {
                Ok(Some(pod)) => pod,
                Ok(None) => return Err(HelperError::Gone(self.pod.name.clone())),
                // a server that is away for a moment may be back before the deadline
                Err(error) if is_late || is_final(&error) => return Err(self.unknown(&error)),
                Err(_) => {
                    tokio::time::sleep(POLL).await;
                    continue;
                }
            };
            let pod = self.pod.name.clone();
            if has_ended(&found) {
                return Err(HelperError::Ended { pod, circumstances: Box::new(self.circumstances().await) });
            }
            if runs(&found) {
                return Ok(found);
            }
            if is_late {
                let circumstances = Box::new(self.circumstances().await);
                return Err(HelperError::NotRunning { pod, seconds: began.elapsed().as_secs(), circumstances });
            }
            tokio::time::sleep(POLL).await;
        }
    }

    /// Sets an annotation; the pod as it is then.
    ///
    /// # Errors
    /// [`HelperError::Gone`], or the server refuses.
    pub async fn annotate(&self, annotation: &str, value: &str) -> Result<Pod, HelperError> {
        let change = json!({"metadata": {"annotations": {annotation: value}}});
        let changed = self.pods.patch(&self.pod.name, &PatchParams::default(), &Patch::Merge(change)).await;
        changed.map_err(|error| match error {
            kube::Error::Api(status) if status.code == 404 => HelperError::Gone(self.pod.name.clone()),
            error => HelperError::NotChanged { pod: self.pod.name.clone(), message: words(&error) },
        })
    }

    /// Removes it, if it is there and ours, and waits until it is gone.
    ///
    /// # Errors
    /// It is not ours, or does not go.
    pub async fn remove(&self) -> Result<(), HelperError> {
        let (label, value) = &self.pod.label;
        remove(&self.pods, &self.pod.name, |pod| pod.labels().get(*label) == Some(value)).await
    }

    fn unknown(&self, error: &kube::Error) -> HelperError {
        HelperError::Unknown { pod: self.pod.name.clone(), message: words(error) }
    }

    /// What the cluster says of the pod and the claim.
    async fn circumstances(&self) -> Circumstances {
        let HelperPod { namespace, name, claim, .. } = &self.pod;
        let claims: Api<PersistentVolumeClaim> = Api::namespaced(self.client.clone(), namespace);
        let found = claims.get_opt(claim).await.ok().flatten().unwrap_or_default();
        let pod = self.pods.get_opt(name).await.ok().flatten();
        let mut circumstances = Circumstances {
            claim_phase: found.status.and_then(|status| status.phase).unwrap_or_else(|| "unknown".to_owned()),
            storage_class: found.spec.and_then(|spec| spec.storage_class_name).unwrap_or_default(),
            node: pod.as_ref().and_then(|pod| pod.spec.as_ref()?.node_name.clone()),
            container: pod.as_ref().and_then(state).and_then(told),
            events: Vec::new(),
        };
        for (of, name) in [("pod", name), ("claim", claim)] {
            let events = self.events(name).await;
            circumstances.events.extend(events.into_iter().map(|event| format!("event of the {of}: {event}")));
        }
        circumstances
    }

    /// The newest events of an object, that of the same name and another kind included.
    async fn events(&self, name: &str) -> Vec<String> {
        let events: Api<Event> = Api::namespaced(self.client.clone(), &self.pod.namespace);
        let of = ListParams::default().fields(&format!("involvedObject.name={name}"));
        let Ok(mut found) = events.list(&of).await else { return Vec::new() };
        found.items.sort_by(|a, b| b.last_timestamp.cmp(&a.last_timestamp));
        let say = |event: Event| {
            format!("{}: {}", event.reason.unwrap_or_default(), event.message.unwrap_or_default().trim())
        };
        found.items.into_iter().take(EVENTS).map(say).collect()
    }
}

/// Removes exactly the pod that was seen, and waits until it is gone.
///
/// # Errors
/// It does not go.
pub async fn remove_seen(client: &Client, seen: &Pod) -> Result<(), HelperError> {
    let pods = Api::namespaced(client.clone(), &seen.namespace().unwrap_or_default());
    match remove(&pods, &seen.name_any(), |pod| pod.uid() == seen.uid()).await {
        // another one has its name: the one that was seen is gone
        Err(HelperError::NotOurs(_)) => Ok(()),
        removed => removed,
    }
}

async fn remove(pods: &Api<Pod>, name: &str, is_ours: impl Fn(&Pod) -> bool) -> Result<(), HelperError> {
    let deadline = Instant::now() + GONE_WITHIN;
    let failed = |error: kube::Error| HelperError::NotRemoved { pod: name.to_owned(), message: words(&error) };
    let mut asked = false;
    while let Some(found) = pods.get_opt(name).await.map_err(failed)? {
        if !is_ours(&found) {
            return Err(HelperError::NotOurs(name.to_owned()));
        }
        if !asked {
            // the one that was looked at, and no other that got its name meanwhile
            let this = Preconditions { uid: found.uid(), resource_version: None };
            match pods.delete(name, &DeleteParams::default().grace_period(1).preconditions(this)).await {
                Err(kube::Error::Api(status)) if matches!(status.code, 404 | 409) => {}
                deleted => drop(deleted.map_err(failed)?),
            }
            asked = true;
        }
        if Instant::now() >= deadline {
            return Err(HelperError::NotGone { pod: name.to_owned(), seconds: GONE_WITHIN.as_secs() });
        }
        tokio::time::sleep(POLL).await;
    }
    Ok(())
}

/// Whether nothing of the pod runs any more, or ever will.
pub fn has_ended(pod: &Pod) -> bool {
    let phase = pod.status.as_ref().and_then(|status| status.phase.as_deref());
    matches!(phase, Some("Succeeded" | "Failed"))
}

fn state(pod: &Pod) -> Option<&ContainerState> {
    let containers = pod.status.as_ref()?.container_statuses.as_ref()?;
    containers.iter().find(|status| status.name == CONTAINER)?.state.as_ref()
}

/// Whether the container of ours runs.
pub fn runs(pod: &Pod) -> bool {
    state(pod).is_some_and(|state| state.running.is_some())
}

fn told(state: &ContainerState) -> Option<String> {
    let (reason, message) = match (&state.waiting, &state.terminated) {
        (Some(waiting), _) => (&waiting.reason, &waiting.message),
        (_, Some(ended)) => (&ended.reason, &ended.message),
        _ => return None,
    };
    let words: Vec<_> = [reason, message].into_iter().flatten().map(|words| words.trim()).collect();
    (!words.is_empty()).then(|| format!("its container: {}", words.join(": ")))
}

/// Whether asking again is of no use.
fn is_final(error: &kube::Error) -> bool {
    matches!(error, kube::Error::Api(status) if (400..500).contains(&status.code) && status.code != 429)
}

/// An error in the server's words alone, where they are its.
pub fn words(error: &kube::Error) -> String {
    match error {
        kube::Error::Api(status) if !status.message.is_empty() => status.message.clone(),
        error => error.to_string(),
    }
}
