//! Takes one backup: from the request to the commit.
//!
//! The steps stand in the order of the cut; what can be retried (an attempt at one revision) is apart from what
//! happens once (name, lock, manifest, commit), so that a lost revision costs a list and never a half-written backup.

use std::collections::{BTreeMap, BTreeSet};

use futures::{StreamExt, TryStreamExt, stream};
use jiff::Timestamp;
use stillpoint_api::{
    Backup, Cluster, Cut, Exclusion, GroupResource, Manifest, ObjectRef, Outcome, Problem, ProblemKind, ResourceType,
    Scope, TypeRecord, VolumeData, VolumeIntent, VolumeRecord, manifest::FORMAT_VERSION,
};
use stillpoint_catalog::{self as catalog, Committed, Draft};
use stillpoint_objects::{
    self as objects,
    discovery::{self, Discovery},
    filter::Selection,
    list::{self, Revision},
    retry::Retry,
};
use stillpoint_repository::{
    Repository,
    signing::{SigningKey, Trust},
};
use tokio::sync::watch;

use crate::{
    Error, needed,
    plan::{self, Fate, Plan, Reach},
    store,
    unit::{Captured, Context, Unit, ends_attempt},
};

/// Cuts that are tried before a backup fails.
const MAX_ATTEMPTS: u32 = 3;
/// Units that are captured at once. Each holds two pages at most, so this bounds the memory.
const CONCURRENCY: usize = 6;
/// The namespace whose uid the field takes for the cluster's.
const CLUSTER_ID_NAMESPACE: &str = "kube-system";

/// What a user asks for.
#[derive(Debug, Clone)]
pub struct BackupRequest {
    /// The backup's name.
    pub name: String,
    /// The name the cluster goes by.
    pub cluster: String,
    /// What to take.
    pub scope: Scope,
    /// Whether anything missing fails the backup instead of degrading it.
    pub strict: bool,
}

/// How far a backup is.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Progress {
    /// The cut that is being tried, from 1; 0 before the first.
    pub attempt: u32,
    /// Its revision.
    pub revision: u64,
    /// Units (a type, in a namespace or across the cluster) to capture.
    pub units: u64,
    /// Units that are captured.
    pub units_done: u64,
    /// Objects captured so far.
    pub objects: u64,
}

/// A backup that was taken.
#[derive(Debug)]
pub struct Report {
    /// Its manifest.
    pub manifest: Manifest,
    /// Where it is in the repository.
    pub committed: Committed,
}

/// Takes a backup and signs it with `key`, or leaves it unsigned without one.
///
/// # Errors
/// There is no backup: the name is taken, the cluster or the repository fails, or `strict` met something missing.
pub async fn create(
    client: kube::Client,
    repository: &Repository,
    request: &BackupRequest,
    key: Option<&SigningKey>,
    progress: watch::Sender<Progress>,
) -> Result<Report, Error> {
    let selection = Selection::compile(&request.scope)?;
    let draft = Draft::begin(repository, &request.name).await?;
    let writer = draft.writer();
    let taken = fill(client, repository, draft, selection, request, key, progress).await;
    if taken.is_err() {
        // a program that ends after a failure must not leave its lock
        writer.abandon().await;
    }
    taken
}

