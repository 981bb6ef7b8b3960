//! A second node of the cluster, laid out by the test on the same machine: a Node and pods that no kubelet runs, with
//! the processes, cgroups and mounts that one would have made, and an agent of its own.
//!
//! It is reached by the loopback address of the other family than the first one's.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::Duration,
};

use http::Method;
use k8s_openapi::ByteString;
use serde_json::{Value, json};
use stillpoint_test_support::require::{self, Freezer};
use tempfile::TempDir;
use tokio::task::JoinHandle;

use super::{
    agents::{Installed, PODS},
    cluster::{ask, create, eventually, get, uuid},
};

const ADDRESS: &str = "::1";
const STATUS: &str = "Running";

/// The node; dropping it ends its processes.
pub(crate) struct SecondNode {
    pub(crate) name: String,
    folder: TempDir,
    cgroups: PathBuf,
    kubeconfig: String,
    agent: Option<Child>,
    containers: Vec<(Child, PathBuf)>,
    heart: JoinHandle<()>,
}

impl SecondNode {
    /// Makes the node, and has the agent that the DaemonSet wants on it run as a process of this machine; none where the
    /// test is to be skipped.
    pub(crate) async fn start(installed: &Installed) -> Option<Self> {
        let cgroups = require::cgroup(Freezer::V2)?;
        let client = &installed.real.client;
        let name = format!("{}-b", installed.real.namespace);
        let labels = json!({"kubernetes.io/os": "linux", "kubernetes.io/hostname": name});
        create(client, "/api/v1/nodes", &json!({"metadata": {"name": name, "labels": labels}})).await;
        let heart = tokio::spawn(beat(client.clone(), format!("/api/v1/nodes/{name}/status")));
        let folder = tempfile::tempdir().unwrap();
        let secret = get(client, "/api/v1/namespaces/stillpoint-system/secrets/stillpoint-agent-tls").await;
        for file in ["tls.crt", "tls.key"] {
            let ByteString(content) = serde_json::from_value(secret["data"][file].clone()).unwrap();
            fs::write(folder.path().join(file), content).unwrap();
        }
        let kubeconfig = installed.kubeconfig.clone();
        let mut node = Self { name, folder, cgroups, kubeconfig, agent: None, containers: Vec::new(), heart };
        node.start_agent();
        eventually("the second node's agent is ready", async || node.binds_agent(client).await).await;
        Some(node)
    }

    /// Binds the agent's pod to the node, and says of it what a kubelet would.
    async fn binds_agent(&self, client: &kube::Client) -> bool {
        let pods = get(client, PODS).await;
        let wanted = json!({"key": "metadata.name", "operator": "In", "values": [self.name]});
        let term = "/spec/affinity/nodeAffinity/requiredDuringSchedulingIgnoredDuringExecution/nodeSelectorTerms/0";
        let is_ours = |pod: &&Value| {
            let fields = pod.pointer(&format!("{term}/matchFields/0"));
            fields == Some(&wanted) && pod["metadata"]["deletionTimestamp"].is_null()
        };
        let Some(pod) = pods["items"].as_array().unwrap().iter().find(is_ours) else { return false };
        let name = pod["metadata"]["name"].as_str().unwrap();
        if pod["spec"]["nodeName"].is_null() {
            let target = json!({"kind": "Node", "name": self.name});
            let binding = json!({"apiVersion": "v1", "kind": "Binding", "metadata": {"name": name}, "target": target});
            create(client, &format!("{PODS}/{name}/binding"), &binding).await;
        }
        let status = json!({"phase": STATUS, "podIP": ADDRESS, "podIPs": [{"ip": ADDRESS}],
            "conditions": [{"type": "Ready", "status": "True"}]});
        let set = ask(client, Method::PATCH, &format!("{PODS}/{name}/status"), &json!({"status": status})).await;
        set.is_ok() && std::net::TcpStream::connect((ADDRESS, 7443)).is_ok()
    }

