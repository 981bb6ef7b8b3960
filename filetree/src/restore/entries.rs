//! Holds everything that a restore will make, small enough for millions of files.
//!
//! An entry takes about 110 bytes and its name, a blob that a file refers to 52 and the 48 of the plan to read it. A
//! path is never kept: it is a chain of parents, and every system call is made relative to an open parent. All names lie
//! in one buffer: each alone would cost an allocation, between those of trees that are soon freed.

use std::{
    ffi::{OsStr, OsString},
    ops::Range,
    os::unix::ffi::OsStrExt,
    path::PathBuf,
};

use jiff::Timestamp;
use stillpoint_repository::Id;

/// An entry's number; a parent has a lower one than its children.
pub(super) type Number = u32;

/// The directory that is restored into.
pub(super) const ROOT: Number = 0;

/// One name to be made.
#[derive(Debug)]
pub(super) struct Entry {
    pub(super) parent: Number,
    name: Name,
    pub(super) kind: Kind,
    pub(super) attributes: Attributes,
}

/// Where a name lies among all names.
#[derive(Debug, Clone, Copy, Default)]
struct Name {
    start: u32,
    length: u32,
}

impl Entry {
    /// An entry that gets its name when it is added.
    pub(super) fn new(parent: Number, kind: Kind, attributes: Attributes) -> Self {
        Self { parent, name: Name::default(), kind, attributes }
    }
}

/// What an entry is.
#[derive(Debug)]
pub(super) enum Kind {
    Directory,
    File(Content),
    /// Another name of an entry.
    Link(Number),
    Symlink(Box<OsStr>),
    BlockDevice(u64),
    CharDevice(u64),
    Fifo,
    Socket,
}

/// The content of a file.
#[derive(Debug)]
pub(super) struct Content {
    /// Number of its first piece.
    first: u32,
    count: u32,
    pub(super) size: u64,
}

impl Content {
    pub(super) fn pieces(&self) -> Range<usize> {
        self.first as usize..self.first as usize + self.count as usize
    }
}

/// What a file has beside its content.
#[derive(Debug)]
pub(super) struct Attributes {
    /// Permissions with set-uid, set-gid and sticky.
    pub(super) mode: u32,
    pub(super) uid: u32,
    pub(super) gid: u32,
    pub(super) accessed: Timestamp,
    pub(super) modified: Timestamp,
    pub(super) extended: Box<[Extended]>,
}

/// An extended attribute.
#[derive(Debug)]
pub(super) struct Extended {
    pub(super) name: Box<str>,
    pub(super) value: Box<[u8]>,
}

/// A blob's place in a file.
#[derive(Debug, Clone, Copy)]
pub(super) struct Piece {
    pub(super) blob: Id,
    pub(super) file: Number,
    pub(super) offset: u64,
}

/// All entries and the pieces of their contents.
#[derive(Debug, Default)]
pub(super) struct Entries {
    entries: Vec<Entry>,
    names: Vec<u8>,
    /// Pieces of a file stand together, in order.
    pieces: Vec<Piece>,
}

impl Entries {
    pub(super) fn len(&self) -> usize {
        self.entries.len()
    }

    /// Blobs that the files refer to, each as often as it is referred to.
    pub(super) fn blobs(&self) -> usize {
        self.pieces.len()
    }

    pub(super) fn get(&self, number: Number) -> &Entry {
        &self.entries[number as usize]
    }

    /// All, parents before their children.
    pub(super) fn iter(&self) -> impl DoubleEndedIterator<Item = (Number, &Entry)> {
        // `push` counts in the same type
        self.entries.iter().enumerate().map(|(number, entry)| (u32::try_from(number).unwrap_or(u32::MAX), entry))
    }

    pub(super) fn piece(&self, number: usize) -> &Piece {
        &self.pieces[number]
    }

    pub(super) fn pieces_of(&self, content: &Content) -> &[Piece] {
        &self.pieces[content.pieces()]
    }

    /// The name of an entry in its parent.
    pub(super) fn name(&self, entry: &Entry) -> &OsStr {
        let Name { start, length } = entry.name;
        OsStr::from_bytes(&self.names[start as usize..][..length as usize])
    }

    /// Adds an entry; `None` if there are too many to count.
    pub(super) fn push(&mut self, name: &OsStr, entry: Entry) -> Option<Number> {
        let number = u32::try_from(self.entries.len()).ok()?;
        let start = u32::try_from(self.names.len()).ok()?;
        let length = u32::try_from(name.len()).ok()?;
        self.names.extend_from_slice(name.as_bytes());
        self.entries.push(Entry { name: Name { start, length }, ..entry });
        Some(number)
    }

    /// Adds the blobs of the file that is pushed next, with their lengths; `None` if there are too many to count.
    pub(super) fn content(&mut self, blobs: impl IntoIterator<Item = (Id, u32)>) -> Option<Content> {
        let first = u32::try_from(self.pieces.len()).ok()?;
        let file = u32::try_from(self.entries.len()).ok()?;
        let mut size = 0;
        for (blob, length) in blobs {
            self.pieces.push(Piece { blob, file, offset: size });
            size += u64::from(length);
        }
        let count = u32::try_from(self.pieces.len()).ok()? - first;
        Some(Content { first, count, size })
    }

    /// The path of an entry, from the target.
    pub(super) fn path(&self, number: Number) -> PathBuf {
        let mut names: Vec<&OsStr> = Vec::new();
        let mut at = number;
        while at != ROOT {
            let entry = self.get(at);
            names.push(self.name(entry));
            at = entry.parent;
        }
        if names.is_empty() { PathBuf::from(OsString::from(".")) } else { names.iter().rev().collect() }
    }
}
