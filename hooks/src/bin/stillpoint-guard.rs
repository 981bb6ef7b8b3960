//! The guard as a program of its own.
//!
//! For those who use the crate in a program whose `main` is not theirs, a test for instance; `stillpoint` needs it not.

use std::process::ExitCode;

fn main() -> ExitCode {
    // started by hand it has nobody to serve
    stillpoint_hooks::guard::entry().unwrap_or(ExitCode::FAILURE)
}
