//! Freezing as a script does it, to measure against.
//!
//! `fsfreeze(8)` for one directory after the other, run here or by whatever runs a command in a pod; nobody holds a lease
//! on it, so a process beside it thaws what it may leave behind.

use std::{path::PathBuf, process::Stdio, time::Instant};

use anyhow::{Context, ensure};
use rustix::process::{Pid, Signal, kill_process_group};
use tokio::process::{Child, Command};

/// The trap is for signals, the process beside it for everything else. Long options: BusyBox knows no others.
const PEER: &str = r#"thaw() { for dir; do $EXEC fsfreeze --unfreeze "$dir"; done; }
trap 'thaw "$@"' INT TERM
for dir; do $EXEC fsfreeze --freeze "$dir" || exit 1; done
thaw "$@""#;
/// Thaws what the peer may have left behind.
const WATCHDOG: &str = r#"sleep 60; for dir; do fsfreeze --unfreeze "$dir"; done"#;

/// From the start of the first freeze to the end of the last thaw, in milliseconds; `exec` stands before each command.
pub(super) async fn window(directories: &[PathBuf], exec: &str) -> anyhow::Result<f64> {
    // started first, and ended only when the peer has thawed
    let mut watchdog = shell(WATCHDOG, directories, exec, true)?;
    let began = Instant::now();
    let status = shell(PEER, directories, exec, false)?.wait().await?;
    let took = began.elapsed();
    ensure!(status.success(), "fsfreeze ended with {status}");
    if let Some(group) = watchdog.id().and_then(|pid| Pid::from_raw(pid.cast_signed())) {
        kill_process_group(group, Signal::KILL)?;
    }
    watchdog.wait().await?;
    Ok(took.as_secs_f64() * 1e3)
}

fn shell(script: &str, directories: &[PathBuf], exec: &str, own_group: bool) -> anyhow::Result<Child> {
    let mut command = Command::new("sh");
    command.args(["-c", script, "sh"]).args(directories).env("EXEC", exec).stdin(Stdio::null()).stdout(Stdio::null());
    if own_group {
        command.process_group(0).stderr(Stdio::null());
    }
    command.spawn().context("cannot run sh")
}
