//! What a backup that is under way shows of itself: whom it waits for, and how far its volumes are.

#![allow(clippy::unwrap_used)]

mod common;

use std::{
    fs,
    process::{Child, Command, Stdio},
};

use common::{
    cluster::{Real, create, eventually, on_real_cluster, patch},
    shell::User,
    volumes::{Lab, NODE, NODE_NAME, claim, kubelet_root, pod},
};
use serde_json::json;
use stillpoint_agent::{Access, BackupRequest, Progress};
use stillpoint_api::{
    Scope,
    installation::{AUTHORITY, AUTHORITY_KEY, CLIENT_ACCOUNT},
};
use stillpoint_deploy::Certificate;
use stillpoint_test_support::{bucket, loop_mount::LoopMount, require};
use tokio::sync::watch;

const IDLE: &str = "sleep 3600 & wait";

/// A process that ends with the test.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn spawn(command: &mut Command) -> Running {
    Running(command.stdin(Stdio::null()).stdout(Stdio::null()).spawn().unwrap())
}

/// An agent of the node as a process of this host, and in the cluster what callers look for.
async fn agent(real: &Real, user: &User, kubeconfig: &str) -> Running {
    let Real { client, namespace, .. } = real;
    let certificate = Certificate::new(&namespace.parse().unwrap()).unwrap();
    let objects = format!("/api/v1/namespaces/{namespace}");
    let authority = json!({"metadata": {"name": AUTHORITY}, "data": {AUTHORITY_KEY: certificate.authority}});
    create(client, &format!("{objects}/configmaps"), &authority).await;
    create(client, &format!("{objects}/serviceaccounts"), &json!({"metadata": {"name": CLIENT_ACCOUNT}})).await;
    let (shown, key) = (user.path("tls.crt"), user.path("tls.key"));
    fs::write(&shown, &certificate.certificate).unwrap();
    fs::write(&key, &certificate.key).unwrap();
    let mut command = user.command(&["agent", "--node-name", NODE_NAME, "--namespace", namespace]);
    command.args(["--kubeconfig", kubeconfig, "--tls-cert", &shown, "--tls-key", &key]);
    command.arg("--kubelet-root").arg(kubelet_root());
    command.args(["--journal", &user.path("journal"), "--spool", &user.path("spool")]);
    let agent = spawn(&mut command);
    // its address is the node's, where the process listens
    pod(real, "agent", &[], IDLE, &[]).await;
    let labels = json!({"app.kubernetes.io/name": "stillpoint", "app.kubernetes.io/component": "agent"});
    patch(client, &format!("{objects}/pods/agent"), &json!({"metadata": {"labels": labels}})).await;
    eventually("the agent listens", async || std::net::TcpStream::connect("127.0.0.1:7443").is_ok()).await;
    agent
}

