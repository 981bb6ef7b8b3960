//! Hooks in the containers of a real node: every command goes through the API server and kubelet.

#![allow(clippy::unwrap_used)]

mod common;

use std::time::{Duration, Instant};

use common::{eventually, node::on_node, outcome, plan, result};
use stillpoint_hooks::hook::{
    output::KEPT,
    report::{Outcome, Skip},
    run::Limits,
};

const LIMITS: Limits = Limits { window: Duration::from_secs(120), post: Duration::from_secs(60) };

#[tokio::test(flavor = "multi_thread")]
async fn hooks_run_by_groups_and_posts_in_reverse() {
    on_node(async |node| {
        // the pods are one kernel: the time tells which came first
        let note = "read up rest </proc/uptime; echo $up $WHO >>/tmp/log";
        let script = |who: &str| note.replace("$WHO", who);
        let first = node
            .busybox(
                "first",
                &[
                    ("pre.shell", &script("first")),
                    ("pre.order", "-1"),
                    ("post.shell", &script("first")),
                    ("post.order", "-1"),
                ],
            )
            .await;
        let second = node
            .busybox(
                "second",
                &[
                    ("pre.1.shell", &script("one")),
                    ("pre.2.shell", &script("two")),
                    ("post.1.shell", &script("un-one")),
                    ("post.2.shell", &script("un-two")),
                ],
            )
            .await;
        let mut running = node.start(plan([&second, &first]), LIMITS);
        let ready = running.ready().await;
        assert_eq!((ready.attempted(), ready.failed()), (3, 0), "{ready:#?}");
        let report = running.finish().await;
        assert_eq!((report.attempted(), report.failed()), (6, 0), "{report:#?}");

        let mut lines = Vec::new();
        for pod in [&first, &second] {
            let log = node.shell(pod, "cat /tmp/log").await;
            lines.extend(
                log.lines()
                    .map(|line| line.split_once(' ').unwrap())
                    .map(|(at, who)| (at.parse::<f64>().unwrap(), who.to_owned())),
            );
        }
        lines.sort_by(|a, b| a.0.total_cmp(&b.0));
        let order: Vec<_> = lines.iter().map(|(_, who)| who.as_str()).collect();
        assert_eq!(order, ["first", "one", "two", "un-two", "un-one", "first"]);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hook_that_takes_too_long_is_ended_with_its_children_and_nothing_else_is() {
    on_node(async |node| {
        let pod = node
            .busybox("slow", &[("pre.shell", "sleep 601; true"), ("pre.timeout", "2s"), ("post.shell", "true")])
            .await;
        let mut running = node.start(plan([&pod]), LIMITS);
        let ready = running.ready().await;
        let Outcome::TimedOut { why } = outcome(&ready, "pre") else { panic!("{ready:#?}") };
        assert!(why.starts_with("not done after 2s; ended: exit code"), "{why}");
        assert_eq!(ready.ruled_out().len(), 1);
        let processes = node.shell(&pod, "ps").await;
        assert!(!processes.contains("sleep 601"), "{processes}");
        assert!(processes.contains("sleep 3600"), "the container's own processes live: {processes}");
        assert_eq!(*outcome(&running.finish().await, "post"), Outcome::Succeeded);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_shell_a_hook_that_takes_too_long_is_said_to_be_still_running() {
    on_node(async |node| {
        let pod = node.pod("bare", "localhost/pause:3.9", &[("pre.command", "/pause"), ("pre.timeout", "1s")]).await;
        let mut running = node.start(plan([&pod]), LIMITS);
        let report = running.ready().await;
        let Outcome::StillRunning { why } = outcome(&report, "pre") else { panic!("{report:#?}") };
        assert_eq!(why, "not done after 1s; the image has no shell that could end it");
        assert_eq!((report.failed(), report.ruled_out().len()), (1, 1));
        running.finish().await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn exit_codes_and_outputs_come_back_up_to_their_bound() {
    on_node(async |node| {
        let much = "echo begin; dd if=/dev/zero bs=1024 count=1000 2>/dev/null | tr '\\0' x; echo; echo end; echo complaint >&2; exit 7";
        let pod = node
            .busybox("talkative", &[("pre.1.shell", much), ("pre.1.on-error", "Continue"), ("pre.2.command", "/no/such/program")])
            .await;
        let mut running = node.start(plan([&pod]), LIMITS);
        let report = running.ready().await;
        let talkative = result(&report, "pre.1");
        assert_eq!(talkative.outcome, Outcome::Failed { why: "exit code 7".to_owned() });
        assert!(!talkative.rules_out(), "it says Continue");
        assert!(talkative.stdout.text.starts_with("begin\nx") && talkative.stdout.text.ends_with("x\nend\n"));
        assert_eq!(talkative.stdout.dropped, ("begin\n\nend\n".len() + 1000 * 1024 - 2 * KEPT) as u64);
        assert_eq!(talkative.stderr.text, "complaint\n");
        let Outcome::Failed { why } = outcome(&report, "pre.2") else { panic!("{report:#?}") };
        assert!(why.contains("the program could not be started") && why.contains("/no/such/program"), "{why}");
        running.finish().await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pod_that_went_away_needs_no_post_and_another_of_its_name_gets_none() {
    on_node(async |node| {
        let hooks = [("pre.shell", "true"), ("post.shell", "touch /tmp/undone")];
        let gone = node.busybox("gone", &hooks).await;
        let replaced = node.busybox("replaced", &hooks).await;
        let mut running = node.start(plan([&gone, &replaced]), LIMITS);
        assert_eq!(running.ready().await.failed(), 0);
        node.delete("gone").await;
        node.delete("replaced").await;
        let other = node.busybox("replaced", &hooks).await;
        let report = running.finish().await;
        let whys: Vec<_> = report
            .results
            .iter()
            .filter_map(|result| match &result.outcome {
                Outcome::Skipped { why: Skip::PodGone(why) } => Some(why.replace(&node.namespace, "NS")),
                _ => None,
            })
            .collect();
        assert_eq!(whys, ["the pod NS/gone is gone", "the pod NS/replaced is gone; another has its name"]);
        assert_eq!(node.shell(&other, "ls /tmp").await, "");

        // a pre hook whose pod is gone has brought nothing to rest
        node.delete("replaced").await;
        let report = node.start(plan([&other]), LIMITS).ready().await;
        assert!(outcome(&report, "pre").failed(), "{report:#?}");
        assert_eq!(report.ruled_out().len(), 1);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_post_runs_when_the_api_server_is_back() {
    on_node(async |node| {
        let pod = node.busybox("db", &[("pre.shell", "touch /tmp/locked"), ("post.shell", "rm /tmp/locked")]).await;
        let mut running = node.start(plan([&pod]), LIMITS);
        assert_eq!(running.ready().await.failed(), 0);
        node.kill_api_server();
        let finishing = tokio::spawn(running.finish());
        let back = node.clone();
        tokio::task::spawn_blocking(move || back.start_api_server()).await.unwrap();
        let report = finishing.await.unwrap();
        let post = result(&report, "post");
        assert_eq!(post.outcome, Outcome::Succeeded, "{report:#?}");
        assert!(post.attempts > 1, "{report:#?}");
        assert_eq!(node.shell(&pod, "ls /tmp").await, "");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_post_is_given_up_at_its_deadline_by_name() {
    on_node(async |node| {
        let pod = node.busybox("db", &[("post.shell", "true")]).await;
        let mut running = node.start(plan([&pod]), Limits { post: Duration::from_secs(3), ..LIMITS });
        running.ready().await;
        node.kill_api_server();
        let begun = Instant::now();
        let report = running.finish().await;
        assert!(begun.elapsed() < Duration::from_secs(10), "{:?}", begun.elapsed());
        let Outcome::Failed { why } = outcome(&report, "post") else { panic!("{report:#?}") };
        assert!(why.contains("the API server does not answer"), "{why}");
        assert!(result(&report, "post").attempts > 1);
    })
    .await;
}

const HOLD: &str = "touch /tmp/held; echo ready; read line; rm /tmp/held; echo told to $line";

#[tokio::test(flavor = "multi_thread")]
async fn a_hold_holds_through_the_window_and_is_let_go_with_its_exit_code() {
    on_node(async |node| {
        let failing = format!("{HOLD}; exit 5");
        let pod =
            node.busybox("db", &[("hold.1.shell", HOLD), ("hold.2.shell", &failing), ("post.shell", "ls /tmp")]).await;
        let mut running = node.start(plan([&pod]), LIMITS);
        let ready = running.ready().await;
        assert_eq!((ready.attempted(), ready.failed()), (2, 0), "{ready:#?}");
        assert_eq!(node.shell(&pod, "ls /tmp").await, "held");
        assert_eq!(running.broken(), []);
        let report = running.finish().await;
        let hold = result(&report, "hold.1");
        assert_eq!((&hold.outcome, &*hold.stdout.text), (&Outcome::Succeeded, "ready\ntold to release\n"));
        let why = "ended after its release: exit code 5".to_owned();
        assert_eq!(*outcome(&report, "hold.2"), Outcome::Failed { why });
        assert_eq!(result(&report, "post").stdout.text, "", "posts come after the release");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hold_that_dies_in_the_window_is_known_at_once() {
    on_node(async |node| {
        let hold = format!("echo $$ >/tmp/pid; {HOLD}");
        let pod = node.busybox("db", &[("hold.shell", &hold), ("post.shell", "true")]).await;
        let mut running = node.start(plan([&pod]), LIMITS);
        assert_eq!(running.ready().await.failed(), 0);
        node.shell(&pod, "kill -KILL $(cat /tmp/pid)").await;
        let broke = tokio::time::timeout(Duration::from_secs(10), running.broke()).await.unwrap();
        assert_eq!(
            broke.outcome,
            Outcome::Failed { why: "ended before it was released: exit code 137 (signal 9)".to_owned() }
        );
        let report = running.finish().await;
        assert_eq!(*outcome(&report, "post"), Outcome::Succeeded);
        assert_eq!(report.ruled_out().len(), 1);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn letting_go_of_a_run_runs_its_posts() {
    on_node(async |node| {
        let pod = node.busybox("db", &[("hold.shell", HOLD), ("post.shell", "touch /tmp/undone")]).await;
        let mut running = node.start(plan([&pod]), LIMITS);
        assert_eq!(running.ready().await.failed(), 0);
        drop(running);
        eventually("the post ran", async || node.shell(&pod, "ls /tmp").await == "undone").await;
    })
    .await;
}
