//! A coordinator's stream as this node sees it: what it asks, and whether it is still there.
//!
//! Signs of life are taken from the stream by a task of their own, so that work on one request never looks like the
//! silence of whoever sent it.

use std::time::Duration;

use futures::{Stream, StreamExt};
use tokio::{
    sync::{mpsc, watch},
    time::{self, Instant},
};
use tokio_util::task::AbortOnDropHandle;

use super::wire::{self, CutRequest, cut_request::Step};

/// How long a coordinator may be silent while writers stand still.
pub(crate) const PATIENCE: Duration = Duration::from_millis(750);
/// How often a coordinator says that it is there.
pub(crate) const BEAT: Duration = Duration::from_millis(150);
/// How often each end of a connection asks the other for a sign of life, whatever goes on.
pub(crate) const PROBE: Duration = Duration::from_secs(10);
/// How long that may stay unanswered before the connection counts as ended: its way may stand still without being cut.
pub(crate) const PROBED: Duration = Duration::from_secs(20);
/// Requests that wait to be worked on; a coordinator sends the next after the answer to the last.
const WAITING: usize = 8;

/// The stream has ended: the coordinator is gone.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the coordinator is gone")]
pub(crate) struct Gone;

/// The requests of one coordinator.
#[derive(Debug)]
pub(crate) struct Lease {
    steps: mpsc::Receiver<Step>,
    heard: watch::Receiver<Instant>,
    _reader: AbortOnDropHandle<()>,
}

impl Lease {
    /// Reads `requests` until they end or this is dropped.
    pub(crate) fn start(
        requests: impl Stream<Item = Result<CutRequest, tonic::Status>> + Send + Unpin + 'static,
    ) -> Self {
        let (forward, steps) = mpsc::channel(WAITING);
        let (beat, heard) = watch::channel(Instant::now());
        let reader = tokio::spawn(read(requests, forward, beat));
        Self { steps, heard, _reader: AbortOnDropHandle::new(reader) }
    }

    /// The next request; cancel safe.
    pub(crate) async fn next(&mut self) -> Result<Step, Gone> {
        self.steps.recv().await.ok_or(Gone)
    }

    /// Returns once the coordinator is gone, whatever it asks meanwhile; cancel safe.
    pub(crate) async fn gone(&self) {
        let mut heard = self.heard.clone();
        while heard.changed().await.is_ok() {}
    }

    /// Returns once the coordinator was silent for too long, or is gone; cancel safe.
    pub(crate) async fn silent(&self) {
        silent(self.heard.clone()).await;
    }

    /// The next request; none where the coordinator is silent for too long; cancel safe.
    pub(crate) async fn next_while_heard(&mut self) -> Result<Option<Step>, Gone> {
        let silent = silent(self.heard.clone());
        tokio::select! {
            biased;
            step = self.steps.recv() => step.map(Some).ok_or(Gone),
            () = silent => Ok(None),
        }
    }
}

async fn silent(mut heard: watch::Receiver<Instant>) {
    loop {
        let deadline = *heard.borrow_and_update() + PATIENCE;
        match time::timeout_at(deadline, heard.changed()).await {
            Ok(Ok(())) => {}
            Ok(Err(_)) | Err(_) => return,
        }
    }
}

async fn read(
    mut requests: impl Stream<Item = Result<CutRequest, tonic::Status>> + Unpin,
    forward: mpsc::Sender<Step>,
    beat: watch::Sender<Instant>,
) {
    while let Some(Ok(request)) = requests.next().await {
        beat.send_replace(Instant::now());
        match request.step {
            Some(Step::Beat(wire::Empty {})) | None => {}
            // who asks faster than it is answered breaks the protocol
            Some(step) => {
                if forward.try_send(step).is_err() {
                    return;
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use futures::{FutureExt, stream};

    use super::*;

    fn request(step: Step) -> Result<CutRequest, tonic::Status> {
        Ok(CutRequest { step: Some(step) })
    }

    #[tokio::test(start_paused = true)]
    async fn beats_keep_a_lease_and_silence_ends_it() {
        let beats = stream::unfold(0, |beats| async move {
            time::sleep(if beats < 20 { BEAT } else { PATIENCE * 10 }).await;
            Some((request(Step::Beat(wire::Empty {})), beats + 1))
        });
        let lease = Lease::start(Box::pin(beats));
        let started = Instant::now();
        lease.silent().await;
        let held = started.elapsed();
        assert!(held >= BEAT * 20 + PATIENCE && held < BEAT * 21 + PATIENCE, "{held:?}");
        assert!(lease.gone().now_or_never().is_none(), "silent is not gone");
    }

    #[tokio::test(start_paused = true)]
    async fn the_end_of_the_stream_ends_a_lease_at_once() {
        let mut lease = Lease::start(stream::iter([request(Step::Prepare(wire::Empty {}))]));
        let started = Instant::now();
        lease.gone().await;
        lease.silent().await;
        assert_eq!(started.elapsed(), Duration::ZERO);
        assert!(matches!(lease.next().await, Ok(Step::Prepare(_))));
        assert_eq!(lease.next().await, Err(Gone));
    }
}
