//! Why a scratch cluster did not start or stop.
//!
//! One enum for all kinds: a caller shows the sentence, nobody chooses by variant.

use std::{
    io,
    path::{Path, PathBuf},
    process::ExitStatus,
    time::Duration,
};

/// Why a scratch cluster did not start or stop.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A program of the control plane is not installed.
    #[error(
        "{program} was not found: looked in {searched}; set KUBEBUILDER_ASSETS to the folder that holds it, or use the embedded scratch cluster (--scratch embedded), which needs no program"
    )]
    ProgramMissing {
        /// The program's file name.
        program: &'static str,
        /// The folders that were searched.
        searched: String,
    },
    /// A program could not be asked for its version.
    #[error("cannot tell the Kubernetes version of {}: {output}", path.display())]
    VersionUnknown {
        /// The program.
        path: PathBuf,
        /// What it printed or how it ended.
        output: String,
    },
    /// A program is older than what we know how to start.
    #[error("{} is Kubernetes {version}: a scratch control plane needs 1.20 or newer", path.display())]
    VersionTooOld {
        /// The program.
        path: PathBuf,
        /// Its version.
        version: String,
    },
    /// A program could not be run.
    #[error("cannot run {}", path.display())]
    Run {
        /// The program.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// A server ended when it should serve.
    #[error("{} ended by itself ({status}); its last words:\n{log}", path.display())]
    Ended {
        /// The server's program.
        path: PathBuf,
        /// How it ended.
        status: ExitStatus,
        /// The end of its log.
        log: String,
    },
    /// A server runs but does not serve in time.
    #[error("{} does not serve after {} s; its last words:\n{log}", path.display(), waited.as_secs())]
    NotServing {
        /// The server's program.
        path: PathBuf,
        /// How long was waited.
        waited: Duration,
        /// The end of its log.
        log: String,
    },
    /// A server could not be stopped.
    #[error("cannot stop {}", path.display())]
    Stop {
        /// The server's program.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// A file or folder of the scratch cluster could not be used.
    #[error("cannot {action} {}", path.display())]
    File {
        /// What was tried, as a verb.
        action: &'static str,
        /// The file or folder.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// No loopback port could be had.
    #[error("cannot find a free port on 127.0.0.1")]
    Port(#[source] io::Error),
    /// The certificates could not be made.
    #[error("cannot make the certificates of the scratch cluster")]
    Certificate(#[from] rcgen::Error),
    /// The kubeconfig of the scratch cluster was not accepted.
    #[error("cannot read the scratch cluster's kubeconfig")]
    Kubeconfig(#[source] Box<kube::config::KubeconfigError>),
    /// No client could be made for the scratch cluster.
    #[error("cannot make a client for the scratch cluster")]
    Client(#[source] Box<kube::Error>),
    /// The embedded API server did not start.
    #[error("cannot start the embedded API server")]
    Embedded(#[source] stillpoint_apiserver::Error),
    /// A step was interrupted because the program is ending.
    #[error("interrupted while starting or stopping the scratch cluster")]
    Interrupted(#[source] tokio::task::JoinError),
}

impl Error {
    pub(super) fn file(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_owned();
        move |source| Self::File { action, path, source }
    }

    pub(super) fn run(path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_owned();
        move |source| Self::Run { path, source }
    }

    pub(super) fn kubeconfig(source: kube::config::KubeconfigError) -> Self {
        Self::Kubeconfig(Box::new(source))
    }

    pub(super) fn client(source: kube::Error) -> Self {
        Self::Client(Box::new(source))
    }

    /// Whether a server could not have the port that was free a moment ago.
    pub(super) fn is_port_taken(&self) -> bool {
        matches!(self, Self::Ended { log, .. } if log.contains("address already in use"))
    }
}
