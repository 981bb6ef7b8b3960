use serde_json::json;

use super::*;

/// Every reference as `need path -> target`, sorted; the namespace's own is left out.
fn of(resource: &str, mut object: Value) -> Vec<String> {
    object["metadata"]["name"] = "x".into();
    let found = references(&resource.parse().unwrap(), &object);
    let mut lines: Vec<_> = found
        .into_iter()
        .filter(|reference| reference.from_path != "metadata.namespace")
        .map(|Reference { from_path, to, need }| match to {
            Target::Object(object) => format!("{need:?} {from_path} -> {object}"),
            Target::Kind { api_version, kind, namespace, name, uid } => {
                format!("{need:?} {from_path} -> {api_version} {kind} {namespace:?} {name} {uid:?}")
            }
        })
        .collect();
    lines.sort();
    lines
}

fn in_shop(object: Value) -> Value {
    let mut object = object;
    object["metadata"] = json!({"namespace": "shop"});
    object
}

fn pod_spec() -> Value {
    json!({
        "serviceAccountName": "web",
        "priorityClassName": "high",
        "runtimeClassName": "gvisor",
        "imagePullSecrets": [{"name": "pull"}],
        "volumes": [
            {"name": "a", "secret": {"secretName": "tls"}},
            {"name": "b", "secret": {"secretName": "maybe", "optional": true}},
            {"name": "c", "configMap": {"name": "conf", "optional": false}},
            {"name": "d", "persistentVolumeClaim": {"claimName": "data"}},
            {"name": "e", "projected": {"sources": [
                {"configMap": {"name": "kube-root-ca.crt"}}, {"secret": {"name": "projected"}}, {"downwardAPI": {}}]}},
            {"name": "f", "csi": {"driver": "x", "nodePublishSecretRef": {"name": "csi"}}},
            {"name": "g", "ephemeral": {"volumeClaimTemplate": {"spec": {"storageClassName": "fast"}}}},
            {"name": "h", "emptyDir": {}}
        ],
        "initContainers": [{"name": "i", "envFrom": [{"configMapRef": {"name": "env"}}]}],
        "containers": [{"name": "c", "env": [
            {"name": "PLAIN", "value": "1"},
            {"name": "KEY", "valueFrom": {"secretKeyRef": {"name": "db", "key": "password"}}},
            {"name": "OPT", "valueFrom": {"configMapKeyRef": {"name": "opt", "key": "k", "optional": true}}}],
            "envFrom": [{"secretRef": {"name": "all", "optional": true}}]}]
    })
}

fn pod_references(path: &str) -> Vec<String> {
    let mut lines: Vec<_> = [
        "Optional P.containers[0].env[2].valueFrom.configMapKeyRef.name -> configmaps.core/shop/opt",
        "Optional P.containers[0].envFrom[0].secretRef.name -> secrets.core/shop/all",
        "Optional P.imagePullSecrets[0].name -> secrets.core/shop/pull",
        "Optional P.volumes[1].secret.secretName -> secrets.core/shop/maybe",
        "Optional P.volumes[6].ephemeral.volumeClaimTemplate.spec.storageClassName -> storageclasses.storage.k8s.io/fast",
        "Required P.containers[0].env[1].valueFrom.secretKeyRef.name -> secrets.core/shop/db",
        "Required P.initContainers[0].envFrom[0].configMapRef.name -> configmaps.core/shop/env",
        "Required P.priorityClassName -> priorityclasses.scheduling.k8s.io/high",
        "Required P.runtimeClassName -> runtimeclasses.node.k8s.io/gvisor",
        "Required P.serviceAccountName -> serviceaccounts.core/shop/web",
        "Required P.volumes[0].secret.secretName -> secrets.core/shop/tls",
        "Required P.volumes[2].configMap.name -> configmaps.core/shop/conf",
        "Required P.volumes[3].persistentVolumeClaim.claimName -> persistentvolumeclaims.core/shop/data",
        "Required P.volumes[4].projected.sources[1].secret.name -> secrets.core/shop/projected",
        "Required P.volumes[5].csi.nodePublishSecretRef.name -> secrets.core/shop/csi",
        "System P.volumes[4].projected.sources[0].configMap.name -> configmaps.core/shop/kube-root-ca.crt",
    ]
    .iter()
    .map(|line| line.replacen('P', path, 1))
    .collect();
    lines.sort();
    lines
}

