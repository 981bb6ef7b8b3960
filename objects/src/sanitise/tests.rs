use serde_json::json;

use super::*;

fn resource(name: &str) -> ResourceType {
    let name: stillpoint_api::GroupResource = name.parse().unwrap();
    ResourceType { name, version: "v1".into(), kind: "K".into(), namespaced: true }
}

fn created(name: &str, object: Value, mapping: &Mapping) -> Value {
    match sanitise(&resource(name), object, mapping) {
        Sanitised::Create(mut object) => {
            remove(&mut object, &[], "apiVersion");
            remove(&mut object, &[], "kind");
            object
        }
        Sanitised::Skip(reason) => panic!("skipped: {reason}"),
    }
}

fn changed(name: &str, object: Value) -> Value {
    created(name, object, &Mapping::default())
}

fn skipped(name: &str, object: Value) -> Option<SkipReason> {
    match sanitise(&resource(name), object, &Mapping::default()) {
        Sanitised::Create(_) => None,
        Sanitised::Skip(reason) => Some(reason),
    }
}

fn shop_to_shop2() -> Mapping {
    Mapping { namespaces: BTreeMap::from([("shop".into(), "shop2".into())]), ..Mapping::default() }
}

#[test]
fn what_the_server_sets_goes_and_everything_else_stays() {
    let owner = json!({"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": "web", "uid": "old"});
    let object = json!({
        "metadata": {"name": "a", "namespace": "shop", "generateName": "a-", "uid": "u", "resourceVersion": "7",
            "generation": 3, "creationTimestamp": "t", "deletionTimestamp": "t", "deletionGracePeriodSeconds": 0,
            "managedFields": [], "selfLink": "/x", "labels": {"l": "1"}, "annotations": {"a": "1"},
            "finalizers": ["f"], "ownerReferences": [owner]},
        "spec": {"x": 1}, "status": {"y": 2}});
    assert_eq!(
        changed("widgets.example.com", object),
        json!({"metadata": {"name": "a", "namespace": "shop", "generateName": "a-", "labels": {"l": "1"},
            "annotations": {"a": "1"}, "finalizers": ["f"], "ownerReferences": [owner]}, "spec": {"x": 1}})
    );
}

#[test]
fn an_item_of_a_list_gets_its_type_and_one_that_has_it_keeps_it() {
    let of = |object| match sanitise(&resource("deployments.apps"), object, &Mapping::default()) {
        Sanitised::Create(object) => (object["apiVersion"].clone(), object["kind"].clone()),
        Sanitised::Skip(reason) => panic!("{reason}"),
    };
    assert_eq!(of(json!({"metadata": {"name": "a"}})), (json!("apps/v1"), json!("K")));
    assert_eq!(of(json!({"apiVersion": "apps/v2", "kind": "L"})), (json!("apps/v2"), json!("L")));
}

