//! The pod that fills a claim.
//!
//! It holds what files of any owner need and nothing else: every capability in it is one that Kubernetes' baseline
//! level of pod security admits.

use std::collections::BTreeMap;

use stillpoint_api::ObjectRef;
use stillpoint_objects::helper::{self, HelperPod, Privileges};

use super::Filling;

/// Says of which claim a pod is.
const LABEL: &str = "stillpoint.dev/fills";
const CAPABILITIES: [&str; 6] = ["CHOWN", "DAC_OVERRIDE", "FOWNER", "FSETID", "MKNOD", "SETFCAP"];

/// The pod; its name is the same for the same claim.
pub(super) fn pod(filling: &Filling, claim: &ObjectRef) -> HelperPod {
    let name = helper::name("stillpoint-fill", &claim.name);
    HelperPod {
        namespace: claim.namespace.clone().unwrap_or_default(),
        label: (LABEL, name.clone()),
        name,
        claim: claim.name.clone(),
        annotations: BTreeMap::new(),
        image: filling.image.clone(),
        host_network: filling.host_network,
        command: ["stillpoint", "helper", "hold"].map(str::to_owned).to_vec(),
        read_only: false,
        privileges: Privileges::Root(&CAPABILITIES),
        requests: ("50m", "128Mi"),
        node: None,
        told: None,
    }
}
