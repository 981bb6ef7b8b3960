//! What is refused, and that the refusal names the fields.

use serde_json::{Value, json};

use super::Cluster;

async fn fields(cluster: &Cluster, path: &str, object: Value) -> (u16, Vec<String>) {
    let (code, answer) = cluster.raw("POST", path, "application/json", object).await;
    let causes = answer["details"]["causes"].as_array().cloned().unwrap_or_default();
    (code, causes.iter().map(|cause| cause["field"].as_str().unwrap().to_owned()).collect())
}

#[tokio::test]
async fn bad_metadata_is_refused_field_by_field() {
    let cluster = Cluster::start().await;
    let path = "/api/v1/namespaces/default/configmaps";
    let long = "a".repeat(254);
    let owner = json!([{"apiVersion": "v1", "kind": "Pod", "name": "p"}]);
    let cases = [
        (json!({}), "metadata.name"),
        (json!({"name": "Upper"}), "metadata.name"),
        (json!({"name": "a_b"}), "metadata.name"),
        (json!({"name": long}), "metadata.name"),
        (json!({"generateName": "Upper-"}), "metadata.name"),
        (json!({"name": "a", "labels": {"a b": "c"}}), "metadata.labels"),
        (json!({"name": "a", "labels": {"a": "b c"}}), "metadata.labels"),
        (json!({"name": "a", "annotations": {"a": "x".repeat(300 << 10)}}), "metadata.annotations"),
        (json!({"name": "a", "finalizers": ["a b"]}), "metadata.finalizers"),
        (json!({"name": "a", "ownerReferences": owner}), "metadata.ownerReferences[0].uid"),
    ];
    for (metadata, field) in cases {
        let (code, named) = fields(&cluster, path, json!({"metadata": metadata})).await;
        assert_eq!((code, named), (422, vec![field.to_owned()]), "{field}");
    }
}

#[tokio::test]
async fn names_follow_the_rule_of_their_kind() {
    let cluster = Cluster::start().await;
    let role = "/apis/rbac.authorization.k8s.io/v1/clusterroles";
    assert_eq!(fields(&cluster, role, json!({"metadata": {"name": "system:Node_x"}})).await.0, 201);
    let (code, read) = cluster.get(&format!("{role}/system%3ANode_x")).await;
    assert_eq!((code, read["metadata"]["name"].as_str()), (200, Some("system:Node_x")));
    assert_eq!(fields(&cluster, "/api/v1/namespaces", json!({"metadata": {"name": "a.b"}})).await.0, 422);
    let service = json!({"metadata": {"name": "1a"}, "spec": {"ports": [{"port": 1}]}});
    assert_eq!(fields(&cluster, "/api/v1/namespaces/default/services", service).await.0, 422);
}

#[tokio::test]
async fn an_invalid_object_is_described_as_a_real_server_does() {
    let cluster = Cluster::start().await;
    let object = json!({"metadata": {"name": "web"}, "spec": {"template": {}}});
    let path = "/apis/apps/v1/namespaces/default/deployments";
    let (_, answer) = cluster.raw("POST", path, "application/json", object).await;
    assert_eq!(answer["reason"], "Invalid");
    assert_eq!(answer["message"], "Deployment.apps \"web\" is invalid: spec.selector: Required value");
    assert_eq!(answer["details"]["group"], "apps");
    assert_eq!(answer["details"]["kind"], "Deployment");
}
