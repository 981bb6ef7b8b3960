//! The plan: what will be created in which order, what will not, and why.
//!
//! Made in one pass over the backup. It names objects by their place in the backup instead of holding them, so that
//! its size grows with their number and not with their bytes.

use std::collections::{BTreeMap, HashMap, HashSet};

use serde::Serialize;
use serde_json::Value;
use stillpoint_api::{Digest, GroupResource, ObjectRef, SignerState, VolumeRecord, VolumeSnapshot};
use stillpoint_catalog::{Backup, CapturedObject, ObjectFile};
use stillpoint_objects::{
    discovery::Discovery,
    order::{self, Level},
    sanitise::{Mapping, Sanitised, sanitise},
};

use crate::{
    Error, owners,
    rank::{Rank, Ranked, ranks},
    target::Target,
};

/// What a user asks for.
#[derive(Debug, Clone, Default)]
pub struct RestoreRequest {
    /// How objects are changed on their way: namespaces, labels.
    pub mapping: Mapping,
    /// Whether a backup that is unsigned or signed by a key that is not pinned is restored all the same.
    pub accept_untrusted: bool,
    /// Whether claims whose data the backup holds get it: they are then bound to new volumes.
    pub fill: bool,
}

/// What a restore will do.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Plan {
    /// The backup's name.
    pub backup: String,
    /// The backup's root.
    pub root: Digest,
    /// Who signed it.
    pub signer: SignerState,
    /// What is created, stage after stage.
    pub stages: Vec<Stage>,
    /// Claims that get their data, before anything is created that runs.
    pub volumes: Vec<PlannedVolume>,
    /// Objects that are never restored, with the reason.
    pub left_out: Vec<LeftOut>,
    /// Objects that the target cannot take, with the reason.
    pub refused: Vec<Refused>,
    /// What is changed beyond the published rules.
    pub warnings: Vec<Warning>,
    #[serde(skip)]
    pub(crate) mapping: Mapping,
    #[serde(skip)]
    pub(crate) files: Vec<ObjectFile>,
    #[serde(skip)]
    pub(crate) target: Target,
    /// The uids, as captured, of planned objects that others name as owners.
    #[serde(skip)]
    pub(crate) planned_owners: HashSet<String>,
}

impl Plan {
    /// Objects that will be created.
    pub fn objects(&self) -> usize {
        self.stages.iter().map(|stage| stage.steps.len()).sum()
    }
}

/// Objects that can be created at once.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Stage {
    /// The level of their kinds, or of their owners or definitions where those come later.
    pub level: Level,
    /// How far down the chain of owners and definitions; 0 for objects that wait for no other of their level.
    pub depth: u32,
    /// The objects, in the order of their files.
    pub steps: Vec<Step>,
}

/// One object to create.
#[derive(Debug, Clone, Serialize)]
pub struct Step {
    /// The object as captured.
    pub object: ObjectRef,
    /// The namespace or name it gets in the target, where that differs.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub becomes: Option<ObjectRef>,
    #[serde(skip)]
    pub(crate) file: usize,
    #[serde(skip)]
    pub(crate) line: u64,
}

impl Step {
    /// The object in the target.
    pub fn target(&self) -> &ObjectRef {
        self.becomes.as_ref().unwrap_or(&self.object)
    }
}

/// A claim that gets the data that the backup holds of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct PlannedVolume {
    /// The claim as captured, as `namespace/name`.
    pub volume: String,
    /// The claim in the target.
    pub claim: ObjectRef,
    /// Files.
    pub files: u64,
    /// Their bytes.
    pub bytes: u64,
}

/// An object that is never restored.
#[derive(Debug, Clone, Serialize)]
pub struct LeftOut {
    /// The object as captured.
    pub object: ObjectRef,
    /// Why.
    pub reason: String,
}

/// An object that the target does not take.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Refused {
    /// The object in the target.
    pub object: ObjectRef,
    /// Why, in the server's words where it was asked.
    pub reason: String,
}

/// Something that is changed on the way.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Warning {
    /// The object in the target.
    pub object: ObjectRef,
    /// What is changed, and why.
    pub message: String,
}

/// Makes the plan. Reads the whole backup and thereby checks every byte of it.
///
/// # Errors
/// The backup is damaged or not trusted, or the target could not be asked what it serves.
pub async fn plan(backup: &Backup, discovery: &Discovery, request: &RestoreRequest) -> Result<Plan, Error> {
    check_signer(backup, request)?;
    let mut mapping = request.mapping.clone();
    if request.fill {
        mapping.refilled = held(backup).map(|(record, _)| (record.namespace.clone(), record.claim.clone())).collect();
    }
    let mut draft = Drafting { target: Target::new(discovery), ..Drafting::default() };
    let files = backup.files().await?;
    for (index, file) in files.iter().enumerate() {
        let mut objects = backup.objects(file)?;
        let mut line = 0;
        while let Some(object) = objects.next().await? {
            draft.take(&mapping, index, file, line, &object)?;
            line += 1;
        }
    }
    Ok(draft.finish(backup, files, mapping))
}

fn check_signer(backup: &Backup, request: &RestoreRequest) -> Result<(), Error> {
    match &backup.signer {
        SignerState::Trusted(_) => Ok(()),
        SignerState::Unverified(_) | SignerState::Unsigned | SignerState::Untrusted(_) if request.accept_untrusted => {
            Ok(())
        }
        signer => Err(Error::NotTrusted { name: backup.manifest.backup.name.clone(), signer: signer.clone() }),
    }
}

