//! An embedded Kubernetes API server: in-process, in memory, HTTPS on loopback.
//!
//! It exists so that a restore test, a demo or a test suite has a cluster within milliseconds and with nothing to
//! install. It speaks the API as kube clients use it and refuses what it can judge; what it does not judge is listed by
//! [`not_judged`], so that no report mistakes its silence for consent.
//!
//! # What is served
//! The built-in types of Kubernetes 1.34 that can be listed (one version of each; autoscaling/v2 and events in the core
//! group only) and, at once, those of every CustomResourceDefinition in each served version. Discovery is both legacy
//! and aggregated. Lists are exact at any revision that is not compacted, with `limit` and `continue`; watches start at
//! any such revision and send bookmarks or initial events when asked. Patches are JSON patches and JSON merge patches;
//! strategic merge and apply patches are refused with 415. Of the subresources only `status` is served: `scale` is named
//! in discovery, and it, tokens, logs, exec and the like are answered 404. Bodies are JSON; neither tables nor
//! protobuf nor OpenAPI documents are produced, so that `kubectl apply` and `create -f` need `--validate=false`, and the
//! kubectl subcommands that send protobuf (`create namespace` and its like) are answered 415. `metadata.managedFields`
//! is not kept.
//!
//! # Who may use it
//! Whoever has the random bearer token in [`Server::kubeconfig`]; other users of the machine are answered 401, except
//! at `/healthz`, `/readyz` and `/livez`. The kubeconfig also holds the certificate that the server made for itself.
//!
//! # What bounds its memory
//! Present objects by [`Config::live_bytes`] (writes are refused beyond it), superseded ones by
//! [`Config::history_bytes`] and [`Config::history_revisions`] (the oldest revisions are compacted). A watcher costs one
//! batch of changes, whatever its backlog: it reads the history, and is told 410 once that is gone. A list keeps the
//! objects of its page alive while it is sent, 64 KiB of text at a time. Connections are at most 1024, bodies 3 MiB.
//!
//! # Example
//! ```no_run
//! # async fn example() -> Result<(), stillpoint_apiserver::Error> {
//! use stillpoint_apiserver::{Config, Server};
//!
//! let server = Server::start(Config::default()).await?;
//! let kubeconfig = server.kubeconfig();
//! server.shutdown().await;
//! # Ok(())
//! # }
//! ```
#![cfg_attr(test, allow(clippy::unwrap_used))]

mod api;
mod config;
mod crd;
mod discovery;
mod draft;
mod handler;
mod lifecycle;
mod list;
mod params;
mod patch;
mod refusal;
mod registry;
mod selector;
mod serve;
mod store;
mod tls;
mod types;
mod validate;
mod watch;
mod write;

use std::{
    fmt, io,
    net::SocketAddr,
    sync::{Arc, Mutex},
    time::Duration,
};

use api::Api;
use base64::{Engine as _, engine::general_purpose::STANDARD};
pub use config::Config;
use registry::Registry;
use serde_json::json;
use store::{FutureRevision, Limits, Store};
pub use tls::TlsError;
use tokio::{net::TcpListener, sync::Notify, task::JoinSet};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

/// How long requests at hand may take to finish at shutdown.
const SHUTDOWN_DEADLINE: Duration = Duration::from_secs(5);

/// Why the server could not do what its owner asked.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The address is taken or not allowed.
    #[error("the embedded API server cannot listen on {address}; choose another address or port 0")]
    Listen {
        /// The address that was asked for.
        address: SocketAddr,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// The server's certificate could not be made.
    #[error("the embedded API server has no certificate")]
    Tls(#[from] TlsError),
    /// The objects of an empty cluster were refused: the bounds in [`Config`] are too small.
    #[error("the first namespaces were refused, raise the embedded API server's memory bounds: {0}")]
    FirstObjects(String),
    /// A compaction named a revision that does not exist yet.
    #[error("revision {revision} cannot be compacted, the newest is {current}")]
    FutureRevision {
        /// The revision that was asked for.
        revision: u64,
        /// The newest revision.
        current: u64,
    },
}

/// A running server; dropping it stops it at once.
pub struct Server {
    api: Arc<Api>,
    address: SocketAddr,
    /// The server's own certificate, in PEM.
    certificate: String,
    tasks: JoinSet<()>,
}

// its credentials must not reach a log
impl fmt::Debug for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Server").field("address", &self.address).finish_non_exhaustive()
    }
}

