//! Gives a scratch cluster's garbage collector the time that it needs.
//!
//! How long that is cannot be known from outside, so the collector is watched at work: orphans of our own are created
//! after the restore, and when they are gone it has had its time. One of them is of a custom type, because the collector
//! learns of new types only now and then, and the one that it learnt last includes all that were restored.

use std::time::{Duration, Instant};

use serde_json::{Value, json};
use stillpoint_api::{GroupResource, ResourceType};
use stillpoint_objects::{
    self as objects, list,
    retry::Retry,
    write::{self, DryRun},
};

use crate::scratch::ScratchCluster;

/// How long the collector may take; it looks for new types every half minute.
const DEADLINE: Duration = Duration::from_secs(150);
const POLL: Duration = Duration::from_millis(250);
/// Where our orphans live.
const NAMESPACE: &str = "stillpoint-restore-test";
const ORPHAN: &str = "orphan";
const GROUP: &str = "restore-test.stillpoint.dev";
/// Of an owner that never was.
const GONE: &str = "00000000-0000-4000-8000-000000000000";

/// Whether garbage was collected.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Collected {
    /// The collector has deleted our orphans.
    AtWork,
    /// Nothing collects garbage in this cluster.
    NoCollector,
    /// The collector has not deleted our orphans in time.
    TooSlow,
}

/// Whether controllers, the garbage collector among them, run in a cluster into which nothing was restored yet.
///
/// # Errors
/// The cluster fails.
pub(crate) async fn runs(cluster: &ScratchCluster, retry: &Retry) -> Result<bool, objects::Error> {
    match cluster {
        ScratchCluster::Embedded(_) => Ok(false),
        // one program runs them all, and no other makes this object
        ScratchCluster::ControlPlane(cluster) => {
            let accounts = core("serviceaccounts", "ServiceAccount");
            exists(&cluster.client(), &accounts, "default", "default", retry).await
        }
    }
}

/// Waits until the collector has deleted orphans of ours; `custom` says whether custom types were restored.
///
/// # Errors
/// The cluster fails or refuses the orphans.
pub(crate) async fn wait(client: &kube::Client, custom: bool, retry: &Retry) -> Result<Collected, objects::Error> {
    let deadline = Instant::now() + DEADLINE;
    let namespace = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE}});
    write::create(client, &list::namespaces(), &namespace, DryRun::No, retry).await?;
    let mut orphans = vec![core("configmaps", "ConfigMap")];
    if custom {
        orphans.push(define(client, deadline, retry).await?);
    }
    for orphan in &orphans {
        write::create(client, orphan, &orphaned(orphan), DryRun::No, retry).await?;
    }
    for orphan in &orphans {
        while exists(client, orphan, NAMESPACE, ORPHAN, retry).await? {
            if Instant::now() >= deadline {
                return Ok(Collected::TooSlow);
            }
            tokio::time::sleep(POLL).await;
        }
    }
    Ok(Collected::AtWork)
}

/// Defines a custom type and waits until it is served.
async fn define(client: &kube::Client, deadline: Instant, retry: &Retry) -> Result<ResourceType, objects::Error> {
    let definitions = GroupResource::new("apiextensions.k8s.io", "customresourcedefinitions");
    let (kind, version) = ("CustomResourceDefinition".to_owned(), "v1".to_owned());
    let definitions = ResourceType { name: definitions, version, kind, namespaced: false };
    let orphans = GroupResource::new(GROUP, "orphans");
    let schema = json!({"openAPIV3Schema": {"type": "object"}});
    let definition = json!({
        "apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
        "metadata": {"name": format!("orphans.{GROUP}")},
        "spec": {
            "group": GROUP, "scope": "Namespaced",
            "names": {"plural": "orphans", "singular": "orphan", "kind": "Orphan", "listKind": "OrphanList"},
            "versions": [{"name": "v1", "served": true, "storage": true, "schema": schema}],
        },
    });
    write::create(client, &definitions, &definition, DryRun::No, retry).await?;
    while !write::is_served(client, &orphans, "v1", retry).await? && Instant::now() < deadline {
        tokio::time::sleep(POLL).await;
    }
    Ok(ResourceType { name: orphans, version: "v1".to_owned(), kind: "Orphan".to_owned(), namespaced: true })
}

fn core(plural: &str, kind: &str) -> ResourceType {
    let name = GroupResource::core(plural);
    ResourceType { name, version: "v1".to_owned(), kind: kind.to_owned(), namespaced: true }
}

fn orphaned(resource: &ResourceType) -> Value {
    let owner = json!({"apiVersion": "v1", "kind": "ConfigMap", "name": "gone", "uid": GONE});
    json!({
        "apiVersion": resource.api_version(), "kind": resource.kind,
        "metadata": {"name": ORPHAN, "namespace": NAMESPACE, "ownerReferences": [owner]},
    })
}

/// Whether the newest list of a type has an object of that name.
async fn exists(
    client: &kube::Client,
    resource: &ResourceType,
    namespace: &str,
    name: &str,
    retry: &Retry,
) -> Result<bool, objects::Error> {
    let revision = list::read_revision(client, retry).await?;
    let mut pages = list::list_at(client, resource, Some(namespace), revision, retry);
    while let Some(page) = pages.next().await? {
        for item in page.items() {
            if item?.meta.name == name {
                return Ok(true);
            }
        }
    }
    Ok(false)
}
