//! A pod's processes and cgroups on this host, found by the pod's uid alone.
//!
//! Whoever asks over the network names a pod, never a process or a cgroup; what kubelet calls a pod's cgroup is the one
//! thing that both of its cgroup drivers, both generations of cgroups and all container runtimes agree on. Processes are
//! searched in /proc, whose paths depend on the reader's cgroup namespace, and cgroups in the host's tree, whose do not.

use std::{
    collections::BTreeSet,
    fs, io,
    path::{Path, PathBuf},
};

use procfs::process::Process;

use crate::{guard, members::Members, pause::Cgroup};

/// Why a pod's processes or cgroups cannot be told.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// No uid has this form.
    #[error("{0:?} is not the uid of a pod")]
    NotAUid(String),
    /// The processes of this host cannot be read.
    #[error("cannot read the processes of this host: {0}")]
    Processes(#[from] procfs::ProcError),
    /// The cgroup hierarchies are not there.
    #[error("cannot read the cgroups of this host: {0}")]
    Hierarchies(String),
    /// No process of the pod is to be seen.
    #[error("no process of the pod {0} runs here, or this program does not see the host's processes (hostPID)")]
    NoProcess(String),
    /// Nothing that can be paused holds all of the pod's processes.
    #[error("no cgroup below {root} that can be paused holds all processes of the pod {uid}", root = root.display())]
    NoCgroup {
        /// The pod's uid.
        uid: String,
        /// Where the hierarchies were searched.
        root: PathBuf,
    },
}

/// The processes of the pod `uid`, in all of its containers.
///
/// # Errors
/// When there are none, or the processes of this host are not to be seen.
pub fn processes(uid: &str) -> Result<BTreeSet<u32>, Error> {
    check(uid)?;
    let found: BTreeSet<u32> = running(uid)?.collect();
    if found.is_empty() { Err(Error::NoProcess(uid.to_owned())) } else { Ok(found) }
}

/// The cgroups that hold all processes of the pod `uid`, to be paused; `root` is where the host's hierarchies are
/// mounted. Where the pod is in both generations, those of the second.
///
/// # Errors
/// When there are none.
pub fn cgroups(root: &Path, uid: &str) -> Result<Vec<PathBuf>, Error> {
    check(uid)?;
    let hierarchies = guard::freezers(root).map_err(|error| Error::Hierarchies(error.to_string()))?;
    for hierarchy in hierarchies {
        let found = below(&hierarchy, uid).map_err(|error| Error::Hierarchies(error.to_string()))?;
        let held = Members::of(&found);
        let outside = processes(uid)?.into_iter().any(|pid| !held.hold(pid));
        if !found.is_empty() && !outside && found.iter().all(|cgroup| Cgroup::open(cgroup).is_ok()) {
            return Ok(found);
        }
    }
    Err(Error::NoCgroup { uid: uid.to_owned(), root: root.to_owned() })
}

/// An empty uid, or one with a slash, would find what is nobody's.
fn check(uid: &str) -> Result<(), Error> {
    let fits = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-';
    if !uid.is_empty() && uid.bytes().all(fits) { Ok(()) } else { Err(Error::NotAUid(uid.to_owned())) }
}

fn running(uid: &str) -> Result<impl Iterator<Item = u32>, Error> {
    let all = procfs::process::all_processes()?;
    let pids = all.filter_map(Result::ok).map(|process| process.pid.unsigned_abs());
    Ok(pids.filter(move |pid| of_pod(*pid, uid)))
}

fn of_pod(pid: u32, uid: &str) -> bool {
    let cgroups = Process::new(pid.cast_signed()).and_then(|process| process.cgroups());
    cgroups.is_ok_and(|cgroups| cgroups.0.iter().any(|cgroup| cgroup.pathname.split('/').any(|name| names(name, uid))))
}

/// The pod's cgroups below a hierarchy's root; what is below them is theirs.
fn below(hierarchy: &Path, uid: &str) -> io::Result<Vec<PathBuf>> {
    let mut folders = vec![hierarchy.to_owned()];
    let mut found = Vec::new();
    while let Some(folder) = folders.pop() {
        let entries = match fs::read_dir(&folder) {
            Ok(entries) => entries,
            // removed meanwhile
            Err(error) if error.kind() == io::ErrorKind::NotFound && folder != hierarchy => continue,
            Err(error) => return Err(error),
        };
        for entry in entries.filter_map(Result::ok).filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir())) {
            let into = if names(&entry.file_name().to_string_lossy(), uid) { &mut found } else { &mut folders };
            into.push(entry.path());
        }
    }
    Ok(found)
}

/// Whether a cgroup is called as kubelet calls that of the pod: `pod<uid>`, or by systemd's rules
/// `kubepods-burstable-pod<uid>.slice` with `_` for `-`.
fn names(cgroup: &str, uid: &str) -> bool {
    let slice = cgroup.strip_suffix(".slice").and_then(|slice| slice.rsplit_once("-pod"));
    cgroup.strip_prefix("pod") == Some(uid) || slice.is_some_and(|(_, name)| name == uid.replace('-', "_"))
}

#[cfg(test)]
mod tests {
    use super::*;

    const UID: &str = "0f1a2b3c-4d5e-6f70-8192-a3b4c5d6e7f8";

    #[test]
    fn a_pod_is_known_by_the_names_of_both_drivers_and_by_no_other() {
        let underscores = UID.replace('-', "_");
        for yes in [
            format!("pod{UID}"),
            format!("kubepods-burstable-pod{underscores}.slice"),
            format!("kubepods-pod{underscores}.slice"),
            format!("kubelet-kubepods-besteffort-pod{underscores}.slice"),
        ] {
            assert!(names(&yes, UID), "{yes}");
        }
        for no in [
            format!("pod{UID}0"),
            format!("xpod{UID}"),
            format!("kubepods-burstable-pod{UID}.slice"),
            format!("kubepods-burstable-pod{underscores}0.slice"),
            format!("kubepods-burstable-pod{underscores}"),
            "kubepods-burstable.slice".to_owned(),
            "pod".to_owned(),
        ] {
            assert!(!names(&no, UID), "{no}");
        }
        // a static pod's uid is a hash
        assert!(names("kubepods-burstable-pod0a1b2c.slice", "0a1b2c") && names("pod0a1b2c", "0a1b2c"));
    }

    #[test]
    fn what_is_no_uid_finds_nothing() {
        for uid in ["", "..", "a/b", "a_b"] {
            assert!(matches!(processes(uid), Err(Error::NotAUid(_))), "{uid}");
        }
        assert!(matches!(processes(UID), Err(Error::NoProcess(_))));
    }

    #[test]
    fn cgroups_are_found_at_any_depth() {
        let root = tempfile::tempdir().unwrap();
        let pods = ["kubepods/besteffort/other", &format!("kubepods/burstable/pod{UID}/container")];
        pods.iter().for_each(|pod| fs::create_dir_all(root.path().join(pod)).unwrap());
        assert_eq!(below(root.path(), UID).unwrap(), [root.path().join(format!("kubepods/burstable/pod{UID}"))]);
    }
}