    /// Starts the agent, which cleans up after an earlier one.
    pub(crate) fn start_agent(&mut self) {
        let at = |name: &str| self.folder.path().join(name);
        fs::create_dir_all(at("kubelet")).unwrap();
        let mut command = Command::new(env!("CARGO_BIN_EXE_stillpoint"));
        command.args(["agent", "--node-name", &self.name, "--listen", "[::1]:7443"]);
        command.args(["--kubeconfig", &self.kubeconfig]);
        command.arg("--tls-cert").arg(at("tls.crt")).arg("--tls-key").arg(at("tls.key"));
        command.arg("--kubelet-root").arg(at("kubelet")).arg("--spool").arg(at("spool"));
        command.arg("--journal").arg(at("journal"));
        let log = fs::File::create(at("log")).unwrap();
        self.agent = Some(command.stdout(Stdio::null()).stderr(log).spawn().unwrap());
        let ready = || std::net::TcpStream::connect((ADDRESS, 7443)).is_ok();
        let deadline = std::time::Instant::now() + Duration::from_secs(60);
        while !ready() {
            assert!(std::time::Instant::now() < deadline, "{}", fs::read_to_string(at("log")).unwrap());
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Kills the agent's process, of whose end nobody is told.
    pub(crate) fn kill_agent(&mut self) {
        if let Some(mut agent) = self.agent.take() {
            agent.kill().unwrap();
            agent.wait().unwrap();
        }
    }

    /// A pod whose only container mounts the claim's directory, and does nothing.
    pub(crate) async fn pod(&mut self, installed: &Installed, name: &str, claim: &str, directory: &Path) {
        let (client, namespace) = (&installed.real.client, &installed.real.namespace);
        let path = format!("/api/v1/namespaces/{namespace}/pods");
        let mounted = self.folder.path().join("container").join(claim);
        fs::create_dir_all(&mounted).unwrap();
        let object = json!({"metadata": {"name": name}, "spec": {
            "nodeName": self.name, "terminationGracePeriodSeconds": 0, "automountServiceAccountToken": false,
            "volumes": [{"name": claim, "persistentVolumeClaim": {"claimName": claim}}],
            "containers": [{"name": "main", "image": "none", "volumeMounts": [{"name": claim, "mountPath": mounted}]}],
        }});
        let pod = create(client, &path, &object).await;
        let id = uuid();
        let cgroup = self.cgroups.join("second").join(format!("pod{}", pod["metadata"]["uid"].as_str().unwrap()));
        let container = cgroup.join(&id);
        fs::create_dir_all(&container).unwrap();
        let script = r#"echo $$ >"$1/cgroup.procs" && mount --bind "$2" "$3" && exec sleep 600"#;
        let mut command = Command::new("unshare");
        command.args(["--mount", "--propagation", "private", "sh", "-c", script, "container"]);
        let process = command.arg(&container).arg(directory).arg(&mounted).spawn().unwrap();
        let mounts = format!("/proc/{}/mountinfo", process.id());
        self.containers.push((process, cgroup));
        let is_mounted = async || {
            let table = fs::read_to_string(&mounts).unwrap();
            table.lines().any(|line| line.split(' ').nth(4).map(Path::new) == Some(&mounted))
        };
        eventually("the container has its volume", is_mounted).await;
        let status = json!({"phase": STATUS, "containerStatuses": [{
            "name": "main", "image": "none", "imageID": "", "containerID": format!("containerd://{id}"),
            "ready": true, "restartCount": 0, "state": {"running": {}}}]});
        let set = ask(client, Method::PATCH, &format!("{path}/{name}/status"), &json!({"status": status})).await;
        set.unwrap();
    }
}

/// Removes what no kubelet would end of the node of that name: the API server waits for one otherwise.
pub(crate) async fn remove(installed: &Installed, name: &str) {
    let (client, namespace) = (&installed.real.client, &installed.real.namespace);
    for folder in [PODS.to_owned(), format!("/api/v1/namespaces/{namespace}/pods")] {
        let on = format!("{folder}?fieldSelector=spec.nodeName%3D{name}");
        for pod in get(client, &on).await["items"].as_array().unwrap() {
            let path = format!("{folder}/{}?gracePeriodSeconds=0", pod["metadata"]["name"].as_str().unwrap());
            let _ = ask(client, Method::DELETE, &path, &Value::Null).await;
        }
    }
    let _ = ask(client, Method::DELETE, &format!("/api/v1/nodes/{name}"), &Value::Null).await;
}

impl Drop for SecondNode {
    fn drop(&mut self) {
        self.heart.abort();
        self.kill_agent();
        for (process, cgroup) in &mut self.containers {
            let _ = process.kill();
            let _ = process.wait();
            for folder in fs::read_dir(&*cgroup).into_iter().flatten().flatten().filter(|entry| entry.path().is_dir()) {
                let _ = fs::remove_dir(folder.path());
            }
            let _ = fs::remove_dir(&*cgroup);
        }
        let _ = fs::remove_dir(self.cgroups.join("second"));
    }
}

/// Says that the node is there, as its kubelet would.
async fn beat(client: kube::Client, path: String) {
    loop {
        let now = jiff::Timestamp::now().strftime("%Y-%m-%dT%H:%M:%SZ").to_string();
        let ready = json!({"type": "Ready", "status": "True", "lastHeartbeatTime": now});
        let _ = ask(&client, Method::PATCH, &path, &json!({"status": {"conditions": [ready]}})).await;
        tokio::time::sleep(Duration::from_secs(10)).await;
    }
}
