//! A guard's self-test: it passes where a guard outlives its caller, and refuses by name where one does not.

use std::{
    fs,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::{Command, Output},
};

use stillpoint_hooks::guard::{self, Config, Guard, SelfTestError};
use stillpoint_test_support::require;

use crate::{
    common::{Desk, config, wait_for},
    deaths::Group,
};

const JOURNAL: &str = "SELF_TEST_JOURNAL";
const TEST: &str = "self_test::a_self_test_somewhere_else";

/// The cgroups that self-tests and guards have made, in all hierarchies.
fn cgroups() -> Vec<PathBuf> {
    let hierarchies = fs::read_dir("/sys/fs/cgroup").into_iter().flatten().flatten().map(|entry| entry.path());
    let folders = hierarchies.chain([PathBuf::from("/sys/fs/cgroup")]);
    let inside = folders.flat_map(|folder| fs::read_dir(folder).into_iter().flatten().flatten());
    let ours = inside.filter(|entry| {
        let name = entry.file_name().to_string_lossy().into_owned();
        name.starts_with("stillpoint-self-test") || name == "stillpoint-guard"
    });
    ours.map(|entry| entry.path()).collect()
}

#[tokio::test]
async fn a_guard_is_seen_to_outlive_its_caller_and_to_release_and_leaves_nothing_behind() {
    let Some(_) = require::cgroup(require::Freezer::V2) else { return };
    let desk = Desk::new();
    guard::self_test(&desk.config()).await.unwrap();
    assert!(desk.is_empty());
    wait_for("the cgroups to be removed", || cgroups().is_empty());
}

#[tokio::test]
async fn a_guard_has_a_cgroup_of_its_own_in_every_hierarchy_which_goes_with_it() {
    let Some(_) = require::cgroup(require::Freezer::V2) else { return };
    let guard = Guard::start(&Desk::new().config()).await.unwrap();
    let cgroups_of_guard = fs::read_to_string(format!("/proc/{}/cgroup", guard.pid())).unwrap();
    assert!(cgroups_of_guard.lines().all(|line| line.ends_with(":/stillpoint-guard")), "{cgroups_of_guard}");
    drop(guard);
    wait_for("the cgroups to be removed", || cgroups().is_empty());
}

#[tokio::test]
async fn without_a_cgroup_tree_nothing_may_be_stopped() {
    let Some(()) = require::root() else { return };
    let (desk, nowhere) = (Desk::new(), tempfile::tempdir().unwrap());
    let config = Config { cgroup_root: nowhere.path().to_owned(), ..desk.config() };
    let error = guard::self_test(&config).await.unwrap_err();
    assert!(matches!(error, SelfTestError::NoCgroupTree { .. }), "{error}");
}

#[tokio::test]
async fn without_a_journal_nothing_may_be_stopped() {
    let Some(_) = require::cgroup(require::Freezer::V2) else { return };
    let desk = Desk::new();
    fs::write(desk.journal(), "not a folder").unwrap();
    let error = guard::self_test(&desk.config()).await.unwrap_err();
    assert!(matches!(&error, SelfTestError::NotStopped(why) if why.contains("journal")), "{error}");
}

#[tokio::test]
async fn a_program_that_is_not_ours_is_named() {
    let Some(_) = require::cgroup(require::Freezer::V2) else { return };
    let config = Config { program: "/bin/true".into(), ..Desk::new().config() };
    let error = guard::self_test(&config).await.unwrap_err();
    assert!(matches!(&error, SelfTestError::NoCaller { program, .. } if program == Path::new("/bin/true")), "{error}");
}

