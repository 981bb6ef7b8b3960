//! A pod's processes and cgroups are found by its uid, in both generations and by both drivers' names.

use std::{fs, path::Path};

use stillpoint_hooks::{guard::Stop, pods, strangers::Writers};
use stillpoint_test_support::{loop_mount::LoopMount, require};

use crate::{
    common::{Desk, freeze, wait_for},
    deaths::Group,
    pause::Member,
};

/// A container's cgroup as kubelet and a runtime make it, below a test's own.
struct PodGroup {
    container: Option<Group>,
    pod: Option<Group>,
    _kubepods: Group,
}

impl PodGroup {
    fn new(kubepods: Group, pod: &str) -> Self {
        let pod = Group::at(kubepods.0.join(pod));
        let container = Group::at(pod.0.join("container"));
        Self { container: Some(container), pod: Some(pod), _kubepods: kubepods }
    }

    fn container(&self) -> &Group {
        self.container.as_ref().unwrap()
    }

    fn path(&self) -> &Path {
        &self.pod.as_ref().unwrap().0
    }
}

impl Drop for PodGroup {
    fn drop(&mut self) {
        // the inner ones first
        self.container = None;
        self.pod = None;
    }
}

async fn is_found_and_paused(group: Option<Group>, uid: &str, name: &str) {
    let Some(group) = group else { return };
    let root = group.0.parent().unwrap().to_owned();
    let (pod, desk) = (PodGroup::new(group, name), Desk::new());
    assert!(matches!(pods::processes(uid), Err(pods::Error::NoProcess(_))));
    assert!(matches!(pods::cgroups(&root, uid), Err(pods::Error::NoProcess(_))));
    let file = desk.folder.path().join("file");
    let writer = Member::start(pod.container(), r#"while :; do echo line >> "$1"; done"#, &file);
    let length = || fs::metadata(&file).map_or(0, |file| file.len());
    wait_for("the writer", || length() > 0);
    assert_eq!(pods::processes(uid).unwrap().into_iter().collect::<Vec<_>>(), [writer.pid()]);
    assert_eq!(pods::cgroups(&root, uid).unwrap(), [pod.path()]);
    // nothing that can be paused is to be found elsewhere
    assert!(pods::cgroups(Path::new("/sys/fs/cgroup/pids"), uid).is_err());
    let stop = Stop { pause: pods::cgroups(&root, uid).unwrap(), ..freeze(&[]) };
    let held = desk.stop(&stop).await;
    let paused = length();
    tokio::time::sleep(std::time::Duration::from_millis(100)).await;
    assert_eq!(length(), paused);
    assert!(held.release().await.whole);
    wait_for("the writer to go on", || length() > paused);
}

#[tokio::test]
async fn a_pod_of_the_cgroupfs_driver_is_found_in_the_second_generation() {
    let uid = "5a0c1c50-0000-4000-8000-000000000001";
    is_found_and_paused(Group::v2("cgroupfs"), uid, &format!("pod{uid}")).await;
}

#[tokio::test]
async fn a_pod_of_the_systemd_driver_is_found_in_the_first_generation() {
    let uid = "5a0c1c50-0000-4000-8000-000000000002";
    let slice = "kubepods-burstable-pod5a0c1c50_0000_4000_8000_000000000002.slice";
    is_found_and_paused(Group::v1("systemd"), uid, slice).await;
}

/// A hybrid's pod that is in one generation only: the other's cgroup of its name is empty.
#[tokio::test]
async fn cgroups_that_do_not_hold_all_of_a_pod_are_not_paused() {
    let uid = "5a0c1c50-0000-4000-8000-000000000003";
    let Some(root) = require::cgroup(require::Freezer::V1) else { return };
    let (Some(second), Some(first)) = (Group::v2("empty"), Group::v1("full")) else { return };
    let empty = PodGroup::new(second, &format!("pod{uid}"));
    let full = PodGroup::new(first, &format!("pod{uid}"));
    let _writer = Member::start(full.container(), "exec sleep 600", Path::new("/"));
    wait_for("the process", || pods::processes(uid).is_ok());
    assert_eq!(pods::cgroups(root.parent().unwrap(), uid).unwrap(), [full.path()]);
    drop(empty);
}

/// Starts a process for each write.
const STARTS: &str = r#"while :; do echo line | dd of="$1" conv=notrunc,fsync 2>/dev/null; done"#;

#[test]
fn who_starts_processes_all_the_time_is_found_whole_and_has_no_strangers_among_them() {
    let uid = "5a0c1c50-0000-4000-8000-000000000004";
    let (Some(kind), Some(group)) = (require::loop_device("ext4"), Group::v2("starts")) else { return };
    let (mount, root) = (LoopMount::new(kind), group.0.parent().unwrap().to_owned());
    let pod = PodGroup::new(group, &format!("pod{uid}"));
    let _writer = Member::start(pod.container(), STARTS, &mount.path().join("file"));
    wait_for("the writer", || mount.path().join("file").exists());
    for _ in 0..200 {
        let cgroups = pods::cgroups(&root, uid).unwrap();
        assert_eq!(cgroups, [pod.path()]);
        assert_eq!(Writers::look().strangers(&mount.path(), &cgroups).unwrap().into_iter().collect::<Vec<_>>(), []);
    }
}
