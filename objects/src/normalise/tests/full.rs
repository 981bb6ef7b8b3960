//! Objects with as many fields as a cluster may give them, and something for every rule.

use serde_json::{Value, json};

/// Types and objects; some types twice, where a rule and its condition exclude each other.
pub(super) fn objects() -> Vec<(&'static str, Value)> {
    let mut objects = vec![
        ("namespaces", namespace()),
        ("pods", pod("web-token-ab1cd", json!({"secret": {"secretName": "web-token-ab1cd", "defaultMode": 420}}))),
        ("pods", pod("kube-api-access-ab1cd", json!({"projected": {"sources": [{"serviceAccountToken": {}}]}}))),
        ("podtemplates", json!({"template": template()})),
        ("deployments.apps", deployment()),
        ("statefulsets.apps", stateful_set()),
        ("daemonsets.apps", daemon_set()),
        ("jobs.batch", job()),
        ("cronjobs.batch", cron_job()),
        ("services", service()),
        ("services", headless()),
        ("configmaps", json!({"data": {"a": "1", "b.conf": "x"}, "binaryData": {"c": "AA=="}, "immutable": true})),
        ("secrets", json!({"type": "Opaque", "data": {"password": "aHVudGVyMg==", "token": "dA==", "ca.crt": "Yw=="}})),
        ("secrets", token()),
        ("serviceaccounts", service_account()),
        ("clusterroles.rbac.authorization.k8s.io", role()),
        ("clusterroles.rbac.authorization.k8s.io", aggregated_role()),
        ("ingresses.networking.k8s.io", ingress()),
        (
            "ingressclasses.networking.k8s.io",
            json!({"spec": {"controller": "x", "parameters": {"apiGroup": "k8s.example.com",
            "kind": "P", "name": "p", "scope": "Cluster"}}}),
        ),
        ("persistentvolumeclaims", claim()),
        ("persistentvolumes", volume()),
        (
            "csidrivers.storage.k8s.io",
            json!({"spec": {"attachRequired": true, "podInfoOnMount": false,
            "fsGroupPolicy": "ReadWriteOnceWithFSType", "requiresRepublish": false, "seLinuxMount": false,
            "storageCapacity": false}}),
        ),
        ("horizontalpodautoscalers.autoscaling", autoscaler()),
        (
            "prioritylevelconfigurations.flowcontrol.apiserver.k8s.io",
            json!({"spec": {"type": "Limited",
            "limited": {"lendablePercent": 0, "nominalConcurrencyShares": 5}}}),
        ),
        ("validatingwebhookconfigurations.admissionregistration.k8s.io", webhooks()),
        ("mutatingwebhookconfigurations.admissionregistration.k8s.io", webhooks()),
        ("customresourcedefinitions.apiextensions.k8s.io", definition(true)),
        ("customresourcedefinitions.apiextensions.k8s.io", definition(false)),
        (
            "orders.shop.example.com",
            json!({"spec": {"items": [{"name": "tea", "count": 2}], "priority": 7,
            "nodeName": "n", "selector": {"a": "b"}, "clusterIP": "x", "nullable": null, "empty": {}}}),
        ),
    ];
    for (_, object) in &mut objects {
        complete(object);
    }
    objects
}

/// The metadata that every object has.
fn complete(object: &mut Value) {
    object["apiVersion"] = object.get("apiVersion").cloned().unwrap_or("v1".into());
    object["kind"] = "Kind".into();
    let mut metadata = json!({
        "name": "web", "namespace": "shop", "generateName": "web-", "uid": "7c1d", "resourceVersion": "4711",
        "generation": 3, "creationTimestamp": "2026-11-24T00:00:00Z", "selfLink": "/x", "finalizers": ["example.com/f"],
        "managedFields": [{"manager": "kubectl", "fieldsV1": {"f:spec": {}}}],
        "labels": {"app.kubernetes.io/name": "web", "stillpoint.dev/backup-name": "b",
            "stillpoint.dev/restore-name": "r"},
        "annotations": {"example.com/note": "n"},
        "ownerReferences": [{"apiVersion": "shop.example.com/v1", "kind": "Shop", "name": "s", "uid": "o-1",
            "controller": true, "blockOwnerDeletion": true}]
    });
    if let Some(own) = object.get_mut("metadata").map(Value::take) {
        for field in ["labels", "annotations"] {
            for (key, value) in own[field].as_object().into_iter().flatten() {
                metadata[field][key] = value.clone();
            }
        }
    }
    object["metadata"] = metadata;
    object["status"] = json!({"conditions": [{"type": "Ready", "status": "True"}], "observedGeneration": 3});
}

fn namespace() -> Value {
    json!({"metadata": {"labels": {"kubernetes.io/metadata.name": "web"}}, "spec": {"finalizers": ["kubernetes"]}})
}

