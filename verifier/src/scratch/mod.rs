//! Scratch clusters: where a backup is restored to be judged, and then thrown away.
//!
//! An enum rather than a trait: the kinds are few and known here, and a restore test asks each for
//! the same handful of things.

mod control_plane;
mod embedded;
mod error;

pub use control_plane::{ControlPlane, Programs};
pub use embedded::Embedded;
pub use error::Error;
use kube::Client;
use stillpoint_api::ScratchKind;

/// A running cluster that nobody else uses. Whatever ends it, [`shutdown`](Self::shutdown), a drop
/// or the death of this process, nothing of it stays behind running.
#[derive(Debug)]
pub enum ScratchCluster {
    /// The embedded API server of this process.
    Embedded(Embedded),
    /// etcd and the real API server, as processes on loopback.
    ControlPlane(Box<ControlPlane>),
}

impl ScratchCluster {
    /// Starts a scratch cluster and waits until it serves.
    ///
    /// # Errors
    /// When a program is missing, or the cluster does not serve in time; what was started is gone.
    pub async fn start(kind: ScratchKind) -> Result<Self, Error> {
        Ok(match kind {
            ScratchKind::Embedded => Self::Embedded(Embedded::start().await?),
            ScratchKind::ControlPlane => {
                let cluster = ControlPlane::start(Programs::find()?).await?;
                Self::ControlPlane(Box::new(cluster))
            }
        })
    }

    /// Which kind of scratch cluster this is.
    #[must_use]
    pub fn kind(&self) -> ScratchKind {
        match self {
            Self::Embedded(_) => ScratchKind::Embedded,
            Self::ControlPlane(_) => ScratchKind::ControlPlane,
        }
    }

    /// A client with every right on the cluster.
    #[must_use]
    pub fn client(&self) -> Client {
        match self {
            Self::Embedded(cluster) => cluster.client(),
            Self::ControlPlane(cluster) => cluster.client(),
        }
    }

    /// A kubeconfig with every right on the cluster, credentials included, as YAML.
    #[must_use]
    pub fn kubeconfig(&self) -> String {
        match self {
            Self::Embedded(cluster) => cluster.kubeconfig(),
            Self::ControlPlane(cluster) => cluster.kubeconfig().to_owned(),
        }
    }

    /// What a restore test on this cluster cannot judge, a phrase each, for its report.
    #[must_use]
    pub fn not_judged(&self) -> Vec<String> {
        let phrases = match self {
            Self::Embedded(cluster) => cluster.not_judged(),
            Self::ControlPlane(cluster) => cluster.not_judged(),
        };
        phrases.into_iter().map(str::to_owned).collect()
    }

    /// Stops the cluster and removes all of it.
    ///
    /// # Errors
    /// When something could not be stopped or removed, by name.
    pub async fn shutdown(self) -> Result<(), Error> {
        match self {
            Self::Embedded(cluster) => {
                cluster.shutdown().await;
                Ok(())
            }
            Self::ControlPlane(cluster) => cluster.shutdown().await,
        }
    }
}

/// A client for a cluster of ours, from the kubeconfig that users get as well.
async fn client_for(kubeconfig: &str) -> Result<Client, Error> {
    let kubeconfig = kube::config::Kubeconfig::from_yaml(kubeconfig).map_err(Error::kubeconfig)?;
    let options = kube::config::KubeConfigOptions::default();
    let config = kube::Config::from_custom_kubeconfig(kubeconfig, &options).await.map_err(Error::kubeconfig)?;
    Client::try_from(config).map_err(Error::client)
}
