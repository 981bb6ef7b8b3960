//! Ctrl-C while a directory is backed up or restored: what is said, what is left, and how it goes on.
//!
//! The other half of a lock's work is tried here too: while a restore runs, nobody can prune.

#![allow(clippy::unwrap_used)]

mod common;

use std::{
    fs,
    path::Path,
    process::{Child, Command, Output, Stdio},
    time::{Duration, Instant},
};

use common::{cluster::noise, shell::User};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use serde_json::json;
use stillpoint_filetree::restore::MARKER;
use stillpoint_test_support::require;

const DEADLINE: Duration = Duration::from_secs(60);
/// KiB a second at which work takes many seconds, and nothing is over before it was met at work.
const SLOWLY: &str = "500";

/// A user with some megabytes in `source`, and a repository.
fn user() -> User {
    let user = User::new();
    user.prints(0, &["repo", "init"]);
    fs::create_dir(user.path("source")).unwrap();
    for number in 0..60 {
        fs::write(user.path(&format!("source/file{number}")), noise(number, 100_000)).unwrap();
    }
    fs::write(user.path("source/large"), noise(1000, 5_000_000)).unwrap();
    user
}

fn backup(user: &User) -> [String; 5] {
    ["volume", "backup", "data", "--path", &user.path("source")].map(ToOwned::to_owned)
}

const RESTORE: [&str; 5] = ["volume", "restore", "data", "--target", "target"];

/// A command under way; it does not outlive the test.
struct Running(Option<Child>);

impl Drop for Running {
    fn drop(&mut self) {
        if let Some(child) = &mut self.0 {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

impl Running {
    fn start(user: &User, arguments: &[&str], variable: &str) -> Self {
        let mut command = user.command(arguments);
        command.env(variable, SLOWLY).stdout(Stdio::piped()).stderr(Stdio::piped());
        Self(Some(command.spawn().unwrap()))
    }

    fn until(&mut self, what: &str, done: impl Fn() -> bool) {
        let begun = Instant::now();
        while !done() {
            assert!(self.0.as_mut().unwrap().try_wait().unwrap().is_none(), "it ended before {what}");
            assert!(begun.elapsed() < DEADLINE, "{what}: not within {DEADLINE:?}");
            std::thread::yield_now();
        }
    }

    /// Ctrl-C; what it said then.
    fn interrupt(mut self) -> Output {
        let child = self.0.take().unwrap();
        kill(Pid::from_raw(i32::try_from(child.id()).unwrap()), Signal::SIGINT).unwrap();
        child.wait_with_output().unwrap()
    }
}

fn entries(folder: &str) -> usize {
    fs::read_dir(folder).into_iter().flatten().count()
}

/// It failed, printed nothing, and said this in one line; its lock is gone.
fn ended_cleanly(user: &User, output: &Output, says: &str) {
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains(says) && said.lines().count() == 1 && output.stdout.is_empty(), "{said}");
    assert_eq!(entries(&user.path("repository/locks")), 0, "a lock was left");
}

#[test]
fn a_backup_that_is_interrupted_says_so_leaves_no_lock_and_no_snapshot_and_the_next_one_is_whole() {
    let user = user();
    let command = backup(&user);
    let command = command.each_ref().map(String::as_str);
    let mut running = Running::start(&user, &command, "STILLPOINT_LIMIT_UPLOAD");
    running.until("its lock is there", || entries(&user.path("repository/locks")) > 0);
    let output = running.interrupt();
    ended_cleanly(&user, &output, "interrupted");
    assert_eq!(user.reads(&["volume", "get", "-o", "json"]), json!([]));
    user.prints(0, &command);
    user.prints(0, &["volume", "restore", "data", "--target", "target", "--verify"]);
    assert_eq!(fs::read_to_string(user.path("target/large")).unwrap(), noise(1000, 5_000_000));
    user.prints(0, &["repo", "check", "--read-data"]);
}

#[test]
fn a_restore_that_is_interrupted_says_so_leaves_no_lock_and_goes_on_where_it_stopped() {
    let user = user();
    user.prints(0, &backup(&user).each_ref().map(String::as_str));
    let mut running = Running::start(&user, &RESTORE, "STILLPOINT_LIMIT_DOWNLOAD");
    let large = user.path("target/large");
    running.until("its target is there", || Path::new(&large).exists());
    let output = running.interrupt();
    ended_cleanly(&user, &output, "it goes on where it stopped");
    assert!(Path::new(&user.path("target")).join(MARKER).exists());

    let report = user.reads(&[&RESTORE[..], &["--verify", "-o", "json"]].concat());
    assert_eq!((&report["start"], &report["verified"]["files"]), (&json!("resumed"), &json!(61)), "{report}");
    assert!(!Path::new(&user.path("target")).join(MARKER).exists());
}

#[test]
fn nobody_prunes_or_forgets_while_a_restore_runs_unless_it_was_told_to_take_no_lock() {
    let Some(_restic) = require::program("restic") else { return };
    let user = user();
    user.prints(0, &backup(&user).each_ref().map(String::as_str));
    let mut running = Running::start(&user, &RESTORE, "STILLPOINT_LIMIT_DOWNLOAD");
    let target = user.path("target");
    running.until("its target is there", || Path::new(&target).exists());
    user.is_refused(1, &["is locked by", "pid"], &["repo", "prune", "--yes"]);
    let mut prune = Command::new("restic");
    prune.args(["--no-cache", "-r", &user.path("repository"), "prune"]).env("RESTIC_PASSWORD", "secret");
    let refused = prune.output().unwrap();
    assert!(String::from_utf8_lossy(&refused.stderr).contains("already locked"), "{refused:?}");
    running.until("the prunes were refused", || true);
    running.interrupt();
    assert!(prune.output().unwrap().status.success());

    let mut running = Running::start(&user, &[&RESTORE[..], &["--no-lock"]].concat(), "STILLPOINT_LIMIT_DOWNLOAD");
    let files = || entries(&target) > 2;
    running.until("it goes on", files);
    assert_eq!(entries(&user.path("repository/locks")), 0);
    running.interrupt();
}
