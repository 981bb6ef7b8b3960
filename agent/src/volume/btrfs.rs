//! Takes a volume as a snapshot of its subvolume.
//!
//! The window is one call; the read comes after the release. A snapshot is one instant even of a volume that is written,
//! which is why strangers cost it less than other methods.

use std::{os::fd::OwnedFd, sync::Arc, time::Instant};

use async_trait::async_trait;
use stillpoint_api::Level;
use stillpoint_filetree::backup::{Progress, tree};
use stillpoint_hooks::host::PodStop;
use stillpoint_repository::{Repository, Writer};
use tokio::sync::watch;

use super::{
    Capture, Earlier, Error, Settings, Stored, Taking, Target, Window,
    leftovers::{Kind, Leftover, remake, remove, try_out},
    send,
    strangers::Strangers,
    took,
};

pub(super) struct Btrfs {
    taking: Taking,
    repository: Repository,
    writer: Writer,
    earlier: Option<Earlier>,
    settings: Settings,
    progress: watch::Sender<Progress>,
    strangers: Strangers,
    leftover: Arc<Leftover>,
    taken: Option<(OwnedFd, Window)>,
}

impl Btrfs {
    pub(super) async fn prepare(
        taking: Taking,
        Target { repository, writer, earlier }: Target<'_>,
        settings: &Settings,
        progress: watch::Sender<Progress>,
    ) -> Result<Self, Error> {
        let leftover = try_out(&taking, settings, Kind::Snapshot).await?;
        let is_paused = !taking.volume.cgroups.is_empty();
        let strangers = if is_paused { Strangers::before(&taking).await? } else { Strangers::default() };
        let (repository, writer, settings) = (repository.clone(), writer.clone(), settings.clone());
        Ok(Self { taking, repository, writer, earlier, settings, progress, strangers, leftover, taken: None })
    }

    fn is_paused(&self) -> bool {
        !self.taking.volume.cgroups.is_empty()
    }
}

#[async_trait]
impl Capture for Btrfs {
    fn stop(&self) -> PodStop {
        if self.is_paused() { self.taking.pause() } else { PodStop::default() }
    }

    async fn snapshot(&mut self) -> Result<(), Error> {
        self.taken = None;
        let began = Instant::now();
        let snapshot = remake(&self.taking, &self.leftover).await?;
        let window = took(began, 0, 0);
        if self.is_paused() {
            self.strangers.after(&self.taking, None).await?;
        }
        self.taken = Some((snapshot, window));
        Ok(())
    }

    async fn store(self: Box<Self>) -> Result<Stored, Error> {
        let is_paused = self.is_paused();
        let Self { taking, repository, writer, earlier, settings, progress, strangers, leftover, taken } = *self;
        let stored = async {
            let (directory, window) = taken.ok_or_else(|| taking.stopped())?;
            let request = tree::Request { directory, exclude: settings.exclude, earlier, cancel: settings.cancel };
            let read = tree::read(&repository, &writer, request, progress).await;
            let read = read.map_err(|error| taking.copy_error(error))?;
            send(&writer, &taking).await?;
            let strangers = strangers.into_names();
            let level = if is_paused && strangers.is_empty() { Level::Filesystem } else { Level::Crash };
            taking.stored(read, level, strangers, window)
        };
        let stored = stored.await;
        remove(leftover).await;
        stored
    }

    async fn abandon(self: Box<Self>) {
        remove(self.leftover).await;
    }
}
