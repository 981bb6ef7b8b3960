//! `stillpoint volume get`.

use clap::Args;
use stillpoint_filetree::volume::{self, VolumeBackup};

use super::HostArgs;
use crate::{
    args::{OutputArgs, RepoArgs},
    commands::backup::seconds,
    exit::Exit,
    output,
};

#[derive(Debug, Args)]
pub(crate) struct GetArgs {
    /// Only backups of the volume of this name
    name: Option<String>,
    #[command(flatten)]
    host: HostArgs,
    #[command(flatten)]
    repo: RepoArgs,
    #[command(flatten)]
    output: OutputArgs,
}

pub(crate) async fn run(args: GetArgs) -> anyhow::Result<Exit> {
    let GetArgs { name, host, repo, output } = args;
    let repository = repo.open().await?;
    let backups = match (&name, host.filter()) {
        (Some(name), host) => volume::all(&repository, name, &host).await?,
        (None, host) => {
            let mut backups = volume::list(&repository).await?;
            backups.retain(|backup| host.takes(&backup.host));
            backups
        }
    };
    output::print(output.output, &backups, || {
        if backups.is_empty() {
            return format!("no volume backups of {} yet: stillpoint volume backup NAME --path DIR\n", host.filter());
        }
        output::table(
            ["NAME", "SNAPSHOT", "TAKEN", "OUTCOME", "FILES", "SIZE", "HOST", "PATHS"],
            backups.iter().map(cells),
        )
    })?;
    Ok(Exit::Done)
}

fn cells(backup: &VolumeBackup) -> [String; 8] {
    let VolumeBackup { name, snapshot, time, host, paths, tree: _, degraded, files, bytes } = backup;
    let outcome = if *degraded { "degraded" } else { "complete" };
    let unknown = || "unknown".to_owned();
    [
        name.clone(),
        snapshot.short(),
        seconds(*time).to_string(),
        outcome.to_owned(),
        files.map_or_else(unknown, output::count),
        bytes.map_or_else(unknown, output::bytes),
        host.clone(),
        paths.join(", "),
    ]
}
