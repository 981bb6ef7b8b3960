//! `stillpoint backup diff`.
//!
//! The live cluster is compared by capturing it with the backup's own scope into a temporary repository: the same
//! rules, one revision, bounded memory, and only one kind of comparison to get right.

use std::{cmp::Ordering, collections::BTreeMap, fmt::Write};

use anyhow::Context;
use clap::Args;
use serde::Serialize;
use stillpoint_agent::{self as agent, BackupRequest};
use stillpoint_api::{GroupResource, ObjectRef, ProblemKind, ResourceType};
use stillpoint_catalog::{self as catalog, Backup, CapturedObject, ObjectFile, ObjectLines};
use stillpoint_objects::{
    diff::{self, Change},
    normalise::normalise,
};
use stillpoint_repository::{Kdf, Password, Repository, Store, signing::Trust};
use tempfile::TempDir;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::ReadArgs;
use crate::{
    args::{OutputArgs, ReadLockArgs, UsageError},
    cluster::{ClusterArgs, Target},
    exit::Exit,
    interrupt, output,
};

#[derive(Debug, Args)]
pub(crate) struct DiffArgs {
    /// The older backup
    name: String,
    /// The newer backup
    #[arg(required_unless_present = "live", conflicts_with = "live")]
    other: Option<String>,
    /// Compare with the cluster as it is now
    #[arg(long)]
    live: bool,
    /// Show the values of Secrets
    #[arg(long)]
    show_secrets: bool,
    #[command(flatten)]
    cluster: ClusterArgs,
    #[command(flatten)]
    read: ReadArgs,
    #[command(flatten)]
    lock: ReadLockArgs,
    #[command(flatten)]
    output: OutputArgs,
}

/// One object that is not the same on both sides.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Difference {
    pub(crate) object: ObjectRef,
    #[serde(flatten)]
    pub(crate) what: What,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase", tag = "what")]
pub(crate) enum What {
    /// Only the newer side has it.
    Added,
    /// Only the older side has it.
    Removed,
    /// Both have it.
    Changed { changes: Vec<Change> },
}

pub(crate) async fn run(args: DiffArgs) -> anyhow::Result<Exit> {
    let (repository, trust) = args.read.open().await?;
    let cancel = CancellationToken::new();
    let find = async || {
        let older = catalog::find(&repository, &args.name, &trust).await?;
        let newer = match &args.other {
            Some(other) => Some(catalog::find(&repository, other, &trust).await?),
            None => None,
        };
        Ok((older, newer))
    };
    let work = async |(older, newer): (Backup, Option<Backup>)| {
        interrupt::unless(&cancel, Box::pin(compare_all(&args, &older, newer.as_ref()))).await
    };
    let differences = args.lock.reading(&repository, &cancel, find, work).await?;
    output::print(args.output.output, &differences, || to_text(&differences))?;
    Ok(Exit::Done)
}

async fn compare_all(args: &DiffArgs, older: &Backup, newer: Option<&Backup>) -> anyhow::Result<Vec<Difference>> {
    match newer {
        Some(newer) => between(older, newer, args.show_secrets).await,
        None if args.live => {
            let live = Live::capture(args.cluster.connect().await?, older).await?;
            between(older, &live.backup, args.show_secrets).await
        }
        None => Err(UsageError("name a second backup, or say --live".to_owned()).into()),
    }
}

/// The cluster now, as a backup with another one's scope, in a repository that goes when this does.
pub(crate) struct Live {
    pub(crate) backup: Backup,
    _folder: TempDir,
}

impl Live {
    pub(crate) async fn capture(target: Target, like: &Backup) -> anyhow::Result<Self> {
        let folder = tempfile::tempdir().context("cannot make a temporary folder for the comparison")?;
        let store = Store::from_url(&folder.path().to_string_lossy())?;
        // nobody else ever opens it; what is on disk is still sealed
        let password = Password::new(like.root.to_string());
        let repository = Repository::init(store, &password, Kdf::default()).await?;
        let scope = like.manifest.scope.clone();
        let request = BackupRequest::new("live", target.name, scope);
        let report = agent::create(target.client, &repository, &request, None, watch::Sender::default()).await?;
        for problem in report.manifest.problems.iter().filter(|problem| problem.kind != ProblemKind::Volume) {
            output::note(format_args!("the live side is incomplete: {problem}"));
        }
        Ok(Self { backup: catalog::find(&repository, "live", &Trust::default()).await?, _folder: folder })
    }
}

