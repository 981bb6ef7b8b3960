//! One measured program, run by a process of its own that has no other child.
//!
//! The kernel tells the peak memory of children only for all of them together.

use std::{
    ffi::OsString,
    path::PathBuf,
    process::{Command, Stdio},
    time::Instant,
};

use anyhow::{Context, ensure};
use clap::Args;
use nix::sys::resource::{UsageWho, getrusage};
use serde::{Deserialize, Serialize};

use super::cgroup;
use crate::{exit::Exit, output};

#[derive(Debug, Args)]
pub(crate) struct ChildArgs {
    /// The cgroup to run it in
    #[arg(long)]
    cgroup: Option<PathBuf>,
    #[arg(trailing_var_arg = true, allow_hyphen_values = true, required = true)]
    command: Vec<OsString>,
}

/// What a program took.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Measured {
    pub(super) seconds: f64,
    pub(super) peak_bytes: u64,
    /// Of the cgroup, if it ran in one.
    #[serde(default)]
    pub(super) cgroup_peak_bytes: Option<u64>,
}

pub(super) fn run(args: ChildArgs) -> anyhow::Result<Exit> {
    let (program, arguments) = args.command.split_first().context("there is no command")?;
    if let Some(folder) = &args.cgroup {
        cgroup::enter(folder).with_context(|| format!("cannot enter the cgroup {}", folder.display()))?;
    }
    let started = Instant::now();
    let status = Command::new(program)
        .args(arguments)
        .stdout(Stdio::null())
        .status()
        .with_context(|| format!("cannot run {}", program.display()))?;
    let seconds = started.elapsed().as_secs_f64();
    ensure!(status.success(), "{} ended with {status}", program.display());
    let kibibytes = u64::try_from(getrusage(UsageWho::RUSAGE_CHILDREN)?.max_rss())?;
    output::text(&serde_json::to_string(&Measured {
        seconds,
        peak_bytes: kibibytes * 1024,
        cgroup_peak_bytes: None,
    })?)?;
    Ok(Exit::Done)
}
