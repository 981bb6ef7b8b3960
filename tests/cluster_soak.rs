//! Backups under load, one after the other: memory and descriptors stay flat, and nothing is left on the node.
//!
//! For as long as STILLPOINT_TEST_SOAK says in seconds. The agent is the installed one; the coordinator is this process.

#![allow(clippy::unwrap_used, clippy::print_stderr)]

mod common;

use std::{
    fs,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use common::{
    agents::{Installed, with_agents},
    cluster::eventually,
    volumes::{back_up, claim, pod},
};
use stillpoint_agent::Way;
use stillpoint_api::{Level, Method};
use stillpoint_repository::{Control, PruneRequest};
use stillpoint_test_support::{loop_mount::LoopMount, require};

/// Backups whose snapshots stay in the repository.
const KEPT: usize = 3;
/// Backups between prunes: what is held grows with the repository's index, which is not what is looked for.
const PRUNED_EVERY: usize = 10;
/// What a second half may hold more than a first: the allocator gives little back.
const SPARE_KIB: u64 = 16 << 10;
/// Where an agent keeps what outlives it.
const STATE: &str = "/var/lib/stillpoint";

/// What a process holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Holds {
    descriptors: usize,
    kib: u64,
}

impl Holds {
    fn now(pid: u32) -> Self {
        let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
        let kib = line.trim().trim_end_matches(" kB").parse().unwrap();
        Self { descriptors: fs::read_dir(format!("/proc/{pid}/fd")).unwrap().count(), kib }
    }

    /// The middle of what was held.
    fn usual(of: &[Self]) -> Self {
        let middle = |mut values: Vec<u64>| {
            values.sort_unstable();
            values[values.len() / 2]
        };
        let descriptors = middle(of.iter().map(|holds| holds.descriptors as u64).collect());
        Self { descriptors: usize::try_from(descriptors).unwrap(), kib: middle(of.iter().map(|h| h.kib).collect()) }
    }
}

/// What a process held after each backup is no more in the later ones than in the earlier.
fn is_flat(who: &str, held: &[Holds]) {
    // what is held for good is held by then
    let settled = &held[held.len() / 3..];
    let (first, second) = settled.split_at(settled.len() / 2);
    let (first, second) = (Holds::usual(first), Holds::usual(second));
    eprintln!("{who}: {first:?}, then {second:?}");
    // a pool may open one more connection; what every backup leaks is more than that, a third of them later
    let more = (held.len() / 4).max(5);
    assert!(second.descriptors <= first.descriptors + more, "{who}: {held:?}");
    assert!(second.kib <= first.kib + SPARE_KIB, "{who}: {held:?}");
}

/// A pod's script that makes, rewrites and removes files, some hundred a second.
fn writes_to(folder: &str) -> String {
    format!(
        "n=0; while :; do n=$((n+1)); echo $n >{folder}/$((n%300)); sync {folder}/$((n%300)); \
         mv {folder}/$((n%300)) {folder}/moved-$((n%70)); rm -f {folder}/moved-$((n%90)); usleep 5000; done"
    )
}

/// Names below a folder that hold these words, folders of processes and cgroups that come and go included.
fn names(folder: &Path, words: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            found.extend(names(&entry.path(), words));
        }
        if entry.file_name().to_string_lossy().contains(words) {
            found.push(entry.path());
        }
    }
    found
}

#[tokio::test(flavor = "multi_thread")]
async fn backups_under_load_hold_no_more_with_time_and_leave_nothing() {
    let (Some(ext4), Some(xfs)) = (require::loop_device("ext4"), require::loop_device("xfs")) else { return };
    with_agents(async |installed| {
        let seconds = std::env::var("STILLPOINT_TEST_SOAK").ok().and_then(|seconds| seconds.parse().ok()).unwrap_or(20);
        let lasts = Duration::from_secs(seconds);
        let (a, b) = (LoopMount::lasting(ext4, lasts), LoopMount::lasting(xfs, lasts));
        let (real, repository) = (&installed.real, installed.repository().await);
        claim(real, "a", &a.path()).await;
        claim(real, "b", &b.path()).await;
        pod(real, "frozen", &["a"], &writes_to("/a"), &[]).await;
        pod(real, "paused", &["b"], &writes_to("/b"), &[("stillpoint.dev/volume-method", "reflink")]).await;

        let agents = Installed::agent_pids();
        let (began, mut held, mut of_agent, mut snapshots) = (Instant::now(), Vec::new(), Vec::new(), Vec::new());
        while began.elapsed() < lasts || held.len() < 6 {
            let name = format!("soak-{}", held.len());
            let volumes = installed.volumes(&real.client, Way::Direct, None);
            let report = back_up(real, &repository, &name, volumes).await.unwrap();
            assert!(report.manifest.problems.is_empty(), "{name}: {:?}", report.manifest.problems);
            let methods: Vec<_> = report.manifest.volumes.iter().map(|volume| volume.data.held().unwrap()).collect();
            let methods: Vec<_> = methods.iter().map(|held| (held.method, held.level)).collect();
            assert_eq!(methods, [(Method::Precopy, Level::Filesystem), (Method::Reflink, Level::Filesystem)]);
            snapshots.push(report.committed.snapshot);
            if snapshots.len() > KEPT {
                repository.forget(&snapshots.remove(0)).await.unwrap();
            }
            if held.len() % PRUNED_EVERY == 0 {
                let (request, control) = (PruneRequest::default(), Control::default());
                let prune = repository.prune(&request, &control).await.unwrap();
                prune.execute(&control).await.unwrap();
            }
            held.push(Holds::now(std::process::id()));
            of_agent.push(Holds::now(agents[0]));
        }
        eprintln!("{} backups in {:.0} s", held.len(), began.elapsed().as_secs_f64());
        is_flat("the coordinator", &held);
        is_flat("the agent", &of_agent);
        assert_eq!(Installed::agent_pids(), agents, "the agent did not live through it");

        for mount in [&a, &b] {
            let file = mount.path().join("goes-on");
            let write = tokio::task::spawn_blocking(move || fs::write(file, "").unwrap());
            tokio::time::timeout(Duration::from_secs(1), write).await.expect("it is still frozen").unwrap();
            assert_eq!(names(&mount.path(), ".stillpoint").len(), 0);
        }
        assert_eq!(names(&Path::new(STATE).join("spool"), "").len(), 0);
        assert_eq!(names(&Path::new(STATE).join("journal"), ".journal").len(), 0);
        // other tests have guards of their own
        let guards = || names(Path::new("/sys/fs/cgroup"), "stillpoint-guard");
        eventually("no guard is left", async || guards().is_empty()).await;
        let parts = repository.snapshots().await.unwrap();
        assert_eq!(parts.len(), snapshots.len(), "only backups are in the repository");
    })
    .await;
}
