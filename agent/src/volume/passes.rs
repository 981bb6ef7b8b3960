//! Copies a volume before the stop, and in it only what changed since.
//!
//! The engine of passes knows nothing of freezing; here its drains are those of a guard, and its window the stop's.

use std::time::Instant;

use async_trait::async_trait;
use stillpoint_api::Level;
use stillpoint_filetree::backup::{
    Progress, Read,
    precopy::{PassError, Precopy, Request},
};
use stillpoint_hooks::host::PodStop;
use stillpoint_repository::Writer;
use tokio::sync::watch;

use super::{Capture, Error, Forecast, Settings, Stored, Taking, Target, Window, drain, send, took};

pub(super) struct Passes {
    taking: Taking,
    writer: Writer,
    precopy: Precopy,
    passes: u32,
    taken: Option<(Read, Window)>,
}

/// Makes passes until the window would keep to its budget, or further ones do not help.
pub(super) async fn converge(
    taking: &Taking,
    Target { repository, writer, earlier }: Target<'_>,
    settings: &Settings,
    progress: watch::Sender<Progress>,
) -> Result<(Precopy, Forecast), Error> {
    let request = Request {
        directory: taking.directory()?,
        exclude: settings.exclude.clone(),
        earlier,
        budget: settings.budget,
        spool: settings.spool.clone(),
        cancel: settings.cancel.clone(),
    };
    let mut precopy = Precopy::new(repository, writer, request, progress).map_err(|error| taking.copy_error(error))?;
    let forecast = precopy.converge(async || drain(&taking.volume, settings).await).await;
    let forecast = forecast.map_err(|error| match error {
        PassError::Copy(source) => taking.copy_error(source),
        PassError::Drain(source) => Error::Drain { volume: taking.volume.name.clone(), source },
    })?;
    Ok((precopy, forecast))
}

impl Passes {
    pub(super) fn new(taking: Taking, writer: &Writer, precopy: Precopy, forecast: Forecast) -> Self {
        Self { taking, writer: writer.clone(), precopy, passes: forecast.passes, taken: None }
    }
}

#[async_trait]
impl Capture for Passes {
    fn stop(&self) -> PodStop {
        let volume = &self.taking.volume;
        PodStop { freeze: vec![volume.path.clone()], rescue: volume.cgroups.clone(), ..PodStop::default() }
    }

    async fn snapshot(&mut self) -> Result<(), Error> {
        self.taken = None;
        let began = Instant::now();
        let read = self.precopy.window().await.map_err(|error| self.taking.copy_error(error))?;
        let window = took(began, self.passes, read.counts.bytes_read);
        self.taken = Some((read, window));
        Ok(())
    }

    async fn store(self: Box<Self>) -> Result<Stored, Error> {
        send(&self.writer, &self.taking).await?;
        let (mut read, window) = self.taken.ok_or_else(|| self.taking.stopped())?;
        read.counts.bytes_read = self.precopy.bytes_read();
        self.taking.stored(read, Level::Filesystem, Vec::new(), window)
    }

    async fn abandon(self: Box<Self>) {}
}
