use serde_json::json;
use stillpoint_api::{Exclusion, Judgement, Scope as Asked};

use super::*;
use crate::{
    fixtures::{cluster_record, manifest, record, resource},
    held::Keys,
};

fn held(objects: &[&str]) -> Held {
    let keys = Keys::default();
    let mut held = Held::new(keys.clone());
    for object in objects {
        let ObjectRef { resource, namespace, name } = object.parse().unwrap();
        held.extend(vec![keys.name(&resource, namespace.as_deref(), &name), keys.uid(&format!("uid of {name}"))]);
    }
    held
}

fn source() -> Manifest {
    manifest(vec![
        record("secrets", "Secret", 1),
        record("pods", "Pod", 1),
        record("replicasets.apps", "ReplicaSet", 1),
        record("orders.shop.example.com", "Order", 1),
        cluster_record("namespaces", "Namespace", 1),
        cluster_record("storageclasses.storage.k8s.io", "StorageClass", 1),
        cluster_record("customresourcedefinitions.apiextensions.k8s.io", "CustomResourceDefinition", 1),
    ])
}

fn required(to: &str) -> Reference {
    let path = "spec.volumes[0].secret.secretName".to_owned();
    Reference { from_path: path, to: Target::Object(to.parse().unwrap()), need: Need::Required }
}

fn owner(kind: &str, name: &str) -> Reference {
    let to = Target::Kind {
        api_version: "apps/v1".into(),
        kind: kind.into(),
        namespace: Some("shop".into()),
        name: name.into(),
        uid: Some(format!("uid of {name}")),
    };
    Reference { from_path: "metadata.ownerReferences[0]".into(), to, need: Need::Owner }
}

fn answer(manifest: &Manifest, held: &Held, reference: &Reference) -> Answer {
    References::new(manifest, held).unwrap().answer(reference)
}

#[test]
fn what_is_needed_and_held_is_found_and_what_is_not_held_is_named() {
    let (manifest, held) = (source(), held(&["secrets/shop/token"]));
    assert_eq!(answer(&manifest, &held, &required("secrets/shop/token")), Answer::Found);
    let expected = "it needs secrets.core/shop/gone (spec.volumes[0].secret.secretName), which is not in the backup";
    assert_eq!(answer(&manifest, &held, &required("secrets/shop/gone")), Answer::Missing(expected.into()));
}

#[test]
fn what_may_be_absent_is_never_demanded() {
    for need in [Need::Optional, Need::System] {
        let reference = Reference { need, ..required("secrets/shop/gone") };
        assert_eq!(answer(&source(), &held(&[]), &reference), Answer::NotDemanded);
    }
    assert_eq!(answer(&source(), &held(&[]), &required("unserved.example.com/shop/gone")), Answer::NotDemanded);
}

#[test]
fn what_the_scope_leaves_out_is_not_demanded() {
    let demanded = |scope: Asked, reference: &Reference| {
        matches!(answer(&Manifest { scope, ..source() }, &held(&[]), reference), Answer::Missing(_))
    };
    let secret = required("secrets/shop/gone");
    assert!(demanded(Asked::default(), &secret));
    assert!(!demanded(Asked { include_namespaces: vec!["web*".into()], ..Asked::default() }, &secret));
    assert!(!demanded(Asked { exclude_namespaces: vec!["shop".into()], ..Asked::default() }, &secret));
    assert!(!demanded(Asked { exclude_resources: vec!["secrets".into()], ..Asked::default() }, &secret));
    assert!(!demanded(Asked { include_resources: vec!["pods".into()], ..Asked::default() }, &secret));
    let class = required("storageclasses.storage.k8s.io/fast");
    assert!(!demanded(Asked { cluster_resources: ClusterResources::None, ..Asked::default() }, &class));
    assert!(demanded(Asked { include_namespaces: vec!["shop".into()], ..Asked::default() }, &class));
}

#[test]
fn with_a_label_selector_only_owners_are_demanded() {
    let scope = Asked { label_selector: Some("app=web".into()), ..Asked::default() };
    let manifest = Manifest { scope, ..source() };
    assert_eq!(answer(&manifest, &held(&[]), &required("secrets/shop/gone")), Answer::NotDemanded);
    assert!(matches!(answer(&manifest, &held(&[]), &owner("ReplicaSet", "web")), Answer::Missing(_)));
}

