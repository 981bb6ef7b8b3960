//! `stillpoint restore`.

mod volumes;

use std::{collections::BTreeMap, fmt::Write};

use clap::{Args, Subcommand};
use serde::Serialize;
use stillpoint_catalog::{self as catalog, Backup};
use stillpoint_objects::{discovery, retry::Retry, sanitise::Mapping};
use stillpoint_restore::{
    self as restore, Applied, Foreseen, Foresight, Plan, PlannedVolume, Progress, RestoreRequest,
    fill::{Done, Filled, NotFilled},
};
use tokio_util::sync::CancellationToken;

use self::volumes::VolumeArgs;
use crate::{
    args::{OutputArgs, ReadLockArgs},
    cluster::ClusterArgs,
    commands::backup::ReadArgs,
    exit::Exit,
    interrupt, output, progress,
};

#[derive(Debug, Subcommand)]
pub(crate) enum RestoreCommand {
    /// Restores a backup; what exists in the cluster is kept as it is.
    #[command(after_help = "Examples:\n  stillpoint restore create --from-backup shop-1 --dry-run\n  \
                            stillpoint restore create --from-backup shop-1 --namespace-mappings shop:shop2\n\n\
                            Claims whose data the backup holds get it before anything is created that runs.")]
    Create(CreateArgs),
}

#[derive(Debug, Args)]
pub(crate) struct CreateArgs {
    /// The backup to restore
    #[arg(long, value_name = "NAME")]
    from_backup: String,
    /// Print the plan, ask the server about each object, and write nothing
    #[arg(long)]
    dry_run: bool,
    /// Restore a namespace under another name; comma-separated
    #[arg(long, value_name = "OLD:NEW", value_delimiter = ',', value_parser = mapping)]
    namespace_mappings: Vec<(String, String)>,
    /// Restore although the backup is unsigned, or signed by a key that is not trusted
    #[arg(long)]
    accept_untrusted: bool,
    /// Show every object of the plan
    #[arg(long)]
    details: bool,
    #[command(flatten)]
    volumes: VolumeArgs,
    #[command(flatten)]
    cluster: ClusterArgs,
    #[command(flatten)]
    read: ReadArgs,
    #[command(flatten)]
    lock: ReadLockArgs,
    #[command(flatten)]
    output: OutputArgs,
}

fn mapping(text: &str) -> Result<(String, String), String> {
    match text.split_once(':') {
        Some((old, new)) if !old.is_empty() && !new.is_empty() => Ok((old.to_owned(), new.to_owned())),
        _ => Err("write OLD:NEW".to_owned()),
    }
}

/// A dry run's answer.
#[derive(Serialize)]
struct Foretold<'a> {
    plan: &'a Plan,
    foreseen: &'a [Foreseen],
}

pub(crate) async fn run(command: RestoreCommand) -> anyhow::Result<Exit> {
    let RestoreCommand::Create(args) = command;
    let (repository, trust) = args.read.open().await?;
    let cancel = CancellationToken::new();
    let find = async || Ok(catalog::find(&repository, &args.from_backup, &trust).await?);
    let work = async |backup: Backup| Box::pin(create(&args, &backup, &cancel)).await;
    args.lock.reading(&repository, &cancel, find, work).await
}

async fn create(args: &CreateArgs, backup: &Backup, cancel: &CancellationToken) -> anyhow::Result<Exit> {
    let target = args.cluster.connect().await?;
    let plan = interrupt::unless(cancel, Box::pin(plan(args, backup, &target.client))).await?;
    if args.dry_run {
        let foretold = Box::pin(foretell(args, backup, &plan, &target.client));
        return interrupt::unless(cancel, foretold).await;
    }
    let filling = args.volumes.filling(args, &plan, &target.client, cancel).await?;
    let (progress, drawn) = progress::draw(progress_line);
    // ends by the token itself: the pods that fill claims are removed first
    let applied = restore::apply(&target.client, backup, &plan, filling.as_ref(), progress);
    let applied = match filling {
        Some(_) => applied.await?,
        None => interrupt::unless(cancel, Box::pin(async { Ok(applied.await?) })).await?,
    };
    drop(drawn);
    output::print(args.output.output, &applied, || applied_text(&plan, &applied, args.details))?;
    let whole = applied.refused.is_empty() && applied.not_filled.is_empty();
    let exact = applied.filled.iter().all(|filled| filled.done.problems.is_empty());
    Ok(if whole && exact { Exit::Done } else { Exit::Degraded })
}

async fn plan(args: &CreateArgs, backup: &Backup, client: &kube::Client) -> anyhow::Result<Plan> {
    let discovery = discovery::discover(client, &Retry::default()).await?;
    let mapping = Mapping {
        namespaces: args.namespace_mappings.iter().cloned().collect(),
        storage_classes: args.volumes.storage_classes(),
        ..Mapping::default()
    };
    let (accept_untrusted, fill) = (args.accept_untrusted, args.volumes.fill());
    Ok(restore::plan(backup, &discovery, &RestoreRequest { mapping, accept_untrusted, fill }).await?)
}

async fn foretell(args: &CreateArgs, backup: &Backup, plan: &Plan, client: &kube::Client) -> anyhow::Result<Exit> {
    let foreseen = restore::dry_run(client, backup, plan).await?;
    let foretold = Foretold { plan, foreseen: &foreseen };
    output::print(args.output.output, &foretold, || foretold.to_text(args.details))?;
    let refused = foreseen.iter().any(|foreseen| matches!(foreseen.foresight, Foresight::Refused(_)));
    Ok(if refused || !plan.refused.is_empty() { Exit::Degraded } else { Exit::Done })
}

