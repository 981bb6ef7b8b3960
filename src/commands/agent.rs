//! `stillpoint agent`: what runs on every node.
//!
//! It lets go what an earlier one left stopped before it does anything else, and tries out whether a guard would outlive
//! it: where it would not, the agent serves all the same and refuses to stop anything, by name.

use std::{net::SocketAddr, path::PathBuf};

use anyhow::Context;
use clap::Args;
use stillpoint_agent::{Node, NodeConfig, Server, Tls, volume};
use stillpoint_api::installation::{NAMESPACE, PORT};
use stillpoint_deploy::DEFAULT_KUBELET_ROOT;
use stillpoint_hooks::{
    guard::self_test,
    release::{self, Living},
};
use tokio_util::sync::CancellationToken;

use crate::{cluster::ClusterArgs, exit::Exit, interrupt, meanwhile::GuardArgs, output};

pub(crate) const AFTER_HELP: &str = "\
Example:
  stillpoint agent --node-name \"$NODE_NAME\" --tls-cert tls.crt --tls-key tls.key

`stillpoint install` runs it on every node. It needs the host's process ids, its cgroup tree and CAP_SYS_ADMIN to stop
writers; without them it says why not, and copies only what need not be stopped.";

#[derive(Debug, Args)]
pub(crate) struct AgentArgs {
    /// The node's name in the cluster
    #[arg(long, env = "NODE_NAME", value_name = "NAME")]
    node_name: String,
    /// Where to listen
    #[arg(long, value_name = "ADDRESS", default_value_t = SocketAddr::from(([0, 0, 0, 0], PORT)))]
    listen: SocketAddr,
    /// The certificate to show, PEM
    #[arg(long, value_name = "FILE")]
    tls_cert: PathBuf,
    /// Its key, PEM
    #[arg(long, value_name = "FILE")]
    tls_key: PathBuf,
    /// The namespace of the account whose tokens are taken
    #[arg(long, env = "STILLPOINT_NAMESPACE", value_name = "NAME", default_value = NAMESPACE)]
    namespace: String,
    #[command(flatten)]
    node: NodeArgs,
    #[command(flatten)]
    cluster: ClusterArgs,
}

/// How a node is worked on, by an agent or by a backup that needs none.
#[derive(Debug, Args)]
#[command(next_help_heading = "Node")]
pub(crate) struct NodeArgs {
    /// Kubelet's folder, as the host sees it
    #[arg(long, value_name = "DIR", default_value = DEFAULT_KUBELET_ROOT)]
    kubelet_root: PathBuf,
    /// Where what is copied while writers stand still is set aside, encrypted, if it exceeds memory
    #[arg(long, value_name = "DIR", default_value = "/var/lib/stillpoint/spool")]
    spool: PathBuf,
    #[command(flatten)]
    guard: GuardArgs,
}

impl NodeArgs {
    /// Lets go what an earlier process left stopped and removes what it left in volumes, tries out the guard, and gives how
    /// the node is worked on.
    pub(crate) async fn config(self, name: String) -> anyhow::Result<NodeConfig> {
        let Self { kubelet_root, spool, guard } = self;
        let guard = guard.config()?;
        let journal = guard.journal.clone();
        let look = move || anyhow::Ok((release::all(&journal, Living::LeaveAlone)?, volume::clean(&journal)?));
        let (found, leftovers) = tokio::task::spawn_blocking(look).await??;
        leftovers.iter().for_each(output::note);
        for found in found {
            match found {
                Ok(found) => {
                    output::note(format_args!("an earlier process had stopped {}: {}", found.name, found.what))
                }
                Err(error) => output::note(format_args!("what an earlier process had stopped cannot be told: {error}")),
            }
        }
        std::fs::create_dir_all(&spool).with_context(|| format!("cannot make the folder {}", spool.display()))?;
        let cannot_stop = self_test(&guard).await.err().map(|error| error.to_string());
        if let Some(why) = &cannot_stop {
            output::note(format_args!("writers cannot be stopped from here: {why}"));
        }
        Ok(NodeConfig { name, kubelet: kubelet_root, guard, spool, cannot_stop })
    }
}

pub(crate) async fn run(args: AgentArgs) -> anyhow::Result<Exit> {
    let AgentArgs { node_name, listen, tls_cert, tls_key, namespace, node, cluster } = args;
    let read = |file: PathBuf| std::fs::read(&file).with_context(|| format!("cannot read {}", file.display()));
    let tls = Tls { certificate: read(tls_cert)?, key: read(tls_key)? };
    let client = cluster.connect().await?.client;
    let node = Node::new(node.config(node_name).await?);
    let end = CancellationToken::new();
    let server = Server::new(node, client, &namespace).serve(listen, tls, end.clone());
    interrupt::cancelling(&end, Box::pin(server)).await??;
    Ok(Exit::Done)
}
