//! `stillpoint backup create`.

use std::{collections::BTreeMap, fmt::Write};

use anyhow::bail;
use clap::Args;
use serde::Serialize;
use stillpoint_agent::{self as agent, BackupRequest, Progress, Report};
use stillpoint_api::{ClusterResources, Digest, Outcome, Problem, Scope, VolumeIntent, VolumeRecord};
use stillpoint_repository::signing::SigningKey;

use super::volumes::{self, VolumesArgs};
use crate::{
    args::{LockArgs, OutputArgs, RepoArgs},
    cluster::ClusterArgs,
    exit::Exit,
    interrupt,
    keys::SigningArgs,
    output, progress,
};

/// Nodes whose progress is shown.
const NODES: usize = 8;

pub(crate) const EXAMPLES: &str = "Examples:
  stillpoint backup create shop-1 --include-namespaces 'shop*'
  stillpoint backup create all-1 --no-volumes --strict
  stillpoint backup create db-1 --include-namespaces db --selector app=postgres";

#[derive(Debug, Args)]
pub(crate) struct CreateArgs {
    /// The backup's name
    name: String,
    /// Fail, and keep nothing, where something is missing; otherwise the backup is kept as degraded
    #[arg(long)]
    strict: bool,
    /// Do not sign the backup; whoever can write to the repository can then change it unseen
    #[arg(long, conflicts_with = "signing_key")]
    unsigned: bool,
    /// The name the cluster goes by in the repository [default: its name in the kubeconfig]
    #[arg(long, value_name = "NAME")]
    cluster_name: Option<String>,
    #[command(flatten)]
    scope: ScopeArgs,
    #[command(flatten)]
    volumes: VolumesArgs,
    #[command(flatten)]
    cluster: ClusterArgs,
    #[command(flatten)]
    repo: RepoArgs,
    #[command(flatten)]
    lock: LockArgs,
    #[command(flatten)]
    signing: SigningArgs,
    #[command(flatten)]
    output: OutputArgs,
}

#[derive(Debug, Args)]
#[command(next_help_heading = "Scope")]
struct ScopeArgs {
    /// Namespaces to take; globs, comma-separated [default: all]
    #[arg(long, value_name = "GLOB", value_delimiter = ',')]
    include_namespaces: Vec<String>,
    /// Namespaces to leave out; wins over includes
    #[arg(long, value_name = "GLOB", value_delimiter = ',')]
    exclude_namespaces: Vec<String>,
    /// Types to take, such as deployments.apps [default: all but Events, Leases and what controllers make again]
    #[arg(long, value_name = "TYPE", value_delimiter = ',')]
    include_resources: Vec<String>,
    /// Types to leave out; wins over includes
    #[arg(long, value_name = "TYPE", value_delimiter = ',')]
    exclude_resources: Vec<String>,
    /// Take only objects whose labels match, as kubectl selects
    #[arg(short = 'l', long, value_name = "SELECTOR")]
    selector: Option<String>,
    /// Take all or none of the cluster-scoped objects [default: all with all namespaces, else what is needed]
    #[arg(long, value_name = "BOOL")]
    include_cluster_resources: Option<bool>,
    /// Say that volumes' data is meant to be absent
    #[arg(long)]
    no_volumes: bool,
}

impl From<ScopeArgs> for Scope {
    fn from(args: ScopeArgs) -> Self {
        let ScopeArgs {
            include_namespaces,
            exclude_namespaces,
            include_resources,
            exclude_resources,
            selector,
            include_cluster_resources,
            no_volumes,
        } = args;
        Self {
            include_namespaces,
            exclude_namespaces,
            include_resources,
            exclude_resources,
            label_selector: selector,
            cluster_resources: match include_cluster_resources {
                None => ClusterResources::Auto,
                Some(true) => ClusterResources::All,
                Some(false) => ClusterResources::None,
            },
            volumes: if no_volumes { VolumeIntent::LeftOut } else { VolumeIntent::Wanted },
        }
    }
}

pub(crate) async fn run(args: CreateArgs) -> anyhow::Result<Exit> {
    let CreateArgs { name, scope, volumes, strict, unsigned, cluster_name, cluster, repo, lock, signing, output } =
        args;
    let key = if unsigned { None } else { Some(key(&signing)?) };
    let target = cluster.connect().await?;
    let repository = lock.patient(repo.open().await?);
    let volumes = if scope.no_volumes { None } else { Some(volumes.request(&cluster, &repo).await?) };
    let cluster = cluster_name.unwrap_or(target.name);
    let request = BackupRequest { strict, volumes, ..BackupRequest::new(name, cluster, scope.into()) };
    let (progress, drawn) = progress::draw(describe_progress);
    let create = agent::create(target.client, &repository, &request, key.as_ref(), progress);
    let report = interrupt::cancelling(&request.cancel, Box::pin(create)).await??;
    drop(drawn);
    let summary = Summary::new(&report, key.as_ref());
    output::print(output.output, &summary, || summary.to_text())?;
    Ok(match summary.outcome {
        Outcome::Complete => Exit::Done,
        Outcome::Degraded => Exit::Degraded,
    })
}