/// The guard of this program keeps to its caller's cgroup, whose place it finds mounted where its own should be.
#[tokio::test]
async fn a_guard_that_is_killed_with_its_caller_is_found_out() {
    let Some(hierarchy) = require::cgroup(require::Freezer::V2) else { return };
    let Some(unshare) = require::program("unshare") else { return };
    let desk = Desk::new();
    let program = desk.folder.path().join("guard");
    let (real, hierarchy, unshare) = (desk.config().program, hierarchy.display(), unshare.display());
    let script = format!(
        r#"#!/bin/bash
run="exec -a stillpoint-guard {real}"
[ $# -gt 0 ] && eval "$run" "$@"
own={hierarchy}/stillpoint-guard callers={hierarchy}$(sed -n s/^0:://p /proc/self/cgroup)
exec {unshare} --mount bash -c "mkdir -p $own && mount --bind $callers $own && $run"
"#,
        real = real.display()
    );
    fs::write(&program, script).unwrap();
    fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).unwrap();
    let config = Config { program, ..desk.config() };
    let mut tested = guard::self_test(&config).await;
    for _ in 0..9 {
        // a guard of somebody else that ended meanwhile removed the cgroup with what was mounted there
        if tested.is_ok() {
            tested = guard::self_test(&config).await;
        }
    }
    assert!(matches!(tested, Err(SelfTestError::GuardDied)), "{tested:?}");
    assert!(desk.is_empty());
}

#[tokio::test]
#[ignore = "run by the tests below, somewhere else"]
async fn a_self_test_somewhere_else() {
    let Ok(journal) = std::env::var(JOURNAL) else { return };
    guard::self_test(&config(Path::new(&journal))).await.unwrap();
}

/// Runs a self-test by a command such as `unshare`.
fn somewhere_else(command: &str, arguments: &[&str]) -> Output {
    let desk = Desk::new();
    let mut command = Command::new(command);
    command.args(arguments).arg(std::env::current_exe().unwrap());
    command.args(["--exact", TEST, "--ignored", "--nocapture"]).env(JOURNAL, desk.journal());
    command.output().unwrap()
}

fn refused(output: &Output, name: &str) {
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success() && said.contains(name), "{said}");
}

#[test]
fn in_a_process_namespace_of_its_own_nothing_may_be_stopped() {
    let Some(()) = require::root() else { return };
    refused(&somewhere_else("unshare", &["--pid", "--fork", "--mount-proc"]), "NotHostPid");
}

#[test]
fn where_the_cgroup_tree_is_read_only_nothing_may_be_stopped() {
    let Some(_) = require::cgroup(require::Freezer::V2) else { return };
    let read_only = r#"for at in $(awk '$9 ~ /^cgroup/ || $10 ~ /^cgroup/ {print $5}' /proc/self/mountinfo)
do mount -o remount,bind,ro $at || exit 99; done; exec "$@""#;
    refused(&somewhere_else("unshare", &["--mount", "sh", "-c", read_only, "sh"]), "CgroupTreeNotWritable");
}

#[test]
fn without_the_right_to_freeze_nothing_may_be_stopped() {
    let Some(()) = require::root() else { return };
    let Some(_) = require::program("setpriv") else { return };
    let without = ["--bounding-set", "-sys_admin", "--inh-caps", "-sys_admin"];
    refused(&somewhere_else("setpriv", &without), "NotPermitted");
}

/// As in a pod: the cgroup namespace is the container's, and the host's tree is mounted somewhere.
fn in_a_cgroup_namespace(group: &Group) {
    let enter = r#"echo $$ > "$0/cgroup.procs" && exec unshare --cgroup "$@""#;
    let output = somewhere_else("sh", &["-c", enter, group.0.to_str().unwrap()]);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

#[test]
fn in_a_cgroup_namespace_of_its_own_a_guard_outlives_its_caller() {
    let Some(group) = Group::v2("namespace") else { return };
    in_a_cgroup_namespace(&group);
}

/// The option of the whole hierarchy that keeps processes inside the cgroup namespace they are in; taken back with this.
struct Delegation<'a>(&'a Path);

impl<'a> Delegation<'a> {
    fn of(hierarchy: &'a Path) -> Self {
        remount(hierarchy, "remount,nsdelegate");
        Self(hierarchy)
    }
}

impl Drop for Delegation<'_> {
    fn drop(&mut self) {
        remount(self.0, "remount");
    }
}

fn remount(hierarchy: &Path, options: &str) {
    let flags = ["-t", "cgroup2", "-o", options, "none"];
    assert!(Command::new("mount").args(flags).arg(hierarchy).status().unwrap().success());
}

/// As in a pod of a host whose systemd mounted the hierarchy.
#[test]
fn where_cgroup_namespaces_delegate_a_guard_outlives_its_caller() {
    let Some(hierarchy) = require::cgroup(require::Freezer::V2) else { return };
    let before = fs::read_to_string("/proc/mounts").unwrap();
    let delegated = before.lines().any(|mount| mount.contains(" cgroup2 ") && mount.contains("nsdelegate"));
    let _delegation = (!delegated).then(|| Delegation::of(&hierarchy));
    in_a_cgroup_namespace(&Group::below(&hierarchy, "delegated"));
}
