//! Whether what captured objects refer to is in the backup, where its scope should hold it.
//!
//! A backup alone cannot tell an object that was lost from one that never existed: a finding says that something needed
//! is *not in the backup*, and that what needs it would not work after a restore. What the scope leaves out is never
//! demanded.
//!
//! | a reference that | is demanded |
//! |---|---|
//! | the object works without, or may be absent by its own word | never |
//! | stands in an object that is never restored, such as a finished Pod | never |
//! | stands in a ReplicaSet that its Deployment keeps as history, without replicas | only if it names an owner |
//! | names what every cluster makes by itself | never |
//! | is required | where the scope takes the target's type and namespace, and no label selector is set |
//! | names an owner | the same, label selector or not: a dropped owner reference is a change |
//! | names a cluster-scoped object, where those are captured by need | if required and its type is fixed by the field |
//! | names its own namespace, or the definition of its type | if required; one finding for all objects that do |
//! | names a type of which objects were left out by label or while being deleted | cannot be told |

mod prerequisites;

use std::collections::HashMap;

pub(crate) use prerequisites::Absent;
use prerequisites::Prerequisites;
use serde_json::Value;
use stillpoint_api::{
    Check, CheckKind, ClusterResources, ExclusionRule, GroupResource, Manifest, ObjectRef, ResourceType, TypeRecord,
};
use stillpoint_objects::{
    self as objects,
    filter::Selection,
    references::{Need, Reference, Target, references},
};

use crate::{
    findings::{Findings, counted},
    held::Held,
};

/// Looks up the references of one object after the other.
#[derive(Debug)]
pub(crate) struct References<'a> {
    scope: Scope<'a>,
    held: &'a Held,
    tally: Tally,
    prerequisites: Prerequisites,
    findings: Findings,
}

/// What the check came to.
#[derive(Debug)]
pub(crate) struct Referred {
    pub(crate) check: Check,
    pub(crate) absent: Absent,
}

/// How many references came to what.
#[derive(Debug, Default)]
struct Tally {
    found: u64,
    not_demanded: u64,
    untold: u64,
}

/// What a reference comes to.
#[derive(Debug, PartialEq, Eq)]
enum Answer {
    Found,
    NotDemanded,
    /// Objects of the type were left out one by one, and this may be one of them.
    Untold,
    Missing(String),
}

impl<'a> References<'a> {
    /// Begins the check of a backup.
    ///
    /// # Errors
    /// The manifest's scope cannot be read.
    pub(crate) fn new(manifest: &'a Manifest, held: &'a Held) -> Result<Self, objects::Error> {
        let scope = Scope::new(manifest)?;
        let (tally, prerequisites, findings) = Default::default();
        Ok(Self { scope, held, tally, prerequisites, findings })
    }

    /// Looks up the references of an object.
    pub(crate) fn object(&mut self, resource: &ResourceType, object: &ObjectRef, value: &Value) {
        self.prerequisites.learn(resource, value);
        let is_history = is_history(&resource.name, value);
        for reference in references(&resource.name, value) {
            if self.prerequisites.take(resource, object, &reference) {
                continue;
            }
            if is_history && reference.need == Need::Required {
                self.tally.not_demanded += 1;
                continue;
            }
            match self.answer(&reference) {
                Answer::Found => self.tally.found += 1,
                Answer::NotDemanded => self.tally.not_demanded += 1,
                Answer::Untold => self.tally.untold += 1,
                Answer::Missing(message) => self.findings.add(object, message),
            }
        }
    }

    /// Ends the check.
    pub(crate) fn judge(mut self) -> Referred {
        let absent = self.absent();
        let Tally { found, not_demanded, untold } = self.tally;
        let mut summary = format!("{} lead into the backup", counted(found, "reference"));
        if self.findings.total() > 0 {
            summary.push_str(&format!(", {} to nothing", self.findings.total()));
        }
        if not_demanded > 0 {
            summary.push_str(&format!("; {not_demanded} need not"));
        }
        if untold > 0 {
            summary
                .push_str(&format!("; of {untold} it cannot be told, as objects of their types were left out by rule"));
        }
        Referred { check: self.findings.judge(CheckKind::References, summary), absent }
    }

    /// Names every prerequisite that should be in the backup and is not.
    fn absent(&mut self) -> Absent {
        let mut absent = Absent::default();
        for (needed, objects) in self.prerequisites.needed() {
            let held = self.held.object(needed);
            if !held && self.scope.demands(needed, Need::Required) == Demand::Held {
                let objects = counted(objects, "object");
                self.findings
                    .add(needed, format!("not in the backup; no server takes the {objects} in it that need it"));
                absent.insert(needed.clone());
            }
        }
        absent
    }

