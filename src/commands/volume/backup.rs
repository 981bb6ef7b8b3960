//! `stillpoint volume backup`.

mod cut;
mod stop;
mod summary;

use std::path::PathBuf;

use clap::Args;
use stillpoint_filetree::{
    backup::{self, Progress, Request},
    volume,
};
use stillpoint_repository::Compression;
use tokio_util::sync::CancellationToken;

use self::{
    stop::StopArgs,
    summary::{Outcome, Summary},
};
use crate::{
    args::{LockArgs, OutputArgs, RepoArgs, UsageError},
    exit::Exit,
    interrupt, output, progress,
};

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
    #[arg(long, conflicts_with_all = ["freeze", "pause", "method"])]
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
    stop: StopArgs,
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

pub(crate) async fn run(args: BackupArgs) -> anyhow::Result<Exit> {
    let BackupArgs { name, paths, exclude, cross_mounts, read_all, compression, host, stop, repo, lock, output } = args;
    let host = host.unwrap_or_else(volume::this_host);
    let program_version = Some(concat!("stillpoint ", env!("CARGO_PKG_VERSION")).to_owned());
    let cancel = CancellationToken::new();
    let repository = lock.patient(repo.open().await?).giving_up_on(cancel.clone());
    let (progress, drawn) = progress::draw(describe);
    let (report, cut) = if stop.any() {
        let (wish, settings, asked) = stop.read(exclude, cancel)?;
        let request =
            cut::Request { name: name.clone(), host, paths, read_all, program_version, wish, settings, asked };
        let writer = repository.writer_with(compression).await?;
        let (report, cut) = Box::pin(cut::run(&repository, writer, request, progress)).await?;
        (report, Some(cut))
    } else {
        let request = Request {
            name: name.clone(),
            host,
            paths,
            exclude,
            cross_mounts,
            read_all,
            compression,
            program_version,
            cancel: cancel.clone(),
        };
        let work = backup::backup(&repository, &request, progress);
        (interrupt::cancelling(&cancel, Box::pin(work)).await?.map_err(usage)?, None)
    };
    drop(drawn);
    let summary = Summary::new(name, report, cut);
    output::print(output.output, &summary, || summary.to_text())?;
    Ok(if summary.outcome == Outcome::Complete { Exit::Done } else { Exit::Degraded })
}

/// What makes no sense is the command line's fault.
fn usage(error: backup::Error) -> anyhow::Error {
    match error {
        backup::Error::Name { .. } | backup::Error::NoPaths | backup::Error::Pattern { .. } => {
            UsageError(error.to_string()).into()
        }
        other => other.into(),
    }
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