#[test]
fn each_kind_loses_what_only_the_captured_cluster_knew() {
    for (name, object, expected) in [
        (
            "pods",
            json!({"spec": {"nodeName": "n1", "priority": 7, "priorityClassName": "high", "ephemeralContainers": [{}],
                "serviceAccountName": "web",
                "volumes": [{"name": "t", "secret": {"secretName": "web-token-ab1cd"}},
                    {"name": "own", "secret": {"secretName": "web-token-of-mine"}}],
                "containers": [{"name": "c", "volumeMounts": [{"name": "t"}, {"name": "own"}]}],
                "initContainers": [{"name": "i", "volumeMounts": [{"name": "t"}]}]}}),
            json!({"spec": {"priorityClassName": "high", "serviceAccountName": "web",
                "volumes": [{"name": "own", "secret": {"secretName": "web-token-of-mine"}}],
                "containers": [{"name": "c", "volumeMounts": [{"name": "own"}]}],
                "initContainers": [{"name": "i"}]}}),
        ),
        (
            "serviceaccounts",
            json!({"metadata": {"name": "web"}, "secrets": [{"name": "web-token-ab1cd"}, {"name": "mine"}]}),
            json!({"metadata": {"name": "web"}, "secrets": [{"name": "mine"}]}),
        ),
        (
            "serviceaccounts",
            json!({"metadata": {"name": "web"}, "secrets": [{"name": "web-token-ab1cd"}]}),
            json!({"metadata": {"name": "web"}}),
        ),
        (
            "secrets",
            json!({"type": "kubernetes.io/service-account-token", "data": {"token": "x", "ca.crt": "x",
                "namespace": "x", "extra": "x"}, "metadata": {"name": "mine", "annotations": {
                "kubernetes.io/service-account.name": "web", "kubernetes.io/service-account.uid": "u"}}}),
            json!({"type": "kubernetes.io/service-account-token", "data": {"extra": "x"}, "metadata": {"name": "mine",
                "annotations": {"kubernetes.io/service-account.name": "web"}}}),
        ),
        (
            "secrets",
            json!({"type": "Opaque", "data": {"token": "x"}}),
            json!({"type": "Opaque", "data": {"token": "x"}}),
        ),
        (
            "persistentvolumeclaims",
            json!({"metadata": {"annotations": {"pv.kubernetes.io/bind-completed": "yes", "mine": "1",
                "volume.kubernetes.io/selected-node": "n"}}, "spec": {"volumeName": "pv-1"}}),
            json!({"metadata": {"annotations": {"mine": "1"}}, "spec": {"volumeName": "pv-1"}}),
        ),
        (
            "persistentvolumes",
            json!({"spec": {"claimRef": {"name": "data", "namespace": "shop", "uid": "u", "resourceVersion": "7"}}}),
            json!({"spec": {"claimRef": {"name": "data", "namespace": "shop"}}}),
        ),
        (
            "jobs.batch",
            json!({"metadata": {"labels": {"controller-uid": "u", "app": "j"}}, "spec": {"selector": {},
                "template": {"metadata": {"labels": {"controller-uid": "u", "batch.kubernetes.io/controller-uid": "u",
                "job-name": "j"}}}}}),
            json!({"metadata": {"labels": {"app": "j"}}, "spec": {"template": {"metadata": {"labels": {
                "job-name": "j"}}}}}),
        ),
        (
            "jobs.batch",
            json!({"spec": {"manualSelector": true, "selector": {"matchLabels": {"a": "b"}}}}),
            json!({"spec": {"manualSelector": true, "selector": {"matchLabels": {"a": "b"}}}}),
        ),
        (
            "validatingwebhookconfigurations.admissionregistration.k8s.io",
            json!({"webhooks": [{"sideEffects": "Unknown"}, {"sideEffects": "NoneOnDryRun"}]}),
            json!({"webhooks": [{"sideEffects": "None"}, {"sideEffects": "NoneOnDryRun"}]}),
        ),
        (
            "customresourcedefinitions.apiextensions.k8s.io",
            json!({"spec": {"preserveUnknownFields": true, "versions": [{"name": "v1"},
                {"name": "v2", "schema": {"openAPIV3Schema": {"type": "object", "properties": {}}}}]}}),
            json!({"spec": {"versions": [
                {"name": "v1", "schema": {"openAPIV3Schema": {"type": "object",
                    "x-kubernetes-preserve-unknown-fields": true}}},
                {"name": "v2", "schema": {"openAPIV3Schema": {"type": "object", "properties": {},
                    "x-kubernetes-preserve-unknown-fields": true}}}]}}),
        ),
    ] {
        assert_eq!(changed(name, object), expected, "{name}");
    }
}

