//! Pausing cgroups of both generations, what it holds and what it does not.

use std::{
    fs::{self, File},
    os::fd::OwnedFd,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::Duration,
};

use nix::unistd::Pid;
use stillpoint_hooks::guard::{Guard, Kind, Outcome, Reason, Stop};
use stillpoint_test_support::{loop_mount::LoopMount, require};

use crate::{
    caller::writable_within,
    common::{Desk, freeze, wait_for},
    deaths::Group,
};

/// A process of a test's own in a cgroup of its own.
pub(crate) struct Member {
    child: Child,
}

impl Member {
    /// Runs a shell script that says `ready` when it is, in `group` from the start.
    pub(crate) fn start(group: &Group, script: &str, argument: &Path) -> Self {
        let script = format!("read _; {script}");
        let mut command = Command::new("bash");
        command.args(["-c", &script, "member"]).arg(argument).stdin(Stdio::piped()).stdout(Stdio::null());
        let mut child = command.spawn().unwrap();
        group.add(Pid::from_raw(child.id().cast_signed()));
        std::io::Write::write_all(child.stdin.as_mut().unwrap(), b"\n").unwrap();
        Self { child }
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }
}

impl Drop for Member {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

pub(crate) fn pause(group: &Group) -> Stop {
    Stop { pause: vec![group.0.clone()], ..freeze(&[]) }
}

fn length(path: &Path) -> u64 {
    fs::metadata(path).map_or(0, |metadata| metadata.len())
}

const APPENDS: &str = r#"while :; do echo line >> "$1"; done"#;

async fn a_writer_pauses(group: Option<Group>) {
    let Some(()) = require::root() else { return };
    let Some(group) = group else { return };
    let desk = Desk::new();
    let file = desk.folder.path().join("file");
    let _writer = Member::start(&group, APPENDS, &file);
    wait_for("the writer", || length(&file) > 0);
    let held = desk.stop(&pause(&group)).await;
    let paused = length(&file);
    tokio::time::sleep(Duration::from_millis(100)).await;
    assert_eq!(length(&file), paused);
    let release = held.release().await;
    assert!(release.whole && release.targets[0].kind == Kind::Pause, "{release:?}");
    wait_for("the writer to go on", || length(&file) > paused);
    desk.wait_until_empty();
}

#[tokio::test]
async fn a_cgroup_of_the_second_generation_pauses_and_resumes() {
    a_writer_pauses(Group::v2("pause")).await;
}

#[tokio::test]
async fn a_cgroup_of_the_first_generation_pauses_and_resumes() {
    a_writer_pauses(Group::v1("pause")).await;
}

async fn a_stranger_resumes(group: Option<Group>, file: &str, resumed: &str) {
    let Some(()) = require::root() else { return };
    let Some(group) = group else { return };
    let desk = Desk::new();
    let _writer = Member::start(&group, APPENDS, &desk.folder.path().join("file"));
    let mut held = desk.stop(&pause(&group)).await;
    fs::write(group.0.join(file), resumed).unwrap();
    held.lost().await;
    let release = held.release().await;
    assert!(!release.whole && release.reason == Reason::ReleasedByAnother, "{release:?}");
    assert_eq!(release.targets[0].held, Outcome::ReleasedByAnother);
}

#[tokio::test]
async fn a_stranger_who_resumes_the_second_generation_is_noticed() {
    a_stranger_resumes(Group::v2("resume"), "cgroup.freeze", "0").await;
}

#[tokio::test]
async fn a_stranger_who_resumes_the_first_generation_is_noticed() {
    a_stranger_resumes(Group::v1("resume"), "freezer.state", "THAWED").await;
}

#[tokio::test]
async fn a_pause_that_was_there_before_is_refused_and_never_resumed() {
    let Some(()) = require::root() else { return };
    let groups = [(Group::v2("before"), "cgroup.freeze", "1"), (Group::v1("before"), "freezer.state", "FROZEN")];
    for (group, file, paused) in groups {
        let Some(group) = group else { continue };
        let desk = Desk::new();
        fs::write(group.0.join(file), paused).unwrap();
        let guard = Guard::start(&desk.config()).await.unwrap();
        let error = guard.stop(&pause(&group)).await.unwrap_err().to_string();
        assert!(error.contains("it was paused before"), "{error}");
        desk.wait_until_empty();
        assert_eq!(fs::read_to_string(group.0.join(file)).unwrap().trim(), paused);
    }
}

#[tokio::test]
async fn a_cgroup_of_this_program_or_of_the_node_is_refused() {
    let Some(()) = require::root() else { return };
    let Some(group) = Group::v2("node") else { return };
    let desk = Desk::new();
    let kubelet = desk.folder.path().join("kubelet");
    fs::copy("/bin/sleep", &kubelet).unwrap();
    let _kubelet = Member::start(&group, r#"exec "$1" 600"#, &kubelet);
    wait_for("the program", || {
        fs::read_to_string(group.0.join("cgroup.procs"))
            .unwrap()
            .lines()
            .any(|pid| fs::read_to_string(format!("/proc/{pid}/comm")).is_ok_and(|name| name.trim() == "kubelet"))
    });
    assert!(desk.refused(&pause(&group)).await.contains("it must not be paused: kubelet"));
}

#[tokio::test]
async fn a_pause_and_a_freeze_together_pause_first_and_resume_last() {
    let Some(kind) = require::loop_device("ext4") else { return };
    let Some(group) = Group::v2("both") else { return };
    let (mount, desk) = (LoopMount::new(kind), Desk::new());
    let file = mount.path().join("file");
    let _writer = Member::start(&group, APPENDS, &file);
    wait_for("the writer", || length(&file) > 0);
    let stop = Stop { pause: vec![group.0.clone()], ..freeze(&[&mount.path()]) };
    for _ in 0..10 {
        let release = desk.stop(&stop).await.release().await;
        assert!(release.whole && release.targets.len() == 2, "{release:?}");
        let window = |kind| release.targets.iter().find(|target| target.kind == kind).unwrap().window_ms;
        assert!(window(Kind::Pause) > window(Kind::Freeze), "{release:?}");
    }
}

/// Two files written in turn, a block at a time.
const IN_TURN: &str = r#"python3 -c '
import os, sys
a, b = (os.open(os.path.join(sys.argv[1], name), os.O_CREAT | os.O_WRONLY) for name in "ab")
while True:
    os.write(a, b"x" * 4096)
    os.write(b, b"x" * 4096)
' "$1""#;

/// How many of some snapshots of two files written in turn hold the second without the first.
async fn broken(mount: &LoopMount, desk: &Desk, stop: Option<&Stop>, snapshots: usize) -> usize {
    let mut broken = 0;
    for number in 0..snapshots {
        let held = match stop {
            Some(stop) => Some(desk.stop(stop).await),
            None => None,
        };
        let snapshot = mount.path().join(format!("snapshot-{number}"));
        let mut command = Command::new("btrfs");
        command.args(["subvolume", "snapshot", "-r"]).arg(mount.path().join("volume")).arg(&snapshot);
        assert!(command.stdout(Stdio::null()).status().unwrap().success());
        if let Some(held) = held {
            let release = held.release().await;
            assert!(release.whole, "{release:?}");
        }
        let (a, b) = (length(&snapshot.join("a")), length(&snapshot.join("b")));
        broken += usize::from(a != b && a != b + 4096);
        let mut delete = Command::new("btrfs");
        assert!(delete.args(["subvolume", "delete"]).arg(&snapshot).stdout(Stdio::null()).status().unwrap().success());
        for name in ["a", "b"] {
            // the writer goes on from where it is: the files stay small on the disk
            assert!(length(&mount.path().join("volume").join(name)) < 30 << 30);
        }
    }
    broken
}

#[tokio::test]
async fn snapshots_under_pause_and_drain_keep_the_order_of_writes() {
    let Some(kind) = require::loop_device("btrfs") else { return };
    let Some(group) = Group::v2("order") else { return };
    let (mount, desk) = (LoopMount::with_size(kind, 20 << 30), Desk::new());
    let volume = mount.path().join("volume");
    assert!(
        Command::new("btrfs")
            .args(["subvolume", "create"])
            .arg(&volume)
            .stdout(Stdio::null())
            .status()
            .unwrap()
            .success()
    );
    let _writer = Member::start(&group, IN_TURN, &volume);
    wait_for("the writer", || length(&volume.join("b")) > 0);
    let stop = Stop { pause: vec![group.0.clone()], drain: vec![mount.path()], ..freeze(&[]) };
    // the control: nothing keeps the order by itself
    let without = broken(&mount, &desk, None, 20).await;
    assert!(without >= 10, "only {without} of 20 snapshots were broken without a pause");
    assert_eq!(broken(&mount, &desk, Some(&stop), 100).await, 0);
}

/// Holds a freeze up for as long as it runs: a splice from a pipe that nobody writes to.
#[test]
#[ignore = "the process that holds a freeze up, run by the tests below"]
fn a_holder_of_freezes() {
    let Ok(file) = std::env::var("HOLDER_FILE") else { return };
    let (reader, _writer) = std::io::pipe().unwrap();
    let mut file = File::create(file).unwrap();
    std::io::copy(&mut File::from(OwnedFd::from(reader)), &mut file).unwrap();
}

fn holder(group: &Group, mount: &LoopMount) -> Member {
    let script = format!(
        "HOLDER_FILE=\"$1\" exec '{}' --exact pause::a_holder_of_freezes --ignored --nocapture",
        std::env::current_exe().unwrap().display()
    );
    let file = mount.path().join("spliced");
    let member = Member::start(group, &script, &file);
    let splices = |task: PathBuf| {
        // 275 is splice(2) on x86-64, 76 on arm64
        let call = fs::read_to_string(task.join("syscall")).unwrap_or_default();
        call.starts_with("275 ") || call.starts_with("76 ")
    };
    wait_for("the splice", || {
        let tasks = fs::read_dir(format!("/proc/{}/task", member.pid())).into_iter().flatten().flatten();
        tasks.map(|task| task.path()).any(splices)
    });
    member
}

#[tokio::test]
async fn a_freeze_that_a_process_holds_up_completes_when_its_cgroup_is_paused() {
    let Some(kind) = require::loop_device("ext4") else { return };
    let Some(group) = Group::v2("rescue") else { return };
    let (mount, desk) = (LoopMount::new(kind), Desk::new());
    let _holder = holder(&group, &mount);
    let stop = Stop { rescue: vec![group.0.clone()], grace: Duration::from_millis(300), ..freeze(&[&mount.path()]) };
    let release = desk.stop(&stop).await.release().await;
    assert!(release.whole, "{release:?}");
    assert!(release.targets.iter().any(|target| target.kind == Kind::Rescue), "{release:?}");
    assert!(release.targets.iter().any(|target| target.stop_ms > 300.0), "{release:?}");
}

#[tokio::test]
async fn a_freeze_that_stays_held_up_is_named_and_thawed_when_it_completes() {
    let Some(kind) = require::loop_device("ext4") else { return };
    let Some(group) = Group::v2("held") else { return };
    let (mount, desk) = (LoopMount::new(kind), Desk::new());
    let holder = holder(&group, &mount);
    let stop = Stop { max: Duration::from_millis(500), ..freeze(&[&mount.path()]) };
    let guard = Guard::start(&desk.config()).await.unwrap();
    let error = guard.stop(&stop).await.unwrap_err().to_string();
    assert!(error.contains("a writer holds the freeze up"), "{error}");
    assert!(!desk.is_empty());
    drop(holder);
    assert!(writable_within(&mount.path(), Duration::from_secs(1)));
    desk.wait_until_empty();
}
