//! Operating system calls: child processes that cannot outlive us, filesystems that stand still.
//!
//! This is the only crate that may hold `unsafe` code, so that one small place has to be read to
//! trust all of it; it knows nothing of its users.
// The fence itself: every other crate inherits `unsafe_code = "deny"` from the workspace.
#![allow(unsafe_code)]
#![cfg_attr(test, allow(clippy::unwrap_used))]

pub mod btrfs;
mod freeze;
mod supervised;

use std::{io, os::unix::process::CommandExt, process::Command};

pub use freeze::{filesystem_uuid, freeze, thaw};
use nix::{
    errno::Errno,
    sys::{prctl, signal::Signal},
    unistd,
};
pub use supervised::Supervised;

/// Makes the child of `command` lead a session and process group of its own and be killed
/// (SIGKILL) when its parent dies, whatever the parent dies of.
///
/// # Caveats
/// The kernel's parent is the *thread* that spawns: the child is killed when that thread ends,
/// even though the process lives on. [`Supervised`] spawns from a thread that outlives the child.
///
/// The setting is lost when the child executes a set-uid or set-gid program, and the child's own
/// children do not inherit it.
///
/// # Errors
/// Spawning fails with `ESRCH` when the parent died while the child was being made.
pub fn die_with_parent(command: &mut Command) {
    let lead = || Ok(unistd::setsid().map(drop)?);
    // SAFETY: between fork and exec the closure makes one system call (setsid), which is async-signal-safe, and builds
    // an error from a plain number: it takes no lock and allocates nothing, so no state that another thread held at the
    // fork can block or mislead it.
    unsafe {
        command.pre_exec(lead);
    }
    killed_with_parent(command);
}

/// Makes the child of `command` be killed when its parent dies, as [`die_with_parent`] does, and leaves it in its
/// parent's session and process group. The child may start in a process id namespace below its parent's.
///
/// # Errors
/// Spawning fails with `ESRCH` when the parent died while the child was being made.
pub fn killed_with_parent(command: &mut Command) {
    /// What a child is told whose parent is outside of its namespace.
    const OUTSIDE: i32 = 0;
    let parent = unistd::getpid();
    let before_exec = move || {
        prctl::set_pdeathsig(Signal::SIGKILL)?;
        // A parent that died before the line above sent no signal: the child has a new parent now.
        let now = unistd::getppid();
        if now != parent && now.as_raw() != OUTSIDE {
            return Err(io::Error::from(Errno::ESRCH));
        }
        Ok(())
    };
    // SAFETY: as above, of two system calls (prctl, getppid).
    unsafe {
        command.pre_exec(before_exec);
    }
}
