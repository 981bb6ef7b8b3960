//! What an agent does on its node for one cut after the other.
//!
//! It finds the volumes that it is asked for in the pods' own mount tables, stops their writers through the guard, and
//! uploads what it copied itself. It knows the API server only as the judge of tokens.

pub(crate) mod lease;
mod locate;
mod service;
mod session;
mod turns;
pub(crate) mod wire;

use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

use futures::Stream;
use stillpoint_hooks::guard;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::task::TaskTracker;

use self::{
    lease::Lease,
    turns::Turns,
    wire::{CutAnswer, CutRequest, DescribeAnswer},
};
pub use self::{
    service::{ServeError, Server, Tls},
    turns::take_turn,
};

/// Answers that wait to be sent.
const WAITING: usize = 16;

/// How an agent works on its node.
#[derive(Debug, Clone)]
pub struct NodeConfig {
    /// The node's name in the cluster.
    pub name: String,
    /// Kubelet's folder, as the host sees it.
    pub kubelet: PathBuf,
    /// How guards are started, and where their journal is.
    pub guard: guard::Config,
    /// Where what is set aside while writers stand still lies.
    pub spool: PathBuf,
    /// Why this agent must not stop writers; none where it may.
    pub cannot_stop: Option<String>,
}

/// An agent on its node.
#[derive(Debug)]
pub struct Node {
    config: NodeConfig,
    turns: Turns,
    /// The sessions, which go through release and clean up whoever asked for them.
    sessions: TaskTracker,
}

impl Node {
    /// An agent without sessions.
    pub fn new(config: NodeConfig) -> Arc<Self> {
        Arc::new(Self { config, turns: Turns::default(), sessions: TaskTracker::new() })
    }

    /// The node's name.
    pub fn name(&self) -> &str {
        &self.config.name
    }

    /// Lets nothing go before every session has released and cleaned up.
    pub async fn ended(&self) {
        self.sessions.close();
        self.sessions.wait().await;
    }

    /// Works on one cut for whoever asks.
    pub(crate) fn session(
        self: &Arc<Self>,
        requests: impl Stream<Item = Result<CutRequest, tonic::Status>> + Send + Unpin + 'static,
    ) -> ReceiverStream<Result<CutAnswer, tonic::Status>> {
        let (answers, queue) = mpsc::channel(WAITING);
        let lease = Lease::start(requests);
        self.sessions.spawn(session::run(self.clone(), lease, answers));
        ReceiverStream::new(queue)
    }

    /// What the agent says of itself.
    pub(crate) fn describe(&self) -> DescribeAnswer {
        DescribeAnswer {
            node: self.config.name.clone(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            cannot_stop: self.config.cannot_stop.clone().unwrap_or_default(),
            sessions: self.turns.sessions(),
        }
    }

    fn host(&self) -> locate::Host {
        locate::Host { kubelet: self.config.kubelet.clone(), cgroups: self.config.guard.cgroup_root.clone() }
    }

    fn spool(&self) -> &Path {
        &self.config.spool
    }
}
