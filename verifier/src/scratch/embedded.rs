//! The `embedded` scratch cluster: an API server inside this process.
//!
//! Nothing has to be installed and nothing is written to disk, and it serves within milliseconds. The price is named in
//! every report: what a real server would refuse and this one does not know of is not judged.

use std::fmt;

use kube::Client;
use stillpoint_apiserver::{Config, Server, not_judged};

use super::{Error, client_for};

/// A running embedded API server; dropping it stops it.
pub struct Embedded {
    client: Client,
    server: Server,
}

impl Embedded {
    /// Starts an empty cluster.
    ///
    /// # Errors
    /// When no port of the loopback interface can be had.
    pub async fn start() -> Result<Self, Error> {
        let server = Server::start(Config::default()).await.map_err(Error::Embedded)?;
        let client = client_for(&server.kubeconfig()).await?;
        Ok(Self { client, server })
    }

    /// A client with every right on the cluster.
    #[must_use]
    pub fn client(&self) -> Client {
        self.client.clone()
    }

    /// A kubeconfig with every right on the cluster, credentials included.
    #[must_use]
    pub fn kubeconfig(&self) -> String {
        self.server.kubeconfig()
    }

    /// What no test on this cluster can judge, a phrase each.
    #[must_use]
    pub fn not_judged(&self) -> Vec<&'static str> {
        not_judged().to_vec()
    }

    /// Lets the requests at hand finish, for seconds at most, and stops the server.
    pub async fn shutdown(self) {
        self.server.shutdown().await;
    }
}

impl fmt::Debug for Embedded {
    /// Leaves out the credentials.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Embedded").field("url", &self.server.url()).finish_non_exhaustive()
    }
}
