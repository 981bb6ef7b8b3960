//! The published table of what is not compared.
//!
//! Every row is as narrow as the fact behind it. A new row belongs here when a restored object was seen to differ
//! although nothing was lost, and never because a difference is unpleasant.

use serde_json::Value;
use stillpoint_api::ResourceType;

use super::{
    Hides::{Everything, Rewrite, Value as Default, Where},
    Rule,
};
use crate::{
    sanitise::{accept_structural_schema, asks_for_health_port, asks_for_node_port, is_own_token_name},
    value::{at, each, each_mut, remove, text},
};

const ALL: &[&str] = &[];
const WITH_POD_TEMPLATE: &[&str] = &[
    "daemonsets.apps",
    "deployments.apps",
    "jobs.batch",
    "replicasets.apps",
    "replicationcontrollers.core",
    "statefulsets.apps",
];
const WEBHOOKS: &[&str] = &[
    "mutatingwebhookconfigurations.admissionregistration.k8s.io",
    "validatingwebhookconfigurations.admissionregistration.k8s.io",
];

const fn rule(types: &'static [&'static str], path: &'static str, hides: super::Hides, why: &'static str) -> Rule {
    Rule { types, path, hides, why }
}

const SERVER: &str = "the server sets it for each object anew";
const TYPE: &str = "a list says the type once for all its items";
const TOKEN_VOLUME: &str = "admission mounts a token of the account into every Pod";
const BOUND: &str = "says to what the captured cluster bound the claim, and how";
const JOB_UID: &str = "the server makes it from the Job's uid";
const JOB_NAME: &str = "newer servers add the Job's own name";
const NULL_TIME: &str = "older servers write out that there is no time";
const ADDED: &str = "newer servers write out the default";
const ADDRESS: &str = "the cluster gives an address";
const NODE_PORT: &str = "the cluster gives a free port where none was asked for";
const ACCOUNT_TOKEN: &str = "the cluster issues another token";
const SCALER_STATUS: &str = "autoscaling/v1 shows status in annotations";

