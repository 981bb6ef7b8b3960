//! What every API server must let us do. Each test has a namespace of its own, so that they can share a cluster.

use std::time::{Duration, Instant};

use futures::{StreamExt, TryStreamExt, stream};
use kube::Client;
use serde_json::{Value, json};
use stillpoint_api::ResourceType;
use stillpoint_objects::{
    Error,
    discovery::discover,
    list::{Revision, count_at, fresh_revision, list_at, namespace_names, namespace_uid, namespaces, read_revision},
    retry::Retry,
    write::{self, Created, DryRun},
};

const SOON: Duration = Duration::from_secs(30);

pub(crate) fn resource(name: &str, version: &str, kind: &str, namespaced: bool) -> ResourceType {
    ResourceType { name: name.parse().unwrap(), version: version.into(), kind: kind.into(), namespaced }
}

pub(crate) fn config_maps() -> ResourceType {
    resource("configmaps", "v1", "ConfigMap", true)
}

pub(crate) fn config_map(namespace: &str, name: &str, data: Value) -> Value {
    json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"namespace": namespace, "name": name}, "data": data})
}

/// A name that a second run on the same cluster does not meet.
pub(crate) fn unique(name: &str) -> String {
    format!("{name}-{}", std::process::id())
}

/// Creates an object that does not exist yet.
pub(crate) async fn create(client: &Client, resource: &ResourceType, object: Value) -> Value {
    match write::create(client, resource, &object, DryRun::No, &Retry::default()).await.unwrap() {
        Created::New(created) => created,
        Created::Exists(existing) => panic!("it exists: {existing}"),
    }
}

pub(crate) async fn namespace(client: &Client, name: &str) {
    let object = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}});
    create(client, &namespaces(), object).await;
}

pub(crate) async fn delete(client: &Client, path: &str) {
    let request = http::Request::delete(path).body(Vec::new()).unwrap();
    client.request::<Value>(request).await.unwrap();
}

/// Creates `count` config maps of about `bytes` each.
pub(crate) async fn fill(client: &Client, namespace: &str, count: usize, bytes: usize) {
    stream::iter(0..count)
        .map(Ok)
        .try_for_each_concurrent(16, |index| async move {
            let object = config_map(namespace, &format!("filler-{index:05}"), json!({"x": "x".repeat(bytes)}));
            let maps = config_maps();
            write::create(client, &maps, &object, DryRun::No, &Retry::default()).await.map(drop)
        })
        .await
        .unwrap();
}

/// Names and raw texts of the objects whose names begin with `prefix`.
async fn listed(
    client: &Client,
    of: &ResourceType,
    namespace: &str,
    at: Revision,
    prefix: &str,
) -> Vec<(String, String)> {
    let mut pages = list_at(client, of, Some(namespace), at, &Retry::default());
    let mut found = Vec::new();
    while let Some(page) = pages.next().await.unwrap() {
        for item in page.items() {
            let item = item.unwrap();
            assert_eq!(item.meta.namespace.as_deref(), Some(namespace));
            found.push((item.meta.name.to_string(), item.raw.to_owned()));
        }
    }
    assert!(found.is_sorted());
    found.retain(|(name, _)| name.starts_with(prefix));
    found
}

async fn names_at(client: &Client, namespace: &str, at: Revision) -> Vec<String> {
    listed(client, &config_maps(), namespace, at, "my-").await.into_iter().map(|(name, _)| name).collect()
}

pub(crate) async fn an_old_revision_is_listed_as_it_was(client: Client) {
    let (maps, retry, ns) = (config_maps(), Retry::default(), &unique("objects-exact"));
    namespace(&client, ns).await;
    for name in ["my-a", "my-b"] {
        create(&client, &maps, config_map(ns, name, json!({"k": "ü\n\"quoted\""}))).await;
    }
    let before = read_revision(&client, &retry).await.unwrap();
    delete(&client, &format!("/api/v1/namespaces/{ns}/configmaps/my-a")).await;
    create(&client, &maps, config_map(ns, "my-c", json!({}))).await;
    let after = read_revision(&client, &retry).await.unwrap();

    assert!(before < after);
    assert_eq!(names_at(&client, ns, before).await, ["my-a", "my-b"]);
    assert_eq!(names_at(&client, ns, after).await, ["my-b", "my-c"]);
    for at in [before, after] {
        let counted = count_at(&client, &maps, Some(ns), at, &retry).await.unwrap();
        assert_eq!(counted, listed(&client, &maps, ns, at, "").await.len() as u64);
    }
    let (_, raw) = listed(&client, &maps, ns, before, "my-a").await.remove(0);
    assert!(!raw.contains('\n'));
    assert_eq!(serde_json::from_str::<Value>(&raw).unwrap()["data"]["k"], "ü\n\"quoted\"");
    assert!(namespace_names(&client, &retry).await.unwrap().contains(ns));
    assert!(namespace_uid(&client, ns, &retry).await.unwrap().is_some());
}

