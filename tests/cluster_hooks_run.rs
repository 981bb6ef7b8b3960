//! `stillpoint hooks run` as an operator runs it, in pods of a real node: shown, run, and killed.

#![allow(clippy::unwrap_used)]

mod common;

use std::{fs, process::Stdio};

use common::{
    cluster::{Real, ask, eventually, get, on_real_cluster},
    shell::User,
    volumes::{NODE, NODE_NAME},
};
use http::Method;
use kube::Client;
use serde_json::{Value, json};
use stillpoint_hooks::pods;

/// A pod with hooks, of whose files this host sees what its hooks did.
struct Pod {
    uid: String,
}

impl Pod {
    async fn start(real: &Real, name: &str, annotations: Value) -> Self {
        let pods = format!("/api/v1/namespaces/{}/pods", real.namespace);
        let pod = json!({
            "metadata": {"name": name, "labels": {"app": name}, "annotations": annotations},
            "spec": {
                "nodeName": NODE_NAME, "hostNetwork": true, "terminationGracePeriodSeconds": 0,
                "automountServiceAccountToken": false,
                "containers": [{
                    "name": "main", "image": "localhost/busybox:1", "imagePullPolicy": "Never",
                    "command": ["sh", "-c", "sleep 3600 & wait"],
                }],
            },
        });
        let (client, path): (&Client, _) = (&real.client, pods.as_str());
        // the namespace has its service account a moment after it is made
        eventually("the pod is made", || async { ask(client, Method::POST, path, &pod).await.is_ok() }).await;
        let path = format!("{pods}/{name}");
        let path = path.as_str();
        eventually("the pod runs", || async { get(client, path).await["status"]["phase"] == "Running" }).await;
        let uid = get(client, path).await["metadata"]["uid"].as_str().unwrap().to_owned();
        Self { uid }
    }

    /// What its hooks wrote down.
    fn log(&self) -> String {
        let mut processes = pods::processes(&self.uid).unwrap().into_iter();
        let log = processes.find_map(|pid| fs::read_to_string(format!("/proc/{pid}/root/tmp/log")).ok());
        log.unwrap_or_default()
    }
}

fn operator() -> User {
    User::new().with("KUBECONFIG", &std::env::var(NODE).unwrap())
}

const HOOKS: [(&str, &str); 3] =
    [("pre", "echo pre >>/tmp/log"), ("hold", "echo ready; read line"), ("post", "echo post >>/tmp/log")];

fn annotations() -> Value {
    HOOKS.iter().map(|(kind, script)| (format!("hooks.stillpoint.dev/{kind}.shell"), json!(script))).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn hooks_are_shown_then_run_and_a_failure_is_the_exit_code() {
    on_real_cluster(NODE, async |real| {
        let (user, namespace) = (operator(), real.namespace.as_str());
        let db = Pod::start(&real, "db", annotations()).await;
        let broken =
            json!({"hooks.stillpoint.dev/pre.shell": "echo no >&2; exit 3", "hooks.stillpoint.dev/post.shell": "true"});
        let _broken = Pod::start(&real, "broken", broken).await;
        let _bare = Pod::start(&real, "bare", json!({})).await;

        let shown = user.prints(0, &["hooks", "run", "-n", namespace, "-l", "app=db", "--dry-run"]);
        let at = |text: &str| shown.find(text).unwrap_or_else(|| panic!("{text}: {shown}"));
        assert!(
            at("echo pre") < at("echo ready")
                && at("echo ready") < at("echo post")
                && shown.ends_with("nothing was run\n")
        );
        assert_eq!(db.log(), "");

        let ran = user.prints(0, &["hooks", "run", "-n", namespace, "-l", "app=db", "--window", "100ms"]);
        for hook in ["pre", "hold", "post"] {
            assert!(ran.contains(&format!("{namespace}/db/main: {hook}: succeeded")), "{ran}");
        }
        assert!(ran.ends_with("3 hooks started, 0 failed\n"), "{ran}");
        assert_eq!(db.log(), "pre\npost\n");
        user.prints(0, &["hooks", "run", "-n", namespace, "-l", "app=db", "--phase", "post"]);
        assert_eq!(db.log(), "pre\npost\npost\n");

        let failed = user.prints(1, &["hooks", "run", "-n", namespace]);
        assert!(failed.contains("pre: failed: exit code 3") && failed.contains("    no\n"), "{failed}");
        assert!(failed.contains(&format!("would not snapshot the volumes of {namespace}/broken")), "{failed}");
        assert_eq!(db.log(), "pre\npost\npost\npre\npost\n");
        assert_eq!(user.prints(0, &["hooks", "run", "-n", namespace, "-l", "app=bare"]), "0 hooks started, 0 failed\n");
        user.is_refused(1, &["there is no pod"], &["hooks", "run", "-n", namespace, "-l", "app=none"]);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_killed_run_owes_is_run_by_the_next_one() {
    on_real_cluster(NODE, async |real| {
        let (user, namespace) = (operator(), real.namespace.as_str());
        let db = Pod::start(&real, "db", annotations()).await;
        let arguments = ["hooks", "run", "-n", namespace, "--window", "10m"];
        let mut run = user.command(&arguments).stdout(Stdio::null()).spawn().unwrap();
        eventually("the pre hook ran", || async { db.log() == "pre\n" }).await;
        run.kill().unwrap();
        run.wait().unwrap();
        let settled = user.prints(0, &["hooks", "run", "--owed"]);
        assert!(settled.starts_with("owed by a run that was killed:\n"), "{settled}");
        assert!(settled.contains(&format!("{namespace}/db/main: post: succeeded")), "{settled}");
        assert_eq!(db.log(), "pre\npost\n");
        assert_eq!(user.prints(0, &["hooks", "run", "--owed"]), "0 hooks started, 0 failed\n");

        let mut run = user.command(&arguments).stdout(Stdio::null()).spawn().unwrap();
        eventually("the pre hook ran", || async { db.log() == "pre\npost\npre\n" }).await;
        run.kill().unwrap();
        run.wait().unwrap();
        // an ordinary run begins with what is owed, in whatever namespace
        let ran = user.reads(&["hooks", "run", "-n", namespace, "-l", "app=db", "--phase", "pre", "-o", "json"]);
        assert_eq!((&ran["owed"][0]["hook"], &ran["results"][0]["hook"]), (&json!("post"), &json!("pre")), "{ran:#}");
        assert_eq!(db.log(), "pre\npost\npre\npost\npre\n");
    })
    .await;
}
