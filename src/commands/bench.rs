//! `stillpoint bench`: measures Stillpoint against a peer on this machine.
//!
//! Both sides run as processes of their own against the same server, in turns, so that a machine whose speed drifts
//! slows both; what is printed is the ratio of each pair.

mod cut;
mod freeze;
mod once;
mod peer;
mod volume;

use std::{
    path::{Path, PathBuf},
    process::Stdio,
    time::Duration,
};

use anyhow::{Context, bail, ensure};
use clap::{Args, Subcommand};
use futures::{StreamExt, TryStreamExt, stream};
use k8s_openapi::api::core::v1::{ConfigMap, Namespace};
use kube::{Api, Client, api::PostParams};
use serde::Serialize;
use stillpoint_repository::{Kdf, Password, Repository, Store};
use tokio::process::{Child, Command};

use self::once::Measured;
use super::scratch::Kind;
use crate::{args::OutputArgs, cluster, exit::Exit, output};

/// Namespaces that the objects are spread over.
const NAMESPACES: usize = 10;
/// Objects that are created at once.
const CREATORS: usize = 64;
/// What each object carries, in bytes.
const PAYLOAD: usize = 1024;
/// The throw-away repository's password.
const PASSWORD: &str = "bench";

#[derive(Debug, Subcommand)]
pub(crate) enum BenchCommand {
    /// Captures ConfigMaps of 1 KiB, against lists of everything whose bytes are thrown away.
    #[command(after_help = "Example:\n  stillpoint bench capture --objects 10000,100000 --scratch control-plane")]
    Capture(CaptureArgs),
    /// Takes cuts of filesystems made for it: how long writers stand still, idle and under a database's load.
    #[command(after_help = cut::AFTER_HELP)]
    Cut(cut::CutArgs),
    /// Freezes filesystems of this host again and again, in turns with fsfreeze(8).
    #[command(after_help = freeze::AFTER_HELP)]
    Freeze(freeze::FreezeArgs),
    /// Backs up and restores directories of this machine, against every restic on PATH.
    #[command(after_help = "Example:\n  stillpoint bench volume --turns 3 --folder /var/tmp")]
    Volume(volume::VolumeArgs),
    /// One measured side of a pair, in a process of its own.
    #[command(hide = true)]
    Once(once::OnceArgs),
    /// One measured program, in a process of its own.
    #[command(hide = true)]
    Child(volume::ChildArgs),
}

#[derive(Debug, Args)]
pub(crate) struct CaptureArgs {
    /// How many objects there are; several rounds, comma-separated
    #[arg(long, value_delimiter = ',', default_values_t = [10_000, 100_000])]
    objects: Vec<usize>,
    /// Pairs of runs in each round
    #[arg(long, default_value_t = 5)]
    pairs: usize,
    /// The server that is captured
    #[arg(long, value_enum, default_value_t = Kind::Embedded)]
    scratch: Kind,
    #[command(flatten)]
    output: OutputArgs,
}

/// The medians of one round.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Round {
    objects: usize,
    list_seconds: f64,
    capture_seconds: f64,
    /// The median of the ratios of the pairs, not the ratio of the medians.
    ratio: f64,
    objects_per_second: f64,
    list_peak_bytes: u64,
    capture_peak_bytes: u64,
}

pub(crate) async fn run(command: BenchCommand) -> anyhow::Result<Exit> {
    match command {
        BenchCommand::Capture(args) => capture(args).await,
        BenchCommand::Cut(args) => cut::run(args).await,
        BenchCommand::Freeze(args) => freeze::run(args).await,
        BenchCommand::Volume(args) => volume::run(args).await,
        BenchCommand::Once(args) => once::run(args).await,
        BenchCommand::Child(args) => volume::child(args),
    }
}

async fn capture(args: CaptureArgs) -> anyhow::Result<Exit> {
    ensure!(args.pairs > 0, "--pairs must be at least 1");
    let mut rounds = Vec::new();
    for objects in args.objects {
        rounds.push(round(args.scratch, objects, args.pairs).await?);
    }
    output::print(args.output.output, &rounds, || {
        let header = ["OBJECTS", "RAW LIST", "CAPTURE", "RATIO", "OBJECTS/S", "PEAK LIST", "PEAK CAPTURE"];
        output::table(header, rounds.iter().map(Round::cells))
    })?;
    Ok(Exit::Done)
}

impl Round {
    fn cells(&self) -> [String; 7] {
        [
            output::count(self.objects as u64),
            format!("{:.2} s", self.list_seconds),
            format!("{:.2} s", self.capture_seconds),
            format!("{:.2}", self.ratio),
            format!("{:.0}", self.objects_per_second),
            output::bytes(self.list_peak_bytes),
            output::bytes(self.capture_peak_bytes),
        ]
    }
}