fn pod_spec() -> Value {
    json!({
        "serviceAccountName": "web", "serviceAccount": "web", "restartPolicy": "Always", "dnsPolicy": "ClusterFirst",
        "terminationGracePeriodSeconds": 30, "schedulerName": "default-scheduler", "hostNetwork": true,
        "securityContext": {"runAsUser": 1000, "fsGroup": 2000, "seccompProfile": {"type": "RuntimeDefault"}},
        "nodeSelector": {"disk": "ssd"}, "imagePullSecrets": [{"name": "pull"}],
        "affinity": {"podAntiAffinity": {"preferredDuringSchedulingIgnoredDuringExecution": [{"weight": 1}]}},
        "tolerations": [{"key": "k", "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 300}],
        "initContainers": [{"name": "init", "image": "busybox:1", "command": ["sh", "-c", "true"],
            "volumeMounts": [{"name": "conf", "mountPath": "/conf"}]}],
        "containers": [{
            "name": "web", "image": "nginx:1", "imagePullPolicy": "IfNotPresent", "args": ["-g", "daemon off;"],
            "ports": [{"name": "http", "containerPort": 80, "protocol": "TCP"}],
            "env": [{"name": "A", "value": "1"},
                {"name": "P", "valueFrom": {"secretKeyRef": {"name": "db", "key": "password"}}}],
            "resources": {"requests": {"cpu": "100m"}, "limits": {"memory": "64Mi"}},
            "livenessProbe": {"httpGet": {"path": "/", "port": 80, "scheme": "HTTP"}, "periodSeconds": 10},
            "volumeMounts": [{"name": "conf", "mountPath": "/conf", "readOnly": true}],
            "terminationMessagePath": "/dev/termination-log"}],
        "volumes": [{"name": "conf", "configMap": {"name": "conf", "defaultMode": 420}},
            {"name": "data", "persistentVolumeClaim": {"claimName": "data"}}]
    })
}

fn pod(token: &str, source: Value) -> Value {
    let mut spec = pod_spec();
    spec["nodeName"] = "node-1".into();
    spec["priority"] = 1000.into();
    spec["priorityClassName"] = "high".into();
    spec["ephemeralContainers"] = json!([{"name": "debug", "image": "busybox:1"}]);
    let mut volume = source;
    volume["name"] = token.into();
    push(&mut spec["volumes"], volume);
    let mount = json!({"name": token, "mountPath": "/var/run/secrets/kubernetes.io/serviceaccount", "readOnly": true});
    push(&mut spec["containers"][0]["volumeMounts"], mount.clone());
    push(&mut spec["initContainers"][0]["volumeMounts"], mount);
    json!({ "spec": spec })
}

fn push(list: &mut Value, element: Value) {
    list.as_array_mut().unwrap().push(element);
}

fn template() -> Value {
    json!({"metadata": {"creationTimestamp": null, "labels": {"app": "web"}}, "spec": pod_spec()})
}

fn deployment() -> Value {
    json!({"apiVersion": "apps/v1", "spec": {"replicas": 3, "revisionHistoryLimit": 10, "paused": false,
        "selector": {"matchLabels": {"app": "web"}}, "template": template(),
        "strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": "25%", "maxUnavailable": 1}}}})
}

fn stateful_set() -> Value {
    json!({"apiVersion": "apps/v1", "spec": {"replicas": 2, "serviceName": "db", "template": template(),
        "podManagementPolicy": "OrderedReady", "updateStrategy": {"type": "RollingUpdate"},
        "persistentVolumeClaimRetentionPolicy": {"whenDeleted": "Retain", "whenScaled": "Retain"},
        "volumeClaimTemplates": [{"metadata": {"name": "data", "creationTimestamp": null},
            "spec": {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}}}]}})
}

fn daemon_set() -> Value {
    json!({"apiVersion": "apps/v1", "spec": {"template": template(),
        "updateStrategy": {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 0, "maxUnavailable": 1}}}})
}

fn job() -> Value {
    let mut template = template();
    let labels = json!({"controller-uid": "7c1d", "batch.kubernetes.io/controller-uid": "7c1d", "job-name": "web",
        "batch.kubernetes.io/job-name": "web"});
    template["metadata"]["labels"] = labels.clone();
    let mut object = json!({"apiVersion": "batch/v1", "spec": {"backoffLimit": 6, "completions": 1, "parallelism": 1,
        "completionMode": "NonIndexed", "manualSelector": false, "suspend": false,
        "podReplacementPolicy": "TerminatingOrFailed", "selector": {"matchLabels": {"controller-uid": "7c1d"}},
        "template": template}});
    object["metadata"]["labels"] = labels;
    object
}

fn cron_job() -> Value {
    json!({"apiVersion": "batch/v1", "spec": {"schedule": "0 3 * * *", "concurrencyPolicy": "Forbid", "suspend": false,
        "jobTemplate": {"metadata": {"creationTimestamp": null}, "spec": {"template": template()}}}})
}

