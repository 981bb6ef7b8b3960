//! Drives one session through its states, whatever ends it.
//!
//! Straight on from top to bottom, so that there is one way back: every step is raced against the session's cancellation
//! and caught when it panics, and each of them ends in the same release and posts.

use std::{any::Any, panic::AssertUnwindSafe, time::Duration};

use futures::FutureExt;
use tokio::{sync::watch, time};
use tokio_util::sync::CancellationToken;

use super::{Ended, Held, HookFailure, Hooks, Limits, Report, State, Stopper};
use crate::guard::Release;

/// What one session needs besides its hooks, which outlive it in the report.
pub(super) struct Run<S> {
    pub(super) stopper: S,
    pub(super) limits: Limits,
    pub(super) state: watch::Sender<State>,
    pub(super) cancel: CancellationToken,
}

/// What was learnt on the way to the end.
struct Notes {
    failed: Vec<HookFailure>,
    lost_holds: Vec<HookFailure>,
    release: Option<Release>,
}

impl<S: Stopper> Run<S> {
    pub(super) async fn drive<H: Hooks, T: Send>(
        mut self,
        mut hooks: H,
        work: impl Future<Output = T> + Send,
    ) -> Report<H, T, S::Error> {
        let mut notes = Notes { failed: Vec::new(), lost_holds: Vec::new(), release: None };
        let ended = match self.up_to_the_stop(&mut hooks, &mut notes).await {
            Ok(held) => self.hold(held, &mut hooks, &mut notes, work).await,
            Err(ended) => ended,
        };
        let began_pre = *self.state.borrow() != State::Preparing;
        let mut post_failed = Vec::new();
        if began_pre {
            self.state.send_replace(State::Posting);
            post_failed = hooks.post().await;
        }
        self.state.send_replace(State::Done);
        let Notes { failed, lost_holds, release } = notes;
        Report { hooks, ended, failed, lost_holds, release, post_failed }
    }

    async fn up_to_the_stop<H: Hooks, T>(
        &mut self,
        hooks: &mut H,
        notes: &mut Notes,
    ) -> Result<S::Held, Ended<T, S::Error>> {
        let Limits { prepare, sync, stop } = self.limits;
        let Self { stopper, state, cancel, .. } = self;
        step(cancel, State::Preparing, Some(prepare), stopper.prepare()).await?.map_err(Ended::NotStopped)?;
        for group in 0..hooks.groups() {
            state.send_replace(State::Pre(group));
            let failed = step(cancel, State::Pre(group), None, hooks.pre(group)).await?;
            let fatal = failed.iter().any(|failure| failure.fatal);
            let mut left = true;
            for failure in &failed {
                left = stopper.leave_out(&failure.pod);
            }
            notes.failed.extend(failed);
            if fatal {
                return Err(Ended::HookFailed);
            }
            if !left {
                return Err(Ended::NothingLeft);
            }
        }
        state.send_replace(State::Syncing);
        step(cancel, State::Syncing, Some(sync), stopper.sync()).await?.map_err(Ended::NotStopped)?;
        state.send_replace(State::Stopping);
        step(cancel, State::Stopping, Some(stop), stopper.stop()).await?.map_err(Ended::NotStopped)
    }

    async fn hold<H: Hooks, T: Send>(
        &mut self,
        mut held: S::Held,
        hooks: &mut H,
        notes: &mut Notes,
        work: impl Future<Output = T> + Send,
    ) -> Ended<T, S::Error> {
        self.state.send_replace(State::Held);
        let worked = tokio::select! {
            biased;
            () = held.lost() => Err(Ended::Lost),
            () = hooks.hold_lost() => Err(Ended::Lost),
            worked = step(&self.cancel, State::Held, None, work) => worked,
        };
        self.state.send_replace(State::Releasing);
        let release = held.release().await;
        notes.lost_holds = hooks.lost_holds();
        let whole = release.whole && notes.lost_holds.is_empty();
        notes.release = Some(release);
        match worked {
            Ok(value) if whole => Ended::Whole(value),
            Ok(value) => Ended::NotWhole(value),
            Err(ended) => ended,
        }
    }
}

/// Runs a step to its end, its limit, its panic or the session's cancellation, whichever is first.
async fn step<R, T, E>(
    cancel: &CancellationToken,
    state: State,
    limit: Option<Duration>,
    step: impl Future<Output = R> + Send,
) -> Result<R, Ended<T, E>> {
    let caught = AssertUnwindSafe(step).catch_unwind();
    let limit = async {
        match limit {
            Some(limit) => time::sleep(limit).await,
            None => std::future::pending().await,
        }
    };
    tokio::select! {
        biased;
        () = cancel.cancelled() => Err(Ended::Cancelled),
        done = caught => done.map_err(|panic| Ended::Panicked(message(panic.as_ref()))),
        () = limit => Err(Ended::TooLate(state)),
    }
}

fn message(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().map(ToString::to_string);
    text.or_else(|| panic.downcast_ref::<String>().cloned()).unwrap_or_else(|| "without a message".to_owned())
}
