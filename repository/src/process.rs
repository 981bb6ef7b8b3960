//! Says who we are on this host, for key files and locks.
//!
//! restic judges a lock of the same host by whether its process lives; both sides must name themselves the same way.

use std::sync::OnceLock;

use nix::{
    errno::Errno,
    sys::signal::kill,
    unistd::{Pid, User, getgid, gethostname, getuid},
};

/// This process as others see it in a lock.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Process {
    pub(crate) host: String,
    pub(crate) user: String,
    pub(crate) pid: u32,
    pub(crate) uid: u32,
    pub(crate) gid: u32,
}

impl Process {
    /// This process; asked of the system once.
    pub(crate) fn current() -> &'static Self {
        static CURRENT: OnceLock<Process> = OnceLock::new();
        CURRENT.get_or_init(|| {
            let uid = getuid();
            let user = User::from_uid(uid).ok().flatten().map_or_else(|| uid.to_string(), |user| user.name);
            let host = gethostname().map_or_else(|_| "unknown".into(), |name| name.to_string_lossy().into_owned());
            Self { host, user, pid: std::process::id(), uid: uid.as_raw(), gid: getgid().as_raw() }
        })
    }
}

/// Whether a process of this host is gone for certain.
pub(crate) fn is_gone(pid: u32) -> bool {
    // 0 and negative numbers address groups: no single process ever has them
    match i32::try_from(pid) {
        Ok(pid) if pid > 0 => kill(Pid::from_raw(pid), None) == Err(Errno::ESRCH),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn our_own_process_lives_and_an_ended_child_is_gone() {
        assert!(!is_gone(Process::current().pid));
        let mut child = std::process::Command::new("true").spawn().unwrap();
        child.wait().unwrap();
        assert!(is_gone(child.id()));
    }

    #[test]
    fn numbers_that_address_groups_are_never_called_gone() {
        assert!(!is_gone(0));
        assert!(!is_gone(u32::MAX));
    }
}
