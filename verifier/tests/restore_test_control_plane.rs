//! Restore tests on a real API server with a real garbage collector.
#![allow(clippy::unwrap_used)]

mod common;

use common::{GOOD, Lab, assert_failed_only, assert_names_only, assert_proven, fill};
use serde_json::json;
use stillpoint_api::{CheckKind, Scope, ScratchKind};
use stillpoint_test_support::require;
use stillpoint_verifier::scratch::ScratchCluster;

#[tokio::test]
async fn all_of_a_real_cluster_is_proven_and_damage_is_found() {
    if require::env("KUBEBUILDER_ASSETS").is_none() {
        return;
    }
    let source = ScratchCluster::start(ScratchKind::ControlPlane).await.unwrap();
    fill(&source.client()).await;
    let lab = Lab::of(source.client(), Scope::default()).await;
    source.shutdown().await.unwrap();

    let verdict = lab.test_on(ScratchKind::ControlPlane, GOOD, lab.trust()).await.unwrap();
    assert_proven(&verdict);
    let still_there = verdict.check(CheckKind::StillThere).unwrap();
    assert!(still_there.summary.contains("after garbage collection was seen at work"), "{still_there:?}");

    lab.doctored("refused", |contents| {
        // without custom types the collector need not be given the time to learn of them
        contents.forget_object("orders.shop.example.com/shop/first");
        contents.forget_object("orders.shop.example.com/shop/second");
        contents.forget_object("customresourcedefinitions.apiextensions.k8s.io/orders.shop.example.com");
        contents.object("deployments.apps/shop/web")["spec"]["selector"] = json!({"matchLabels": {"app": "other"}});
    })
    .await;
    let verdict = lab.test_on(ScratchKind::ControlPlane, "refused", lab.trust()).await.unwrap();
    let check = assert_failed_only(&verdict, CheckKind::Accepted);
    assert_names_only(check, "deployments.apps/shop/web", "selector");
}
