//! Volumes on the real node: filesystems of a test's own behind claims, with a pod that mounts them.
//!
//! The pod only holds the mounts: a freeze stops every writer, so a test may write from its own process.

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use futures::TryStreamExt;
use http::Method;
use kube::Client;
use serde_json::{Value, json};
use stillpoint_agent::{Access, Agents, BackupRequest, HooksRequest, Node, NodeConfig, OnStep, Report, VolumesRequest};
use stillpoint_api::{Scope, VolumeIntent};
use stillpoint_catalog::{self as catalog, Backup};
use stillpoint_hooks::{guard, hook::journal::Journal};
use stillpoint_repository::{Repository, Store, signing::Trust};
use tempfile::TempDir;
use tokio::{sync::watch, task::JoinHandle};

use super::{
    backups::{self, PASSWORD},
    cluster::{Real, ask, create, eventually, get},
};

/// The one node of the cluster.
pub(crate) const NODE_NAME: &str = "127.0.0.1";
/// Names the cluster with a node.
pub(crate) const NODE: &str = "STILLPOINT_TEST_NODE";

/// What a pod runs that only holds its mounts.
pub(crate) const IDLE: &str = "sleep 3600 & wait";

/// Kubelet's folder on this machine.
pub(crate) fn kubelet_root() -> PathBuf {
    let lab = std::env::var_os("LAB").map(PathBuf::from);
    let home = || PathBuf::from(std::env::var_os("HOME").unwrap_or_default()).join(".cache/stillpoint-cluster");
    lab.unwrap_or_else(home).join("node/kubelet")
}

/// A repository in a folder, and the agent of the node in this process.
pub(crate) struct Lab {
    pub(crate) folder: TempDir,
    pub(crate) repository: Repository,
    pub(crate) agents: Agents,
}

impl Lab {
    pub(crate) async fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let url = folder.path().join("repository").display().to_string();
        let repository = backups::init(Store::from_url(&url).unwrap()).await;
        let guard = guard::Config {
            program: env!("CARGO_BIN_EXE_stillpoint").into(),
            journal: folder.path().join("journal"),
            ..guard::Config::default()
        };
        let spool = folder.path().join("spool");
        std::fs::create_dir(&spool).unwrap();
        let config = NodeConfig { name: NODE_NAME.into(), kubelet: kubelet_root(), guard, spool, cannot_stop: None };
        Self { folder, repository, agents: Agents::Local(Node::new(config)) }
    }

    pub(crate) fn url(&self) -> String {
        self.folder.path().join("repository").display().to_string()
    }

    /// How volumes are to be copied, hooks and all.
    pub(crate) fn volumes(&self, client: &Client, method: Option<&str>, on_step: Option<OnStep>) -> VolumesRequest {
        let access = Access { url: self.url(), password: PASSWORD.into(), ..Access::default() };
        let journal = Journal::new(self.folder.path().join("hooks"), "test".to_owned());
        let hooks = HooksRequest { client: client.clone(), journal };
        let request = VolumesRequest::new(self.agents.clone(), access, Some(hooks));
        VolumesRequest { method: method.map(str::to_owned), on_step, ..request }
    }

    /// Takes a backup of the test's namespace with its volumes.
    pub(crate) async fn back_up(&self, real: &Real, name: &str, volumes: VolumesRequest) -> Report {
        back_up(real, &self.repository, name, volumes).await.unwrap()
    }

    /// A file of a volume of a backup; none where the volume is not held.
    pub(crate) async fn file(&self, backup: &str, claim: &str, path: &str) -> Option<Vec<u8>> {
        file(&self.repository, backup, claim, path).await
    }
}

/// Takes a backup of the test's namespace with its volumes.
pub(crate) async fn back_up(
    real: &Real,
    repository: &Repository,
    name: &str,
    volumes: VolumesRequest,
) -> Result<Report, stillpoint_agent::Error> {
    let scope =
        Scope { include_namespaces: vec![real.namespace.clone()], volumes: VolumeIntent::Wanted, ..Scope::default() };
    let request = BackupRequest { volumes: Some(volumes), ..BackupRequest::new(name, "test", scope) };
    let backup = stillpoint_agent::create(real.client.clone(), repository, &request, None, watch::Sender::default());
    Box::pin(backup).await
}

/// A file of a volume of a backup; none where the volume is not held.
pub(crate) async fn file(repository: &Repository, backup: &str, claim: &str, path: &str) -> Option<Vec<u8>> {
    file_in(repository, &catalog::find(repository, backup, &Trust::default()).await.unwrap(), claim, path).await
}

/// The same of a backup that was found: to find one is to look at all.
pub(crate) async fn file_in(repository: &Repository, backup: &Backup, claim: &str, path: &str) -> Option<Vec<u8>> {
    let volumes = backup.volumes().await.unwrap();
    let (_, directory) = volumes.into_iter().find(|(record, _)| record.claim == claim)?;
    let reader = repository.reader().await.unwrap();
    let node = reader.find(&directory.subtree.unwrap(), path).await.unwrap()?;
    Some(reader.content(&node).unwrap().try_collect::<Vec<_>>().await.unwrap().concat())
}

