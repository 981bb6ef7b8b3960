//! The `control-plane` scratch cluster, from the real programs.
#![allow(clippy::unwrap_used)]

use std::{
    fs,
    io::{BufRead, BufReader, Read},
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use http::Request;
use kube::Client;
use serde_json::{Value, json};
use stillpoint_test_support::require;
use stillpoint_verifier::scratch::{ControlPlane, Programs};

const SOON: Duration = Duration::from_secs(60);
const CONFIG_MAPS: &str = "/api/v1/namespaces/default/configmaps";

/// The real programs, or `None` when the test is to be skipped.
fn programs() -> Option<Programs> {
    require::env("KUBEBUILDER_ASSETS").map(|_| Programs::find().unwrap())
}

async fn get(client: &Client, path: &str) -> Option<Value> {
    let request = Request::get(path).body(Vec::new()).unwrap();
    match client.request(request).await {
        Ok(object) => Some(object),
        Err(kube::Error::Api(status)) if status.code == 404 => None,
        Err(error) => panic!("{path}: {error}"),
    }
}

async fn create(client: &Client, path: &str, object: &Value) -> Value {
    let body = serde_json::to_vec(object).unwrap();
    client.request(Request::post(path).body(body).unwrap()).await.unwrap()
}

async fn eventually(what: &str, condition: impl AsyncFn() -> bool) {
    let deadline = Instant::now() + SOON;
    while !condition().await {
        assert!(Instant::now() < deadline, "not in time: {what}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// The command lines of the processes that run in `directory`.
fn processes_of(directory: &Path) -> Vec<String> {
    let name = directory.to_str().unwrap();
    let command_lines = fs::read_dir("/proc").unwrap().flatten().map(|process| {
        let bytes = fs::read(process.path().join("cmdline")).unwrap_or_default();
        String::from_utf8_lossy(&bytes).replace('\0', " ")
    });
    command_lines.filter(|line| line.contains(name)).collect()
}

/// A program of our own in the place of a server.
fn script(folder: &Path, name: &str, text: &str) -> PathBuf {
    let path = folder.join(name);
    fs::write(&path, text).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
    path
}

#[tokio::test]
async fn it_serves_and_leaves_nothing_behind() {
    let Some(programs) = programs() else { return };
    let cluster = ControlPlane::start(programs).await.unwrap();
    let client = cluster.client();
    let namespace = get(&client, "/api/v1/namespaces/default").await.unwrap();
    assert_eq!(namespace["metadata"]["name"], "default");

    let map = json!({"metadata": {"name": "settings"}, "data": {"colour": "blue"}});
    create(&client, CONFIG_MAPS, &map).await;
    let stored = get(&client, &format!("{CONFIG_MAPS}/settings")).await.unwrap();
    assert_eq!(stored["data"], map["data"]);

    let directory = cluster.directory().to_owned();
    assert_eq!(processes_of(&directory).len(), 3);
    cluster.shutdown().await.unwrap();
    assert_eq!(processes_of(&directory), Vec::<String>::new());
    assert!(!directory.exists());
}

#[tokio::test]
async fn dropping_it_leaves_nothing_behind() {
    let Some(programs) = programs() else { return };
    let cluster = ControlPlane::start(programs).await.unwrap();
    let directory = cluster.directory().to_owned();
    drop(cluster);
    assert_eq!(processes_of(&directory), Vec::<String>::new());
    assert!(!directory.exists());
}

#[tokio::test]
async fn an_object_whose_owner_is_gone_is_collected() {
    let Some(programs) = programs() else { return };
    let cluster = ControlPlane::start(programs).await.unwrap();
    assert!(!cluster.not_judged().iter().any(|phrase| phrase.contains("garbage")));
    let owner = json!({
        "apiVersion": "v1", "kind": "ConfigMap", "name": "gone",
        "uid": "3f1c2b0a-5d4e-4c3b-9a8f-0123456789ab",
    });
    let owned = json!({"metadata": {"name": "orphan", "ownerReferences": [owner]}});
    let free = json!({"metadata": {"name": "free"}});
    let client = cluster.client();
    create(&client, CONFIG_MAPS, &free).await;
    create(&client, CONFIG_MAPS, &owned).await;
    eventually("the orphan is deleted", async || get(&client, &format!("{CONFIG_MAPS}/orphan")).await.is_none()).await;
    assert!(get(&client, &format!("{CONFIG_MAPS}/free")).await.is_some());
    cluster.shutdown().await.unwrap();
}

#[tokio::test]
async fn a_pod_is_accepted_whether_controllers_run_or_not() {
    let Some(programs) = programs() else { return };
    let alone = Programs { kube_controller_manager: None, ..programs.clone() };
    let pod = json!({
        "metadata": {"name": "web"},
        "spec": {"containers": [{"name": "web", "image": "web:1"}]},
    });
    for programs in [programs, alone] {
        let controlled = programs.kube_controller_manager.is_some();
        let cluster = ControlPlane::start(programs).await.unwrap();
        let unjudged = cluster.not_judged().join("\n");
        assert_eq!(unjudged.contains("garbage collection"), !controlled);
        create(&cluster.client(), "/api/v1/namespaces/default/pods", &pod).await;
        cluster.shutdown().await.unwrap();
    }
}

#[tokio::test]
async fn a_program_that_is_no_api_server_is_named() {
    let programs =
        Programs { etcd: "/bin/false".into(), kube_apiserver: "/bin/false".into(), kube_controller_manager: None };
    let error = ControlPlane::start(programs).await.unwrap_err().to_string();
    assert!(error.contains("cannot tell the Kubernetes version of /bin/false"), "{error}");
}

#[tokio::test]
async fn a_server_that_ends_at_its_start_is_told_with_its_log_and_leaves_nothing() {
    let Some(etcd) = require::program("etcd") else {
        return;
    };
    let folder = tempfile::tempdir().unwrap();
    let text = "#!/bin/sh\n\
                [ \"$1\" = --version ] && echo Kubernetes v1.36.0 && exit\n\
                pwd > \"${0%/*}/directory\"\n\
                echo 'unknown flag: --colour' >&2\n\
                exit 1\n";
    let programs =
        Programs { etcd, kube_apiserver: script(folder.path(), "kube-apiserver", text), kube_controller_manager: None };
    let error = ControlPlane::start(programs).await.unwrap_err().to_string();
    assert!(error.contains("kube-apiserver ended by itself (exit status: 1)"), "{error}");
    assert!(error.ends_with("unknown flag: --colour"), "{error}");

    let directory = fs::read_to_string(folder.path().join("directory")).unwrap();
    let directory = Path::new(directory.trim());
    assert_eq!(processes_of(directory), Vec::<String>::new());
    assert!(!directory.exists());
}

#[tokio::test]
async fn a_port_lost_to_another_program_is_replaced() {
    let Some(programs) = programs() else { return };
    let folder = tempfile::tempdir().unwrap();
    let text = format!(
        "#!/bin/sh\n\
         [ -e \"${{0%/*}}/ran\" ] && exec {} \"$@\"\n\
         touch \"${{0%/*}}/ran\"\n\
         echo 'listen tcp 127.0.0.1:2379: bind: address already in use' >&2\n\
         exit 1\n",
        programs.etcd.display()
    );
    let unlucky = Programs { etcd: script(folder.path(), "etcd", &text), ..programs };
    let cluster = ControlPlane::start(unlucky).await.unwrap();
    assert!(folder.path().join("ran").exists());
    cluster.shutdown().await.unwrap();
}

/// A process that owns a control plane in `base` until its standard input ends, and its directory.
fn start_owner(base: &Path) -> (Child, PathBuf) {
    let mut owner = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "owner_of_a_control_plane", "--ignored", "--nocapture"])
        .env("TMPDIR", base)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let lines = BufReader::new(owner.stdout.take().unwrap()).lines();
    let directory = lines
        .map_while(Result::ok)
        .find_map(|line| line.split_once("directory ").map(|(_, path)| path.into()))
        .unwrap();
    (owner, directory)
}

#[tokio::test]
async fn killed_with_its_owner_it_is_swept_by_the_next_start() {
    if programs().is_none() {
        return;
    }
    let base = tempfile::tempdir().unwrap();
    let (mut owner, left) = start_owner(base.path());
    assert_eq!(processes_of(&left).len(), 3);
    owner.kill().unwrap();
    owner.wait().unwrap();
    eventually("the servers die with their owner", async || processes_of(&left).is_empty()).await;
    assert!(left.exists());

    let (mut next, directory) = start_owner(base.path());
    assert!(directory.exists());
    assert!(!left.exists());
    drop(next.stdin.take());
    next.wait().unwrap();
    assert!(!directory.exists());
}

#[tokio::test]
#[ignore = "the process that killed_with_its_owner_it_is_swept_by_the_next_start starts"]
#[allow(clippy::print_stdout)]
async fn owner_of_a_control_plane() {
    let Some(programs) = programs() else { return };
    let cluster = ControlPlane::start(programs).await.unwrap();
    println!("directory {}", cluster.directory().display());
    std::io::stdin().read_to_end(&mut Vec::new()).unwrap();
}
