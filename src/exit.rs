//! The exit codes, as an enum.
//!
//! Scripts and pipelines act on these four and nothing else, so every command ends in one of them.

use std::process::{ExitCode, Termination};

/// How a command ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Exit {
    /// Everything asked for was done.
    Done = 0,
    /// It was not done.
    Failed = 1,
    /// The command line makes no sense; clap exits with this code by itself.
    Usage = 2,
    /// Done, but something is missing or in doubt, by name.
    Degraded = 3,
}

impl Termination for Exit {
    fn report(self) -> ExitCode {
        ExitCode::from(self as u8)
    }
}
