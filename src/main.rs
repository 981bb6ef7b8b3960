//! The `stillpoint` command line: backs up Kubernetes at one instant and proves that the backup restores.
//!
//! Flags become request values here and the crates do the work; nothing below this package prints or exits.

mod args;
mod cli;
mod cluster;
mod commands;
mod confirm;
mod exit;
mod helpers;
mod installation;
mod interrupt;
mod keys;
mod meanwhile;
mod output;
mod progress;

use std::{
    io::{self, IsTerminal},
    process::{ExitCode, Termination},
};

use clap::Parser;
use tracing_subscriber::EnvFilter;

use crate::{cli::Cli, exit::Exit};

/// What is logged unless STILLPOINT_LOG says otherwise. The client logs every failed request as an error, those that are
/// retried too; what matters of them reaches the user as an error or a problem with a name.
const LOGGED: &str = "warn,kube_client=off";

fn main() -> ExitCode {
    // first of all: a guard must not hold what anything below opens or starts
    if let Some(ended) = stillpoint_hooks::guard::entry() {
        return ended;
    }
    command_line().report()
}

fn command_line() -> Exit {
    let cli = Cli::parse();
    tracing_subscriber::fmt()
        .with_env_filter(EnvFilter::try_from_env("STILLPOINT_LOG").unwrap_or_else(|_| EnvFilter::new(LOGGED)))
        .with_ansi(io::stderr().is_terminal())
        .with_writer(io::stderr)
        .init();
    // an error means that a provider is installed already, which is all that matters
    let _ = rustls::crypto::ring::default_provider().install_default();
    match run(cli) {
        Ok(exit) => exit,
        Err(error) if is_broken_pipe(&error) => Exit::Done,
        Err(error) => {
            output::error(&error);
            if error.is::<args::UsageError>() { Exit::Usage } else { Exit::Failed }
        }
    }
}

fn run(cli: Cli) -> anyhow::Result<Exit> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(cli.command.run())
}

/// A reader such as `head` that went away is no failure of ours.
fn is_broken_pipe(error: &anyhow::Error) -> bool {
    error
        .chain()
        .any(|cause| cause.downcast_ref::<io::Error>().is_some_and(|error| error.kind() == io::ErrorKind::BrokenPipe))
}
