//! The exit codes, as an enum.
//!
//! Scripts and pipelines act on these and nothing else, so every command ends in one of them.

use std::process::{ExitCode, Termination};

/// How a command ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Exit {
    /// Everything asked for was done.
    Done,
    /// It was not done.
    Failed,
    /// The command line makes no sense; clap exits with this code by itself.
    Usage,
    /// Done, but something is missing or in doubt, by name.
    Degraded,
    /// The command that was to run meanwhile was not run, as `env` and `timeout` say it.
    NotRun,
    /// The command that ran meanwhile ended with this code.
    Of(u8),
}

impl Exit {
    fn code(self) -> u8 {
        match self {
            Self::Done => 0,
            Self::Failed => 1,
            Self::Usage => 2,
            Self::Degraded => 3,
            Self::NotRun => 125,
            Self::Of(code) => code,
        }
    }
}

impl Termination for Exit {
    fn report(self) -> ExitCode {
        ExitCode::from(self.code())
    }
}
