//! `stillpoint volume backup`.

use std::{fmt::Write as _, path::PathBuf};

use clap::Args;
use serde::Serialize;
use stillpoint_filetree::{
    backup::{self, Counts, LeftOut, Problem, Progress, Report, Request},
    volume,
};
use stillpoint_repository::Compression;
use tokio_util::sync::CancellationToken;

use crate::{
    args::{LockArgs, OutputArgs, RepoArgs, UsageError},
    exit::Exit,
    interrupt, output, progress,
};

/// Problems that are printed; all of them are in `-o json`.
const SHOWN: usize = 20;

#[derive(Debug, Args)]
pub(crate) struct BackupArgs {
    /// The volume's name: a tag of the snapshot
    name: String,
    /// A directory or file to back up; may be given several times
    #[arg(long = "path", value_name = "PATH", required = true)]
    paths: Vec<PathBuf>,
    /// Leave out what matches: the end of a path, or all of it if the pattern begins with a slash
    #[arg(long, value_name = "GLOB")]
    exclude: Vec<String>,
    /// Go on below mount points
    #[arg(long)]
    cross_mounts: bool,
    /// Read every file, whatever the last backup says of it
    #[arg(long)]
    read_all: bool,
    /// How hard to compress: off, or zstd's level from 1 to 19
    #[arg(long, value_name = "LEVEL", default_value = "1", value_parser = compression)]
    compression: Compression,
    /// The host's name in the snapshot; this one's if not given
    #[arg(long, value_name = "NAME")]
    host: Option<String>,
    #[command(flatten)]
    repo: RepoArgs,
    #[command(flatten)]
    lock: LockArgs,
    #[command(flatten)]
    output: OutputArgs,
}

fn compression(text: &str) -> Result<Compression, String> {
    match text {
        "off" => Ok(Compression::Off),
        level => match level.parse() {
            Ok(level @ 1..=19) => Ok(Compression::Level(level)),
            _ => Err("give off, or a number from 1 to 19".into()),
        },
    }
}

/// What a user wants to know of a new volume backup.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Summary {
    name: String,
    outcome: Outcome,
    snapshot: String,
    parent: Option<String>,
    #[serde(flatten)]
    counts: Counts,
    /// Bytes before compression that were not in the repository.
    bytes_new: u64,
    /// Bytes that the repository grew by.
    bytes_added: u64,
    seconds: f64,
    problems: Vec<Problem>,
    left_out: Vec<LeftOut>,
}

#[derive(Serialize, PartialEq)]
#[serde(rename_all = "camelCase")]
enum Outcome {
    Complete,
    Degraded,
}

pub(crate) async fn run(args: BackupArgs) -> anyhow::Result<Exit> {
    let BackupArgs { name, paths, exclude, cross_mounts, read_all, compression, host, repo, lock, output } = args;
    let cancel = CancellationToken::new();
    let repository = lock.patient(repo.open().await?).giving_up_on(cancel.clone());
    let request = Request {
        name,
        host: host.unwrap_or_else(volume::this_host),
        paths,
        exclude,
        cross_mounts,
        read_all,
        compression,
        program_version: Some(concat!("stillpoint ", env!("CARGO_PKG_VERSION")).to_owned()),
        cancel,
    };
    let (progress, drawn) = progress::draw(describe);
    let work = backup::backup(&repository, &request, progress);
    let report = interrupt::cancelling(&request.cancel, Box::pin(work)).await?;
    drop(drawn);
    let report = match report {
        Err(error @ (backup::Error::Name { .. } | backup::Error::NoPaths | backup::Error::Pattern { .. })) => {
            return Err(UsageError(error.to_string()).into());
        }
        other => other?,
    };
    let summary = Summary::new(request.name, report);
    output::print(output.output, &summary, || summary.to_text())?;
    Ok(if summary.outcome == Outcome::Complete { Exit::Done } else { Exit::Degraded })
}

fn describe(progress: &Progress) -> String {
    let files = progress.files_new + progress.files_changed + progress.files_unmodified;
    format!(
        "{} files, {}, {} read",
        output::count(files),
        output::bytes(progress.bytes),
        output::bytes(progress.bytes_read)
    )
}

impl Summary {
    fn new(name: String, report: Report) -> Self {
        let Report { snapshot, tree: _, parent, counts, stats, problems, left_out, seconds } = report;
        let outcome = if problems.is_empty() { Outcome::Complete } else { Outcome::Degraded };
        let (snapshot, parent) = (snapshot.to_string(), parent.map(|id| id.to_string()));
        let (bytes_new, bytes_added) = (stats.bytes_new, stats.bytes_packed);
        Self { name, outcome, snapshot, parent, counts, bytes_new, bytes_added, seconds, problems, left_out }
    }

    fn to_text(&self) -> String {
        let Counts { files_new, files_changed, files_unmodified, directories, others, bytes, bytes_read } = self.counts;
        let outcome = if self.outcome == Outcome::Complete { "Complete" } else { "Degraded" };
        let parent = self.parent.as_ref().map_or_else(
            || "first of its paths".to_owned(),
            |parent| format!("{} changed, {} unmodified since {}", files_changed, files_unmodified, &parent[..8]),
        );
        let mut text = format!(
            "volume backup {}: {outcome}\n  {} new, {parent}; {} directories, {}\n  {} in files, {} read in {:.1} s\n  \
             stored {} ({} new, {} compressed)\n",
            self.name,
            output::counted(files_new, "file"),
            output::count(directories),
            output::counted(others, "other"),
            output::bytes(bytes),
            output::bytes(bytes_read),
            self.seconds,
            &self.snapshot[..8],
            output::bytes(self.bytes_new),
            output::bytes(self.bytes_added),
        );
        for mount in &self.left_out {
            let _ = writeln!(
                text,
                "  - {}: another file system, left out (--cross-mounts)",
                output::printable(&mount.path)
            );
        }
        for problem in self.problems.iter().take(SHOWN) {
            let _ = writeln!(text, "  ! {}", output::printable(&problem.to_string()));
        }
        if let Some(more) = self.problems.len().checked_sub(SHOWN + 1) {
            let _ = writeln!(text, "  ! and {} more: -o json lists them", more + 1);
        }
        text
    }
}