pub(crate) async fn many_objects_come_in_pages_and_a_cancelled_wait_loses_none(client: Client) {
    let (maps, retry, ns) = (config_maps(), Retry::default(), &unique("objects-pages"));
    namespace(&client, ns).await;
    fill(&client, ns, 900, 5000).await;
    let at = read_revision(&client, &retry).await.unwrap();
    let mut pages = list_at(&client, &maps, Some(ns), at, &retry);
    let (mut sizes, mut names, mut cancelled) = (Vec::new(), Vec::new(), 0);
    loop {
        // a wait that is given up at once, before every page
        let page = match tokio::time::timeout(Duration::ZERO, pages.next()).await {
            Ok(page) => page,
            Err(_) => {
                cancelled += 1;
                pages.next().await
            }
        };
        let Some(page) = page.unwrap() else { break };
        sizes.push((page.len(), page.bytes()));
        names.extend(page.items().map(|item| item.unwrap().meta.name.into_owned()));
    }
    assert!(names.is_sorted());
    names.retain(|name| name.starts_with("filler-"));
    assert_eq!(names.len(), 900);
    assert!(cancelled > 0);
    assert!(sizes.len() >= 3 && sizes[0].0 == 100, "{sizes:?}");
    assert!(sizes.iter().all(|(_, bytes)| *bytes < 3 << 20), "{sizes:?}");
    assert!(count_at(&client, &maps, Some(ns), at, &retry).await.unwrap() >= 900);
}

pub(crate) async fn large_objects_make_small_pages(client: Client) {
    let (maps, retry, ns) = (config_maps(), Retry::default(), &unique("objects-large"));
    namespace(&client, ns).await;
    // more than a page may have, in fewer objects than the first page asks for
    fill(&client, ns, 36, 1_000_000).await;
    let at = read_revision(&client, &retry).await.unwrap();
    let mut pages = list_at(&client, &maps, Some(ns), at, &retry);
    let mut sizes = Vec::new();
    let mut objects = 0;
    while let Some(page) = pages.next().await.unwrap() {
        objects += page.items().filter(|item| item.as_ref().unwrap().meta.name.starts_with("filler-")).count();
        sizes.push(page.bytes());
    }
    assert_eq!(objects, 36);
    assert!(sizes.iter().all(|bytes| *bytes < 16 << 20), "{sizes:?}");
}

pub(crate) async fn built_in_and_custom_types_share_the_store(client: Client) {
    let retry = Retry::default();
    let widgets = define(&client, &unique("stores")).await;
    for of in [config_maps(), resource("deployments.apps", "v1", "Deployment", true), widgets] {
        let before = read_revision(&client, &retry).await.unwrap();
        let fresh = fresh_revision(&client, &of, &retry).await.unwrap().unwrap();
        let after = read_revision(&client, &retry).await.unwrap();
        assert!(before <= fresh && fresh <= after, "{}: {before} {fresh} {after}", of.name);
    }
}