async fn round(kind: Kind, objects: usize, pairs: usize) -> anyhow::Result<Round> {
    let folder = tempfile::tempdir()?;
    let kubeconfig = folder.path().join("kubeconfig");
    let mut server = start_server(kind, &kubeconfig).await?;
    output::note(format_args!("creating {} objects", output::count(objects as u64)));
    fill(&client(&kubeconfig).await?, objects).await?;
    let mut measured = Vec::new();
    for pair in 0..pairs {
        let listed = side(&["list"], &kubeconfig).await?;
        let store = folder.path().join(format!("repository-{pair}"));
        Repository::init(Store::from_url(&store.to_string_lossy())?, &Password::new(PASSWORD), Kdf::default()).await?;
        let captured = side(&["capture", "--repository", &store.to_string_lossy()], &kubeconfig).await?;
        output::note(format_args!(
            "pair {}: list {:.2} s, capture {:.2} s",
            pair + 1,
            listed.seconds,
            captured.seconds
        ));
        ensure!(captured.objects >= objects as u64, "only {} objects were captured", captured.objects);
        measured.push((listed, captured));
        tokio::fs::remove_dir_all(&store).await?;
    }
    server.kill().await?;
    Ok(summarise(objects, &measured))
}

fn summarise(objects: usize, measured: &[(Measured, Measured)]) -> Round {
    let of = |value: fn(&(Measured, Measured)) -> f64| median(measured.iter().map(value).collect());
    let peak = |value: fn(&(Measured, Measured)) -> u64| measured.iter().map(value).max().unwrap_or(0);
    let capture_seconds = of(|(_, capture)| capture.seconds);
    Round {
        objects,
        list_seconds: of(|(list, _)| list.seconds),
        capture_seconds,
        ratio: of(|(list, capture)| capture.seconds / list.seconds),
        objects_per_second: objects as f64 / capture_seconds,
        list_peak_bytes: peak(|(list, _)| list.peak_bytes),
        capture_peak_bytes: peak(|(_, capture)| capture.peak_bytes),
    }
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

/// Milliseconds of which half, and all but one in a hundred, are less.
#[derive(Debug, Clone, Copy, Serialize)]
struct Quantiles {
    p50: f64,
    p99: f64,
}

fn quantiles(mut values: Vec<f64>) -> Quantiles {
    values.sort_by(f64::total_cmp);
    let at = |part: usize| values[(values.len() * part / 100).min(values.len() - 1)];
    Quantiles { p50: at(50), p99: at(99) }
}

/// The server as a process of its own: its memory and its time are not ours.
async fn start_server(kind: Kind, kubeconfig: &Path) -> anyhow::Result<Child> {
    let kind = match kind {
        Kind::Embedded => "embedded",
        Kind::ControlPlane => "control-plane",
    };
    let mut server = Command::new(std::env::current_exe()?)
        .args(["scratch", "run", kind, "--kubeconfig-out"])
        .arg(kubeconfig)
        .stderr(Stdio::null())
        .kill_on_drop(true)
        .spawn()?;
    let written = async {
        while !kubeconfig.exists() {
            if let Some(status) = server.try_wait()? {
                bail!("the server ended with {status}; run `stillpoint scratch run {kind}` to see why");
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        Ok(())
    };
    tokio::time::timeout(Duration::from_secs(90), written).await.context("the server did not start")??;
    Ok(server)
}

async fn client(kubeconfig: &PathBuf) -> anyhow::Result<Client> {
    cluster::client_of(&tokio::fs::read_to_string(kubeconfig).await?).await
}

async fn fill(client: &Client, objects: usize) -> anyhow::Result<()> {
    let namespaces: Api<Namespace> = Api::all(client.clone());
    for number in 0..NAMESPACES {
        let namespace = serde_json::from_value(serde_json::json!({"metadata": {"name": namespace(number)}}))?;
        namespaces.create(&PostParams::default(), &namespace).await?;
    }
    let create = |number: usize| async move {
        let api: Api<ConfigMap> = Api::namespaced(client.clone(), &namespace(number % NAMESPACES));
        let object = serde_json::from_value(serde_json::json!({
            "metadata": {"name": format!("config-{number:07}")},
            "data": {"payload": payload(number)},
        }))?;
        api.create(&PostParams::default(), &object).await?;
        anyhow::Ok(())
    };
    stream::iter(0..objects).map(create).buffer_unordered(CREATORS).try_collect().await
}

fn namespace(number: usize) -> String {
    format!("bench-{number}")
}

/// Text that compresses about as configuration does not: every object carries other digits.
fn payload(number: usize) -> String {
    let mut state = number as u64;
    let digits = std::iter::repeat_with(|| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        format!("{:08x}", state >> 32)
    });
    digits.take(PAYLOAD / 8).collect()
}

/// Runs one side of a pair.
async fn side(arguments: &[&str], kubeconfig: &Path) -> anyhow::Result<Measured> {
    let output = Command::new(std::env::current_exe()?)
        .args(["bench", "once"])
        .args(arguments)
        .arg("--kubeconfig")
        .arg(kubeconfig)
        .stderr(Stdio::inherit())
        .kill_on_drop(true)
        .output()
        .await?;
    ensure!(output.status.success(), "the measured process ended with {}", output.status);
    serde_json::from_slice(&output.stdout).context("the measured process did not say what it measured")
}
