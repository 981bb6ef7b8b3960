//! Says who we are on this host, for key files and locks, and whether a process of ours is gone.
//!
//! restic judges a lock by its host name and whether the process lives. In containers both mislead: every one has a
//! process 1, and all that use the network of their node share its name. So what we write also says in which space a
//! process number counts, and a number of another space is never looked up here.

use std::{env, fs, os::unix::fs::MetadataExt, sync::OnceLock};

use nix::{
    errno::Errno,
    sys::signal::kill,
    unistd::{Pid, User, getgid, gethostname, getuid},
};

/// The pod's uid; the agent's DaemonSet sets it from `metadata.uid`.
const POD_UID: &str = "STILLPOINT_POD_UID";
/// The inode of the pid namespace in which a host boots (`PROC_PID_INIT_INO`).
const HOST_NAMESPACE: u64 = 0xEFFF_FFFC;

/// This process as others see it in a lock.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Process {
    /// The pod's uid in a pod that gives it, otherwise the host's name.
    pub(crate) host: String,
    pub(crate) user: String,
    pub(crate) pid: u32,
    pub(crate) uid: u32,
    pub(crate) gid: u32,
    /// The boot and the pid namespace in which `pid` means this process.
    pub(crate) pid_space: Option<String>,
    /// Whether the numbers of all processes of the host are seen here.
    sees_host: bool,
}

impl Process {
    /// This process; asked of the system once.
    pub(crate) fn current() -> &'static Self {
        static CURRENT: OnceLock<Process> = OnceLock::new();
        CURRENT.get_or_init(|| {
            let uid = getuid();
            let user = User::from_uid(uid).ok().flatten().map_or_else(|| uid.to_string(), |user| user.name);
            let pod = env::var(POD_UID).ok().filter(|uid| !uid.is_empty());
            let name = || gethostname().map_or_else(|_| "unknown".into(), |name| name.to_string_lossy().into_owned());
            let namespace = fs::metadata("/proc/self/ns/pid").ok().map(|found| found.ino());
            let boot = fs::read_to_string("/proc/sys/kernel/random/boot_id").ok();
            Self {
                sees_host: pod.is_none() && namespace == Some(HOST_NAMESPACE),
                host: pod.unwrap_or_else(name),
                user,
                pid: std::process::id(),
                uid: uid.as_raw(),
                gid: getgid().as_raw(),
                pid_space: boot.zip(namespace).map(|(boot, namespace)| format!("{}/{namespace}", boot.trim())),
            }
        })
    }

    /// Whether process `pid` of `host`, counted in `pid_space` where that is known, is gone for certain.
    pub(crate) fn knows_gone(&self, host: &str, pid: u32, pid_space: Option<&str>) -> bool {
        let counted_here = match pid_space {
            Some(_) => pid_space == self.pid_space.as_deref(),
            // restic says no more than the name of the host
            None => self.sees_host && host == self.host,
        };
        counted_here && is_gone(pid)
    }
}

fn is_gone(pid: u32) -> bool {
    // 0 and negative numbers address groups: no single process ever has them
    match i32::try_from(pid) {
        Ok(pid) if pid > 0 => kill(Pid::from_raw(pid), None) == Err(Errno::ESRCH),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ended() -> u32 {
        let mut child = std::process::Command::new("true").spawn().unwrap();
        child.wait().unwrap();
        child.id()
    }

    #[test]
    fn our_own_process_lives_and_an_ended_child_is_gone() {
        let me = Process::current();
        let space = me.pid_space.as_deref();
        assert!(space.is_some());
        assert!(!me.knows_gone(&me.host, me.pid, space));
        assert!(me.knows_gone(&me.host, ended(), space));
    }

    #[test]
    fn numbers_that_address_groups_are_never_called_gone() {
        assert!(!is_gone(0));
        assert!(!is_gone(u32::MAX));
    }

    #[test]
    fn a_process_that_is_counted_elsewhere_is_never_called_gone() {
        let pid = ended();
        let here = Process::current();
        assert!(!here.knows_gone(&here.host, pid, Some("another boot/1")));
        assert!(!here.knows_gone("elsewhere", pid, None));
        let contained = Process { sees_host: false, ..here.clone() };
        assert!(!contained.knows_gone(&here.host, pid, None), "a name may be shared by containers");
        let on_the_host = Process { sees_host: true, ..here.clone() };
        assert!(on_the_host.knows_gone(&here.host, pid, None));
    }
}