/// Defines a custom type and waits until it is served.
async fn define(client: &Client, plural: &str) -> ResourceType {
    let group = "objects.example.com";
    let kind = "Widget".to_owned() + plural;
    let definition = json!({"apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
        "metadata": {"name": format!("{plural}.{group}")},
        "spec": {"group": group, "scope": "Namespaced", "names": {"plural": plural, "kind": kind, "listKind": format!("{kind}List"),
            "singular": kind.to_lowercase()},
            "versions": [{"name": "v1", "served": true, "storage": true, "schema": {"openAPIV3Schema": {
                "type": "object", "x-kubernetes-preserve-unknown-fields": true}}}]}});
    let definitions =
        resource("customresourcedefinitions.apiextensions.k8s.io", "v1", "CustomResourceDefinition", false);
    create(client, &definitions, definition).await;
    let of = resource(&format!("{plural}.{group}"), "v1", &kind, true);
    let deadline = Instant::now() + SOON;
    while !write::is_served(client, &of.name, "v1", &Retry::default()).await.unwrap() {
        assert!(Instant::now() < deadline, "{plural} not served in time");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    of
}

pub(crate) async fn custom_objects_are_served_once_defined_and_listed_with_their_type(client: Client) {
    let (retry, ns) = (Retry::default(), &unique("objects-custom"));
    namespace(&client, ns).await;
    assert!(!write::is_served(&client, &"nothings.objects.example.com".parse().unwrap(), "v1", &retry).await.unwrap());
    let widgets = define(&client, &unique("gadgets")).await;
    let object = json!({"apiVersion": widgets.api_version(), "kind": widgets.kind,
        "metadata": {"namespace": ns, "name": "g"}, "spec": {"size": 7}});
    create(&client, &widgets, object).await;
    let at = read_revision(&client, &retry).await.unwrap();
    let (_, raw) = listed(&client, &widgets, ns, at, "g").await.remove(0);
    let value: Value = serde_json::from_str(&raw).unwrap();
    assert_eq!((value["kind"].as_str(), &value["spec"]), (Some(widgets.kind.as_str()), &json!({"size": 7})));
    let discovery = discover(&client, &retry).await.unwrap();
    assert_eq!(discovery.get(&widgets.name).unwrap().resource, widgets);
}

pub(crate) async fn discovery_is_whole_and_the_same_twice(client: Client) {
    let retry = Retry::default();
    let discovery = discover(&client, &retry).await.unwrap();
    assert!(discovery.server_version.starts_with('v'));
    let of = |name: &str| discovery.get(&name.parse().unwrap()).unwrap_or_else(|| panic!("{name} is missing"));
    for (name, api_version, kind, namespaced) in [
        ("configmaps", "v1", "ConfigMap", true),
        ("namespaces", "v1", "Namespace", false),
        ("deployments.apps", "apps/v1", "Deployment", true),
        ("jobs.batch", "batch/v1", "Job", true),
        ("clusterroles.rbac.authorization.k8s.io", "rbac.authorization.k8s.io/v1", "ClusterRole", false),
    ] {
        let served = of(name);
        assert_eq!((served.resource.api_version().as_str(), served.resource.kind.as_str()), (api_version, kind));
        assert_eq!(served.resource.namespaced, namespaced);
        assert!(served.verbs.list && served.verbs.create && served.verbs.get, "{name}");
    }
    assert!(discovery.types.iter().all(|served| !served.resource.name.resource.contains('/')));
    assert!(discovery.types.is_sorted_by_key(|served| served.resource.name.clone()));
    assert_eq!(discovery.of_kind("apps/v1", "ReplicaSet").unwrap().resource.name.to_string(), "replicasets.apps");
    let built_in = |discovery: &stillpoint_objects::discovery::Discovery| {
        // other tests define types meanwhile
        let types = discovery.types.iter().filter(|served| !served.resource.name.group.ends_with("example.com"));
        types.cloned().collect::<Vec<_>>()
    };
    assert_eq!(built_in(&discover(&client, &retry).await.unwrap()), built_in(&discovery));
}

pub(crate) async fn what_exists_is_kept_and_a_dry_run_stores_nothing(client: Client) {
    let (maps, retry, ns) = (config_maps(), Retry::default(), &unique("objects-writes"));
    namespace(&client, ns).await;
    let first = config_map(ns, "my-a", json!({"k": "first"}));
    let asked = write::create(&client, &maps, &first, DryRun::Yes, &retry).await.unwrap();
    assert!(matches!(asked, Created::New(_)));
    let at = read_revision(&client, &retry).await.unwrap();
    assert!(names_at(&client, ns, at).await.is_empty());
    create(&client, &maps, first).await;
    let second = config_map(ns, "my-a", json!({"k": "second"}));
    match write::create(&client, &maps, &second, DryRun::No, &retry).await.unwrap() {
        Created::Exists(existing) => assert_eq!(existing["data"]["k"], "first"),
        Created::New(_) => panic!("it was replaced"),
    }
}

pub(crate) async fn what_is_not_there_is_an_outcome(client: Client) {
    let retry = Retry::default();
    let at = read_revision(&client, &retry).await.unwrap();
    let nothing = resource("nothings.nowhere.example.com", "v1", "Nothing", true);
    let error = list_at(&client, &nothing, None, at, &retry).next().await.unwrap_err();
    assert!(matches!(error, Error::NotFound { .. }), "{error:?}");
    let error = count_at(&client, &nothing, None, at, &retry).await.unwrap_err();
    assert!(matches!(error, Error::NotFound { .. }), "{error:?}");
    assert_eq!(namespace_uid(&client, "nowhere", &retry).await.unwrap(), None);
    let lost = config_map("nowhere", "a", json!({}));
    let error = write::create(&client, &config_maps(), &lost, DryRun::No, &retry).await.unwrap_err();
    assert!(matches!(error, Error::NotFound { .. }), "{error:?}");
    // a namespace that is empty, or not there, has an empty list of one page
    let mut pages = list_at(&client, &config_maps(), Some("nowhere"), at, &retry);
    assert!(pages.next().await.unwrap().unwrap().is_empty());
    assert!(pages.next().await.unwrap().is_none());
    assert_eq!(count_at(&client, &config_maps(), Some("nowhere"), at, &retry).await.unwrap(), 0);
}