async fn fill(
    client: kube::Client,
    repository: &Repository,
    mut draft: Draft,
    selection: Selection,
    request: &BackupRequest,
    key: Option<&SigningKey>,
    progress: watch::Sender<Progress>,
) -> Result<Report, Error> {
    let started = Timestamp::now();
    let retry = Retry::default();
    let discovery = discovery::discover(&client, &retry).await?;
    let cluster = identify(&client, request, &discovery, &retry).await?;
    let context = Context {
        client,
        retry,
        revision: Revision(0),
        selection,
        writer: draft.writer(),
        collect_needs: false,
        progress,
    };
    let (cut, taken) = cut(context, request, &discovery).await?;
    let problems: Vec<_> = discovery.failures.iter().cloned().chain(taken.problems).collect();
    if request.strict && !problems.is_empty() {
        return Err(Error::Strict { problems });
    }
    for (resource, namespace, content) in taken.files {
        draft.place(&resource, namespace.as_deref(), content);
    }
    let sealed = draft.seal(cut.read_at).await?;
    let previous = catalog::newest(repository, &cluster.name, &Trust::default()).await?;
    let manifest = Manifest {
        format_version: FORMAT_VERSION,
        backup: Backup { name: request.name.clone(), uid: uuid::Uuid::new_v4().to_string() },
        tool_version: env!("CARGO_PKG_VERSION").to_owned(),
        repository_id: repository.id().to_string(),
        cluster,
        started,
        finished: Timestamp::now(),
        cut,
        scope: request.scope.clone(),
        outcome: if problems.is_empty() { Outcome::Complete } else { Outcome::Degraded },
        problems,
        types: taken.types,
        volumes: taken.volumes,
        trees: sealed.trees.clone(),
        previous: previous.map(|backup| backup.root),
    };
    let committed = sealed.commit(&manifest, key).await?;
    Ok(Report { manifest, committed })
}

async fn identify(
    client: &kube::Client,
    request: &BackupRequest,
    discovery: &Discovery,
    retry: &Retry,
) -> Result<Cluster, Error> {
    let uid = match list::namespace_uid(client, CLUSTER_ID_NAMESPACE, retry).await {
        Ok(uid) => uid,
        Err(error) if ends_attempt(&error) => return Err(error.into()),
        Err(_) => None,
    };
    Ok(Cluster { name: request.cluster.clone(), uid, version: discovery.server_version.clone() })
}

/// What one attempt took.
#[derive(Default)]
struct Taken {
    types: Vec<TypeRecord>,
    files: Vec<(GroupResource, Option<String>, stillpoint_repository::FileContent)>,
    problems: Vec<Problem>,
    volumes: Vec<VolumeRecord>,
}

/// Reads R and captures at it; a revision that is compacted away meanwhile is given up for a new one.
async fn cut(mut context: Context, request: &BackupRequest, discovery: &Discovery) -> Result<(Cut, Taken), Error> {
    for attempt in 1..=MAX_ATTEMPTS {
        context.revision = list::read_revision(&context.client, &context.retry).await?;
        let read_at = Timestamp::now();
        let revision = context.revision.0;
        context.progress.send_replace(Progress { attempt, revision, ..Progress::default() });
        match attempt_at(&mut context, request, discovery).await {
            Ok(taken) => return Ok((Cut { revision, read_at, attempts: attempt }, taken)),
            Err(Error::Cluster(objects::Error::Expired { .. })) => {
                tracing::warn!(revision, attempt, "the revision was compacted away; everything is read again");
            }
            Err(error) => return Err(error),
        }
    }
    Err(Error::RevisionLost { attempts: MAX_ATTEMPTS })
}

async fn attempt_at(context: &mut Context, request: &BackupRequest, discovery: &Discovery) -> Result<Taken, Error> {
    let twins = twins(context, discovery).await?;
    let reach = reach(context, &request.scope).await?;
    let plan = Plan::make(&discovery.types, &request.scope, &context.selection, reach, &twins);
    context.collect_needs = plan.by_need().next().is_some();
    let context = &*context;
    let wanted: Vec<_> =
        plan.types.iter().filter(|(_, f)| !matches!(f, Fate::Excluded(_))).map(|(r, _)| r.clone()).collect();
    let strangers = store::strangers(context, &wanted).await?;
    let units = plan.units().into_iter().filter(|unit| !strangers.contains_key(&unit.resource.name)).collect();
    let mut captured = run(context, units).await?;
    if context.collect_needs {
        let needs = captured.iter().flat_map(|(_, c)| c.needs.iter().cloned()).chain(definitions(&captured)).collect();
        captured.extend(needed::capture(context, &plan, needs).await?);
    }
    let mut taken = Taken::default();
    for (resource, fate) in &plan.types {
        let parts: Vec<_> = extract(&mut captured, resource);
        taken.add(context, &plan, resource, fate, strangers.get(&resource.name), parts).await?;
    }
    taken.add_volume_problems(request.scope.volumes);
    Ok(taken)
}

