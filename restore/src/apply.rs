//! Carries out a plan, or asks the server what would come of it.
//!
//! Stages follow each other, because later ones need what earlier ones create; within a stage many objects are
//! written at once. An object that exists is kept, one that is refused is named with the server's words, and the
//! restore goes on: at 3 a.m. most of a shop is worth more than none of it.

use std::{
    collections::{HashMap, HashSet},
    sync::{Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use futures::TryStreamExt;
use serde::Serialize;
use serde_json::Value;
use stillpoint_api::{GroupResource, ObjectRef, ResourceType};
use stillpoint_catalog::{Backup, CapturedObject};
use stillpoint_objects::{
    self as objects,
    diff::{self, Change},
    list,
    normalise::normalise,
    order::{self, Level},
    retry::Retry,
    sanitise::{Sanitised, sanitise},
    write::{self, Created, DryRun},
};
use tokio::sync::watch;

use crate::{
    Error,
    feed::feed,
    fill::{self, Filled, Filling, NotFilled, Unfilled},
    owners,
    plan::{Plan, PlannedVolume, Refused, Stage, Step, Warning},
};

/// Objects that are written at once.
const CONCURRENCY: usize = 32;
/// How long a created definition may take until its type is served.
const SERVED_WITHIN: Duration = Duration::from_secs(60);
const SERVED_POLL: Duration = Duration::from_millis(100);

/// How far a restore is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Progress {
    /// Objects that were created, kept or refused.
    pub done: u64,
    /// Objects in the plan.
    pub total: u64,
    /// Bytes of volumes that were written.
    pub bytes: u64,
    /// Bytes of the volumes that are being filled.
    pub total_bytes: u64,
}

/// What came of a restore.
#[derive(Debug, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Applied {
    /// Objects that were created.
    pub created: u64,
    /// Objects that existed, and were kept as they are.
    pub kept: Vec<Kept>,
    /// Objects that were not taken, those of the plan included.
    pub refused: Vec<Refused>,
    /// Claims that got their data.
    pub filled: Vec<Filled>,
    /// Claims whose data the backup holds, and that did not get it.
    pub not_filled: Vec<NotFilled>,
    /// What was changed on the way, that of the plan included.
    pub warnings: Vec<Warning>,
    /// How long applying took.
    pub seconds: f64,
}

/// An object that existed.
#[derive(Debug, Clone, Serialize)]
pub struct Kept {
    /// The object in the target.
    pub object: ObjectRef,
    /// How it differs from what would have been created; empty where it does not.
    pub differs: Vec<Change>,
}

/// What the server says would come of one object.
#[derive(Debug, Clone, Serialize)]
pub struct Foreseen {
    /// The object in the target.
    pub object: ObjectRef,
    /// What it says.
    pub foresight: Foresight,
}

/// The server's answer to a dry run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase", tag = "answer", content = "message")]
pub enum Foresight {
    /// It would be created.
    Created,
    /// It exists and would be kept.
    Kept,
    /// It would be refused, in the server's words.
    Refused(String),
    /// The server cannot be asked yet, and why.
    NotAsked(String),
}

/// Applies a plan.
///
/// # Errors
/// The backup or the target fails; what was created until then stays, and a second run keeps it.
pub async fn apply(
    client: &kube::Client,
    backup: &Backup,
    plan: &Plan,
    filling: Option<&Filling>,
    progress: watch::Sender<Progress>,
) -> Result<Applied, Error> {
    let started = Instant::now();
    progress.send_replace(Progress { total: plan.objects() as u64, ..Progress::default() });
    let run = Run { client, plan, filling, retry: Retry::default(), uids: Mutex::default(), claims: Mutex::default() };
    let mut applied = Applied { refused: plan.refused.clone(), warnings: plan.warnings.clone(), ..Applied::default() };
    let runs = plan.stages.iter().position(|stage| stage.level >= Level::Workloads).unwrap_or(plan.stages.len());
    let (before, after) = plan.stages.split_at(runs);
    run.stages(backup, before, &mut applied, &progress).await?;
    let claims = std::mem::take(&mut *lock(&run.claims));
    if let Some(filling) = filling {
        Box::pin(filling.fill(&claims, plan, &mut applied, &progress)).await?;
    }
    run.stages(backup, after, &mut applied, &progress).await?;
    run.give_owners(claims, &mut applied).await?;
    applied.seconds = started.elapsed().as_secs_f64();
    Ok(applied)
}

