//! Agents as `install` puts them on a real node: volumes go from their pods straight to object storage, and whatever is
//! killed on the way leaves nothing frozen.

#![allow(clippy::unwrap_used)]

mod common;

use std::{
    io::{Seek, Write},
    panic::{AssertUnwindSafe, resume_unwind},
    path::PathBuf,
    process::{Command, Stdio},
    time::Duration,
};

use common::{
    cluster::{Real, ask, eventually, get, on_real_cluster},
    shell::{self, User},
    volumes::{NODE, NODE_NAME, claim, pod},
};
use futures::FutureExt;
use http::Method;
use rand::RngExt;
use serde_json::{Value, json};
use stillpoint_test_support::{bucket, loop_mount::LoopMount, require};

const PODS: &str = "/api/v1/namespaces/stillpoint-system/pods";
const IDLE: &str = "sleep 3600 & wait";

/// A cluster with agents, and a user whose repository is in object storage.
struct Installed {
    real: Real,
    user: User,
    kubeconfig: String,
}

/// Runs a test in a namespace of a cluster with agents, which are removed whatever becomes of it.
async fn with_agents(test: impl AsyncFnOnce(&Installed)) {
    let (Some(kubeconfig), Some(bucket)) = (require::env(NODE), bucket::s3()) else { return };
    on_real_cluster(NODE, async |real| {
        shell::put_image_together();
        let mut user = User::new().with("STILLPOINT_REPO", &format!("{}/agents", bucket.url));
        user = user.with("AWS_ALLOW_HTTP", "true");
        for (name, value) in &bucket.variables {
            user = user.with(name, value);
        }
        let installed = Installed { real, user, kubeconfig };
        let server = installed.real.config.cluster_url.authority().unwrap().to_string();
        let image = ["--image", "localhost/stillpoint:test"];
        installed.runs(&[&["install", "--host-network", "--api-server", &server], &image[..]].concat());
        let ended = AssertUnwindSafe(async {
            installed.agent_is_ready().await;
            installed.user.prints(0, &["repo", "init"]);
            test(&installed).await;
        });
        let ended = ended.catch_unwind().await;
        installed.runs(&["uninstall", "--yes"]);
        eventually("the agents are gone", async || {
            ask(&installed.real.client, Method::GET, "/api/v1/namespaces/stillpoint-system", &Value::Null)
                .await
                .is_err()
        })
        .await;
        if let Err(panicked) = ended {
            resume_unwind(panicked);
        }
    })
    .await;
}

impl Installed {
    fn runs(&self, arguments: &[&str]) -> String {
        self.user.prints(0, &[arguments, &["--kubeconfig", &self.kubeconfig]].concat())
    }

    /// Waits for the agent, whose pod is put on the node by this test: the cluster has no scheduler.
    async fn agent_is_ready(&self) {
        let client = &self.real.client;
        eventually("the agent is ready", async || {
            let pods = get(client, PODS).await;
            let agents = pods["items"].as_array().unwrap();
            for agent in agents.iter().filter(|agent| agent["spec"]["nodeName"].is_null()) {
                let name = agent["metadata"]["name"].as_str().unwrap();
                let target = json!({"kind": "Node", "name": NODE_NAME});
                let binding =
                    json!({"apiVersion": "v1", "kind": "Binding", "metadata": {"name": name}, "target": target});
                let _ = ask(client, Method::POST, &format!("{PODS}/{name}/binding"), &binding).await;
            }
            agents.len() == 1 && is_ready(&agents[0])
        })
        .await;
    }

    fn create<'a>(&'a self, name: &'a str) -> [&'a str; 8] {
        let namespace = &self.real.namespace;
        ["backup", "create", name, "--unsigned", "--include-namespaces", namespace, "--kubeconfig", &self.kubeconfig]
    }
}

fn is_ready(pod: &Value) -> bool {
    let conditions = pod["status"]["conditions"].as_array().cloned().unwrap_or_default();
    let is_ready = |condition: &Value| condition["type"] == "Ready" && condition["status"] == "True";
    pod["metadata"]["deletionTimestamp"].is_null() && conditions.iter().any(is_ready)
}

/// The pids of the processes whose command line holds `words`.
fn pids(words: &str) -> Vec<String> {
    let found = Command::new("pgrep").args(["-f", words]).output().unwrap();
    String::from_utf8(found.stdout).unwrap().lines().map(str::to_owned).collect()
}