/// Every object that differs after normalisation, sorted by type, namespace and name.
pub(crate) async fn between(older: &Backup, newer: &Backup, show_secrets: bool) -> anyhow::Result<Vec<Difference>> {
    let mut pairs: BTreeMap<(GroupResource, Option<String>), [Option<ObjectFile>; 2]> = BTreeMap::new();
    for (side, backup) in [older, newer].into_iter().enumerate() {
        for file in backup.files().await? {
            let key = (file.resource.name.clone(), file.namespace.clone());
            pairs.entry(key).or_default()[side] = Some(file);
        }
    }
    let mut differences = Vec::new();
    for (_, [left, right]) in pairs {
        let mut left = Side::new(older, left).await?;
        let mut right = Side::new(newer, right).await?;
        while let Some(difference) = step(&mut left, &mut right, show_secrets).await? {
            differences.extend(difference);
        }
    }
    Ok(differences)
}

/// One file that is read, one object ahead.
struct Side {
    file: Option<(ObjectFile, ObjectLines)>,
    next: Option<CapturedObject>,
}

impl Side {
    async fn new(backup: &Backup, file: Option<ObjectFile>) -> anyhow::Result<Self> {
        let file = match file {
            Some(file) => {
                let lines = backup.objects(&file)?;
                Some((file, lines))
            }
            None => None,
        };
        let mut side = Self { file, next: None };
        side.advance().await?;
        Ok(side)
    }

    /// Takes the object at hand, with its type and reference, and reads the next.
    async fn advance(&mut self) -> anyhow::Result<Option<(ResourceType, ObjectRef, CapturedObject)>> {
        let Some((file, lines)) = &mut self.file else { return Ok(None) };
        let taken = std::mem::replace(&mut self.next, lines.next().await?);
        Ok(taken.map(|object| (file.resource.clone(), file.object(&object.name), object)))
    }
}

/// Compares what comes next on both sides; none at the end of both.
async fn step(left: &mut Side, right: &mut Side, show_secrets: bool) -> anyhow::Result<Option<Option<Difference>>> {
    let order = match (&left.next, &right.next) {
        (None, None) => return Ok(None),
        (Some(_), None) => Ordering::Less,
        (None, Some(_)) => Ordering::Greater,
        (Some(left), Some(right)) => left.name.cmp(&right.name),
    };
    let (older, newer) = match order {
        Ordering::Less => (left.advance().await?, None),
        Ordering::Greater => (None, right.advance().await?),
        Ordering::Equal => (left.advance().await?, right.advance().await?),
    };
    Ok(Some(match (older, newer) {
        (Some(older), Some(newer)) => compare(older, newer, show_secrets)?,
        (Some((_, object, _)), None) => Some(Difference { object, what: What::Removed }),
        (None, Some((_, object, _))) => Some(Difference { object, what: What::Added }),
        (None, None) => None,
    }))
}

fn compare(
    (old_type, object, old): (ResourceType, ObjectRef, CapturedObject),
    (new_type, _, new): (ResourceType, ObjectRef, CapturedObject),
    show_secrets: bool,
) -> anyhow::Result<Option<Difference>> {
    if old.raw == new.raw {
        return Ok(None);
    }
    let old = normalise(&old_type, old.value(&old_type)?);
    let new = normalise(&new_type, new.value(&new_type)?);
    let changes = diff::diff(&old, &new);
    let changes = if show_secrets { changes } else { diff::redact(&new_type, changes) };
    Ok((!changes.is_empty()).then_some(Difference { object, what: What::Changed { changes } }))
}

pub(crate) fn to_text(differences: &[Difference]) -> String {
    if differences.is_empty() {
        return "no differences\n".to_owned();
    }
    let mut text = String::new();
    for Difference { object, what } in differences {
        let mark = match what {
            What::Added => '+',
            What::Removed => '-',
            What::Changed { .. } => '~',
        };
        let _ = writeln!(text, "{mark} {object}");
        if let What::Changed { changes } = what {
            for change in changes {
                let _ = writeln!(text, "    {}", output::printable(&change.to_string()));
            }
        }
    }
    text
}
