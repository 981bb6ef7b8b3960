//! What asks an API server, asked of two: the embedded one, and a real kube-apiserver where there is one.
//!
//! The suite is the same for both, so that neither can be good for the tests alone.
#![allow(clippy::unwrap_used)]

use kube::{
    Client, Config,
    config::{KubeConfigOptions, Kubeconfig},
};

mod cluster;
mod embedded;
mod round_trip;
mod suite;

/// A client for a kubeconfig's text, optionally as another user.
async fn client(kubeconfig: &str, user: Option<&str>) -> Client {
    let kubeconfig = Kubeconfig::from_yaml(kubeconfig).unwrap();
    let mut config = Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default()).await.unwrap();
    config.default_retry = false;
    config.auth_info.impersonate = user.map(str::to_owned);
    Client::try_from(config).unwrap()
}
