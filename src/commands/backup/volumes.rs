//! How a backup copies volumes, and how a copy is shown.
//!
//! Apart from the scope: what is wanted is one question, who does it and how long it may take another.

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::Context;
use clap::Args;
use stillpoint_agent::{
    Agents as VolumeAgents, HelperPods, HooksRequest, Node, Policies, UnmountedClaims, VolumesRequest,
};
use stillpoint_api::{Method, VolumeData, VolumeRecord};

use super::agents::AgentsArgs;
use crate::{
    args::{MethodArg, RepoArgs},
    cluster::{ClusterArgs, Target},
    commands::{agent::NodeArgs, hooks},
    helpers::{ADVICE, HelperArgs},
    installation::Agents,
    meanwhile::duration,
    output,
};

#[derive(Debug, Args)]
#[command(next_help_heading = "Volumes")]
pub(crate) struct VolumesArgs {
    /// Copy the volumes of this host's pods without an agent, as root; the value is the node's name in the cluster
    #[arg(long, value_name = "NODE")]
    node_local: Option<String>,
    /// How to copy every volume [default: what fits it best; an annotation stillpoint.dev/volume-method names another]
    #[arg(long, value_enum, value_name = "METHOD")]
    volume_method: Option<MethodArg>,
    /// A file of policies that says which volumes are copied how, in Velero's format; wins over annotations
    #[arg(long, value_name = "FILE")]
    volume_policies: Option<PathBuf>,
    /// How long writers may stand still for what changed last and is read meanwhile
    #[arg(long, value_name = "DURATION", default_value = "2s", value_parser = duration)]
    budget: Duration,
    /// How long writers stand still at most, whatever happens
    #[arg(long, value_name = "DURATION", default_value = "10s", value_parser = duration)]
    max: Duration,
    /// Run no hooks: no copy's level is then more than filesystem
    #[arg(long)]
    no_hooks: bool,
    /// The folder that remembers which post hooks are owed [default: stillpoint/hooks in the user's folder for state]
    #[arg(long, env = "STILLPOINT_HOOK_JOURNAL", value_name = "DIR")]
    hook_journal: Option<PathBuf>,
    /// Leave claims out that no running pod mounts, instead of mounting them in a helper pod
    #[arg(long, conflicts_with_all = ["helper_image", "helper_host_network", "volume_timeout"])]
    no_helper_pods: bool,
    #[command(flatten)]
    helpers: HelperArgs,
    #[command(flatten)]
    agents: AgentsArgs,
    #[command(flatten)]
    node: NodeArgs,
}

impl VolumesArgs {
    /// Who copies volumes, and how.
    pub(super) async fn request(self, cluster: &ClusterArgs, repo: &RepoArgs) -> anyhow::Result<VolumesRequest> {
        let Self {
            node_local,
            volume_method,
            volume_policies,
            budget,
            max,
            no_hooks,
            hook_journal,
            no_helper_pods,
            helpers,
            agents,
            node,
        } = self;
        let policies = volume_policies.as_deref().map(policies).transpose()?.unwrap_or_default();
        // hooks and sessions may be silent for long, and have deadlines of their own
        let Target { client: patient, name } = cluster.connect_for_streams().await?;
        let unmounted = match no_helper_pods {
            true => UnmountedClaims::LeftOut(None),
            false => unmounted(&helpers, &patient).await,
        };
        let agents = match node_local {
            Some(node_name) => VolumeAgents::Local(Node::new(node.config(node_name).await?)),
            None => agents.of(patient.clone()),
        };
        let hooks = match no_hooks {
            true => None,
            false => Some(HooksRequest { client: patient, journal: hooks::journal(hook_journal, name)? }),
        };
        let method = volume_method.map(|method| Method::from(method).to_string());
        Ok(VolumesRequest {
            method,
            policies,
            budget,
            max,
            unmounted,
            ..VolumesRequest::new(agents, repo.access()?, hooks)
        })
    }
}

/// What becomes of claims that no running pod mounts. That the image of their pods is not known costs no other volume.
async fn unmounted(helpers: &HelperArgs, client: &kube::Client) -> UnmountedClaims {
    match helpers.agents(client).await {
        Ok(Some(Agents { image, host_network })) => {
            UnmountedClaims::Copied(HelperPods { image, host_network, patience: helpers.volume_timeout })
        }
        Ok(None) => UnmountedClaims::LeftOut(Some(format!("{ADVICE}, and it is copied through a helper pod"))),
        Err(error) => {
            UnmountedClaims::LeftOut(Some(format!("which image a helper pod is to have is not known: {error:#}")))
        }
    }
}

/// Reads a file of policies.
fn policies(file: &Path) -> anyhow::Result<Policies> {
    let wrong = || format!("cannot use the volume policies in {}", file.display());
    let text = std::fs::read_to_string(file).with_context(wrong)?;
    // errors are one line here
    let options = serde_saphyr::options! { with_snippet: false };
    let policies = serde_saphyr::from_str_with_options(&text, options).with_context(wrong)?;
    Policies::compile(policies).with_context(wrong)
}

/// The volumes of a backup as a table.
pub(super) fn table(volumes: &[VolumeRecord]) -> String {
    let row = |record: &VolumeRecord| {
        let claim = format!("{}/{}", record.namespace, record.claim);
        match &record.data {
            VolumeData::NotHeld => [claim, "not held".to_owned(), String::new(), String::new(), String::new()],
            VolumeData::LeftOut => {
                [claim, "meant to be absent".to_owned(), String::new(), String::new(), String::new()]
            }
            VolumeData::Held(held) => [
                claim,
                held.level.to_string(),
                format!("{}: {}", held.method, held.reason),
                held.node.clone(),
                format!("{}, {}", output::counted(held.files, "file"), output::bytes(held.bytes)),
            ],
        }
    };
    output::table(["CLAIM", "LEVEL", "METHOD", "NODE", "HOLDS"], volumes.iter().map(row))
}
