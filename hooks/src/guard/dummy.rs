//! The caller that a self-test kills: this program run again, which enters cgroups, has a guard stop, and waits.
//!
//! It enters them itself, because only a process that has joined the host's cgroup namespace may, where the hierarchy is
//! mounted so.

use std::{
    io::{self, BufRead, Write},
    path::PathBuf,
    process::ExitCode,
    time::Duration,
};

use serde::{Deserialize, Serialize};

use super::{
    client::{Config, Guard, Held},
    isolation,
    protocol::Stop,
};

/// The argument that makes a dummy of what would be a guard.
pub(super) const ARGUMENT: &str = "self-test";

/// What a dummy is to do.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Errand {
    program: PathBuf,
    journal: PathBuf,
    cgroup_root: PathBuf,
    heartbeat: Duration,
    /// The cgroups to enter first.
    enter: Vec<PathBuf>,
    stop: Stop,
}

/// What a dummy says.
#[derive(Debug, Serialize, Deserialize)]
pub(super) enum Answer {
    Stopped { guard: u32 },
    NotStopped(String),
}

impl Errand {
    pub(super) fn new(config: &Config, enter: Vec<PathBuf>, stop: Stop) -> Self {
        let Config { program, journal, cgroup_root, heartbeat, on_step: _ } = config.clone();
        Self { program, journal, cgroup_root, heartbeat, enter, stop }
    }
}

/// Does what it is told on standard input, and waits until that is closed.
pub(super) fn serve() -> ExitCode {
    let mut line = String::new();
    let read = io::stdin().lock().read_line(&mut line);
    let Some(errand) = read.ok().and_then(|_| serde_json::from_str(&line).ok()) else { return ExitCode::FAILURE };
    let (answer, held) = match stop(errand) {
        Ok(held) => (Answer::Stopped { guard: held.guard() }, Some(held)),
        Err(why) => (Answer::NotStopped(why), None),
    };
    let mut said = serde_json::to_vec(&answer).unwrap_or_default();
    said.push(b'\n');
    let heard = io::stdout().write_all(&said).and_then(|()| io::stdout().flush());
    if heard.is_ok() {
        // to the end of standard input, whatever it brings
        let _ = io::stdin().lock().read_line(&mut line);
    }
    drop(held);
    ExitCode::SUCCESS
}

fn stop(errand: Errand) -> Result<Held, String> {
    let Errand { program, journal, cgroup_root, heartbeat, enter, stop } = errand;
    isolation::join_host_cgroup_namespace();
    for cgroup in enter {
        isolation::enter(&cgroup).map_err(|error| format!("cannot enter {}: {error}", cgroup.display()))?;
    }
    let config = Config { program, journal, cgroup_root, heartbeat, on_step: None };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build();
    let runtime = runtime.map_err(|error| format!("cannot start a runtime: {error}"))?;
    runtime.block_on(async {
        let guard = Guard::start(&config).await.map_err(|error| error.to_string())?;
        guard.stop(&stop).await.map_err(|error| error.to_string())
    })
}
