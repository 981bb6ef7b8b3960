//! What runs a hook's command: one trait, the cluster or this host behind it.
//!
//! An executor starts a process and can end it; timeouts, outputs and retries are the same for all and live in `run`.

pub mod kubernetes;
pub mod local;

use std::fmt;

use async_trait::async_trait;
use tokio::io::{AsyncRead, AsyncWrite};

use super::pod::PodId;

/// An output of a process.
pub type Reader = Box<dyn AsyncRead + Send + Unpin>;

/// The standard input of a process.
pub type Writer = Box<dyn AsyncWrite + Send + Unpin>;

/// Why a command did not run to its end, as far as we know.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ExecError {
    /// The pod or the container is no more.
    #[error("{0}")]
    Gone(String),
    /// Nobody answered, or with "later": worth another try.
    #[error("{0}")]
    Unreachable(String),
    /// We may not, or the question makes no sense.
    #[error("{0}")]
    Refused(String),
    /// The container's runtime could not start the program.
    #[error("the program could not be started: {0}")]
    CannotStart(String),
    /// We lost sight of a command that was started.
    #[error("the connection ended before the command did: {0}")]
    Lost(String),
}

/// How a process ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exit {
    /// By itself.
    Code(i32),
    /// By a signal.
    Signal(i32),
}

impl fmt::Display for Exit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Code(code @ 129..=159) => write!(f, "exit code {code} (signal {})", code - 128),
            Self::Code(code) => write!(f, "exit code {code}"),
            Self::Signal(signal) => write!(f, "signal {signal}"),
        }
    }
}

/// What came of ending a process.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Ended {
    /// It is gone, with these words about how.
    Gone(String),
    /// It may still run, for this reason.
    StillRunning(String),
}

/// A command to run.
#[derive(Debug, Clone, Copy)]
pub struct Command<'a> {
    /// The pod.
    pub pod: &'a PodId,
    /// The container in it.
    pub container: &'a str,
    /// The program and its arguments.
    pub argv: &'a [String],
    /// Whether something will be written to its standard input.
    pub input: bool,
}

/// Runs commands in containers.
#[async_trait]
pub trait Executor: Send + Sync {
    /// Starts a command. Whoever drops the future must take it for started.
    ///
    /// # Errors
    /// When it certainly was not started.
    async fn start(&self, command: Command<'_>) -> Result<Box<dyn Process>, ExecError>;
}

/// A command that was started. Dropping it lets go of it, which need not end it: that is what [`Process::end`] is for.
#[async_trait]
pub trait Process: Send {
    /// Its standard input, the first time; dropping it closes it.
    fn input(&mut self) -> Option<Writer>;

    /// Its standard output and standard error, the first time.
    fn outputs(&mut self) -> Option<(Reader, Reader)>;

    /// Waits until it ends. May be dropped and called again.
    ///
    /// # Errors
    /// When that cannot be known any more, or the program did not start after all.
    async fn wait(&mut self) -> Result<Exit, ExecError>;

    /// Ends it if it can be ended: it is asked first, and killed after a moment. Takes some seconds at most.
    async fn end(&mut self) -> Ended;
}
