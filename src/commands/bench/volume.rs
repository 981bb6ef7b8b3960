//! `stillpoint bench volume`: backups and restores of directories, against restic.
//!
//! Both sides are whole processes on the same data, in turns, each with a repository of its own on the local disk: what a
//! user waits for, opening the repository and the lock's wait included.
//!
//! With a memory limit there is no other side, which might be killed by it: then the question is whether it is enough.

mod cgroup;
mod child;
mod data;
mod sides;

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

use anyhow::{Context, ensure};
use clap::Args;
use serde::Serialize;

pub(super) use self::child::ChildArgs;
use self::{
    child::Measured,
    data::{Change, Data},
    sides::Side,
};
use super::median;
use crate::{args::OutputArgs, exit::Exit, output};

#[derive(Debug, Args)]
pub(crate) struct VolumeArgs {
    /// Turns of each kind of work
    #[arg(long, default_value_t = 5)]
    turns: usize,
    /// Where data and repositories are made, and removed at the end: a few GiB [default: the temporary directory]
    #[arg(long, value_name = "DIR")]
    folder: Option<PathBuf>,
    /// MiB of the large files, half text and half random
    #[arg(long, default_value_t = 1024)]
    large: u64,
    /// How many small files there are, half text and half random
    #[arg(long, default_value_t = 50_000)]
    small: usize,
    /// Bytes of each small file
    #[arg(long, value_name = "BYTES", default_value_t = 4096)]
    small_bytes: usize,
    /// GiB of a file that is nearly all holes
    #[arg(long, value_name = "GIB", default_value_t = 0)]
    sparse: u64,
    /// Measure this program alone, each run in a cgroup that gets so many MiB of memory, page cache included, and with
    /// nothing cached before; needs root
    #[arg(long, value_name = "MIB")]
    memory_limit: Option<u64>,
    #[command(flatten)]
    output: OutputArgs,
}

/// What is done to a directory.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "camelCase")]
enum Work {
    FirstBackup,
    Unchanged,
    Changed,
    Restore,
}

impl Work {
    fn words(self) -> &'static str {
        match self {
            Self::FirstBackup => "first backup",
            Self::Unchanged => "again, unchanged",
            Self::Changed => "again, 100 files changed",
            Self::Restore => "restore",
        }
    }
}

/// One kind of work, against one peer if there is any.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Row {
    data: String,
    work: Work,
    seconds: f64,
    peak_bytes: u64,
    /// With page cache and what the kernel keeps of files and directories, where memory was limited.
    #[serde(skip_serializing_if = "Option::is_none")]
    cgroup_peak_bytes: Option<u64>,
    #[serde(flatten)]
    against: Option<Against>,
}

/// The same by another program.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Against {
    peer: String,
    peer_seconds: f64,
    /// How many times as long the peer took: the median of the turns' ratios.
    ratio: f64,
    peer_peak_bytes: u64,
}

/// Measurements of all sides, turn by turn.
type Turns = BTreeMap<Work, Vec<Vec<Measured>>>;

pub(super) async fn run(args: VolumeArgs) -> anyhow::Result<Exit> {
    let VolumeArgs { turns, folder, large, small, small_bytes, sparse, memory_limit, output } = args;
    ensure!(turns > 0, "--turns must be at least 1");
    let limit = memory_limit.map(|mebibytes| mebibytes << 20);
    let sides = if limit.is_some() { vec![Side::this()?] } else { Side::all().await? };
    ensure!(sides.len() > 1 || limit.is_some(), "there is no restic on PATH to measure against");
    let folder = tempfile::Builder::new()
        .prefix("stillpoint-bench-")
        .tempdir_in(folder.unwrap_or_else(std::env::temp_dir))
        .context("cannot make a directory for the data; name another with --folder")?;
    let mut rows = Vec::new();
    let kinds = [
        Data::Large { mebibytes: large },
        Data::Small { files: small, bytes: small_bytes },
        Data::Sparse { gibibytes: sparse },
    ];
    for data in kinds.into_iter().filter(|data| !data.is_empty()) {
        output::note(format_args!("making {}", data.words()));
        let source = folder.path().join("data");
        let make = source.clone();
        tokio::task::spawn_blocking(move || data.make(&make)).await??;
        let measured = measure(data, &source, folder.path(), &sides, (turns, limit)).await?;
        rows.extend(summarise(&data.words(), &sides, &measured));
        tokio::fs::remove_dir_all(&source).await?;
    }
    output::print(output.output, &rows, || {
        let header =
            ["DATA", "WORK", "PEER", "STILLPOINT", "PEER TOOK", "RATIO", "PEAK", "PEER'S PEAK", "CGROUP'S PEAK"];
        output::table(header, rows.iter().map(Row::cells))
    })?;
    Ok(Exit::Done)
}

