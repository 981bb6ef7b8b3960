//! Matches claims and their volumes against the policies that a user wrote.
//!
//! Compiled before the cluster is asked anything, so that what is wrong with a file ends a backup before it begins.

use std::collections::BTreeMap;

use k8s_openapi::{
    api::core::v1::{PersistentVolume, PersistentVolumeClaim, PersistentVolumeSpec},
    apimachinery::pkg::api::resource::Quantity,
};
use kube_quantity::ParsedQuantity;
use stillpoint_api::{CsiCondition, NfsCondition, VolumeAction, VolumeConditions, VolumePolicies};
use stillpoint_objects::filter::Pattern;

/// Policies for volumes, in order; none by default.
#[derive(Debug, Clone, Default)]
pub struct Policies(Vec<Policy>);

/// What is wrong with a policy.
#[derive(Debug, thiserror::Error)]
pub enum PolicyError {
    /// A glob.
    #[error("volume policy {number}: {source}")]
    Pattern {
        /// Which policy, from 1.
        number: usize,
        /// Why it is none.
        source: stillpoint_objects::Error,
    },
    /// The least or the most that a volume can hold.
    #[error(
        "volume policy {number}: {capacity:?} is no range of capacities: write the least and the most that a volume can \
         hold as quantities, as in \"10Gi,100Gi\", \",100Gi\" or \"10Gi,\""
    )]
    Capacity {
        /// Which policy, from 1.
        number: usize,
        /// What it says.
        capacity: String,
    },
}

#[derive(Debug, Clone)]
struct Policy {
    conditions: VolumeConditions,
    namespaces: Vec<Pattern>,
    claims: Vec<Pattern>,
    /// The least and the most, in bytes.
    capacity: [Option<f64>; 2],
    action: VolumeAction,
}

impl Policies {
    /// Compiles policies.
    ///
    /// # Errors
    /// What is wrong with the first that cannot be compiled.
    pub fn compile(policies: VolumePolicies) -> Result<Self, PolicyError> {
        let mut compiled = Vec::new();
        for (number, policy) in (1..).zip(policies.volume_policies) {
            let globs = |globs: &[String]| {
                let globs = globs.iter().map(|glob| Pattern::compile(glob)).collect::<Result<Vec<_>, _>>();
                globs.map_err(|source| PolicyError::Pattern { number, source })
            };
            let (namespaces, claims) = (globs(&policy.conditions.namespaces)?, globs(&policy.conditions.claims)?);
            let capacity = match &policy.conditions.capacity {
                None => [None, None],
                Some(text) => range(text).ok_or_else(|| PolicyError::Capacity { number, capacity: text.clone() })?,
            };
            let (conditions, action) = (policy.conditions, policy.action);
            compiled.push(Policy { conditions, namespaces, claims, capacity, action });
        }
        Ok(Self(compiled))
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// What is done with a claim, if a policy says so; `volume` is the one that it is bound to.
    pub(super) fn of(&self, claim: &PersistentVolumeClaim, volume: Option<&PersistentVolume>) -> Option<&VolumeAction> {
        self.0.iter().find(|policy| policy.is_for(claim, volume)).map(|policy| &policy.action)
    }
}

impl Policy {
    fn is_for(&self, claim: &PersistentVolumeClaim, volume: Option<&PersistentVolume>) -> bool {
        let VolumeConditions { storage_class, nfs, csi, volume_types, pvc_labels, pvc_phase, .. } = &self.conditions;
        let (spec, status) = (claim.spec.as_ref(), claim.status.as_ref());
        let volume = volume.and_then(|volume| volume.spec.as_ref());
        let names = |patterns: &[Pattern], name: Option<&String>| {
            patterns.is_empty() || name.is_some_and(|name| patterns.iter().any(|pattern| pattern.matches(&[name])))
        };
        let one_of =
            |wanted: &[String], is: Option<&String>| wanted.is_empty() || is.is_some_and(|is| wanted.contains(is));
        let class = spec.and_then(|spec| spec.storage_class_name.as_ref());
        names(&self.namespaces, claim.metadata.namespace.as_ref())
            && names(&self.claims, claim.metadata.name.as_ref())
            && one_of(storage_class, class.or_else(|| volume?.storage_class_name.as_ref()))
            && one_of(pvc_phase, status.and_then(|status| status.phase.as_ref()))
            && has(claim.metadata.labels.as_ref(), pvc_labels)
            && nfs.as_ref().is_none_or(|nfs| is_nfs(volume, nfs))
            && csi.as_ref().is_none_or(|csi| is_csi(volume, csi))
            && (volume_types.is_empty() || volume.is_some_and(|volume| is_of_type(volume, volume_types)))
            && self.holds(claim, volume)
    }

