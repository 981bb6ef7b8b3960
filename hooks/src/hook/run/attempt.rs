//! One start of one hook, from the request to its outcome.
//!
//! The one place that knows how a timeout, a lost connection and a called-off run end, so that pre hooks and posts
//! cannot differ in it.

use std::time::Duration;

use tokio::time::{self, Instant};
use tokio_util::sync::CancellationToken;

use super::Crew;
use crate::hook::{
    duration,
    exec::{Command, Ended, ExecError, Exit},
    model::Kind,
    output::Capture,
    plan::Step,
    pod::PodId,
    report::{HookResult, Outcome, Skip},
};

/// Runs a hook once; `called_off` ends it before its time.
pub(super) async fn run(crew: &Crew, pod: &PodId, step: &Step, called_off: Option<&CancellationToken>) -> HookResult {
    once(crew, pod, step, step.hook.timeout, called_off).await.0
}

/// Runs a hook once within `timeout`; also says why it did not run to its end, where that is known.
pub(super) async fn once(
    crew: &Crew,
    pod: &PodId,
    step: &Step,
    timeout: Duration,
    called_off: Option<&CancellationToken>,
) -> (HookResult, Option<ExecError>) {
    let begun = Instant::now();
    let command = Command { pod, container: &step.container, argv: &step.hook.command, input: false };
    let result = |outcome| HookResult::new(pod, step, outcome).took(1, begun.elapsed());
    let mut process = match time::timeout_at(begun + timeout, crew.executor.start(command)).await {
        Ok(Ok(process)) => process,
        Ok(Err(error)) => return (result(not_started(step.hook.kind, &error)), Some(error)),
        Err(_) => return (result(never_answered(timeout)), None),
    };
    let outputs = process.outputs().map(|(stdout, stderr)| (Capture::start(stdout), Capture::start(stderr)));
    let (outcome, error) = tokio::select! {
        ended = process.wait() => of_end(ended),
        () = time::sleep_until(begun + timeout) => (of_timeout(timeout, process.end().await), None),
        () = cancelled(called_off) => (of_call_off(process.end().await), None),
    };
    let mut result = result(outcome);
    if let Some((stdout, stderr)) = outputs {
        let (stdout, stderr) = tokio::join!(stdout.finish(), stderr.finish());
        result = result.printed(stdout, stderr);
    }
    (result, error)
}

async fn cancelled(token: Option<&CancellationToken>) {
    match token {
        Some(token) => token.cancelled().await,
        None => std::future::pending().await,
    }
}

/// What a command that was not started means for its hook. Without its pod a post has nothing to undo, but a pre hook
/// has not brought to rest whatever has the volumes now.
fn not_started(kind: Kind, error: &ExecError) -> Outcome {
    match (kind, error) {
        (Kind::Post, ExecError::Gone(why)) => Outcome::Skipped { why: Skip::PodGone(why.clone()) },
        (_, error) => Outcome::Failed { why: error.to_string() },
    }
}

/// What it means that nobody said whether the command was started.
pub(super) fn never_answered(timeout: Duration) -> Outcome {
    let why = format!("nobody answered for {}; it may have been started", duration::format(timeout));
    Outcome::StillRunning { why }
}

fn of_end(ended: Result<Exit, ExecError>) -> (Outcome, Option<ExecError>) {
    match ended {
        Ok(Exit::Code(0)) => (Outcome::Succeeded, None),
        Ok(exit) => (Outcome::Failed { why: exit.to_string() }, None),
        Err(error @ ExecError::Lost(_)) => (Outcome::StillRunning { why: error.to_string() }, Some(error)),
        Err(error) => (Outcome::Failed { why: error.to_string() }, Some(error)),
    }
}

/// What a timeout means, after the process was ended or not.
pub(super) fn of_timeout(timeout: Duration, ended: Ended) -> Outcome {
    let timeout = duration::format(timeout);
    match ended {
        Ended::Gone(how) => Outcome::TimedOut { why: format!("not done after {timeout}; ended: {how}") },
        Ended::StillRunning(why) => Outcome::StillRunning { why: format!("not done after {timeout}; {why}") },
    }
}

/// What a call-off means, after the process was ended or not.
pub(super) fn of_call_off(ended: Ended) -> Outcome {
    match ended {
        Ended::Gone(how) => Outcome::Failed { why: format!("called off; ended: {how}") },
        Ended::StillRunning(why) => Outcome::StillRunning { why: format!("called off; {why}") },
    }
}
