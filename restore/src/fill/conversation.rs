//! The program in a claim's pod: given its order, and listened to until it has said how it ended.

use std::time::Duration;

use stillpoint_hooks::hook::{
    exec::{Command, ExecError, Executor, Exit, Process, Reader, kubernetes::Kubernetes},
    pod::PodId,
};
use stillpoint_objects::helper::{CONTAINER, MOUNT};
use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader},
    sync::watch,
    time::timeout,
};

use super::{Done, Order, Said};
use crate::apply::Progress;

/// How long nothing may be heard of the program, which says something every second.
const SILENCE: Duration = Duration::from_secs(60);
/// The longest line that it says.
const MAX_LINE: u64 = 1 << 20;
/// What it may complain of.
const MAX_COMPLAINT: u64 = 4 << 10;

/// Why a filling failed.
pub(super) enum Failure {
    /// The connection was lost: it may be begun again, and goes on where it stopped.
    Lost(String),
    Final(String),
}

/// Has a pod's program fill its claim; `counted` are the bytes that progress has been told of.
pub(super) async fn fill(
    client: &kube::Client,
    pod: &PodId,
    order: &Order,
    progress: &watch::Sender<Progress>,
    counted: &mut u64,
) -> Result<Done, Failure> {
    let argv = ["stillpoint", "helper", "fill", "--target", MOUNT].map(str::to_owned);
    let command = Command { pod, container: CONTAINER, argv: &argv, input: true };
    let mut process = Kubernetes::new(client.clone()).start(command).await?;
    let mut input = process.input().ok_or_else(|| lost("it has no input"))?;
    let order = serde_json::to_string(order).map_err(|error| Failure::Final(error.to_string()))? + "\n";
    input.write_all(order.as_bytes()).await.map_err(lost)?;
    input.flush().await.map_err(lost)?;
    let (stdout, stderr) = process.outputs().ok_or_else(|| lost("it has no output"))?;
    let said = listen(stdout, progress, counted).await;
    let ended = match said? {
        Some(Said::Done(done)) => Ok(done),
        Some(Said::Failed { reason }) => Err(Failure::Final(reason)),
        Some(Said::Progress { .. }) | None => Err(silent_end(&mut *process, stderr).await),
    };
    // the input is the lease, and before version 5 of the protocol closing it loses the exit
    drop(input);
    ended
}

/// Listens until the program says how it ended; none where it goes away without a word.
async fn listen(
    output: Reader,
    progress: &watch::Sender<Progress>,
    counted: &mut u64,
) -> Result<Option<Said>, Failure> {
    let mut lines = BufReader::new(output);
    let mut line = String::new();
    loop {
        line.clear();
        let mut bounded = (&mut lines).take(MAX_LINE);
        let read = timeout(SILENCE, bounded.read_line(&mut line)).await;
        let read = read.map_err(|_| lost(format!("nothing was heard for {} s", SILENCE.as_secs())))?;
        if read.map_err(lost)? == 0 {
            return Ok(None);
        }
        match serde_json::from_str(line.trim()) {
            Ok(Said::Progress { bytes }) => {
                progress.send_modify(|progress| progress.bytes += bytes.saturating_sub(*counted));
                *counted = bytes.max(*counted);
            }
            Ok(said) => return Ok(Some(said)),
            Err(error) => {
                return Err(Failure::Final(format!(
                    "the program in its pod is not of this version: {error}: {}",
                    line.trim()
                )));
            }
        }
    }
}

/// What to say of a program that said nothing.
async fn silent_end(process: &mut dyn Process, stderr: Reader) -> Failure {
    let mut complaint = String::new();
    let end = async {
        let _ = stderr.take(MAX_COMPLAINT).read_to_string(&mut complaint).await;
        process.wait().await
    };
    match timeout(SILENCE, end).await {
        // killed: by whoever removed the pod, or for its memory
        Ok(Ok(exit @ (Exit::Signal(_) | Exit::Code(129..)))) => lost(format!("the program ended with {exit}")),
        Ok(Ok(exit)) => Failure::Final(format!("the program in its pod ended with {exit}: {}", complaint.trim())),
        Ok(Err(error)) => error.into(),
        Err(_) => lost("its program does not end"),
    }
}

fn lost(what: impl std::fmt::Display) -> Failure {
    Failure::Lost(format!("the connection to its pod was lost: {what}"))
}

impl From<ExecError> for Failure {
    fn from(error: ExecError) -> Self {
        match error {
            ExecError::Unreachable(_) | ExecError::Lost(_) => Self::Lost(error.to_string()),
            ExecError::Gone(_) | ExecError::Refused(_) | ExecError::CannotStart(_) => Self::Final(error.to_string()),
        }
    }
}