impl Server {
    /// Starts a server with an empty cluster's namespaces, on the current tokio runtime.
    ///
    /// # Errors
    /// [`Error::Listen`] if the address is not available, [`Error::Tls`] if no certificate can be made,
    /// [`Error::FirstObjects`] if the bounds leave no room.
    pub async fn start(config: Config) -> Result<Self, Error> {
        let address = config.bind;
        let listen = |source| Error::Listen { address, source };
        let listener = TcpListener::bind(address).await.map_err(listen)?;
        let address = listener.local_addr().map_err(listen)?;
        let tls::Identity { certificate, acceptor } = tls::identity(address.ip())?;
        let api = Arc::new(new_api(config));
        lifecycle::furnish_cluster(&api).map_err(|refusal| Error::FirstObjects(refusal.to_string()))?;
        let mut tasks = JoinSet::new();
        tasks.spawn(lifecycle::run(Arc::clone(&api)));
        let router = handler::router(Arc::clone(&api));
        tasks.spawn(serve::serve(listener, acceptor, router, api.stop.clone()));
        Ok(Self { api, address, certificate, tasks })
    }

    /// The server's URL, such as `https://127.0.0.1:41234`.
    #[must_use]
    pub fn url(&self) -> String {
        format!("https://{}", self.address)
    }

    /// The bearer token that every request but a probe must carry.
    #[must_use]
    pub fn token(&self) -> &str {
        &self.api.token
    }

    /// A kubeconfig that kube clients and kubectl accept (JSON, which is YAML too). It holds the token: keep it private.
    #[must_use]
    pub fn kubeconfig(&self) -> String {
        let name = "stillpoint-embedded";
        let authority = STANDARD.encode(&self.certificate);
        let cluster = json!({"server": self.url(), "certificate-authority-data": authority});
        json!({
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [{"name": name, "cluster": cluster}],
            "users": [{"name": name, "user": {"token": self.token()}}],
            "contexts": [{"name": name, "context": {"cluster": name, "user": name, "namespace": "default"}}],
            "current-context": name,
        })
        .to_string()
    }

    /// The revision of the last write.
    #[must_use]
    pub fn revision(&self) -> u64 {
        self.api.store.revision()
    }

    /// Forgets the history below `revision`; lists and watches from there are answered 410 Expired from now on.
    ///
    /// # Errors
    /// [`Error::FutureRevision`] if `revision` does not exist yet.
    pub fn compact(&self, revision: u64) -> Result<(), Error> {
        let compacted = self.api.store.compact(revision);
        compacted.map_err(|FutureRevision { current }| Error::FutureRevision { revision, current })
    }

    /// Ends watches, lets the requests at hand finish for up to five seconds, and stops.
    pub async fn shutdown(mut self) {
        self.api.stop.cancel();
        let ended = async { while self.tasks.join_next().await.is_some() {} };
        if tokio::time::timeout(SHUTDOWN_DEADLINE, ended).await.is_err() {
            tracing::warn!("connections to the embedded API server were cut at its shutdown");
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.api.stop.cancel();
    }
}

fn new_api(config: Config) -> Api {
    let limits = Limits {
        history_revisions: config.history_revisions,
        history_bytes: config.history_bytes,
        live_bytes: config.live_bytes,
    };
    Api {
        store: Store::new(limits),
        registry: Registry::new(),
        crd_writes: Mutex::new(()),
        lifecycle: Notify::new(),
        token: format!("{}{}", Uuid::new_v4().simple(), Uuid::new_v4().simple()),
        kubernetes_version: config.kubernetes_version,
        bookmark_interval: config.bookmark_interval,
        stop: CancellationToken::new(),
    }
}

/// What this server accepts without judging it, in words for a report.
#[must_use]
pub fn not_judged() -> &'static [&'static str] {
    &[
        "schemas of built-in types beyond a few rules: unknown fields and wrong values are accepted",
        "schemas and validation rules of custom resources",
        "defaulting of fields other than those that the server itself keeps",
        "admission: webhooks, admission policies, quotas, limit ranges, pod security, finalizers that admission adds",
        "authorization: the one token may do everything",
        "controllers: garbage collection of owned objects, workloads, endpoints, volume binding",
        "propagation policies of deletions",
        "conversion between versions of a custom resource other than by apiVersion",
        "field ownership (server-side apply)",
        "allocation: cluster IPs, node ports",
        "aggregated APIs: an APIService is stored and nothing is served for it",
    ]
}