    /// Whether the volume can hold as much as is asked for.
    fn holds(&self, claim: &PersistentVolumeClaim, volume: Option<&PersistentVolumeSpec>) -> bool {
        let [least, most] = self.capacity;
        if least.is_none() && most.is_none() {
            return true;
        }
        let of_claim = claim.status.as_ref().and_then(|status| status.capacity.as_ref());
        let capacity = of_claim.or_else(|| volume?.capacity.as_ref()).and_then(|capacity| capacity.get("storage"));
        let bytes = capacity.and_then(|Quantity(text)| bytes(text));
        bytes.is_some_and(|bytes| least.is_none_or(|least| bytes >= least) && most.is_none_or(|most| bytes <= most))
    }
}

fn has(found: Option<&BTreeMap<String, String>>, wanted: &BTreeMap<String, String>) -> bool {
    wanted.iter().all(|(key, value)| found.and_then(|found| found.get(key)) == Some(value))
}

fn is_nfs(volume: Option<&PersistentVolumeSpec>, NfsCondition { server, path }: &NfsCondition) -> bool {
    let nfs = volume.and_then(|volume| volume.nfs.as_ref());
    nfs.is_some_and(|nfs| {
        server.as_ref().is_none_or(|server| *server == nfs.server) && path.as_ref().is_none_or(|path| *path == nfs.path)
    })
}

fn is_csi(volume: Option<&PersistentVolumeSpec>, CsiCondition { driver, volume_attributes }: &CsiCondition) -> bool {
    let csi = volume.and_then(|volume| volume.csi.as_ref());
    csi.is_some_and(|csi| {
        driver.as_ref().is_none_or(|driver| *driver == csi.driver)
            && has(csi.volume_attributes.as_ref(), volume_attributes)
    })
}

/// A volume's source is the field of that name.
fn is_of_type(volume: &PersistentVolumeSpec, wanted: &[String]) -> bool {
    let fields = serde_json::to_value(volume).unwrap_or_default();
    wanted.iter().any(|wanted| fields.get(wanted).is_some_and(|source| source.is_object()))
}

/// The least and the most of a range.
fn range(text: &str) -> Option<[Option<f64>; 2]> {
    let (least, most) = text.split_once(',')?;
    let bound = |text: &str| match text.trim() {
        "" => Some(None),
        text => bytes(text).map(Some),
    };
    Some([bound(least)?, bound(most)?])
}

fn bytes(quantity: &str) -> Option<f64> {
    ParsedQuantity::try_from(quantity).ok()?.to_bytes_f64()
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn compile(policies: Value) -> Result<Policies, PolicyError> {
        let policies = json!({"version": "v1", "volumePolicies": policies});
        Policies::compile(serde_json::from_value(policies).unwrap())
    }

    /// Whether a volume meets conditions.
    fn meets(conditions: Value) -> bool {
        let claim: PersistentVolumeClaim = serde_json::from_value(json!({
            "metadata": {"namespace": "shop", "name": "data-0", "labels": {"app": "db", "tier": "gold"}},
            "spec": {"storageClassName": "fast", "volumeName": "pv"},
            "status": {"phase": "Bound", "capacity": {"storage": "10Gi"}},
        }))
        .unwrap();
        let csi = json!({"driver": "ebs.csi.aws.com", "volumeHandle": "v", "volumeAttributes": {"kind": "gp3"}});
        let volume: PersistentVolume =
            serde_json::from_value(json!({"metadata": {"name": "pv"}, "spec": {"csi": csi}})).unwrap();
        let policies = compile(json!([{"conditions": conditions, "action": {"type": "skip"}}])).unwrap();
        policies.of(&claim, Some(&volume)) == Some(&VolumeAction::Skip)
    }

    #[test]
    fn every_condition_is_asked_and_what_is_left_out_is_not() {
        for met in [
            json!({}),
            json!({"namespaces": ["other", "sh*"], "claims": ["data-*"]}),
            json!({"capacity": "10Gi,10Gi"}),
            json!({"capacity": ",11G"}),
            json!({"capacity": "10737418240,"}),
            json!({"storageClass": ["slow", "fast"]}),
            json!({"csi": {}}),
            json!({"csi": {"driver": "ebs.csi.aws.com", "volumeAttributes": {"kind": "gp3"}}}),
            json!({"volumeTypes": ["nfs", "csi"]}),
            json!({"pvcLabels": {"app": "db"}, "pvcPhase": ["Bound"]}),
        ] {
            assert!(meets(met.clone()), "{met}");
        }
        for missed in [
            json!({"namespaces": ["sh"]}),
            json!({"claims": ["data-1"]}),
            json!({"namespaces": ["shop"], "claims": ["web"]}),
            json!({"capacity": "11Gi,"}),
            json!({"capacity": ",10G"}),
            json!({"storageClass": ["slow"]}),
            json!({"nfs": {}}),
            json!({"csi": {"driver": "other"}}),
            json!({"csi": {"volumeAttributes": {"kind": "io1"}}}),
            json!({"volumeTypes": ["local", "accessModes"]}),
            json!({"pvcLabels": {"app": "db", "tier": "silver"}}),
            json!({"pvcPhase": ["Pending", "Lost"]}),
        ] {
            assert!(!meets(missed.clone()), "{missed}");
        }
    }

    #[test]
    fn the_first_policy_whose_conditions_are_met_is_taken() {
        let policies = compile(json!([
            {"conditions": {"claims": ["cache"]}, "action": {"type": "skip"}},
            {"conditions": {"claims": ["data"]}, "action": {"type": "fs-backup", "parameters": {"freeze": false}}},
            {"conditions": {}, "action": {"type": "fs-backup"}},
        ]))
        .unwrap();
        let action = |name: &str| {
            let claim = serde_json::from_value(json!({"metadata": {"namespace": "shop", "name": name}})).unwrap();
            serde_json::to_value(policies.of(&claim, None)).unwrap()
        };
        assert_eq!(action("cache"), json!({"type": "skip"}));
        assert_eq!(action("data")["parameters"]["freeze"], json!(false));
        assert_eq!(action("other")["type"], json!("fs-backup"));
    }

    #[test]
    fn what_cannot_be_compiled_is_told_by_its_number() {
        let first = json!({"conditions": {}, "action": {"type": "skip"}});
        for (wrong, words) in [
            (json!({"capacity": "10Gi"}), "is no range"),
            (json!({"capacity": "many,"}), "is no range"),
            (json!({"namespaces": ["[a"]}), "[a"),
        ] {
            let second = json!({"conditions": wrong, "action": {"type": "skip"}});
            let error = compile(json!([first, second])).unwrap_err().to_string();
            assert!(error.starts_with("volume policy 2: ") && error.contains(words), "{error}");
        }
    }
}
