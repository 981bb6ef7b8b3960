//! The agent's door: gRPC over TLS, for whoever holds a token that the API server made for it.
//!
//! There is no way in without both. A token is reviewed by the API server, which alone knows whether it still holds, and
//! taken only from the one account that the installation made for this.

use std::{net::SocketAddr, pin::Pin, sync::Arc, time::Duration};

use futures::Stream;
use k8s_openapi::api::authentication::v1::{TokenReview, TokenReviewSpec};
use kube::{Api, Client, api::PostParams};
use stillpoint_api::installation::{AUDIENCE, CLIENT_ACCOUNT};
use tokio::time;
use tokio_util::sync::CancellationToken;
use tonic::{
    Request, Response, Status, Streaming,
    transport::{Identity, ServerTlsConfig},
};

use super::{
    Node,
    lease::{PROBE, PROBED},
    wire::{
        CutAnswer, CutRequest, DescribeAnswer, DescribeRequest,
        node_server::{Node as Service, NodeServer},
    },
};

/// How long the API server may take to review a token. Shorter than a caller waits, so that it hears whose fault it is.
const REVIEW: Duration = Duration::from_secs(15);

/// The certificate and key that the agent shows, PEM.
pub struct Tls {
    /// The certificate, with those that signed it.
    pub certificate: Vec<u8>,
    /// Its key.
    pub key: Vec<u8>,
}

/// Why an agent does not serve.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// The certificate or the key is none.
    #[error("the certificate or its key cannot be used: {0}")]
    Tls(tonic::transport::Error),
    /// It cannot listen, or the server failed.
    #[error("cannot serve on {address}: {source}")]
    Serve {
        /// Where.
        address: SocketAddr,
        /// Why.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
}

/// An agent's door.
pub struct Server {
    node: Arc<Node>,
    client: Client,
    /// Whose tokens are taken.
    caller: String,
}

impl Server {
    /// The door of `node`; the account whose tokens it takes is in `namespace`, and `client` reviews them.
    pub fn new(node: Arc<Node>, client: Client, namespace: &str) -> Self {
        Self { node, client, caller: format!("system:serviceaccount:{namespace}:{CLIENT_ACCOUNT}") }
    }

    /// Serves until `end`, then until every session has released and cleaned up.
    ///
    /// # Errors
    /// [`ServeError`].
    pub async fn serve(self, address: SocketAddr, tls: Tls, end: CancellationToken) -> Result<(), ServeError> {
        let node = self.node.clone();
        let identity = Identity::from_pem(tls.certificate, tls.key);
        let served = tonic::transport::Server::builder()
            .tls_config(ServerTlsConfig::new().identity(identity))
            .map_err(ServeError::Tls)?
            .tcp_nodelay(true)
            .http2_keepalive_interval(Some(PROBE))
            .http2_keepalive_timeout(Some(PROBED))
            .add_service(NodeServer::new(self))
            .serve_with_shutdown(address, end.cancelled_owned())
            .await;
        node.ended().await;
        served.map_err(|error| ServeError::Serve { address, source: error.into() })
    }

    /// Whether the caller may ask for anything.
    async fn admit<T>(&self, request: &Request<T>) -> Result<(), Status> {
        let header = request.metadata().get("authorization").and_then(|value| value.to_str().ok());
        let token = header.and_then(|value| value.strip_prefix("Bearer "));
        let token = token.ok_or_else(|| Status::unauthenticated("a token is missing"))?.to_owned();
        let spec = TokenReviewSpec { audiences: Some(vec![AUDIENCE.to_owned()]), token };
        let review = TokenReview { spec, ..TokenReview::default() };
        let (reviews, params) = (Api::<TokenReview>::all(self.client.clone()), PostParams::default());
        let unreviewed = |why: String| {
            tracing::warn!(why, "a token cannot be reviewed");
            Status::unavailable(format!("it cannot have the token reviewed by the API server: {why}"))
        };
        let reviewed = time::timeout(REVIEW, reviews.create(&params, &review)).await;
        let reviewed = reviewed
            .map_err(|_| unreviewed(format!("no answer within {} s; check its way there", REVIEW.as_secs())))?;
        let refused = |error| unreviewed(stillpoint_objects::Error::from_kube("review it", error).to_string());
        let status = reviewed.map_err(refused)?.status.unwrap_or_default();
        let for_us = status.audiences.iter().flatten().any(|audience| audience == AUDIENCE);
        let user = status.user.and_then(|user| user.username).unwrap_or_default();
        if status.authenticated == Some(true) && for_us && user == self.caller {
            return Ok(());
        }
        tracing::warn!(user, "a caller was refused");
        Err(Status::permission_denied("this token is not one that this agent takes"))
    }
}

#[tonic::async_trait]
impl Service for Server {
    type CutStream = Pin<Box<dyn Stream<Item = Result<CutAnswer, Status>> + Send>>;

    async fn cut(&self, request: Request<Streaming<CutRequest>>) -> Result<Response<Self::CutStream>, Status> {
        self.admit(&request).await?;
        Ok(Response::new(Box::pin(self.node.session(request.into_inner()))))
    }

    async fn describe(&self, request: Request<DescribeRequest>) -> Result<Response<DescribeAnswer>, Status> {
        self.admit(&request).await?;
        Ok(Response::new(self.node.describe()))
    }
}
