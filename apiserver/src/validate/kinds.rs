//! A few rules of single kinds: those that a damaged or badly sanitised object breaks first.
//!
//! Each is a real server's rule. They are few on purpose: complete schemas belong to another layer.

use base64::{Engine as _, engine::general_purpose::STANDARD};
use serde_json::{Map, Value};

use super::{items, text};
use crate::{refusal::Cause, types::ResourceType};

/// All values of a ConfigMap or Secret together, in bytes.
const MAX_DATA: usize = 1 << 20;

/// What is wrong with an object by the rules of its kind.
pub(crate) fn check_kind(resource: &ResourceType, object: &Value, causes: &mut Vec<Cause>) {
    match (resource.group.as_str(), resource.plural.as_str()) {
        ("", "configmaps") => check_config_map(object, causes),
        ("", "secrets") => check_secret(object, causes),
        ("", "services") => check_service(object, causes),
        ("", "pods") => check_containers(object, "spec", causes),
        ("", "persistentvolumeclaims") => check_claim(object, causes),
        ("apps", "deployments" | "statefulsets" | "daemonsets" | "replicasets") => check_workload(object, causes),
        ("batch", "jobs") => check_containers(object, "spec.template.spec", causes),
        ("batch", "cronjobs") => check_cron_job(object, causes),
        ("rbac.authorization.k8s.io", "rolebindings" | "clusterrolebindings") => check_binding(object, causes),
        ("storage.k8s.io", "storageclasses") => require(object, &["provisioner"], causes),
        _ => {}
    }
}

/// What an update may not change.
pub(crate) fn check_kind_update(resource: &ResourceType, old: &Value, new: &Value, causes: &mut Vec<Cause>) {
    match (resource.group.as_str(), resource.plural.as_str()) {
        ("", "configmaps") => check_immutable_data(old, new, &["data", "binaryData"], causes),
        ("", "secrets") => {
            check_immutable_data(old, new, &["data"], causes);
            unchanged(old, new, "type", causes);
        }
        ("apps", "deployments" | "daemonsets" | "replicasets") => unchanged(old, new, "spec.selector", causes),
        ("apps", "statefulsets") => {
            unchanged(old, new, "spec.selector", causes);
            unchanged(old, new, "spec.serviceName", causes);
        }
        ("rbac.authorization.k8s.io", "rolebindings" | "clusterrolebindings") => {
            unchanged(old, new, "roleRef", causes);
        }
        ("storage.k8s.io", "storageclasses") => unchanged(old, new, "provisioner", causes),
        _ => {}
    }
}

fn pointer(field: &str) -> String {
    format!("/{}", field.replace('.', "/"))
}

fn require(object: &Value, fields: &[&str], causes: &mut Vec<Cause>) {
    for field in fields.iter().filter(|field| text(object, &pointer(field)).is_empty()) {
        causes.push(Cause::required(*field, ""));
    }
}

fn unchanged(old: &Value, new: &Value, field: &str, causes: &mut Vec<Cause>) {
    let (before, after) = (old.pointer(&pointer(field)), new.pointer(&pointer(field)));
    if before != after {
        let value = after.map(ToString::to_string).unwrap_or_default();
        causes.push(Cause::invalid(field, &value, "field is immutable"));
    }
}

fn check_immutable_data(old: &Value, new: &Value, fields: &[&str], causes: &mut Vec<Cause>) {
    if old.get("immutable") != Some(&Value::Bool(true)) {
        return;
    }
    let changed = fields.iter().filter(|field| old.get(**field) != new.get(**field));
    causes.extend(changed.map(|field| Cause::forbidden(*field, "field is immutable when `immutable` is set")));
    if new.get("immutable") != Some(&Value::Bool(true)) {
        causes.push(Cause::forbidden("immutable", "field is immutable when `immutable` is set"));
    }
}

fn entries<'a>(object: &'a Value, field: &str) -> impl Iterator<Item = (&'a String, &'a Value)> {
    object.get(field).and_then(Value::as_object).into_iter().flat_map(Map::iter)
}

fn check_data_key(field: &str, key: &str, causes: &mut Vec<Cause>) {
    let characters = key.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_.".contains(&b));
    if key.is_empty() || key.len() > 253 || !characters || key == "." || key.starts_with("..") {
        let why = "a valid config key must consist of alphanumeric characters, '-', '_' or '.' (e.g. 'key.name',  or 'KEY_NAME',  or 'key-name', regex used for validation is '[-._a-zA-Z0-9]+')";
        causes.push(Cause::invalid(format!("{field}[{key}]"), key, why));
    }
}

