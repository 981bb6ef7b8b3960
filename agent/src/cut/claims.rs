//! Which volumes a cut takes, and where they are: a value, computed before any node is asked.
//!
//! From claims, their volumes and the pods that mount them alone, so that what is refused, and why, can be read and
//! tested without a cluster.

use std::collections::{BTreeMap, BTreeSet};

use k8s_openapi::api::core::v1::{
    PersistentVolume, PersistentVolumeClaim, Pod, PodSpec, Volume, VolumeMount as ContainerMount,
};
use stillpoint_api::{CopyParameters, VolumeAction};
use stillpoint_objects::helper;

use super::policy::Policies;
use crate::node::wire;

/// Says by which method a claim's data is copied; a pod's annotations take the same word.
pub(crate) const METHOD_ANNOTATION: &str = "stillpoint.dev/volume-method";
/// Says whether a volume may be frozen.
const FREEZE_ANNOTATION: &str = "hooks.stillpoint.dev/freeze";
/// Says of a pod of ours that a claim is copied through it, and of which.
pub(crate) const COPIES_LABEL: &str = "stillpoint.dev/copies";
/// Why a claim cannot be copied by itself.
pub(crate) const NOT_MOUNTED: &str = "no running pod mounts it";
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
    /// The pods of others that mount it, as `namespace/name`.
    pub(crate) pods: Vec<String>,
    /// Whether no running pod mounts it, and a helper pod of ours is to.
    pub(crate) unmounted: bool,
    pub(crate) wished: Wished,
    pub(crate) place: Place,
}

/// Where a claim's data can be copied.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Place {
    /// On this node, as its agent is asked for it.
    Node(String, Box<wire::Volume>),
    /// No running pod mounts it.
    Unmounted(Unmounted),
    /// Nowhere: a policy says that its data is meant to be absent.
    LeftOut,
    /// Nowhere, for this reason.
    Refused(String),
}

/// What is known of a claim that no running pod mounts.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Unmounted {
    /// The one node that its volume can be used on, where its affinity says so by host name.
    pub(crate) only_on: Option<String>,
    /// The node of a pod that mounts it and does not run, or of another backup's helper pod: a volume for one node at a
    /// time can be mounted there alone, and whoever begins to write there is stopped too.
    pub(crate) beside: Option<String>,
    /// Whether nobody may ever write to it.
    pub(crate) read_only: bool,
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

/// What a user asks for, for all volumes or by policies.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Wishes<'a> {
    /// This method for every volume.
    pub(crate) method: Option<&'a str>,
    pub(crate) policies: &'a Policies,
}

/// How a claim's data is to be copied; where it is left open annotations have a say.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Wished {
    method: Option<String>,
    freeze: Option<bool>,
}

impl Wishes<'_> {
    /// How a claim is to be copied; none if it is meant to be left out.
    fn of(&self, claim: &PersistentVolumeClaim, volume: Option<&PersistentVolume>) -> Option<Wished> {
        let CopyParameters { method, freeze } = match self.policies.of(claim, volume) {
            Some(VolumeAction::Skip) => return None,
            Some(VolumeAction::FsBackup { parameters }) => *parameters,
            None => CopyParameters::default(),
        };
        let method = self.method.map(str::to_owned).or_else(|| method.map(|method| method.to_string()));
        Some(Wished { method, freeze })
    }
}

