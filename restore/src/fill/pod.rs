//! The pod that fills a claim.
//!
//! It holds what files of any owner need and nothing else: every capability in it is one that Kubernetes' baseline
//! level of pod security admits.

use k8s_openapi::api::core::v1::Pod;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use stillpoint_api::ObjectRef;

use super::Filling;

/// Its container.
pub(super) const CONTAINER: &str = "fill";
/// Where the claim is mounted.
pub(super) const MOUNT: &str = "/volume";
/// Says of which claim a pod is.
pub(super) const LABEL: &str = "stillpoint.dev/fills";
/// The longest name that a pod is given here; the claim's is longer at most.
const LONGEST: usize = 63;

/// The pod's name, the same for the same claim.
pub(super) fn name(claim: &ObjectRef) -> String {
    let name = format!("stillpoint-fill-{}", claim.name);
    if name.len() <= LONGEST && !name.contains('.') {
        return name;
    }
    format!("stillpoint-fill-{}", hex::encode(&Sha256::digest(&claim.name)[..8]))
}

/// The pod.
pub(super) fn pod(filling: &Filling, claim: &ObjectRef) -> Result<Pod, serde_json::Error> {
    serde_json::from_value(manifest(filling, claim))
}

fn manifest(filling: &Filling, claim: &ObjectRef) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {
            "name": name(claim),
            "labels": {"app.kubernetes.io/name": "stillpoint", "app.kubernetes.io/component": "helper", LABEL: name(claim)},
        },
        "spec": {
            "restartPolicy": "Never",
            "automountServiceAccountToken": false,
            "enableServiceLinks": false,
            "hostNetwork": filling.host_network,
            "terminationGracePeriodSeconds": 5,
            // wherever the volume is
            "tolerations": [{"operator": "Exists"}],
            "containers": [{
                "name": CONTAINER,
                "image": filling.image,
                "imagePullPolicy": "IfNotPresent",
                "command": ["stillpoint", "helper", "hold"],
                "volumeMounts": [{"name": "volume", "mountPath": MOUNT}],
                "resources": {"requests": {"cpu": "50m", "memory": "128Mi"}},
                "securityContext": {
                    "runAsUser": 0,
                    "readOnlyRootFilesystem": true,
                    "allowPrivilegeEscalation": false,
                    "seccompProfile": {"type": "RuntimeDefault"},
                    "capabilities": {
                        "drop": ["ALL"],
                        "add": ["CHOWN", "DAC_OVERRIDE", "FOWNER", "FSETID", "MKNOD", "SETFCAP"],
                    },
                },
            }],
            "volumes": [{"name": "volume", "persistentVolumeClaim": {"claimName": claim.name}}],
        },
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pod_is_named_after_its_claim_within_what_a_name_may_be() {
        let of = |claim: &str| name(&ObjectRef::new("persistentvolumeclaims".parse().unwrap(), Some("shop"), claim));
        assert_eq!(of("data"), "stillpoint-fill-data");
        let long = of(&"x".repeat(200));
        assert!(long.len() <= LONGEST && long != of(&"x".repeat(201)), "{long}");
        assert!(!of("data.0").contains('.'));
    }
}
