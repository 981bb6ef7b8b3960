//! Lists at a revision, their pages, and what compaction does to them.

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

use futures::stream::{self, StreamExt};
use k8s_openapi::api::core::v1::{ConfigMap, Pod};
use kube::api::{Api, DeleteParams, ListParams, ObjectList, PostParams, VersionMatch};
use serde_json::json;

use super::{Cluster, config_map, object, revision, status};

fn exactly(revision: u64) -> ListParams {
    ListParams::default().at(&revision.to_string()).matching(VersionMatch::Exact)
}

fn texts(list: &ObjectList<ConfigMap>) -> Vec<(String, String)> {
    let ours = list
        .items
        .iter()
        .filter_map(|item| Some((item.metadata.name.clone()?, item.data.as_ref()?.get("text")?.clone())));
    ours.collect()
}

fn pair(name: &str, text: &str) -> (String, String) {
    (name.to_owned(), text.to_owned())
}

#[tokio::test]
async fn an_exact_list_shows_the_objects_of_its_revision() {
    let cluster = Cluster::start().await;
    let api = cluster.config_maps("default");
    cluster.put("default", "a", "1").await;
    cluster.put("default", "b", "1").await;
    let then = cluster.server.revision();
    cluster.put("default", "a", "2").await;
    api.delete("b", &DeleteParams::default()).await.unwrap();
    cluster.put("default", "c", "1").await;
    let old = api.list(&exactly(then)).await.unwrap();
    assert_eq!(texts(&old), [pair("a", "1"), pair("b", "1")]);
    assert_eq!(revision(old.metadata.resource_version.as_ref()), then);
    let new = api.list(&ListParams::default()).await.unwrap();
    assert_eq!(texts(&new), [pair("a", "2"), pair("c", "1")]);
    assert_eq!(revision(new.metadata.resource_version.as_ref()), cluster.server.revision());
}

#[tokio::test]
async fn any_type_can_be_listed_at_any_revision() {
    let cluster = Cluster::start().await;
    let pods: Api<Pod> = Api::all(cluster.client.clone());
    let then = cluster.server.revision();
    cluster.put("default", "a", "1").await;
    let list = pods.list(&exactly(then)).await.unwrap();
    assert_eq!((list.items.len(), revision(list.metadata.resource_version.as_ref())), (0, then));
    let fresh = pods.list(&ListParams::default()).await.unwrap();
    assert_eq!(revision(fresh.metadata.resource_version.as_ref()), cluster.server.revision());
}

#[tokio::test(flavor = "multi_thread")]
async fn pages_stay_at_their_revision_while_a_writer_writes() {
    let cluster = Cluster::start().await;
    for i in 0..50 {
        cluster.put("default", &format!("c-{i:03}"), "old").await;
    }
    let stop = Arc::new(AtomicBool::new(false));
    let writer = tokio::spawn({
        let (api, stop) = (cluster.config_maps("default"), Arc::clone(&stop));
        async move {
            let mut round = 0;
            while !stop.load(Ordering::Relaxed) {
                round += 1;
                let name = format!("c-{:03}", round % 50);
                api.delete(&name, &DeleteParams::default()).await.unwrap();
                api.create(&PostParams::default(), &config_map(&name, "new")).await.unwrap();
                api.create(&PostParams::default(), &config_map(&format!("n-{round}"), "new")).await.unwrap();
            }
        }
    });
    let api = cluster.config_maps("default");
    let mut params = ListParams::default().limit(7);
    let mut pages = vec![api.list(&params).await.unwrap()];
    let counted = pages[0].metadata.remaining_item_count.unwrap() + pages[0].items.len() as i64;
    while let Some(token) = pages.last().unwrap().metadata.continue_.clone().filter(|token| !token.is_empty()) {
        params = ListParams::default().limit(7).continue_token(&token);
        pages.push(api.list(&params).await.unwrap());
    }
    stop.store(true, Ordering::Relaxed);
    writer.await.unwrap();
    let revisions: Vec<u64> = pages.iter().map(|page| revision(page.metadata.resource_version.as_ref())).collect();
    assert!(revisions.iter().all(|revision| *revision == revisions[0]), "{revisions:?}");
    assert!(cluster.server.revision() > revisions[0]);
    let paged: Vec<_> = pages.into_iter().flat_map(|page| page.items).collect();
    let whole = api.list(&exactly(revisions[0])).await.unwrap();
    assert_eq!(paged, whole.items);
    assert_eq!(counted, i64::try_from(paged.len()).unwrap());
}

#[tokio::test]
async fn remaining_item_count_counts_down_and_is_absent_with_a_selector() {
    let cluster = Cluster::start().await;
    cluster.namespace("ns").await;
    for name in ["a", "b", "c", "d"] {
        cluster.put("ns", name, "1").await;
    }
    let api = cluster.config_maps("ns");
    let first = api.list(&ListParams::default().limit(2)).await.unwrap();
    assert_eq!(first.metadata.remaining_item_count, Some(3), "kube-root-ca.crt is the fifth");
    let token = first.metadata.continue_.unwrap();
    let second = api.list(&ListParams::default().limit(2).continue_token(&token)).await.unwrap();
    assert_eq!(second.metadata.remaining_item_count, Some(1));
    let selected = api.list(&ListParams::default().limit(2).fields("metadata.name!=a")).await.unwrap();
    assert_eq!(selected.metadata.remaining_item_count, None);
    assert!(selected.metadata.continue_.is_some());
}