fn service() -> Value {
    json!({"spec": {"type": "LoadBalancer", "clusterIP": "10.96.0.7", "clusterIPs": ["10.96.0.7"],
        "ipFamilies": ["IPv4"], "ipFamilyPolicy": "SingleStack", "internalTrafficPolicy": "Cluster",
        "externalTrafficPolicy": "Local", "healthCheckNodePort": 31000, "allocateLoadBalancerNodePorts": true,
        "sessionAffinity": "None", "selector": {"app": "web"},
        "ports": [{"name": "http", "port": 80, "protocol": "TCP", "targetPort": 8080, "nodePort": 30080},
            {"name": "https", "port": 443, "protocol": "TCP", "targetPort": "tls", "nodePort": 30443}]}})
}

fn headless() -> Value {
    json!({"spec": {"type": "ClusterIP", "clusterIP": "None", "clusterIPs": ["None"], "selector": {"app": "db"},
        "ports": [{"port": 5432, "protocol": "TCP", "targetPort": 5432}]}})
}

fn token() -> Value {
    json!({"type": "kubernetes.io/service-account-token",
        "metadata": {"annotations": {"kubernetes.io/service-account.name": "web",
            "kubernetes.io/service-account.uid": "u-1"}},
        "data": {"token": "dA==", "ca.crt": "Yw==", "namespace": "c2hvcA==", "extra": "eA=="}})
}

fn service_account() -> Value {
    json!({"secrets": [{"name": "web-token-ab1cd"}, {"name": "mine"}], "imagePullSecrets": [{"name": "pull"}],
        "automountServiceAccountToken": false})
}

fn role() -> Value {
    json!({"rules": [{"apiGroups": ["apps"], "resources": ["deployments"], "verbs": ["get", "list"]}]})
}

fn aggregated_role() -> Value {
    json!({"aggregationRule": {"clusterRoleSelectors": [{"matchLabels": {"a": "b"}}]}, "rules": [{"verbs": ["get"]}]})
}

fn ingress() -> Value {
    json!({"apiVersion": "networking.k8s.io/v1", "spec": {"ingressClassName": "nginx",
        "tls": [{"hosts": ["shop.example.com"], "secretName": "cert"}],
        "rules": [{"host": "shop.example.com", "http": {"paths": [{"path": "/", "pathType": "Prefix",
            "backend": {"service": {"name": "web", "port": {"number": 80}}}}]}}]}})
}

fn claim() -> Value {
    json!({"metadata": {"annotations": {"pv.kubernetes.io/bind-completed": "yes",
            "pv.kubernetes.io/bound-by-controller": "yes", "volume.beta.kubernetes.io/storage-provisioner": "x",
            "volume.kubernetes.io/storage-provisioner": "x", "volume.kubernetes.io/selected-node": "n"}},
        "spec": {"accessModes": ["ReadWriteOnce"], "storageClassName": "fast", "volumeMode": "Filesystem",
            "volumeName": "pv-1", "resources": {"requests": {"storage": "1Gi"}}}})
}

fn volume() -> Value {
    json!({"metadata": {"annotations": {"pv.kubernetes.io/bound-by-controller": "yes"}},
        "spec": {"accessModes": ["ReadWriteOnce"], "capacity": {"storage": "1Gi"}, "storageClassName": "fast",
            "persistentVolumeReclaimPolicy": "Retain", "volumeMode": "Filesystem",
            "hostPath": {"path": "/data", "type": ""},
            "claimRef": {"apiVersion": "v1", "kind": "PersistentVolumeClaim", "namespace": "shop", "name": "data",
                "uid": "c-1", "resourceVersion": "9"}}})
}

fn autoscaler() -> Value {
    json!({"apiVersion": "autoscaling/v1",
        "metadata": {"annotations": {"autoscaling.alpha.kubernetes.io/conditions": "[]",
            "autoscaling.alpha.kubernetes.io/current-metrics": "[]", "autoscaling.alpha.kubernetes.io/behavior": "{}"}},
        "spec": {"minReplicas": 1, "maxReplicas": 5, "targetCPUUtilizationPercentage": 80,
            "scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": "web"}}})
}

fn webhooks() -> Value {
    let webhook = |name: &str, side_effects: &str| {
        json!({"name": name, "sideEffects": side_effects, "failurePolicy": "Fail", "timeoutSeconds": 10,
            "clientConfig": {"caBundle": "Yw==", "service": {"namespace": "shop", "name": "hook", "path": "/v"}},
            "rules": [{"apiGroups": [""], "resources": ["pods"], "operations": ["CREATE"]}]})
    };
    json!({"webhooks": [webhook("a.example.com", "Unknown"), webhook("b.example.com", "NoneOnDryRun")]})
}

fn definition(preserves: bool) -> Value {
    json!({"spec": {"group": "shop.example.com", "scope": "Namespaced", "preserveUnknownFields": preserves,
        "conversion": {"strategy": "None"},
        "names": {"plural": "orders", "singular": "order", "kind": "Order", "listKind": "OrderList"},
        "versions": [{"name": "v1", "served": true, "storage": true, "schema": {"openAPIV3Schema": {"type": "object",
            "properties": {"spec": {"type": "object"}}}}}]}})
}
