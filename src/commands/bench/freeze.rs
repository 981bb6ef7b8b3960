//! `stillpoint bench freeze`: how long filesystems would stand still, and how much of that is ours.
//!
//! A window is the kernel's work (two ioctls a filesystem) and the rest, which is what a guard costs. `fsfreeze(8)` runs
//! in turns with it, so that a machine whose speed drifts slows both.

use std::{path::PathBuf, time::Duration};

use anyhow::ensure;
use clap::Args;
use serde::Serialize;
use stillpoint_hooks::guard::{Guard, Release, Stop};

use super::{Quantiles, peer, quantiles};
use crate::{
    args::OutputArgs,
    exit::Exit,
    meanwhile::{GuardArgs, duration, times},
    output,
};

pub(crate) const AFTER_HELP: &str = "\
Example:
  stillpoint bench freeze /mnt/data --rounds 100

Every round freezes all of the directories' filesystems at once and thaws them as soon as all are frozen.";

/// The kernel makes a freeze right after a thaw three times as fast: it is still prepared for it.
pub(super) const SETTLED: Duration = Duration::from_millis(300);

#[derive(Debug, Args)]
pub(crate) struct FreezeArgs {
    /// Directories whose filesystems are frozen, all at once
    #[arg(required = true, value_name = "DIR")]
    directories: Vec<PathBuf>,
    /// How often
    #[arg(long, default_value_t = 100)]
    rounds: usize,
    /// How long they stand still at most
    #[arg(long, value_parser = duration, default_value = "10s", value_name = "DURATION")]
    max: Duration,
    /// Leave fsfreeze(8) out
    #[arg(long)]
    alone: bool,
    #[command(flatten)]
    guard: GuardArgs,
    #[command(flatten)]
    output: OutputArgs,
}

/// What was measured, in milliseconds.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Measured {
    filesystems: usize,
    rounds: usize,
    /// From the first stop to the last release.
    window: Quantiles,
    /// Inside the freeze and the thaw of the slowest filesystem.
    ioctls: Quantiles,
    /// The window without them.
    rest: Quantiles,
    /// From the start of the first `fsfreeze --freeze` to the end of the last `fsfreeze --unfreeze`.
    #[serde(skip_serializing_if = "Option::is_none")]
    fsfreeze: Option<Quantiles>,
}

pub(crate) async fn run(args: FreezeArgs) -> anyhow::Result<Exit> {
    let FreezeArgs { directories, rounds, max, alone, guard, output } = args;
    ensure!(rounds > 0, "--rounds must be at least 1");
    let config = guard.config()?;
    let directories = directories.iter().map(std::path::absolute).collect::<Result<Vec<_>, _>>()?;
    let stop = Stop { freeze: directories, ..times(max) };
    let (mut releases, mut peers) = (Vec::new(), Vec::new());
    for _ in 0..rounds {
        tokio::time::sleep(SETTLED).await;
        let release = Guard::start(&config).await?.stop(&stop).await?.release().await;
        ensure!(release.whole, "a stop was not whole: {}", release.reason);
        releases.push(release);
        if !alone {
            tokio::time::sleep(SETTLED).await;
            peers.push(peer::window(&stop.freeze, "").await?);
        }
    }
    let measured = summarise(&releases, peers);
    output::print(output.output, &measured, || table(&measured))?;
    Ok(Exit::Done)
}

fn summarise(releases: &[Release], peers: Vec<f64>) -> Measured {
    let slowest = |release: &Release| {
        let times = release.targets.iter().map(|target| target.stop_ms + target.release_ms);
        times.fold(0.0, f64::max)
    };
    let of = |value: &dyn Fn(&Release) -> f64| quantiles(releases.iter().map(value).collect());
    Measured {
        filesystems: releases.first().map_or(0, |release| release.targets.len()),
        rounds: releases.len(),
        window: of(&|release| release.window_ms),
        ioctls: of(&slowest),
        rest: of(&|release| release.window_ms - slowest(release)),
        fsfreeze: (!peers.is_empty()).then(|| quantiles(peers)),
    }
}

fn table(measured: &Measured) -> String {
    let Measured { filesystems, rounds, window, ioctls, rest, fsfreeze } = measured;
    let rows = [
        ("window", Some(window)),
        ("  inside the slowest ioctls", Some(ioctls)),
        ("  the rest", Some(rest)),
        ("fsfreeze -f, fsfreeze -u", fsfreeze.as_ref()),
    ];
    let rows = rows.into_iter().filter_map(|(name, quantiles)| Some((name, quantiles?)));
    let cells =
        rows.map(|(name, Quantiles { p50, p99 })| [name.to_owned(), format!("{p50:.2} ms"), format!("{p99:.2} ms")]);
    let counted = output::counted(*filesystems as u64, "filesystem");
    format!("{counted}, {rounds} rounds\n{}", output::table(["", "P50", "P99"], cells))
}
