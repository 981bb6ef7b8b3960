//! `stillpoint scratch`: the clusters that restore tests run in, to play with.
//!
//! The very same ones, so that what a restore test says can be looked at by hand.

use std::path::{Path, PathBuf};

use clap::{Args, Subcommand, ValueEnum};
use stillpoint_api::ScratchKind;
use stillpoint_verifier::scratch::ScratchCluster;

use crate::{exit::Exit, interrupt::asked_to_end, output};

#[derive(Debug, Subcommand)]
pub(crate) enum ScratchCommand {
    /// Runs a scratch cluster until Ctrl-C.
    #[command(after_help = "Example:\n  stillpoint scratch run embedded --kubeconfig-out /tmp/kc &\n  \
                            kubectl --kubeconfig /tmp/kc get namespaces")]
    Run(RunArgs),
}

#[derive(Debug, Args)]
pub(crate) struct RunArgs {
    /// Which kind of cluster
    kind: Kind,
    /// Where to write its kubeconfig
    #[arg(long, value_name = "FILE")]
    kubeconfig_out: PathBuf,
}

/// [`ScratchKind`] as it is typed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Kind {
    /// An API server inside this process: needs nothing, starts in milliseconds
    Embedded,
    /// etcd and kube-apiserver, from KUBEBUILDER_ASSETS or PATH
    ControlPlane,
}

impl From<Kind> for ScratchKind {
    fn from(kind: Kind) -> Self {
        match kind {
            Kind::Embedded => Self::Embedded,
            Kind::ControlPlane => Self::ControlPlane,
        }
    }
}

pub(crate) async fn run(command: ScratchCommand) -> anyhow::Result<Exit> {
    let ScratchCommand::Run(RunArgs { kind, kubeconfig_out }) = command;
    let started = tokio::select! {
        started = ScratchCluster::start(kind.into()) => started?,
        ended = asked_to_end() => { ended?; return Ok(Exit::Failed); }
    };
    let served = serve(&started, &kubeconfig_out).await;
    let stopped = started.shutdown().await;
    // the file names a server that is gone
    let _ = tokio::fs::remove_file(&kubeconfig_out).await;
    served?;
    stopped?;
    Ok(Exit::Done)
}

async fn serve(cluster: &ScratchCluster, kubeconfig_out: &Path) -> anyhow::Result<()> {
    crate::cluster::write_kubeconfig(kubeconfig_out, &cluster.kubeconfig())?;
    output::note(format_args!("running; try: kubectl --kubeconfig {} get namespaces", kubeconfig_out.display()));
    for limit in cluster.not_judged() {
        output::note(format_args!("  not judged here: {limit}"));
    }
    output::note("Ctrl-C ends it and leaves nothing behind");
    asked_to_end().await
}
