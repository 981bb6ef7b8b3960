//! Agents as `install` puts them on a real node: volumes go from their pods straight to object storage, and whatever is
//! killed on the way leaves nothing frozen.

#![allow(clippy::unwrap_used)]

mod common;

use std::{
    io::{Seek, Write},
    os::unix::process::ExitStatusExt,
    process::{Command, Stdio},
    time::Duration,
};

use common::{
    agents::{Installed, PODS, with_agents},
    cluster::{ask, get},
    volumes::{IDLE, claim, file, pod, writes},
};
use http::Method;
use rand::RngExt;
use serde_json::{Value, json};
use stillpoint_catalog as catalog;
use stillpoint_repository::signing::Trust;
use stillpoint_test_support::{loop_mount::LoopMount, require};

const SKIPS_THE_CACHE: &str = "
version: v1
volumePolicies:
- conditions: {claims: [cache], volumeTypes: [local]}
  action: {type: skip}
- conditions: {capacity: ',1Gi'}
  action: {type: fs-backup, parameters: {method: precopy}}";

#[tokio::test(flavor = "multi_thread")]
async fn volumes_go_from_the_nodes_agent_to_object_storage() {
    let (Some(kind), Some(_curl)) = (require::loop_device("ext4"), require::program("curl")) else { return };
    with_agents(async |installed| {
        let (a, real) = (LoopMount::new(kind), &installed.real);
        std::fs::write(a.path().join("file"), "content").unwrap();
        claim(real, "a", &a.path()).await;
        let hooks = [("pre.hook.backup.velero.io/command", r#"["/bin/sh","-c","echo rest >/a/rest"]"#)];
        pod(real, "writer", &["a"], IDLE, &hooks).await;
        // no pod mounts it, and nobody wants it
        claim(real, "cache", &a.path()).await;
        let mut policies = tempfile::NamedTempFile::new().unwrap();
        writeln!(policies, "{SKIPS_THE_CACHE}").unwrap();
        let policies = ["--volume-policies", policies.path().to_str().unwrap(), "-o", "json"];
        let backup = installed.user.reads(&[&installed.create("first")[..], &policies].concat());
        assert_eq!(backup["problems"], json!([]), "{backup}");
        assert_eq!(backup["volumes"][1]["data"], json!("leftOut"), "{backup}");
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

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Killed {
    Coordinator,
    Agent,
    Pod,
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_is_killed_at_any_instant_nothing_stays_frozen_and_the_next_backup_works() {
    let Some(kind) = require::loop_device("ext4") else { return };
    with_agents(async |installed| {
        let (a, real) = (LoopMount::new(kind), &installed.real);
        std::fs::write(a.path().join("file"), "content").unwrap();
        claim(real, "a", &a.path()).await;
        pod(real, "holder", &["a"], IDLE, &[]).await;
        let repository = installed.repository().await;
        let began = std::time::Instant::now();
        installed.user.prints(0, &installed.create("whole"));
        let whole = began.elapsed();
        for (kill, who) in [Killed::Agent, Killed::Pod, Killed::Coordinator].repeat(3).into_iter().enumerate() {
            let name = format!("killed-{kill}");
            let mut backup = installed.user.command(&installed.create(&name));
            let mut backup = backup.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
            tokio::time::sleep(whole.mul_f64(rand::rng().random_range(0.2..0.9))).await;
            match who {
                Killed::Coordinator => backup.kill().unwrap(),
                Killed::Agent => {
                    for pid in Installed::agent_pids() {
                        Command::new("kill").args(["-9", &pid.to_string()]).status().unwrap();
                    }
                }
                Killed::Pod => {
                    let pods = get(&real.client, PODS).await;
                    let agent = pods["items"][0]["metadata"]["name"].as_str().unwrap();
                    let path = format!("{PODS}/{agent}?gracePeriodSeconds=0");
                    let _ = ask(&real.client, Method::DELETE, &path, &Value::Null).await;
                }
            }
            writes(a.path().join("after"), Duration::from_secs(1)).await;
            // complete, before the kill or with the agent that took its place, or without the volume by name: never half
            let ended = tokio::task::spawn_blocking(move || backup.wait_with_output().unwrap());
            installed.agent_is_ready().await;
            let ended = ended.await.unwrap();
            let (code, killed) = (ended.status.code(), ended.status.signal().is_some());
            let may_end = matches!(code, Some(0 | 1 | 3)) || killed && who == Killed::Coordinator;
            assert!(may_end, "{name}: {code:?} {}", String::from_utf8_lossy(&ended.stderr));
            let listed = catalog::list(&repository, &Trust::default()).await.unwrap();
            let is_there = listed.iter().any(|entry| entry.name == name);
            assert!(
                !is_there || code == Some(3) || file(&repository, &name, "a", "file").await.is_some(),
                "{name} is half"
            );
        }
        let next = installed.user.reads(&[&installed.create("next")[..], &["-o", "json"]].concat());
        assert_eq!(next["problems"], json!([]), "{next}");
    })
    .await;
}