#[test]
fn a_service_keeps_the_addresses_that_were_asked_for() {
    let ports = json!([{"port": 80, "nodePort": 30080}, {"port": 81, "protocol": "TCP", "nodePort": 30081}]);
    let given = json!({"spec": {"clusterIP": "10.0.0.1", "clusterIPs": ["10.0.0.1"], "healthCheckNodePort": 31000,
        "ports": ports}});
    assert_eq!(
        changed("services", given.clone()),
        json!({"spec": {"ports": [{"port": 80}, {"port": 81, "protocol": "TCP"}]}})
    );
    let headless = json!({"spec": {"clusterIP": "None", "clusterIPs": ["None"]}});
    assert_eq!(changed("services", headless.clone()), headless);

    let second_kept = json!([{"port": 80}, {"port": 81, "protocol": "TCP", "nodePort": 30081}]);
    let applied = json!({"spec": {"ports": [{"port": 80}, {"port": 81, "nodePort": 30081}]}}).to_string();
    let mut by_text = given.clone();
    by_text["metadata"] = json!({"annotations": {"kubectl.kubernetes.io/last-applied-configuration": applied}});
    assert_eq!(changed("services", by_text)["spec"], json!({"ports": second_kept}));

    let mut by_manager = given.clone();
    by_manager["metadata"] = json!({"managedFields": [{"manager": "helm", "fieldsV1": {"f:spec": {
        "f:healthCheckNodePort": {}, "f:ports": {".": {}, "k:{\"port\":80,\"protocol\":\"TCP\"}": {"f:port": {}},
        "k:{\"port\":81,\"protocol\":\"TCP\"}": {"f:nodePort": {}}}}}}]});
    assert_eq!(changed("services", by_manager)["spec"], json!({"healthCheckNodePort": 31000, "ports": second_kept}));

    let preserve = Mapping { preserve_node_ports: true, ..Mapping::default() };
    assert_eq!(created("services", given, &preserve)["spec"], json!({"healthCheckNodePort": 31000, "ports": ports}));
}

const FLOWS: &str = "flowschemas.flowcontrol.apiserver.k8s.io";

fn flow(name: &str, mark: Option<&str>) -> Value {
    let annotations = mark.map(|mark| json!({"apf.kubernetes.io/autoupdate-spec": mark}));
    json!({"metadata": {"name": name, "annotations": annotations}})
}

#[test]
fn what_would_be_wrong_or_double_elsewhere_is_left_out_with_its_reason() {
    use SkipReason::*;
    let labelled = |key: &str, value: &str| json!({"metadata": {"name": "x", "labels": {key: value}}});
    let at = |namespace: &str, name: &str| json!({"metadata": {"namespace": namespace, "name": name}});
    let bootstrap = labelled("kubernetes.io/bootstrapping", "rbac-defaults");
    let mut taken_over = bootstrap.clone();
    taken_over["metadata"]["annotations"] = json!({"rbac.authorization.kubernetes.io/autoupdate": "false"});
    let token = |name: &str| {
        json!({"type": "kubernetes.io/service-account-token", "metadata": {"name": name,
            "annotations": {"kubernetes.io/service-account.name": "web"}}})
    };
    let job_pod = json!({"metadata": {"ownerReferences": [{"kind": "Job", "name": "j", "controller": true}]}});
    let condition = |kind: &str| json!({"status": {"conditions": [{"type": kind, "status": "True"}]}});
    for (name, object, expected) in [
        ("nodes", json!({}), Some(NodeBound)),
        ("csinodes.storage.k8s.io", json!({}), Some(NodeBound)),
        ("volumeattachments.storage.k8s.io", json!({}), Some(NodeBound)),
        ("leases.coordination.k8s.io", at("kube-node-lease", "n1"), Some(NodeBound)),
        ("leases.coordination.k8s.io", at("shop", "leader"), None),
        ("events", json!({}), Some(Event)),
        ("events.events.k8s.io", json!({}), Some(Event)),
        ("pods", json!({"status": {"phase": "Succeeded"}}), Some(Finished)),
        ("pods", json!({"status": {"phase": "Failed"}}), Some(Finished)),
        ("pods", json!({"status": {"phase": "Running"}}), None),
        ("pods", json!({"metadata": {"annotations": {"kubernetes.io/config.mirror": "h"}}}), Some(MirrorPod)),
        ("pods", job_pod, Some(MadeByJob)),
        ("jobs.batch", json!({"status": {"completionTime": "t"}}), Some(Finished)),
        ("jobs.batch", condition("Failed"), Some(Finished)),
        ("jobs.batch", condition("Suspended"), None),
        ("secrets", token("web-token-ab1cd"), Some(AccountToken)),
        ("secrets", token("web-token-for-ci"), None),
        ("secrets", json!({"type": "Opaque", "metadata": {"name": "web-token-ab1cd"}}), None),
        ("configmaps", at("shop", "kube-root-ca.crt"), Some(MadeByCluster)),
        ("configmaps", at("kube-system", "extension-apiserver-authentication"), Some(MadeByCluster)),
        ("configmaps", at("shop", "extension-apiserver-authentication"), None),
        ("serviceaccounts", at("shop", "default"), None),
        ("namespaces", json!({"metadata": {"name": "kube-system"}}), None),
        ("services", at("default", "kubernetes"), Some(MadeByCluster)),
        ("services", at("shop", "kubernetes"), None),
        (
            "priorityclasses.scheduling.k8s.io",
            json!({"metadata": {"name": "system-node-critical"}}),
            Some(MadeByCluster),
        ),
        ("clusterroles.rbac.authorization.k8s.io", bootstrap, Some(MadeByCluster)),
        ("clusterroles.rbac.authorization.k8s.io", taken_over, None),
        ("clusterroles.rbac.authorization.k8s.io", labelled("app", "x"), None),
        (FLOWS, flow("catch-all", None), Some(MadeByCluster)),
        (FLOWS, flow("catch-all", Some("false")), None),
        (FLOWS, flow("anything", Some("true")), Some(MadeByCluster)),
        (FLOWS, flow("ours", None), None),
        (
            "apiservices.apiregistration.k8s.io",
            labelled("kube-aggregator.kubernetes.io/automanaged", "onstart"),
            Some(MadeByCluster),
        ),
        ("apiservices.apiregistration.k8s.io", json!({}), None),
        ("certificatesigningrequests.certificates.k8s.io", json!({}), Some(Request)),
        ("backups.velero.io", json!({}), Some(BackupTool)),
        ("backups.stillpoint.dev", json!({}), Some(BackupTool)),
        ("nodes.example.com", json!({}), None),
    ] {
        assert_eq!(skipped(name, object.clone()), expected, "{name} {object}");
    }
}