#[test]
fn a_pod_spec_is_read_the_same_wherever_it_lives() {
    for (resource, path) in [
        ("pods", "spec"),
        ("podtemplates", "template.spec"),
        ("replicationcontrollers", "spec.template.spec"),
        ("deployments.apps", "spec.template.spec"),
        ("daemonsets.apps", "spec.template.spec"),
        ("replicasets.apps", "spec.template.spec"),
        ("statefulsets.apps", "spec.template.spec"),
        ("jobs.batch", "spec.template.spec"),
        ("cronjobs.batch", "spec.jobTemplate.spec.template.spec"),
    ] {
        let object = path.rsplit('.').fold(pod_spec(), |inner, field| json!({ field: inner }));
        assert_eq!(of(resource, in_shop(object)), pod_references(path), "{resource}");
    }
}

#[test]
fn each_kind_names_what_it_refers_to() {
    let shop = "shop";
    for (resource, object, expected) in [
        (
            "statefulsets.apps",
            json!({"spec": {"serviceName": "db", "volumeClaimTemplates": [{"spec": {"storageClassName": "fast"}}]}}),
            vec![
                "Optional spec.serviceName -> services.core/shop/db",
                "Optional spec.volumeClaimTemplates[0].spec.storageClassName -> storageclasses.storage.k8s.io/fast",
            ],
        ),
        (
            "serviceaccounts",
            json!({"secrets": [{"name": "a"}], "imagePullSecrets": [{"name": "b"}]}),
            vec![
                "Optional imagePullSecrets[0].name -> secrets.core/shop/b",
                "Optional secrets[0].name -> secrets.core/shop/a",
            ],
        ),
        (
            "persistentvolumeclaims",
            json!({"spec": {"volumeName": "pv-1", "storageClassName": "fast", "volumeAttributesClassName": "gold"}}),
            vec![
                "Optional spec.storageClassName -> storageclasses.storage.k8s.io/fast",
                "Optional spec.volumeAttributesClassName -> volumeattributesclasses.storage.k8s.io/gold",
                "Required spec.volumeName -> persistentvolumes.core/pv-1",
            ],
        ),
        (
            "persistentvolumes",
            json!({"spec": {"claimRef": {"namespace": shop, "name": "data"},
                "csi": {"nodeStageSecretRef": {"namespace": "csi", "name": "key"}}}}),
            vec![
                "Optional spec.claimRef -> persistentvolumeclaims.core/shop/data",
                "Required spec.csi.nodeStageSecretRef -> secrets.core/csi/key",
            ],
        ),
        (
            "ingresses.networking.k8s.io",
            json!({"spec": {"ingressClassName": "nginx", "tls": [{"secretName": "cert"}],
                "defaultBackend": {"service": {"name": "web", "port": {"number": 80}}},
                "rules": [{"http": {"paths": [{"backend": {"resource": {"apiGroup": "k8s.example.com",
                    "kind": "Bucket", "name": "static"}}}]}}]}}),
            vec![
                "Optional spec.ingressClassName -> ingressclasses.networking.k8s.io/nginx",
                "Optional spec.tls[0].secretName -> secrets.core/shop/cert",
                "Required spec.defaultBackend.service.name -> services.core/shop/web",
                "Required spec.rules[0].http.paths[0].backend.resource -> k8s.example.com/v1 Bucket Some(\"shop\") \
                 static None",
            ],
        ),
        (
            "horizontalpodautoscalers.autoscaling",
            json!({"spec": {"scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": "web"}}}),
            vec!["Required spec.scaleTargetRef -> apps/v1 Deployment Some(\"shop\") web None"],
        ),
        (
            "rolebindings.rbac.authorization.k8s.io",
            json!({"roleRef": {"kind": "Role", "name": "reader"}, "subjects": [
                {"kind": "ServiceAccount", "name": "web"}, {"kind": "ServiceAccount", "name": "o", "namespace": "ops"},
                {"kind": "User", "name": "jane"}]}),
            vec![
                "Optional subjects[0] -> serviceaccounts.core/shop/web",
                "Optional subjects[1] -> serviceaccounts.core/ops/o",
                "Required roleRef -> roles.rbac.authorization.k8s.io/shop/reader",
            ],
        ),
        ("secrets", json!({"type": "kubernetes.io/service-account-token"}), vec![]),
        ("services", json!({"spec": {"selector": {"app": "web"}}}), vec![]),
        ("poddisruptionbudgets.policy", json!({"spec": {"selector": {"matchLabels": {"app": "web"}}}}), vec![]),
    ] {
        assert_eq!(of(resource, in_shop(object)), expected, "{resource}");
    }
}

