//! Which volumes a cut takes, and where they are: a value, computed before any node is asked.
//!
//! From claims, their volumes and the pods that mount them alone, so that what is refused, and why, can be read and
//! tested without a cluster.

use std::collections::{BTreeMap, BTreeSet};

use k8s_openapi::api::core::v1::{PersistentVolume, PersistentVolumeClaim, Pod, VolumeMount as ContainerMount};

use crate::node::wire;

/// Says by which method a claim's data is copied; a pod's annotations take the same word.
pub(crate) const METHOD_ANNOTATION: &str = "stillpoint.dev/volume-method";
/// Says whether a volume may be frozen.
const FREEZE_ANNOTATION: &str = "hooks.stillpoint.dev/freeze";
/// Handlers of runtime classes whose containers are guests with a page cache of their own.
const GUESTS: [&str; 4] = ["kata", "gvisor", "runsc", "firecracker"];

/// What the cluster said of claims and who uses them.
#[derive(Debug, Default)]
pub(crate) struct Seen {
    pub(crate) claims: Vec<PersistentVolumeClaim>,
    pub(crate) volumes: Vec<PersistentVolume>,
    pub(crate) pods: Vec<Pod>,
}

/// One claim of the cut.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Claim {
    pub(crate) namespace: String,
    pub(crate) name: String,
    /// The pods that mount it, as `namespace/name`.
    pub(crate) pods: Vec<String>,
    pub(crate) place: Place,
}

/// Where a claim's data can be copied.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Place {
    /// On this node, as its agent is asked for it.
    Node(String, Box<wire::Volume>),
    /// No pod mounts it.
    Unmounted { volume: String, node: Option<String> },
    /// Nowhere, for this reason.
    Refused(String),
}

impl Claim {
    /// As the wire and messages call it.
    pub(crate) fn id(&self) -> String {
        format!("{}/{}", self.namespace, self.name)
    }
}

/// A container's mount of a claim.
struct Use<'a> {
    pod: &'a Pod,
    node: &'a str,
    mount: wire::Mount,
    writes: bool,
}

/// Decides for each claim where its data is copied, `asked` being the method that the user asked for.
pub(crate) fn plan(seen: &Seen, asked: Option<&str>) -> Vec<Claim> {
    let volumes: BTreeMap<_, _> =
        seen.volumes.iter().filter_map(|volume| Some((volume.metadata.name.as_deref()?, volume))).collect();
    let claim = |claim: &PersistentVolumeClaim| {
        let namespace = claim.metadata.namespace.clone().unwrap_or_default();
        let name = claim.metadata.name.clone().unwrap_or_default();
        let uses: Vec<_> = seen.pods.iter().flat_map(|pod| uses(pod, &namespace, &name)).collect();
        let pods: BTreeSet<_> = uses.iter().map(|each| each.mount.pod.clone()).collect();
        let place = place(claim, &volumes, &uses, asked).unwrap_or_else(Place::Refused);
        Claim { namespace, name, pods: pods.into_iter().collect(), place }
    };
    seen.claims.iter().map(claim).collect()
}

