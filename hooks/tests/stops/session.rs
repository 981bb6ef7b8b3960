//! A session with a real stop: the machine, the guard and the filesystem together.

use std::sync::{Arc, Mutex};

use stillpoint_hooks::{
    guard::Stop,
    host::{Host, PodStop},
    session::{Ended, HookFailure, Hooks, Limits, Session, State},
};
use stillpoint_test_support::{loop_mount::LoopMount, require};
use tokio_util::task::TaskTracker;

use crate::common::{Desk, Writer, freeze};

/// Hooks that note when they ran.
#[derive(Debug, Default, Clone)]
struct Noting(Arc<Mutex<Vec<&'static str>>>);

impl Hooks for Noting {
    fn groups(&self) -> usize {
        1
    }

    async fn pre(&mut self, _: usize) -> Vec<HookFailure> {
        self.0.lock().unwrap().push("pre");
        Vec::new()
    }

    fn lost_holds(&mut self) -> Vec<HookFailure> {
        Vec::new()
    }

    async fn post(&mut self) -> Vec<HookFailure> {
        self.0.lock().unwrap().push("post");
        Vec::new()
    }
}

fn host(desk: &Desk, mount: &LoopMount) -> Host {
    let pod = PodStop { pod: "shop/db".to_owned(), freeze: vec![mount.path()], ..PodStop::default() };
    Host::new(desk.config(), Stop { freeze: Vec::new(), ..freeze(&[]) }, vec![pod])
}

#[tokio::test]
async fn work_runs_while_writers_stand_still_and_a_cancelled_session_lets_them_go() {
    let Some(kind) = require::loop_device("ext4") else { return };
    let (mount, desk) = (LoopMount::new(kind), Desk::new());
    let writer = Writer::start(mount.path().join("file"));
    let tracker = TaskTracker::new();

    let hooks = Noting::default();
    let session = Session::start(&tracker, hooks.clone(), host(&desk, &mount), Limits::default(), async { 7 });
    let report = session.ended().await;
    assert!(matches!(report.ended, Ended::Whole(7)), "{report:?}");
    assert!(report.release.unwrap().whole);
    assert_eq!(*hooks.0.lock().unwrap(), ["pre", "post"]);
    writer.wait_until_it_goes_on();

    let hooks = Noting::default();
    let forever = std::future::pending::<()>();
    let session = Session::start(&tracker, hooks.clone(), host(&desk, &mount), Limits::default(), forever);
    session.states().wait_for(|state| *state == State::Held).await.unwrap();
    let report = session.cancel().await;
    assert!(matches!(report.ended, Ended::Cancelled) && report.release.is_some(), "{report:?}");
    assert_eq!(*hooks.0.lock().unwrap(), ["pre", "post"]);
    writer.wait_until_it_goes_on();
    writer.end_and_check();
    desk.wait_until_empty();
}

#[tokio::test]
async fn what_is_refused_is_refused_before_any_hook_runs() {
    let Some(()) = require::root() else { return };
    let desk = Desk::new();
    let pod = PodStop { pod: "shop/db".to_owned(), freeze: vec!["/".into()], ..PodStop::default() };
    let host = Host::new(desk.config(), freeze(&[]), vec![pod]);
    let hooks = Noting::default();
    let session = Session::start(&TaskTracker::new(), hooks.clone(), host, Limits::default(), async {});
    let report = session.ended().await;
    assert!(
        matches!(&report.ended, Ended::NotStopped(error) if error.to_string().contains("root filesystem")),
        "{report:?}"
    );
    assert!(hooks.0.lock().unwrap().is_empty());
}
