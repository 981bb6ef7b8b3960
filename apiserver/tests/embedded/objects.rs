//! Create, read, update and delete, and the metadata that the server keeps.

use std::time::{Duration, Instant};

use futures::stream::{self, StreamExt};
use k8s_openapi::api::{
    apps::v1::Deployment,
    core::v1::{ConfigMap, Pod, Secret},
};
use kube::api::{Api, DeleteParams, ListParams, PostParams, Preconditions};
use serde_json::{Value, json};

use super::{Cluster, config_map, object, revision, status};

fn deployment(image: &str) -> Value {
    json!({
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": "web"},
        "spec": {
            "selector": {"matchLabels": {"app": "web"}},
            "template": {
                "metadata": {"labels": {"app": "web"}},
                "spec": {"containers": [{"name": "web", "image": image}]},
            },
        },
        "status": {"replicas": 7},
    })
}

#[tokio::test]
async fn an_object_lives_through_create_get_replace_and_delete() {
    let cluster = Cluster::start().await;
    let api = cluster.config_maps("default");
    let created = api.create(&PostParams::default(), &config_map("a", "1")).await.unwrap();
    assert_eq!(created, api.get("a").await.unwrap());
    assert_eq!(created.metadata.uid.as_ref().unwrap().len(), 36);
    assert!(created.metadata.creation_timestamp.is_some());
    let updated = cluster.put("default", "a", "2").await;
    assert_eq!(updated.metadata.uid, created.metadata.uid);
    assert_eq!(
        revision(updated.metadata.resource_version.as_ref()),
        revision(created.metadata.resource_version.as_ref()) + 1
    );
    let deleted = api.delete("a", &DeleteParams::default()).await.unwrap().right().unwrap();
    assert!(deleted.is_success());
    assert_eq!(status(api.get("a").await.unwrap_err()).reason, "NotFound");
}

#[tokio::test]
async fn an_update_that_changes_nothing_makes_no_revision() {
    let cluster = Cluster::start().await;
    let first = cluster.put("default", "a", "1").await;
    assert_eq!(cluster.put("default", "a", "1").await, first);
}

#[tokio::test]
async fn conflicts_are_told_apart() {
    let cluster = Cluster::start().await;
    let api = cluster.config_maps("default");
    let first = cluster.put("default", "a", "1").await;
    cluster.put("default", "a", "2").await;
    let taken = status(api.create(&PostParams::default(), &config_map("a", "3")).await.unwrap_err());
    assert_eq!((taken.code, taken.reason.as_str()), (409, "AlreadyExists"));
    let stale = status(api.replace("a", &PostParams::default(), &first).await.unwrap_err());
    assert_eq!((stale.code, stale.reason.as_str()), (409, "Conflict"));
    let mut other = first.clone();
    other.metadata.resource_version = None;
    other.metadata.uid = Some("another".into());
    let replaced = status(api.replace("a", &PostParams::default(), &other).await.unwrap_err());
    assert!(replaced.message.contains("UID in precondition"), "{}", replaced.message);
    let wrong = Preconditions { uid: Some("another".into()), resource_version: None };
    let delete = DeleteParams { preconditions: Some(wrong), ..DeleteParams::default() };
    assert_eq!(status(api.delete("a", &delete).await.unwrap_err()).code, 409);
    let absent = api.replace("b", &PostParams::default(), &config_map("b", "1")).await;
    assert_eq!(status(absent.unwrap_err()).code, 404);
}

#[tokio::test]
async fn a_body_must_agree_with_its_url() {
    let cluster = Cluster::start().await;
    cluster.put("default", "a", "1").await;
    let path = "/api/v1/namespaces/default/configmaps";
    let cases = [
        ("POST", path.to_owned(), json!({"metadata": {"name": "b", "namespace": "other"}}), 400),
        ("POST", path.to_owned(), json!({"kind": "Secret", "metadata": {"name": "b"}}), 400),
        ("POST", path.to_owned(), json!({"metadata": {"name": "b", "resourceVersion": "1"}}), 400),
        ("POST", path.to_owned(), json!({"metadata": {"name": "b", "labels": {"x": 1}}}), 400),
        ("POST", path.to_owned(), json!(["no object"]), 400),
        ("PUT", format!("{path}/a"), json!({"metadata": {"name": "b"}}), 400),
        ("POST", "/api/v1/configmaps".to_owned(), json!({"metadata": {"name": "b"}}), 405),
        ("POST", "/api/v1/namespaces/default/gadgets".to_owned(), json!({"metadata": {"name": "b"}}), 404),
        ("POST", format!("{path}/a/token"), json!({}), 404),
        ("POST", path.to_owned(), json!({"metadata": {"name": "b"}, "data": {"x": "y".repeat(4 << 20)}}), 413),
    ];
    for (method, path, body, expected) in cases {
        let (code, answer) = cluster.raw(method, &path, "application/json", body).await;
        assert_eq!((code, answer["kind"].as_str()), (expected, Some("Status")), "{method} {path}: {answer}");
    }
    let (code, _) = cluster.raw("POST", path, "application/yaml", json!({"metadata": {"name": "b"}})).await;
    assert_eq!(code, 415);
}

