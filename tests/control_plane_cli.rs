//! The command line with a real kube-apiserver on both sides: backed up here, proven there.

#![allow(clippy::unwrap_used)]

mod common;

use std::fs;

use common::{
    cluster::{ask, config_map, config_maps, create, create_namespace, eventually, secrets},
    pairs::definition,
    shell::{Scratch, User},
};
use http::Method;
use serde_json::{Value, json};
use stillpoint_test_support::require;

#[tokio::test(flavor = "multi_thread")]
async fn a_backup_of_a_real_server_is_proven_on_another_and_nothing_is_left_running() {
    let Some(assets) = require::env("KUBEBUILDER_ASSETS") else { return };
    let user = User::new().with("KUBEBUILDER_ASSETS", &assets);
    let temporary = user.path("tmp");
    fs::create_dir(&temporary).unwrap();
    let user = user.with("TMPDIR", &temporary);
    user.prints(0, &["key", "generate"]);
    user.prints(0, &["repo", "init"]);
    let source = Scratch::start_kind(&user, "control-plane", "kubeconfig").await;
    let client = &source.client;
    create_namespace(client, "shop").await;
    create(client, &config_maps("shop"), &config_map("web", "blue")).await;
    create(client, &secrets("shop"), &json!({"metadata": {"name": "db"}, "stringData": {"p": "hunter2"}})).await;
    let definitions = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions";
    create(client, definitions, &definition("shop.example.com", "orders")).await;
    let orders = "/apis/shop.example.com/v1/namespaces/shop/orders";
    let served = || async { ask(client, Method::GET, orders, &Value::Null).await.is_ok() };
    eventually("orders are served", served).await;
    let order = json!({"apiVersion": "shop.example.com/v1", "kind": "Order", "metadata": {"name": "one"}, "spec": 1});
    create(client, orders, &order).await;

    let on = ["--kubeconfig", &source.kubeconfig];
    user.prints(0, &[&["backup", "create", "shop-1", "--include-namespaces", "shop"][..], &on].concat());
    let verdict = user.reads(&["verify", "shop-1", "--scratch", "control-plane", "-o", "json"]);
    assert_eq!((&verdict["result"], &verdict["scratch"]), (&json!("proven"), &json!("control-plane")), "{verdict}");
    assert!(verdict["objectsRestored"].as_u64().unwrap() >= 5, "{verdict}");
    assert!(user.prints(0, &["backup", "get"]).contains("Proven"));

    assert_eq!(source.interrupt(), Some(0));
    let left: Vec<_> = fs::read_dir(&temporary).unwrap().map(|entry| entry.unwrap().path()).collect();
    assert!(left.is_empty(), "{left:?}");
}
