//! `stillpoint repo`: the repository itself.
//!
//! Creation is explicit: a mistyped URL must not become a second, empty repository.

use clap::{Args, Subcommand};
use serde::Serialize;

use crate::{
    args::{OutputArgs, RepoArgs},
    exit::Exit,
    output,
};

#[derive(Debug, Subcommand)]
pub(crate) enum RepoCommand {
    /// Creates a repository: a restic repository, format 2, that restic itself can read.
    #[command(
        after_help = "Examples:\n  STILLPOINT_PASSWORD_FILE=./pw stillpoint repo init --repo file:///srv/backups\n  \
                            stillpoint repo init --repo s3://bucket/prefix --password-file ./pw"
    )]
    Init(InitArgs),
}

#[derive(Debug, Args)]
pub(crate) struct InitArgs {
    #[command(flatten)]
    repo: RepoArgs,
    #[command(flatten)]
    output: OutputArgs,
}

#[derive(Serialize)]
struct Created<'a> {
    repository: &'a str,
    id: String,
}

pub(crate) async fn run(command: RepoCommand) -> anyhow::Result<Exit> {
    let RepoCommand::Init(InitArgs { repo, output }) = command;
    let created = repo.init().await?;
    let created = Created { repository: repo.url(), id: created.id().to_string() };
    output::print(output.output, &created, || {
        format!(
            "created repository {} at {}\nwithout its password nothing in it can be read: keep the password elsewhere\n",
            &created.id[..8],
            created.repository
        )
    })?;
    Ok(Exit::Done)
}
