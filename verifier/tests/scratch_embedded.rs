//! The `embedded` scratch cluster.
#![allow(clippy::unwrap_used)]

use http::Request;
use serde_json::Value;
use stillpoint_api::ScratchKind;
use stillpoint_verifier::scratch::ScratchCluster;

#[tokio::test]
async fn it_serves_without_any_program_until_it_is_shut_down() {
    let cluster = ScratchCluster::start(ScratchKind::Embedded).await.unwrap();
    assert_eq!(cluster.kind(), ScratchKind::Embedded);
    assert!(cluster.not_judged().iter().any(|phrase| phrase.contains("admission")));
    let client = cluster.client();
    let namespace = async || {
        let request = Request::get("/api/v1/namespaces/default").body(Vec::new()).unwrap();
        client.request::<Value>(request).await
    };
    assert_eq!(namespace().await.unwrap()["metadata"]["name"], "default");
    cluster.shutdown().await.unwrap();
    assert!(namespace().await.is_err());
}

#[tokio::test]
async fn its_credentials_are_in_no_log() {
    let cluster = ScratchCluster::start(ScratchKind::Embedded).await.unwrap();
    let kubeconfig: Value = serde_json::from_str(&cluster.kubeconfig()).unwrap();
    let token = kubeconfig["users"][0]["user"]["token"].as_str().unwrap();
    assert!(!format!("{cluster:?}").contains(token));
    cluster.shutdown().await.unwrap();
}
