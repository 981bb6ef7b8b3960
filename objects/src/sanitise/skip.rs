//! Which objects are not restored at all.
//!
//! By kind first, because most kinds have no such rule; the object is only asked where its kind has one.

use serde_json::Value;
use stillpoint_api::GroupResource;

use super::{Mapping, SkipReason, is_own_token_name, kinds::is_replaced};
use crate::value::{at, each, text};

const RBAC: &str = "rbac.authorization.k8s.io";
/// Flow schemas and priority levels that API servers make at their start, from Kubernetes 1.20's bootstrap package.
const BOOTSTRAP_FLOWS: [&str; 16] = [
    "catch-all",
    "exempt",
    "global-default",
    "kube-controller-manager",
    "kube-scheduler",
    "kube-system-service-accounts",
    "leader-election",
    "probes",
    "service-accounts",
    "system",
    "system-leader-election",
    "system-nodes",
    "workload-high",
    "workload-leader-election",
    "workload-low",
    "endpoint-controller",
];

/// Why an object is not restored; none where it is.
pub(super) fn reason(resource: &GroupResource, object: &Value, mapping: &Mapping) -> Option<SkipReason> {
    let name = text(object, &["metadata", "name"]).unwrap_or_default();
    let namespace = text(object, &["metadata", "namespace"]).unwrap_or_default();
    let made_by_cluster = |made: bool| made.then_some(SkipReason::MadeByCluster);
    match (resource.group.as_str(), resource.resource.as_str()) {
        ("", "nodes")
        | ("storage.k8s.io", "csinodes" | "volumeattachments" | "csistoragecapacities")
        | ("resource.k8s.io", "resourceslices") => Some(SkipReason::NodeBound),
        ("coordination.k8s.io", "leases") => (namespace == "kube-node-lease").then_some(SkipReason::NodeBound),
        ("" | "events.k8s.io", "events") => Some(SkipReason::Event),
        ("", "pods") => pod(object),
        ("batch", "jobs") => is_finished_job(object).then_some(SkipReason::Finished),
        ("", "secrets") => is_own_token(object, name).then_some(SkipReason::AccountToken),
        ("", "configmaps") => made_by_cluster(is_clusters_map(namespace, name)),
        ("", "services" | "endpoints") | ("discovery.k8s.io", "endpointslices") => {
            made_by_cluster(namespace == "default" && name == "kubernetes")
        }
        ("", "componentstatuses") | ("networking.k8s.io", "ipaddresses") => made_by_cluster(true),
        ("networking.k8s.io", "servicecidrs") => made_by_cluster(name == "kubernetes"),
        ("", "persistentvolumes") => {
            (mapping.reprovisioned.contains(name) || is_replaced(object, mapping)).then_some(SkipReason::Reprovisioned)
        }
        ("scheduling.k8s.io", "priorityclasses") => made_by_cluster(name.starts_with("system-")),
        (RBAC, _) => made_by_cluster(is_bootstrap_policy(object)),
        ("flowcontrol.apiserver.k8s.io", _) => made_by_cluster(is_bootstrap_flow(object, name)),
        ("apiregistration.k8s.io", "apiservices") => made_by_cluster(is_automanaged(object)),
        ("certificates.k8s.io", "certificatesigningrequests") => Some(SkipReason::Request),
        ("velero.io" | "stillpoint.dev", _) => Some(SkipReason::BackupTool),
        (group, _) => group.ends_with(".stillpoint.dev").then_some(SkipReason::BackupTool),
    }
}

fn annotation<'a>(object: &'a Value, key: &str) -> Option<&'a str> {
    text(object, &["metadata", "annotations", key])
}

fn label<'a>(object: &'a Value, key: &str) -> Option<&'a str> {
    text(object, &["metadata", "labels", key])
}

fn pod(object: &Value) -> Option<SkipReason> {
    let is_job = |owner: &Value| text(owner, &["kind"]) == Some("Job") && owner["controller"] == true;
    if matches!(text(object, &["status", "phase"]), Some("Succeeded" | "Failed")) {
        Some(SkipReason::Finished)
    } else if annotation(object, "kubernetes.io/config.mirror").is_some() {
        Some(SkipReason::MirrorPod)
    } else if each(object, &["metadata", "ownerReferences"]).any(is_job) {
        Some(SkipReason::MadeByJob)
    } else {
        None
    }
}

fn is_finished_job(object: &Value) -> bool {
    let ended = |condition: &Value| {
        matches!(text(condition, &["type"]), Some("Complete" | "Failed"))
            && text(condition, &["status"]) == Some("True")
    };
    text(object, &["status", "completionTime"]).is_some() || each(object, &["status", "conditions"]).any(ended)
}

/// A token that the cluster issued without being asked; one that a person asked for is theirs to have again.
fn is_own_token(object: &Value, name: &str) -> bool {
    text(object, &["type"]) == Some("kubernetes.io/service-account-token")
        && annotation(object, "kubernetes.io/service-account.name")
            .is_some_and(|account| is_own_token_name(account, name))
}

/// Certificates of the cluster itself: another cluster's would be believed.
fn is_clusters_map(namespace: &str, name: &str) -> bool {
    name == "kube-root-ca.crt" || (namespace == "kube-system" && name == "extension-apiserver-authentication")
}

/// Rights that every server brings; someone who switched their updates off has made them their own.
fn is_bootstrap_policy(object: &Value) -> bool {
    label(object, "kubernetes.io/bootstrapping") == Some("rbac-defaults")
        && annotation(object, "rbac.authorization.kubernetes.io/autoupdate") != Some("false")
}

/// Priorities that every server brings. Those of servers before 1.22 carry no mark and are known by their names.
fn is_bootstrap_flow(object: &Value, name: &str) -> bool {
    match annotation(object, "apf.kubernetes.io/autoupdate-spec") {
        Some(mark) => mark == "true",
        None => BOOTSTRAP_FLOWS.contains(&name),
    }
}

fn is_automanaged(object: &Value) -> bool {
    at(object, &["metadata", "labels", "kube-aggregator.kubernetes.io/automanaged"]).is_some()
}