    fn answer(&self, reference: &Reference) -> Answer {
        if matches!(reference.need, Need::Optional | Need::System) {
            return Answer::NotDemanded;
        }
        // an object of a type that the source did not serve cannot have existed
        let Some(target) = self.scope.target(&reference.to) else { return Answer::NotDemanded };
        let uid = uid(&reference.to);
        if uid.map_or_else(|| self.held.object(&target), |uid| self.held.uid(uid)) {
            return Answer::Found;
        }
        if matches!(reference.to, Target::Kind { .. }) && target.namespace.is_none() && self.scope.by_need {
            return Answer::NotDemanded;
        }
        match self.scope.demands(&target, reference.need) {
            Demand::Held => Answer::Missing(self.message(reference, &target)),
            Demand::Untold => Answer::Untold,
            Demand::None => Answer::NotDemanded,
        }
    }

    fn message(&self, reference: &Reference, target: &ObjectRef) -> String {
        let path = &reference.from_path;
        match reference.need {
            Need::Owner if self.held.object(target) => {
                format!(
                    "its owner {target} ({path}) is not in the backup: the object of that name there has another uid"
                )
            }
            Need::Owner => format!("its owner {target} ({path}) is not in the backup"),
            _ => format!("it needs {target} ({path}), which is not in the backup"),
        }
    }
}

/// Whether nothing runs from an object any more: an old revision of a Deployment names what may be long gone.
fn is_history(resource: &GroupResource, value: &Value) -> bool {
    let owners = value["metadata"]["ownerReferences"].as_array().into_iter().flatten();
    resource.is("apps", "replicasets")
        && value["spec"]["replicas"] == 0
        && owners.into_iter().any(|owner| owner["kind"] == "Deployment" && owner["controller"] == true)
}

/// The uid that a reference asks for; names alone identify what other references point at.
fn uid(target: &Target) -> Option<&str> {
    match target {
        Target::Kind { uid, .. } => uid.as_deref(),
        Target::Object(_) => None,
    }
}

/// What a backup's scope should hold.
#[derive(Debug)]
struct Scope<'a> {
    selection: Selection,
    has_selector: bool,
    /// Whether cluster-scoped objects are captured where captured ones need them.
    by_need: bool,
    types: HashMap<&'a GroupResource, &'a TypeRecord>,
    kinds: HashMap<(&'a str, &'a str), &'a ResourceType>,
}

/// Whether an object should be in the backup.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Demand {
    Held,
    Untold,
    None,
}

impl<'a> Scope<'a> {
    fn new(manifest: &'a Manifest) -> Result<Self, objects::Error> {
        let scope = &manifest.scope;
        let records = || manifest.types.iter();
        let kind = |record: &'a TypeRecord| {
            ((record.resource.name.group.as_str(), record.resource.kind.as_str()), &record.resource)
        };
        Ok(Self {
            selection: Selection::compile(scope)?,
            has_selector: scope.label_selector.is_some(),
            by_need: scope.cluster_resources == ClusterResources::Auto && !scope.spans_all_namespaces(),
            types: records().map(|record| (&record.resource.name, record)).collect(),
            kinds: records().map(kind).collect(),
        })
    }

    /// The object that a reference points at; none where the source did not serve its type.
    fn target(&self, target: &Target) -> Option<ObjectRef> {
        match target {
            Target::Object(object) => self.types.contains_key(&object.resource).then(|| object.clone()),
            Target::Kind { api_version, kind, namespace, name, .. } => {
                let group = api_version.split_once('/').map_or("", |(group, _)| group);
                let resource = self.kinds.get(&(group, kind.as_str()))?;
                let namespace = namespace.as_deref().filter(|_| resource.namespaced);
                Some(ObjectRef::new(resource.name.clone(), namespace, name))
            }
        }
    }

    fn demands(&self, object: &ObjectRef, need: Need) -> Demand {
        let Some(record) = self.types.get(&object.resource) else { return Demand::None };
        let left_out = |wanted: &[ExclusionRule]| record.excluded.iter().any(|e| wanted.contains(&e.rule));
        let is_namespace = object.resource.is("", "namespaces");
        let place = if is_namespace { Some(object.name.as_str()) } else { object.namespace.as_deref() };
        let whole_type = record.excluded.iter().any(|e| matches!(e.rule, ExclusionRule::SameAs(_)))
            || left_out(&[ExclusionRule::NotCreatable])
            || self.selection.type_rule(&record.resource, true).is_some();
        let elsewhere = place.is_some_and(|namespace| !self.selection.takes_namespace(namespace));
        if whole_type || elsewhere || self.has_selector && need != Need::Owner {
            Demand::None
        } else if left_out(&[ExclusionRule::ExcludeLabel, ExclusionRule::BeingDeleted, ExclusionRule::OwnedByService]) {
            Demand::Untold
        } else {
            Demand::Held
        }
    }
}

#[cfg(test)]
mod tests;
