//! The manifests are what they are meant to be: nothing misspelt, nothing unmarked, no right that is not explained.

use k8s_openapi::{
    api::{
        apps::v1::DaemonSet,
        core::v1::{ConfigMap, Namespace, ResourceQuota, Secret, Service, ServiceAccount},
        rbac::v1::{ClusterRole, ClusterRoleBinding, Role},
    },
    serde::de::DeserializeOwned,
};
use serde::Serialize;
use serde_json::{Value, json};

use super::*;

fn options() -> Options {
    Options {
        namespace: DEFAULT_NAMESPACE.parse().unwrap(),
        make_namespace: true,
        image: "registry.example/stillpoint:1".parse().unwrap(),
        host_network: false,
        api_server: None,
        kubelet_root: DEFAULT_KUBELET_ROOT.parse().unwrap(),
    }
}

fn rendered(options: &Options) -> Vec<Value> {
    let certificate = Certificate::new(&options.namespace).unwrap();
    serde_saphyr::from_multiple(&manifests(options, &certificate).unwrap()).unwrap()
}

fn of<'a>(objects: &'a [Value], kind: &str, name: &str) -> &'a Value {
    objects.iter().find(|object| object["kind"] == kind && object["metadata"]["name"] == name).unwrap()
}

#[test]
fn everything_is_marked_and_of_a_kind_that_is_removed() {
    for object in rendered(&options()) {
        assert_eq!(object["metadata"]["labels"][MANAGED_BY_LABEL], MANAGED_BY, "{object}");
        let kind = KINDS.iter().find(|kind| object["kind"] == kind.kind).unwrap();
        let group = if kind.group.is_empty() { String::new() } else { format!("{}/", kind.group) };
        assert_eq!(object["apiVersion"], format!("{group}{}", kind.version));
        let namespace = if kind.namespaced { json!(DEFAULT_NAMESPACE) } else { Value::Null };
        assert_eq!(object["metadata"]["namespace"], namespace, "{object}");
    }
}

/// What a type does not know is lost on the way through it.
fn known<T: DeserializeOwned + Serialize>(object: &Value) {
    let typed: T = serde_json::from_value(object.clone()).unwrap();
    assert_eq!(&serde_json::to_value(typed).unwrap(), object);
}

#[test]
fn every_field_is_one_that_its_type_has() {
    let options = Options { host_network: true, api_server: "10.0.0.1:6443".parse().ok(), ..options() };
    for object in rendered(&options) {
        match object["kind"].as_str().unwrap() {
            "Namespace" => known::<Namespace>(&object),
            "ServiceAccount" => known::<ServiceAccount>(&object),
            "ClusterRole" => known::<ClusterRole>(&object),
            "ClusterRoleBinding" => known::<ClusterRoleBinding>(&object),
            "Role" => known::<Role>(&object),
            "Secret" => known::<Secret>(&object),
            "ConfigMap" => known::<ConfigMap>(&object),
            "ResourceQuota" => known::<ResourceQuota>(&object),
            "Service" => known::<Service>(&object),
            "DaemonSet" => known::<DaemonSet>(&object),
            other => panic!("{other} is not checked"),
        }
    }
}

#[test]
fn agents_may_review_tokens_and_nothing_else_and_nobody_else_is_bound() {
    let objects = rendered(&options());
    let rules = json!([{"apiGroups": ["authentication.k8s.io"], "resources": ["tokenreviews"], "verbs": ["create"]}]);
    assert_eq!(of(&objects, "ClusterRole", AGENT)["rules"], rules);
    let bindings: Vec<_> =
        objects.iter().filter(|object| object["kind"].as_str().unwrap().ends_with("Binding")).collect();
    assert_eq!(bindings.len(), 1);
    let subject = json!([{"kind": "ServiceAccount", "name": AGENT, "namespace": DEFAULT_NAMESPACE}]);
    assert_eq!((&bindings[0]["roleRef"]["name"], &bindings[0]["subjects"]), (&json!(AGENT), &subject));
}

