//! `stillpoint repo prune`.

use anyhow::bail;
use clap::Args;
use serde::Serialize;
use stillpoint_repository::{PrunePlan, PruneReport, PruneRequest, Tally};

use super::{WorkArgs, attended};
use crate::{args::Format, confirm, exit::Exit, output};

pub(crate) const EXAMPLES: &str = "Examples:
  stillpoint repo prune --dry-run            # prints the plan
  stillpoint repo prune --yes                # for a timer: prints the plan and carries it out
  stillpoint repo prune --max-unused 0%      # frees every byte, however much has to be copied

Nobody else can work on the repository meanwhile. A prune that is interrupted loses nothing: run it again.";

#[derive(Debug, Args)]
pub(crate) struct PruneArgs {
    /// Print the plan and change nothing
    #[arg(long, conflicts_with = "yes")]
    dry_run: bool,
    /// How much of the repository may stay unused, so that packs need not be copied for a few bytes
    #[arg(long, value_name = "PERCENT", default_value = "5%", value_parser = percent)]
    max_unused: f64,
    /// Put small packs together too, as many small backups leave them
    #[arg(long)]
    repack_small: bool,
    /// Remove without asking
    #[arg(short, long)]
    yes: bool,
    #[command(flatten)]
    work: WorkArgs,
}

fn percent(text: &str) -> Result<f64, String> {
    let percent: Option<f64> = text.strip_suffix('%').unwrap_or(text).parse().ok();
    percent.filter(|percent| (0.0..=100.0).contains(percent)).ok_or_else(|| "expected a share such as 5%".to_owned())
}

/// The plan, and what came of it.
#[derive(Serialize)]
struct Pruned {
    plan: PrunePlan,
    /// Absent where nothing was to be done, or only the plan was asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    done: Option<PruneReport>,
}

pub(crate) async fn run(args: PruneArgs) -> anyhow::Result<Exit> {
    let PruneArgs { dry_run, max_unused, repack_small, yes, work } = args;
    if !dry_run && !yes {
        confirm::needs_somebody("prune, or --dry-run")?;
    }
    let repository = work.open().await?;
    let request = PruneRequest { max_unused_percent: max_unused, repack_small };
    let prune = attended(&repository, async |repository, control| repository.prune(&request, control).await).await?;
    let plan = *prune.plan();
    let only_plan = dry_run || plan.is_empty();
    // nothing is removed before its plan was printed; for programs it goes with the result
    match work.output.output {
        Format::Table => output::text(&plan_text(&plan))?,
        _ if only_plan => {}
        _ => output::note(plan_text(&plan).trim_end()),
    }
    if only_plan {
        prune.abandon().await;
        output::print(work.output.output, &Pruned { plan, done: None }, String::new)?;
        return Ok(Exit::Done);
    }
    if !yes && !confirm::confirmed().await {
        prune.abandon().await;
        bail!("nothing was removed: the plan was not confirmed");
    }
    let done = attended(&repository, async |_, control| prune.execute(control).await).await?;
    output::print(work.output.output, &Pruned { plan, done: Some(done) }, || done_text(&done))?;
    Ok(Exit::Done)
}

fn tally(tally: Tally, noun: &str) -> String {
    format!("{}, {}", output::counted(tally.count, noun), output::bytes(tally.bytes))
}

fn plan_text(plan: &PrunePlan) -> String {
    let mut fields = vec![
        ("needed", format!("{}, by {}", tally(plan.needed, "blob"), output::counted(plan.snapshots, "snapshot"))),
        ("keep", tally(plan.keep, "pack")),
        ("repack", format!("{}, of which {} are copied", tally(plan.repack, "pack"), tally(plan.copy, "blob"))),
        ("delete", tally(plan.delete, "pack")),
        ("delete, in no index", tally(plan.unreferenced, "pack")),
    ];
    if plan.orphans > 0 {
        let orphans = output::counted(plan.orphans, "part");
        fields.push(("orphans", format!("{orphans} of backups that were never committed")));
    }
    if plan.duplicates.count > 0 {
        fields.push(("stored twice", format!("{}; one copy of each stays", tally(plan.duplicates, "blob"))));
    }
    if plan.vanished > 0 {
        let vanished = output::counted(plan.vanished, "pack");
        fields.push(("vanished", format!("{vanished} that nothing needs: the index forgets them")));
    }
    let replaced = output::counted(plan.indexes_replaced, "file");
    fields.push(("index", format!("{replaced} replaced, {} kept", output::count(plan.indexes_kept))));
    fields.push(("frees", output::bytes(plan.freed)));
    fields.push(("stays unused", unused_text(plan)));
    let end = if plan.is_empty() { "nothing to do\n" } else { "" };
    format!("{}{end}", output::fields(&fields))
}

fn unused_text(plan: &PrunePlan) -> String {
    let left = output::bytes(plan.unused_left);
    match (plan.unused_left, plan.unused_allowed) {
        (0, _) => left,
        (_, u64::MAX) => format!("{left}; --max-unused allows everything"),
        (_, allowed) => {
            format!("{left}, in packs that are needed in part; --max-unused allows {}", output::bytes(allowed))
        }
    }
}

fn done_text(report: &PruneReport) -> String {
    let mut text = format!("removed {}; wrote {}\n", tally(report.removed, "pack"), tally(report.written, "pack"));
    if report.rescued > 0 {
        let rescued = output::counted(report.rescued, "blob");
        text.push_str(&format!("{rescued} damaged in one pack and saved from another: run stillpoint repo check\n"));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_are_read_with_and_without_their_sign() {
        assert_eq!((percent("5%"), percent("0"), percent("12.5%")), (Ok(5.0), Ok(0.0), Ok(12.5)));
        for text in ["", "-1", "101%", "NaN", "x", "5%%"] {
            assert!(percent(text).is_err(), "{text}");
        }
    }
}
