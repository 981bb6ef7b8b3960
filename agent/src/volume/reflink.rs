//! Takes a volume by clones of its files on its own filesystem.
//!
//! The window is a walk and a clone of each file that an earlier copy does not have, whatever its size; the read comes
//! after the release. Clones are made one after the other, so a stranger makes the copy fuzzy.

use std::{sync::Arc, time::Instant};

use async_trait::async_trait;
use stillpoint_api::Level;
use stillpoint_filetree::backup::{Progress, clones::Cloning, tree};
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

pub(super) struct Reflink {
    taking: Taking,
    repository: Repository,
    writer: Writer,
    earlier: Option<Earlier>,
    settings: Settings,
    progress: watch::Sender<Progress>,
    strangers: Strangers,
    leftover: Arc<Leftover>,
    taken: Option<(Cloning, Window)>,
}

impl Reflink {
    pub(super) async fn prepare(
        taking: Taking,
        Target { repository, writer, earlier }: Target<'_>,
        settings: &Settings,
        progress: watch::Sender<Progress>,
    ) -> Result<Self, Error> {
        let leftover = try_out(&taking, settings, Kind::Clones).await?;
        let strangers = Strangers::before(&taking).await?;
        let (repository, writer, settings) = (repository.clone(), writer.clone(), settings.clone());
        Ok(Self { taking, repository, writer, earlier, settings, progress, strangers, leftover, taken: None })
    }
}

#[async_trait]
impl Capture for Reflink {
    fn stop(&self) -> PodStop {
        self.taking.pause()
    }

    async fn snapshot(&mut self) -> Result<(), Error> {
        self.taken = None;
        let began = Instant::now();
        let since = Strangers::instant(&self.taking).await?;
        let folder = remake(&self.taking, &self.leftover).await?;
        // what is stored beside the clones waits for no network either
        self.writer.hold_packs(&self.settings.spool);
        let request = tree::Request {
            directory: self.taking.directory()?,
            exclude: self.settings.exclude.clone(),
            earlier: self.earlier,
            cancel: self.settings.cancel.clone(),
        };
        let error = |error| self.taking.copy_error(error);
        let cloning = tree::clone(&self.repository, &self.writer, request, folder, self.progress.clone());
        let mut cloning = cloning.map_err(error)?;
        cloning.taken().await.map_err(error)?;
        self.strangers.after(&self.taking, Some(since)).await?;
        self.taken = Some((cloning, took(began, 0, 0)));
        Ok(())
    }

    async fn store(self: Box<Self>) -> Result<Stored, Error> {
        let Self { taking, writer, strangers, leftover, taken, .. } = *self;
        let stored = async {
            let (cloning, window) = taken.ok_or_else(|| taking.stopped())?;
            send(&writer, &taking).await?;
            let read = cloning.read().await.map_err(|error| taking.copy_error(error))?;
            let strangers = strangers.into_names();
            let level = if strangers.is_empty() { Level::Filesystem } else { Level::Fuzzy };
            taking.stored(read, level, strangers, window)
        };
        let stored = stored.await;
        remove(leftover).await;
        stored
    }

    async fn abandon(self: Box<Self>) {
        drop(self.taken);
        remove(self.leftover).await;
    }
}
