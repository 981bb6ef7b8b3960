//! Which backups the agents work on, and which of them wait for others.
//!
//! A backup is in its repository once it is committed; until then nobody but the agents knows of it.

use futures::{StreamExt, stream};

use super::agents::{AgentError, Agents, Found};
use crate::node::wire;

/// Agents that are asked at once.
const ASKED_AT_ONCE: usize = 16;

/// What the agents are at.
#[derive(Debug, Default)]
pub struct Queue {
    /// Each backup on each node, in the order in which they came there.
    pub backups: Vec<Queued>,
    /// The agents that did not answer.
    pub silent: Vec<AgentError>,
}

/// A backup on a node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Queued {
    /// The node.
    pub node: String,
    /// The backup's name.
    pub backup: String,
    /// Its volumes there, as `namespace/claim`.
    pub volumes: Vec<String>,
    /// The backups that it waits for, because they hold filesystems of these volumes; none where it is its turn.
    pub behind: Vec<String>,
}

impl Agents {
    /// Asks every agent what it is at.
    ///
    /// # Errors
    /// There are none, or the API server refuses.
    pub async fn queue(&self) -> Result<Queue, AgentError> {
        let agents = match self.find().await? {
            Found::Local(node) => return Ok(Queue { backups: queued(node.describe()).collect(), silent: Vec::new() }),
            Found::Cluster(agents) => agents,
        };
        let mut answers = stream::iter(agents.nodes()).map(|node| agents.describe(node)).buffered(ASKED_AT_ONCE);
        let mut queue = Queue::default();
        while let Some(answer) = answers.next().await {
            match answer {
                Ok(answer) => queue.backups.extend(queued(answer)),
                Err(error) => queue.silent.push(error),
            }
        }
        Ok(queue)
    }
}

fn queued(answer: wire::DescribeAnswer) -> impl Iterator<Item = Queued> {
    let wire::DescribeAnswer { node, sessions, .. } = answer;
    sessions.into_iter().map(move |wire::Session { backup, volumes, behind }| Queued {
        node: node.clone(),
        backup,
        volumes,
        behind,
    })
}