/// Asks the server about every object of a plan, without writing any.
///
/// # Errors
/// The backup or the target fails.
pub async fn dry_run(client: &kube::Client, backup: &Backup, plan: &Plan) -> Result<Vec<Foreseen>, Error> {
    let run =
        Run { client, plan, filling: None, retry: Retry::default(), uids: Mutex::default(), claims: Mutex::default() };
    let namespaces = list::namespace_names(client, &run.retry).await?;
    let mut foreseen = Vec::new();
    for stage in &plan.stages {
        let asked = feed(backup, plan, &stage.steps).map_ok(|(step, object)| run.ask(step, object, &namespaces));
        foreseen.extend(asked.try_buffered(CONCURRENCY).try_collect::<Vec<_>>().await?);
    }
    Ok(foreseen)
}

/// What became of one object.
enum Outcome {
    Created { dropped_owners: Vec<String> },
    Kept { differs: Vec<Change> },
    Refused { reason: String },
}

struct Run<'a> {
    client: &'a kube::Client,
    plan: &'a Plan,
    filling: Option<&'a Filling>,
    retry: Retry,
    /// The uids in the target of objects that others name as owners, by their captured uids.
    uids: Mutex<HashMap<String, String>>,
    /// Claims of the plan's volumes that are there by now.
    claims: Mutex<Vec<Unfilled>>,
}

impl<'a> Run<'a> {
    async fn stages(
        &self,
        backup: &Backup,
        stages: &'a [Stage],
        applied: &mut Applied,
        progress: &watch::Sender<Progress>,
    ) -> Result<(), Error> {
        for stage in stages {
            let mut outcomes = std::pin::pin!(
                feed(backup, self.plan, &stage.steps)
                    .map_ok(|(step, object)| self.create(step, object))
                    .try_buffer_unordered(CONCURRENCY)
            );
            while let Some((step, outcome)) = self.unless_cancelled(outcomes.try_next()).await?? {
                applied.add(step, outcome);
                progress.send_modify(|progress| progress.done += 1);
            }
            self.unless_cancelled(self.wait_until_served(stage, &applied.refused)).await??;
        }
        Ok(())
    }

    async fn unless_cancelled<T>(&self, work: impl Future<Output = T>) -> Result<T, Error> {
        match self.filling {
            Some(filling) => filling.cancel.run_until_cancelled(work).await.ok_or(Error::Cancelled),
            None => Ok(work.await),
        }
    }

    /// A claim is filled before its owners may run, so it gets them last.
    async fn give_owners(&self, claims: Vec<Unfilled>, applied: &mut Applied) -> Result<(), Error> {
        for mut claim in claims.into_iter().filter(|claim| claim.is_ours(self.plan.root)) {
            let is_planned = |uid: &str| self.plan.planned_owners.contains(uid);
            let dropped_owners = owners::relink(&mut claim.owners, &lock(&self.uids), is_planned);
            claim.give_owners(self.client).await?;
            applied.warn_of_dropped(&claim.claim, dropped_owners);
        }
        Ok(())
    }

