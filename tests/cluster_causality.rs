//! Backups of volumes and API at one instant, by the agent that `install` puts on a real node: what a naive backup
//! breaks holds.
//!
//! A counter goes from volume A to volume B to a ConfigMap C, each step after the answer to the last: at every instant
//! A ≥ B ≥ C ≥ A − 1. A copy that is not one instant shows numbers that never stood beside each other.

#![allow(clippy::unwrap_used)]

mod common;

use std::time::Duration;

use common::{
    agents::{Installed, with_agents},
    counter::{Counter, Numbers, holding, numbers},
    volumes::{IDLE, back_up, claim, pod},
};
use stillpoint_agent::{VolumesRequest, Way};
use stillpoint_api::{Level, Method};
use stillpoint_test_support::{loop_mount::LoopMount, require};

/// Backups of a run by freeze, and of one by pause; STILLPOINT_TEST_CUTS for more.
const CUTS: (u32, u32) = (20, 12);
/// What one of them may take on a loaded machine.
const BACKUP: Duration = Duration::from_secs(20);

fn cuts(usual: u32) -> u32 {
    std::env::var("STILLPOINT_TEST_CUTS").ok().and_then(|cuts| cuts.parse().ok()).unwrap_or(usual)
}

/// Filesystems for as long as a run may take.
fn mounts(kinds: [&str; 2], cuts: u32) -> [LoopMount; 2] {
    kinds.map(|kind| LoopMount::lasting(kind, BACKUP * cuts))
}

/// Takes backups while the counter goes on, by a method and without a stop; what the former hold.
async fn seen(
    installed: &Installed,
    counter: Counter,
    (asked, method): (Option<&str>, Method),
    cuts: u32,
) -> Vec<Numbers> {
    let (real, repository) = (&installed.real, installed.repository().await);
    let take = async |name: &str, method: Option<&str>, round| {
        let volumes = installed.volumes(&real.client, Way::Direct, Some(holding(round)));
        let volumes = VolumesRequest { method: method.map(str::to_owned), ..volumes };
        back_up(real, &repository, name, volumes).await.unwrap().manifest
    };
    let round = counter.round().await;
    let mut seen = Vec::new();
    for cut in 0..cuts {
        let name = format!("stopped-{cut}");
        let manifest = take(&name, asked, round).await;
        assert!(manifest.problems.is_empty(), "{:?}", manifest.problems);
        let mut held = manifest.volumes.iter().map(|volume| volume.data.held().unwrap());
        assert!(held.all(|held| (held.level, held.method) == (Level::Filesystem, method)), "{:?}", manifest.volumes);
        let window = manifest.cut.window.unwrap();
        assert!(window.from <= manifest.cut.read_at && manifest.cut.read_at <= window.to);
        let numbers = numbers(&repository, real, &name).await;
        assert!(numbers.stood_beside_each_other(), "{name}: {numbers:?}");
        seen.push(numbers);
    }
    assert!(seen.windows(2).all(|pair| pair[0].a < pair[1].a), "the counter stood still: {seen:?}");

    let mut broken = 0;
    let controls = cuts.div_ceil(2);
    for cut in 0..controls {
        let name = format!("live-{cut}");
        let volumes = take(&name, Some("live"), round).await.volumes;
        assert!(volumes.iter().all(|volume| volume.data.held().unwrap().level == Level::Fuzzy));
        broken += u32::from(!numbers(&repository, real, &name).await.stood_beside_each_other());
    }
    assert!(broken * 2 >= controls, "without a stop only {broken} of {controls} broke: the test proves nothing");
    counter.end().await;
    seen
}

#[tokio::test(flavor = "multi_thread")]
async fn volumes_and_api_are_one_instant_by_freeze_and_are_not_without_it() {
    let (Some(ext4), Some(xfs)) = (require::loop_device("ext4"), require::loop_device("xfs")) else { return };
    with_agents(async |installed| {
        let (cuts, real) = (cuts(CUTS.0), &installed.real);
        let [a, b] = mounts([ext4, xfs], cuts);
        claim(real, "a", &a.path()).await;
        claim(real, "b", &b.path()).await;
        pod(real, "holder", &["a", "b"], IDLE, &[]).await;
        let counter = Counter::of_this_process(real, &a.path(), &b.path()).await;
        let seen = seen(installed, counter, (None, Method::Precopy), cuts).await;
        assert!(seen.iter().any(Numbers::are_even) && seen.iter().any(Numbers::lack_b), "{seen:?}");
    })
    .await;
}

/// A pause stops whoever writes C too, between B and C: only it can show this.
async fn is_one_instant_by_pause(kinds: [&str; 2], method: Method) {
    let [Some(first), Some(second)] = kinds.map(require::loop_device) else { return };
    with_agents(async |installed| {
        let (cuts, real) = (cuts(CUTS.1), &installed.real);
        let [a, b] = mounts([first, second], cuts);
        claim(real, "a", &a.path()).await;
        claim(real, "b", &b.path()).await;
        let counter = Counter::of_a_pod(real, &a.path(), &b.path()).await;
        let seen = seen(installed, counter, (Some(&method.to_string()), method), cuts).await;
        assert!(seen.iter().any(Numbers::lack_c), "{seen:?}");
        for mount in [&a, &b] {
            let left = std::fs::read_dir(mount.path()).unwrap().map(|entry| entry.unwrap().file_name());
            assert!(!left.into_iter().any(|name| name.to_string_lossy().starts_with(".stillpoint")));
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn volumes_and_api_are_one_instant_by_pause_and_snapshots() {
    is_one_instant_by_pause(["btrfs", "btrfs"], Method::Btrfs).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn volumes_and_api_are_one_instant_by_pause_and_clones() {
    is_one_instant_by_pause(["xfs", "btrfs"], Method::Reflink).await;
}