/// Captures units, several at a time; the first error that ends the attempt drops the rest.
async fn run(context: &Context, units: Vec<Unit>) -> Result<Vec<(ResourceType, Captured)>, Error> {
    context.progress.send_modify(|progress| progress.units = units.len() as u64);
    stream::iter(units)
        .map(|unit| async move {
            let captured = unit.capture(context).await?;
            context.progress.send_modify(|progress| progress.units_done += 1);
            Ok((unit.resource, captured))
        })
        .buffer_unordered(CONCURRENCY)
        .try_collect()
        .await
}

/// The definitions of the custom objects that were captured.
fn definitions(captured: &[(ResourceType, Captured)]) -> BTreeSet<ObjectRef> {
    let crds = GroupResource::new("apiextensions.k8s.io", "customresourcedefinitions");
    captured
        .iter()
        .filter(|(_, captured)| captured.captured > 0)
        .map(|(resource, _)| {
            let name = format!("{}.{}", resource.name.resource, resource.name.group);
            ObjectRef::new(crds.clone(), None, name)
        })
        .collect()
}

fn extract(captured: &mut Vec<(ResourceType, Captured)>, resource: &ResourceType) -> Vec<Captured> {
    captured.extract_if(.., |(of, _)| of.name == resource.name).map(|(_, captured)| captured).collect()
}

/// Where namespaced types are listed, from the namespaces that exist at the revision.
async fn reach(context: &Context, scope: &Scope) -> Result<Reach, Error> {
    if scope.spans_all_namespaces() {
        return Ok(Reach::Cluster);
    }
    let mut pages = list::list_at(&context.client, &list::namespaces(), None, context.revision, &context.retry);
    let mut selected = Vec::new();
    while let Some(page) = pages.next().await? {
        for item in page.items() {
            let name = item?.meta.name.into_owned();
            if context.selection.takes_namespace(&name) {
                selected.push(name);
            }
        }
    }
    Ok(Reach::of(scope, selected))
}

/// Types whose objects are also served under another group, told by the uid of the first object.
async fn twins(context: &Context, discovery: &Discovery) -> Result<BTreeMap<GroupResource, GroupResource>, Error> {
    let mut twins = BTreeMap::new();
    for group in plan::cohabitants(&discovery.types) {
        let wanted: Vec<_> =
            group.into_iter().filter(|resource| context.selection.type_rule(resource, true).is_none()).collect();
        let [preferred, others @ ..] = wanted.as_slice() else { continue };
        let first = first_uid(context, preferred).await?;
        for other in others {
            if first.is_some() && first == first_uid(context, other).await? {
                twins.insert(other.name.clone(), preferred.name.clone());
            }
        }
    }
    Ok(twins)
}

async fn first_uid(context: &Context, resource: &ResourceType) -> Result<Option<String>, Error> {
    let mut pages = list::list_at(&context.client, resource, None, context.revision, &context.retry);
    match pages.next().await {
        Ok(Some(page)) => match page.items().next() {
            Some(item) => Ok(Some(item?.meta.uid.into_owned()).filter(|uid| !uid.is_empty())),
            None => Ok(None),
        },
        Ok(None) => Ok(None),
        Err(error) if ends_attempt(&error) => Err(error.into()),
        // named by the unit that lists it
        Err(_) => Ok(None),
    }
}

impl Taken {
    /// Adds up what came of one type.
    async fn add(
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

    /// No volume's data is held yet: either that was meant, or it degrades the backup by name.
    fn add_volume_problems(&mut self, intent: VolumeIntent) {
        for volume in &mut self.volumes {
            match intent {
                VolumeIntent::LeftOut => volume.data = VolumeData::LeftOut,
                VolumeIntent::Wanted => self.problems.push(Problem {
                    kind: ProblemKind::Volume,
                    subject: format!("persistentvolumeclaims.core/{}/{}", volume.namespace, volume.claim),
                    message: "this backup holds the claim but not its data; --no-volumes says that this is meant"
                        .to_owned(),
                }),
            }
        }
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