    /// What the plan says of the claim's data, where it is to be put back.
    fn planned_volume(&self, step: &Step) -> Option<&'a PlannedVolume> {
        self.filling?;
        self.plan.volumes.iter().find(|planned| planned.claim == *step.target())
    }

    async fn create(&self, step: &'a Step, object: CapturedObject) -> Result<(&'a Step, Outcome), Error> {
        let (resource, mut value) = self.prepare(step, &object)?;
        let volume = self.planned_volume(step);
        let waiting = volume.map(|volume| Unfilled::new(volume, &mut value, self.plan.root));
        let dropped_owners =
            owners::relink(&mut value, &lock(&self.uids), |uid| self.plan.planned_owners.contains(uid));
        let (created, outcome) = match write::create(self.client, resource, &value, DryRun::No, &self.retry).await {
            Ok(Created::New(created)) => (created, Outcome::Created { dropped_owners }),
            Ok(Created::Exists(existing)) => {
                let differs = match waiting {
                    Some(_) => differences(resource, fill::comparable(value), fill::comparable(existing.clone())),
                    None => differences(resource, value, existing.clone()),
                };
                (existing, Outcome::Kept { differs })
            }
            Err(error) if is_refusal(&error) => {
                return Ok((step, Outcome::Refused { reason: self.reason(resource, &error) }));
            }
            Err(error) => return Err(error.into()),
        };
        self.remember(&object, &created);
        if let Some(mut claim) = waiting {
            if matches!(outcome, Outcome::Kept { .. }) {
                claim.existed(&created);
            }
            lock(&self.claims).push(claim);
        }
        Ok((step, outcome))
    }

    async fn ask(&self, step: &Step, object: CapturedObject, namespaces: &[String]) -> Result<Foreseen, Error> {
        let (resource, mut value) = self.prepare(step, &object)?;
        let target = step.target().clone();
        let foresight = if !self.plan.target.serves_already(&resource.name) {
            Foresight::NotAsked("its definition does not exist yet".to_owned())
        } else if target.namespace.as_ref().is_some_and(|namespace| !namespaces.contains(namespace)) {
            Foresight::NotAsked("its namespace does not exist yet".to_owned())
        } else {
            // uids of owners are only known once they exist
            owners::relink(&mut value, &HashMap::new(), |_| false);
            match write::create(self.client, resource, &value, DryRun::Yes, &self.retry).await {
                Ok(Created::New(_)) => Foresight::Created,
                Ok(Created::Exists(_)) => Foresight::Kept,
                Err(error) if is_refusal(&error) => Foresight::Refused(self.reason(resource, &error)),
                Err(error) => return Err(error.into()),
            }
        };
        Ok(Foreseen { object: target, foresight })
    }

    /// The object as it will be written, but for its owners.
    fn prepare(&self, step: &Step, object: &CapturedObject) -> Result<(&'a ResourceType, Value), Error> {
        let resource = &self.plan.files[step.file].resource;
        let bad = |source| Error::BadObject { object: step.object.clone(), source };
        match sanitise(resource, object.value(resource).map_err(bad)?, &self.plan.mapping) {
            Sanitised::Create(value) => Ok((resource, value)),
            Sanitised::Skip(reason) => Err(bad(serde::ser::Error::custom(reason))),
        }
    }

    /// Why an object was refused, in the server's words; where it only says that there is no such thing, in ours.
    fn reason(&self, resource: &ResourceType, error: &objects::Error) -> String {
        match (error, self.plan.target.version(&resource.name)) {
            (objects::Error::NotFound { .. }, Some(version)) if version != resource.version => {
                let (name, captured) = (&resource.name, &resource.version);
                format!("the target serves {name} in {version}, the backup holds it in {captured}")
            }
            _ => error.to_string(),
        }
    }

    fn remember(&self, object: &CapturedObject, written: &Value) {
        let uid = written["metadata"]["uid"].as_str();
        if let Some(uid) = uid.filter(|_| self.plan.planned_owners.contains(&object.uid)) {
            lock(&self.uids).insert(object.uid.clone(), uid.to_owned());
        }
    }

    /// Waits until the types that a stage's definitions add answer lists: being established is not yet being served.
    /// What was served before the restore, and what was refused, is not waited for.
    async fn wait_until_served(&self, stage: &Stage, refused: &[Refused]) -> Result<(), Error> {
        let definitions = stage.steps.iter().map(Step::target).filter(|object| is_definition(object));
        let mut created: HashSet<_> = definitions.map(|object| object.name.clone()).collect();
        for refused in refused.iter().filter(|refused| is_definition(&refused.object)) {
            created.remove(&refused.object.name);
        }
        let target = &self.plan.target;
        // a definition's name is that of its type
        let is_new = |of: &GroupResource| !target.serves_already(of) && created.contains(&of.to_string());
        let deadline = Instant::now() + SERVED_WITHIN;
        for (resource, versions) in target.defined().filter(|(of, _)| is_new(of)) {
            for version in versions {
                while !write::is_served(self.client, resource, version, &self.retry).await? {
                    if Instant::now() >= deadline {
                        let seconds = SERVED_WITHIN.as_secs();
                        return Err(Error::NotServed { resource: resource.to_string(), seconds });
                    }
                    tokio::time::sleep(SERVED_POLL).await;
                }
            }
        }
        Ok(())
    }
}

impl Applied {
    fn add(&mut self, step: &Step, outcome: Outcome) {
        let object = step.target().clone();
        match outcome {
            Outcome::Created { dropped_owners } => {
                self.created += 1;
                self.warn_of_dropped(&object, dropped_owners);
            }
            Outcome::Kept { differs } => self.kept.push(Kept { object, differs }),
            Outcome::Refused { reason } => self.refused.push(Refused { object, reason }),
        }
    }

    fn warn_of_dropped(&mut self, object: &ObjectRef, owners: Vec<String>) {
        self.warnings.extend(owners.into_iter().map(|owner| Warning {
            object: object.clone(),
            message: format!("its owner {owner} was not created: the owner reference is dropped"),
        }));
    }
}

/// What a task that panicked leaves is whole: every change is one insert.
fn lock<T>(shared: &Mutex<T>) -> MutexGuard<'_, T> {
    shared.lock().unwrap_or_else(PoisonError::into_inner)
}

fn is_definition(object: &ObjectRef) -> bool {
    order::level(&object.resource) == Level::CustomResourceDefinitions
}

/// Whether the server refused this object, rather than failed altogether.
fn is_refusal(error: &objects::Error) -> bool {
    !matches!(error, objects::Error::Unreachable { .. } | objects::Error::Unauthorized { .. })
}

fn differences(resource: &ResourceType, wanted: Value, existing: Value) -> Vec<Change> {
    diff::redact(resource, diff::diff(&normalise(resource, wanted), &normalise(resource, existing)))
}
