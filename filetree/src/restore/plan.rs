//! What a restore will do, as a value: everything that will be made, and what must be read for it.
//!
//! Nothing is written until it is carried out, so it can be shown first.

use std::path::PathBuf;

use serde::Serialize;
use stillpoint_repository::{BulkPlan, Id, Reader};

use super::{
    entries::{Entries, Kind},
    problem::Problems,
    target::{Source, Start},
};

/// What a restore will do. About 750 bytes of memory a file, and 100 more for each further blob of it.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Plan {
    /// What is restored.
    pub source: Source,
    /// Where it goes.
    pub target: PathBuf,
    /// Whether an interrupted restore goes on.
    pub start: Start,
    /// What the target will hold.
    pub counts: Counts,
    /// Files that an interrupted restore completed.
    pub already_there: u64,
    /// Packs that will be read.
    pub packs: usize,
    /// Bytes that will be read from the repository.
    pub read_bytes: u64,
    /// What is known to be wrong.
    pub problems: Problems,
    #[serde(skip)]
    pub(super) root: RootAttributes,
    #[serde(skip)]
    pub(super) entries: Entries,
    #[serde(skip)]
    pub(super) todo: Todo,
    #[serde(skip)]
    pub(super) bulk: BulkPlan,
}

/// Whether the target gets the attributes of a directory that was backed up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum RootAttributes {
    /// It stands for that directory.
    Restored,
    /// It merely holds what is restored.
    Kept,
}

/// Contents that must be written.
#[derive(Debug, Default)]
pub(super) struct Todo {
    /// Numbers of pieces, sorted by their blobs.
    pub(super) pieces: Vec<u32>,
    /// By number, whether an entry is a file that is complete already.
    pub(super) complete: Vec<bool>,
}

/// How much of what.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Counts {
    /// Regular files, each once however many names it has.
    pub files: u64,
    /// Directories.
    pub directories: u64,
    /// Symbolic links.
    pub symlinks: u64,
    /// Further names of files.
    pub hard_links: u64,
    /// Devices, pipes and sockets.
    pub special: u64,
    /// Bytes of the files.
    pub bytes: u64,
}

impl Counts {
    pub(super) fn add(&mut self, kind: &Kind) {
        match kind {
            Kind::Directory => self.directories += 1,
            Kind::File(content) => {
                self.files += 1;
                self.bytes += content.size;
            }
            Kind::Link(_) => self.hard_links += 1,
            Kind::Symlink(_) => self.symlinks += 1,
            Kind::BlockDevice(_) | Kind::CharDevice(_) | Kind::Fifo | Kind::Socket => self.special += 1,
        }
    }
}

impl Todo {
    /// Plans to read the contents of all files that are not `complete`.
    pub(super) fn new(reader: &Reader, entries: &Entries, complete: Vec<bool>) -> (Self, BulkPlan) {
        let mut pieces: Vec<u32> = Vec::new();
        for (number, entry) in entries.iter() {
            if let Kind::File(content) = &entry.kind
                && !complete[number as usize]
            {
                // pieces are counted in 32 bits
                pieces.extend(content.pieces().filter_map(|piece| u32::try_from(piece).ok()));
            }
        }
        let blob = |piece: &u32| entries.piece(*piece as usize).blob;
        let bulk = reader.plan_bulk(pieces.iter().map(blob));
        pieces.sort_unstable_by_key(|piece| (blob(piece), *piece));
        (Self { pieces, complete }, bulk)
    }

    /// Pieces that are this blob.
    pub(super) fn pieces_of<'a>(&'a self, entries: &'a Entries, id: Id) -> impl Iterator<Item = usize> + 'a {
        let blob = move |piece: &u32| entries.piece(*piece as usize).blob;
        let from = self.pieces.partition_point(|piece| blob(piece) < id);
        self.pieces[from..].iter().take_while(move |piece| blob(piece) == id).map(|piece| *piece as usize)
    }
}
