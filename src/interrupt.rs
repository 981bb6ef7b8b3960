//! Ctrl-C and requests to end: work is asked to stop and waited for.
//!
//! Work that holds a lock or runs a cluster must clean up before the process ends, so it is never just dropped.

use std::pin::Pin;

use anyhow::{Context, anyhow};
use tokio::signal::{
    self,
    unix::{SignalKind, signal},
};
use tokio_util::sync::CancellationToken;

/// Runs `work` to its end; a signal cancels the token that it watches.
///
/// Boxed, because work that is worth asking to stop is large.
pub(crate) async fn cancelling<T>(
    cancel: &CancellationToken,
    mut work: Pin<Box<dyn Future<Output = T> + '_>>,
) -> anyhow::Result<T> {
    tokio::select! {
        done = &mut work => Ok(done),
        asked = asked_to_end() => {
            asked?;
            cancel.cancel();
            Ok(work.await)
        }
    }
}

/// Runs `work`, which leaves nothing behind when it is dropped, until the token is cancelled.
pub(crate) async fn unless<T>(
    cancel: &CancellationToken,
    work: impl Future<Output = anyhow::Result<T>>,
) -> anyhow::Result<T> {
    cancel.run_until_cancelled(work).await.unwrap_or_else(|| Err(anyhow!("interrupted")))
}

/// Waits for Ctrl-C or a request to end.
pub(crate) async fn asked_to_end() -> anyhow::Result<()> {
    let mut terminate = signal(SignalKind::terminate()).context("cannot wait for signals")?;
    tokio::select! {
        interrupt = signal::ctrl_c() => interrupt.context("cannot wait for Ctrl-C"),
        _ = terminate.recv() => Ok(()),
    }
}
