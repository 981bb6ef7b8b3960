//! Takes a volume as a snapshot of its subvolume.
//!
//! The window is one call; the read comes after the release. A snapshot is one instant even of a volume that is written,
//! which is why strangers cost it less than other methods.

use std::{os::fd::OwnedFd, sync::Arc, time::Instant};

use async_trait::async_trait;
use stillpoint_api::Level;
use stillpoint_hooks::host::PodStop;

use super::{
    Capture, Error, Settings, Stored, Taking, Window,
    copying::Copying,
    leftovers::{Kind, Leftover, clear, remake, remove, try_out},
    strangers::Strangers,
    took,
};

pub(super) struct Btrfs {
    copying: Copying,
    strangers: Strangers,
    leftover: Arc<Leftover>,
    taken: Option<(OwnedFd, Window)>,
}

impl Btrfs {
    pub(super) async fn prepare(copying: Copying, settings: &Settings) -> Result<Self, Error> {
        let leftover = try_out(&copying.taking, settings, Kind::Snapshot).await?;
        let mut btrfs = Self { copying, strangers: Strangers::default(), leftover, taken: None };
        if btrfs.is_paused() {
            btrfs.strangers = Strangers::before(btrfs.taking(), &settings.looks).await?;
        }
        Ok(btrfs)
    }

    fn taking(&self) -> &Taking {
        &self.copying.taking
    }

    fn is_paused(&self) -> bool {
        !self.taking().volume.cgroups.is_empty()
    }
}

#[async_trait]
impl Capture for Btrfs {
    fn stop(&self) -> PodStop {
        if self.is_paused() { self.taking().pause() } else { PodStop::default() }
    }

    async fn snapshot(&mut self) -> Result<(), Error> {
        self.taken = None;
        let began = Instant::now();
        let snapshot = remake(self.taking(), &self.leftover).await?;
        let window = took(began, 0, 0);
        if self.is_paused() {
            self.strangers.after(&self.copying.taking, None).await?;
        }
        self.taken = Some((snapshot, window));
        Ok(())
    }

    async fn store(self: Box<Self>) -> Result<Stored, Error> {
        let is_paused = self.is_paused();
        let Self { copying, strangers, leftover, taken } = *self;
        let stored = async {
            let (directory, window) = taken.ok_or_else(|| copying.taking.stopped())?;
            let read = copying.read(directory).await?;
            copying.send_packs().await?;
            let strangers = strangers.into_names();
            let level = if is_paused && strangers.is_empty() { Level::Filesystem } else { Level::Crash };
            copying.taking.stored(read, level, strangers, window)
        };
        let stored = stored.await;
        remove(leftover).await;
        stored
    }

    async fn recover(&mut self) {
        if self.taken.is_none() {
            clear(&self.leftover).await;
        }
    }

    async fn abandon(self: Box<Self>) {
        remove(self.leftover).await;
    }
}