#[test]
fn namespaces_are_mapped_wherever_an_object_names_them() {
    let mapping = shop_to_shop2();
    let service = |namespace: &str| json!({"namespace": namespace, "name": "hook"});
    for (name, object, expected) in [
        (
            "configmaps",
            json!({"metadata": {"namespace": "shop", "name": "shop"}}),
            json!({"metadata": {"namespace": "shop2", "name": "shop"}}),
        ),
        (
            "namespaces",
            json!({"metadata": {"name": "shop", "labels": {"kubernetes.io/metadata.name": "shop", "a": "shop"}}}),
            json!({"metadata": {"name": "shop2", "labels": {"kubernetes.io/metadata.name": "shop2", "a": "shop"}}}),
        ),
        ("namespaces", json!({"metadata": {"name": "other"}}), json!({"metadata": {"name": "other"}})),
        (
            "clusterrolebindings.rbac.authorization.k8s.io",
            json!({"subjects": [{"kind": "ServiceAccount", "name": "a", "namespace": "shop"},
                {"kind": "User", "name": "shop"}]}),
            json!({"subjects": [{"kind": "ServiceAccount", "name": "a", "namespace": "shop2"},
                {"kind": "User", "name": "shop"}]}),
        ),
        (
            "persistentvolumes",
            json!({"spec": {"claimRef": {"namespace": "shop", "name": "d"}}}),
            json!({"spec": {"claimRef": {"namespace": "shop2", "name": "d"}}}),
        ),
        (
            "mutatingwebhookconfigurations.admissionregistration.k8s.io",
            json!({"webhooks": [{"clientConfig": {"service": service("shop")}}]}),
            json!({"webhooks": [{"clientConfig": {"service": service("shop2")}}]}),
        ),
        (
            "apiservices.apiregistration.k8s.io",
            json!({"spec": {"service": service("shop")}}),
            json!({"spec": {"service": service("shop2")}}),
        ),
        (
            "customresourcedefinitions.apiextensions.k8s.io",
            json!({"spec": {"conversion": {"webhook": {"clientConfig": {"service": service("shop")}}}}}),
            json!({"spec": {"conversion": {"webhook": {"clientConfig": {"service": service("shop2")}}}}}),
        ),
    ] {
        assert_eq!(created(name, object, &mapping), expected, "{name}");
    }
}

