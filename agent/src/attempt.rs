//! One attempt at one revision, and how often one is made.
//!
//! All that an attempt learns is thrown away with it: a revision that was compacted away costs lists, never a mixture
//! of two instants.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use futures::{StreamExt, TryStreamExt, stream};
use jiff::Timestamp;
use stillpoint_api::{Cut, GroupResource, ObjectRef, ResourceType, Scope};
use stillpoint_objects::{self as objects, discovery::Discovery, list};

use tokio::time;

use crate::{
    Error, Progress,
    cut::{Instant, Quiesce, Void},
    needed,
    plan::{self, Fate, Plan, Reach},
    store,
    taken::Taken,
    unit::{Captured, Context, Unit, ends_attempt},
};

/// Cuts that are tried before a backup fails.
const MAX_ATTEMPTS: u32 = 3;
/// Units that are captured at once. Each holds two pages at most, so this bounds the memory.
const CONCURRENCY: usize = 6;

/// Before a cut that did not hold is taken again.
const BACKOFF: Duration = Duration::from_secs(2);

/// Takes a cut and captures the API at its revision. A cut that did not hold, and one whose revision is compacted away
/// meanwhile, is taken again, volumes and all.
pub(crate) async fn cut(
    context: &mut Context,
    scope: &Scope,
    discovery: &Discovery,
    mut quiesce: Option<&mut Quiesce>,
) -> Result<(Cut, Taken), Error> {
    for attempt in 1..=MAX_ATTEMPTS {
        let instant = match &mut quiesce {
            None => read(context).await?,
            Some(quiesce) => match quiesce.cut(attempt == MAX_ATTEMPTS).await {
                Ok(instant) => instant,
                Err(Void::Final(error)) => return Err(error),
                Err(Void::Retake(why)) if attempt < MAX_ATTEMPTS => {
                    tracing::warn!(why, attempt, "the cut did not hold; it is taken again");
                    time::sleep(BACKOFF * attempt).await;
                    continue;
                }
                Err(Void::Retake(why)) => {
                    quiesce.give_up(&format!("none of {attempt} cuts held; the last one: {why}"));
                    read(context).await?
                }
            },
        };
        let Instant { revision, read_at, window } = instant;
        context.revision = revision;
        context.progress.send_replace(Progress { attempt, revision: revision.0, ..Progress::default() });
        match attempt_at(context, scope, discovery).await {
            Ok(taken) => return Ok((Cut { revision: revision.0, read_at, attempts: attempt, window }, taken)),
            Err(Error::Cluster(objects::Error::Expired { .. })) => {
                tracing::warn!(
                    revision = revision.0,
                    attempt,
                    "the revision was compacted away; everything is read again"
                );
            }
            Err(error) => return Err(error),
        }
    }
    Err(Error::RevisionLost { attempts: MAX_ATTEMPTS })
}

/// An instant of the API alone.
async fn read(context: &Context) -> Result<Instant, Error> {
    let revision = list::read_revision(&context.client, &context.retry).await?;
    Ok(Instant { revision, read_at: Timestamp::now(), window: None })
}

async fn attempt_at(context: &mut Context, scope: &Scope, discovery: &Discovery) -> Result<Taken, Error> {
    let twins = twins(context, discovery).await?;
    let existing = if scope.spans_all_namespaces() { Vec::new() } else { namespaces(context).await? };
    let selected = existing.iter().filter(|name| context.selection.takes_namespace(name)).cloned().collect();
    let reach = Reach::of(scope, selected);
    let plan = Plan::make(&discovery.types, scope, &context.selection, reach, &twins);
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
    taken.add_unmatched("type", context.selection.unmatched_types(plan.types.iter().map(|(of, _)| &of.name)));
    if !scope.spans_all_namespaces() {
        taken.add_unmatched("namespace", context.selection.unmatched_namespaces(&existing));
    }
    for (resource, fate) in &plan.types {
        let parts = captured.extract_if(.., |(of, _)| of.name == resource.name).map(|(_, part)| part).collect();
        taken.add(context, &plan, resource, fate, strangers.get(&resource.name), parts).await?;
    }
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

/// The namespaces that exist at the revision.
async fn namespaces(context: &Context) -> Result<Vec<String>, Error> {
    let mut pages = list::list_at(&context.client, &list::namespaces(), None, context.revision, &context.retry);
    let mut names = Vec::new();
    while let Some(page) = pages.next().await? {
        for item in page.items() {
            names.push(item?.meta.name.into_owned());
        }
    }
    Ok(names)
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
