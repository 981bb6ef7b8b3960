//! The pods that a manifest describes: Pods themselves, and the templates in workloads.
//!
//! Read from plain JSON by kind, so that a file may hold any other object beside them.

use k8s_openapi::api::core::v1::{self as core, PodTemplateSpec};
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::pod::Pod;

/// A pod and the object that it is written down in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Subject {
    /// The object, as a person would name it: `StatefulSet shop/db`.
    pub place: String,
    /// The pod.
    pub pod: Pod,
}

/// An object that looks like one with a pod and cannot be read.
#[derive(Debug, thiserror::Error)]
#[error("{place} is no valid {kind}: {cause}")]
pub struct ManifestError {
    place: String,
    kind: String,
    cause: serde_json::Error,
}

/// The pods of `object`, or of the objects in it when it is a list.
///
/// # Errors
/// When an object that must have a pod cannot be read.
pub fn subjects(object: &Value, default_namespace: &str) -> Result<Vec<Subject>, ManifestError> {
    if let Some(items) = object["items"].as_array() {
        let found: Result<Vec<_>, _> = items.iter().map(|item| subjects(item, default_namespace)).collect();
        return Ok(found?.concat());
    }
    let kind = object["kind"].as_str().unwrap_or_default();
    let name = object["metadata"]["name"].as_str().unwrap_or("without a name");
    let namespace = object["metadata"]["namespace"].as_str().unwrap_or(default_namespace);
    let place = format!("{kind} {namespace}/{name}");
    let template = match kind {
        "Pod" => {
            let mut pod = Pod::of(&read::<core::Pod>(object, &place, kind)?);
            namespace.clone_into(&mut pod.id.namespace);
            return Ok(vec![Subject { place, pod }]);
        }
        "DaemonSet" | "Deployment" | "Job" | "ReplicaSet" | "ReplicationController" | "StatefulSet" => {
            &object["spec"]["template"]
        }
        "CronJob" => &object["spec"]["jobTemplate"]["spec"]["template"],
        _ => return Ok(Vec::new()),
    };
    let template: PodTemplateSpec = read(template, &place, kind)?;
    Ok(vec![Subject { pod: Pod::of_template(namespace, name, &template), place }])
}

fn read<T: DeserializeOwned>(value: &Value, place: &str, kind: &str) -> Result<T, ManifestError> {
    T::deserialize(value).map_err(|cause| ManifestError { place: place.to_owned(), kind: kind.to_owned(), cause })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn pods_are_found_in_themselves_in_workloads_and_in_lists() {
        let template = json!({"metadata": {"annotations": {"a": "b"}}, "spec": {"containers": [{"name": "db"}]}});
        let list = json!({"kind": "List", "items": [
            {"kind": "Pod", "metadata": {"name": "p", "namespace": "shop"}, "spec": {"containers": [{"name": "db"}]}},
            {"kind": "StatefulSet", "metadata": {"name": "s"}, "spec": {"template": template}},
            {"kind": "CronJob", "metadata": {"name": "c"}, "spec": {"jobTemplate": {"spec": {"template": template}}}},
            {"kind": "ConfigMap", "metadata": {"name": "m"}},
        ]});
        let found = subjects(&list, "default").unwrap();
        let places: Vec<_> = found.iter().map(|subject| &*subject.place).collect();
        assert_eq!(places, ["Pod shop/p", "StatefulSet default/s", "CronJob default/c"]);
        assert!(found.iter().all(|subject| subject.pod.container("db").is_some()));
        assert_eq!(found[1].pod.annotations["a"], "b");
    }

    #[test]
    fn a_workload_that_cannot_be_read_is_named() {
        let broken = json!({"kind": "Deployment", "metadata": {"name": "web"}, "spec": {"template": {"spec": {"containers": 3}}}});
        let error = subjects(&broken, "shop").unwrap_err().to_string();
        assert!(error.starts_with("Deployment shop/web is no valid Deployment: "), "{error}");
    }
}
