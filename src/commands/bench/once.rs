//! One measured side of a pair, in a process of its own so that its peak memory is its own.
//!
//! The clock runs over the work only: starting the process and deriving the repository's key are left out.

use std::{path::PathBuf, time::Instant};

use anyhow::Context;
use clap::{Args, ValueEnum};
use futures::{StreamExt, TryStreamExt, stream};
use http::Request;
use kube::Client;
use serde::{Deserialize, Serialize};
use stillpoint_agent::{self as agent, BackupRequest};
use stillpoint_api::{ResourceType, Scope, VolumeIntent};
use stillpoint_objects::{discovery, retry::Retry};
use stillpoint_repository::{Password, Repository, Store};
use tokio::sync::watch;

use super::PASSWORD;
use crate::{cluster::ClusterArgs, exit::Exit, output};

/// Types that are listed at once: as many as a backup captures at once.
const CONCURRENCY: usize = 6;
/// kubectl's page size.
const PAGE: usize = 500;

#[derive(Debug, Args)]
pub(crate) struct OnceArgs {
    side: Side,
    #[arg(long)]
    repository: Option<PathBuf>,
    #[command(flatten)]
    cluster: ClusterArgs,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Side {
    List,
    Capture,
}

/// What one run came to.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Measured {
    pub(crate) seconds: f64,
    /// Objects captured; a raw list does not look.
    pub(crate) objects: u64,
    pub(crate) peak_bytes: u64,
}

pub(crate) async fn run(args: OnceArgs) -> anyhow::Result<Exit> {
    let client = args.cluster.connect().await?.client;
    let (seconds, objects) = match args.side {
        Side::List => (list(client).await?, 0),
        Side::Capture => capture(client, &args.repository.context("--repository is missing")?).await?,
    };
    let measured = Measured { seconds, objects, peak_bytes: peak_bytes()? };
    output::text(&serde_json::to_string(&measured)?)?;
    Ok(Exit::Done)
}

async fn capture(client: Client, folder: &std::path::Path) -> anyhow::Result<(f64, u64)> {
    let store = Store::from_url(&folder.to_string_lossy())?;
    let repository = Repository::open(store, &Password::new(PASSWORD)).await?;
    let scope = Scope { volumes: VolumeIntent::LeftOut, ..Scope::default() };
    let request = BackupRequest { strict: true, ..BackupRequest::new("bench", "bench", scope) };
    let started = Instant::now();
    let report = agent::create(client, &repository, &request, None, watch::Sender::default()).await?;
    let objects = report.manifest.types.iter().map(|record| record.captured).sum();
    Ok((started.elapsed().as_secs_f64(), objects))
}

/// Lists every type page by page and throws the bytes away.
async fn list(client: Client) -> anyhow::Result<f64> {
    let started = Instant::now();
    let served = discovery::discover(&client, &Retry::default()).await?.types;
    let listable = served.into_iter().filter(|served| served.verbs.list).map(|served| served.resource);
    let lists = stream::iter(listable).map(|resource| list_type(&client, resource)).buffer_unordered(CONCURRENCY);
    lists.try_collect::<()>().await?;
    Ok(started.elapsed().as_secs_f64())
}

async fn list_type(client: &Client, resource: ResourceType) -> anyhow::Result<()> {
    #[derive(Deserialize)]
    struct Page {
        metadata: PageMeta,
    }
    #[derive(Deserialize)]
    struct PageMeta {
        #[serde(default)]
        r#continue: String,
    }
    let root = if resource.name.group.is_empty() { "api" } else { "apis" };
    let path = format!("/{root}/{}/{}?limit={PAGE}", resource.api_version(), resource.name.resource);
    let mut token = String::new();
    loop {
        let separator = if token.is_empty() { "" } else { "&continue=" };
        let request = Request::get(format!("{path}{separator}{token}")).body(Vec::new())?;
        let page: Page = serde_json::from_str(&client.request_text(request).await?)?;
        if page.metadata.r#continue.is_empty() {
            return Ok(());
        }
        token = page.metadata.r#continue.replace('+', "%2B").replace('=', "%3D");
    }
}

/// The most memory this process ever had resident, in bytes.
fn peak_bytes() -> anyhow::Result<u64> {
    let status = std::fs::read_to_string("/proc/self/status")?;
    let line =
        status.lines().find_map(|line| line.strip_prefix("VmHWM:")).context("this kernel tells no peak memory")?;
    let kibibytes: u64 = line.trim().trim_end_matches(" kB").parse()?;
    Ok(kibibytes * 1024)
}
