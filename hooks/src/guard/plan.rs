//! What a guard is going to stop, looked up and found fit: a value that is computed before anything happens.
//!
//! Everything that can be refused is refused here, all of it at once and by name, so that an operator does not find one
//! reason after the other.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::{Path, PathBuf},
};

use super::{
    protocol::{Failure, Kind, Stop},
    target::Subject,
};
use crate::{
    journal::{self, Identity, Intent},
    mounts::{self, Device, Filesystem},
    pause::Cgroup,
    refusal::{self, Protected},
    strangers,
};

/// What is going to be stopped.
#[derive(Debug)]
pub(crate) struct Plan {
    pub(crate) targets: Vec<Planned>,
}

#[derive(Debug)]
pub(crate) struct Planned {
    pub(crate) kind: Kind,
    pub(crate) path: PathBuf,
    pub(crate) subject: Subject,
}

impl Plan {
    /// Looks everything up, and refuses by name what must not be stopped.
    pub(crate) fn resolve(stop: &Stop, caller: u32, journal: &Path) -> Result<Self, Vec<Failure>> {
        let mut resolving = Resolving { caller, targets: Vec::new(), failures: Vec::new() };
        let protected = Protected::gather(caller, journal, &stop.protect);
        resolving.cgroups(&stop.pause, Kind::Pause);
        resolving.cgroups(&stop.rescue, Kind::Rescue);
        resolving.filesystems(&stop.drain, Kind::Drain, &protected);
        resolving.filesystems(&stop.freeze, Kind::Freeze, &protected);
        resolving.refuse_stacks();
        if stop.drain.is_empty() && stop.freeze.is_empty() {
            resolving.refuse_io_in_flight(&stop.pause);
        }
        let Resolving { targets, mut failures, .. } = resolving;
        if targets.is_empty() && failures.is_empty() {
            failures.push(Failure { name: "guard".to_owned(), reason: "there is nothing to stop".to_owned() });
        }
        if failures.is_empty() { Ok(Self { targets }) } else { Err(failures) }
    }

    /// What the journal says of it.
    pub(crate) fn intent(&self, caller: u32) -> Result<Intent, journal::Error> {
        let targets = self.targets.iter().map(Planned::journalled).collect();
        Ok(Intent { boot: journal::boot()?, guard: std::process::id(), caller, targets })
    }
}

impl Planned {
    fn journalled(&self) -> journal::Target {
        let identity = match &self.subject {
            Subject::Filesystem(filesystem) => Identity::Filesystem {
                device: filesystem.device.clone(),
                kind: filesystem.kind.clone(),
                uuid: mounts::uuid(filesystem),
            },
            Subject::Cgroup(cgroup) => Identity::Cgroup { inode: cgroup.inode() },
        };
        journal::Target { kind: self.kind, path: self.path.clone(), identity }
    }

    fn filesystem(&self) -> Option<&Filesystem> {
        match &self.subject {
            Subject::Filesystem(filesystem) => Some(filesystem),
            Subject::Cgroup(_) => None,
        }
    }
}

struct Resolving {
    caller: u32,
    targets: Vec<Planned>,
    failures: Vec<Failure>,
}

impl Resolving {
    fn fail(&mut self, path: &Path, reason: String) {
        self.failures.push(Failure { name: path.display().to_string(), reason });
    }

    fn cgroups(&mut self, paths: &[PathBuf], kind: Kind) {
        let mut known = BTreeSet::new();
        for path in paths {
            let cgroup = match Cgroup::open(path) {
                Ok(cgroup) => cgroup,
                Err(error) => {
                    self.fail(path, error.to_string());
                    continue;
                }
            };
            if !known.insert(cgroup.inode()) {
                continue;
            }
            match refusal::refuse_pause(path, self.caller) {
                Some(reason) => self.fail(path, reason),
                None => self.targets.push(Planned { kind, path: path.clone(), subject: Subject::Cgroup(cgroup) }),
            }
        }
    }

    /// Two paths on one filesystem are one target: a second freeze of it would find it frozen.
    fn filesystems(&mut self, paths: &[PathBuf], kind: Kind, protected: &Protected) {
        let mut known = BTreeSet::new();
        for path in paths {
            let filesystem = match mounts::of(path) {
                Ok(filesystem) => filesystem,
                Err(error) => {
                    self.fail(path, error.to_string());
                    continue;
                }
            };
            if let Some(reason) = protected.refuse(&filesystem) {
                self.fail(path, reason);
            } else if known.insert(filesystem.device.clone()) {
                let subject = Subject::Filesystem(filesystem);
                self.targets.push(Planned { kind, path: path.clone(), subject });
            }
        }
    }

    /// A pause ends no I/O in flight: without a drain or a freeze, who may have some cannot be paused.
    fn refuse_io_in_flight(&mut self, cgroups: &[PathBuf]) {
        for cgroup in cgroups {
            for (pid, how) in strangers::with_io_in_flight(std::slice::from_ref(cgroup)) {
                self.fail(
                    cgroup,
                    format!("process {pid} uses {how}, which goes on under a pause: drain its filesystem"),
                );
            }
        }
    }

    /// Of two filesystems of which one lies in a file on the other, the inner one's freeze would wait for the outer.
    fn refuse_stacks(&mut self) {
        let filesystems = || self.targets.iter().filter_map(Planned::filesystem);
        let devices: BTreeMap<Device, PathBuf> = filesystems().map(|fs| (fs.device.clone(), fs.path.clone())).collect();
        let mut stacked = Vec::new();
        for filesystem in filesystems() {
            let below = refusal::beneath(filesystem);
            stacked.extend(
                below.iter().filter_map(|device| Some((filesystem.path.clone(), devices.get(device)?.clone()))),
            );
        }
        for (inner, outer) in stacked {
            self.fail(&inner, format!("it lies in a file on {}: stop them one after the other", outer.display()));
        }
    }
}
