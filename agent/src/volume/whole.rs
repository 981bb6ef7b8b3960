//! Reads a volume from its directory in one go: in a pause, or while it changes.
//!
//! One file for both, because they differ only in when they read and in what that is worth. A pause without a drain says
//! nothing of mapped pages to whoever compares later, so an earlier copy spares no reading in it.

use std::time::Instant;

use async_trait::async_trait;
use stillpoint_api::{Level, Method};
use stillpoint_filetree::backup::Read;
use stillpoint_hooks::host::PodStop;

use super::{Capture, Error, Settings, Stored, Taking, Window, copying::Copying, strangers::Strangers, took};

pub(super) struct Whole {
    copying: Copying,
    strangers: Strangers,
    taken: Option<(Read, Window)>,
}

impl Whole {
    pub(super) async fn prepare(mut copying: Copying, settings: &Settings) -> Result<Self, Error> {
        if copying.taking.choice.method != Method::Live {
            copying.read_all();
        }
        let mut whole = Self { copying, strangers: Strangers::default(), taken: None };
        if whole.watches() {
            whole.strangers = Strangers::before(whole.taking(), &settings.looks).await?;
        }
        Ok(whole)
    }

    fn taking(&self) -> &Taking {
        &self.copying.taking
    }

    /// Whether nobody should write to it while it is read.
    fn watches(&self) -> bool {
        !self.is_live() || self.taking().volume.read_only
    }

    fn is_live(&self) -> bool {
        self.taking().choice.method == Method::Live
    }

    async fn read(&mut self) -> Result<(), Error> {
        let began = Instant::now();
        let since = if self.watches() { Some(Strangers::instant(self.taking()).await?) } else { None };
        let read = self.copying.read(self.taking().directory()?).await?;
        if since.is_some() {
            self.strangers.after(&self.copying.taking, since).await?;
        }
        let window = if self.is_live() { Window::default() } else { took(began, 0, read.counts.bytes_read) };
        self.taken = Some((read, window));
        Ok(())
    }
}

#[async_trait]
impl Capture for Whole {
    fn stop(&self) -> PodStop {
        if self.is_live() { PodStop::default() } else { self.taking().pause() }
    }

    async fn snapshot(&mut self) -> Result<(), Error> {
        self.taken = None;
        if self.is_live() {
            return Ok(());
        }
        self.copying.hold_packs();
        self.read().await
    }

    async fn store(mut self: Box<Self>) -> Result<Stored, Error> {
        if self.is_live() {
            self.read().await?;
        }
        self.copying.send_packs().await?;
        let watched = self.watches();
        let (read, window) = self.taken.ok_or_else(|| self.copying.taking.stopped())?;
        let strangers = self.strangers.into_names();
        let level = if !watched || !strangers.is_empty() { Level::Fuzzy } else { Level::Filesystem };
        self.copying.taking.stored(read, level, strangers, window)
    }

    async fn abandon(self: Box<Self>) {}
}