#[tokio::test]
async fn generated_names_differ_and_keep_their_prefix() {
    let cluster = Cluster::start().await;
    let api = cluster.config_maps("default");
    let template: ConfigMap = object(json!({"metadata": {"generateName": "job-"}}));
    let mut names = std::collections::BTreeSet::new();
    for _ in 0..20 {
        names.insert(api.create(&PostParams::default(), &template).await.unwrap().metadata.name.unwrap());
    }
    assert_eq!(names.len(), 20);
    assert!(names.iter().all(|name| name.starts_with("job-") && name.len() == 9), "{names:?}");
}

#[tokio::test]
async fn a_dry_run_judges_and_keeps_nothing() {
    let cluster = Cluster::start().await;
    let api = cluster.config_maps("default");
    cluster.put("default", "a", "1").await;
    let before = cluster.server.revision();
    let dry = PostParams { dry_run: true, ..PostParams::default() };
    let created = api.create(&dry, &config_map("b", "1")).await.unwrap();
    assert!(created.metadata.uid.is_some() && created.metadata.resource_version.is_none());
    assert_eq!(status(api.create(&dry, &config_map("a", "1")).await.unwrap_err()).reason, "AlreadyExists");
    assert_eq!(status(api.create(&dry, &config_map("B", "1")).await.unwrap_err()).code, 422);
    api.replace("a", &dry, &config_map("a", "2")).await.unwrap();
    api.delete("a", &DeleteParams::default().dry_run()).await.unwrap();
    assert_eq!(cluster.server.revision(), before);
    assert!(api.get_opt("b").await.unwrap().is_none());
    assert_eq!(api.get("a").await.unwrap().data.unwrap()["text"], "1");
}

#[tokio::test]
async fn finalizers_hold_a_deleted_object_until_they_are_removed() {
    let cluster = Cluster::start().await;
    let api = cluster.config_maps("default");
    let held: ConfigMap = object(json!({"metadata": {"name": "a", "finalizers": ["example.com/hold"]}}));
    api.create(&PostParams::default(), &held).await.unwrap();
    let mut pending = api.delete("a", &DeleteParams::default()).await.unwrap().left().unwrap();
    assert!(pending.metadata.deletion_timestamp.is_some());
    assert!(api.delete("a", &DeleteParams::default()).await.unwrap().is_left());
    let mut more = pending.clone();
    more.metadata.finalizers = Some(vec!["example.com/hold".into(), "example.com/more".into()]);
    assert_eq!(status(api.replace("a", &PostParams::default(), &more).await.unwrap_err()).code, 422);
    pending.metadata.finalizers = None;
    api.replace("a", &PostParams::default(), &pending).await.unwrap();
    assert!(api.get_opt("a").await.unwrap().is_none());
}

#[tokio::test]
async fn generation_follows_the_spec_and_status_has_its_own_endpoint() {
    let cluster = Cluster::start().await;
    let api: Api<Deployment> = Api::namespaced(cluster.client.clone(), "default");
    let created = api.create(&PostParams::default(), &object(deployment("web:1"))).await.unwrap();
    assert_eq!((created.metadata.generation, created.status.unwrap().replicas), (Some(1), None));
    let changed = api.replace("web", &PostParams::default(), &object(deployment("web:2"))).await.unwrap();
    assert_eq!((changed.metadata.generation, changed.status.unwrap().replicas), (Some(2), None));
    let with_status = api.replace_status("web", &PostParams::default(), &object(deployment("web:3"))).await.unwrap();
    assert_eq!(with_status.status.unwrap().replicas, Some(7));
    let spec = with_status.spec.unwrap().template.spec.unwrap();
    assert_eq!((with_status.metadata.generation, spec.containers[0].image.as_deref()), (Some(2), Some("web:2")));
    let mut labelled: Deployment = object(deployment("web:2"));
    labelled.metadata.labels = Some([("a".to_owned(), "b".to_owned())].into());
    let labelled = api.replace("web", &PostParams::default(), &labelled).await.unwrap();
    assert_eq!((labelled.metadata.generation, labelled.status.unwrap().replicas), (Some(2), Some(7)));
}

