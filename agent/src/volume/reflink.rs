//! Takes a volume by clones of its files on its own filesystem.
//!
//! The window is a walk and a clone of each file that an earlier copy does not have, whatever its size; the read comes
//! after the release. Clones are made one after the other, so a stranger makes the copy fuzzy.

use std::{sync::Arc, time::Instant};

use async_trait::async_trait;
use stillpoint_api::Level;
use stillpoint_filetree::backup::{self, clones::Cloning};
use stillpoint_hooks::host::PodStop;

use super::{
    Capture, Error, Settings, Stored, Window,
    copying::Copying,
    leftovers::{Kind, Leftover, clear, remake, remove, try_out},
    strangers::Strangers,
    took,
};

pub(super) struct Reflink {
    copying: Copying,
    strangers: Strangers,
    leftover: Arc<Leftover>,
    taken: Option<(Cloning, Window)>,
}

impl Reflink {
    pub(super) async fn prepare(mut copying: Copying, settings: &Settings) -> Result<Self, Error> {
        copying.fetch_earlier().await?;
        let leftover = try_out(&copying.taking, settings, Kind::Clones).await?;
        let strangers = Strangers::before(&copying.taking, &settings.looks).await?;
        Ok(Self { copying, strangers, leftover, taken: None })
    }
}

#[async_trait]
impl Capture for Reflink {
    fn stop(&self) -> PodStop {
        self.copying.taking.pause()
    }

    async fn snapshot(&mut self) -> Result<(), Error> {
        self.taken = None;
        let began = Instant::now();
        let taking = &self.copying.taking;
        let since = Strangers::instant(taking).await?;
        let folder = remake(taking, &self.leftover).await?;
        // what is stored beside the clones waits for no network either
        self.copying.hold_packs();
        let mut cloning = self.copying.clone_into(folder)?;
        cloning.taken().await.map_err(|error| match error {
            error @ backup::Error::NotCloned { .. } => taking.not_taken(error),
            error => taking.copy_error(error),
        })?;
        self.strangers.after(taking, Some(since)).await?;
        self.taken = Some((cloning, took(began, 0, 0)));
        Ok(())
    }

    async fn store(self: Box<Self>) -> Result<Stored, Error> {
        let Self { copying, strangers, leftover, taken } = *self;
        let stored = async {
            let (cloning, window) = taken.ok_or_else(|| copying.taking.stopped())?;
            copying.send_packs().await?;
            let read = cloning.read().await.map_err(|error| copying.taking.copy_error(error))?;
            let strangers = strangers.into_names();
            let level = if strangers.is_empty() { Level::Filesystem } else { Level::Fuzzy };
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
        drop(self.taken);
        remove(self.leftover).await;
    }
}
