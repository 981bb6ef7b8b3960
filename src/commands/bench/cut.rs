//! `stillpoint bench cut`: how long writers stand still while volumes are captured, and how much of that is ours.
//!
//! Each cut is `stillpoint volume backup` as a user runs it, on filesystems made for it, so that its window is the one that
//! is promised: a stop, the copy of what is left to copy, a release. Beside it what is done without a program of this
//! kind: exec fsfreeze, exec it again, in turns with the cuts.

mod load;
mod volumes;

use std::{
    path::{Path, PathBuf},
    process::Stdio,
};

use anyhow::{Context, ensure};
use clap::{Args, ValueEnum};
use serde::{Deserialize, Serialize};
use stillpoint_hooks::guard::{Kind, Release};
use stillpoint_repository::{Kdf, Password, Repository, Store};
use tokio::process::Command;
use tokio_util::sync::CancellationToken;

use self::{
    load::{Cgroup, Load},
    volumes::Volumes,
};
use super::{PASSWORD, Quantiles, freeze::SETTLED, peer, quantiles};
use crate::{args::OutputArgs, exit::Exit, interrupt, output};

pub(crate) const AFTER_HELP: &str = "\
Examples:
  stillpoint bench cut --cuts 100
  stillpoint bench cut --volumes 4 --folder /var/tmp/bench --exec 'kubectl exec bench --'

As root: filesystems are made in files, ext4 to be frozen and xfs to be paused and cloned. Under load pgbench writes to the
first of them, where PostgreSQL is installed, else a shell.
--exec measures fsfreeze in a pod: a privileged one that has --folder at the same path, with mountPropagation
HostToContainer. Without it fsfreeze runs here, which costs less than in any pod.";

#[derive(Debug, Args)]
pub(crate) struct CutArgs {
    /// Cuts of each kind
    #[arg(long, default_value_t = 100)]
    cuts: usize,
    /// How many volumes are cut at once; several rounds, comma-separated
    #[arg(long, value_delimiter = ',', default_values_t = [1, 4, 16])]
    volumes: Vec<usize>,
    /// How writers are stopped; several rounds, comma-separated
    #[arg(long, value_enum, value_delimiter = ',', default_values_t = [Way::Freeze, Way::Pause])]
    stop: Vec<Way>,
    /// Where volumes and the repository are made, and removed at the end [default: the temporary directory]
    #[arg(long, value_name = "DIR")]
    folder: Option<PathBuf>,
    /// What runs fsfreeze where a user would run it, in a pod
    #[arg(long, value_name = "COMMAND", default_value = "")]
    exec: String,
    #[command(flatten)]
    output: OutputArgs,
}

/// How writers are stopped.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, ValueEnum)]
#[serde(rename_all = "camelCase")]
enum Way {
    /// ext4, frozen.
    Freeze,
    /// xfs, paused and cloned.
    Pause,
}

/// What was measured, in milliseconds.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Round {
    volumes: usize,
    stopped_by: Way,
    load: &'static str,
    cuts: usize,
    /// From the first stop to the last release.
    window: Quantiles,
    /// Inside the kernel's calls, for whatever took longest.
    kernel: Quantiles,
    /// The window without them.
    ours: Quantiles,
    /// Of ours, the copy that took longest.
    copy: Quantiles,
    /// From the start of the first `fsfreeze --freeze` to the end of the last `fsfreeze --unfreeze`, and nothing copied
    /// between.
    #[serde(skip_serializing_if = "Option::is_none")]
    fsfreeze: Option<Quantiles>,
}

