//! The cgroups of one self-test: what a container has, and something to pause.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
    thread,
    time::{Duration, Instant},
};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use uuid::Uuid;

use super::{LOOK, SelfTestError};
use crate::{guard::isolation, members::members, pause::Cgroup};

/// What the cgroups of a self-test are called; the tester's process id follows.
const PREFIX: &str = "stillpoint-self-test-";
/// How long the kill may take.
const KILLED: Duration = Duration::from_secs(5);

/// The cgroups of one self-test, removed with it.
pub(super) struct Bench {
    /// What a container has: one in every hierarchy.
    pub(super) containers: Vec<PathBuf>,
    /// What is paused.
    pub(super) subject: PathBuf,
}

impl Bench {
    pub(super) fn build(root: &Path) -> Result<Self, SelfTestError> {
        let missing = |why: String| SelfTestError::NoCgroupTree { root: root.to_owned(), why };
        let roots = isolation::hierarchies(root).map_err(|error| missing(error.to_string()))?;
        roots.iter().for_each(|root| sweep(root));
        let mut bench = Self { containers: Vec::new(), subject: PathBuf::new() };
        let name = format!("{PREFIX}{}.{}", std::process::id(), Uuid::new_v4());
        for root in &roots {
            let container = root.join(&name);
            isolation::make(&container)
                .map_err(|source| SelfTestError::CgroupTreeNotWritable { path: container.clone(), source })?;
            bench.containers.push(container);
        }
        let freezer = bench.containers.iter().find(|container| Cgroup::open(container).is_ok());
        let subject = freezer.ok_or(SelfTestError::NoFreezer)?.with_file_name(format!("{name}.subject"));
        isolation::make(&subject)
            .map_err(|source| SelfTestError::CgroupTreeNotWritable { path: subject.clone(), source })?;
        bench.subject = subject;
        Ok(bench)
    }

    /// Ends everything in the containers at once, as the end of a container does: a guard that is in any of them dies
    /// together with its caller, and not after it.
    pub(super) fn kill_containers(&self) -> Result<(), SelfTestError> {
        let deadline = Instant::now() + KILLED;
        loop {
            let members: BTreeSet<u32> = self.containers.iter().flat_map(|container| members(container)).collect();
            if members.is_empty() {
                return Ok(());
            }
            if Instant::now() >= deadline {
                return Err(SelfTestError::NotKilled(format!("the processes {members:?} do not end")));
            }
            members.iter().for_each(|pid| {
                let _ = kill(Pid::from_raw(pid.cast_signed()), Signal::SIGKILL);
            });
            for container in &self.containers {
                // kernels before 5.14, and the first generation, have no such file
                let _ = fs::write(container.join("cgroup.kill"), "1");
            }
            thread::sleep(LOOK);
        }
    }
}

impl Drop for Bench {
    fn drop(&mut self) {
        let _ = self.kill_containers();
        for cgroup in self.containers.iter().chain([&self.subject]) {
            let _ = fs::remove_dir(cgroup);
        }
    }
}

/// Removes what a self-test left whose process was killed.
fn sweep(root: &Path) {
    for entry in fs::read_dir(root).into_iter().flatten().flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        let tester = name.strip_prefix(PREFIX).and_then(|rest| rest.split('.').next());
        if tester.is_some_and(|pid| !Path::new("/proc").join(pid).exists()) {
            let _ = fs::remove_dir(entry.path());
        }
    }
}
