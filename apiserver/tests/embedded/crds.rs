//! The life of a CustomResourceDefinition and of the objects that it brings.

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::{
    api::{Api, ApiResource, DeleteParams, DynamicObject, ListParams, PostParams},
    core::GroupVersionKind,
    discovery::Discovery,
    runtime::wait::conditions,
};
use serde_json::{Value, json};

use super::{Cluster, eventually, object, status};

fn crd() -> Value {
    let version = |name: &str, storage: bool| {
        json!({
            "name": name, "served": true, "storage": storage, "subresources": {"status": {}},
            "schema": {"openAPIV3Schema": {"type": "object", "x-kubernetes-preserve-unknown-fields": true}},
        })
    };
    json!({
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": "gadgets.example.com"},
        "spec": {
            "group": "example.com",
            "scope": "Namespaced",
            "names": {"plural": "gadgets", "kind": "Gadget", "shortNames": ["gd"]},
            "versions": [version("v1beta1", false), version("v1", true)],
        },
    })
}

fn gadgets(cluster: &Cluster, version: &str) -> Api<DynamicObject> {
    let resource = ApiResource::from_gvk(&GroupVersionKind::gvk("example.com", version, "Gadget"));
    Api::namespaced_with(cluster.client.clone(), "default", &resource)
}

fn gadget(version: &str, name: &str) -> DynamicObject {
    object(json!({
        "apiVersion": format!("example.com/{version}"),
        "kind": "Gadget",
        "metadata": {"name": name},
        "spec": {"size": 1},
        "status": {"ready": true},
    }))
}

async fn define(cluster: &Cluster) -> Api<CustomResourceDefinition> {
    let crds: Api<CustomResourceDefinition> = Api::all(cluster.client.clone());
    crds.create(&PostParams::default(), &object(crd())).await.unwrap();
    crds
}

#[tokio::test]
async fn a_crd_is_established_and_its_versions_are_served_at_once() {
    let cluster = Cluster::start().await;
    let crds = define(&cluster).await;
    let stored = crds.get("gadgets.example.com").await.unwrap();
    use kube::runtime::wait::Condition as _;
    assert!(conditions::is_crd_established().matches_object(Some(&stored)));
    let crd_status = stored.status.unwrap();
    assert_eq!(crd_status.stored_versions, Some(vec!["v1".to_owned()]));
    assert_eq!(crd_status.accepted_names.unwrap().list_kind.as_deref(), Some("GadgetList"));

    let discovery = Discovery::new(cluster.client.clone()).run_aggregated().await.unwrap();
    let group = discovery.get("example.com").unwrap();
    assert_eq!(group.versions().collect::<Vec<_>>(), ["v1", "v1beta1"]);

    let created = gadgets(&cluster, "v1").create(&PostParams::default(), &gadget("v1", "g")).await.unwrap();
    assert_eq!((created.metadata.generation, created.data.get("status")), (Some(1), None));
    let other = gadgets(&cluster, "v1beta1").get("g").await.unwrap();
    assert_eq!(other.types.unwrap().api_version, "example.com/v1beta1");
    assert_eq!(other.metadata.uid, created.metadata.uid);
    let with_status =
        gadgets(&cluster, "v1").replace_status("g", &PostParams::default(), &gadget("v1", "g")).await.unwrap();
    assert_eq!(with_status.data["status"]["ready"], true);
}

#[tokio::test]
async fn items_of_custom_types_carry_their_types_in_lists() {
    let cluster = Cluster::start().await;
    define(&cluster).await;
    let before = cluster.server.revision();
    gadgets(&cluster, "v1").create(&PostParams::default(), &gadget("v1", "g")).await.unwrap();
    let (_, list) = cluster.get("/apis/example.com/v1/gadgets").await;
    assert_eq!(list["kind"], "GadgetList");
    assert_eq!(list["items"][0]["kind"], "Gadget");
    assert_eq!(list["items"][0]["apiVersion"], "example.com/v1");
    let (_, old) =
        cluster.get(&format!("/apis/example.com/v1/gadgets?resourceVersion={before}&resourceVersionMatch=Exact")).await;
    assert_eq!(old["items"], json!([]));
}