fn progress_line(progress: &Progress) -> String {
    let Progress { done, total, bytes, total_bytes } = *progress;
    let objects = format!("{} of {} objects", output::count(done), output::count(total));
    match total_bytes {
        0 => objects,
        _ => format!("{objects}; volumes: {} of {}", output::bytes(bytes), output::bytes(total_bytes)),
    }
}

impl Foretold<'_> {
    fn to_text(&self, details: bool) -> String {
        let Self { plan, foreseen } = self;
        let mut text = format!(
            "plan for backup {} ({}, root {}): {} in {}; nothing is written\n",
            plan.backup,
            plan.signer,
            plan.root.short(),
            output::counted(plan.objects() as u64, "object"),
            output::counted(plan.stages.len() as u64, "stage")
        );
        for (number, stage) in plan.stages.iter().enumerate() {
            let after = if stage.depth > 0 { ", owned by the stage before" } else { "" };
            let _ = writeln!(
                text,
                "{:>4}. {}{after}: {}",
                number + 1,
                stage.level,
                output::counted(stage.steps.len() as u64, "object")
            );
            for step in stage.steps.iter().filter(|_| details) {
                let becomes = step.becomes.as_ref().map(|becomes| format!(" as {becomes}")).unwrap_or_default();
                let _ = writeln!(text, "        {}{becomes}", step.object);
            }
        }
        for PlannedVolume { volume, claim, files, bytes } in &plan.volumes {
            let data = format!("{} in {}", output::bytes(*bytes), output::counted(*files, "file"));
            let _ = writeln!(text, "  fills {claim} with {data} of volume {volume}, before the workloads");
        }
        let _ = writeln!(text, "the server says:");
        for (answer, number) in tally(foreseen) {
            let _ = writeln!(text, "  {number:>6}  {answer}");
        }
        for Foreseen { object, foresight } in foreseen.iter() {
            if let Foresight::Refused(reason) = foresight {
                let _ = writeln!(text, "  ! {object}: {}", output::printable(reason));
            }
        }
        text.push_str(&rest_of_plan(plan, details));
        text
    }
}

fn tally(foreseen: &[Foreseen]) -> BTreeMap<String, u64> {
    let mut tally = BTreeMap::new();
    for foreseen in foreseen {
        let answer = match &foreseen.foresight {
            Foresight::Created => "would be created".to_owned(),
            Foresight::Kept => "exist and would be kept".to_owned(),
            Foresight::Refused(_) => "would be refused".to_owned(),
            Foresight::NotAsked(reason) => format!("cannot be asked yet: {reason}"),
        };
        *tally.entry(answer).or_default() += 1;
    }
    tally
}

fn applied_text(plan: &Plan, applied: &Applied, details: bool) -> String {
    let mut text = format!(
        "restored backup {}: {} created, {} existed and were kept, {} refused, in {:.1} s\n",
        plan.backup,
        output::count(applied.created),
        applied.kept.len(),
        applied.refused.len(),
        applied.seconds
    );
    for kept in applied.kept.iter().filter(|kept| !kept.differs.is_empty()) {
        let _ = writeln!(
            text,
            "  = {} was kept and differs in {}",
            kept.object,
            output::counted(kept.differs.len() as u64, "place")
        );
        for change in kept.differs.iter().filter(|_| details) {
            let _ = writeln!(text, "      {}", output::printable(&change.to_string()));
        }
    }
    for Filled { claim, done, seconds } in &applied.filled {
        let Done { files, bytes, problems, more_problems } = done;
        let data = format!("{} in {}", output::bytes(*bytes), output::counted(*files, "file"));
        let _ = writeln!(text, "  + {claim} was filled with {data}, read back, in {seconds:.1} s");
        for problem in problems {
            let _ = writeln!(text, "      {}", output::printable(problem));
        }
        if *more_problems > 0 {
            let _ = writeln!(text, "      and {} more", output::count(*more_problems));
        }
    }
    for NotFilled { claim, reason } in &applied.not_filled {
        let _ = writeln!(text, "  ! {claim} was not filled: {}", output::printable(reason));
    }
    for refused in &applied.refused {
        let _ = writeln!(text, "  ! {}: {}", refused.object, output::printable(&refused.reason));
    }
    for warning in &applied.warnings {
        let _ = writeln!(text, "  ~ {}: {}", warning.object, output::printable(&warning.message));
    }
    text.push_str(&left_out(plan, details));
    text
}

fn rest_of_plan(plan: &Plan, details: bool) -> String {
    let mut text = String::new();
    for refused in &plan.refused {
        let _ = writeln!(text, "  ! {}: {}", refused.object, refused.reason);
    }
    for warning in &plan.warnings {
        let _ = writeln!(text, "  ~ {}: {}", warning.object, output::printable(&warning.message));
    }
    text.push_str(&left_out(plan, details));
    text
}

fn left_out(plan: &Plan, details: bool) -> String {
    let mut reasons: BTreeMap<&str, Vec<_>> = BTreeMap::new();
    for left_out in &plan.left_out {
        reasons.entry(&left_out.reason).or_default().push(&left_out.object);
    }
    let mut text = String::new();
    for (reason, objects) in reasons {
        let _ = writeln!(text, "  - {} never restored: {reason}", objects.len());
        for object in objects.iter().filter(|_| details) {
            let _ = writeln!(text, "      {object}");
        }
    }
    text
}
