//! What hooks need to know of a pod.
//!
//! A value apart from Kubernetes' own type, so that plans and lints can be made from a cluster, a manifest or a test.

use std::time::Duration;

use k8s_openapi::api::core::v1::{self as core, PodSpec, PodTemplateSpec, Probe};
use serde::{Deserialize, Serialize};

use super::annotations::Annotations;

/// Which pod is meant. A pod of the same name but another uid is another pod.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct PodId {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// Its uid; none for one that is only written down.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub uid: Option<String>,
}

impl std::fmt::Display for PodId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}", self.namespace, self.name)
    }
}

/// Whether commands can run in a pod.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum State {
    /// They can.
    Running,
    /// All its containers have ended: nothing writes.
    Ended,
    /// Not yet, or nobody knows; the phase as Kubernetes names it.
    Other(String),
}

/// A container of a pod.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Container {
    /// Its name.
    pub name: String,
    /// How long it may stand still before its liveness probe has it killed.
    pub patience: Option<Duration>,
}

/// A pod, or the template of one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pod {
    /// Which one.
    pub id: PodId,
    /// Whether commands can run in it.
    pub state: State,
    /// The containers that run as long as the pod does, those of `spec.containers` first.
    pub containers: Vec<Container>,
    /// Its annotations.
    pub annotations: Annotations,
}

impl Pod {
    /// A pod as the cluster gives it.
    #[must_use]
    pub fn of(pod: &core::Pod) -> Self {
        let metadata = &pod.metadata;
        let phase = pod.status.as_ref().and_then(|status| status.phase.as_deref()).unwrap_or("Unknown");
        Self {
            id: PodId {
                namespace: metadata.namespace.clone().unwrap_or_else(|| "default".to_owned()),
                name: metadata.name.clone().or_else(|| metadata.generate_name.clone()).unwrap_or_default(),
                uid: metadata.uid.clone(),
            },
            state: match phase {
                "Running" => State::Running,
                "Succeeded" | "Failed" => State::Ended,
                other => State::Other(other.to_owned()),
            },
            containers: pod.spec.as_ref().map(containers).unwrap_or_default(),
            annotations: metadata.annotations.clone().unwrap_or_default(),
        }
    }

    /// The pods that a workload of this `namespace` and `name` makes of its template.
    #[must_use]
    pub fn of_template(namespace: &str, name: &str, template: &PodTemplateSpec) -> Self {
        let annotations = template.metadata.as_ref().and_then(|metadata| metadata.annotations.clone());
        Self {
            id: PodId { namespace: namespace.to_owned(), name: name.to_owned(), uid: None },
            state: State::Other("written down".to_owned()),
            containers: template.spec.as_ref().map(containers).unwrap_or_default(),
            annotations: annotations.unwrap_or_default(),
        }
    }

    /// The container of that name.
    #[must_use]
    pub fn container(&self, name: &str) -> Option<&Container> {
        self.containers.iter().find(|container| container.name == name)
    }
}

fn containers(spec: &PodSpec) -> Vec<Container> {
    let init = spec.init_containers.iter().flatten();
    let sidecars = init.filter(|container| container.restart_policy.as_deref() == Some("Always"));
    let container = |container: &core::Container| Container {
        name: container.name.clone(),
        patience: container.liveness_probe.as_ref().map(patience),
    };
    spec.containers.iter().chain(sidecars).map(container).collect()
}

/// The shortest time in which a probe can fail as often as it needs to: its first failure may begin with the window.
fn patience(probe: &Probe) -> Duration {
    let seconds = |value: Option<i32>, default| u64::try_from(value.unwrap_or(default)).unwrap_or(0);
    let failures = seconds(probe.failure_threshold, 3);
    let apart = seconds(probe.period_seconds, 10);
    Duration::from_secs(failures.saturating_sub(1) * apart + seconds(probe.timeout_seconds, 1))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn pod(value: serde_json::Value) -> Pod {
        Pod::of(&serde_json::from_value(value).unwrap())
    }

    #[test]
    fn a_sidecar_can_run_hooks_and_an_init_container_cannot() {
        let pod = pod(json!({"metadata": {"name": "db"}, "spec": {
            "initContainers": [{"name": "setup"}, {"name": "proxy", "restartPolicy": "Always"}],
            "containers": [{"name": "db"}],
        }}));
        let names: Vec<_> = pod.containers.iter().map(|container| &*container.name).collect();
        assert_eq!(names, ["db", "proxy"]);
        assert_eq!(pod.state, State::Other("Unknown".to_owned()));
    }

    #[test]
    fn a_liveness_probe_allows_the_time_of_its_failures() {
        let patience = |probe: serde_json::Value| {
            let pod = pod(
                json!({"metadata": {"name": "x"}, "spec": {"containers": [{"name": "x", "livenessProbe": probe}]}}),
            );
            pod.containers[0].patience.unwrap().as_secs()
        };
        assert_eq!(patience(json!({})), 21, "Kubernetes' defaults");
        assert_eq!(patience(json!({"failureThreshold": 1, "periodSeconds": 5, "timeoutSeconds": 2})), 2);
    }
}
