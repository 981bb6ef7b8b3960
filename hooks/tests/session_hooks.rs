//! A session with the hooks of a plan, around a stop that stops nothing.

#![allow(clippy::unwrap_used)]

mod common;

use std::{convert::Infallible, fs, sync::Arc};

use common::{eventually, outcome, plan, pod};
use stillpoint_hooks::{
    guard::{Reason, Release},
    hook::{exec::local::Local, plan::Plan, report::Outcome, run, session::PlannedHooks},
    session::{Ended, Held, Limits, Pod, Report, Session, Stopper},
};
use tempfile::TempDir;
use tokio_util::task::TaskTracker;

/// The volumes of these pods, which are only counted.
struct Volumes(Vec<&'static str>);

struct Still;

impl Stopper for Volumes {
    type Held = Still;
    type Error = Infallible;

    async fn prepare(&mut self) -> Result<(), Infallible> {
        Ok(())
    }

    fn leave_out(&mut self, pod: &Pod) -> bool {
        self.0.retain(|name| name != pod);
        !self.0.is_empty()
    }

    async fn sync(&mut self) -> Result<(), Infallible> {
        Ok(())
    }

    async fn stop(&mut self) -> Result<Still, Infallible> {
        Ok(Still)
    }
}

impl Held for Still {
    async fn lost(&mut self) {
        std::future::pending().await
    }

    async fn release(self) -> Release {
        Release { whole: true, reason: Reason::Asked, window_ms: 0.0, targets: Vec::new() }
    }
}

fn start<T: Send + 'static>(
    plan: Plan,
    volumes: Volumes,
    work: impl Future<Output = T> + Send + 'static,
) -> Session<PlannedHooks, T, Infallible> {
    let hooks = PlannedHooks::new(plan, Arc::new(Local::default()), run::Limits::default());
    Session::start(&TaskTracker::new(), hooks, volumes, Limits::default(), work)
}

/// A hold that keeps a file `held` in `folder`, with its pid in it.
fn hold(folder: &TempDir) -> String {
    let file = folder.path().join("held");
    format!("echo $$ >{0}; echo ready; read line; rm {0}", file.display())
}

#[tokio::test]
async fn the_work_is_done_while_holds_hold_and_pods_whose_hooks_failed_are_left_out() {
    let folder = TempDir::new().unwrap();
    let held = folder.path().join("held");
    let good = pod("good", &[("hold.shell", &hold(&folder)), ("post.shell", "true")]);
    let bad = pod("bad", &[("pre.7.shell", "exit 7")]);
    let session = start(plan([&good, &bad]), Volumes(vec!["test/good", "test/bad"]), async move { held.exists() });
    let report: Report<_, _, _> = session.ended().await;
    assert!(matches!(report.ended, Ended::Whole(true)), "{:?}", report.ended);
    let failed: Vec<_> = report.failed.iter().map(|failure| (&*failure.pod, &*failure.what)).collect();
    assert_eq!(failed, [("test/bad", "pre.7: failed: exit code 7")]);
    assert_eq!(report.post_failed, []);
    assert!(!folder.path().join("held").exists(), "the hold was let go");
    assert_eq!(*outcome(report.hooks.report(), "post"), Outcome::Succeeded);
}

#[tokio::test]
async fn a_hold_that_dies_during_the_work_rules_its_pod_out() {
    let folder = TempDir::new().unwrap();
    let held = folder.path().join("held");
    let pod = pod("db", &[("hold.shell", &hold(&folder)), ("post.shell", "true")]);
    // as long as nothing ends it
    let work = async move {
        let pid = fs::read_to_string(held).unwrap();
        common::server::run(std::process::Command::new("kill").args(["-KILL", pid.trim()]));
        std::future::pending::<()>().await;
    };
    let session = start(plan([&pod]), Volumes(vec!["test/db"]), work);
    let report = tokio::time::timeout(common::SOON, session.ended()).await.unwrap();
    assert!(matches!(report.ended, Ended::Lost), "{:?}", report.ended);
    let [lost] = &report.lost_holds[..] else { panic!("{:?}", report.lost_holds) };
    assert!(lost.what.contains("signal 9"), "{lost:?}");
    assert_eq!((report.post_failed, report.hooks.report().ruled_out().len()), (Vec::new(), 1));
    assert_eq!(*outcome(report.hooks.report(), "post"), Outcome::Succeeded);
}

#[tokio::test]
async fn a_hold_that_may_fail_ends_nothing_when_it_dies() {
    let pod = pod("db", &[("hold.shell", "echo ready; exit 3"), ("hold.on-error", "Continue")]);
    let work = tokio::time::sleep(std::time::Duration::from_millis(200));
    let report = start(plan([&pod]), Volumes(vec!["test/db"]), work).ended().await;
    assert!(matches!(report.ended, Ended::Whole(())), "{:?}", report.ended);
    assert!(outcome(report.hooks.report(), "hold").failed());
    assert_eq!((report.lost_holds, report.hooks.report().ruled_out().len()), (Vec::new(), 0));
}

#[tokio::test]
async fn a_session_that_is_cancelled_in_a_pre_hook_runs_the_post() {
    let folder = TempDir::new().unwrap();
    let begun = folder.path().join("begun");
    let script = format!("touch {}; sleep 605", begun.display());
    let pod = pod("db", &[("pre.shell", &script), ("post.shell", "true")]);
    let session = start(plan([&pod]), Volumes(vec!["test/db"]), async {});
    eventually("the hook runs", async || begun.exists()).await;
    let report = session.cancel().await;
    assert!(matches!(report.ended, Ended::Cancelled), "{:?}", report.ended);
    assert!(outcome(report.hooks.report(), "pre").failed());
    assert_eq!(*outcome(report.hooks.report(), "post"), Outcome::Succeeded);
}
