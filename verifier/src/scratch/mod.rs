//! Scratch clusters: where a backup is restored to be judged, and then thrown away.

mod control_plane;
mod error;

pub use control_plane::{ControlPlane, Programs};
pub use error::Error;

use kube::Client;

/// A client for a cluster of ours, from the kubeconfig that users get as well.
async fn client_for(kubeconfig: &str) -> Result<Client, Error> {
    let kubeconfig = kube::config::Kubeconfig::from_yaml(kubeconfig).map_err(Error::kubeconfig)?;
    let options = kube::config::KubeConfigOptions::default();
    let config = kube::Config::from_custom_kubeconfig(kubeconfig, &options).await.map_err(Error::kubeconfig)?;
    Client::try_from(config).map_err(Error::client)
}