#[test]
fn where_objects_of_the_type_were_left_out_one_by_one_it_cannot_be_told() {
    let mut manifest = source();
    manifest.types[0].excluded = vec![Exclusion { rule: ExclusionRule::ExcludeLabel, objects: 1 }];
    assert_eq!(answer(&manifest, &held(&[]), &required("secrets/shop/gone")), Answer::Untold);
}

#[test]
fn an_owner_is_known_by_its_uid() {
    let manifest = source();
    let with = held(&["replicasets.apps/shop/web"]);
    assert_eq!(answer(&manifest, &with, &owner("ReplicaSet", "web")), Answer::Found);
    let Answer::Missing(gone) = answer(&manifest, &held(&[]), &owner("ReplicaSet", "web")) else { panic!() };
    assert_eq!(gone, "its owner replicasets.apps/shop/web (metadata.ownerReferences[0]) is not in the backup");
    let mut reborn = owner("ReplicaSet", "web");
    if let Target::Kind { uid, .. } = &mut reborn.to {
        *uid = Some("another".into());
    }
    let Answer::Missing(other) = answer(&manifest, &with, &reborn) else { panic!() };
    assert!(other.ends_with("the object of that name there has another uid"), "{other}");
    assert_eq!(answer(&manifest, &with, &owner("Unserved", "web")), Answer::NotDemanded);
}

const DEFINITION: &str = "customresourcedefinitions.apiextensions.k8s.io/orders.shop.example.com";

/// The check of two orders, and of the API service `service` where there is one.
fn judge_orders(held: &Held, service: Option<Value>) -> Referred {
    let manifest = source();
    let mut references = References::new(&manifest, held).unwrap();
    let orders = resource("orders.shop.example.com", "Order", true);
    for name in ["a", "b"] {
        let object = json!({"metadata": {"name": name, "namespace": "shop"}});
        references.object(&orders, &ObjectRef::new(orders.name.clone(), Some("shop"), name), &object);
    }
    if let Some(service) = service {
        let services = resource("apiservices.apiregistration.k8s.io", "APIService", false);
        let name = "apiservices.apiregistration.k8s.io/v1.shop.example.com".parse().unwrap();
        references.object(&services, &name, &service);
    }
    references.judge()
}

#[test]
fn a_missing_definition_or_namespace_is_named_once_for_all_its_objects() {
    let sound = judge_orders(&held(&[DEFINITION, "namespaces/shop"]), None);
    assert_eq!(sound.check.judgement, Judgement::Passed, "{sound:?}");
    let order = "orders.shop.example.com/shop/a".parse().unwrap();
    assert!(!sound.absent.explains(&order));
    for (has, lacks) in [("namespaces/shop", DEFINITION), (DEFINITION, "namespaces.core/shop")] {
        let Referred { check, absent } = judge_orders(&held(&[has]), None);
        assert_eq!(check.findings.len(), 1, "{check:?}");
        assert_eq!(check.findings[0].subject, lacks);
        assert_eq!(check.findings[0].message, "not in the backup; no server takes the 2 objects in it that need it");
        assert!(absent.explains(&order));
        assert!(!absent.explains(&"configmaps/other/a".parse().unwrap()));
    }
}

#[test]
fn a_type_that_another_api_server_serves_needs_no_definition() {
    let service = json!({"metadata": {"name": "v1.shop.example.com"},
        "spec": {"group": "shop.example.com", "version": "v1", "service": {"name": "s", "namespace": "n"}}});
    let referred = judge_orders(&held(&["namespaces/shop"]), Some(service));
    assert!(referred.check.findings.is_empty(), "{referred:?}");
}

#[test]
fn what_an_old_revision_of_a_deployment_names_may_be_gone() {
    let manifest = manifest(vec![record("secrets", "Secret", 1), record("replicasets.apps", "ReplicaSet", 1)]);
    let missing = |replicas: u64| {
        let held = held(&["namespaces/shop"]);
        let mut references = References::new(&manifest, &held).unwrap();
        let sets = resource("replicasets.apps", "ReplicaSet", true);
        let volumes = json!([{"name": "v", "secret": {"secretName": "gone"}}]);
        let owners =
            json!([{"apiVersion": "apps/v1", "kind": "Deployment", "name": "web", "uid": "u", "controller": true}]);
        let set = json!({"metadata": {"name": "web-1", "namespace": "shop", "ownerReferences": owners},
            "spec": {"replicas": replicas, "template": {"spec": {"volumes": volumes}}}});
        references.object(&sets, &"replicasets.apps/shop/web-1".parse().unwrap(), &set);
        references.judge().check.findings.len()
    };
    assert_eq!((missing(0), missing(1)), (0, 1));
}
