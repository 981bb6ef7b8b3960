//! Moves bytes in small pieces, at a limited speed where there is a limit.
//!
//! Bodies are wrapped, not operations: a pack of 16 MiB that waits and is then sent in one burst would be no limit on
//! the line. The same pieces tell a slow transfer from one that has stopped.

use std::{
    num::NonZeroU32,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    task::{Context, Poll, ready},
    time::Duration,
};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use leaky_bucket::{AcquireOwned, RateLimiter};
use tokio::time::error::Elapsed;

/// The most that is passed on at once.
const PIECE: usize = 64 << 10;
/// Turns a second: what waits for its turn behind ten others still moves every other second.
const TURNS: u32 = 8;

/// The speed of one direction, shared by all transfers of a store.
#[derive(Debug, Clone, Default)]
pub(super) struct Pace(Option<Limit>);

#[derive(Debug, Clone)]
struct Limit {
    bucket: Arc<RateLimiter>,
    piece: usize,
}

impl Pace {
    /// As fast as it goes, or at most so many KiB a second.
    pub(super) fn new(kib_per_second: Option<NonZeroU32>) -> Self {
        Self(kib_per_second.map(|rate| Limit::new(rate.get() as usize * 1024)))
    }

    pub(super) fn is_limited(&self) -> bool {
        self.0.is_some()
    }

    /// The most that may pass at once.
    pub(super) fn piece(&self) -> usize {
        self.0.as_ref().map_or(PIECE, |limit| limit.piece)
    }

    /// Waits for the turn of so many bytes; none where there is no limit.
    fn turn(&self, bytes: usize) -> Option<AcquireOwned> {
        self.0.as_ref().map(|limit| limit.bucket.clone().acquire_owned(bytes))
    }

    /// Waits until so many bytes may pass.
    pub(super) async fn wait(&self, bytes: usize) {
        if let Some(turn) = self.turn(bytes) {
            turn.await;
        }
    }
}

impl Limit {
    fn new(bytes_per_second: usize) -> Self {
        let turn = bytes_per_second / TURNS as usize;
        let interval = Duration::from_secs(1) / TURNS;
        let bucket = RateLimiter::builder().initial(0).max(turn).refill(turn).interval(interval).build();
        Self { bucket: Arc::new(bucket), piece: turn.min(PIECE) }
    }
}

/// How many bytes an operation has moved; clones count together.
#[derive(Debug, Clone, Default)]
pub(super) struct Progress(Arc<AtomicU64>);

impl Progress {
    fn moved(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }

    pub(super) fn add(&self, bytes: usize) {
        self.0.fetch_add(bytes as u64, Ordering::Relaxed);
    }
}

impl Progress {
    /// Waits for an operation as long as it moves, or stands still for no longer than `patience`.
    pub(super) async fn watch<T>(&self, patience: Duration, operation: impl Future<Output = T>) -> Result<T, Elapsed> {
        let mut operation = std::pin::pin!(operation);
        let mut seen = self.moved();
        loop {
            match tokio::time::timeout(patience, &mut operation).await {
                Err(elapsed) if self.moved() == seen => return Err(elapsed),
                Err(_) => seen = self.moved(),
                Ok(done) => return Ok(done),
            }
        }
    }
}

/// A body that keeps a pace and reports its progress.
pub(super) struct Paced<B> {
    body: B,
    pace: Pace,
    progress: Progress,
    left: Bytes,
    turn: Option<Pin<Box<AcquireOwned>>>,
}

impl<B> Paced<B> {
    pub(super) fn new(body: B, pace: Pace, progress: Progress) -> Self {
        Self { body, pace, progress, left: Bytes::new(), turn: None }
    }

    /// The next piece of what is left, once it may pass.
    fn poll_piece(&mut self, context: &mut Context<'_>) -> Poll<Bytes> {
        let size = self.left.len().min(self.pace.piece());
        if self.turn.is_none() {
            self.turn = self.pace.turn(size).map(Box::pin);
        }
        if let Some(turn) = &mut self.turn {
            ready!(turn.as_mut().poll(context));
            self.turn = None;
        }
        self.progress.add(size);
        Poll::Ready(self.left.split_to(size))
    }
}

impl<B: Body<Data = Bytes> + Unpin> Body for Paced<B> {
    type Data = Bytes;
    type Error = B::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        while self.left.is_empty() {
            match ready!(Pin::new(&mut self.body).poll_frame(context)) {
                Some(Ok(frame)) => match frame.into_data() {
                    Ok(data) => self.left = data,
                    Err(trailers) => return Poll::Ready(Some(Ok(trailers))),
                },
                end => return Poll::Ready(end),
            }
        }
        self.poll_piece(context).map(|piece| Some(Ok(Frame::data(piece))))
    }

    fn is_end_stream(&self) -> bool {
        self.left.is_empty() && self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        let left = self.left.len() as u64;
        let below = self.body.size_hint();
        let mut hint = SizeHint::new();
        hint.set_lower(below.lower() + left);
        if let Some(upper) = below.upper() {
            hint.set_upper(upper + left);
        }
        hint
    }
}

#[cfg(test)]
mod tests {
    use http_body_util::{BodyExt, Full};
    use tokio::time::Instant;

    use super::*;

    fn paced(size: usize, pace: &Pace, progress: &Progress) -> Paced<Full<Bytes>> {
        Paced::new(Full::new(vec![7; size].into()), pace.clone(), progress.clone())
    }

    #[tokio::test(start_paused = true)]
    async fn a_large_body_is_spread_over_its_time_and_not_sent_in_a_burst() {
        let (pace, progress) = (Pace::new(NonZeroU32::new(1024)), Progress::default());
        let mut body = paced(4 << 20, &pace, &progress);
        let started = Instant::now();
        let (mut sent, mut largest_lead) = (0.0, 0.0_f64);
        while let Some(frame) = body.frame().await {
            sent += frame.unwrap().into_data().unwrap().len() as f64;
            largest_lead = largest_lead.max(sent - started.elapsed().as_secs_f64() * f64::from(1 << 20));
        }
        let took = started.elapsed().as_secs_f64();
        assert!((3.7..4.3).contains(&took), "{took}");
        assert!(largest_lead <= f64::from(1 << 18), "{largest_lead} bytes too early");
        assert_eq!(progress.moved(), 4 << 20);
    }

    #[tokio::test(start_paused = true)]
    async fn transfers_at_the_same_time_share_the_limit_and_all_move() {
        let pace = Pace::new(NonZeroU32::new(16));
        let started = Instant::now();
        let transfers = (0..8).map(|_| paced(16 << 10, &pace, &Progress::default()).collect());
        futures::future::join_all(transfers).await;
        let took = started.elapsed().as_secs_f64();
        assert!((7.5..8.5).contains(&took), "{took}");
    }

    #[tokio::test(start_paused = true)]
    async fn without_a_limit_nothing_waits_and_progress_is_seen_in_pieces() {
        let (pace, progress) = (Pace::new(None), Progress::default());
        let mut body = paced(1 << 20, &pace, &progress);
        assert_eq!(body.size_hint().exact(), Some(1 << 20));
        let started = Instant::now();
        body.frame().await.unwrap().unwrap();
        assert_eq!(progress.moved(), 64 << 10);
        assert_eq!(body.size_hint().exact(), Some((1 << 20) - (64 << 10)));
        assert_eq!(body.collect().await.unwrap().to_bytes().len(), (1 << 20) - (64 << 10));
        assert_eq!(started.elapsed(), Duration::ZERO);
    }
}
