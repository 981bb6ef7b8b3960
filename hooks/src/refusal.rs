//! What must not be stopped, and why, by name.
//!
//! A freeze of the wrong filesystem stops the machine that would have to end it. So whatever the guard, its caller or
//! the node needs in order to go on is looked up, and a filesystem is refused as well when one of these lies in a file
//! on it.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
};

use procfs::process::{FDTarget, Process};

use crate::{
    members::members,
    mounts::{self, Device, Filesystem},
};

/// What keeps a node alive, by the name of its program.
const NODE_PROGRAMS: [&str; 6] = ["kubelet", "containerd", "dockerd", "crio", "etcd", "k3s"];
/// Where it keeps its data.
const NODE_FOLDERS: [(&str, &str); 9] = [
    ("/var/lib/kubelet", "kubelet"),
    ("/var/lib/containerd", "containerd"),
    ("/run/containerd", "containerd"),
    ("/var/lib/docker", "docker"),
    ("/var/lib/containers", "the container runtime"),
    ("/var/lib/crio", "the container runtime"),
    ("/var/lib/etcd", "etcd"),
    ("/var/lib/rancher", "k3s"),
    ("/var/log", "the host's logs"),
];
/// Kinds that the kernel cannot freeze; any other is asked.
const CANNOT_FREEZE: [&str; 16] = [
    "9p", "ceph", "cgroup", "cgroup2", "cifs", "devtmpfs", "nfs", "nfs4", "overlay", "proc", "ramfs", "smb3",
    "squashfs", "sysfs", "tmpfs", "virtiofs",
];
/// How deep files in filesystems in files are followed.
const DEPTH: usize = 8;

/// The filesystems that must not stand still, and why.
#[derive(Debug)]
pub(crate) struct Protected {
    reasons: BTreeMap<Device, String>,
}

impl Protected {
    /// Looks up what this host, the process `caller`, the journal in `journal` and what lies at `paths` need.
    pub(crate) fn gather(caller: u32, journal: &Path, paths: &[PathBuf]) -> Self {
        let mut protected = Self { reasons: BTreeMap::new() };
        protected.add(Path::new("/"), "it is the root filesystem");
        protected.add(Path::new("/proc/1/root"), "it is the root filesystem of the host");
        protected.add(Path::new("/proc/self/exe"), "it holds Stillpoint's own program");
        protected.add(&PathBuf::from(format!("/proc/{caller}/exe")), "it holds the caller's program");
        protected.add(journal, "it holds the journal of what is stopped; give another --journal");
        protected.add(&std::env::temp_dir(), "it holds temporary files");
        for number in 0..3 {
            let output = PathBuf::from(format!("/proc/{caller}/fd/{number}"));
            // only a file keeps the caller waiting; a pipe's or a terminal's filesystem does not freeze anyway
            if output.is_file() {
                protected.add(&output, "the caller's output goes there");
            }
        }
        for path in paths {
            protected.add(path, &format!("it holds {}, which is needed meanwhile", path.display()));
        }
        for (folder, whose) in NODE_FOLDERS {
            protected.add(Path::new(folder), &format!("it holds {folder} of {whose}"));
        }
        protected.add_programs();
        protected.add_swap();
        protected
    }

    /// Why a filesystem must not, or cannot, be frozen.
    pub(crate) fn refuse(&self, filesystem: &Filesystem) -> Option<String> {
        if CANNOT_FREEZE.contains(&filesystem.kind.as_str()) || filesystem.kind.starts_with("fuse.") {
            return Some(crate::guard::cannot_freeze(&filesystem.kind));
        }
        self.reasons.get(&filesystem.device).map(|reason| format!("it must not be frozen: {reason}"))
    }

    /// Protects the filesystem of the nearest folder above `path` that exists, and whatever that lies in.
    fn add(&mut self, path: &Path, reason: &str) {
        let Some(filesystem) = path.ancestors().find_map(|path| mounts::of(path).ok()) else { return };
        for below in beneath(&filesystem) {
            let reason = format!("{reason} (which lies in a file on it)");
            self.reasons.entry(below).or_insert(reason);
        }
        self.reasons.entry(filesystem.device).or_insert_with(|| reason.to_owned());
    }

    fn add_programs(&mut self) {
        for process in node_programs() {
            let Ok(name) = process.stat().map(|stat| stat.comm) else { continue };
            let reason = |what: &str| format!("it holds {what} of {name} (process {})", process.pid);
            let proc = PathBuf::from(format!("/proc/{}", process.pid));
            self.add(&proc.join("exe"), &reason("the program"));
            self.add(&proc.join("root"), &reason("the root"));
            for file in written_by(&process) {
                self.add(&proc.join("fd").join(file.to_string()), &reason("an open file"));
            }
            for folder in folders_named_by(&process) {
                self.add(&proc.join("root").join(folder.strip_prefix("/").unwrap_or(&folder)), &reason("the data"));
            }
        }
    }

    fn add_swap(&mut self) {
        let swaps = fs::read_to_string(mounts::SWAPS).unwrap_or_default();
        for area in mounts::first_paths(&swaps) {
            if area.is_file() {
                self.add(&area, "it holds swap");
            }
            for below in files_of(&area).iter().filter_map(|file| mounts::of(file).ok()) {
                self.reasons.entry(below.device).or_insert_with(|| "it holds swap".to_owned());
            }
        }
    }
}

