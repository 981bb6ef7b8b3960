//! Pods on the real node of the cluster that `STILLPOINT_TEST_NODE` names.

use std::{
    fs::File,
    panic::{AssertUnwindSafe, resume_unwind},
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::Arc,
};

use futures::FutureExt;
use k8s_openapi::api::core::v1::{Namespace, Pod};
use kube::{
    Api, Client, Config,
    api::{DeleteParams, PostParams},
    config::{KubeConfigOptions, Kubeconfig},
};
use serde_json::{Value, json};
use stillpoint_hooks::{
    hook::{
        exec::{self, Executor, Exit, kubernetes::Kubernetes},
        plan::Plan,
        pod,
        run::{self, Limits, Running},
    },
    pods,
};
use stillpoint_test_support::require;
use tokio::io::AsyncReadExt;

use super::eventually;

/// A namespace on the node, for one test.
#[derive(Clone)]
pub(crate) struct Node {
    pub(crate) client: Client,
    pub(crate) namespace: String,
    kubeconfig: PathBuf,
}

/// Runs a test in a namespace of its own, one test at a time; the namespace is removed whatever becomes of the test.
pub(crate) async fn on_node(test: impl AsyncFnOnce(Node)) {
    let Some(kubeconfig) = require::env("STILLPOINT_TEST_NODE") else { return };
    let _ = rustls::crypto::ring::default_provider().install_default();
    let kubeconfig = PathBuf::from(kubeconfig);
    let _alone = alone(&kubeconfig).await;
    let options = KubeConfigOptions::default();
    let mut config =
        Config::from_custom_kubeconfig(Kubeconfig::read_from(&kubeconfig).unwrap(), &options).await.unwrap();
    config.read_timeout = None;
    config.default_retry = false;
    let uuid = std::fs::read_to_string("/proc/sys/kernel/random/uuid").unwrap();
    let node =
        Node { client: Client::try_from(config).unwrap(), namespace: format!("hooks-{}", &uuid[..8]), kubeconfig };
    let namespaces: Api<Namespace> = Api::all(node.client.clone());
    let namespace = serde_json::from_value(json!({"metadata": {"name": node.namespace}})).unwrap();
    namespaces.create(&PostParams::default(), &namespace).await.unwrap();
    let ended = AssertUnwindSafe(test(node.clone())).catch_unwind().await;
    node.start_api_server();
    let _ = namespaces.delete(&node.namespace, &DeleteParams::default()).await;
    if let Err(panicked) = ended {
        resume_unwind(panicked);
    }
}

/// A restarted API server is everybody's: no two tests use the node at a time.
async fn alone(kubeconfig: &Path) -> File {
    let file = File::open(kubeconfig).unwrap();
    tokio::task::spawn_blocking(move || file.lock().map(|()| file)).await.unwrap().unwrap()
}

impl Node {
    pub(crate) fn pods(&self) -> Api<Pod> {
        Api::namespaced(self.client.clone(), &self.namespace)
    }

    /// Makes a pod of `image` that waits for ever, and waits until it runs.
    pub(crate) async fn pod(&self, name: &str, image: &str, annotations: &[(&str, &str)]) -> pod::Pod {
        let annotations: Value =
            annotations.iter().map(|(key, value)| (format!("hooks.stillpoint.dev/{key}"), json!(value))).collect();
        let waiting = if image.contains("pause") { json!(null) } else { json!(["sh", "-c", "sleep 3600 & wait"]) };
        let made = json!({
            "metadata": {"name": name, "annotations": annotations},
            "spec": {
                "nodeName": "127.0.0.1", "hostNetwork": true, "terminationGracePeriodSeconds": 0,
                "automountServiceAccountToken": false,
                "containers": [{"name": "main", "image": image, "imagePullPolicy": "Never", "command": waiting}],
            },
        });
        let made: Pod = serde_json::from_value(made).unwrap();
        eventually("the namespace has its service account", async || {
            match self.pods().create(&PostParams::default(), &made).await {
                Err(kube::Error::Api(status)) if status.code == 403 => false,
                created => created.map(|_| true).unwrap(),
            }
        })
        .await;
        let mut found = None;
        eventually(&format!("pod {name} runs"), async || {
            let pod = pod::Pod::of(&self.pods().get(name).await.unwrap());
            let runs = pod.state == pod::State::Running;
            found = Some(pod);
            runs
        })
        .await;
        found.unwrap()
    }

    pub(crate) async fn busybox(&self, name: &str, annotations: &[(&str, &str)]) -> pod::Pod {
        self.pod(name, "localhost/busybox:1", annotations).await
    }

    /// Deletes a pod, and waits until nothing of it runs: kubelet takes a command to any pod of the name that does.
    pub(crate) async fn delete(&self, name: &str) {
        let uid = self.pods().get(name).await.unwrap().metadata.uid.unwrap();
        self.pods().delete(name, &DeleteParams::default().grace_period(0)).await.unwrap();
        eventually(&format!("pod {name} is gone"), async || self.pods().get_opt(name).await.unwrap().is_none()).await;
        eventually(&format!("pod {name} has ended"), async || pods::processes(&uid).is_err()).await;
    }

    pub(crate) fn start(&self, plan: Plan, limits: Limits) -> Running {
        run::start(plan, Arc::new(Kubernetes::new(self.client.clone())), limits, None)
    }

    /// What a shell script prints in a pod; it must succeed.
    pub(crate) async fn shell(&self, pod: &pod::Pod, script: &str) -> String {
        let argv = ["/bin/sh", "-c", script].map(ToOwned::to_owned);
        let command = exec::Command { pod: &pod.id, container: "main", argv: &argv, input: false };
        let mut process = Kubernetes::new(self.client.clone()).start(command).await.unwrap();
        let (mut stdout, _stderr) = process.outputs().unwrap();
        let mut text = String::new();
        stdout.read_to_string(&mut text).await.unwrap();
        assert_eq!(process.wait().await, Ok(Exit::Code(0)), "{script}: {text}");
        text.trim().to_owned()
    }

    fn folder(&self) -> &Path {
        self.kubeconfig.parent().unwrap()
    }

    /// Kills the API server; the pods go on.
    pub(crate) fn kill_api_server(&self) {
        let pid = std::fs::read_to_string(self.folder().join("pid/kube-apiserver")).unwrap();
        assert!(Command::new("kill").args(["-KILL", pid.trim()]).status().unwrap().success());
    }

    /// Starts the API server if it does not run, and waits until it serves.
    pub(crate) fn start_api_server(&self) {
        let up = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/cluster/up.sh");
        let port = std::fs::read_to_string(self.folder().join("port")).unwrap();
        let status = Command::new(up).arg(self.folder()).arg(port.trim()).stdout(Stdio::null()).status().unwrap();
        assert!(status.success());
    }
}