/// What is read of a backup's report.
#[derive(Debug, Deserialize)]
struct Told {
    cut: Cut,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Cut {
    window_ms: f64,
    release: Release,
    directories: Vec<Directory>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Directory {
    captured_ms: f64,
}

impl Cut {
    /// All of a kind stand still at once: the slowest is waited for. A drain comes after the pause.
    fn kernel(&self) -> f64 {
        let slowest = |kind: Kind| {
            let targets = self.release.targets.iter().filter(|target| target.kind == kind);
            targets.map(|target| target.stop_ms + target.release_ms).fold(0.0, f64::max)
        };
        [Kind::Freeze, Kind::Pause, Kind::Drain].map(slowest).iter().sum()
    }

    fn copy(&self) -> f64 {
        self.directories.iter().map(|directory| directory.captured_ms).fold(0.0, f64::max)
    }
}

pub(super) async fn run(args: CutArgs) -> anyhow::Result<Exit> {
    let CutArgs { cuts, volumes, stop, folder, exec, output } = args;
    ensure!(cuts > 0 && volumes.iter().all(|volumes| *volumes > 0), "--cuts and --volumes must be at least 1");
    let folder = tempfile::Builder::new()
        .prefix("stillpoint-bench-")
        .tempdir_in(folder.unwrap_or_else(std::env::temp_dir))
        .context("cannot make a directory for the volumes; name another with --folder")?;
    if exec.is_empty() {
        output::note("fsfreeze runs on this host, which stands for an exec into a pod and costs less");
    }
    // mounts and processes end with what holds them
    let cancel = CancellationToken::new();
    let rounds = interrupt::unless(&cancel, measure(folder.path(), (&volumes, &stop), cuts, &exec));
    let rounds = interrupt::cancelling(&cancel, Box::pin(rounds)).await??;
    output::print(output.output, &rounds, || {
        let header = [
            "VOLUMES",
            "STOP",
            "LOAD",
            "WINDOW P50",
            "P99",
            "KERNEL P50",
            "P99",
            "OURS P50",
            "P99",
            "COPY P50",
            "P99",
            "FSFREEZE P50",
            "P99",
        ];
        output::table(header, rounds.iter().map(Round::cells))
    })?;
    Ok(Exit::Done)
}

async fn measure(
    folder: &Path,
    (volumes, stops): (&[usize], &[Way]),
    cuts: usize,
    exec: &str,
) -> anyhow::Result<Vec<Round>> {
    let mut rounds = Vec::new();
    for &count in volumes {
        for &way in stops {
            let place = folder.join(format!("{way:?}-{count}"));
            let made = tokio::task::spawn_blocking(move || Volumes::make(&place, way.filesystem(), count)).await??;
            for loaded in [false, true] {
                rounds.push(round(&made, way, loaded, cuts, exec).await?);
            }
        }
    }
    Ok(rounds)
}

impl Way {
    /// A pause leaves the copy to clones.
    fn filesystem(self) -> &'static str {
        match self {
            Self::Freeze => "ext4",
            Self::Pause => "xfs",
        }
    }
}

impl Round {
    fn cells(&self) -> [String; 13] {
        let Self { volumes, stopped_by, load, cuts: _, window, kernel, ours, copy, fsfreeze } = self;
        let ms = |value: f64| format!("{value:.1} ms");
        let [peer50, peer99] = fsfreeze.map_or_else(Default::default, |peer| [ms(peer.p50), ms(peer.p99)]);
        let stop = match stopped_by {
            Way::Freeze => "freeze",
            Way::Pause => "pause",
        };
        [
            volumes.to_string(),
            stop.to_owned(),
            (*load).to_owned(),
            ms(window.p50),
            ms(window.p99),
            ms(kernel.p50),
            ms(kernel.p99),
            ms(ours.p50),
            ms(ours.p99),
            ms(copy.p50),
            ms(copy.p99),
            peer50,
            peer99,
        ]
    }
}

async fn round(volumes: &Volumes, way: Way, loaded: bool, cuts: usize, exec: &str) -> anyhow::Result<Round> {
    let (count, place) = (volumes.directories().len(), volumes.folder().join("store"));
    let password = Password::new(PASSWORD);
    Repository::init(Store::from_url(&place.to_string_lossy())?, &password, Kdf::default()).await?;
    let cgroup = Cgroup::make()?;
    let mut load = if loaded { Load::start(&volumes.directories()[0], &cgroup).await? } else { Load::idle(&cgroup)? };
    output::note(format_args!("{way:?}, {}, {}", output::counted(count as u64, "volume"), load.words()));
    let (mut taken, mut peers) = (Vec::new(), Vec::new());
    for _ in 0..cuts {
        load.goes_on()?;
        tokio::time::sleep(SETTLED).await;
        taken.push(cut(volumes, way, &place, cgroup.path()).await?);
        if way == Way::Freeze {
            tokio::time::sleep(SETTLED).await;
            peers.push(peer::window(volumes.directories(), exec).await?);
        }
    }
    let words = load.words();
    load.end().await?;
    tokio::fs::remove_dir_all(&place).await?;
    let of = |value: fn(&Cut) -> f64| quantiles(taken.iter().map(value).collect());
    Ok(Round {
        volumes: count,
        stopped_by: way,
        load: words,
        cuts,
        window: of(|cut| cut.window_ms),
        kernel: of(Cut::kernel),
        ours: of(|cut| cut.window_ms - cut.kernel()),
        copy: of(Cut::copy),
        fsfreeze: (!peers.is_empty()).then(|| quantiles(peers)),
    })
}

/// One cut, by the program as a user runs it.
async fn cut(volumes: &Volumes, way: Way, repository: &Path, cgroup: &Path) -> anyhow::Result<Cut> {
    let mut command = Command::new(std::env::current_exe()?);
    command.args(["volume", "backup", "bench", "-o", "json"]).env("STILLPOINT_PASSWORD", PASSWORD);
    command.env("STILLPOINT_REPO", repository).env("STILLPOINT_JOURNAL", volumes.folder().join("journal"));
    for directory in volumes.directories() {
        command.arg("--path").arg(directory);
    }
    match way {
        Way::Freeze => command.arg("--freeze"),
        Way::Pause => command.args(["--method", "reflink", "--max", "10s", "--pause-cgroup"]).arg(cgroup),
    };
    let done = command.stdin(Stdio::null()).stderr(Stdio::inherit()).kill_on_drop(true).output().await?;
    ensure!(done.status.success(), "a backup ended with {}: {}", done.status, String::from_utf8_lossy(&done.stdout));
    let told: Told = serde_json::from_slice(&done.stdout).context("a backup did not say how long its window was")?;
    Ok(told.cut)
}
