//! A helper pod as the API server is given it.

use k8s_openapi::api::core::v1::Pod;
use serde_json::{Value, json};

use super::{CONTAINER, HelperPod, MOUNT, Privileges, TOLD};
use crate::filter::EXCLUDE_LABELS;

/// Who a pod without privileges is: `nobody` of images without a list of users.
const NOBODY: i64 = 65532;

impl HelperPod {
    /// The pod.
    pub(super) fn manifest(&self) -> Result<Pod, serde_json::Error> {
        serde_json::from_value(self.json())
    }

    fn json(&self) -> Value {
        let mut labels = json!({"app.kubernetes.io/name": "stillpoint", "app.kubernetes.io/component": "helper"});
        let (label, value) = &self.label;
        labels[*label] = json!(value);
        for exclude in EXCLUDE_LABELS {
            labels[exclude] = json!("true");
        }
        let (cpu, memory) = self.requests;
        let mut volumes = vec![json!({
            "name": "volume",
            "persistentVolumeClaim": {"claimName": self.claim, "readOnly": self.read_only},
        })];
        let mut mounts = vec![json!({"name": "volume", "mountPath": MOUNT, "readOnly": self.read_only})];
        if let (Some(annotation), Some((folder, file))) = (self.told, TOLD.rsplit_once('/')) {
            let field = json!({"fieldPath": format!("metadata.annotations['{annotation}']")});
            volumes.push(json!({"name": "told", "downwardAPI": {"items": [{"path": file, "fieldRef": field}]}}));
            mounts.push(json!({"name": "told", "mountPath": folder, "readOnly": true}));
        }
        json!({
            "apiVersion": "v1", "kind": "Pod",
            "metadata": {"name": self.name, "labels": labels, "annotations": self.annotations},
            "spec": {
                "restartPolicy": "Never",
                "automountServiceAccountToken": false,
                "enableServiceLinks": false,
                "hostNetwork": self.host_network,
                "terminationGracePeriodSeconds": 5,
                // wherever the volume is
                "tolerations": [{"operator": "Exists"}],
                "affinity": self.node.as_ref().map(|node| only_on(node)),
                "containers": [{
                    "name": CONTAINER,
                    "image": self.image,
                    "imagePullPolicy": "IfNotPresent",
                    "command": self.command,
                    "volumeMounts": mounts,
                    "resources": {"requests": {"cpu": cpu, "memory": memory}},
                    "securityContext": self.security(),
                }],
                "volumes": volumes,
            },
        })
    }

    fn security(&self) -> Value {
        let (user, added): (_, &[&str]) = match self.privileges {
            Privileges::Nobody => (NOBODY, &[]),
            Privileges::Root(capabilities) => (0, capabilities),
        };
        json!({
            "runAsUser": user,
            "runAsNonRoot": user != 0,
            "readOnlyRootFilesystem": true,
            "allowPrivilegeEscalation": false,
            "seccompProfile": {"type": "RuntimeDefault"},
            "capabilities": {"drop": ["ALL"], "add": added},
        })
    }
}

/// By the node's own name: its label `kubernetes.io/hostname` may say another one.
fn only_on(node: &str) -> Value {
    let this = json!({"matchFields": [{"key": "metadata.name", "operator": "In", "values": [node]}]});
    json!({"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": [this]}}})
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pod() -> HelperPod {
        HelperPod {
            namespace: "shop".into(),
            name: "stillpoint-copy-data-1".into(),
            claim: "data".into(),
            label: ("stillpoint.dev/copies", "stillpoint-copy-data".into()),
            annotations: [("a".to_owned(), "b".to_owned())].into(),
            image: "registry.example/stillpoint:1".into(),
            host_network: false,
            command: vec!["stillpoint".into()],
            read_only: false,
            privileges: Privileges::Nobody,
            requests: ("10m", "32Mi"),
            node: None,
            told: None,
        }
    }

    #[test]
    fn no_backup_holds_a_helper_pod() {
        let labels = pod().manifest().unwrap().metadata.labels.unwrap();
        let excluded: Vec<_> = EXCLUDE_LABELS.iter().map(|label| labels[*label].as_str()).collect();
        assert_eq!((excluded, labels["stillpoint.dev/copies"].as_str()), (vec!["true"; 2], "stillpoint-copy-data"));
    }

    #[test]
    fn a_pod_without_privileges_is_what_the_level_restricted_admits() {
        let spec = pod().manifest().unwrap().spec.unwrap();
        let security = spec.containers[0].security_context.clone().unwrap();
        let capabilities = security.capabilities.unwrap();
        assert_eq!((security.run_as_non_root, security.allow_privilege_escalation), (Some(true), Some(false)));
        assert_eq!((capabilities.drop, capabilities.add), (Some(vec!["ALL".into()]), Some(Vec::new())));
        let root = HelperPod { privileges: Privileges::Root(&["CHOWN"]), ..pod() };
        let security = root.json()["spec"]["containers"][0]["securityContext"].clone();
        assert_eq!((&security["runAsUser"], &security["capabilities"]["add"]), (&json!(0), &json!(["CHOWN"])));
    }

    #[test]
    fn a_pod_may_be_kept_from_writing_bound_to_a_node_and_told_an_annotation() {
        let special = HelperPod { read_only: true, node: Some("a".into()), told: Some("x/y"), ..pod() };
        let spec = special.manifest().unwrap().spec.unwrap();
        let mounts = spec.containers[0].volume_mounts.clone().unwrap();
        assert_eq!((mounts[0].mount_path.as_str(), mounts[0].read_only), (MOUNT, Some(true)));
        assert_eq!(mounts[1].mount_path, "/told");
        let json = special.json();
        assert_eq!(json["spec"]["volumes"][1]["downwardAPI"]["items"][0]["path"], "annotation");
        let affinity = "/spec/affinity/nodeAffinity/requiredDuringSchedulingIgnoredDuringExecution/nodeSelectorTerms/0";
        assert_eq!(json.pointer(affinity).unwrap()["matchFields"][0]["values"], json!(["a"]));
        assert_eq!(pod().json()["spec"]["affinity"], Value::Null);
    }
}