#[test]
fn a_backup_reads_by_lists_alone() {
    let objects = rendered(&options());
    let rules = of(&objects, "ClusterRole", "stillpoint-backup")["rules"].as_array().unwrap().clone();
    let everything: Vec<_> = rules.iter().filter(|rule| rule["resources"] == json!(["*"])).collect();
    assert_eq!(everything, [&json!({"apiGroups": ["*"], "resources": ["*"], "verbs": ["list"]})]);
}

#[test]
fn options_reach_every_place_that_they_concern() {
    let snap = "/var/snap/microk8s/common/var/lib/kubelet";
    let kubelet_root = Options { kubelet_root: snap.parse().unwrap(), ..options() };
    let text = manifests(&kubelet_root, &Certificate::new(&kubelet_root.namespace).unwrap()).unwrap();
    assert!(text.contains(&format!("- --kubelet-root={snap}\n")), "{text}");
    let elsewhere = Options { namespace: "elsewhere".parse().unwrap(), make_namespace: false, ..options() };
    let text = manifests(&elsewhere, &Certificate::new(&elsewhere.namespace).unwrap()).unwrap();
    assert!(!text.contains(DEFAULT_NAMESPACE) && !text.contains("kind: Namespace"), "{text}");

    let agent = |options: &Options| of(&rendered(options), "DaemonSet", AGENT)["spec"]["template"]["spec"].clone();
    let (plain, special) = (
        agent(&options()),
        agent(&Options { host_network: true, api_server: "[fd00::1]:6443".parse().ok(), ..options() }),
    );
    assert_eq!((&plain["hostNetwork"], &special["hostNetwork"]), (&Value::Null, &json!(true)));
    assert_eq!(plain["containers"][0]["image"], "registry.example/stillpoint:1");
    let variable = |spec: &Value, name: &str| {
        spec["containers"][0]["env"].as_array().unwrap().iter().find(|each| each["name"] == name).cloned()
    };
    assert_eq!(variable(&plain, "KUBERNETES_SERVICE_HOST"), None);
    assert_eq!(variable(&special, "KUBERNETES_SERVICE_HOST").unwrap()["value"], "fd00::1");
    assert_eq!(variable(&special, "KUBERNETES_SERVICE_PORT").unwrap()["value"], "6443");
}

#[test]
fn the_certificate_is_what_was_given_and_rolls_the_agents() {
    let certificate = Certificate::new(&options().namespace).unwrap();
    let objects: Vec<Value> = serde_saphyr::from_multiple(&manifests(&options(), &certificate).unwrap()).unwrap();
    let secret: Secret = serde_json::from_value(of(&objects, "Secret", CERTIFICATE_SECRET).clone()).unwrap();
    let data = secret.data.unwrap();
    assert_eq!(
        (&data["tls.crt"].0, &data["tls.key"].0),
        (&certificate.certificate.into_bytes(), &certificate.key.into_bytes())
    );
    assert_eq!(of(&objects, "ConfigMap", AUTHORITY_CONFIG_MAP)["data"]["ca.crt"], json!(certificate.authority));
    let rolls = |objects: &[Value]| {
        of(objects, "DaemonSet", AGENT)["spec"]["template"]["metadata"]["annotations"]["stillpoint.dev/certificate"]
            .clone()
    };
    assert_ne!(rolls(&objects), rolls(&rendered(&options())));
}

#[test]
fn every_privilege_is_explained_to_whoever_installs() {
    let explained = include_str!("../../docs/install.md");
    let objects = rendered(&options());
    let spec = &of(&objects, "DaemonSet", AGENT)["spec"]["template"]["spec"];
    let container = &spec["containers"][0];
    assert_eq!(container["securityContext"]["privileged"], false);
    assert_eq!(container["securityContext"]["capabilities"]["drop"], json!(["ALL"]));
    let capabilities = container["securityContext"]["capabilities"]["add"].as_array().unwrap();
    let paths = spec["volumes"].as_array().unwrap().iter().filter_map(|volume| volume["hostPath"]["path"].as_str());
    for privilege in capabilities.iter().map(|capability| capability.as_str().unwrap()).chain(paths).chain(["hostPID"])
    {
        assert!(explained.contains(&format!("| `{privilege}`")), "docs/install.md does not explain {privilege}");
    }
}
