//! `stillpoint hooks`: what is found in manifests, and what would be run in pods, said with which exit code.

#![allow(clippy::unwrap_used)]

mod common;

use std::fs;

use common::{
    cluster::{create, create_namespace, embedded, patch},
    shell::User,
};
use serde_json::json;

const CLEAN: &str = r#"
apiVersion: apps/v1
kind: StatefulSet
metadata: {name: db, namespace: shop}
spec:
  template:
    metadata: {annotations: {hooks.stillpoint.dev/preset: postgresql}}
    spec: {containers: [{name: db, image: postgres}]}
---
apiVersion: v1
kind: ConfigMap
metadata: {name: settings}
"#;

const FREEZING: &str = r#"
apiVersion: v1
kind: Pod
metadata:
  name: web
  annotations:
    pre.hook.backup.velero.io/command: '["/sbin/fsfreeze", "--freeze", "/data"]'
    post.hook.backup.velero.io/command: '["/sbin/fsfreeze", "--unfreeze", "/data"]'
spec: {containers: [{name: web, image: web}]}
"#;

fn file(user: &User, name: &str, text: &str) -> String {
    let path = user.path(name);
    fs::write(&path, text).unwrap();
    path
}

#[test]
fn the_exit_code_of_a_lint_tells_clean_from_warnings_from_errors() {
    let user = User::new();
    let clean = file(&user, "clean.yaml", CLEAN);
    let freezing = file(&user, "freezing.yaml", FREEZING);
    let broken = file(&user, "broken.yaml", &CLEAN.replace("postgresql", "postgres"));
    let text = user.prints(0, &["hooks", "lint", "-f", &clean]);
    assert_eq!(text, "0 errors, 0 warnings in the hooks of 1 pod\n");
    let text = user.prints(3, &["hooks", "lint", "-f", &clean, "-f", &freezing]);
    assert!(text.contains("Pod default/web: pre: calls fsfreeze") && text.contains("0 errors, 2 warnings"), "{text}");
    let text = user.prints(1, &["hooks", "lint", "-f", &broken, "-f", &freezing]);
    assert!(text.starts_with("error   StatefulSet shop/db: hooks.stillpoint.dev/preset: there is no preset"), "{text}");
}

#[test]
fn findings_are_printed_for_programs_too() {
    let user = User::new();
    let clean = file(&user, "clean.yaml", CLEAN);
    assert_eq!(user.reads(&["hooks", "lint", "-f", &clean, "-o", "json"]), json!([]));
    let freezing = file(&user, "freezing.yaml", FREEZING);
    let findings: serde_json::Value =
        serde_json::from_str(&user.prints(3, &["hooks", "lint", "-f", &freezing, "-o", "json"])).unwrap();
    assert_eq!((&findings[0]["severity"], &findings[0]["place"]), (&json!("warning"), &json!("Pod default/web")));
}

#[test]
fn a_file_that_is_no_manifest_is_a_usage_error_by_name() {
    let user = User::new();
    let broken = file(&user, "broken.yaml", "a: [");
    user.is_refused(2, &["broken.yaml is no valid YAML"], &["hooks", "lint", "-f", &broken]);
    let wrong = file(&user, "wrong.yaml", "kind: Pod\nmetadata: {name: x}\nspec: {containers: 3}\n");
    user.is_refused(2, &["wrong.yaml: Pod default/x is no valid Pod"], &["hooks", "lint", "-f", &wrong]);
}

/// A pod of a cluster without nodes, which says that it runs.
async fn running_pod(client: &kube::Client, name: &str, annotations: serde_json::Value) {
    let pods = "/api/v1/namespaces/shop/pods";
    let pod = json!({
        "metadata": {"name": name, "labels": {"app": name}, "annotations": annotations},
        "spec": {"containers": [{"name": "main", "image": "main"}]},
    });
    create(client, pods, &pod).await;
    patch(client, &format!("{pods}/{name}/status"), &json!({"status": {"phase": "Running"}})).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dry_run_shows_what_would_run_in_which_order_and_runs_nothing() {
    let cluster = embedded().await;
    let user = User::new();
    let user = user.with("KUBECONFIG", "kubeconfig");
    fs::write(user.path("kubeconfig"), cluster.server.kubeconfig()).unwrap();
    create_namespace(&cluster.client, "shop").await;
    let db = json!({
        "hooks.stillpoint.dev/pre.shell": "echo to rest",
        "hooks.stillpoint.dev/hold.command": "/bin/hold",
        "hooks.stillpoint.dev/post.command": "/bin/back",
        "hooks.stillpoint.dev/post.timeout": "1m30s",
    });
    running_pod(&cluster.client, "db", db).await;
    running_pod(&cluster.client, "slip", json!({"hooks.stillpoint.dev/pree.command": "/x"})).await;
    let run = |more: &[&'static str]| [&["hooks", "run", "-n", "shop"], more].concat();
    tokio::task::spawn_blocking(move || {
        let shown = user.prints(0, &run(&["-l", "app=db", "--dry-run"]));
        let rows: Vec<Vec<_>> = shown.lines().map(|line| line.split_whitespace().collect()).collect();
        let hooks: Vec<_> = rows.iter().filter(|row| row.get(1) == Some(&"shop/db/main")).map(|row| row[2]).collect();
        assert_eq!(hooks, ["pre", "hold", "post"], "{shown}");
        assert!(shown.contains("1m30s") && shown.ends_with("nothing was run\n"), "{shown}");
        let shown = user.prints(0, &run(&["-l", "app=db", "--dry-run", "--phase", "post"]));
        assert!(shown.contains("/bin/back") && !shown.contains("/bin/hold"), "{shown}");
        let plan: serde_json::Value =
            serde_json::from_str(&user.prints(1, &run(&["--dry-run", "-o", "json"]))).unwrap();
        assert!(plan["pods"][1]["fault"].as_str().unwrap().contains("pree.command"), "{plan:#}");

        // this server runs nothing: as if the pod were gone, so that nothing is owed to it
        let ran = user.prints(1, &run(&["-l", "app=db"]));
        assert!(ran.contains("shop/db/main: pre: failed") && ran.contains("shop/db/main: post: skipped"), "{ran}");
        assert!(ran.contains("hold: skipped: the hook pre failed before"), "{ran}");
        assert!(ran.contains("a backup would not snapshot the volumes of shop/db"), "{ran}");
        assert_eq!(user.prints(0, &["hooks", "run", "--owed"]), "0 hooks started, 0 failed\n");
        user.is_refused(1, &["there is no pod in the namespace shop that matches app=none"], &run(&["-l", "app=none"]));
    })
    .await
    .unwrap();
}
