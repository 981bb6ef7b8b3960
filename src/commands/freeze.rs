//! `stillpoint freeze`: runs a command while filesystems stand still.
//!
//! For whoever has no cluster: the same guard that a backup uses.

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
  stillpoint freeze /mnt/data --max 5s -- cp --reflink=always disk.img disk.copy

COMMAND must not write to what is frozen: it would wait until --max is over. The windows go to standard error.";

#[derive(Debug, Args)]
pub(crate) struct FreezeArgs {
    /// Directories whose filesystems are frozen, all at once
    #[arg(required = true, value_name = "DIR")]
    directories: Vec<PathBuf>,
    /// How long they stand still at most
    #[arg(long, value_parser = duration, default_value = "10s", value_name = "DURATION")]
    max: Duration,
    /// A cgroup to pause when a freeze does not complete, because a process of it may hold it up
    #[arg(long, value_name = "DIR")]
    rescue: Vec<PathBuf>,
    #[command(flatten)]
    meanwhile: Meanwhile,
}

pub(crate) async fn run(args: FreezeArgs) -> anyhow::Result<Exit> {
    let FreezeArgs { directories, max, rescue, meanwhile } = args;
    let stop = Stop { freeze: directories, rescue, ..times(max) };
    meanwhile.run(stop).await
}