#[test]
fn a_volume_that_is_made_anew_leaves_its_claim_unbound() {
    let mapping = Mapping { reprovisioned: BTreeSet::from(["pv-1".into()]), ..Mapping::default() };
    let volume = json!({"metadata": {"name": "pv-1"}});
    assert_eq!(sanitise(&resource("persistentvolumes"), volume, &mapping), Sanitised::Skip(SkipReason::Reprovisioned));
    let claim = |volume: &str| json!({"spec": {"volumeName": volume}});
    assert_eq!(created("persistentvolumeclaims", claim("pv-1"), &mapping), json!({"spec": {}}));
    assert_eq!(created("persistentvolumeclaims", claim("pv-2"), &mapping), claim("pv-2"));

    let made = |policy: &str| {
        json!({"metadata": {"annotations": {"pv.kubernetes.io/provisioned-by": "x"}},
            "spec": {"persistentVolumeReclaimPolicy": policy}})
    };
    assert!(is_provisioned_on_demand(&made("Delete")) && !is_provisioned_on_demand(&made("Retain")));
    assert!(!is_provisioned_on_demand(&json!({"spec": {"persistentVolumeReclaimPolicy": "Delete"}})));
}

#[test]
fn a_claim_whose_data_is_put_back_is_made_from_nothing_and_a_volume_made_for_it_is_left_out() {
    let refilled = BTreeSet::from([("shop".to_owned(), "data".to_owned())]);
    let mapping =
        Mapping { refilled, storage_classes: BTreeMap::from([("old".into(), "new".into())]), ..shop_to_shop2() };
    let claim = |name: &str, class: &str, volume: Value| {
        let metadata = json!({"name": name, "namespace": "shop"});
        let mut claim = json!({"metadata": metadata, "spec": {"storageClassName": class}});
        claim["spec"].as_object_mut().unwrap().extend(volume.as_object().unwrap().clone());
        created("persistentvolumeclaims", claim, &mapping)["spec"].clone()
    };
    let source = json!({"volumeName": "pv-1", "dataSource": {}, "dataSourceRef": {}});
    assert_eq!(claim("data", "fast", source.clone()), json!({"storageClassName": "fast"}));
    assert_eq!(claim("data", "old", source.clone()), json!({"storageClassName": "new"}));
    let volume = json!({"volumeName": "pv-1"});
    assert_eq!(claim("other", "fast", volume.clone()), json!({"storageClassName": "fast", "volumeName": "pv-1"}));
    assert_eq!(claim("other", "old", volume), json!({"storageClassName": "new"}), "its volume is of the other class");

    let is_left_out = |claim: &str, class: &str, annotations: Value| {
        let spec = json!({"storageClassName": class, "claimRef": {"namespace": "shop", "name": claim}});
        let volume = json!({"metadata": {"name": "pv-1", "annotations": annotations}, "spec": spec});
        matches!(sanitise(&resource("persistentvolumes"), volume, &mapping), Sanitised::Skip(SkipReason::Reprovisioned))
    };
    let provisioned = json!({"pv.kubernetes.io/provisioned-by": "x"});
    assert!(is_left_out("data", "fast", provisioned.clone()) && is_left_out("data", "old", json!({})));
    assert!(!is_left_out("data", "fast", json!({})), "somebody made it by hand, for this claim");
    assert!(!is_left_out("other", "fast", provisioned));
}

#[test]
fn labels_are_added_only_where_they_are_asked_for() {
    let labels = RestoreLabels { backup: "shop-1".into(), restore: "r".into() };
    let mapping = Mapping { labels: Some(labels), ..Mapping::default() };
    assert_eq!(
        created("configmaps", json!({"metadata": {"name": "a"}}), &mapping),
        json!({"metadata": {"name": "a", "labels": {BACKUP_LABEL: "shop-1", RESTORE_LABEL: "r"}}})
    );
}

#[test]
fn an_object_of_any_shape_is_passed_on_without_harm() {
    for object in [json!(null), json!([1]), json!("x"), json!({"metadata": [], "spec": 7})] {
        for name in ["pods", "services", "jobs.batch", "namespaces", "customresourcedefinitions.apiextensions.k8s.io"] {
            assert!(matches!(sanitise(&resource(name), object.clone(), &shop_to_shop2()), Sanitised::Create(_)));
        }
    }
}
