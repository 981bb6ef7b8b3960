//! `stillpoint uninstall`: removes what install made.
//!
//! The plan is what bears install's label. A namespace goes only if nothing of others is in it; what lies on the nodes
//! stays, because a journal may be all that knows of a filesystem that stands still.

use clap::Args;
use kube::ResourceExt;
use serde::Serialize;
use stillpoint_objects::{discovery, retry::Retry};

use crate::{
    args::OutputArgs,
    cluster::ClusterArgs,
    confirm,
    exit::Exit,
    installation::{Installation, name_of},
    output,
};

/// Objects that are named of those that keep a namespace.
const NAMED: usize = 3;

#[derive(Debug, Args)]
pub(crate) struct UninstallArgs {
    /// Remove without asking
    #[arg(short, long)]
    yes: bool,
    #[command(flatten)]
    cluster: ClusterArgs,
    #[command(flatten)]
    output: OutputArgs,
}

/// What was removed.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Removed {
    removed: Vec<String>,
    kept: Vec<Kept>,
}

/// A namespace that is not removed.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Kept {
    object: String,
    reason: String,
}

pub(crate) async fn run(args: UninstallArgs) -> anyhow::Result<Exit> {
    let UninstallArgs { yes, cluster, output } = args;
    let client = cluster.connect().await?.client;
    let installed = Installation::new(client.clone());
    let (mut removed, mut kept) = (Vec::new(), Vec::new());
    let discovery = discovery::discover(&client, &Retry::default()).await?;
    for object in installed.objects().await? {
        let is_namespace = object.types.as_ref().is_some_and(|types| types.kind == "Namespace");
        let others = match is_namespace {
            true => installed.others_in(&object.name_any(), &discovery).await?,
            false => Vec::new(),
        };
        if others.is_empty() {
            removed.push(object);
        } else {
            kept.push(Kept { object: name_of(&object), reason: reason(&others) });
        }
    }
    for Kept { object, reason } in &kept {
        output::note(format_args!("will keep {object}: {reason}"));
    }
    if removed.is_empty() {
        output::note("nothing is installed that could be removed");
    } else {
        removed.iter().for_each(|object| output::note(format_args!("will delete {}", name_of(object))));
        output::note("/var/lib/stillpoint stays on the nodes: it holds the journals of what is stopped");
        if !yes {
            confirm::needs_somebody("uninstall")?;
            if !confirm::confirmed().await {
                output::note("nothing was deleted");
                return Ok(Exit::Failed);
            }
        }
    }
    for object in &removed {
        installed.delete(object).await?;
    }
    let removed = Removed { removed: removed.iter().map(name_of).collect(), kept };
    output::print(output.output, &removed, || {
        removed.removed.iter().map(|object| format!("deleted {object}\n")).collect()
    })?;
    Ok(Exit::Done)
}

fn reason(others: &[String]) -> String {
    let more = others.len().saturating_sub(NAMED);
    let named = others[..others.len().min(NAMED)].join(", ");
    match more {
        0 => format!("it holds {named}, which install did not make"),
        more => format!("it holds {named} and {more} more, which install did not make"),
    }
}
