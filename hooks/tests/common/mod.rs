//! What the tests of hooks share: plans without a cluster, and pods on a real node.

#![allow(dead_code, reason = "not every file of tests needs all of it")]

pub(crate) mod local;
pub(crate) mod node;
pub(crate) mod server;

use std::time::{Duration, Instant};

use stillpoint_hooks::hook::{
    plan::{self, Phase, Plan},
    pod::{Container, Pod, PodId, State},
    report::{HookResult, Outcome, Report},
};

/// How long anything may take that happens soon.
pub(crate) const SOON: Duration = Duration::from_secs(60);

/// A running pod with one container, `main`, and annotations of ours by their names without the prefix.
pub(crate) fn pod(name: &str, annotations: &[(&str, &str)]) -> Pod {
    let prefixed = |(key, value): &(&str, &str)| (format!("hooks.stillpoint.dev/{key}"), (*value).to_owned());
    Pod {
        id: PodId { namespace: "test".to_owned(), name: name.to_owned(), uid: None },
        state: State::Running,
        containers: vec![Container { name: "main".to_owned(), patience: None }],
        annotations: annotations.iter().map(prefixed).collect(),
    }
}

/// The whole plan of `pods`.
pub(crate) fn plan<const N: usize>(pods: [&Pod; N]) -> Plan {
    plan::plan(&pods.map(Clone::clone), &[], Phase::Both)
}

/// The result of a hook that ran once.
pub(crate) fn result<'a>(report: &'a Report, hook: &str) -> &'a HookResult {
    let mut found = report.results.iter().filter(|result| result.hook == hook);
    let first = found.next().unwrap_or_else(|| panic!("no result of {hook}: {report:#?}"));
    assert!(found.next().is_none(), "two results of {hook}: {report:#?}");
    first
}

pub(crate) fn outcome<'a>(report: &'a Report, hook: &str) -> &'a Outcome {
    &result(report, hook).outcome
}

/// Waits until `condition` holds.
pub(crate) async fn eventually(what: &str, mut condition: impl AsyncFnMut() -> bool) {
    let deadline = Instant::now() + SOON;
    while !condition().await {
        assert!(Instant::now() < deadline, "{what}: not so in {SOON:?}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}