async fn writes(file: PathBuf) {
    let write = tokio::task::spawn_blocking(move || std::fs::write(file, "goes on").unwrap());
    tokio::time::timeout(Duration::from_secs(1), write).await.expect("it is still frozen").unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn volumes_go_from_the_nodes_agent_to_object_storage() {
    let (Some(kind), Some(_curl)) = (require::loop_device("ext4"), require::program("curl")) else { return };
    with_agents(async |installed| {
        let (a, real) = (LoopMount::new(kind), &installed.real);
        std::fs::write(a.path().join("file"), "content").unwrap();
        claim(real, "a", &a.path()).await;
        let hooks = [("pre.hook.backup.velero.io/command", r#"["/bin/sh","-c","echo rest >/a/rest"]"#)];
        pod(real, "writer", &["a"], IDLE, &hooks).await;
        let backup = installed.user.reads(&[&installed.create("first")[..], &["-o", "json"]].concat());
        assert_eq!(backup["problems"], json!([]), "{backup}");
        let held = &backup["volumes"][0]["data"]["held"];
        assert_eq!(
            (&held["level"], &held["node"], &held["method"]),
            (&json!("application"), &json!("127.0.0.1"), &json!("precopy"))
        );
        assert!(backup["windowMs"].as_f64().unwrap() > 0.0);
        let described = installed.user.prints(0, &["backup", "describe", "first"]);
        assert!(described.contains("data of 1 held") && described.contains("application"), "{described}");

        // a token of anybody else opens nothing: only the account that install made is taken
        let token = async |namespace: &str, account: &str| {
            let path = format!("/api/v1/namespaces/{namespace}/serviceaccounts/{account}/token");
            let request = json!({"spec": {"audiences": ["stillpoint-agent"]}});
            let made = ask(&real.client, Method::POST, &path, &request).await.unwrap();
            made["status"]["token"].as_str().unwrap().to_owned()
        };
        assert!(!refuses(&token("stillpoint-system", "stillpoint-client").await), "the right token is refused");
        assert!(refuses(&token(&real.namespace, "default").await), "another account's token was taken");
        assert!(refuses("nonsense"));
    })
    .await;
}

/// Whether the agent turns a token away.
fn refuses(token: &str) -> bool {
    // an empty message in gRPC's frame
    let mut message = tempfile::tempfile().unwrap();
    message.write_all(&[0; 5]).unwrap();
    message.rewind().unwrap();
    let curl = Command::new("curl")
        .args(["--silent", "--insecure", "--http2", "--include", "--max-time", "20", "-X", "POST"])
        .args(["-H", "content-type: application/grpc", "-H", "te: trailers"])
        .args(["-H", &format!("authorization: Bearer {token}"), "--data-binary", "@-"])
        .arg("https://127.0.0.1:7443/stillpoint.node.v1.Node/Describe")
        .stdin(message)
        .output()
        .unwrap();
    let answer = String::from_utf8_lossy(&curl.stdout).to_lowercase();
    assert!(answer.starts_with("http/2 200"), "{answer}");
    answer.contains("grpc-status: 7") || answer.contains("grpc-status: 16")
}

#[tokio::test(flavor = "multi_thread")]
async fn an_agent_that_is_killed_at_any_instant_leaves_nothing_frozen_and_the_next_backup_works() {
    let Some(kind) = require::loop_device("ext4") else { return };
    with_agents(async |installed| {
        let (a, real) = (LoopMount::new(kind), &installed.real);
        std::fs::write(a.path().join("file"), "content").unwrap();
        claim(real, "a", &a.path()).await;
        pod(real, "holder", &["a"], IDLE, &[]).await;
        let began = std::time::Instant::now();
        installed.user.prints(0, &installed.create("whole"));
        let whole = began.elapsed();
        for kill in 0..6 {
            let name = format!("killed-{kill}");
            let mut backup = installed.user.command(&installed.create(&name));
            let backup = backup.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
            tokio::time::sleep(whole.mul_f64(rand::rng().random_range(0.2..0.9))).await;
            if kill % 2 == 0 {
                for pid in pids("^stillpoint agent") {
                    Command::new("kill").args(["-9", &pid]).status().unwrap();
                }
            } else {
                let pods = get(&real.client, PODS).await;
                let agent = pods["items"][0]["metadata"]["name"].as_str().unwrap();
                let path = format!("{PODS}/{agent}?gracePeriodSeconds=0");
                let _ = ask(&real.client, Method::DELETE, &path, &Value::Null).await;
            }
            writes(a.path().join("after")).await;
            // complete before the kill, or without the volume by name: never half
            let ended = tokio::task::spawn_blocking(move || backup.wait_with_output().unwrap()).await.unwrap();
            let code = ended.status.code();
            assert!(matches!(code, Some(0 | 1 | 3)), "{name}: {code:?} {}", String::from_utf8_lossy(&ended.stderr));
            installed.agent_is_ready().await;
        }
        let next = installed.user.reads(&[&installed.create("next")[..], &["-o", "json"]].concat());
        assert_eq!(next["problems"], json!([]), "{next}");
    })
    .await;
}