#[test]
fn cluster_scoped_kinds_name_namespaced_objects_with_their_namespace() {
    let service = json!({"namespace": "shop", "name": "hook"});
    for (resource, object, expected) in [
        (
            "validatingwebhookconfigurations.admissionregistration.k8s.io",
            json!({"webhooks": [{"clientConfig": {"url": "https://x"}}, {"clientConfig": {"service": service}}]}),
            vec!["Required webhooks[1].clientConfig.service -> services.core/shop/hook"],
        ),
        (
            "apiservices.apiregistration.k8s.io",
            json!({"spec": {"service": service}}),
            vec!["Required spec.service -> services.core/shop/hook"],
        ),
        (
            "customresourcedefinitions.apiextensions.k8s.io",
            json!({"spec": {"conversion": {"webhook": {"clientConfig": {"service": service}}}}}),
            vec!["Required spec.conversion.webhook.clientConfig.service -> services.core/shop/hook"],
        ),
        (
            "clusterrolebindings.rbac.authorization.k8s.io",
            json!({"roleRef": {"kind": "ClusterRole", "name": "ops"},
                "subjects": [{"kind": "ServiceAccount", "name": "web", "namespace": "shop"}]}),
            vec![
                "Optional subjects[0] -> serviceaccounts.core/shop/web",
                "Required roleRef -> clusterroles.rbac.authorization.k8s.io/ops",
            ],
        ),
    ] {
        assert_eq!(of(resource, object), expected, "{resource}");
    }
}

#[test]
fn the_namespace_the_definition_and_the_owners_are_references_of_every_object() {
    let object = json!({"metadata": {"namespace": "shop", "name": "o", "ownerReferences": [
        {"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": "web-1", "uid": "u-1"}]}});
    let found = references(&"orders.shop.example.com".parse().unwrap(), &object);
    let object = |name: &str| Target::Object(name.parse().unwrap());
    assert_eq!(found[0].to, object("namespaces.core/shop"));
    assert_eq!(found[1].to, object("customresourcedefinitions.apiextensions.k8s.io/orders.shop.example.com"));
    assert_eq!(found[2].need, Need::Owner);
    assert!(matches!(&found[2].to, Target::Kind { kind, uid: Some(uid), .. } if kind == "ReplicaSet" && uid == "u-1"));
}

#[test]
fn what_every_cluster_makes_is_not_demanded() {
    let object =
        in_shop(json!({"spec": {"serviceAccountName": "default", "priorityClassName": "system-node-critical"}}));
    assert!(of("pods", object).iter().all(|line| line.starts_with("System")));
    let bound = in_shop(json!({"roleRef": {"kind": "ClusterRole", "name": "view"}}));
    assert!(of("rolebindings.rbac.authorization.k8s.io", bound)[0].starts_with("System"));
    let found = references(&"configmaps".parse().unwrap(), &json!({"metadata": {"namespace": "kube-system"}}));
    assert_eq!(found[0].need, Need::System);
}

#[test]
fn groups_of_the_server_itself_have_no_definitions() {
    for group in ["", "apps", "batch", "rbac.authorization.k8s.io", "flowcontrol.apiserver.k8s.io", "extensions"] {
        assert!(is_built_in(group), "{group}");
    }
    for group in ["shop.example.com", "gateway.networking.k8s.io", "snapshot.storage.k8s.io", "cluster.x-k8s.io"] {
        assert!(!is_built_in(group), "{group}");
    }
}

#[test]
fn an_object_of_any_shape_is_read_without_harm() {
    for object in
        [json!(null), json!([]), json!({"spec": []}), json!({"spec": {"volumes": {"a": 1}, "containers": [7]}})]
    {
        for resource in
            ["pods", "ingresses.networking.k8s.io", "persistentvolumes", "rolebindings.rbac.authorization.k8s.io"]
        {
            assert!(references(&resource.parse().unwrap(), &object).is_empty());
        }
    }
}
