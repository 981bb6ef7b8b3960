//! Namespaces: what is in a new one, what needs one, and how one ends.

use k8s_openapi::api::core::v1::{Namespace, ServiceAccount};
use kube::api::{Api, DeleteParams, ListParams, PostParams};
use serde_json::json;

use super::{Cluster, config_map, eventually, object, status};

#[tokio::test]
async fn a_new_cluster_has_the_usual_namespaces() {
    let cluster = Cluster::start().await;
    let namespaces: Api<Namespace> = Api::all(cluster.client.clone());
    let list = namespaces.list(&ListParams::default()).await.unwrap();
    let names: Vec<_> = list.items.iter().map(|ns| ns.metadata.name.as_deref().unwrap()).collect();
    assert_eq!(names, ["default", "kube-node-lease", "kube-public", "kube-system"]);
    let default = &list.items[0];
    assert_eq!(default.metadata.labels.as_ref().unwrap()["kubernetes.io/metadata.name"], "default");
    assert_eq!(default.spec.as_ref().unwrap().finalizers, Some(vec!["kubernetes".to_owned()]));
    assert_eq!(default.status.as_ref().unwrap().phase.as_deref(), Some("Active"));
    let kept = status(namespaces.delete("default", &DeleteParams::default()).await.unwrap_err());
    assert_eq!(kept.code, 403);
}

#[tokio::test]
async fn a_new_namespace_is_furnished_and_an_absent_one_is_named() {
    let cluster = Cluster::start().await;
    let absent = cluster.config_maps("shop").create(&PostParams::default(), &config_map("a", "1")).await;
    let absent = status(absent.unwrap_err());
    assert_eq!((absent.code, absent.message.as_str()), (404, "namespaces \"shop\" not found"));
    cluster.namespace("shop").await;
    cluster.put("shop", "a", "1").await;
    assert!(cluster.config_maps("shop").get("kube-root-ca.crt").await.is_ok());
    let accounts: Api<ServiceAccount> = Api::namespaced(cluster.client.clone(), "shop");
    assert!(accounts.get("default").await.is_ok());
}

#[tokio::test]
async fn a_deleted_namespace_ends_after_everything_in_it() {
    let cluster = Cluster::start().await;
    let namespaces: Api<Namespace> = Api::all(cluster.client.clone());
    cluster.namespace("shop").await;
    cluster.namespace("shop-2").await;
    cluster.put("shop-2", "stays", "1").await;
    for i in 0..600 {
        cluster.put("shop", &format!("c-{i}"), "1").await;
    }
    let api = cluster.config_maps("shop");
    let held = object(json!({"metadata": {"name": "held", "finalizers": ["example.com/hold"]}}));
    api.create(&PostParams::default(), &held).await.unwrap();
    let ending = namespaces.delete("shop", &DeleteParams::default()).await.unwrap().left().unwrap();
    assert_eq!(ending.status.unwrap().phase.as_deref(), Some("Terminating"));
    let late = status(api.create(&PostParams::default(), &config_map("late", "1")).await.unwrap_err());
    assert_eq!((late.code, late.reason.as_str()), (403, "Forbidden"));
    let mut held = eventually("the deletion of all but the held object", || async {
        let mut left = api.list(&ListParams::default()).await.unwrap().items;
        let last = left.pop().filter(|last| last.metadata.deletion_timestamp.is_some());
        last.filter(|_| left.is_empty())
    })
    .await;
    assert!(namespaces.get_opt("shop").await.unwrap().is_some());
    held.metadata.finalizers = None;
    api.replace("held", &PostParams::default(), &held).await.unwrap();
    eventually("the end of the namespace", || async {
        namespaces.get_opt("shop").await.unwrap().is_none().then_some(())
    })
    .await;
    assert!(cluster.config_maps("shop-2").get("stays").await.is_ok());
    cluster.namespace("shop").await;
}
