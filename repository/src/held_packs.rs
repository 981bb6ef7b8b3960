//! Holds packs back while nothing may wait for the store.
//!
//! A volume's writers stand still while what they changed last is read: packs that fill up in that time are closed,
//! sealed as they are, and sent once the writers go on.

use std::path::Path;

use crate::{
    Error, Id,
    pack::{Pack, PackedBlob},
    scratch::{Scratch, Slot},
};

/// Bytes of packs in memory: four packs.
const MEMORY: usize = 64 << 20;

/// Packs that wait to be sent.
pub(crate) struct HeldPacks {
    scratch: Scratch,
    packs: Vec<(Id, Vec<PackedBlob>, Slot)>,
}

impl HeldPacks {
    /// None yet; those beyond a few will lie in `folder`.
    pub(crate) fn new(folder: &Path) -> Self {
        Self { scratch: Scratch::new(folder, MEMORY), packs: Vec::new() }
    }

    pub(crate) fn add(&mut self, pack: Pack) -> Result<(), Error> {
        let Pack { id, bytes, blobs } = pack;
        let slot = self.scratch.put(bytes)?;
        self.packs.push((id, blobs, slot));
        Ok(())
    }

    /// The next to be sent.
    pub(crate) fn next(&mut self) -> Result<Option<Pack>, Error> {
        let Some((id, blobs, slot)) = self.packs.pop() else { return Ok(None) };
        Ok(Some(Pack { id, bytes: self.scratch.take(slot)?, blobs }))
    }
}
