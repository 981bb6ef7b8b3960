//! `stillpoint repo`: the repository itself.
//!
//! One file per verb. Creation is explicit: a mistyped URL must not become a second, empty repository.

mod init;

use clap::Subcommand;

use crate::exit::Exit;

#[derive(Debug, Subcommand)]
pub(crate) enum RepoCommand {
    /// Creates a repository: a restic repository, format 2, that restic itself can read.
    #[command(
        after_help = "Examples:\n  STILLPOINT_PASSWORD_FILE=./pw stillpoint repo init --repo file:///srv/backups\n  \
                            stillpoint repo init --repo s3://bucket/prefix --password-file ./pw"
    )]
    Init(init::InitArgs),
}

pub(crate) async fn run(command: RepoCommand) -> anyhow::Result<Exit> {
    match command {
        RepoCommand::Init(args) => init::run(args).await,
    }
}
