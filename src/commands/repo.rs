//! `stillpoint repo`: the repository itself.
//!
//! One file per verb. Creation is explicit: a mistyped URL must not become a second, empty repository.

mod check;
mod init;
mod key;
mod prune;
mod stats;
mod unlock;

use clap::{Args, Subcommand};
use stillpoint_repository::{Control, Error, Progress, Repository, Stage};
use tokio_util::sync::CancellationToken;

use crate::{
    args::{LockArgs, OutputArgs, RepoArgs},
    exit::Exit,
    interrupt, output, progress,
};

#[derive(Debug, Subcommand)]
pub(crate) enum RepoCommand {
    /// Creates a repository: a restic repository, format 2, that restic itself can read.
    #[command(
        after_help = "Examples:\n  STILLPOINT_PASSWORD_FILE=./pw stillpoint repo init --repo file:///srv/backups\n  \
                            stillpoint repo init --repo s3://bucket/prefix --password-file ./pw"
    )]
    Init(init::InitArgs),
    /// Checks the repository and says what is damaged, which backups that reaches and what to do.
    #[command(after_help = check::EXAMPLES)]
    Check(check::CheckArgs),
    /// Manages the passwords that open the repository.
    #[command(subcommand)]
    Key(key::KeyCommand),
    /// Frees the space of what no snapshot needs, by a plan that is printed first.
    #[command(after_help = prune::EXAMPLES)]
    Prune(prune::PruneArgs),
    /// Counts what the repository holds, and what a prune would free.
    #[command(after_help = stats::EXAMPLES)]
    Stats(stats::StatsArgs),
    /// Removes locks whose holders are gone.
    #[command(after_help = unlock::EXAMPLES)]
    Unlock(unlock::UnlockArgs),
}

pub(crate) async fn run(command: RepoCommand) -> anyhow::Result<Exit> {
    match command {
        RepoCommand::Init(args) => init::run(args).await,
        RepoCommand::Check(args) => check::run(args).await,
        RepoCommand::Key(command) => key::run(command).await,
        RepoCommand::Prune(args) => prune::run(args).await,
        RepoCommand::Stats(args) => stats::run(args).await,
        RepoCommand::Unlock(args) => unlock::run(args).await,
    }
}

/// The flags of whatever takes a lock.
#[derive(Debug, Args)]
struct WorkArgs {
    #[command(flatten)]
    repo: RepoArgs,
    #[command(flatten)]
    lock: LockArgs,
    #[command(flatten)]
    output: OutputArgs,
}

impl WorkArgs {
    async fn open(&self) -> anyhow::Result<Repository> {
        Ok(self.lock.patient(self.repo.open().await?))
    }
}

/// Runs work on the whole repository: draws how far it is, and asks it to stop when a signal says so.
async fn attended<T>(
    repository: &Repository,
    work: impl AsyncFnOnce(&Repository, &Control) -> Result<T, Error>,
) -> anyhow::Result<T> {
    let (progress, drawn) = progress::draw(describe);
    let control = Control { progress, cancel: CancellationToken::new() };
    let repository = repository.clone().giving_up_on(control.cancel.clone());
    let done = interrupt::cancelling(&control.cancel, Box::pin(work(&repository, &control))).await??;
    drop(drawn);
    Ok(done)
}

fn describe(progress: &Progress) -> String {
    let Progress { stage, done, total } = progress;
    let (done, total) = (output::count(*done), output::count(*total));
    match stage {
        Stage::Packs => format!("{done} of {total} packs read"),
        Stage::Trees => format!("{done} directories read"),
        Stage::Repack => format!("{done} of {total} blobs copied"),
        Stage::Rewrite => "writing the index".to_owned(),
        Stage::Delete => format!("{done} of {total} packs removed"),
        _ => "reading the index".to_owned(),
    }
}

fn directories(count: u64) -> String {
    if count == 1 { "1 directory".to_owned() } else { format!("{} directories", output::count(count)) }
}
