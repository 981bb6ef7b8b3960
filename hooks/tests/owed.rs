//! The process that runs hooks is killed, and its next start runs the posts that are owed.

#![allow(clippy::unwrap_used)]

mod common;

use std::{
    fs,
    io::{BufRead, BufReader, Write, stdout},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::Arc,
    time::Duration,
};

use async_trait::async_trait;
use common::{eventually, outcome, plan, pod};
use stillpoint_hooks::hook::{
    exec::{self, ExecError, Executor, Process, local::Local},
    journal::Journal,
    plan::Plan,
    report::{Outcome, Report},
    run::{self, Limits},
};
use tempfile::TempDir;

const FOLDER: &str = "OWED_FOLDER";
const TEST: &str = "a_run_to_be_killed";
const LIMITS: Limits = Limits { window: Duration::from_secs(60), post: Duration::from_secs(20) };

/// Where a run's hooks write what they do, and where its journal is.
struct Place(TempDir);

impl Place {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn log(&self) -> String {
        fs::read_to_string(self.0.path().join("log")).unwrap_or_default()
    }

    fn journal(&self) -> PathBuf {
        journal(self.0.path())
    }

    fn owes(&self) -> bool {
        // a file of another name is a draft: its process was killed before it started anything
        let files = fs::read_dir(self.journal()).into_iter().flatten().flatten();
        files.into_iter().any(|file| file.path().extension().is_some_and(|end| end == "journal"))
    }

    /// The next start.
    async fn settle(&self, executor: impl Executor + 'static) -> Report {
        let limits = Limits { post: Duration::from_secs(1), ..LIMITS };
        let settled = run::owed(&Journal::new(self.journal(), "test"), Arc::new(executor), limits).await.unwrap();
        assert!(settled.unreadable.is_empty());
        settled.report
    }

    /// A run in a process of its own.
    fn run(&self) -> Child {
        let mut command = Command::new(std::env::current_exe().unwrap());
        command.args(["--exact", TEST, "--ignored", "--nocapture"]).env(FOLDER, self.0.path());
        command.stdout(Stdio::piped()).stdin(Stdio::piped()).spawn().unwrap()
    }
}

fn journal(folder: &Path) -> PathBuf {
    folder.join("journal")
}

fn hooks(folder: &Path) -> Plan {
    let note = |what: &str| format!("echo {what} >>{}", folder.join("log").display());
    let hooks = [
        ("pre.shell", note("pre")),
        ("hold.shell", "echo ready; read line".to_owned()),
        ("post.1.shell", note("one")),
        ("post.2.shell", note("two")),
    ];
    plan([&pod("db", &hooks.each_ref().map(|(name, script)| (*name, script.as_str())))])
}

#[tokio::test]
#[ignore = "the process that is killed, run by the tests below"]
async fn a_run_to_be_killed() {
    let Ok(folder) = std::env::var(FOLDER) else { return };
    let folder = Path::new(&folder);
    let journal = Journal::new(journal(folder), "test");
    let mut running = run::start(hooks(folder), Arc::new(Local::default()), LIMITS, Some(journal));
    assert_eq!(running.ready().await.failed(), 0);
    stdout().write_all(b"\nready\n").unwrap();
    let mut line = String::new();
    tokio::task::spawn_blocking(move || std::io::stdin().read_line(&mut line)).await.unwrap().unwrap();
    running.finish().await;
}

#[tokio::test]
async fn posts_of_a_killed_run_are_owed_and_run_once() {
    let place = Place::new();
    let mut child = place.run();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    assert!(lines.any(|line| line.unwrap() == "ready"));
    assert_eq!(place.settle(Local::default()).await.attempted(), 0, "the run lives");
    child.kill().unwrap();
    child.wait().unwrap();
    assert_eq!((place.log().as_str(), place.owes()), ("pre\n", true));
    let report = place.settle(Local::default()).await;
    assert_eq!((report.attempted(), report.failed()), (2, 0), "{report:#?}");
    assert_eq!((place.log().as_str(), place.owes()), ("pre\ntwo\none\n", false));
    assert_eq!(place.settle(Local::default()).await.attempted(), 0);
}

#[tokio::test]
async fn a_run_killed_at_any_instant_leaves_nothing_undone() {
    let mut owed = 0;
    for number in 0..60 {
        let place = Place::new();
        let mut child = place.run();
        // no window: it goes straight on to its posts
        child.stdin.as_mut().unwrap().write_all(b"\n").unwrap();
        std::thread::sleep(Duration::from_millis(number * 7919 % 60));
        child.kill().unwrap();
        child.wait().unwrap();
        let before = place.log();
        owed += u32::from(place.owes());
        // a hook that was just being started holds the lock until it dies, which it does at once
        eventually("nothing is owed", async || {
            place.settle(Local::default()).await;
            !place.owes()
        })
        .await;
        let (log, count) = (place.log(), |what: &str| place.log().lines().filter(|line| *line == what).count());
        for post in ["one", "two"] {
            // twice where it was running when its process was killed
            assert!((count("pre")..=2).contains(&count(post)), "instant {number}: {before:?}, then {log:?}");
        }
        assert!(count("one") < 2 || count("two") < 2, "instant {number}: {before:?}, then {log:?}");
    }
    assert!(owed > 5, "only {owed} of 60 instants fell into a run");
}

#[tokio::test]
async fn a_run_that_ends_owes_nothing() {
    let place = Place::new();
    let mut child = place.run();
    child.stdin.as_mut().unwrap().write_all(b"\n").unwrap();
    assert!(child.wait().unwrap().success());
    assert_eq!((place.log().as_str(), place.owes()), ("pre\ntwo\none\n", false));
}

/// A cluster that does not answer.
struct Unreachable;

#[async_trait]
impl Executor for Unreachable {
    async fn start(&self, _: exec::Command<'_>) -> Result<Box<dyn Process>, ExecError> {
        Err(ExecError::Unreachable("the API server does not answer".to_owned()))
    }
}

#[tokio::test]
async fn a_post_that_nobody_answers_for_stays_owed() {
    let place = Place::new();
    let journal = Journal::new(place.journal(), "test");
    let mut running = run::start(hooks(place.0.path()), Arc::new(Local::default()), LIMITS, Some(journal));
    running.ready().await;
    assert!(place.owes());
    // as if it had been killed: whoever has its lock is gone, and nothing of it runs any more
    let copy = Place::new();
    fs::create_dir(copy.journal()).unwrap();
    for entry in fs::read_dir(place.journal()).unwrap().flatten() {
        fs::copy(entry.path(), copy.journal().join(entry.file_name())).unwrap();
    }
    let report = copy.settle(Unreachable).await;
    assert_eq!((report.failed(), copy.owes()), (2, true), "{report:#?}");
    let report = copy.settle(Local::default()).await;
    assert_eq!((report.failed(), copy.owes()), (0, false), "{report:#?}");
    running.finish().await;
}

#[tokio::test]
async fn what_cannot_be_written_down_is_not_started() {
    let place = Place::new();
    fs::write(place.journal(), "not a folder").unwrap();
    let journal = Journal::new(place.journal(), "test");
    let mut running = run::start(hooks(place.0.path()), Arc::new(Local::default()), LIMITS, Some(journal));
    let report = running.ready().await;
    let Outcome::Failed { why } = outcome(&report, "pre") else { panic!("{report:#?}") };
    assert!(
        why.starts_with("not started, because its post could not be written down: cannot use the journal"),
        "{why}"
    );
    assert_eq!(report.ruled_out().len(), 1);
    running.finish().await;
    assert_eq!(place.log(), "");
}
