//! What sets a guard apart from its caller, so that what ends the caller does not end the guard.
//!
//! Its own session (a kill of the process group), its own place in every cgroup hierarchy (a container's end, an
//! out-of-memory kill), memory that is locked (a disk that stands still), and a signal when the caller dies (a socket
//! that does not close because a thread of the caller cannot die).

use std::{
    fs::{self, File},
    io,
    os::unix::process::parent_id,
    path::{Path, PathBuf},
};

use nix::{
    sched::{CloneFlags, setns},
    sys::{
        mman::{MlockAllFlags, mlockall},
        prctl,
    },
    unistd,
};
use procfs::process::{MountInfo, Process};

use super::{inbox::CALLER_DIED, protocol::Arm};

/// The guards' own cgroup, in every hierarchy.
const CGROUP: &str = "stillpoint-guard";
/// How often a cgroup is made that another guard, which ended just then, removed.
const TRIES: u32 = 5;

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

/// Sets this process apart from its caller, for as long as the answer lives.
pub(crate) fn set_apart(arm: &Arm) -> Result<Place, Error> {
    let call = |what| move |source| Error::Call { what, source };
    unistd::setsid().map_err(call("lead a session"))?;
    prctl::set_pdeathsig(CALLER_DIED).map_err(call("ask for a signal when the caller dies"))?;
    // a caller that died before the line above sent no signal: this process has a new parent now
    if parent_id() != arm.caller {
        return Err(Error::CallerGone);
    }
    let place = Place::enter(&arm.cgroup_root)?;
    // better than nothing where it is permitted
    let _ = fs::write("/proc/self/oom_score_adj", "-1000");
    mlockall(MlockAllFlags::MCL_CURRENT | MlockAllFlags::MCL_FUTURE).map_err(Error::Memory)?;
    Ok(place)
}

/// A guard's own place in every hierarchy; dropping it goes to their roots and removes what nobody else uses.
#[derive(Debug, Default)]
pub(crate) struct Place {
    entered: Vec<PathBuf>,
}

impl Place {
    fn enter(root: &Path) -> Result<Self, Error> {
        join_host_cgroup_namespace();
        let mut place = Self::default();
        for root in hierarchies(root)? {
            let own = root.join(CGROUP);
            match enter(&own) {
                Ok(()) => place.entered.push(own),
                // at the root nothing can be limited, paused or killed as a whole
                Err(_) => move_to(&root).map_err(|source| Error::Leave { path: own, source })?,
            }
        }
        Ok(place)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        for own in &self.entered {
            let left = own.parent().is_some_and(|root| move_to(root).is_ok());
            // fails where another guard is; then that one removes it
            let _ = left.then(|| fs::remove_dir(own));
        }
    }
}

/// Removes the cgroups that a killed guard could not, unless another guard is in them.
pub(super) fn remove_cgroups(root: &Path) {
    hierarchies(root).into_iter().flatten().for_each(|root| {
        let _ = fs::remove_dir(root.join(CGROUP));
    });
}

/// Where a hierarchy lets processes be moved only within the cgroup namespace of whoever asks (`nsdelegate`, as systemd
/// mounts it), a container's processes cannot leave; those of the host's namespace can. Without the right to join it,
/// it may still work without.
///
/// A host may protect its first process from everybody; its second is the kernel's, in the same namespace.
pub(super) fn join_host_cgroup_namespace() {
    let join = |host: &str| File::open(host).is_ok_and(|host| setns(host, CloneFlags::CLONE_NEWCGROUP).is_ok());
    let _ = join("/proc/1/ns/cgroup") || join("/proc/2/ns/cgroup");
}

/// The roots of all hierarchies that this process is in, where they are mounted below `root`.
pub(super) fn hierarchies(root: &Path) -> Result<Vec<PathBuf>, Error> {
    let this = Process::myself()?;
    let mounts = this.mountinfo()?.0;
    let mut roots = Vec::new();
    for cgroup in this.cgroups()?.0 {
        let hierarchy = &cgroup.controllers;
        let found = mounts.iter().find(|mount| mount.mount_point.starts_with(root) && holds(mount, hierarchy));
        let Some(mount) = found else {
            let hierarchy = if hierarchy.is_empty() { "cgroup2".to_owned() } else { hierarchy.join(",") };
            return Err(Error::NoRoot { hierarchy, root: root.to_owned() });
        };
        roots.push(mount.mount_point.clone());
    }
    Ok(roots)
}

/// The roots of the hierarchies that can pause, the second generation's first.
pub(crate) fn freezers(root: &Path) -> Result<Vec<PathBuf>, Error> {
    let mounts = Process::myself()?.mountinfo()?.0;
    let below = || mounts.iter().filter(|mount| mount.mount_point.starts_with(root));
    let of = |generation: &'static str| below().filter(move |mount| mount.fs_type == generation);
    let first = of("cgroup").filter(|mount| mount.super_options.contains_key("freezer"));
    Ok(of("cgroup2").chain(first).map(|mount| mount.mount_point.clone()).collect())
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

/// Moves this process to a cgroup below a root, which is made where it is not there.
pub(super) fn enter(folder: &Path) -> io::Result<()> {
    let mut entered = Ok(());
    for _ in 0..TRIES {
        make(folder)?;
        entered = move_to(folder);
        if !entered.as_ref().is_err_and(|error| error.kind() == io::ErrorKind::NotFound) {
            break;
        }
    }
    entered
}

pub(super) fn make(folder: &Path) -> io::Result<()> {
    match fs::create_dir(folder) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
        _ => {}
    }
    // the first generation's have no processors and no memory of their own at first
    for file in ["cpuset.cpus", "cpuset.mems"] {
        let inherited = folder.join("cgroup.clone_children").exists().then(|| folder.parent()).flatten();
        if let Some(given) = inherited.and_then(|above| fs::read(above.join(file)).ok()) {
            fs::write(folder.join(file), given)?;
        }
    }
    Ok(())
}

fn move_to(folder: &Path) -> io::Result<()> {
    fs::write(folder.join("cgroup.procs"), "0")
}
