//! What a run guarantees, with processes of this host.

#![allow(clippy::unwrap_used)]

mod common;

use std::{fs, path::Path, sync::Arc, time::Duration};

use common::{eventually, local, outcome, plan, pod, result};
use stillpoint_hooks::hook::{
    exec::local::Local,
    report::{Outcome, Skip},
    run::{self, Limits},
};
use tempfile::TempDir;

/// A file that hooks write lines to.
struct Log(TempDir);

impl Log {
    fn new() -> Self {
        Self(TempDir::new().unwrap())
    }

    /// The script that writes `line`.
    fn line(&self, line: &str) -> String {
        format!("echo {line} >>{}", self.path().display())
    }

    fn path(&self) -> std::path::PathBuf {
        self.0.path().join("log")
    }

    fn lines(&self) -> Vec<String> {
        fs::read_to_string(self.path()).unwrap_or_default().lines().map(str::to_owned).collect()
    }
}

fn failed(why: &str) -> Outcome {
    Outcome::Failed { why: why.to_owned() }
}

#[tokio::test]
async fn a_failed_pre_hook_starts_no_other_of_its_pod_and_its_posts_run_all_the_same() {
    let log = Log::new();
    let failing = format!("{}; exit 3", log.line("one"));
    let broken = pod(
        "broken",
        &[("pre.1.shell", &failing), ("pre.2.shell", &log.line("two")), ("post.shell", &log.line("post"))],
    );
    let other = pod("other", &[("pre.9.shell", &log.line("other"))]);
    let report = local::run(plan([&broken, &other])).await;
    assert_eq!(*outcome(&report, "pre.1"), failed("exit code 3"));
    assert_eq!(*outcome(&report, "pre.2"), Outcome::Skipped { why: Skip::EarlierFailed("pre.1".to_owned()) });
    assert_eq!((outcome(&report, "post"), outcome(&report, "pre.9")), (&Outcome::Succeeded, &Outcome::Succeeded));
    assert_eq!(report.ruled_out().into_iter().map(|pod| &*pod.name).collect::<Vec<_>>(), ["broken"]);
    let mut lines = log.lines();
    lines.sort();
    assert_eq!(lines, ["one", "other", "post"]);
}

#[tokio::test]
async fn a_hook_that_may_fail_stops_nothing() {
    let log = Log::new();
    let pod =
        pod("db", &[("pre.1.shell", "exit 3"), ("pre.1.on-error", "Continue"), ("pre.2.shell", &log.line("two"))]);
    let report = local::run(plan([&pod])).await;
    assert_eq!((report.failed(), report.ruled_out().len(), log.lines()), (1, 0, vec!["two".to_owned()]));
}

#[tokio::test]
async fn a_pod_of_which_nothing_was_started_gets_no_post() {
    let first = pod("db", &[("pre.command", "/no/such/program"), ("post.shell", "true")]);
    let report = local::run(plan([&first])).await;
    assert!(outcome(&report, "pre").failed());
    assert_eq!(*outcome(&report, "post"), Outcome::Succeeded, "it was tried, so it may have happened");

    let running = local::start(plan([&first]));
    // dropped before the task has begun: nothing is started
    let report = running.finish().await;
    assert_eq!(*outcome(&report, "pre"), Outcome::Skipped { why: Skip::CalledOff });
    assert_eq!(*outcome(&report, "post"), Outcome::Skipped { why: Skip::NothingStarted });
}

#[tokio::test]
async fn every_post_is_tried_again_and_none_stops_another() {
    let log = Log::new();
    let second_time = format!("{}; [ $(wc -l <{}) = 2 ]", log.line("try"), log.path().display());
    let pod = pod("db", &[("post.1.shell", &second_time), ("post.2.shell", "exit 1"), ("post.3.command", "/no/such")]);
    let report = local::run(plan([&pod])).await;
    let tries = |hook| (result(&report, hook).attempts, result(&report, hook).outcome == Outcome::Succeeded);
    assert_eq!([tries("post.3"), tries("post.2"), tries("post.1")], [(3, false), (3, false), (2, true)]);
    assert!(report.ruled_out().is_empty(), "the volumes were snapshotted by then");
}

#[tokio::test]
async fn a_hook_that_takes_too_long_is_ended_with_all_that_it_started() {
    let folder = TempDir::new().unwrap();
    let pid = folder.path().join("pid");
    let script = format!("trap '' TERM; sleep 601 & echo $! >{}; wait", pid.display());
    let pod = pod("db", &[("pre.shell", &script), ("pre.timeout", "300ms"), ("post.shell", "true")]);
    let report = local::run(plan([&pod])).await;
    let why = "not done after 300ms; ended: signal 9".to_owned();
    assert_eq!(*outcome(&report, "pre"), Outcome::TimedOut { why });
    assert_eq!(*outcome(&report, "post"), Outcome::Succeeded);
    let grandchild = fs::read_to_string(pid).unwrap();
    eventually("what it started is gone", async || {
        let stat = fs::read_to_string(Path::new("/proc").join(grandchild.trim()).join("stat")).unwrap_or_default();
        stat.is_empty() || stat.contains(") Z ")
    })
    .await;
}

#[tokio::test]
async fn a_run_that_is_let_go_in_the_middle_of_a_pre_hook_ends_it_and_goes_back() {
    let log = Log::new();
    let slow = format!("{}; sleep 602", log.line("pre"));
    let pod = pod("db", &[("pre.shell", &slow), ("post.shell", &log.line("post"))]);
    let mut running = local::start(plan([&pod]));
    tokio::select! {
        report = running.ready() => panic!("{report:#?}"),
        () = eventually("the hook runs", async || log.lines() == ["pre"]) => {}
    }
    drop(running);
    eventually("the post ran", async || log.lines() == ["pre", "post"]).await;
}

#[tokio::test]
async fn a_window_that_nobody_closes_is_closed_by_its_limit() {
    let log = Log::new();
    let pod = pod("db", &[("hold.shell", "echo ready; read line"), ("post.shell", &log.line("post"))]);
    let limits = Limits { window: Duration::from_millis(100), ..Limits::default() };
    let mut running = run::start(plan([&pod]), Arc::new(Local::default()), limits, None);
    assert_eq!(running.ready().await.failed(), 0);
    eventually("the post ran", async || log.lines() == ["post"]).await;
    assert_eq!(*outcome(&running.finish().await, "hold"), Outcome::Succeeded);
}

#[tokio::test]
async fn a_hold_must_say_that_it_is_ready_and_must_end_when_told() {
    let silent = pod("silent", &[("hold.1.shell", "sleep 603"), ("hold.1.timeout", "200ms")]);
    let early = pod("early", &[("hold.2.shell", "echo not yet; exit 4")]);
    let deaf = pod("deaf", &[("hold.3.shell", "echo ready; exec sleep 604"), ("hold.3.timeout", "1s")]);
    let mut running = local::start(plan([&silent, &early, &deaf]));
    let ready = running.ready().await;
    assert_eq!((ready.attempted(), ready.failed()), (3, 2), "{ready:#?}");
    let report = running.finish().await;
    assert!(matches!(outcome(&report, "hold.1"), Outcome::TimedOut { .. }));
    assert_eq!(*outcome(&report, "hold.2"), failed("ended before it said that it is ready: exit code 4"));
    assert_eq!(result(&report, "hold.2").stdout.text, "not yet\n");
    let why = "not done after 1s; ended: signal 15".to_owned();
    assert_eq!(*outcome(&report, "hold.3"), Outcome::TimedOut { why });
}
