//! `stillpoint hooks`: what is found in manifests, said with which exit code.

#![allow(clippy::unwrap_used)]

mod common;

use std::fs;

use common::shell::User;
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