#[tokio::test(flavor = "multi_thread")]
async fn a_backup_that_waits_for_another_says_so_wherever_it_is_asked_for() {
    let (Some(ext4), Some(kubeconfig), Some(bucket)) = (require::loop_device("ext4"), require::env(NODE), bucket::s3())
    else {
        return;
    };
    on_real_cluster(NODE, async |real| {
        let a = LoopMount::new(ext4);
        let user = bucket.variables.iter().fold(User::new(), |user, (name, value)| user.with(name, value));
        let user = user.with("STILLPOINT_REPO", &format!("{}/queue", bucket.url)).with("AWS_ALLOW_HTTP", "true");
        user.prints(0, &["repo", "init"]);
        let _agent = agent(&real, &user, &kubeconfig).await;
        claim(&real, "a", &a.path()).await;
        let wait = r#"["/bin/sh","-c","until [ -e /a/go ]; do sleep 0.1; done"]"#;
        let hooks = [("pre.hook.backup.velero.io/command", wait), ("pre.hook.backup.velero.io/timeout", "2m")];
        pod(&real, "holder", &["a"], IDLE, &hooks).await;

        let way = ["--kubeconfig", &kubeconfig, "--agent-namespace", &real.namespace];
        let asked = |verb: &'static str, name: &'static str| [&["backup", verb, name][..], &way].concat();
        let scope = [
            "--unsigned",
            "--include-namespaces",
            &real.namespace,
            "--include-resources",
            "pods,persistentvolumeclaims",
        ];
        let backup = |name| spawn(&mut user.command(&[&asked("create", name)[..], &scope].concat()));
        let says = async |name, direct: bool, words: &str| {
            let arguments = [&asked("describe", name)[..], if direct { &["--direct"] } else { &[] }].concat();
            eventually(&format!("{name}: {words}"), async || {
                let said = user.command(&arguments).output().unwrap();
                String::from_utf8(said.stdout).unwrap().contains(words)
            })
            .await;
        };
        let mut one = backup("one");
        says("one", false, "its own").await;
        let mut two = backup("two");
        says("two", true, "after one").await;
        let two_now = user.reads(&[&asked("describe", "two")[..], &["-o", "json"]].concat());
        let node = &two_now["nodes"][0];
        let volumes = json!([format!("{}/a", real.namespace)]);
        assert_eq!((&node["volumes"], &node["behind"]), (&volumes, &json!(["one"])), "{two_now}");
        user.is_refused(1, &["there is no backup \"three\""], &asked("describe", "three"));

        fs::write(a.path().join("go"), "").unwrap();
        for backup in [&mut one, &mut two] {
            let pid = backup.0.id();
            eventually("the backup ends", async || backup_ended(pid)).await;
            assert_eq!(backup.0.wait().unwrap().code(), Some(0));
        }
        assert!(user.prints(0, &asked("describe", "two")).contains("Complete"));
    })
    .await;
}

/// Whether a child is a zombie.
fn backup_ended(pid: u32) -> bool {
    fs::read_to_string(format!("/proc/{pid}/stat")).is_ok_and(|stat| stat.contains(") Z "))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_volume_that_is_stored_shows_how_far_it_is() {
    let Some(ext4) = require::loop_device("ext4") else { return };
    on_real_cluster(NODE, async |real| {
        let (a, lab) = (LoopMount::new(ext4), Lab::new().await);
        // more than waits in memory for its upload
        for number in 0..120 {
            let bytes = rand::random_iter().take(1 << 20).collect::<Vec<u8>>();
            fs::write(a.path().join(number.to_string()), bytes).unwrap();
        }
        claim(&real, "a", &a.path()).await;
        pod(&real, "holder", &["a"], IDLE, &[]).await;
        // its files are read when it is stored, for as long as the upload takes
        let mut volumes = lab.volumes(&real.client, Some("live"), None);
        volumes.access = Access { limit_upload: Some(10_000.try_into().unwrap()), ..volumes.access };
        let (progress, mut seen) = watch::channel(Progress::default());
        let notes = tokio::spawn(async move {
            let mut notes = Vec::new();
            while seen.changed().await.is_ok() {
                notes.extend(seen.borrow_and_update().nodes.get(NODE_NAME).cloned());
            }
            notes
        });
        let scope = Scope { include_namespaces: vec![real.namespace.clone()], ..Scope::default() };
        let request = BackupRequest { volumes: Some(volumes), ..BackupRequest::new("one", "test", scope) };
        let backup = stillpoint_agent::create(real.client.clone(), &lab.repository, &request, None, progress);
        Box::pin(backup).await.unwrap();
        let phase = format!("storing {}/a: ", real.namespace);
        let notes = notes.await.unwrap();
        let files = |note: &String| note.strip_prefix(&phase)?.split(' ').next()?.parse::<u64>().ok();
        let files: Vec<_> = notes.iter().filter_map(files).collect();
        assert!(files.is_sorted() && files.last() > Some(&0), "{notes:?}");
    })
    .await;
}
