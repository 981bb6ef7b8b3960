//! Watches: what they say, where they start, and that kube's watcher is content with them.

use std::time::Duration;

use futures::stream::{BoxStream, StreamExt, TryStreamExt};
use k8s_openapi::api::core::v1::ConfigMap;
use kube::{
    api::{DeleteParams, PostParams, WatchEvent, WatchParams},
    runtime::watcher::{self, Event, watcher},
};
use serde_json::json;
use tokio::time::timeout;

use super::{Cluster, config_map, object, revision};

type Events = BoxStream<'static, kube::Result<WatchEvent<ConfigMap>>>;

async fn watch(cluster: &Cluster, params: &WatchParams, from: u64) -> Events {
    cluster.config_maps("default").watch(params, &from.to_string()).await.unwrap().boxed()
}

async fn next(events: &mut Events) -> WatchEvent<ConfigMap> {
    timeout(Duration::from_secs(10), events.next()).await.unwrap().unwrap().unwrap()
}

/// An event as a word and the object's name and revision.
fn describe(event: WatchEvent<ConfigMap>) -> (&'static str, String, u64) {
    let (kind, object) = match event {
        WatchEvent::Added(object) => ("added", object),
        WatchEvent::Modified(object) => ("modified", object),
        WatchEvent::Deleted(object) => ("deleted", object),
        WatchEvent::Bookmark(bookmark) => {
            return ("bookmark", String::new(), bookmark.metadata.resource_version.parse().unwrap());
        }
        WatchEvent::Error(status) => return ("error", status.reason.clone(), u64::from(status.code)),
    };
    (kind, object.metadata.name.clone().unwrap(), revision(object.metadata.resource_version.as_ref()))
}

#[tokio::test]
async fn a_watch_tells_every_change_after_its_start_in_order() {
    let cluster = Cluster::start().await;
    cluster.put("default", "a", "1").await;
    let from = cluster.server.revision();
    cluster.put("default", "a", "2").await;
    cluster.namespace("other").await;
    cluster.put("other", "b", "1").await;
    let mut events = watch(&cluster, &WatchParams::default(), from).await;
    assert_eq!(describe(next(&mut events).await), ("modified", "a".into(), from + 1));
    cluster.config_maps("default").delete("a", &DeleteParams::default()).await.unwrap();
    assert_eq!(describe(next(&mut events).await), ("deleted", "a".into(), cluster.server.revision()));
}

#[tokio::test]
async fn an_object_that_ceases_to_match_is_deleted_for_its_watcher() {
    let cluster = Cluster::start().await;
    let api = cluster.config_maps("default");
    let params = WatchParams::default().labels("app=web");
    let mut events = watch(&cluster, &params, cluster.server.revision()).await;
    let labelled: ConfigMap = object(json!({"metadata": {"name": "a", "labels": {"app": "web"}}}));
    api.create(&PostParams::default(), &labelled).await.unwrap();
    api.replace("a", &PostParams::default(), &config_map("a", "")).await.unwrap();
    api.replace("a", &PostParams::default(), &labelled).await.unwrap();
    for expected in ["added", "deleted", "added"] {
        assert_eq!(describe(next(&mut events).await).0, expected);
    }
}

#[tokio::test]
async fn an_idle_watch_gets_bookmarks_with_the_newest_revision() {
    let config = stillpoint_apiserver::Config { bookmark_interval: Duration::from_millis(20), ..Default::default() };
    let cluster = Cluster::with(config).await;
    let mut events = watch(&cluster, &WatchParams::default(), cluster.server.revision()).await;
    cluster.namespace("other").await;
    let newest = cluster.server.revision();
    loop {
        let (kind, _, revision) = describe(next(&mut events).await);
        assert_eq!(kind, "bookmark");
        if revision == newest {
            break;
        }
    }
}

#[tokio::test]
async fn a_watch_from_a_compacted_revision_is_told_410() {
    let cluster = Cluster::start().await;
    let from = cluster.server.revision();
    cluster.put("default", "a", "1").await;
    cluster.server.compact(cluster.server.revision()).unwrap();
    let mut events = watch(&cluster, &WatchParams::default(), from).await;
    assert_eq!(describe(next(&mut events).await), ("error", "Expired".into(), 410));
    assert!(events.next().await.is_none());
}

#[tokio::test]
async fn a_watch_ends_at_its_timeout() {
    let cluster = Cluster::start().await;
    let params = WatchParams::default().timeout(1);
    let events = watch(&cluster, &params, cluster.server.revision()).await;
    let all: Vec<_> = timeout(Duration::from_secs(10), events.try_collect::<Vec<_>>()).await.unwrap().unwrap();
    assert!(all.into_iter().all(|event| describe(event).0 == "bookmark"));
}

async fn follows(cluster: Cluster, config: watcher::Config) {
    cluster.put("default", "a", "1").await;
    let mut events = watcher(cluster.config_maps("default"), config).boxed();
    let mut initial = Vec::new();
    loop {
        match timeout(Duration::from_secs(10), events.try_next()).await.unwrap().unwrap().unwrap() {
            Event::Init => {}
            Event::InitApply(object) => initial.push(object.metadata.name.unwrap()),
            Event::InitDone => break,
            other => panic!("unexpected {other:?}"),
        }
    }
    assert_eq!(initial, ["a", "kube-root-ca.crt"]);
    cluster.put("default", "b", "1").await;
    let event = timeout(Duration::from_secs(10), events.try_next()).await.unwrap().unwrap().unwrap();
    assert!(matches!(event, Event::Apply(object) if object.metadata.name.as_deref() == Some("b")));
    cluster.config_maps("default").delete("a", &DeleteParams::default()).await.unwrap();
    let event = timeout(Duration::from_secs(10), events.try_next()).await.unwrap().unwrap().unwrap();
    assert!(matches!(event, Event::Delete(object) if object.metadata.name.as_deref() == Some("a")));
}

#[tokio::test]
async fn kubes_watcher_lists_and_follows() {
    follows(Cluster::start().await, watcher::Config::default()).await;
}

#[tokio::test]
async fn kubes_watcher_streams_its_initial_list() {
    follows(Cluster::start().await, watcher::Config::default().streaming_lists()).await;
}