fn place(
    claim: &PersistentVolumeClaim,
    volumes: &BTreeMap<&str, &PersistentVolume>,
    uses: &[Use<'_>],
    asked: Option<&str>,
) -> Result<Place, String> {
    let spec = claim.spec.as_ref();
    let Some(name) = spec.and_then(|spec| spec.volume_name.clone()).filter(|name| !name.is_empty()) else {
        return Err("it is not bound to a volume, so there is no data yet".to_owned());
    };
    if spec.and_then(|spec| spec.volume_mode.as_deref()) == Some("Block") {
        return Err("it is a block device (volumeMode: Block), which only a CSI snapshot can copy".to_owned());
    }
    let nodes: BTreeSet<_> = uses.iter().map(|each| each.node).collect();
    let Some(&node) = nodes.first() else {
        let node = volumes.get(name.as_str()).and_then(|volume| only_node(volume));
        return Ok(Place::Unmounted { volume: name, node });
    };
    let writers: BTreeSet<_> = uses.iter().filter(|each| each.writes).map(|each| each.node).collect();
    if writers.len() > 1 {
        let nodes = writers.into_iter().collect::<Vec<_>>().join(", ");
        return Err(format!("pods on several nodes ({nodes}) write to it: their writes cannot be ordered"));
    }
    if let Some(guest) = uses.iter().find_map(|each| guest(each.pod)) {
        return Err(guest);
    }
    // where it is written is where its writers can be stopped
    let node = writers.first().copied().unwrap_or(node);
    let here: Vec<_> = uses.iter().filter(|each| each.node == node).collect();
    let annotation = |key: &str| {
        let own = claim.metadata.annotations.as_ref().and_then(|own| own.get(key));
        own.or_else(|| here.iter().find_map(|each| each.pod.metadata.annotations.as_ref()?.get(key)))
    };
    let method = asked.map(str::to_owned).or_else(|| annotation(METHOD_ANNOTATION).cloned());
    let mut mounts: Vec<_> = here.iter().map(|each| each.mount.clone()).collect();
    // one that shows all of it is the better way in
    mounts.sort_by_key(|mount| mount.part);
    let namespace = claim.metadata.namespace.clone().unwrap_or_default();
    let volume = wire::Volume {
        id: format!("{namespace}/{}", claim.metadata.name.clone().unwrap_or_default()),
        volume_name: name,
        mounts,
        read_only: writers.is_empty(),
        method: method.unwrap_or_default(),
        freeze: annotation(FREEZE_ANNOTATION).is_none_or(|value| value != "false"),
        parent: None,
    };
    Ok(Place::Node(node.to_owned(), Box::new(volume)))
}

/// The uses of a claim by one pod that runs.
fn uses<'a>(pod: &'a Pod, namespace: &str, claim: &str) -> Vec<Use<'a>> {
    let (Some(spec), Some(status)) = (&pod.spec, &pod.status) else { return Vec::new() };
    let ended = matches!(status.phase.as_deref(), Some("Succeeded" | "Failed"));
    let elsewhere = pod.metadata.namespace.as_deref() != Some(namespace);
    let (Some(node), Some(name), false) = (spec.node_name.as_deref(), &pod.metadata.name, ended || elsewhere) else {
        return Vec::new();
    };
    let running = status.container_statuses.iter().chain(&status.init_container_statuses).flatten();
    let ids: BTreeMap<_, _> = running
        .filter(|status| status.state.as_ref().is_some_and(|state| state.running.is_some()))
        .filter_map(|status| Some((status.name.as_str(), status.container_id.as_deref()?)))
        .collect();
    let mut found = Vec::new();
    for volume in spec.volumes.iter().flatten() {
        let source = volume.persistent_volume_claim.as_ref();
        // a generic ephemeral volume is a claim that the pod owns
        let ephemeral = volume.ephemeral.as_ref().map(|_| format!("{name}-{}", volume.name));
        if source.map(|source| &source.claim_name).or(ephemeral.as_ref()).is_none_or(|own| own != claim) {
            continue;
        }
        let only_read = source.is_some_and(|source| source.read_only == Some(true));
        for container in spec.containers.iter().chain(spec.init_containers.iter().flatten()) {
            let Some(id) = ids.get(container.name.as_str()) else { continue };
            let mounts = container.volume_mounts.iter().flatten().filter(|mount| mount.name == volume.name);
            found.extend(mounts.map(|mount| Use {
                pod,
                node,
                mount: of_container(pod, namespace, id, mount),
                writes: !(only_read || mount.read_only == Some(true)),
            }));
        }
    }
    found
}

fn of_container(pod: &Pod, namespace: &str, id: &str, mount: &ContainerMount) -> wire::Mount {
    let is_set = |value: &Option<String>| value.as_deref().is_some_and(|value| !value.is_empty());
    wire::Mount {
        pod: format!("{namespace}/{}", pod.metadata.name.as_deref().unwrap_or_default()),
        pod_uid: pod.metadata.uid.clone().unwrap_or_default(),
        container_id: id.to_owned(),
        mount_path: mount.mount_path.trim_end_matches('/').to_owned(),
        part: is_set(&mount.sub_path) || is_set(&mount.sub_path_expr),
    }
}

/// Why the pod's writes cannot be stopped from the node, if they cannot.
fn guest(pod: &Pod) -> Option<String> {
    let class = pod.spec.as_ref()?.runtime_class_name.as_deref()?;
    let name = pod.metadata.name.as_deref().unwrap_or_default();
    let is_guest = GUESTS.iter().any(|guest| class.to_ascii_lowercase().contains(guest));
    is_guest.then(|| {
        format!(
            "pod {name} runs as a guest (runtime class {class}) with a page cache of its own, which its node cannot \
             write back"
        )
    })
}

/// The one node that a volume can be used on, where its affinity says so by host name.
fn only_node(volume: &PersistentVolume) -> Option<String> {
    let terms = &volume.spec.as_ref()?.node_affinity.as_ref()?.required.as_ref()?.node_selector_terms;
    let [term] = terms.as_slice() else { return None };
    let expressions = term.match_expressions.as_ref()?;
    let by_name = expressions.iter().find(|each| each.key == "kubernetes.io/hostname" && each.operator == "In")?;
    match by_name.values.as_deref()? {
        [node] => Some(node.clone()),
        _ => None,
    }
}

#[cfg(test)]
mod tests;
