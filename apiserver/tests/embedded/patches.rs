//! JSON patches and merge patches, by main and status endpoint.

use k8s_openapi::api::core::v1::Pod;
use kube::api::{Api, Patch, PatchParams, PostParams};
use serde_json::{Value, json};

use super::{Cluster, object, status};

fn json_patch(operations: Value) -> Patch<()> {
    Patch::Json(serde_json::from_value(operations).unwrap())
}

#[tokio::test]
async fn a_json_patch_applies_as_a_whole_or_not_at_all() {
    let cluster = Cluster::start().await;
    let api = cluster.config_maps("default");
    cluster.put("default", "a", "1").await;
    let good = json_patch(json!([
        {"op": "test", "path": "/data/text", "value": "1"},
        {"op": "replace", "path": "/data/text", "value": "2"},
        {"op": "add", "path": "/metadata/labels", "value": {"x": "y"}},
    ]));
    let patched = api.patch("a", &PatchParams::default(), &good).await.unwrap();
    assert_eq!(patched.data.unwrap()["text"], "2");
    let failing = status(api.patch("a", &PatchParams::default(), &good).await.unwrap_err());
    assert_eq!((failing.code, failing.reason.as_str()), (422, "Invalid"));
    assert_eq!(api.get("a").await.unwrap().metadata.labels.unwrap()["x"], "y");
}

#[tokio::test]
async fn a_merge_patch_adds_changes_and_removes() {
    let cluster = Cluster::start().await;
    let api = cluster.config_maps("default");
    cluster.put("default", "a", "1").await;
    let patch = Patch::Merge(json!({"data": {"text": null, "more": "2"}}));
    let patched = api.patch("a", &PatchParams::default(), &patch).await.unwrap();
    let data = patched.data.unwrap();
    assert_eq!((data.get("text"), data["more"].as_str()), (None, "2"));
}

#[tokio::test]
async fn a_patch_with_an_old_resource_version_conflicts() {
    let cluster = Cluster::start().await;
    let api = cluster.config_maps("default");
    let first = cluster.put("default", "a", "1").await;
    cluster.put("default", "a", "2").await;
    let stale = Patch::Merge(json!({"metadata": {"resourceVersion": first.metadata.resource_version}}));
    assert_eq!(status(api.patch("a", &PatchParams::default(), &stale).await.unwrap_err()).code, 409);
    let renamed = Patch::Merge(json!({"metadata": {"name": "b"}}));
    assert_eq!(status(api.patch("a", &PatchParams::default(), &renamed).await.unwrap_err()).code, 400);
}

#[tokio::test]
async fn the_status_is_patched_by_its_own_endpoint_only() {
    let cluster = Cluster::start().await;
    let api: Api<Pod> = Api::namespaced(cluster.client.clone(), "default");
    let spec = json!({"containers": [{"name": "c"}]});
    let pod = object(json!({"metadata": {"name": "p"}, "spec": spec}));
    api.create(&PostParams::default(), &pod).await.unwrap();
    let patch = Patch::Merge(json!({"metadata": {"labels": {"x": "y"}}, "status": {"phase": "Running"}}));
    let main = api.patch("p", &PatchParams::default(), &patch).await.unwrap();
    assert_eq!(main.status.unwrap().phase.as_deref(), Some("Pending"));
    let by_status = api.patch_status("p", &PatchParams::default(), &patch).await.unwrap();
    assert_eq!(by_status.status.unwrap().phase.as_deref(), Some("Running"));
}

#[tokio::test]
async fn other_patches_are_refused_with_415() {
    let cluster = Cluster::start().await;
    let api = cluster.config_maps("default");
    cluster.put("default", "a", "1").await;
    let strategic = Patch::Strategic(json!({"data": {"x": "y"}}));
    assert_eq!(status(api.patch("a", &PatchParams::default(), &strategic).await.unwrap_err()).code, 415);
    let apply = Patch::Apply(json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "a"}}));
    let params = PatchParams::apply("test");
    assert_eq!(status(api.patch("a", &params, &apply).await.unwrap_err()).code, 415);
}
