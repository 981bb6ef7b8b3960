//! Whatever dies, and whenever: a second later nothing is frozen.
//!
//! The second is counted from when the caller is gone, or from when it was killed where it cannot die before the thaw.

use std::{
    fs,
    path::{Path, PathBuf},
    time::Duration,
};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use stillpoint_hooks::{
    guard::{Guard, Reason, Release, Stop},
    release::{self, Living, What},
};
use stillpoint_test_support::{loop_mount::LoopMount, require};

use crate::{
    caller::{Caller, writable_within},
    common::{Desk, freeze, wait_for},
};

const A_SECOND: Duration = Duration::from_secs(1);

/// Long enough that only the death can be what releases.
fn long(paths: &[&Path]) -> Stop {
    Stop { max: Duration::from_secs(60), ..freeze(paths) }
}

fn is_thawed(mount: &LoopMount, desk: &Desk, what: &str) {
    assert!(writable_within(&mount.path(), A_SECOND), "frozen a second after {what}");
    desk.wait_until_empty();
}

#[test]
fn a_caller_killed_at_any_named_step_leaves_nothing_frozen() {
    let Some(kind) = require::loop_device("ext4") else { return };
    let (mount, desk) = (LoopMount::new(kind), Desk::new());
    for step in [
        "Armed",
        "Resolved",
        "Journalled",
        "Synced",
        "Paused",
        "Drained",
        "Frozen",
        "Stopped",
        "Thawed",
        "Resumed",
        "Released",
    ] {
        let mut caller = Caller::start(&[], &desk.journal(), &long(&[&mount.path()]), step);
        caller.go_on();
        caller.go_on();
        caller.child.wait().unwrap();
        is_thawed(&mount, &desk, step);
    }
}

#[test]
fn a_caller_killed_at_a_random_instant_leaves_nothing_frozen() {
    let Some(kind) = require::loop_device("ext4") else { return };
    let (mount, desk) = (LoopMount::new(kind), Desk::new());
    let instants: u32 = std::env::var("STILLPOINT_TEST_INSTANTS").map_or(200, |number| number.parse().unwrap());
    for number in 0..instants {
        let mut caller = Caller::start(&[], &desk.journal(), &long(&[&mount.path()]), "");
        // enough lines for stop after stop: the instant falls anywhere in them
        (0..100).for_each(|_| caller.go_on());
        // spread evenly, in no order that could beat with the freezes' own
        std::thread::sleep(Duration::from_micros(u64::from(number * 7919 % 1000) * 120));
        caller.kill();
        is_thawed(&mount, &desk, &format!("instant {number}"));
    }
}

/// A caller that holds a mount frozen.
fn holding(desk: &Desk, stop: &Stop) -> (Caller, Pid) {
    let mut caller = Caller::start(&[], &desk.journal(), stop, "");
    caller.go_on();
    let guard = caller.says("guard ").parse().unwrap();
    caller.says("stopped");
    (caller, Pid::from_raw(guard))
}

#[test]
fn without_a_death_it_stays_frozen() {
    let Some(kind) = require::loop_device("ext4") else { return };
    let (mount, desk) = (LoopMount::new(kind), Desk::new());
    let (mut caller, _) = holding(&desk, &long(&[&mount.path()]));
    assert!(!writable_within(&mount.path(), A_SECOND));
    caller.go_on();
    let release: Release = serde_json::from_str(&caller.says("")).unwrap();
    assert!(release.whole, "{release:?}");
}

#[test]
fn a_stopped_caller_is_released_by_its_missed_heartbeat_and_learns_of_it() {
    let Some(kind) = require::loop_device("ext4") else { return };
    let (mount, desk) = (LoopMount::new(kind), Desk::new());
    let (mut caller, _) = holding(&desk, &long(&[&mount.path()]));
    caller.signal(Signal::SIGSTOP);
    is_thawed(&mount, &desk, "the caller was stopped");
    caller.signal(Signal::SIGCONT);
    caller.says("lost");
    let release: Release = serde_json::from_str(&caller.says("")).unwrap();
    assert!(!release.whole && release.reason == Reason::HeartbeatMissed, "{release:?}");
}

