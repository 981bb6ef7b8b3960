//! `stillpoint backup describe`.

use std::fmt::Write;

use clap::Args;
use serde::Serialize;
use stillpoint_agent::Queued;
use stillpoint_api::{Digest, Exclusion, Manifest, SignerState, TypeRecord, VolumeData, VolumeRecord};
use stillpoint_catalog::{self as catalog, Error};

use super::{ReadArgs, agents::AgentsArgs, get::seconds, volumes};
use crate::{args::OutputArgs, cluster::ClusterArgs, exit::Exit, output};

#[derive(Debug, Args)]
pub(crate) struct DescribeArgs {
    /// The backup's name
    name: String,
    /// Show the counts of every type
    #[arg(long)]
    details: bool,
    #[command(flatten)]
    read: ReadArgs,
    #[command(flatten)]
    cluster: ClusterArgs,
    #[command(flatten)]
    agents: AgentsArgs,
    #[command(flatten)]
    output: OutputArgs,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Description<'a> {
    root: Digest,
    snapshot: String,
    signer: &'a SignerState,
    tested: String,
    manifest: &'a Manifest,
}

pub(crate) async fn run(args: DescribeArgs) -> anyhow::Result<Exit> {
    let DescribeArgs { name, details, read, cluster, agents, output } = args;
    let (repository, trust) = read.open().await?;
    let backup = match catalog::find(&repository, &name, &trust).await {
        Err(error @ Error::NotFound { .. }) => {
            return under_way(&name, error, agents.queued(&cluster, &name).await, output);
        }
        found => found?,
    };
    let tested = catalog::standing(&repository, backup.root, &trust).await?.to_string();
    let description = Description {
        root: backup.root,
        snapshot: backup.snapshot.to_string(),
        signer: &backup.signer,
        tested,
        manifest: &backup.manifest,
    };
    output::print(output.output, &description, || description.to_text(details))?;
    Ok(Exit::Done)
}

/// A backup that is not in the repository yet.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct UnderWay<'a> {
    name: &'a str,
    nodes: Vec<OnNode>,
}

/// What it does on a node.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct OnNode {
    node: String,
    volumes: Vec<String>,
    /// The backups that it waits for; none where it is its turn.
    behind: Vec<String>,
}

fn under_way(
    name: &str,
    not_found: Error,
    queued: anyhow::Result<Vec<Queued>>,
    output: OutputArgs,
) -> anyhow::Result<Exit> {
    let queued = queued.unwrap_or_else(|error| {
        output::note(format_args!(
            "whether {name} is under way cannot be told: {}",
            output::printable(&error.to_string())
        ));
        Vec::new()
    });
    if queued.is_empty() {
        return Err(not_found.into());
    }
    let nodes = queued.into_iter().map(|Queued { node, volumes, behind, .. }| OnNode { node, volumes, behind });
    let under_way = UnderWay { name, nodes: nodes.collect() };
    output::print(output.output, &under_way, || under_way.to_text())?;
    Ok(Exit::Done)
}

impl UnderWay<'_> {
    fn to_text(&self) -> String {
        let state = "under way, not in the repository yet".to_owned();
        let row = |on: &OnNode| {
            let turn =
                if on.behind.is_empty() { "its own".to_owned() } else { format!("after {}", on.behind.join(", ")) };
            [on.node.clone(), on.volumes.join(", "), turn]
        };
        let nodes = output::table(["NODE", "VOLUMES", "TURN"], self.nodes.iter().map(row));
        format!("{}\n{nodes}", output::fields(&[("Name", self.name.to_owned()), ("State", state)]))
    }
}

impl Description<'_> {
    fn to_text(&self, details: bool) -> String {
        let Manifest { backup, cluster, cut, outcome, problems, types, volumes, finished, started, .. } = self.manifest;
        let attempts = if cut.attempts > 1 { format!(", in attempt {}", cut.attempts) } else { String::new() };
        let mut text = output::fields(&[
            ("Name", backup.name.clone()),
            ("State", outcome.to_string()),
            ("Tested", self.tested.clone()),
            ("Signer", self.signer.to_string()),
            ("Root", self.root.to_string()),
            ("Snapshot", format!("{} (as restic names it)", &self.snapshot[..8])),
            ("Cluster", format!("{}, {}", cluster.name, cluster.version)),
            ("Instant", format!("revision {} at {}{attempts}", cut.revision, seconds(cut.read_at))),
            ("Took", format!("{:.1} s", finished.duration_since(*started).as_secs_f64())),
            ("Objects", output::count(types.iter().map(|record| record.captured).sum())),
            ("Volumes", volumes_line(volumes)),
        ]);
        if let Some(window) = &cut.window {
            let length = window.to.duration_since(window.from).as_secs_f64() * 1e3;
            let _ = writeln!(text, "Writers stood still for {length:.0} ms around the instant");
        }
        if volumes.iter().any(|volume| volume.data.held().is_some()) {
            let _ = write!(text, "\n{}", volumes::table(volumes));
        }
        if !problems.is_empty() {
            let _ = writeln!(text, "\nMissing or in doubt:");
            for problem in problems {
                let _ = writeln!(text, "  {}", output::printable(&problem.to_string()));
            }
        }
        if details {
            let _ = write!(text, "\n{}", counts(types));
        } else {
            let _ = writeln!(text, "\n--details shows the counts of every type");
        }
        text
    }
}

fn volumes_line(volumes: &[VolumeRecord]) -> String {
    let counted = output::counted(volumes.len() as u64, "claim");
    let held = volumes.iter().filter(|volume| volume.data.held().is_some()).count();
    if volumes.is_empty() {
        "no claims in scope".to_owned()
    } else if volumes.iter().all(|volume| volume.data == VolumeData::LeftOut) {
        format!("{counted}, data meant to be absent")
    } else if held == 0 {
        format!("{counted}, no data held")
    } else {
        format!("{counted}, data of {} held", output::count(held as u64))
    }
}

fn counts(types: &[TypeRecord]) -> String {
    let row = |record: &TypeRecord| {
        let objects = |exclusion: &Exclusion| match record.existed {
            None if exclusion.objects == 0 => "?".to_owned(),
            _ => output::count(exclusion.objects),
        };
        let excluded = record.excluded.iter().map(|e| format!("{} {}", objects(e), e.rule)).collect::<Vec<_>>();
        [
            record.resource.name.to_string(),
            record.resource.version.clone(),
            record.existed.map_or_else(|| "?".to_owned(), output::count),
            output::count(record.captured),
            excluded.join(", "),
        ]
    };
    let (some, none): (Vec<_>, Vec<_>) = types.iter().partition(|record| record.existed != Some(0));
    let mut text = output::table(["TYPE", "VERSION", "EXISTED", "CAPTURED", "EXCLUDED"], some.into_iter().map(row));
    let _ = writeln!(text, "\n{} more had no objects", output::counted(none.len() as u64, "served type"));
    text
}
