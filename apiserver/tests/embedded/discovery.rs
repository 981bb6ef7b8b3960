//! Discovery as kube's two ways of asking for it see it.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{ConfigMap, Pod};
use kube::{
    Resource, ResourceExt,
    discovery::{Discovery, Scope, verbs},
};

use super::Cluster;

/// Kind and scope by `plural.group/version`, with the number of verbs and subresources.
fn summary(discovery: &Discovery) -> BTreeMap<String, (String, bool, usize, usize)> {
    let resources = discovery.groups().flat_map(|group| {
        let versions: Vec<_> = group.versions().map(ToOwned::to_owned).collect();
        versions.into_iter().flat_map(|version| group.versioned_resources(&version))
    });
    resources
        .map(|(resource, capabilities)| {
            let key = format!("{}.{}/{}", resource.plural, resource.group, resource.version);
            let namespaced = capabilities.scope == Scope::Namespaced;
            let counts = (capabilities.operations.len(), capabilities.subresources.len());
            (key, (resource.kind, namespaced, counts.0, counts.1))
        })
        .collect()
}

#[tokio::test]
async fn both_ways_of_discovery_find_the_same_types() {
    let cluster = Cluster::start().await;
    let legacy = Discovery::new(cluster.client.clone()).run().await.unwrap();
    let aggregated = Discovery::new(cluster.client.clone()).run_aggregated().await.unwrap();
    assert_eq!(summary(&legacy), summary(&aggregated));
    let all = summary(&aggregated);
    assert_eq!(all["configmaps./v1"], ("ConfigMap".into(), true, 8, 0));
    assert_eq!(all["deployments.apps/v1"], ("Deployment".into(), true, 8, 2));
    assert_eq!(all["clusterroles.rbac.authorization.k8s.io/v1"], ("ClusterRole".into(), false, 8, 0));
    assert!(all.len() > 50, "{}", all.len());
}

#[tokio::test]
async fn every_discovered_type_can_be_listed() {
    let cluster = Cluster::start().await;
    let discovery = Discovery::new(cluster.client.clone()).run_aggregated().await.unwrap();
    for (resource, capabilities) in discovery.groups().flat_map(|group| group.recommended_resources()) {
        assert!(capabilities.supports_operation(verbs::LIST));
        let api: kube::Api<kube::api::DynamicObject> = kube::Api::all_with(cluster.client.clone(), &resource);
        let list = api.list(&kube::api::ListParams::default()).await.unwrap();
        assert!(list.metadata.resource_version.is_some(), "{}", resource.plural);
    }
}

#[tokio::test]
async fn paths_that_kube_makes_for_its_types_are_served() {
    let cluster = Cluster::start().await;
    assert_eq!(cluster.get(&ConfigMap::url_path(&(), None)).await.0, 200);
    assert_eq!(cluster.get(&Pod::url_path(&(), Some("default"))).await.0, 200);
    assert_eq!(cluster.get("/apis/apps").await.1["preferredVersion"]["version"], "v1");
    assert_eq!(cluster.get("/apis/none.example.com/v1").await.0, 404);
    let map = cluster.config_maps("default").get("kube-root-ca.crt").await.unwrap();
    assert_eq!(map.name_any(), "kube-root-ca.crt");
}
