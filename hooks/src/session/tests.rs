//! The order of a session's steps, and that release and post come whatever ends it.
//!
//! Hooks and stop are recorders here: what is tested is the machine between them, in every state that can be cut off.

use std::sync::{Arc, Mutex};

use tokio::sync::Notify;

use super::*;
use crate::guard::Reason;

/// What happened, in order.
#[derive(Debug, Clone, Default)]
struct Log(Arc<Mutex<Vec<String>>>);

impl Log {
    fn add(&self, what: impl Into<String>) {
        self.0.lock().unwrap().push(what.into());
    }

    fn all(&self) -> String {
        self.0.lock().unwrap().join(" ")
    }
}

/// Where something goes wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Wrong {
    Nothing,
    Fails(&'static str),
    Hangs(&'static str),
    Panics(&'static str),
}

#[derive(Debug, Clone)]
struct Fake {
    log: Log,
    wrong: Wrong,
    failing: Vec<HookFailure>,
    dead_holds: Vec<HookFailure>,
    pods: usize,
    lost: Arc<Notify>,
    /// What the release says.
    whole: bool,
}

#[derive(Debug, thiserror::Error)]
#[error("it failed")]
struct Failed;

impl Fake {
    fn new(wrong: Wrong) -> Self {
        let (failing, dead_holds) = (Vec::new(), Vec::new());
        Self { log: Log::default(), wrong, failing, dead_holds, pods: 2, lost: Arc::default(), whole: true }
    }

    async fn step(&self, name: &'static str) -> Result<(), Failed> {
        self.log.add(name);
        match self.wrong {
            Wrong::Fails(at) if at == name => Err(Failed),
            Wrong::Hangs(at) if at == name => std::future::pending().await,
            Wrong::Panics(at) if at == name => panic!("in {name}"),
            _ => Ok(()),
        }
    }
}

impl Hooks for Fake {
    fn groups(&self) -> usize {
        2
    }

    async fn pre(&mut self, group: usize) -> Vec<HookFailure> {
        let _ = self.step(if group == 0 { "pre-0" } else { "pre-1" }).await;
        if group == 0 { self.failing.clone() } else { Vec::new() }
    }

    fn lost_holds(&mut self) -> Vec<HookFailure> {
        self.dead_holds.clone()
    }

    async fn post(&mut self) -> Vec<HookFailure> {
        self.log.add("post");
        Vec::new()
    }
}

impl Stopper for Fake {
    type Held = Self;
    type Error = Failed;

    async fn prepare(&mut self) -> Result<(), Failed> {
        self.step("prepare").await
    }

    fn leave_out(&mut self, pod: &Pod) -> bool {
        self.log.add(format!("without-{pod}"));
        self.pods -= 1;
        self.pods > 0
    }

    async fn sync(&mut self) -> Result<(), Failed> {
        self.step("sync").await
    }

    async fn stop(&mut self) -> Result<Self, Failed> {
        self.step("stop").await?;
        Ok(self.clone())
    }
}

impl Held for Fake {
    async fn lost(&mut self) {
        self.lost.notified().await;
    }

    async fn release(self) -> Release {
        self.log.add("release");
        Release { whole: self.whole, reason: Reason::Asked, window_ms: 1.0, targets: Vec::new() }
    }
}

type TestReport = Report<Fake, (), Failed>;

fn start(fake: &Fake) -> Session<Fake, (), Failed> {
    let worker = fake.clone();
    let work = async move {
        let _ = worker.step("work").await;
    };
    Session::start(&TaskTracker::new(), fake.clone(), fake.clone(), Limits::default(), work)
}

async fn run(fake: &Fake) -> (TestReport, String) {
    (start(fake).ended().await, fake.log.all())
}

fn failure(pod: &str, fatal: bool) -> HookFailure {
    HookFailure { pod: pod.to_owned(), what: "exit code 1".to_owned(), fatal }
}

const ALL: &str = "prepare pre-0 pre-1 sync stop work release post";
const STEPS: [&str; 6] = ["prepare", "pre-0", "pre-1", "sync", "stop", "work"];

/// What is to be seen of a session that ends in a step.
fn up_to(step: &str) -> String {
    let steps = STEPS.iter().take(1 + STEPS.iter().position(|known| *known == step).unwrap());
    let release = (step == "work").then_some("release");
    let post = (step != "prepare").then_some("post");
    steps.copied().chain(release).chain(post).collect::<Vec<_>>().join(" ")
}

#[tokio::test]
async fn a_session_takes_every_step_in_order_and_is_whole() {
    let (report, log) = run(&Fake::new(Wrong::Nothing)).await;
    assert!(matches!(report.ended, Ended::Whole(())), "{report:?}");
    assert_eq!(log, ALL);
}

#[tokio::test]
async fn a_failing_step_stops_nothing_more_and_post_runs_if_any_pre_did() {
    for step in ["prepare", "sync", "stop"] {
        let (report, log) = run(&Fake::new(Wrong::Fails(step))).await;
        assert!(matches!(report.ended, Ended::NotStopped(Failed)), "{report:?}");
        assert_eq!(log, up_to(step));
    }
}

#[tokio::test]
async fn a_panic_in_any_step_or_in_the_work_goes_through_release_and_post() {
    for step in STEPS {
        let (report, log) = run(&Fake::new(Wrong::Panics(step))).await;
        assert!(matches!(&report.ended, Ended::Panicked(message) if message.contains(step)), "{report:?}");
        assert_eq!(log, up_to(step));
    }
}

#[tokio::test]
async fn a_session_cancelled_in_any_step_goes_through_release_and_post() {
    for step in STEPS {
        let fake = Fake::new(Wrong::Hangs(step));
        let session = start(&fake);
        while !fake.log.all().ends_with(step) {
            tokio::task::yield_now().await;
        }
        let report = session.cancel().await;
        assert!(matches!(report.ended, Ended::Cancelled), "{report:?}");
        assert_eq!(fake.log.all(), up_to(step));
    }
}

#[tokio::test]
async fn a_session_that_nobody_waits_for_any_more_still_goes_through_release_and_post() {
    let fake = Fake::new(Wrong::Hangs("work"));
    let session = start(&fake);
    let mut states = session.states();
    states.wait_for(|state| *state == State::Held).await.unwrap();
    drop(session);
    states.wait_for(|state| *state == State::Done).await.unwrap();
    assert_eq!(fake.log.all(), ALL);
}

#[tokio::test(start_paused = true)]
async fn a_step_that_no_hook_bounds_is_bounded() {
    for (step, state) in [("prepare", State::Preparing), ("sync", State::Syncing), ("stop", State::Stopping)] {
        let (report, log) = run(&Fake::new(Wrong::Hangs(step))).await;
        assert!(matches!(report.ended, Ended::TooLate(at) if at == state), "{report:?}");
        assert_eq!(log, up_to(step));
    }
}

#[tokio::test]
async fn a_pod_whose_pre_hook_failed_is_left_out_and_the_rest_goes_on() {
    let fake = Fake { failing: vec![failure("shop/db", false)], ..Fake::new(Wrong::Nothing) };
    let (report, log) = run(&fake).await;
    assert!(matches!(report.ended, Ended::Whole(())), "{report:?}");
    assert_eq!(report.failed, [failure("shop/db", false)]);
    assert_eq!(log, "prepare pre-0 without-shop/db pre-1 sync stop work release post");
}

#[tokio::test]
async fn nothing_is_stopped_when_a_fatal_hook_failed_or_every_pod_is_left_out() {
    let fake = Fake { failing: vec![failure("db", true)], ..Fake::new(Wrong::Nothing) };
    let (report, log) = run(&fake).await;
    assert!(matches!(report.ended, Ended::HookFailed), "{report:?}");
    assert_eq!(log, "prepare pre-0 without-db post");

    let fake = Fake { failing: vec![failure("db", false), failure("web", false)], ..Fake::new(Wrong::Nothing) };
    let (report, log) = run(&fake).await;
    assert!(matches!(report.ended, Ended::NothingLeft), "{report:?}");
    assert_eq!(log, "prepare pre-0 without-db without-web post");
}

#[tokio::test]
async fn a_release_that_was_not_whole_or_a_hold_that_died_makes_the_session_not_whole() {
    let (report, _) = run(&Fake { whole: false, ..Fake::new(Wrong::Nothing) }).await;
    assert!(matches!(report.ended, Ended::NotWhole(())), "{report:?}");
    let (report, _) = run(&Fake { dead_holds: vec![failure("db", false)], ..Fake::new(Wrong::Nothing) }).await;
    assert!(matches!(report.ended, Ended::NotWhole(())), "{report:?}");
}

#[tokio::test]
async fn work_is_dropped_when_the_stop_is_lost() {
    let fake = Fake { whole: false, ..Fake::new(Wrong::Hangs("work")) };
    let session = start(&fake);
    session.states().wait_for(|state| *state == State::Held).await.unwrap();
    fake.lost.notify_one();
    let report = session.ended().await;
    assert!(matches!(report.ended, Ended::Lost), "{report:?}");
    assert_eq!(fake.log.all(), ALL);
}