fn key(signing: &SigningArgs) -> anyhow::Result<SigningKey> {
    match signing.key()? {
        Some(key) => Ok(key),
        None => bail!(
            "there is no key to sign the backup with: make one with `stillpoint key generate`, name one with \
             --signing-key, or say --unsigned"
        ),
    }
}

fn describe_progress(progress: &Progress) -> String {
    let Progress { attempt, revision, units, units_done, objects, helpers, removing_helpers, quiescing, nodes } =
        progress;
    if let Some((done, total)) = helpers {
        return format!("mounting claims that no pod mounts: {done} of {}", output::counted(*total, "helper pod"));
    }
    match attempt {
        _ if *removing_helpers => "removing helper pods".to_owned(),
        _ if !nodes.is_empty() => describe_nodes(nodes),
        _ if *quiescing => "quiescing".to_owned(),
        0 => "asking the cluster what it serves".to_owned(),
        attempt => {
            let retaken = if *attempt > 1 { format!(" (attempt {attempt})") } else { String::new() };
            format!("revision {revision}{retaken}: {units_done} of {units} lists, {} objects", output::count(*objects))
        }
    }
}

fn describe_nodes(nodes: &BTreeMap<String, String>) -> String {
    let mut lines: Vec<_> = nodes.iter().take(NODES).map(|(node, note)| format!("node {node}: {note}")).collect();
    if let Some(more) = nodes.len().checked_sub(NODES).filter(|more| *more > 0) {
        lines.push(format!("and {}", output::counted(more as u64, "more node")));
    }
    lines.join("\n  ")
}

/// What a user wants to know of a new backup.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Summary {
    name: String,
    outcome: Outcome,
    cluster: String,
    revision: u64,
    attempts: u32,
    objects: u64,
    types: usize,
    seconds: f64,
    root: Digest,
    snapshot: String,
    signed_by: Option<String>,
    bytes_added: u64,
    /// How long writers stood still.
    window_ms: Option<f64>,
    volumes: Vec<VolumeRecord>,
    problems: Vec<Problem>,
}

impl Summary {
    fn new(report: &Report, key: Option<&SigningKey>) -> Self {
        let Report { manifest, committed } = report;
        let captured = || manifest.types.iter().map(|record| record.captured);
        Self {
            name: manifest.backup.name.clone(),
            outcome: manifest.outcome,
            cluster: manifest.cluster.name.clone(),
            revision: manifest.cut.revision,
            attempts: manifest.cut.attempts,
            objects: captured().sum(),
            types: captured().filter(|captured| *captured > 0).count(),
            seconds: manifest.finished.duration_since(manifest.started).as_secs_f64(),
            root: committed.root,
            snapshot: committed.snapshot.to_string(),
            signed_by: key.map(|key| key.public().fingerprint()),
            bytes_added: committed.stats.bytes_packed,
            window_ms: manifest.cut.window.map(|window| window.to.duration_since(window.from).as_secs_f64() * 1e3),
            volumes: manifest.volumes.clone(),
            problems: manifest.problems.clone(),
        }
    }

    fn to_text(&self) -> String {
        let mut text = format!(
            "backup {}: {}\n  {} of {} of cluster {}, all at revision {}, in {:.1} s\n  \
             stored {} ({} compressed and new), root {}\n",
            self.name,
            self.outcome,
            output::counted(self.objects, "object"),
            output::counted(self.types as u64, "type"),
            self.cluster,
            self.revision,
            self.seconds,
            &self.snapshot[..8],
            output::bytes(self.bytes_added),
            self.root.short(),
        );
        let signer = self.signed_by.as_ref().map_or_else(
            || "  unsigned: whoever can write to the repository can change it unseen\n".to_owned(),
            |key| format!("  signed by {key}\n"),
        );
        text.push_str(&signer);
        if let Some(window) = self.window_ms {
            let _ = writeln!(text, "  writers stood still for {window:.0} ms");
        }
        if self.volumes.iter().any(|volume| volume.data.held().is_some()) {
            text.push_str(&volumes::table(&self.volumes));
        }
        for problem in &self.problems {
            let _ = writeln!(text, "  ! {}", output::printable(&problem.to_string()));
        }
        let _ = writeln!(text, "next: stillpoint verify {}", self.name);
        text
    }
}