#[tokio::test]
async fn a_secret_folds_its_plain_strings_into_data() {
    let cluster = Cluster::start().await;
    let api: Api<Secret> = Api::namespaced(cluster.client.clone(), "default");
    let secret = object(json!({"metadata": {"name": "s"}, "data": {"a": "eA=="}, "stringData": {"b": "y"}}));
    let created = api.create(&PostParams::default(), &secret).await.unwrap();
    let data = created.data.unwrap();
    assert_eq!((data["a"].0.as_slice(), data["b"].0.as_slice()), (&b"x"[..], &b"y"[..]));
    assert_eq!((created.type_.as_deref(), created.string_data), (Some("Opaque"), None));
    let bad = json!({"metadata": {"name": "t"}, "data": {"a": "no base64!"}});
    let path = "/api/v1/namespaces/default/secrets";
    assert_eq!(cluster.raw("POST", path, "application/json", bad).await.0, 400);
}

#[tokio::test]
async fn a_collection_is_deleted_by_its_selector() {
    let cluster = Cluster::start().await;
    let api: Api<Pod> = Api::namespaced(cluster.client.clone(), "default");
    for (name, app) in [("a", "x"), ("b", "y"), ("c", "x")] {
        let spec = json!({"containers": [{"name": "c"}]});
        let pod = object(json!({"metadata": {"name": name, "labels": {"app": app}}, "spec": spec}));
        api.create(&PostParams::default(), &pod).await.unwrap();
    }
    let selected = ListParams::default().labels("app=x");
    let deleted = api.delete_collection(&DeleteParams::default(), &selected).await.unwrap();
    assert_eq!(deleted.left().unwrap().items.len(), 2);
    let left = api.list(&ListParams::default()).await.unwrap();
    assert_eq!(left.items.len(), 1);
    assert_eq!(left.items[0].metadata.name.as_deref(), Some("b"));
}

#[tokio::test]
async fn strangers_are_answered_401_and_probes_are_open() {
    let cluster = Cluster::start().await;
    let mut kubeconfig: Value = serde_json::from_str(&cluster.server.kubeconfig()).unwrap();
    kubeconfig["users"][0]["user"] = json!({"token": cluster.server.token().replace('a', "b")});
    let stranger = super::client(&kubeconfig.to_string()).await;
    let ask = |path: &str| {
        let request = super::http_request("GET", path, "", Vec::new());
        let stranger = stranger.clone();
        async move { stranger.send(request).await.unwrap().status().as_u16() }
    };
    for probe in ["/healthz", "/readyz", "/livez"] {
        assert_eq!(ask(probe).await, 200);
    }
    for path in ["/version", "/api", "/api/v1/namespaces/default/secrets", "/nowhere"] {
        assert_eq!(ask(path).await, 401, "{path}");
    }
    assert_eq!(cluster.client.apiserver_version().await.unwrap().minor, "34");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_thousand_objects_are_created_by_sixteen_clients_in_seconds() {
    let cluster = Cluster::start().await;
    let started = Instant::now();
    let api = cluster.config_maps("default");
    let create = |i: u32| {
        let api = api.clone();
        async move { api.create(&PostParams::default(), &config_map(&format!("c-{i}"), "x")).await.unwrap() }
    };
    let created: Vec<ConfigMap> = stream::iter(0..1000).map(create).buffer_unordered(16).collect().await;
    let elapsed = started.elapsed();
    let mut revisions: Vec<u64> =
        created.iter().map(|object| revision(object.metadata.resource_version.as_ref())).collect();
    revisions.sort_unstable();
    revisions.dedup();
    assert_eq!(revisions.len(), 1000);
    assert!(elapsed < Duration::from_secs(20), "it took {elapsed:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn patches_of_one_object_by_many_clients_lose_nothing() {
    let cluster = Cluster::start().await;
    cluster.put("default", "counter", "").await;
    let api = cluster.config_maps("default");
    let patch = |i: u32| {
        let api = api.clone();
        let patch = kube::api::Patch::Merge(json!({"data": {format!("k{i}"): "v"}}));
        async move { api.patch("counter", &kube::api::PatchParams::default(), &patch).await.unwrap() }
    };
    let _: Vec<ConfigMap> = stream::iter(0..200).map(patch).buffer_unordered(16).collect().await;
    assert_eq!(api.get("counter").await.unwrap().data.unwrap().len(), 201);
}

#[tokio::test]
async fn shutdown_ends_watches_and_frees_the_port() {
    let cluster = Cluster::start().await;
    let params = kube::api::WatchParams::default();
    let api = cluster.config_maps("default");
    let mut watch = Box::pin(api.watch(&params, &cluster.server.revision().to_string()).await.unwrap());
    let url = cluster.server.url();
    let started = Instant::now();
    cluster.server.shutdown().await;
    assert!(watch.next().await.is_none_or(|event| event.is_err()));
    assert!(started.elapsed() < Duration::from_secs(3));
    let address = url.strip_prefix("https://").unwrap();
    tokio::net::TcpListener::bind(address).await.unwrap();
}
