//! `stillpoint pause`: runs a command while the processes of cgroups stand still.
//!
//! Unlike a freeze it leaves the filesystem writable, so that a snapshot or a reflink on it can be made meanwhile.

use std::{path::PathBuf, time::Duration};

use clap::Args;
use stillpoint_hooks::guard::Stop;

use crate::{
    exit::Exit,
    meanwhile::{Meanwhile, duration, times},
};

pub(crate) const AFTER_HELP: &str = "\
Exit codes: COMMAND's own; 125 nothing was stopped and COMMAND was not run; 3 COMMAND ran, but the stop was not whole.

Example:
  stillpoint pause --cgroup /sys/fs/cgroup/db.slice --drain /mnt/db -- btrfs subvolume snapshot -r /mnt/db /mnt/db/.now

A pause ends no write in flight: --drain does. It stops heartbeats too, which is why --max is short.";

#[derive(Debug, Args)]
pub(crate) struct PauseArgs {
    /// Cgroups whose processes are paused: directories below a cgroup mount with cgroup.freeze or freezer.state
    #[arg(long = "cgroup", required = true, value_name = "DIR")]
    cgroups: Vec<PathBuf>,
    /// Directories whose filesystems are frozen and thawed once after the pause, so that writes in flight end; whoever
    /// writes there and is not paused makes the stop not whole
    #[arg(long, value_name = "DIR")]
    drain: Vec<PathBuf>,
    /// How long they stand still at most
    #[arg(long, value_parser = duration, default_value = "1s", value_name = "DURATION")]
    max: Duration,
    #[command(flatten)]
    meanwhile: Meanwhile,
}

pub(crate) async fn run(args: PauseArgs) -> anyhow::Result<Exit> {
    let PauseArgs { cgroups, drain, max, meanwhile } = args;
    let stop = Stop { pause: cgroups, drain, ..times(max) };
    meanwhile.run(stop).await
}