fn check_config_map(object: &Value, causes: &mut Vec<Cause>) {
    let mut bytes = 0;
    for field in ["data", "binaryData"] {
        for (key, value) in entries(object, field) {
            check_data_key(field, key, causes);
            bytes += value.as_str().map_or(0, str::len);
            if field == "binaryData" && !value.as_str().is_some_and(is_base64) {
                causes.push(Cause::invalid(format!("binaryData[{key}]"), "", "must be base64"));
            }
        }
    }
    for (key, _) in entries(object, "binaryData").filter(|(key, _)| object["data"].get(key).is_some()) {
        causes.push(Cause::invalid(format!("data[{key}]"), key, "duplicate of key present in binaryData"));
    }
    if bytes > MAX_DATA {
        causes.push(Cause::too_long("", MAX_DATA));
    }
}

fn is_base64(text: &str) -> bool {
    STANDARD.decode(text).is_ok()
}

/// The keys that a typed Secret must hold.
const SECRET_KEYS: [(&str, &[&str]); 4] = [
    ("kubernetes.io/dockercfg", &[".dockercfg"]),
    ("kubernetes.io/dockerconfigjson", &[".dockerconfigjson"]),
    ("kubernetes.io/ssh-auth", &["ssh-privatekey"]),
    ("kubernetes.io/tls", &["tls.crt", "tls.key"]),
];

fn check_secret(object: &Value, causes: &mut Vec<Cause>) {
    let mut bytes = 0;
    for (key, value) in entries(object, "data") {
        check_data_key("data", key, causes);
        // Three bytes for four characters: no need to decode megabytes again.
        bytes += value.as_str().map_or(0, str::len) / 4 * 3;
    }
    if bytes > MAX_DATA {
        causes.push(Cause::too_long("data", MAX_DATA));
    }
    let kind = text(object, "/type");
    let required = SECRET_KEYS.iter().find(|(name, _)| *name == kind).map_or(&[][..], |(_, keys)| keys);
    for key in required.iter().filter(|key| object.pointer("/data").and_then(|data| data.get(**key)).is_none()) {
        causes.push(Cause::required(format!("data[{key}]"), ""));
    }
    let account = object.pointer("/metadata/annotations").and_then(|a| a.get("kubernetes.io/service-account.name"));
    if kind == "kubernetes.io/service-account-token" && account.is_none() {
        causes.push(Cause::required("metadata.annotations[kubernetes.io/service-account.name]", ""));
    }
}

fn check_service(object: &Value, causes: &mut Vec<Cause>) {
    let external = text(object, "/spec/type") == "ExternalName";
    let headless = text(object, "/spec/clusterIP") == "None";
    let ports = items(object, "/spec/ports");
    if ports.is_empty() && !external && !headless {
        causes.push(Cause::required("spec.ports", ""));
    }
    if external && text(object, "/spec/externalName").is_empty() {
        causes.push(Cause::required("spec.externalName", ""));
    }
    for (index, port) in ports.iter().enumerate() {
        let number = port.get("port").and_then(Value::as_i64).unwrap_or_default();
        if !(1..=65535).contains(&number) {
            let field = format!("spec.ports[{index}].port");
            causes.push(Cause::invalid(field, &number.to_string(), "must be between 1 and 65535, inclusive"));
        }
        if ports.len() > 1 && text(port, "/name").is_empty() {
            causes.push(Cause::required(format!("spec.ports[{index}].name"), ""));
        }
    }
}

fn check_claim(object: &Value, causes: &mut Vec<Cause>) {
    if items(object, "/spec/accessModes").is_empty() {
        causes.push(Cause::required("spec.accessModes", "at least 1 access mode is required"));
    }
    if object.pointer("/spec/resources/requests/storage").is_none() {
        causes.push(Cause::required("spec.resources[storage]", ""));
    }
}

