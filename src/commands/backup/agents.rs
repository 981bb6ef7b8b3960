//! Where the agents are that copy volumes, and what they are at.

use clap::Args;
use kube::Client;
use stillpoint_agent::{AgentError, Agents, Queued, Way};
use stillpoint_api::installation::NAMESPACE;

use crate::{cluster::ClusterArgs, output};

#[derive(Debug, Args)]
#[command(next_help_heading = "Agents")]
pub(super) struct AgentsArgs {
    /// The namespace that `stillpoint install` put the agents into
    #[arg(long, value_name = "NAME", default_value = NAMESPACE)]
    agent_namespace: String,
    /// Reach agents by their addresses, from within the cluster's network, instead of through the API server
    #[arg(long)]
    direct: bool,
}

impl AgentsArgs {
    /// The agents of the cluster that `client` speaks to.
    pub(super) fn of(self, client: Client) -> Agents {
        let Self { agent_namespace: namespace, direct } = self;
        Agents::Cluster { client, namespace, way: if direct { Way::Direct } else { Way::PortForward } }
    }

    /// What the agents have of a backup that is under way; who does not answer is named. Where no cluster or no agent is
    /// that is nothing.
    pub(super) async fn queued(self, cluster: &ClusterArgs, backup: &str) -> anyhow::Result<Vec<Queued>> {
        if !cluster.is_known() {
            return Ok(Vec::new());
        }
        let queue = match self.of(cluster.connect_for_streams().await?.client).queue().await {
            Err(AgentError::NotInstalled { .. }) => return Ok(Vec::new()),
            queue => queue?,
        };
        for silent in &queue.silent {
            output::note(format_args!("stillpoint: {}", output::printable(&silent.to_string())));
        }
        Ok(queue.backups.into_iter().filter(|queued| queued.backup == backup).collect())
    }
}
