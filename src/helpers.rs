//! The helper pods that mount claims, to fill them or to copy them: the flags of both.
//!
//! They run this very program, so that the installation of the cluster knows best where its image is.

use std::time::Duration;

use clap::Args;

use crate::{
    args::duration,
    installation::{Agents, Installation},
};

/// What to do where the image is not known.
pub(crate) const ADVICE: &str = "run stillpoint install first or give --helper-image";

#[derive(Debug, Args)]
#[command(next_help_heading = "Volumes")]
pub(crate) struct HelperArgs {
    /// The image of helper pods, with stillpoint on its PATH [default: the installed agents']
    #[arg(long, value_name = "NAME")]
    helper_image: Option<String>,
    /// Let helper pods use their node's network [default: as the installed agents]
    #[arg(long)]
    helper_host_network: bool,
    /// How long a claim may take to bind and its helper pod to run
    #[arg(long, value_name = "DURATION", default_value = "5m", value_parser = duration)]
    pub(crate) volume_timeout: Duration,
}

impl HelperArgs {
    /// How the pods run; none where nobody says with which image.
    pub(crate) async fn agents(&self, client: &kube::Client) -> anyhow::Result<Option<Agents>> {
        if let Some(image) = self.helper_image.clone() {
            return Ok(Some(Agents { image, host_network: self.helper_host_network }));
        }
        let installed = Installation::new(client.clone()).agents().await?;
        let with_flag =
            |agents: Agents| Agents { host_network: agents.host_network || self.helper_host_network, ..agents };
        Ok(installed.map(with_flag))
    }
}
