//! `stillpoint repo init`.

use clap::Args;
use serde::Serialize;

use crate::{
    args::{OutputArgs, RepoArgs},
    exit::Exit,
    output,
};

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

pub(crate) async fn run(args: InitArgs) -> anyhow::Result<Exit> {
    let InitArgs { repo, output } = args;
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