#[test]
fn a_killed_guard_is_noticed_and_its_caller_releases_from_the_journal() {
    let Some(kind) = require::loop_device("ext4") else { return };
    let (mount, desk) = (LoopMount::new(kind), Desk::new());
    let (mut caller, guard) = holding(&desk, &long(&[&mount.path()]));
    kill(guard, Signal::SIGKILL).unwrap();
    is_thawed(&mount, &desk, "the guard was killed");
    caller.says("lost");
    let release: Release = serde_json::from_str(&caller.says("")).unwrap();
    assert!(!release.whole && release.reason == Reason::GuardDied, "{release:?}");
}

#[test]
fn a_guard_that_is_asked_to_end_releases_first() {
    let Some(kind) = require::loop_device("ext4") else { return };
    let (mount, desk) = (LoopMount::new(kind), Desk::new());
    let (mut caller, guard) = holding(&desk, &long(&[&mount.path()]));
    kill(guard, Signal::SIGTERM).unwrap();
    is_thawed(&mount, &desk, "the guard was asked to end");
    caller.says("lost");
    let release: Release = serde_json::from_str(&caller.says("")).unwrap();
    assert_eq!(release.reason, Reason::Terminated);
}

/// A cgroup of a test's own.
pub(crate) struct Group(pub(crate) PathBuf);

impl Group {
    /// In the second generation's hierarchy, wherever that is mounted.
    pub(crate) fn v2(name: &str) -> Option<Self> {
        Some(Self::below(&require::cgroup(require::Freezer::V2)?, name))
    }

    /// In the first generation's freezer.
    pub(crate) fn v1(name: &str) -> Option<Self> {
        Some(Self::below(&require::cgroup(require::Freezer::V1)?, name))
    }

    pub(crate) fn below(root: &Path, name: &str) -> Self {
        Self::at(root.join(format!("stillpoint-test-{}-{name}", std::process::id())))
    }

    pub(crate) fn at(path: PathBuf) -> Self {
        fs::create_dir(&path).unwrap();
        Self(path)
    }

    pub(crate) fn add(&self, pid: Pid) {
        fs::write(self.0.join("cgroup.procs"), pid.to_string()).unwrap();
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        for (file, thawed) in [("cgroup.freeze", "0"), ("freezer.state", "THAWED")] {
            if self.0.join(file).exists() {
                let _ = fs::write(self.0.join(file), thawed);
            }
        }
        let processes = || fs::read_to_string(self.0.join("cgroup.procs")).unwrap_or_default();
        for pid in processes().lines().filter_map(|pid| pid.parse().ok()) {
            let _ = kill(Pid::from_raw(pid), Signal::SIGKILL);
        }
        // a member that is not reaped yet keeps the directory
        for _ in 0..1000 {
            if fs::remove_dir(&self.0).is_ok() {
                break;
            }
            std::thread::sleep(Duration::from_millis(1));
        }
    }
}

fn a_killed_cgroup(group: Option<Group>, kill_all: impl Fn(&Path)) {
    let Some(kind) = require::loop_device("ext4") else { return };
    let Some(group) = group else { return };
    let (mount, desk) = (LoopMount::new(kind), Desk::new());
    let mut caller = Caller::start(&[], &desk.journal(), &long(&[&mount.path()]), "");
    group.add(caller.pid());
    caller.go_on();
    caller.says("stopped");
    kill_all(&group.0);
    caller.child.wait().unwrap();
    is_thawed(&mount, &desk, "its caller's cgroup was killed");
}

#[test]
fn a_guard_outlives_the_kill_of_its_callers_cgroup() {
    a_killed_cgroup(Group::v2("kill"), |group| fs::write(group.join("cgroup.kill"), "1").unwrap());
}

#[test]
fn a_guard_outlives_the_kill_of_all_members_of_its_callers_first_generation_cgroup() {
    a_killed_cgroup(Group::v1("kill"), |group| {
        for pid in fs::read_to_string(group.join("cgroup.procs")).unwrap().lines() {
            kill(Pid::from_raw(pid.parse().unwrap()), Signal::SIGKILL).unwrap();
        }
    });
}