async fn measure(
    data: Data,
    source: &Path,
    folder: &Path,
    sides: &[Side],
    (turns, limit): (usize, Option<u64>),
) -> anyhow::Result<Turns> {
    let mut measured = Turns::new();
    for turn in 0..turns {
        let places: Vec<_> = sides.iter().enumerate().map(|(n, _)| folder.join(format!("side-{n}"))).collect();
        for (side, place) in sides.iter().zip(&places) {
            tokio::fs::create_dir_all(place).await?;
            side.init(place).await?;
        }
        for work in data.works() {
            if *work == Work::Changed {
                let (source, change) = (source.to_owned(), Change { turn });
                tokio::task::spawn_blocking(move || data.change(&source, change)).await??;
            }
            let mut turn_of = Vec::new();
            for (side, place) in sides.iter().zip(&places) {
                settle(limit.is_some()).await?;
                let done = match work {
                    Work::Restore => side.restore(place, limit).await?,
                    _ => side.backup(place, source, limit).await?,
                };
                turn_of.push(done);
            }
            let told: Vec<_> =
                sides.iter().zip(&turn_of).map(|(side, done)| format!("{side} {:.2} s", done.seconds)).collect();
            output::note(format_args!("turn {}, {}: {}", turn + 1, work.words(), told.join(", ")));
            measured.entry(*work).or_default().push(turn_of);
        }
        for place in &places {
            tokio::fs::remove_dir_all(place).await?;
        }
    }
    Ok(measured)
}

/// What one side wrote must not slow the next one down; and whoever is limited must pay for what is cached.
async fn settle(forget: bool) -> anyhow::Result<()> {
    tokio::task::spawn_blocking(nix::unistd::sync).await?;
    if forget {
        tokio::fs::write("/proc/sys/vm/drop_caches", "3").await.context("cannot empty the caches")?;
    }
    Ok(())
}

fn summarise(data: &str, sides: &[Side], measured: &Turns) -> Vec<Row> {
    let peak = |turns: &[Vec<Measured>], n: usize| turns.iter().map(|turn| turn[n].peak_bytes).max().unwrap_or(0);
    let seconds = |turns: &[Vec<Measured>], n: usize| median(turns.iter().map(|turn| turn[n].seconds).collect());
    let against = |turns: &[Vec<Measured>], n: usize| Against {
        peer: sides[n].to_string(),
        peer_seconds: seconds(turns, n),
        ratio: median(turns.iter().map(|turn| turn[n].seconds / turn[0].seconds).collect()),
        peer_peak_bytes: peak(turns, n),
    };
    let row = |work: Work, turns: &[Vec<Measured>], peer: Option<usize>| Row {
        data: data.to_owned(),
        work,
        seconds: seconds(turns, 0),
        peak_bytes: peak(turns, 0),
        cgroup_peak_bytes: turns.iter().filter_map(|turn| turn[0].cgroup_peak_bytes).max(),
        against: peer.map(|n| against(turns, n)),
    };
    let peers: Vec<_> = if sides.len() > 1 { (1..sides.len()).map(Some).collect() } else { vec![None] };
    measured.iter().flat_map(|(work, turns)| peers.iter().map(|peer| row(*work, turns, *peer))).collect()
}

impl Row {
    fn cells(&self) -> [String; 9] {
        let against = |cell: fn(&Against) -> String| self.against.as_ref().map(cell).unwrap_or_default();
        [
            self.data.clone(),
            self.work.words().to_owned(),
            against(|against| against.peer.clone()),
            format!("{:.2} s", self.seconds),
            against(|against| format!("{:.2} s", against.peer_seconds)),
            against(|against| format!("{:.2}", against.ratio)),
            output::bytes(self.peak_bytes),
            against(|against| output::bytes(against.peer_peak_bytes)),
            self.cgroup_peak_bytes.map(output::bytes).unwrap_or_default(),
        ]
    }
}

/// Runs one side of a turn and says what it took.
pub(super) fn child(args: ChildArgs) -> anyhow::Result<Exit> {
    child::run(args)
}
