//! How claims are filled: the flags, and the pods that the cluster's installation suggests.

use std::{collections::BTreeMap, time::Duration};

use anyhow::Context;
use clap::Args;
use stillpoint_restore::{Plan, fill::Filling};
use tokio_util::sync::CancellationToken;

use super::{CreateArgs, mapping};
use crate::{
    args::{UsageError, duration},
    installation::{Agents, Installation},
};

#[derive(Debug, Args)]
#[command(next_help_heading = "Volumes")]
pub(super) struct VolumeArgs {
    /// Restore claims without their data
    #[arg(long, conflicts_with_all = ["into_existing", "helper_image", "helper_host_network", "volume_timeout"])]
    no_volumes: bool,
    /// Fill claims that exist too, if their volumes are empty
    #[arg(long)]
    into_existing: bool,
    /// Give claims another storage class; comma-separated
    #[arg(long, value_name = "OLD:NEW", value_delimiter = ',', value_parser = mapping)]
    storage_class_mappings: Vec<(String, String)>,
    /// The image of the pods that fill claims, with stillpoint on its PATH [default: the installed agents']
    #[arg(long, value_name = "NAME")]
    helper_image: Option<String>,
    /// Let those pods use their node's network [default: as the installed agents]
    #[arg(long)]
    helper_host_network: bool,
    /// How long a claim may take to bind and its pod to run
    #[arg(long, value_name = "DURATION", default_value = "5m", value_parser = duration)]
    volume_timeout: Duration,
}

impl VolumeArgs {
    pub(super) fn fill(&self) -> bool {
        !self.no_volumes
    }

    pub(super) fn storage_classes(&self) -> BTreeMap<String, String> {
        self.storage_class_mappings.iter().cloned().collect()
    }

    /// How the plan's claims are filled; none where there is nothing to fill.
    pub(super) async fn filling(
        &self,
        args: &CreateArgs,
        plan: &Plan,
        client: &kube::Client,
        cancel: &CancellationToken,
    ) -> anyhow::Result<Option<Filling>> {
        if plan.volumes.is_empty() {
            return Ok(None);
        }
        let Agents { image, host_network } = self.pods(client).await?;
        Ok(Some(Filling {
            client: args.cluster.connect_for_streams().await?.client,
            image,
            host_network,
            access: serde_json::to_value(args.read.access_for_pods()?)
                .context("the way into the repository cannot be sent")?,
            into_existing: self.into_existing,
            patience: self.volume_timeout,
            cancel: cancel.clone(),
        }))
    }

    async fn pods(&self, client: &kube::Client) -> anyhow::Result<Agents> {
        if let Some(image) = self.helper_image.clone() {
            return Ok(Agents { image, host_network: self.helper_host_network });
        }
        let agents = Installation::new(client.clone()).agents().await;
        let agents = agents.context("the image of the pods that fill claims is not known: give --helper-image")?;
        let agents = agents.ok_or_else(|| {
            UsageError(
                "claims are filled by pods that run this program: run stillpoint install first, give --helper-image, or \
                 restore without data by --no-volumes"
                    .to_owned(),
            )
        })?;
        Ok(Agents { host_network: agents.host_network || self.helper_host_network, ..agents })
    }
}