fn check_workload(object: &Value, causes: &mut Vec<Cause>) {
    let Some(selector) = object.pointer("/spec/selector").and_then(Value::as_object) else {
        causes.push(Cause::required("spec.selector", ""));
        return;
    };
    if selector.is_empty() {
        causes.push(Cause::invalid("spec.selector", "{}", "empty selector is invalid for deployment"));
    }
    let labels = object.pointer("/spec/template/metadata/labels").unwrap_or(&Value::Null);
    let mut matched = selector.get("matchLabels").and_then(Value::as_object).into_iter().flatten();
    if !matched.all(|(key, value)| labels.get(key) == Some(value)) {
        let why = "`selector` does not match template `labels`";
        causes.push(Cause::invalid("spec.template.metadata.labels", &labels.to_string(), why));
    }
    check_containers(object, "spec.template.spec", causes);
}

fn check_cron_job(object: &Value, causes: &mut Vec<Cause>) {
    require(object, &["spec.schedule"], causes);
    check_containers(object, "spec.jobTemplate.spec.template.spec", causes);
}

fn check_containers(object: &Value, pod_spec: &str, causes: &mut Vec<Cause>) {
    let field = format!("{pod_spec}.containers");
    let containers = items(object, &pointer(&field));
    if containers.is_empty() {
        causes.push(Cause::required(&field, ""));
    }
    for (index, container) in containers.iter().enumerate() {
        if text(container, "/name").is_empty() {
            causes.push(Cause::required(format!("{field}[{index}].name"), ""));
        }
    }
}

fn check_binding(object: &Value, causes: &mut Vec<Cause>) {
    require(object, &["roleRef.name"], causes);
    let kind = text(object, "/roleRef/kind");
    if !["Role", "ClusterRole"].contains(&kind) {
        causes.push(Cause::not_supported("roleRef.kind", kind, &["ClusterRole", "Role"]));
    }
    for (index, subject) in items(object, "/subjects").iter().enumerate() {
        if text(subject, "/name").is_empty() {
            causes.push(Cause::required(format!("subjects[{index}].name"), ""));
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::types::built_in;

    fn faults(plural: &str, object: &Value) -> usize {
        let resource = built_in().find(|t| t.plural == plural).unwrap();
        let mut causes = Vec::new();
        check_kind(&resource, object, &mut causes);
        causes.len()
    }

    fn workload(selected: &str) -> Value {
        json!({"spec": {
            "selector": {"matchLabels": {"app": selected}},
            "template": {"metadata": {"labels": {"app": "web"}}, "spec": {"containers": [{"name": "c"}]}},
        }})
    }

    #[test]
    fn a_workload_must_select_its_own_template() {
        assert_eq!(faults("deployments", &workload("web")), 0);
        assert_eq!(faults("deployments", &workload("db")), 1);
        assert_eq!(faults("deployments", &json!({"spec": {}})), 1);
    }

    #[test]
    fn a_service_needs_ports_unless_it_is_headless_or_external() {
        assert_eq!(faults("services", &json!({"spec": {"ports": [{"port": 80}]}})), 0);
        assert_eq!(faults("services", &json!({"spec": {"clusterIP": "None"}})), 0);
        assert_eq!(faults("services", &json!({"spec": {"type": "ExternalName", "externalName": "x"}})), 0);
        assert_eq!(faults("services", &json!({"spec": {}})), 1);
        assert_eq!(faults("services", &json!({"spec": {"ports": [{"port": 80}, {"port": 0}]}})), 3);
    }

    #[test]
    fn config_maps_and_secrets_have_valid_keys_and_a_bounded_size() {
        assert_eq!(faults("configmaps", &json!({"data": {"a.b": "x"}})), 0);
        assert_eq!(faults("configmaps", &json!({"data": {"a/b": "x"}})), 1);
        assert_eq!(faults("configmaps", &json!({"data": {"a": "x".repeat(MAX_DATA + 1)}})), 1);
        assert_eq!(faults("secrets", &json!({"type": "kubernetes.io/tls", "data": {"tls.crt": ""}})), 1);
    }

    #[test]
    fn the_data_of_an_immutable_config_map_stays() {
        let resource = built_in().find(|t| t.plural == "configmaps").unwrap();
        let old = json!({"immutable": true, "data": {"a": "1"}});
        let mut causes = Vec::new();
        check_kind_update(&resource, &old, &old, &mut causes);
        assert!(causes.is_empty());
        check_kind_update(&resource, &old, &json!({"data": {"a": "2"}}), &mut causes);
        assert_eq!(causes.len(), 2);
    }
}
