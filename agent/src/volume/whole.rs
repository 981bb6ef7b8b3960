//! Reads a volume from its directory in one go: in a pause, or while it changes.
//!
//! One file for both, because they differ only in when they read and in what that is worth. A pause without a drain says
//! nothing of mapped pages to whoever compares later, so an earlier copy spares no reading in it.

use std::time::Instant;

use async_trait::async_trait;
use stillpoint_api::{Level, Method};
use stillpoint_filetree::backup::{Progress, Read, tree};
use stillpoint_hooks::host::PodStop;
use stillpoint_repository::{Repository, Writer};
use tokio::sync::watch;

use super::{Capture, Earlier, Error, Settings, Stored, Taking, Target, Window, send, strangers::Strangers, took};

pub(super) struct Whole {
    taking: Taking,
    repository: Repository,
    writer: Writer,
    earlier: Option<Earlier>,
    settings: Settings,
    progress: watch::Sender<Progress>,
    strangers: Strangers,
    taken: Option<(Read, Window)>,
}

impl Whole {
    pub(super) async fn prepare(
        taking: Taking,
        Target { repository, writer, earlier }: Target<'_>,
        settings: &Settings,
        progress: watch::Sender<Progress>,
    ) -> Result<Self, Error> {
        let (repository, writer, settings) = (repository.clone(), writer.clone(), settings.clone());
        let strangers = Strangers::default();
        let mut whole = Self { taking, repository, writer, earlier, settings, progress, strangers, taken: None };
        if whole.watches() {
            whole.strangers = Strangers::before(&whole.taking).await?;
        }
        Ok(whole)
    }

    /// Whether nobody should write to it while it is read.
    fn watches(&self) -> bool {
        !self.is_live() || self.taking.volume.read_only
    }

    fn is_live(&self) -> bool {
        self.taking.choice.method == Method::Live
    }

    async fn read(&mut self) -> Result<(), Error> {
        let began = Instant::now();
        let since = if self.watches() { Some(Strangers::instant(&self.taking).await?) } else { None };
        let earlier = if self.is_live() { self.earlier } else { None };
        let request = tree::Request {
            directory: self.taking.directory()?,
            exclude: self.settings.exclude.clone(),
            earlier,
            cancel: self.settings.cancel.clone(),
        };
        let read = tree::read(&self.repository, &self.writer, request, self.progress.clone()).await;
        let read = read.map_err(|error| self.taking.copy_error(error))?;
        if since.is_some() {
            self.strangers.after(&self.taking, since).await?;
        }
        let window = if self.is_live() { Window::default() } else { took(began, 0, read.counts.bytes_read) };
        self.taken = Some((read, window));
        Ok(())
    }
}

#[async_trait]
impl Capture for Whole {
    fn stop(&self) -> PodStop {
        if self.is_live() { PodStop::default() } else { self.taking.pause() }
    }

    async fn snapshot(&mut self) -> Result<(), Error> {
        self.taken = None;
        if self.is_live() {
            return Ok(());
        }
        self.writer.hold_packs(&self.settings.spool);
        self.read().await
    }

    async fn store(mut self: Box<Self>) -> Result<Stored, Error> {
        if self.is_live() {
            self.read().await?;
        }
        send(&self.writer, &self.taking).await?;
        let watched = self.watches();
        let (read, window) = self.taken.ok_or_else(|| self.taking.stopped())?;
        let strangers = self.strangers.into_names();
        let level = if !watched || !strangers.is_empty() { Level::Fuzzy } else { Level::Filesystem };
        self.taking.stored(read, level, strangers, window)
    }

    async fn abandon(self: Box<Self>) {}
}
