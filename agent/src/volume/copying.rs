//! What the methods share that read a directory from one end to the other.
//!
//! They differ in what they read, when, and in what that is worth; where it goes is the same for all.

use std::{os::fd::OwnedFd, sync::Arc};

use stillpoint_filetree::backup::{
    Read,
    clones::Cloning,
    tree::{self, Request},
};
use stillpoint_repository::LocalTrees;

use super::{Error, Inputs, Taking, send};

pub(super) struct Copying {
    pub(super) taking: Taking,
    inputs: Inputs,
    fetched: Option<Arc<LocalTrees>>,
}

impl Copying {
    pub(super) fn new(taking: Taking, inputs: Inputs) -> Self {
        Self { taking, inputs, fetched: None }
    }

    /// Takes nothing as unchanged that an earlier copy has.
    pub(super) fn read_all(&mut self) {
        self.inputs.earlier = None;
    }

    /// Fetches the trees of an earlier copy, so that whoever compares with them waits for no network.
    pub(super) async fn fetch_earlier(&mut self) -> Result<(), Error> {
        let Inputs { writer, earlier, settings, .. } = &self.inputs;
        let Some(earlier) = earlier else { return Ok(()) };
        let trees = writer.local_trees(&settings.spool);
        let reader = writer.reader();
        let fetched = settings.cancel.run_until_cancelled(trees.fetch(&reader, earlier.tree)).await;
        fetched.ok_or_else(|| self.taking.stopped())?.map_err(|error| self.taking.copy_error(error.into()))?;
        self.fetched = Some(trees);
        Ok(())
    }

    fn request(&self, directory: OwnedFd) -> Request {
        let Inputs { earlier, settings, .. } = &self.inputs;
        let (exclude, cancel) = (settings.exclude.clone(), settings.cancel.clone());
        Request { directory, exclude, earlier: *earlier, fetched: self.fetched.clone(), cancel }
    }

    /// Reads a directory into the repository.
    pub(super) async fn read(&self, directory: OwnedFd) -> Result<Read, Error> {
        let Inputs { repository, writer, progress, .. } = &self.inputs;
        let read = tree::read(repository, writer, self.request(directory), progress.clone()).await;
        read.map_err(|error| self.taking.copy_error(error))
    }

    /// Starts to clone the volume's files into a folder.
    pub(super) fn clone_into(&self, folder: OwnedFd) -> Result<Cloning, Error> {
        let request = self.request(self.taking.directory()?);
        let Inputs { repository, writer, progress, .. } = &self.inputs;
        let cloning = tree::clone(repository, writer, request, folder, progress.clone());
        cloning.map_err(|error| self.taking.copy_error(error))
    }

    /// Lets nothing that is stored wait for the network, until [`Copying::send_packs`].
    pub(super) fn hold_packs(&self) {
        self.inputs.writer.hold_packs(&self.inputs.settings.spool);
    }

    pub(super) async fn send_packs(&self) -> Result<(), Error> {
        send(&self.inputs.writer, &self.taking).await
    }
}
