//! Finds the agents of a cluster and opens sessions with them.
//!
//! An agent is trusted by the certificate authority that the installation left in the cluster, and trusts whoever holds
//! a token that the API server made for it: nothing that works elsewhere is shown to either.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use hyper_util::rt::TokioIo;
use k8s_openapi::api::{
    authentication::v1::{TokenRequest, TokenRequestSpec},
    core::v1::{ConfigMap, Pod, ServiceAccount},
};
use kube::{
    Api, Client,
    api::{ListParams, PostParams},
};
use stillpoint_api::installation::{
    AGENT_LABELS, AUDIENCE, AUTHORITY, AUTHORITY_KEY, CLIENT_ACCOUNT, PORT, server_name,
};
use stillpoint_objects::retry::Retry;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpStream,
    sync::mpsc,
    time,
};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{
    Request,
    metadata::MetadataValue,
    transport::{Certificate, Channel, ClientTlsConfig, Endpoint},
};

use super::link::{Link, causes, why};
use crate::node::{
    Node,
    lease::{PROBE, PROBED},
    wire::{DescribeAnswer, DescribeRequest, node_client::NodeClient},
};

/// How long the way to an agent may take to open.
const CONNECT: Duration = Duration::from_secs(15);
/// How long it may take to let us in: it has the API server review our token first.
const ADMIT: Duration = Duration::from_secs(30);
/// How long a token lasts: the shortest that API servers make. It is checked when a session begins.
const TOKEN_SECONDS: i64 = 600;
/// Requests that wait to be sent.
const WAITING: usize = 8;

/// Why an agent cannot be spoken to.
#[derive(Debug, thiserror::Error)]
pub enum AgentError {
    /// Nothing of the installation is there.
    #[error(
        "there is no agent in namespace {namespace}: {reason}; `stillpoint install` puts one on every node, \
         --node-local uses this host, --no-volumes leaves volumes out"
    )]
    NotInstalled {
        /// Where it was looked for.
        namespace: String,
        /// What is missing.
        reason: String,
    },
    /// No agent runs on the node.
    #[error("no agent runs on node {0}")]
    NoAgent(String),
    /// The API server refused what is needed to reach agents.
    #[error("no agent can be reached: {source}")]
    Cluster {
        /// What was asked, and what the server said.
        source: Box<stillpoint_objects::Error>,
    },
    /// The agent does not answer, or refuses.
    #[error("cannot reach the agent on node {node}: {reason}")]
    Unreachable {
        /// The node.
        node: String,
        /// Why.
        reason: String,
    },
}

/// How to get to agents.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Way {
    /// Through the API server, from anywhere.
    PortForward,
    /// By their addresses, from within the cluster's network.
    Direct,
}

/// Where agents are.
#[derive(Clone)]
pub enum Agents {
    /// On the nodes of a cluster, where they are looked for once a volume is to be copied.
    Cluster {
        /// A client whose answers may be silent for long.
        client: Client,
        /// The namespace that they were installed in.
        namespace: String,
        /// How to get to them.
        way: Way,
    },
    /// In this very process, for the node that it runs on.
    Local(Arc<Node>),
}

/// Agents that can be spoken to.
pub(crate) enum Found {
    /// On the nodes of a cluster.
    Cluster(Box<ClusterAgents>),
    /// In this very process.
    Local(Arc<Node>),
}

/// The agents of a cluster.
pub(crate) struct ClusterAgents {
    client: Client,
    namespace: String,
    way: Way,
    by_node: BTreeMap<String, Pod>,
    authority: Certificate,
    token: String,
}

impl Agents {
    /// Looks for them.
    ///
    /// # Errors
    /// [`AgentError::NotInstalled`], or the API server refuses.
    pub(crate) async fn find(&self) -> Result<Found, AgentError> {
        let (client, namespace, way) = match self {
            Self::Local(node) => return Ok(Found::Local(node.clone())),
            Self::Cluster { client, namespace, way } => (client.clone(), namespace.as_str(), *way),
        };
        // the client waits for ever
        let retry = Retry::default().brief();
        let refused = |source| AgentError::Cluster { source: Box::new(source) };
        let absent =
            |reason: &str| AgentError::NotInstalled { namespace: namespace.to_owned(), reason: reason.to_owned() };
        let maps: Api<ConfigMap> = Api::namespaced(client.clone(), namespace);
        let authority = retry.call("read the agents' certificate authority", || maps.get_opt(AUTHORITY)).await;
        let authority = authority.map_err(refused)?;
        let authority = authority.and_then(|map| map.data?.remove(AUTHORITY_KEY));
        let authority = authority.ok_or_else(|| absent("its certificate authority is not there"))?;
        let pods: Api<Pod> = Api::namespaced(client.clone(), namespace);
        let labelled = ListParams::default().labels(AGENT_LABELS);
        let pods = retry.call("list the agents", || pods.list(&labelled)).await.map_err(refused)?;
        let by_node: BTreeMap<_, _> = pods
            .items
            .into_iter()
            .filter(is_ready)
            .filter_map(|pod| Some((pod.spec.as_ref()?.node_name.clone()?, pod)))
            .collect();
        if by_node.is_empty() {
            return Err(absent("no agent is ready"));
        }
        let accounts: Api<ServiceAccount> = Api::namespaced(client.clone(), namespace);
        let spec = TokenRequestSpec {
            audiences: Some(vec![AUDIENCE.to_owned()]),
            expiration_seconds: Some(TOKEN_SECONDS),
            bound_object_ref: None,
        };
        let request = TokenRequest { spec: Some(spec), ..TokenRequest::default() };
        let params = PostParams::default();
        let made = retry
            .call("get a token for the agents", || accounts.create_token_request(CLIENT_ACCOUNT, &params, &request));
        let token = made.await.map_err(refused)?.status.and_then(|status| status.token);
        let token = token.ok_or_else(|| absent("the API server made no token for them"))?;
        let (namespace, authority) = (namespace.to_owned(), Certificate::from_pem(authority));
        Ok(Found::Cluster(Box::new(ClusterAgents { client, namespace, way, by_node, authority, token })))
    }
}

