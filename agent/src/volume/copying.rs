//! What the methods share that read a directory from one end to the other.
//!
//! They differ in what they read, when, and in what that is worth; where it goes is the same for all.

use std::os::fd::OwnedFd;

use stillpoint_filetree::backup::{
    Progress, Read,
    clones::Cloning,
    tree::{self, Request},
};
use stillpoint_repository::{Repository, Writer};
use tokio::sync::watch;

use super::{Earlier, Error, Settings, Taking, Target, send};

pub(super) struct Copying {
    pub(super) taking: Taking,
    repository: Repository,
    writer: Writer,
    earlier: Option<Earlier>,
    settings: Settings,
    progress: watch::Sender<Progress>,
}

impl Copying {
    pub(super) fn new(
        taking: Taking,
        Target { repository, writer, earlier }: Target<'_>,
        settings: &Settings,
        progress: watch::Sender<Progress>,
    ) -> Self {
        let (repository, writer, settings) = (repository.clone(), writer.clone(), settings.clone());
        Self { taking, repository, writer, earlier, settings, progress }
    }

    /// Takes nothing as unchanged that an earlier copy has.
    pub(super) fn read_all(&mut self) {
        self.earlier = None;
    }

    fn request(&self, directory: OwnedFd) -> Request {
        let (exclude, cancel) = (self.settings.exclude.clone(), self.settings.cancel.clone());
        Request { directory, exclude, earlier: self.earlier, cancel }
    }

    /// Reads a directory into the repository.
    pub(super) async fn read(&self, directory: OwnedFd) -> Result<Read, Error> {
        let read = tree::read(&self.repository, &self.writer, self.request(directory), self.progress.clone()).await;
        read.map_err(|error| self.taking.copy_error(error))
    }

    /// Starts to clone the volume's files into a folder.
    pub(super) fn clone_into(&self, folder: OwnedFd) -> Result<Cloning, Error> {
        let request = self.request(self.taking.directory()?);
        let cloning = tree::clone(&self.repository, &self.writer, request, folder, self.progress.clone());
        cloning.map_err(|error| self.taking.copy_error(error))
    }

    /// Lets nothing that is stored wait for the network, until [`Copying::send_packs`].
    pub(super) fn hold_packs(&self) {
        self.writer.hold_packs(&self.settings.spool);
    }

    pub(super) async fn send_packs(&self) -> Result<(), Error> {
        send(&self.writer, &self.taking).await
    }
}
