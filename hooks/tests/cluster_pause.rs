//! A pod of a real node stands still: found by its uid, paused by the guard, resumed, and nothing of it is restarted.

#![allow(clippy::unwrap_used)]

mod common;

use std::{fs, path::Path, time::Duration};

use common::{eventually, node::on_node};
use stillpoint_hooks::{
    guard::{Config, Guard, Kind, Stop},
    hook::pod::Pod,
    pods,
};

const WRITES: &str = "while :; do echo line >>/tmp/file; done >/dev/null 2>&1 & echo $!";

/// What a file of the pod's has in it, read past the pod's own processes.
fn length(process: u32) -> u64 {
    fs::metadata(format!("/proc/{process}/root/tmp/file")).map_or(0, |file| file.len())
}

fn restarts(pod: &k8s_openapi::api::core::v1::Pod) -> i32 {
    let statuses = pod.status.iter().filter_map(|status| status.container_statuses.as_ref()).flatten();
    statuses.map(|status| status.restart_count).sum()
}

/// Pauses a pod's writer by its cgroups in the hierarchies below `root`.
async fn pauses(root: &Path, file: &str) {
    on_node(async |node| {
        let pod: Pod = node.busybox("writer", &[]).await;
        node.shell(&pod, WRITES).await;
        let uid = pod.id.uid.clone().unwrap();
        let processes = pods::processes(&uid).unwrap();
        let writer = *processes.iter().find(|process| length(**process) > 0).unwrap();
        assert!(processes.len() > 2, "the sandbox, the container's first process and the writer: {processes:?}");
        let cgroups = pods::cgroups(root, &uid).unwrap();
        assert!(matches!(&cgroups[..], [only] if only.starts_with(root) && only.join(file).exists()), "{cgroups:?}");

        let folder = tempfile::tempdir().unwrap();
        let journal = folder.path().join("journal");
        let config = Config {
            program: env!("CARGO_BIN_EXE_stillpoint-guard").into(),
            journal: journal.clone(),
            ..Config::default()
        };
        let stop = Stop { pause: cgroups, max: Duration::from_secs(10), ..Stop::default() };
        let held = Guard::start(&config).await.unwrap().stop(&stop).await.unwrap();
        let paused = length(writer);
        tokio::time::sleep(Duration::from_millis(500)).await;
        assert_eq!(length(writer), paused, "it writes on");
        // the node itself goes on, and so do other pods
        node.busybox("other", &[]).await;
        let release = held.release().await;
        assert!(release.whole && release.targets.iter().all(|target| target.kind == Kind::Pause), "{release:?}");
        eventually("the writer goes on", async || length(writer) > paused).await;
        assert_eq!(pods::processes(&uid).unwrap(), processes, "the same processes run");
        assert_eq!(restarts(&node.pods().get("writer").await.unwrap()), 0);
        node.delete("writer").await;
        let is_gone = async || matches!(pods::processes(&uid), Err(pods::Error::NoProcess(_)));
        eventually("no process of a pod that is gone is found", is_gone).await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pods_writer_stands_still_by_the_second_generation_of_cgroups() {
    pauses(Path::new("/sys/fs/cgroup/unified"), "cgroup.freeze").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pods_writer_stands_still_by_the_first_generation_of_cgroups() {
    pauses(Path::new("/sys/fs/cgroup/freezer"), "freezer.state").await;
}
