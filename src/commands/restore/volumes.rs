//! How claims are filled.

use std::collections::BTreeMap;

use anyhow::Context;
use clap::Args;
use stillpoint_restore::{Plan, fill::Filling};
use tokio_util::sync::CancellationToken;

use super::{CreateArgs, mapping};
use crate::{
    args::UsageError,
    helpers::{self, HelperArgs},
    installation::Agents,
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
    #[command(flatten)]
    helpers: HelperArgs,
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
        let found = self
            .helpers
            .agents(client)
            .await
            .context("the image of the pods that fill claims is not known: give --helper-image")?;
        let Agents { image, host_network } = found.ok_or_else(|| {
            UsageError(format!(
                "claims are filled by pods that run this program: {}, or restore without data by --no-volumes",
                helpers::ADVICE
            ))
        })?;
        Ok(Some(Filling {
            client: args.cluster.connect_for_streams().await?.client,
            image,
            host_network,
            access: serde_json::to_value(args.read.access_for_pods()?)
                .context("the way into the repository cannot be sent")?,
            into_existing: self.into_existing,
            patience: self.helpers.volume_timeout,
            cancel: cancel.clone(),
        }))
    }
}
