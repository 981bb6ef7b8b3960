//! One measured program, run by a process of its own that has no other child.
//!
//! The kernel tells the peak memory of children only for all of them together.

use std::{
    ffi::OsString,
    process::{Command, Stdio},
    time::Instant,
};

use anyhow::{Context, ensure};
use clap::Args;
use nix::sys::resource::{UsageWho, getrusage};
use serde::{Deserialize, Serialize};

use crate::{exit::Exit, output};

#[derive(Debug, Args)]
pub(crate) struct ChildArgs {
    #[arg(trailing_var_arg = true, allow_hyphen_values = true, required = true)]
    command: Vec<OsString>,
}

/// What a program took.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Measured {
    pub(super) seconds: f64,
    pub(super) peak_bytes: u64,
}

pub(super) fn run(args: ChildArgs) -> anyhow::Result<Exit> {
    let (program, arguments) = args.command.split_first().context("there is no command")?;
    let started = Instant::now();
    let status = Command::new(program)
        .args(arguments)
        .stdout(Stdio::null())
        .status()
        .with_context(|| format!("cannot run {}", program.display()))?;
    let seconds = started.elapsed().as_secs_f64();
    ensure!(status.success(), "{} ended with {status}", program.display());
    let kibibytes = u64::try_from(getrusage(UsageWho::RUSAGE_CHILDREN)?.max_rss())?;
    output::text(&serde_json::to_string(&Measured { seconds, peak_bytes: kibibytes * 1024 })?)?;
    Ok(Exit::Done)
}
