//! A hold: started before the window, held through it, let go after it.
//!
//! A task of its own watches each hold, so that its death is known while the window is open. The end is a line on
//! standard input, and the input is closed only when the hold has ended: closing it earlier loses the exit code on API
//! servers older than 1.30.

use std::time::Duration;

use tokio::{
    io::AsyncWriteExt,
    sync::watch,
    task::JoinHandle,
    time::{self, Instant},
};
use tokio_util::sync::CancellationToken;

use super::{Crew, attempt};
use crate::hook::{
    exec::{Command, ExecError, Exit, Process, Writer},
    model::{READY_LINE, RELEASE_LINE},
    output::{Capture, Output},
    plan::Step,
    pod::PodId,
    report::{HookResult, Outcome},
};

/// A hold that holds.
pub(super) struct Hold {
    step: Step,
    begun: Instant,
    release: CancellationToken,
    watching: JoinHandle<HookResult>,
}

impl Hold {
    pub(super) fn group(&self) -> i32 {
        self.step.hook.order
    }

    /// What is to be said of it while it holds.
    pub(super) fn so_far(&self, pod: &PodId) -> HookResult {
        HookResult::new(pod, &self.step, Outcome::Succeeded).took(1, self.begun.elapsed())
    }

    /// Lets go, and says what became of it.
    pub(super) async fn release(self, pod: &PodId) -> HookResult {
        self.release.cancel();
        match self.watching.await {
            Ok(result) => result,
            Err(error) => {
                let why = format!("nobody watched it any more: {error}");
                HookResult::new(pod, &self.step, Outcome::StillRunning { why })
            }
        }
    }
}

/// A hold's process and what it prints.
struct Held {
    process: Box<dyn Process>,
    input: Option<Writer>,
    stdout: Capture,
    stderr: Capture,
}

/// Starts a hold and waits until it says that it holds.
pub(super) async fn start(crew: &Crew, pod: &PodId, step: &Step) -> Result<Hold, Box<HookResult>> {
    let begun = Instant::now();
    let timeout = step.hook.timeout;
    let failed = |outcome| Box::new(HookResult::new(pod, step, outcome).took(1, begun.elapsed()));
    let command = Command { pod, container: &step.container, argv: &step.hook.command, input: true };
    let mut process = match time::timeout_at(begun + timeout, crew.executor.start(command)).await {
        Ok(Ok(process)) => process,
        Ok(Err(error)) => return Err(failed(Outcome::Failed { why: error.to_string() })),
        Err(_) => return Err(failed(attempt::never_answered(timeout))),
    };
    let Some((stdout, stderr)) = process.outputs() else {
        return Err(failed(Outcome::Failed { why: "it has no output to say that it is ready".to_owned() }));
    };
    let (stdout, ready) = Capture::until_line(stdout, READY_LINE);
    let mut held = Held { input: process.input(), process, stdout, stderr: Capture::start(stderr) };
    let outcome = tokio::select! {
        biased;
        Ok(()) = ready => None,
        ended = held.process.wait() => Some(died(&ended, "before it said that it is ready")),
        () = time::sleep_until(begun + timeout) => {
            Some(attempt::of_timeout(timeout, held.process.end().await))
        }
        () = crew.release.cancelled() => Some(attempt::of_call_off(held.process.end().await)),
    };
    if let Some(outcome) = outcome {
        let (stdout, stderr) = held.printed().await;
        return Err(Box::new(failed(outcome).printed(stdout, stderr)));
    }
    let release = CancellationToken::new();
    let result = HookResult::new(pod, step, Outcome::Succeeded);
    let watching = tokio::spawn(watch(held, begun, timeout, release.clone(), result, crew.broken.clone()));
    Ok(Hold { step: step.clone(), begun, release, watching })
}

async fn watch(
    mut held: Held,
    begun: Instant,
    timeout: Duration,
    release: CancellationToken,
    mut result: HookResult,
    broken: watch::Sender<Vec<HookResult>>,
) -> HookResult {
    tokio::select! {
        biased;
        ended = held.process.wait() => {
            result.outcome = died(&ended, "before it was released");
            broken.send_modify(|broken| broken.push(result.clone().took(1, begun.elapsed())));
        }
        () = release.cancelled() => result.outcome = let_go(&mut held, timeout).await,
    }
    let (stdout, stderr) = held.printed().await;
    result.took(1, begun.elapsed()).printed(stdout, stderr)
}

fn died(ended: &Result<Exit, ExecError>, when: &str) -> Outcome {
    match ended {
        Ok(exit) => Outcome::Failed { why: format!("ended {when}: {exit}") },
        Err(error @ ExecError::Lost(_)) => Outcome::StillRunning { why: error.to_string() },
        Err(error) => Outcome::Failed { why: error.to_string() },
    }
}

/// Tells the hold to end, waits for its exit, and only then closes its input.
async fn let_go(held: &mut Held, timeout: Duration) -> Outcome {
    let deadline = Instant::now() + timeout;
    let line = format!("{RELEASE_LINE}\n");
    if let Some(input) = &mut held.input {
        // a hold that does not read ends by its timeout, and one that has ended is seen below
        let _ = time::timeout_at(deadline, async {
            input.write_all(line.as_bytes()).await?;
            input.flush().await
        })
        .await;
    }
    let ended = time::timeout_at(deadline, held.process.wait()).await;
    let outcome = match ended {
        Ok(Ok(Exit::Code(0))) => Outcome::Succeeded,
        Ok(ended) => died(&ended, "after its release"),
        Err(_) => {
            let ended = held.process.end().await;
            attempt::of_timeout(timeout, ended)
        }
    };
    held.input = None;
    outcome
}

impl Held {
    async fn printed(self) -> (Output, Output) {
        tokio::join!(self.stdout.finish(), self.stderr.finish())
    }
}
