//! `stillpoint backup delete`.

use clap::Args;
use serde::Serialize;
use stillpoint_catalog::{self as catalog, Standing};

use super::{ReadArgs, get::seconds};
use crate::{
    args::{LockArgs, OutputArgs},
    confirm,
    exit::Exit,
    output,
};

#[derive(Debug, Args)]
pub(crate) struct DeleteArgs {
    /// The backup's name
    name: String,
    /// Delete without asking
    #[arg(short, long)]
    yes: bool,
    #[command(flatten)]
    read: ReadArgs,
    #[command(flatten)]
    lock: LockArgs,
    #[command(flatten)]
    output: OutputArgs,
}

/// What was deleted.
#[derive(Serialize)]
struct Deleted<'a> {
    name: &'a str,
    snapshot: String,
}

pub(crate) async fn run(args: DeleteArgs) -> anyhow::Result<Exit> {
    let (repository, trust) = args.read.open().await?;
    let repository = args.lock.patient(repository);
    // a damaged backup can be deleted too: that is what one does with it
    match catalog::find(&repository, &args.name, &trust).await {
        Ok(backup) => {
            let standing = catalog::standing(&repository, backup.root, &trust).await?;
            let taken = seconds(backup.manifest.cut.read_at);
            output::note(format_args!("will delete backup {}: taken {taken}, {standing}", args.name));
            if matches!(standing, Standing::Proven { .. }) {
                output::note("this backup is proven to restore");
            }
        }
        Err(error @ catalog::Error::Damaged { .. }) => {
            output::note(format_args!("will delete a damaged backup: {error}"))
        }
        Err(error) => return Err(error.into()),
    }
    if !args.yes {
        confirm::needs_somebody("delete")?;
        if !confirm::confirmed().await {
            output::note("nothing was deleted");
            return Ok(Exit::Failed);
        }
    }
    let snapshot = catalog::forget(&repository, &args.name).await?;
    let deleted = Deleted { name: &args.name, snapshot: snapshot.to_string() };
    output::print(args.output.output, &deleted, || {
        format!(
            "deleted backup {} (snapshot {}); `stillpoint repo prune` frees its space\n",
            args.name,
            snapshot.short()
        )
    })?;
    Ok(Exit::Done)
}