#[tokio::test]
async fn a_deleted_crd_takes_its_objects_and_endpoints_along() {
    let cluster = Cluster::start().await;
    let crds = define(&cluster).await;
    let api = gadgets(&cluster, "v1");
    let mut held = gadget("v1", "held");
    held.metadata.finalizers = Some(vec!["example.com/hold".into()]);
    let held = api.create(&PostParams::default(), &held).await.unwrap();
    api.create(&PostParams::default(), &gadget("v1", "free")).await.unwrap();
    assert!(crds.delete("gadgets.example.com", &DeleteParams::default()).await.unwrap().is_left());
    let marked = eventually("the deletion of the held gadget", || async {
        api.get("held").await.ok().filter(|gadget| gadget.metadata.deletion_timestamp.is_some())
    })
    .await;
    let refused = api.create(&PostParams::default(), &gadget("v1", "late")).await.unwrap_err();
    assert_eq!(status(refused).code, 405);
    let released = DynamicObject { metadata: kube::api::ObjectMeta { finalizers: None, ..marked.metadata }, ..held };
    api.replace("held", &PostParams::default(), &released).await.unwrap();
    eventually("the end of the CRD", || async {
        crds.get_opt("gadgets.example.com").await.unwrap().is_none().then_some(())
    })
    .await;
    assert_eq!(status(api.list(&ListParams::default()).await.unwrap_err()).code, 404);
    define(&cluster).await;
    assert_eq!(api.list(&ListParams::default()).await.unwrap().items.len(), 0);
}

#[tokio::test]
async fn malformed_crds_are_refused() {
    let cluster = Cluster::start().await;
    let crds: Api<CustomResourceDefinition> = Api::all(cluster.client.clone());
    type Damage = fn(&mut Value);
    let breaks: [(&str, Damage); 6] = [
        ("metadata.name", |crd| crd["metadata"]["name"] = "other.example.com".into()),
        ("spec.group", |crd| crd["spec"]["group"] = "example".into()),
        ("spec.scope", |crd| crd["spec"]["scope"] = "Galaxy".into()),
        ("storage version", |crd| crd["spec"]["versions"][0]["storage"] = true.into()),
        ("served version", |crd| {
            crd["spec"]["versions"][0]["served"] = false.into();
            crd["spec"]["versions"][1]["served"] = false.into();
        }),
        ("api-approved", |crd| crd["spec"]["group"] = "example.k8s.io".into()),
    ];
    for (what, damage) in breaks {
        let mut crd = crd();
        damage(&mut crd);
        let refused = status(crds.create(&PostParams::default(), &object(crd)).await.unwrap_err());
        assert_eq!(refused.code, 422);
        assert!(refused.message.contains(what), "{what}: {}", refused.message);
    }
}

#[tokio::test]
async fn a_crd_cannot_take_the_names_of_another_type() {
    let cluster = Cluster::start().await;
    let crds = define(&cluster).await;
    let mut same_kind = crd();
    same_kind["metadata"]["name"] = "widgets.example.com".into();
    same_kind["spec"]["names"]["plural"] = "widgets".into();
    let mut built_in = crd();
    built_in["metadata"] = json!({
        "name": "ingresses.networking.k8s.io",
        "annotations": {"api-approved.kubernetes.io": "https://example.com"},
    });
    built_in["spec"]["group"] = "networking.k8s.io".into();
    built_in["spec"]["names"]["plural"] = "ingresses".into();
    for taken in [same_kind, built_in] {
        assert_eq!(status(crds.create(&PostParams::default(), &object(taken)).await.unwrap_err()).code, 409);
    }
}

#[tokio::test]
async fn a_stored_version_cannot_be_dropped_and_a_version_may_stop_being_served() {
    let cluster = Cluster::start().await;
    let crds = define(&cluster).await;
    let mut only_beta = crds.get("gadgets.example.com").await.unwrap();
    only_beta.spec.versions.truncate(1);
    only_beta.spec.versions[0].storage = true;
    let refused = crds.replace("gadgets.example.com", &PostParams::default(), &only_beta).await;
    assert_eq!(status(refused.unwrap_err()).code, 422);
    let mut unserved = crds.get("gadgets.example.com").await.unwrap();
    unserved.spec.versions[0].served = false;
    crds.replace("gadgets.example.com", &PostParams::default(), &unserved).await.unwrap();
    let gone = gadgets(&cluster, "v1beta1").list(&ListParams::default()).await.unwrap_err();
    assert_eq!(status(gone).code, 404);
    assert!(gadgets(&cluster, "v1").list(&ListParams::default()).await.is_ok());
}

#[tokio::test]
async fn a_custom_object_without_its_types_is_refused() {
    let cluster = Cluster::start().await;
    define(&cluster).await;
    let path = "/apis/example.com/v1/namespaces/default/gadgets";
    let (code, _) = cluster.raw("POST", path, "application/json", json!({"metadata": {"name": "g"}})).await;
    assert_eq!(code, 400);
}
