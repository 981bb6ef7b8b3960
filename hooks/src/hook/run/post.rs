//! A post hook, tried until it succeeds or its deadline is reached.
//!
//! What was brought to rest must come back: an API server that is being restarted, or a client that is not let in at
//! once, is no reason to leave an application locked.

use std::time::Duration;

use tokio::time::{self, Instant};

use super::{Crew, attempt};
use crate::hook::{
    exec::ExecError,
    plan::Step,
    pod::PodId,
    report::{HookResult, Outcome},
};

/// How often a post that runs and fails is started.
const FAILURES: u32 = 3;

/// The wait before the second start; it doubles from one to the next.
const FIRST_WAIT: Duration = Duration::from_millis(500);
const LONGEST_WAIT: Duration = Duration::from_secs(5);

/// Runs a post hook to its last try; `true` says that nobody knows whether it ran, because nobody answered.
pub(super) async fn run(crew: &Crew, pod: &PodId, step: &Step) -> (HookResult, bool) {
    let begun = Instant::now();
    let deadline = begun + crew.limits.post;
    let mut wait = FIRST_WAIT;
    let (mut attempts, mut failures) = (0, 0);
    loop {
        attempts += 1;
        let rest = deadline.saturating_duration_since(Instant::now());
        let (result, error) = attempt::once(crew, pod, step, step.hook.timeout.min(rest), None).await;
        let unanswered = unanswered(&result.outcome, error.as_ref());
        failures += u32::from(!unanswered);
        let last = !worth_a_try(&result.outcome) || failures >= FAILURES || Instant::now() + wait >= deadline;
        if last {
            return (result.took(attempts, begun.elapsed()), unanswered);
        }
        time::sleep(wait).await;
        wait = (wait * 2).min(LONGEST_WAIT);
    }
}

/// Whether the way to the hook failed, rather than the hook.
fn unanswered(outcome: &Outcome, error: Option<&ExecError>) -> bool {
    match error {
        Some(error) => matches!(error, ExecError::Unreachable(_) | ExecError::Lost(_)),
        None => matches!(outcome, Outcome::StillRunning { .. }),
    }
}

fn worth_a_try(outcome: &Outcome) -> bool {
    !matches!(outcome, Outcome::Succeeded | Outcome::Skipped { .. })
}