#[tokio::test]
async fn compaction_expires_old_lists_and_tokens() {
    let cluster = Cluster::start().await;
    let api = cluster.config_maps("default");
    cluster.put("default", "a", "1").await;
    let then = cluster.server.revision();
    let token = api.list(&ListParams::default().limit(1)).await.unwrap().metadata.continue_.unwrap();
    cluster.put("default", "a", "2").await;
    cluster.server.compact(cluster.server.revision()).unwrap();
    let expired = status(api.list(&exactly(then)).await.unwrap_err());
    assert_eq!((expired.code, expired.reason.as_str()), (410, "Expired"));
    let next = ListParams::default().limit(1).continue_token(&token);
    let expired = status(api.list(&next).await.unwrap_err());
    assert_eq!((expired.code, expired.reason.as_str()), (410, "Expired"));
    assert_eq!(api.list(&exactly(cluster.server.revision())).await.unwrap().items.len(), 2);
    assert!(cluster.server.compact(cluster.server.revision() + 1).is_err());
}

#[tokio::test]
async fn history_is_compacted_by_itself_when_it_outgrows_its_bound() {
    let config = stillpoint_apiserver::Config { history_revisions: 20, ..Default::default() };
    let cluster = Cluster::with(config).await;
    let then = cluster.server.revision();
    for round in 0..30 {
        cluster.put("default", "a", &round.to_string()).await;
    }
    let api = cluster.config_maps("default");
    assert_eq!(status(api.list(&exactly(then)).await.unwrap_err()).code, 410);
    api.list(&exactly(cluster.server.revision() - 10)).await.unwrap();
}

#[tokio::test]
async fn a_future_revision_is_refused_at_once() {
    let cluster = Cluster::start().await;
    let api = cluster.config_maps("default");
    let refused = status(api.list(&exactly(cluster.server.revision() + 1)).await.unwrap_err());
    assert_eq!((refused.code, refused.reason.as_str()), (504, "Timeout"));
    assert!(refused.message.contains("Too large resource version"), "{}", refused.message);
}

#[tokio::test]
async fn items_of_built_in_types_carry_no_types_and_sort_as_in_etcd() {
    let cluster = Cluster::start().await;
    for namespace in ["a", "a-b"] {
        cluster.namespace(namespace).await;
        cluster.put(namespace, "x", "1").await;
    }
    let (code, list) = cluster.get("/api/v1/configmaps?labelSelector=!none&fieldSelector=metadata.name=x").await;
    assert_eq!((code, list["kind"].as_str()), (200, Some("ConfigMapList")));
    let items = list["items"].as_array().unwrap();
    assert!(items.iter().all(|item| item.get("kind").is_none() && item.get("apiVersion").is_none()));
    let namespaces: Vec<_> = items.iter().map(|item| item["metadata"]["namespace"].as_str().unwrap()).collect();
    assert_eq!(namespaces, ["a-b", "a"]);
    let (_, one) = cluster.get("/api/v1/namespaces/a/configmaps/x").await;
    assert_eq!((one["kind"].as_str(), one["apiVersion"].as_str()), (Some("ConfigMap"), Some("v1")));
}

#[tokio::test]
async fn pods_are_selected_by_node_and_phase() {
    let cluster = Cluster::start().await;
    let api: Api<Pod> = Api::namespaced(cluster.client.clone(), "default");
    for (name, node) in [("a", "n1"), ("b", "n2")] {
        let spec = json!({"nodeName": node, "containers": [{"name": "c"}]});
        api.create(&PostParams::default(), &object(json!({"metadata": {"name": name}, "spec": spec}))).await.unwrap();
    }
    let on_node = api.list(&ListParams::default().fields("spec.nodeName=n2,status.phase=Pending")).await.unwrap();
    assert_eq!(on_node.items.len(), 1);
    let unknown = api.list(&ListParams::default().fields("spec.color=red")).await.unwrap_err();
    assert_eq!(status(unknown).code, 400);
}

#[tokio::test(flavor = "multi_thread")]
async fn twenty_thousand_objects_are_listed_in_pages() {
    let cluster = Cluster::start().await;
    cluster.namespace("many").await;
    let api = cluster.config_maps("many");
    let create = |i: u32| {
        let api = api.clone();
        async move { api.create(&PostParams::default(), &config_map(&format!("c-{i:05}"), "x")).await.unwrap() }
    };
    stream::iter(0..20_000).map(create).buffer_unordered(16).for_each(|_| async {}).await;
    let (mut names, mut token) = (Vec::new(), None);
    loop {
        let mut params = ListParams::default().limit(500);
        params.continue_token = token.take();
        let page = api.list(&params).await.unwrap();
        names.extend(page.items.into_iter().map(|item| item.metadata.name.unwrap()));
        match page.metadata.continue_.filter(|token| !token.is_empty()) {
            Some(next) => token = Some(next),
            None => break,
        }
    }
    assert_eq!(names.len(), 20_001);
    assert!(names.is_sorted());
    assert_eq!(api.list(&ListParams::default()).await.unwrap().items.len(), 20_001);
}
