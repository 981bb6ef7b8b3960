//! Which processes are in some cgroups, asked while they start others and end.
//!
//! A list of processes is old by the time it is read: who was started since is known by being where its parent is.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
};

use procfs::process::{Process, Stat};

/// The kernel's flag of a process that ends: it runs no program any more, and no cgroup lists it.
const ENDING: u32 = 0x4;

/// The processes that were in some cgroups.
#[derive(Debug, Default)]
pub(crate) struct Members {
    pids: BTreeSet<u32>,
    /// The cgroups that they were in, of all hierarchies.
    places: BTreeSet<String>,
}

impl Members {
    /// Those of these cgroups, and of those below them.
    pub(crate) fn of(cgroups: &[PathBuf]) -> Self {
        let pids: BTreeSet<u32> = cgroups.iter().flat_map(|cgroup| members(cgroup)).collect();
        let places = pids.iter().filter_map(|pid| place(*pid)).collect();
        Self { pids, places }
    }

    /// Whether a process is one of them, or was started by one since; one that ends does nothing elsewhere either.
    pub(crate) fn hold(&self, pid: u32) -> bool {
        let stat = || Process::new(pid.cast_signed()).and_then(|process| process.stat());
        self.hold_at(pid, place(pid).as_deref()) || stat().map_or(true, |stat| is_ending(&stat))
    }

    /// The same for a process that was seen in these cgroups, or in none because it ends.
    pub(crate) fn hold_at(&self, pid: u32, place: Option<&str>) -> bool {
        self.pids.contains(&pid) || place.is_none_or(|place| self.places.contains(place))
    }
}

/// The cgroups that a process is in, of all hierarchies.
pub(crate) fn place(pid: u32) -> Option<String> {
    fs::read_to_string(format!("/proc/{pid}/cgroup")).ok()
}

pub(crate) fn is_ending(stat: &Stat) -> bool {
    stat.flags & ENDING != 0
}

/// The processes in a cgroup and in those below it.
pub(crate) fn members(cgroup: &Path) -> BTreeSet<u32> {
    let mut folders = vec![cgroup.to_owned()];
    let mut found = BTreeSet::new();
    while let Some(folder) = folders.pop() {
        let processes = fs::read_to_string(folder.join("cgroup.procs")).unwrap_or_default();
        found.extend(processes.lines().filter_map(|pid| pid.parse::<u32>().ok()));
        let entries = fs::read_dir(&folder).into_iter().flatten().flatten();
        folders.extend(entries.filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir())).map(|e| e.path()));
    }
    found
}