/// Makes a volume of a directory of this machine and a claim that is bound to it.
pub(crate) async fn claim(real: &Real, name: &str, directory: &Path) {
    claim_on(real, NODE_NAME, name, directory).await;
}

/// The same for a node.
pub(crate) async fn claim_on(real: &Real, node: &str, name: &str, directory: &Path) {
    let Real { client, namespace, .. } = real;
    let volume = format!("{namespace}-{name}");
    let access = json!({"capacity": {"storage": "100Mi"}, "accessModes": ["ReadWriteOnce"]});
    let mut spec = json!({
        "storageClassName": "manual", "persistentVolumeReclaimPolicy": "Retain",
        "local": {"path": directory},
        "nodeAffinity": {"required": {"nodeSelectorTerms": [{"matchExpressions": [
            {"key": "kubernetes.io/hostname", "operator": "In", "values": [node]}]}]}},
    });
    spec.as_object_mut().unwrap().extend(access.as_object().unwrap().clone());
    let object = json!({"metadata": {"name": volume}, "spec": spec});
    create(client, "/api/v1/persistentvolumes", &object).await;
    let object = json!({"metadata": {"name": name}, "spec": {
        "storageClassName": "manual", "volumeName": volume, "accessModes": ["ReadWriteOnce"],
        "resources": {"requests": {"storage": "100Mi"}},
    }});
    create(client, &format!("/api/v1/namespaces/{namespace}/persistentvolumeclaims"), &object).await;
}

/// Makes a pod that mounts claims at `/NAME` and runs a script, and waits until it runs.
pub(crate) async fn pod(real: &Real, name: &str, claims: &[&str], script: &str, annotations: &[(&str, &str)]) {
    let Real { client, namespace, .. } = real;
    let path = format!("/api/v1/namespaces/{namespace}/pods");
    let volumes: Vec<_> =
        claims.iter().map(|claim| json!({"name": claim, "persistentVolumeClaim": {"claimName": claim}})).collect();
    let mounts: Vec<_> = claims.iter().map(|claim| json!({"name": claim, "mountPath": format!("/{claim}")})).collect();
    let annotations: Value = annotations.iter().map(|&(key, value)| (key.to_owned(), json!(value))).collect();
    let object = json!({
        "metadata": {"name": name, "annotations": annotations},
        "spec": {
            "nodeName": NODE_NAME, "hostNetwork": true, "terminationGracePeriodSeconds": 0,
            "automountServiceAccountToken": false, "volumes": volumes,
            "containers": [{"name": "main", "image": "localhost/busybox:1", "imagePullPolicy": "Never",
                            "command": ["sh", "-c", script], "volumeMounts": mounts}],
        },
    });
    eventually("the namespace has its service account", async || {
        ask(client, Method::POST, &path, &object).await.is_ok()
    })
    .await;
    eventually(&format!("pod {name} runs"), async || {
        get(client, &format!("{path}/{name}")).await["status"]["containerStatuses"][0]["state"]["running"].is_object()
    })
    .await;
}

/// Puts the pods of a test's namespace on the node until it is dropped: the cluster has no scheduler.
pub(crate) struct Scheduler(JoinHandle<()>);

impl Drop for Scheduler {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl Scheduler {
    pub(crate) fn start(real: &Real) -> Self {
        Self(tokio::spawn(schedule(real.clone())))
    }
}

async fn schedule(real: Real) {
    let path = format!("/api/v1/namespaces/{}/pods", real.namespace);
    loop {
        let pods = ask(&real.client, Method::GET, &path, &Value::Null).await.unwrap_or_default();
        for pod in pods["items"].as_array().into_iter().flatten().filter(|pod| pod["spec"]["nodeName"].is_null()) {
            let name = pod["metadata"]["name"].as_str().unwrap();
            let target = json!({"kind": "Node", "name": NODE_NAME});
            let binding = json!({"apiVersion": "v1", "kind": "Binding", "metadata": {"name": name}, "target": target});
            let _ = ask(&real.client, Method::POST, &format!("{path}/{name}/binding"), &binding).await;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

/// The names of the pods of a test's namespace.
pub(crate) async fn pods(real: &Real) -> Vec<String> {
    let pods = get(&real.client, &format!("/api/v1/namespaces/{}/pods", real.namespace)).await;
    let names = pods["items"].as_array().unwrap().iter().map(|pod| pod["metadata"]["name"].as_str().unwrap());
    names.map(str::to_owned).collect()
}

/// A write must be done within some time: nothing is frozen then.
pub(crate) async fn writes(file: PathBuf, within: Duration) {
    let write = tokio::task::spawn_blocking(move || std::fs::write(file, "goes on").unwrap());
    tokio::time::timeout(within, write).await.expect("it is still frozen").unwrap();
}