impl Found {
    /// Opens a session with the agent of a node.
    ///
    /// # Errors
    /// There is none, or it cannot be reached.
    pub(crate) async fn link(&self, node: &str) -> Result<Link, AgentError> {
        let (requests, queue) = mpsc::channel(WAITING);
        let queue = ReceiverStream::new(queue);
        match self {
            Self::Local(local) if local.name() == node => {
                let answers = local.session(tokio_stream::StreamExt::map(queue, Ok));
                Ok(Link::start(node.to_owned(), requests, answers))
            }
            Self::Local(_) => Err(AgentError::NoAgent(node.to_owned())),
            Self::Cluster(agents) => {
                let channel = agents.connect(node).await?;
                let mut agent = NodeClient::new(channel);
                let answers = agents.within(node, ADMIT, agent.cut(agents.authorised(queue))).await?;
                let answers = answers.map_err(|status| agents.unreachable(node, why(&status)))?;
                Ok(Link::start(node.to_owned(), requests, answers.into_inner()))
            }
        }
    }
}

impl ClusterAgents {
    /// The nodes that an agent runs on.
    pub(crate) fn nodes(&self) -> impl Iterator<Item = &str> {
        self.by_node.keys().map(String::as_str)
    }

    /// What the agent of a node says of itself.
    pub(crate) async fn describe(&self, node: &str) -> Result<DescribeAnswer, AgentError> {
        let mut agent = NodeClient::new(self.connect(node).await?);
        let asked = self.within(node, ADMIT, agent.describe(self.authorised(DescribeRequest {}))).await?;
        Ok(asked.map_err(|status| self.unreachable(node, why(&status)))?.into_inner())
    }

    async fn within<T>(
        &self,
        node: &str,
        patience: Duration,
        answer: impl Future<Output = T>,
    ) -> Result<T, AgentError> {
        let late = |_| self.unreachable(node, format!("no answer within {} s", patience.as_secs()));
        time::timeout(patience, answer).await.map_err(late)
    }

    fn authorised<T>(&self, message: T) -> Request<T> {
        let mut request = Request::new(message);
        // a token is ASCII by its own rules
        if let Ok(mut value) = MetadataValue::try_from(format!("Bearer {}", self.token)) {
            value.set_sensitive(true);
            request.metadata_mut().insert("authorization", value);
        }
        request
    }

    fn unreachable(&self, node: &str, reason: impl Into<String>) -> AgentError {
        AgentError::Unreachable { node: node.to_owned(), reason: reason.into() }
    }

    async fn connect(&self, node: &str) -> Result<Channel, AgentError> {
        let pod = self.by_node.get(node).ok_or_else(|| AgentError::NoAgent(node.to_owned()))?;
        let name = server_name(&self.namespace);
        let tls = ClientTlsConfig::new().ca_certificate(self.authority.clone()).domain_name(&name);
        let endpoint = Endpoint::from_shared(format!("https://{name}:{PORT}"))
            .map(|endpoint| endpoint.connect_timeout(CONNECT).tcp_nodelay(true))
            .map(|endpoint| endpoint.http2_keep_alive_interval(PROBE).keep_alive_timeout(PROBED))
            .and_then(|endpoint| endpoint.tls_config(tls))
            .map_err(|error| self.unreachable(node, words(&error)))?;
        let stream = self.within(node, CONNECT, self.stream(pod)).await?;
        let stream = stream.map_err(|error| self.unreachable(node, error.to_string()))?;
        let mut once = Some(stream);
        let connector = tower::service_fn(move |_: http::Uri| {
            let stream = once.take().map(TokioIo::new).ok_or_else(|| std::io::Error::other("the connection has ended"));
            async { stream }
        });
        let connected = self.within(node, CONNECT, endpoint.connect_with_connector(connector)).await?;
        connected.map_err(|error| self.unreachable(node, words(&error)))
    }

    async fn stream(&self, pod: &Pod) -> Result<Box<dyn Stream>, Box<dyn std::error::Error + Send + Sync>> {
        match self.way {
            Way::PortForward => {
                let pods: Api<Pod> = Api::namespaced(self.client.clone(), &self.namespace);
                let name = pod.metadata.name.as_deref().unwrap_or_default();
                let mut forwarder = pods.portforward(name, &[PORT]).await?;
                let stream = forwarder.take_stream(PORT).ok_or("the API server forwards nothing")?;
                // its task ends with the stream
                Ok(Box::new(stream))
            }
            Way::Direct => {
                let address =
                    pod.status.as_ref().and_then(|status| status.pod_ip.clone()).ok_or("it has no address")?;
                Ok(Box::new(TcpStream::connect((address.as_str(), PORT)).await?))
            }
        }
    }
}

/// A connection of any kind.
trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Stream for T {}

fn is_ready(pod: &Pod) -> bool {
    let conditions = pod.status.as_ref().and_then(|status| status.conditions.as_ref());
    conditions.into_iter().flatten().any(|condition| condition.type_ == "Ready" && condition.status == "True")
}

/// An error with its causes: the outermost alone says "transport error".
fn words(error: &(dyn std::error::Error + 'static)) -> String {
    causes(error).map(ToString::to_string).collect::<Vec<_>>().join(": ")
}
