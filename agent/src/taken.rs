//! Adds up what one attempt took.
//!
//! The one place where counts, rules and problems of single units become the manifest's record of a type.

use std::collections::BTreeMap;

use stillpoint_api::{
    Exclusion, GroupResource, Problem, ProblemKind, ResourceType, TypeRecord, VolumeData, VolumeIntent, VolumeRecord,
};
use stillpoint_repository::{FileContent, Node};

use crate::{
    Error,
    cut::Recorded,
    plan::{Fate, Plan},
    unit::{Captured, Context, ends_attempt},
};

/// What one attempt took.
#[derive(Default)]
pub(crate) struct Taken {
    pub(crate) types: Vec<TypeRecord>,
    pub(crate) files: Vec<(GroupResource, Option<String>, FileContent)>,
    pub(crate) problems: Vec<Problem>,
    pub(crate) volumes: Vec<VolumeRecord>,
}

impl Taken {
    /// Adds up what came of one type.
    pub(crate) async fn add(
        &mut self,
        context: &Context,
        plan: &Plan,
        resource: &ResourceType,
        fate: &Fate,
        stranger: Option<&String>,
        parts: Vec<Captured>,
    ) -> Result<(), Error> {
        let mut record = TypeRecord { resource: resource.clone(), existed: None, captured: 0, excluded: Vec::new() };
        if let Fate::Excluded(rule) = fate {
            record.existed = count(context, plan, resource).await?;
            // the rule is said even where the server cannot say how many it left out
            if record.existed != Some(0) {
                record.excluded.push(Exclusion { rule: rule.clone(), objects: record.existed.unwrap_or(0) });
            }
        } else if let Some(reason) = stranger {
            let (subject, message) = (resource.name.to_string(), reason.clone());
            self.problems.push(Problem { kind: ProblemKind::OtherStore, subject, message });
        } else {
            self.add_parts(&mut record, parts);
        }
        self.types.push(record);
        Ok(())
    }

    /// Patterns of the scope that include nothing: what was asked for is missing, though no list failed.
    pub(crate) fn add_unmatched(&mut self, what: &str, patterns: Vec<&str>) {
        self.problems.extend(patterns.into_iter().map(|pattern| Problem {
            kind: ProblemKind::Unmatched,
            subject: pattern.to_owned(),
            message: format!("the scope includes it, and the cluster has no such {what}"),
        }));
    }

    fn add_parts(&mut self, record: &mut TypeRecord, parts: Vec<Captured>) {
        let mut excluded = BTreeMap::new();
        record.existed = Some(0);
        for part in parts {
            record.existed = record.existed.zip(part.existed).map(|(sum, existed)| sum + existed);
            record.captured += part.captured;
            for (rule, objects) in part.excluded {
                *excluded.entry(rule).or_default() += objects;
            }
            let name = &record.resource.name;
            self.files.extend(part.files.into_iter().map(|(ns, content)| (name.clone(), ns, content)));
            self.problems.extend(part.problems);
            self.volumes.extend(part.claims.into_iter().map(|(namespace, claim)| VolumeRecord {
                namespace,
                claim,
                data: VolumeData::NotHeld,
            }));
        }
        record.excluded = excluded.into_iter().map(|(rule, objects)| Exclusion { rule, objects }).collect();
    }

    /// Says of each claim that the backup holds what became of its data, and gives the directories of those whose data is
    /// held. What is wanted and not held, or not whole, degrades the backup by name.
    pub(crate) fn add_volumes(
        &mut self,
        intent: VolumeIntent,
        record: impl Fn(&VolumeRecord) -> Option<Recorded>,
    ) -> Vec<(VolumeRecord, Node)> {
        let mut directories = Vec::new();
        for volume in &mut self.volumes {
            if intent == VolumeIntent::LeftOut {
                volume.data = VolumeData::LeftOut;
                continue;
            }
            let problem = match record(volume) {
                Some(Recorded { data, directory, problem }) => {
                    volume.data = data;
                    directories.extend(directory.map(|directory| (volume.clone(), directory)));
                    problem
                }
                None => Some(
                    "this backup holds the claim but not its data, because nobody was asked to copy it; --no-volumes says \
                     that this is meant"
                        .to_owned(),
                ),
            };
            self.problems.extend(problem.map(|message| Problem {
                kind: ProblemKind::Volume,
                subject: format!("persistentvolumeclaims.core/{}/{}", volume.namespace, volume.claim),
                message,
            }));
        }
        directories
    }
}

/// How many objects of an excluded type existed; none where the server cannot say.
async fn count(context: &Context, plan: &Plan, resource: &ResourceType) -> Result<Option<u64>, Error> {
    let mut sum = 0;
    for unit in plan.units_of(resource) {
        match unit.count(context).await {
            Ok(objects) => sum += objects,
            Err(error) if ends_attempt(&error) => return Err(error.into()),
            Err(_) => return Ok(None),
        }
    }
    Ok(Some(sum))
}
