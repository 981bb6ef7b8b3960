//! What sets a guard apart from its caller, so that what ends the caller does not end the guard.
//!
//! Its own session (a kill of the process group), its own place in every cgroup hierarchy (a container's end, an
//! out-of-memory kill), memory that is locked (a disk that stands still), and a signal when the caller dies (a socket
//! that does not close because a thread of the caller cannot die).

use std::{
    fs, io,
    os::unix::process::parent_id,
    path::{Path, PathBuf},
};

use nix::{
    sys::{
        mman::{MlockAllFlags, mlockall},
        prctl,
    },
    unistd,
};
use procfs::process::{MountInfo, Process};

use super::{inbox::CALLER_DIED, protocol::Arm};

/// The guard's own cgroup in the second generation's hierarchy.
const CGROUP: &str = "stillpoint-guard";

/// Why a guard cannot be set apart.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    #[error("the caller is gone")]
    CallerGone,
    #[error("cannot lock the guard's memory: {0}; run as root, or raise the limit of locked memory")]
    Memory(nix::Error),
    #[error("cannot {what}: {source}")]
    Call { what: &'static str, source: nix::Error },
    #[error("cannot read the cgroups of this process: {0}")]
    Cgroups(#[from] procfs::ProcError),
    #[error(
        "the guard cannot leave its caller's cgroup: {path}: {source}; in a pod it needs the host's cgroup tree, writable",
        path = path.display()
    )]
    Leave { path: PathBuf, source: io::Error },
    #[error(
        "the guard cannot leave its caller's cgroup: no root of the hierarchy {hierarchy} is mounted below {root}; in a \
         pod it needs the host's cgroup tree, writable",
        root = root.display()
    )]
    NoRoot { hierarchy: String, root: PathBuf },
}

/// Sets this process apart from its caller.
pub(crate) fn set_apart(arm: &Arm) -> Result<(), Error> {
    let call = |what| move |source| Error::Call { what, source };
    unistd::setsid().map_err(call("lead a session"))?;
    prctl::set_pdeathsig(CALLER_DIED).map_err(call("ask for a signal when the caller dies"))?;
    // a caller that died before the line above sent no signal: this process has a new parent now
    if parent_id() != arm.caller {
        return Err(Error::CallerGone);
    }
    leave_cgroups(&arm.cgroup_root)?;
    // better than nothing where it is permitted
    let _ = fs::write("/proc/self/oom_score_adj", "-1000");
    mlockall(MlockAllFlags::MCL_CURRENT | MlockAllFlags::MCL_FUTURE).map_err(Error::Memory)
}

/// Moves this process to the root of each hierarchy of the first generation, where nothing can be limited or paused,
/// and in the second to a cgroup of its own below the root.
fn leave_cgroups(root: &Path) -> Result<(), Error> {
    let this = Process::myself()?;
    let mounts = this.mountinfo()?.0;
    for cgroup in this.cgroups()?.0 {
        let hierarchy = &cgroup.controllers;
        let found = mounts.iter().find(|mount| mount.mount_point.starts_with(root) && holds(mount, hierarchy));
        let Some(mount) = found else {
            let hierarchy = if hierarchy.is_empty() { "cgroup2".to_owned() } else { hierarchy.join(",") };
            return Err(Error::NoRoot { hierarchy, root: root.to_owned() });
        };
        let folder = if hierarchy.is_empty() { mount.mount_point.join(CGROUP) } else { mount.mount_point.clone() };
        enter(&folder).map_err(|source| Error::Leave { path: folder, source })?;
    }
    Ok(())
}

/// Whether this is where the root of a hierarchy is mounted: below the root every cgroup has files that the root has
/// not (second generation), or the root has one that no other has (first).
fn holds(mount: &MountInfo, hierarchy: &[String]) -> bool {
    if hierarchy.iter().all(String::is_empty) {
        return mount.fs_type == "cgroup2" && !mount.mount_point.join("cgroup.events").exists();
    }
    let has = |controller: &String| mount.super_options.contains_key(controller) || named(mount, controller);
    mount.fs_type == "cgroup" && hierarchy.iter().all(has) && mount.mount_point.join("release_agent").exists()
}

/// A hierarchy without controllers has a name: `name=systemd`.
fn named(mount: &MountInfo, controller: &str) -> bool {
    let name = controller.strip_prefix("name=");
    name.is_some() && mount.super_options.get("name").and_then(Option::as_deref) == name
}

fn enter(folder: &Path) -> io::Result<()> {
    match fs::create_dir(folder) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
        _ => {}
    }
    fs::write(folder.join("cgroup.procs"), "0")
}
