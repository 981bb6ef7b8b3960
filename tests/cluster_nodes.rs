//! One cut over two nodes, the second of which the test lays out on this machine.

#![allow(clippy::unwrap_used, clippy::print_stderr)]

mod common;

use std::{
    num::NonZeroU32,
    panic::{AssertUnwindSafe, resume_unwind},
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use common::{
    agents::{Installed, with_agents},
    cluster::eventually,
    counter::{Counter, Numbers, holding, numbers},
    second_node::{self, SecondNode},
    volumes::{IDLE, back_up, claim, claim_on, file, pod, writes},
};
use futures::FutureExt;
use rand::RngExt;
use stillpoint_agent::{Access, OnStep, Step, VolumesRequest, Way};
use stillpoint_api::{Level, ProblemKind};
use stillpoint_test_support::{loop_mount::LoopMount, require};

const CUTS: usize = 8;

/// Runs a test with a volume `a` on the first node and a volume `b` on the second.
async fn on_two_nodes(test: impl AsyncFnOnce(&Installed, &LoopMount, &LoopMount, SecondNode) -> SecondNode) {
    let (Some(ext4), Some(xfs)) = (require::loop_device("ext4"), require::loop_device("xfs")) else { return };
    with_agents(async |installed| {
        let Some(mut node) = SecondNode::start(installed).await else { return };
        let [a, b] = [ext4, xfs].map(|kind| LoopMount::lasting(kind, Duration::from_secs(120)));
        let real = &installed.real;
        claim(real, "a", &a.path()).await;
        claim_on(real, &node.name, "b", &b.path()).await;
        pod(real, "first", &["a"], IDLE, &[]).await;
        node.pod(installed, "second", "b", &b.path()).await;
        let name = node.name.clone();
        let ended = AssertUnwindSafe(test(installed, &a, &b, node)).catch_unwind().await;
        second_node::remove(installed, &name).await;
        if let Err(panicked) = ended {
            resume_unwind(panicked);
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn volumes_of_two_nodes_and_the_api_are_one_instant() {
    on_two_nodes(async |installed, a, b, node| {
        let (real, repository) = (&installed.real, installed.repository().await);
        let counter = Counter::of_this_process(real, &a.path(), &b.path()).await;
        let round = counter.round().await;
        let mut seen = Vec::new();
        for cut in 0..CUTS {
            let name = format!("two-{cut}");
            let volumes = installed.volumes(&real.client, Way::Direct, Some(holding(round)));
            let manifest = back_up(real, &repository, &name, volumes).await.unwrap().manifest;
            assert!(manifest.problems.is_empty(), "{:?}", manifest.problems);
            let held: Vec<_> = manifest.volumes.iter().map(|volume| volume.data.held().unwrap()).collect();
            assert!(held.iter().all(|held| held.level == Level::Filesystem));
            assert!(held[0].node != node.name && held[1].node == node.name, "{held:?}");
            let numbers = numbers(&repository, real, &name).await;
            assert!(numbers.stood_beside_each_other(), "{name}: {numbers:?}");
            seen.push(numbers);
        }
        assert!(seen.windows(2).all(|pair| pair[0].a < pair[1].a), "the counter stood still: {seen:?}");
        assert!(seen.iter().any(Numbers::lack_b) || seen.iter().any(Numbers::are_even), "{seen:?}");
        counter.end().await;
        node
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn of_two_agents_one_is_killed_while_writers_stand_still_and_the_cut_is_taken_without_it_by_name() {
    on_two_nodes(async |installed, a, b, node| {
        let (real, repository) = (&installed.real, installed.repository().await);
        for (mount, content) in [(a, "of a"), (b, "of b")] {
            std::fs::write(mount.path().join("file"), content).unwrap();
        }
        let name = node.name.clone();
        let node = Arc::new(Mutex::new(node));
        let (victim, steps, frozen) = (node.clone(), Arc::new(AtomicU64::new(0)), b.path());
        let on_step: OnStep = Arc::new(move |step| {
            if step != Step::Revision || steps.fetch_add(1, Ordering::Relaxed) > 0 {
                return std::future::ready(()).boxed();
            }
            victim.lock().unwrap().kill_agent();
            writes(frozen.join("after"), Duration::from_secs(1)).boxed()
        });
        let volumes = installed.volumes(&real.client, Way::Direct, Some(on_step));
        let volumes = VolumesRequest { return_within: Duration::from_secs(3), ..volumes };
        let manifest = back_up(real, &repository, "killed", volumes).await.unwrap().manifest;
        for mount in [a, b] {
            writes(mount.path().join("after"), Duration::from_secs(1)).await;
        }
        assert_eq!(manifest.cut.attempts, 2);
        let [problem] = &manifest.problems[..] else { panic!("{:?}", manifest.problems) };
        let claim = format!("persistentvolumeclaims.core/{}/b", real.namespace);
        assert_eq!((problem.kind, &problem.subject), (ProblemKind::Volume, &claim));
        assert!(problem.message.contains(&name), "{problem:?}");
        let held: Vec<_> = manifest.volumes.iter().map(|volume| volume.data.held().is_some()).collect();
        assert_eq!(held, [true, false]);
        assert_eq!(file(&repository, "killed", "a", "file").await.unwrap(), b"of a");

        node.lock().unwrap().start_agent();
        let volumes = installed.volumes(&real.client, Way::Direct, None);
        let next = back_up(real, &repository, "next", volumes).await.unwrap().manifest;
        assert!(next.problems.is_empty() && next.cut.attempts == 1, "{:?}", next.problems);
        assert_eq!(file(&repository, "next", "b", "file").await.unwrap(), b"of b");
        Arc::into_inner(node).unwrap().into_inner().unwrap()
    })
    .await;
}

/// What is sent in a second, so that an upload lasts.
const SECOND: u64 = 2 << 20;
/// Some packs of it wait to be sent when it is stopped: the kill must come well before that.
const VOLUME: usize = 208 << 20;

#[tokio::test(flavor = "multi_thread")]
async fn an_agent_that_is_killed_in_the_upload_and_is_back_soon_goes_on_with_what_it_had_not_uploaded() {
    on_two_nodes(async |installed, _, b, mut node| {
        let (real, repository) = (&installed.real, installed.repository().await);
        let mut content = vec![0; VOLUME];
        rand::rng().fill(&mut content[..]);
        std::fs::write(b.path().join("file"), &content).unwrap();
        let volumes = installed.volumes(&real.client, Way::Direct, None);
        let access = Access { limit_upload: NonZeroU32::new(u32::try_from(SECOND >> 10).unwrap()), ..volumes.access };
        let volumes = VolumesRequest { access, ..volumes };
        let backup = back_up(real, &repository, "goes-on", volumes);
        let at_the_kill = async {
            let uploaded = async |folder: &str| installed.bytes_in(folder).await;
            // what a writer has uploaded is indexed every 15 s
            let is_indexed = async || uploaded("index").await > 0 && uploaded("data").await > 22 * SECOND;
            eventually("what was uploaded is indexed", is_indexed).await;
            let uploaded = uploaded("data").await;
            node.kill_agent();
            node.start_agent();
            uploaded
        };
        let (report, at_the_kill) = tokio::join!(backup, at_the_kill);
        let manifest = report.unwrap().manifest;
        assert!(manifest.problems.is_empty(), "{:?}", manifest.problems);
        let again = installed.bytes_in("data").await.saturating_sub(VOLUME as u64);
        let mib = |bytes: u64| bytes >> 20;
        let (uploaded, again_mib, cuts) = (mib(at_the_kill), mib(again), manifest.cut.attempts);
        eprintln!("of {} MiB {uploaded} were uploaded at the kill, {again_mib} again; {cuts} cuts", VOLUME >> 20);
        // the first 15 s were indexed, but for a pack or two that were not full
        assert!(again < at_the_kill - 10 * SECOND, "{again} bytes were uploaded again");
        let copy = file(&repository, "goes-on", "b", "file").await.unwrap();
        assert!(copy == content, "the copy differs");
        node
    })
    .await;
}
