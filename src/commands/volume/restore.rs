//! `stillpoint volume restore`.

use std::{collections::BTreeMap, fmt::Write, path::PathBuf};

use clap::Args;
use stillpoint_filetree::{
    restore::{self, Counts, Plan, ProblemKind, Problems, Progress, Report, Start},
    selection,
    volume::VolumeBackup,
};
use stillpoint_repository::Reader;
use tokio_util::sync::CancellationToken;

use super::BackupArgs;
use crate::{args::OutputArgs, exit::Exit, output, progress};

/// The flags' help and examples.
pub(super) const EXAMPLES: &str = "\
With one backed-up path, the target gets what that directory held, and its owner, permissions and times; with several,
it gets the whole way to each of them. A restore that was interrupted is run again with the same flags and goes on.

Examples:
  stillpoint volume restore data --target /srv/new
  stillpoint volume restore data --target /srv/new --path logs --verify
  stillpoint volume restore data --target /srv/new --snapshot 1a2b3c4d --dry-run";

/// Paths that are shown of each kind of problem; -o json has them all.
const SHOWN: usize = 5;

#[derive(Debug, Args)]
pub(crate) struct RestoreArgs {
    /// The volume
    name: String,
    /// The directory to restore into: empty or absent, or what an interrupted restore of the same left
    #[arg(long, value_name = "DIR")]
    target: PathBuf,
    /// Restore only this file or directory: relative to what was backed up, or absolute
    #[arg(long, value_name = "PATH")]
    path: Option<PathBuf>,
    /// Read every restored file back and compare it with the backup
    #[arg(long)]
    verify: bool,
    /// Print what would be done, and write nothing
    #[arg(long)]
    dry_run: bool,
    #[command(flatten)]
    backup: BackupArgs,
    #[command(flatten)]
    output: OutputArgs,
}

pub(crate) async fn run(args: RestoreArgs) -> anyhow::Result<Exit> {
    let RestoreArgs { name, target, path, verify, dry_run, backup, output } = args;
    let cancel = CancellationToken::new();
    let find = async |reader: &Reader, backup: &VolumeBackup| {
        let selection = selection::select(reader, backup, path.as_deref()).await?;
        Ok(restore::plan(reader, backup, &selection, &target).await?)
    };
    let work = async |reader: Reader, plan: Plan| {
        if dry_run {
            output::print(output.output, &plan, || plan_text(&plan))?;
            return Ok(exit(&plan.problems));
        }
        let (progress, drawn) = progress::draw(progress_line);
        let report = restore::apply(&reader, plan, verify, progress, cancel.clone()).await?;
        drop(drawn);
        output::print(output.output, &report, || report_text(&report))?;
        Ok(exit(&report.problems))
    };
    backup.reading(&name, &cancel, find, work).await
}

fn exit(problems: &Problems) -> Exit {
    if problems.is_empty() { Exit::Done } else { Exit::Degraded }
}

fn progress_line(progress: &Progress) -> String {
    let Progress { verifying, bytes, total_bytes, files, total_files } = *progress;
    format!(
        "{}{} of {}, {} of {} files",
        if verifying { "reading back: " } else { "" },
        output::bytes(bytes),
        output::bytes(total_bytes),
        output::count(files),
        output::count(total_files)
    )
}

fn plan_text(plan: &Plan) -> String {
    let Plan { source, target, start, counts, already_there, packs, read_bytes, problems, .. } = plan;
    let mut text = format!(
        "would restore {} of volume {} (backup {}) to {}; nothing is written\n",
        source.path,
        source.volume,
        source.snapshot.short(),
        target.display()
    );
    if *start == Start::Resumed {
        let _ = writeln!(text, "  goes on: {} there already", output::counted(*already_there, "complete file"));
    }
    let _ = writeln!(text, "  {}", counted(counts));
    let packs = output::counted(*packs as u64, "pack");
    let _ = writeln!(text, "  reads {} from {packs}", output::bytes(*read_bytes));
    text + &problems_text(problems)
}

fn report_text(report: &Report) -> String {
    let Report { source, target, start: _, counts, already_there, verified, problems, seconds } = report;
    let mut text = format!(
        "restored {} of volume {} (backup {}) to {} in {seconds:.1} s\n  {}\n",
        source.path,
        source.volume,
        source.snapshot.short(),
        target.display(),
        counted(counts)
    );
    if *already_there > 0 {
        let files = output::counted(*already_there, "file");
        let _ = writeln!(text, "  {files} of them were complete before");
    }
    if let Some(verified) = verified {
        let (files, bytes) = (output::counted(verified.files, "file"), output::bytes(verified.bytes));
        let _ = writeln!(text, "  read back: {files}, {bytes}, every byte is that of the backup");
    }
    text + &problems_text(problems)
}

fn counted(counts: &Counts) -> String {
    let Counts { files, directories, symlinks, hard_links, special, bytes } = *counts;
    let mut text = format!("{} of {}", output::bytes(bytes), output::counted(files, "file"));
    let others = [(symlinks, "symbolic link"), (hard_links, "hard link"), (special, "device, pipe or socket")];
    for (number, noun) in others.into_iter().filter(|(number, _)| *number > 0) {
        let _ = match noun {
            "device, pipe or socket" if number > 1 => {
                write!(text, ", {} devices, pipes and sockets", output::count(number))
            }
            _ => write!(text, ", {}", output::counted(number, noun)),
        };
    }
    let directories =
        if directories == 1 { "1 directory".into() } else { format!("{} directories", output::count(directories)) };
    text + " in " + &directories
}

fn problems_text(problems: &Problems) -> String {
    let mut by_kind: BTreeMap<ProblemKind, Vec<_>> = BTreeMap::new();
    for problem in &problems.named {
        by_kind.entry(problem.kind).or_default().push(problem);
    }
    let mut text = String::new();
    for (kind, problems) in by_kind {
        let _ = writeln!(text, "  ! {kind}: {}", output::count(problems.len() as u64));
        for problem in problems.iter().take(SHOWN) {
            let line = format!("{}: {}", super::shown(&problem.path), problem.message);
            let _ = writeln!(text, "      {}", output::printable(&line));
        }
        if problems.len() > SHOWN {
            let _ =
                writeln!(text, "      and {} more; -o json names them", output::count((problems.len() - SHOWN) as u64));
        }
    }
    if problems.more > 0 {
        let _ = writeln!(text, "  ! {} that are not named", output::counted(problems.more, "further problem"));
    }
    text
}