/// Decides for each claim where its data is copied.
pub(crate) fn plan(seen: &Seen, wishes: Wishes<'_>) -> Vec<Claim> {
    let volumes: BTreeMap<_, _> =
        seen.volumes.iter().filter_map(|volume| Some((volume.metadata.name.as_deref()?, volume))).collect();
    let claim = |claim: &PersistentVolumeClaim| {
        let namespace = claim.metadata.namespace.clone().unwrap_or_default();
        let name = claim.metadata.name.clone().unwrap_or_default();
        let others = seen.pods.iter().filter(|pod| !copies(pod));
        let uses: Vec<_> = others.flat_map(|pod| uses(pod, &namespace, &name)).collect();
        let pods: BTreeSet<_> = uses.iter().map(|each| each.mount.pod.clone()).collect();
        let bound = claim.spec.as_ref().and_then(|spec| volumes.get(spec.volume_name.as_deref()?));
        let wished = wishes.of(claim, bound.copied());
        let place = match (&wished, of_volume(claim)) {
            (None, _) => Place::LeftOut,
            (_, Err(why)) => Place::Refused(why),
            (_, Ok(_)) if uses.is_empty() => {
                let only_on = bound.and_then(|volume| only_node(volume));
                let beside = seen.pods.iter().find_map(|pod| sits_on(pod, &namespace, &name));
                Place::Unmounted(Unmounted { only_on, beside, read_only: nobody_writes(claim) })
            }
            (Some(wished), Ok(volume)) => place(claim, volume, &uses, wished).unwrap_or_else(Place::Refused),
        };
        let unmounted = matches!(place, Place::Unmounted(_));
        let (pods, wished) = (pods.into_iter().collect(), wished.unwrap_or_default());
        Claim { namespace, name, pods, unmounted, wished, place }
    };
    seen.claims.iter().map(claim).collect()
}

/// Where a claim's data is copied that no pod mounts but this one of ours, which runs.
pub(crate) fn through(helper: &Pod, claim: &PersistentVolumeClaim, wished: &Wished) -> Place {
    let (namespace, name) = (claim.metadata.namespace.as_deref(), claim.metadata.name.as_deref());
    let uses = uses(helper, namespace.unwrap_or_default(), name.unwrap_or_default());
    let place = of_volume(claim).and_then(|volume| place(claim, volume, &uses, wished));
    place.unwrap_or_else(Place::Refused)
}

/// Whether a claim is copied through this pod, by this backup or another.
pub(crate) fn copies(pod: &Pod) -> bool {
    pod.metadata.labels.as_ref().is_some_and(|labels| labels.contains_key(COPIES_LABEL))
}

/// The volume of a claim whose files can be copied.
fn of_volume(claim: &PersistentVolumeClaim) -> Result<String, String> {
    let spec = claim.spec.as_ref();
    let Some(name) = spec.and_then(|spec| spec.volume_name.clone()).filter(|name| !name.is_empty()) else {
        return Err("it is not bound to a volume, so there is no data yet".to_owned());
    };
    if spec.and_then(|spec| spec.volume_mode.as_deref()) == Some("Block") {
        return Err("it is a block device (volumeMode: Block), which only a CSI snapshot can copy".to_owned());
    }
    Ok(name)
}

/// Whether its access modes let nobody write.
fn nobody_writes(claim: &PersistentVolumeClaim) -> bool {
    let modes = claim.spec.as_ref().and_then(|spec| spec.access_modes.as_deref()).unwrap_or_default();
    !modes.is_empty() && modes.iter().all(|mode| mode == "ReadOnlyMany")
}