/// The devices that the file is on in which a filesystem lies, and the file in which that lies, and so on.
pub(crate) fn beneath(filesystem: &Filesystem) -> BTreeSet<Device> {
    let mut found = BTreeSet::new();
    let mut sources = vec![filesystem.source.clone()];
    for _ in 0..DEPTH {
        let files = std::mem::take(&mut sources).into_iter().flat_map(|source| files_of(Path::new(&source)));
        for below in files.filter_map(|file| mounts::of(&file).ok()) {
            if found.insert(below.device) {
                sources.push(below.source);
            }
        }
    }
    found
}

/// The files that a block device is made of, through loop devices and what is stacked upon them.
fn files_of(device: &Path) -> Vec<PathBuf> {
    let Ok(device) = device.canonicalize() else { return Vec::new() };
    let Some(name) = device.file_name().filter(|_| device.starts_with("/dev")) else { return Vec::new() };
    let mut names = vec![(name.to_owned(), 0)];
    let mut files = Vec::new();
    while let Some((name, depth)) = names.pop() {
        let Ok(about) = Path::new("/sys/class/block").join(&name).canonicalize() else { continue };
        // a partition's loop device is the one above it
        for about in [about.as_path(), about.parent().unwrap_or(&about)] {
            if let Ok(file) = fs::read_to_string(about.join("loop/backing_file")) {
                files.push(PathBuf::from(file.trim_end_matches('\n')));
            }
        }
        if depth < DEPTH {
            let slaves = fs::read_dir(about.join("slaves")).into_iter().flatten().flatten();
            names.extend(slaves.map(|slave| (slave.file_name(), depth + 1)));
        }
    }
    files
}

/// Why the processes of a cgroup must not be paused.
pub(crate) fn refuse_pause(cgroup: &Path, caller: u32) -> Option<String> {
    let members = members(cgroup);
    let is_member = |pid: u32| members.contains(&pid);
    if is_member(caller) || is_member(std::process::id()) {
        return Some("it must not be paused: this very program runs in it".to_owned());
    }
    if is_member(1) {
        return Some("it must not be paused: the host's first process runs in it".to_owned());
    }
    let kept = node_programs().find(|process| is_member(process.pid.unsigned_abs()))?;
    let name = kept.stat().map(|stat| stat.comm).unwrap_or_default();
    Some(format!("it must not be paused: {name} (process {}) runs in it", kept.pid))
}

fn node_programs() -> impl Iterator<Item = Process> {
    let processes = procfs::process::all_processes().into_iter().flatten().filter_map(Result::ok);
    processes.filter(|process| process.stat().is_ok_and(|stat| NODE_PROGRAMS.contains(&stat.comm.as_str())))
}

/// The descriptors of regular files that a process may write to.
fn written_by(process: &Process) -> Vec<i32> {
    let descriptors = process.fd().into_iter().flatten().filter_map(Result::ok);
    let written = descriptors.filter(|descriptor| {
        descriptor.mode().contains(procfs::process::FDPermissions::WRITE)
            && matches!(&descriptor.target, FDTarget::Path(path) if path.is_absolute() && !path.starts_with("/dev"))
    });
    written.map(|descriptor| descriptor.fd).collect()
}

/// The folders that a program of the node was told to keep its data in.
fn folders_named_by(process: &Process) -> Vec<PathBuf> {
    const FLAGS: [&str; 4] = ["--root-dir", "--root", "--data-dir", "--data-root"];
    let arguments = process.cmdline().unwrap_or_default();
    let mut folders = Vec::new();
    for (number, argument) in arguments.iter().enumerate() {
        let (flag, value) = match argument.split_once('=') {
            Some((flag, value)) => (flag, Some(value)),
            None => (argument.as_str(), arguments.get(number + 1).map(String::as_str)),
        };
        if FLAGS.contains(&flag) {
            folders.extend(value.map(PathBuf::from));
        }
    }
    folders
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refusal(path: &str) -> Option<String> {
        let protected = Protected::gather(std::process::id(), Path::new("/var/lib/none/journal"), &[]);
        protected.refuse(&mounts::of(Path::new(path)).unwrap())
    }

    #[test]
    fn the_root_filesystem_is_refused_whatever_path_leads_to_it() {
        for path in ["/", "/etc"] {
            let refusal = refusal(path);
            assert!(refusal.as_ref().is_some_and(|reason| reason.contains("root filesystem")), "{refusal:?}");
        }
    }

    #[test]
    fn what_cannot_freeze_is_refused_with_advice() {
        assert_eq!(refusal("/proc").unwrap(), "proc cannot freeze: pause the cgroups of its writers instead");
    }

    #[test]
    fn no_cgroup_that_this_program_runs_in_may_be_paused() {
        let root = Path::new("/sys/fs/cgroup");
        if members(root).is_empty() && members(&root.join("unified")).is_empty() {
            return;
        }
        let root = if members(root).is_empty() { root.join("unified") } else { root.to_owned() };
        assert!(refuse_pause(&root, std::process::id()).unwrap().contains("this very program"));
    }
}