/// What the backup holds of volumes.
fn held(backup: &Backup) -> impl Iterator<Item = (&VolumeRecord, &VolumeSnapshot)> {
    backup.manifest.volumes.iter().filter_map(|record| Some((record, record.data.held()?)))
}

/// What is known of the objects until all have been read.
#[derive(Default)]
struct Drafting {
    target: Target,
    steps: Vec<(Step, Ranked)>,
    owners: Vec<Vec<owners::Owner>>,
    left_out: Vec<LeftOut>,
}

impl Drafting {
    fn take(
        &mut self,
        mapping: &Mapping,
        index: usize,
        file: &ObjectFile,
        line: u64,
        object: &CapturedObject,
    ) -> Result<(), Error> {
        let captured = file.object(&object.name);
        let value = object.value(&file.resource);
        let value = value.map_err(|source| Error::BadObject { object: captured.clone(), source })?;
        let owners = owners::of(&value);
        match sanitise(&file.resource, value, mapping) {
            Sanitised::Skip(reason) => self.left_out.push(LeftOut { object: captured, reason: reason.to_string() }),
            Sanitised::Create(value) => {
                let level = order::level(&file.resource.name);
                if level == Level::CustomResourceDefinitions {
                    self.target.define(&object.uid, &value);
                }
                let becomes = Some(reference(&file.resource.name, &value)).filter(|becomes| *becomes != captured);
                // a claim is filled before its owners may run
                let waits = !mapping.is_refilled(&captured);
                let uids = owners.iter().filter(|_| waits).map(|owner| owner.uid.clone()).collect();
                let ranked = Ranked { uid: object.uid.clone(), level, after: uids };
                self.steps.push((Step { object: captured, becomes, file: index, line }, ranked));
                self.owners.push(owners);
            }
        }
        Ok(())
    }

    fn finish(self, backup: &Backup, files: Vec<ObjectFile>, mapping: Mapping) -> Plan {
        let Self { target, steps, owners, left_out } = self;
        let (mut steps, mut ranked): (Vec<_>, Vec<_>) = steps.into_iter().unzip();
        // a definition may itself have to wait, for the custom object that owns it
        for (ranked, step) in ranked.iter_mut().zip(&steps) {
            ranked.after.extend(target.definition(&step.object.resource).map(str::to_owned));
        }
        let ranks = ranks(&ranked);
        let planned: HashSet<&str> = ranked
            .iter()
            .zip(&steps)
            .filter(|(_, step)| target.serves(&step.object.resource))
            .map(|(ranked, _)| ranked.uid.as_str())
            .collect();
        let warn = |step: &Step, message| Warning { object: step.target().clone(), message };
        let warnings = steps.iter().zip(&owners);
        let warnings = warnings.flat_map(|(step, owners)| owners::lost(owners, &planned).map(|text| warn(step, text)));
        let warnings = warnings.collect();
        let named = owners.into_iter().flatten().map(|owner| owner.uid);
        let planned_owners = named.filter(|uid| planned.contains(uid.as_str())).collect();
        let volumes = planned_volumes(backup, &mapping, &steps);
        let mut stages: BTreeMap<Rank, Vec<Step>> = BTreeMap::new();
        let mut refused = Vec::new();
        for (step, rank) in steps.drain(..).zip(ranks) {
            if target.serves(&step.object.resource) {
                stages.entry(rank).or_default().push(step);
            } else {
                refused.push(not_served(&step));
            }
        }
        let stage = |(rank, steps): (Rank, _)| Stage { level: rank.level, depth: rank.depth, steps };
        Plan {
            backup: backup.manifest.backup.name.clone(),
            root: backup.root,
            signer: backup.signer.clone(),
            stages: stages.into_iter().map(stage).collect(),
            volumes,
            left_out,
            refused,
            warnings,
            mapping,
            files,
            target,
            planned_owners,
        }
    }
}

/// The volumes whose claims are restored, where they are to be filled.
fn planned_volumes(backup: &Backup, mapping: &Mapping, steps: &[Step]) -> Vec<PlannedVolume> {
    let is_claim = |step: &&Step| mapping.is_refilled(&step.object);
    let claims: HashMap<_, _> = steps.iter().filter(is_claim).map(|step| (&step.object, step.target())).collect();
    let planned = |(record, held): (&VolumeRecord, &VolumeSnapshot)| {
        let resource = GroupResource::new("", "persistentvolumeclaims");
        let captured = ObjectRef::new(resource, Some(record.namespace.as_str()), &record.claim);
        let claim = (*claims.get(&captured)?).clone();
        let volume = format!("{}/{}", record.namespace, record.claim);
        Some(PlannedVolume { volume, claim, files: held.files, bytes: held.bytes })
    };
    held(backup).filter_map(planned).collect()
}

fn not_served(step: &Step) -> Refused {
    let resource = &step.object.resource;
    Refused {
        object: step.target().clone(),
        reason: format!("the target does not serve {resource}, and the backup holds no definition of it"),
    }
}

/// Names an object by what it says of itself.
fn reference(resource: &GroupResource, value: &Value) -> ObjectRef {
    let metadata = &value["metadata"];
    ObjectRef::new(resource.clone(), metadata["namespace"].as_str(), metadata["name"].as_str().unwrap_or_default())
}