fn place(
    claim: &PersistentVolumeClaim,
    volume_name: String,
    uses: &[Use<'_>],
    wished: &Wished,
) -> Result<Place, String> {
    let nodes: BTreeSet<_> = uses.iter().map(|each| each.node).collect();
    let node = nodes.first().copied().ok_or(NOT_MOUNTED)?;
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
    let method = wished.method.clone().or_else(|| annotation(METHOD_ANNOTATION).cloned());
    let mut mounts: Vec<_> = here.iter().map(|each| each.mount.clone()).collect();
    // one that shows all of it is the better way in
    mounts.sort_by_key(|mount| mount.part);
    let namespace = claim.metadata.namespace.clone().unwrap_or_default();
    let volume = wire::Volume {
        id: format!("{namespace}/{}", claim.metadata.name.clone().unwrap_or_default()),
        volume_name,
        mounts,
        read_only: writers.is_empty(),
        method: method.unwrap_or_default(),
        freeze: wished.freeze.unwrap_or_else(|| annotation(FREEZE_ANNOTATION).is_none_or(|value| value != "false")),
        parent: None,
    };
    Ok(Place::Node(node.to_owned(), Box::new(volume)))
}

/// The volumes of a pod that are a claim's, each with whether the pod may only read it.
fn volumes_of<'a>(pod: &'a Pod, namespace: &str, claim: &str) -> Vec<(&'a Volume, bool)> {
    let (Some(spec), Some(name)) = (&pod.spec, &pod.metadata.name) else { return Vec::new() };
    if pod.metadata.namespace.as_deref() != Some(namespace) {
        return Vec::new();
    }
    let volumes = spec.volumes.iter().flatten().filter_map(|volume| {
        let source = volume.persistent_volume_claim.as_ref();
        // a generic ephemeral volume is a claim that the pod owns
        let ephemeral = volume.ephemeral.as_ref().map(|_| format!("{name}-{}", volume.name));
        let only_read = source.is_some_and(|source| source.read_only == Some(true));
        let is_it = source.map(|source| &source.claim_name).or(ephemeral.as_ref()).is_some_and(|own| own == claim);
        is_it.then_some((volume, only_read))
    });
    volumes.collect()
}

/// The containers of a pod's mounts of a volume.
fn mounts_of<'a>(spec: &'a PodSpec, volume: &'a str) -> impl Iterator<Item = (&'a str, &'a ContainerMount)> {
    spec.containers.iter().chain(spec.init_containers.iter().flatten()).flat_map(move |container| {
        let mounts = container.volume_mounts.iter().flatten().filter(move |mount| mount.name == volume);
        mounts.map(|mount| (container.name.as_str(), mount))
    })
}

/// The node of a pod that mounts a claim, or is about to.
fn sits_on(pod: &Pod, namespace: &str, claim: &str) -> Option<String> {
    let goes = helper::has_ended(pod) || pod.metadata.deletion_timestamp.is_some();
    let mounts = !goes && !volumes_of(pod, namespace, claim).is_empty();
    pod.spec.as_ref()?.node_name.clone().filter(|_| mounts)
}

/// The node on which a pod may have written to a claim, whatever became of the pod since.
pub(crate) fn writes_on<'a>(pod: &'a Pod, namespace: &str, claim: &str) -> Option<&'a str> {
    let spec = pod.spec.as_ref()?;
    let volumes = volumes_of(pod, namespace, claim);
    let mut writable = volumes.iter().filter(|(_, only_read)| !only_read).map(|(volume, _)| volume);
    let writes = writable.any(|volume| mounts_of(spec, &volume.name).any(|(_, mount)| mount.read_only != Some(true)));
    spec.node_name.as_deref().filter(|_| writes)
}

/// The uses of a claim by one pod that runs.
fn uses<'a>(pod: &'a Pod, namespace: &str, claim: &str) -> Vec<Use<'a>> {
    let (Some(spec), Some(status)) = (&pod.spec, &pod.status) else { return Vec::new() };
    let (Some(node), false) = (spec.node_name.as_deref(), helper::has_ended(pod)) else { return Vec::new() };
    let running = status.container_statuses.iter().chain(&status.init_container_statuses).flatten();
    let ids: BTreeMap<_, _> = running
        .filter(|status| status.state.as_ref().is_some_and(|state| state.running.is_some()))
        .filter_map(|status| Some((status.name.as_str(), status.container_id.as_deref()?)))
        .collect();
    let mut found = Vec::new();
    for (volume, only_read) in volumes_of(pod, namespace, claim) {
        let running = mounts_of(spec, &volume.name).filter_map(|(container, mount)| Some((ids.get(container)?, mount)));
        found.extend(running.map(|(id, mount)| Use {
            pod,
            node,
            mount: of_container(pod, namespace, id, mount),
            writes: !(only_read || mount.read_only == Some(true)),
        }));
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