/// The process that has a journal open, by its id on this host.
fn guard_of(journal: &Path) -> Pid {
    let holds = |pid: &str| {
        let descriptors = fs::read_dir(format!("/proc/{pid}/fd")).into_iter().flatten().flatten();
        let mut links = descriptors.filter_map(|descriptor| fs::read_link(descriptor.path()).ok());
        links.any(|link| link.starts_with(journal))
    };
    let processes = fs::read_dir("/proc").unwrap().flatten().map(|entry| entry.file_name().into_string().unwrap());
    let mut guards = processes.filter(|name| name.parse::<i32>().is_ok() && holds(name));
    Pid::from_raw(guards.next().unwrap().parse().unwrap())
}

#[test]
fn what_a_killed_process_namespace_leaves_frozen_is_thawed_from_the_journal() {
    let Some(kind) = require::loop_device("ext4") else { return };
    let (mount, desk) = (LoopMount::new(kind), Desk::new());
    let wrapper = ["unshare", "--pid", "--fork", "--kill-child"];
    let mut caller = Caller::start(&wrapper, &desk.journal(), &long(&[&mount.path()]), "");
    caller.go_on();
    caller.says("stopped");
    // a namespace's first process closes its socket before the others are killed: a guard that is awake may still thaw
    let guard = guard_of(&desk.journal());
    kill(guard, Signal::SIGSTOP).unwrap();
    wait_for("the guard to be stopped", || {
        fs::read_to_string(format!("/proc/{guard}/stat")).is_ok_and(|stat| stat.contains(") T "))
    });
    caller.kill();
    // the control: the guard is gone as well, and nobody has thawed
    assert!(!writable_within(&mount.path(), A_SECOND));
    wait_for("the journal to be left", || {
        let found = release::all(&desk.journal(), Living::LeaveAlone).unwrap();
        found.iter().any(|found| matches!(found.as_ref().unwrap().what, What::Released))
    });
    assert!(writable_within(&mount.path(), A_SECOND));
    assert!(desk.is_empty() && release::all(&desk.journal(), Living::LeaveAlone).unwrap().is_empty());
}

#[tokio::test]
async fn a_guard_that_lives_is_left_alone_or_asked_to_end() {
    let Some(kind) = require::loop_device("ext4") else { return };
    let (mount, desk) = (LoopMount::new(kind), Desk::new());
    let held = Guard::start(&desk.config()).await.unwrap().stop(&long(&[&mount.path()])).await.unwrap();
    let found = release::all(&desk.journal(), Living::LeaveAlone).unwrap();
    assert_eq!(found[0].as_ref().unwrap().what, What::HeldByGuard(held.guard()));
    assert!(!writable_within(&mount.path(), Duration::from_millis(200)));
    let found = release::all(&desk.journal(), Living::End).unwrap();
    assert_eq!(found[0].as_ref().unwrap().what, What::ReleasedByGuard(held.guard()));
    assert!(writable_within(&mount.path(), A_SECOND));
    assert_eq!(held.release().await.reason, Reason::Terminated);
}

/// A caller that cannot die while its mount is frozen: counted from when it was killed.
fn a_caller_that_cannot_die(kind: &str, how: &str) {
    let Some(kind) = require::loop_device(kind) else { return };
    let (mount, desk) = (LoopMount::new(kind), Desk::new());
    let hindrance = format!("{how} {}", mount.path().join("hindrance").display());
    let mut caller = Caller::hindered(&desk.journal(), &long(&[&mount.path()]), &hindrance);
    caller.go_on();
    caller.says("stopped");
    caller.says("hindered");
    caller.signal(Signal::SIGKILL);
    is_thawed(&mount, &desk, "its caller was killed, which could not die");
    caller.child.wait().unwrap();
}

#[test]
fn a_caller_with_a_thread_stuck_in_a_write_to_what_is_frozen_leaves_nothing_frozen() {
    a_caller_that_cannot_die("ext4", "writes");
}

#[test]
fn a_caller_with_an_unlinked_file_on_a_frozen_btrfs_leaves_nothing_frozen() {
    a_caller_that_cannot_die("btrfs", "holds");
}