/// Everything that is not compared.
pub const RULES: &[Rule] = &[
    rule(ALL, "apiVersion", Where("it is the type's own", is_own_version), TYPE),
    rule(ALL, "kind", Where("it is the type's own", is_own_kind), TYPE),
    rule(ALL, "metadata.creationTimestamp", Everything, SERVER),
    rule(ALL, "metadata.generation", Everything, SERVER),
    rule(ALL, "metadata.managedFields", Everything, "says who set a field last, and the restore has set all"),
    rule(ALL, "metadata.resourceVersion", Everything, SERVER),
    rule(ALL, "metadata.selfLink", Everything, SERVER),
    rule(ALL, "metadata.uid", Everything, SERVER),
    rule(ALL, "metadata.ownerReferences[].uid", Everything, "owners get new uids, and their references follow"),
    rule(ALL, r#"metadata.labels["stillpoint.dev/backup-name"]"#, Everything, "added by the restore itself"),
    rule(ALL, r#"metadata.labels["stillpoint.dev/restore-name"]"#, Everything, "added by the restore itself"),
    rule(ALL, "status", Everything, "controllers write it again; servers refuse it at creation"),
    // namespaces
    rule(
        &["namespaces.core"],
        r#"metadata.labels["kubernetes.io/metadata.name"]"#,
        Where("it is the namespace's own name", is_own_name),
        "newer servers add it",
    ),
    rule(&["namespaces.core"], "spec.finalizers", Default(r#"["kubernetes"]"#), "the server adds it"),
    // pods and what makes them
    rule(&["pods.core"], "spec.nodeName", Everything, "the scheduler chooses a node of the target"),
    rule(&["pods.core"], "spec.priority", Everything, "admission computes it from the PriorityClass"),
    rule(&["pods.core"], "spec.ephemeralContainers", Everything, "debugging containers cannot be created with a Pod"),
    rule(&["pods.core"], "spec.volumes[]", Where("it is the account's token", is_token_volume), TOKEN_VOLUME),
    rule(
        &["pods.core"],
        "spec.containers[].volumeMounts[]",
        Where("it mounts the account's token", is_token_mount),
        TOKEN_VOLUME,
    ),
    rule(
        &["pods.core"],
        "spec.initContainers[].volumeMounts[]",
        Where("it mounts the account's token", is_token_mount),
        TOKEN_VOLUME,
    ),
    rule(WITH_POD_TEMPLATE, "spec.template.metadata.creationTimestamp", Default("null"), NULL_TIME),
    rule(&["podtemplates.core"], "template.metadata.creationTimestamp", Default("null"), NULL_TIME),
    rule(&["cronjobs.batch"], "spec.jobTemplate.metadata.creationTimestamp", Default("null"), NULL_TIME),
    rule(&["cronjobs.batch"], "spec.jobTemplate.spec.template.metadata.creationTimestamp", Default("null"), NULL_TIME),
    rule(&["statefulsets.apps"], "spec.volumeClaimTemplates[].metadata.creationTimestamp", Default("null"), NULL_TIME),
    rule(
        &["statefulsets.apps"],
        "spec.persistentVolumeClaimRetentionPolicy",
        Default(r#"{"whenDeleted":"Retain","whenScaled":"Retain"}"#),
        ADDED,
    ),
    rule(&["daemonsets.apps"], "spec.updateStrategy.rollingUpdate.maxSurge", Default("0"), ADDED),
    // jobs
    rule(&["jobs.batch"], "spec.selector", Where("spec.manualSelector is not true", is_made_selector), JOB_UID),
    rule(&["jobs.batch"], r#"metadata.labels["controller-uid"]"#, Where(BY_UID, is_made_selector), JOB_UID),
    rule(
        &["jobs.batch"],
        r#"metadata.labels["batch.kubernetes.io/controller-uid"]"#,
        Where(BY_UID, is_made_selector),
        JOB_UID,
    ),
    rule(
        &["jobs.batch"],
        r#"spec.template.metadata.labels["controller-uid"]"#,
        Where(BY_UID, is_made_selector),
        JOB_UID,
    ),
    rule(
        &["jobs.batch"],
        r#"spec.template.metadata.labels["batch.kubernetes.io/controller-uid"]"#,
        Where(BY_UID, is_made_selector),
        JOB_UID,
    ),
    rule(
        &["jobs.batch"],
        r#"metadata.labels["batch.kubernetes.io/job-name"]"#,
        Where("it is the Job's own name", is_own_name),
        JOB_NAME,
    ),
    rule(
        &["jobs.batch"],
        r#"spec.template.metadata.labels["batch.kubernetes.io/job-name"]"#,
        Where("it is the Job's own name", is_own_name),
        JOB_NAME,
    ),
    rule(&["jobs.batch"], "spec.completionMode", Default(r#""NonIndexed""#), ADDED),
    rule(&["jobs.batch"], "spec.manualSelector", Default("false"), ADDED),
    rule(&["jobs.batch"], "spec.podReplacementPolicy", Default(r#""TerminatingOrFailed""#), ADDED),
    rule(&["jobs.batch"], "spec.suspend", Default("false"), ADDED),
    // services
    rule(&["services.core"], "spec.clusterIP", Where("the Service is not headless", is_given_address), ADDRESS),
    rule(&["services.core"], "spec.clusterIPs", Where("the Service is not headless", is_given_address), ADDRESS),
    rule(
        &["services.core"],
        "spec.healthCheckNodePort",
        Where("what kubectl applied does not name it", is_given_health_port),
        NODE_PORT,
    ),
    rule(
        &["services.core"],
        "spec.ports[].nodePort",
        Rewrite("absent where what kubectl applied does not name it", drop_given_ports),
        NODE_PORT,
    ),
    rule(&["services.core"], "spec.allocateLoadBalancerNodePorts", Default("true"), ADDED),
    rule(&["services.core"], "spec.internalTrafficPolicy", Default(r#""Cluster""#), ADDED),
    rule(&["services.core"], "spec.ipFamilies", Default(r#"["IPv4"]"#), ADDED),
    rule(&["services.core"], "spec.ipFamilyPolicy", Default(r#""SingleStack""#), ADDED),
    // accounts
    rule(
        &["serviceaccounts.core"],
        "secrets[]",
        Where("it is a token that the cluster issued unasked", is_issued_token),
        ACCOUNT_TOKEN,
    ),
    rule(&["secrets.core"], "data.token", Where(TOKEN_SECRET, is_token_secret), ACCOUNT_TOKEN),
    rule(&["secrets.core"], r#"data["ca.crt"]"#, Where(TOKEN_SECRET, is_token_secret), ACCOUNT_TOKEN),
    rule(&["secrets.core"], "data.namespace", Where(TOKEN_SECRET, is_token_secret), ACCOUNT_TOKEN),
    rule(
        &["secrets.core"],
        r#"metadata.annotations["kubernetes.io/service-account.uid"]"#,
        Where(TOKEN_SECRET, is_token_secret),
        ACCOUNT_TOKEN,
    ),
    rule(
        &["clusterroles.rbac.authorization.k8s.io"],
        "rules",
        Where("the role has an aggregationRule", is_aggregated),
        "a controller adds them up from other roles",
    ),
    // volumes
    rule(&[CLAIMS], r#"metadata.annotations["pv.kubernetes.io/bind-completed"]"#, Everything, BOUND),
    rule(&[CLAIMS], r#"metadata.annotations["pv.kubernetes.io/bound-by-controller"]"#, Everything, BOUND),
    rule(&[CLAIMS], r#"metadata.annotations["volume.beta.kubernetes.io/storage-provisioner"]"#, Everything, BOUND),
    rule(&[CLAIMS], r#"metadata.annotations["volume.kubernetes.io/selected-node"]"#, Everything, BOUND),
    rule(&[CLAIMS], r#"metadata.annotations["volume.kubernetes.io/storage-provisioner"]"#, Everything, BOUND),
    rule(&["persistentvolumes.core"], "spec.claimRef.resourceVersion", Everything, BOUND),
    rule(&["persistentvolumes.core"], "spec.claimRef.uid", Everything, BOUND),
    rule(&[CSI_DRIVERS], "spec.fsGroupPolicy", Default(r#""ReadWriteOnceWithFSType""#), ADDED),
    rule(&[CSI_DRIVERS], "spec.requiresRepublish", Default("false"), ADDED),
    rule(&[CSI_DRIVERS], "spec.seLinuxMount", Default("false"), ADDED),
    rule(&[CSI_DRIVERS], "spec.storageCapacity", Default("false"), ADDED),
    // the rest
    rule(
        &[SCALERS],
        r#"metadata.annotations["autoscaling.alpha.kubernetes.io/conditions"]"#,
        Everything,
        SCALER_STATUS,
    ),
    rule(
        &[SCALERS],
        r#"metadata.annotations["autoscaling.alpha.kubernetes.io/current-metrics"]"#,
        Everything,
        SCALER_STATUS,
    ),
    rule(&["ingressclasses.networking.k8s.io"], "spec.parameters.scope", Default(r#""Cluster""#), ADDED),
    rule(&[PRIORITY_LEVELS], "spec.limited.lendablePercent", Default("0"), ADDED),
    rule(
        WEBHOOKS,
        "webhooks[].sideEffects",
        Where("it is `None`, `Unknown` or `Some`", is_no_side_effect),
        "v1 refuses what v1beta1 allowed; it is restored as `None`",
    ),
    rule(
        &["customresourcedefinitions.apiextensions.k8s.io"],
        "spec.preserveUnknownFields",
        Rewrite("`x-kubernetes-preserve-unknown-fields` in each version's schema", accept_structural_schema),
        "v1 refuses what v1beta1 allowed; it is restored in the new form",
    ),
    rule(
        &["customresourcedefinitions.apiextensions.k8s.io"],
        "spec.preserveUnknownFields",
        Default("false"),
        "only definitions that were made before v1 write it out",
    ),
];

const CLAIMS: &str = "persistentvolumeclaims.core";
const CSI_DRIVERS: &str = "csidrivers.storage.k8s.io";
const SCALERS: &str = "horizontalpodautoscalers.autoscaling";
const PRIORITY_LEVELS: &str = "prioritylevelconfigurations.flowcontrol.apiserver.k8s.io";
const BY_UID: &str = "spec.manualSelector is not true";
const TOKEN_SECRET: &str = "the Secret is a token of an account";

fn is_own_version(resource: &ResourceType, _: &Value, version: &Value) -> bool {
    *version == resource.api_version()
}

fn is_own_kind(resource: &ResourceType, _: &Value, kind: &Value) -> bool {
    *kind == resource.kind
}

fn is_own_name(_: &ResourceType, whole: &Value, value: &Value) -> bool {
    at(whole, &["metadata", "name"]) == Some(value)
}

fn is_token_volume(_: &ResourceType, whole: &Value, volume: &Value) -> bool {
    let account = text(whole, &["spec", "serviceAccountName"]).unwrap_or("default");
    let by_secret = text(volume, &["secret", "secretName"]).is_some_and(|name| is_own_token_name(account, name));
    let suffix = text(volume, &["name"]).and_then(|name| name.strip_prefix("kube-api-access-"));
    by_secret || (suffix.is_some_and(|suffix| suffix.len() == 5) && volume.get("projected").is_some())
}

fn is_token_mount(resource: &ResourceType, whole: &Value, mount: &Value) -> bool {
    let name = text(mount, &["name"]);
    text(mount, &["mountPath"]) == Some("/var/run/secrets/kubernetes.io/serviceaccount")
        && each(whole, &["spec", "volumes"])
            .any(|volume| text(volume, &["name"]) == name && is_token_volume(resource, whole, volume))
}

fn is_made_selector(_: &ResourceType, whole: &Value, _: &Value) -> bool {
    at(whole, &["spec", "manualSelector"]) != Some(&Value::Bool(true))
}

fn is_given_address(_: &ResourceType, whole: &Value, _: &Value) -> bool {
    text(whole, &["spec", "clusterIP"]) != Some("None")
}

fn is_given_health_port(_: &ResourceType, whole: &Value, _: &Value) -> bool {
    !asks_for_health_port(whole)
}

fn drop_given_ports(service: &mut Value) {
    let whole = service.clone();
    for port in each_mut(service, &["spec", "ports"]) {
        if !asks_for_node_port(&whole, port) {
            remove(port, &[], "nodePort");
        }
    }
}

fn is_issued_token(_: &ResourceType, whole: &Value, secret: &Value) -> bool {
    let account = text(whole, &["metadata", "name"]).unwrap_or_default();
    text(secret, &["name"]).is_some_and(|name| is_own_token_name(account, name))
}

fn is_token_secret(_: &ResourceType, whole: &Value, _: &Value) -> bool {
    text(whole, &["type"]) == Some("kubernetes.io/service-account-token")
}

fn is_aggregated(_: &ResourceType, whole: &Value, _: &Value) -> bool {
    at(whole, &["aggregationRule"]).is_some()
}

fn is_no_side_effect(_: &ResourceType, _: &Value, value: &Value) -> bool {
    matches!(value.as_str(), Some("None" | "Unknown" | "Some"))
}
