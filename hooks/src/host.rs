//! The stop of one session on this very host, by a guard.
//!
//! What a session needs of it is a trait, so that another stop may be many nodes'; this one is complete for a program
//! that runs beside the volumes.

use std::path::PathBuf;

use crate::{
    guard::{self, Config, Failure, Guard, Release, Stop},
    session::{Held, Pod, Stopper},
};

/// What a pod contributes to a stop.
#[derive(Debug, Clone, Default)]
pub struct PodStop {
    /// The pod, as `namespace/name`.
    pub pod: Pod,
    /// Directories on its filesystems that are frozen.
    pub freeze: Vec<PathBuf>,
    /// Its cgroups that are paused.
    pub pause: Vec<PathBuf>,
    /// Directories on its filesystems that are drained after the pause.
    pub drain: Vec<PathBuf>,
    /// Its cgroups that are paused when a freeze does not complete.
    pub rescue: Vec<PathBuf>,
}

/// Stops the writers of some pods on this host.
#[derive(Debug)]
pub struct Host {
    config: Config,
    /// What is common to all pods: times, and paths to protect.
    common: Stop,
    pods: Vec<PodStop>,
}

/// Why nothing was stopped.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The guard says why.
    #[error(transparent)]
    Guard(#[from] guard::Error),
    /// The lookup was interrupted.
    #[error("the lookup ended early: {0}")]
    Lookup(#[from] tokio::task::JoinError),
}

impl Host {
    /// A stop of `pods`; `common` gives its times and the paths to protect.
    #[must_use]
    pub fn new(config: Config, common: Stop, pods: Vec<PodStop>) -> Self {
        Self { config, common, pods }
    }

    /// Everything that is to be stopped, as the guard is asked.
    fn whole(&self) -> Stop {
        let mut stop = self.common.clone();
        for pod in &self.pods {
            stop.freeze.extend_from_slice(&pod.freeze);
            stop.pause.extend_from_slice(&pod.pause);
            stop.drain.extend_from_slice(&pod.drain);
            stop.rescue.extend_from_slice(&pod.rescue);
        }
        stop
    }
}

impl Stopper for Host {
    type Held = guard::Held;
    type Error = Error;

    async fn prepare(&mut self) -> Result<(), Error> {
        let (stop, journal) = (self.whole(), self.config.journal.clone());
        let checked = tokio::task::spawn_blocking(move || guard::check(&stop, &journal)).await?;
        checked.map(drop).map_err(|failures: Vec<Failure>| guard::Error::NotStopped(failures).into())
    }

    fn leave_out(&mut self, pod: &Pod) -> bool {
        self.pods.retain(|known| known.pod != *pod);
        !self.pods.is_empty()
    }

    /// The guard writes back by itself, right before the stop.
    async fn sync(&mut self) -> Result<(), Error> {
        Ok(())
    }

    async fn stop(&mut self) -> Result<guard::Held, Error> {
        let guard = Guard::start(&self.config).await?;
        Ok(guard.stop(&self.whole()).await?)
    }
}

impl Held for guard::Held {
    async fn lost(&mut self) {
        Self::lost(self).await;
    }

    async fn release(self) -> Release {
        Self::release(self).await
    }
}
