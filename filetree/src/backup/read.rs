//! Opens files and reads them, and adds them to their directories.
//!
//! A small file is one piece, read by whoever took it; a large one is several, which all threads share. A file is read as
//! long as it was when it was opened and looked at once more at the end, so that one that grows
//! without end ends all the same and one that was written meanwhile is named.

mod large;

use std::{ffi::OsString, os::fd::OwnedFd, path::PathBuf, sync::Arc};

use rustix::{
    fs::{OFlags, Statx},
    io::{self, Errno},
};
use stillpoint_repository::{Id, Node, NodeKind};

use self::large::LargeFile;
pub(super) use self::large::{Piece, WINDOW};
use super::{
    clones::Clones,
    cut::MIN,
    directory::OpenDirectory,
    engine::{Engine, Queues},
    node,
    report::{Problem, ProblemKind},
    walk::{BEYOND_THE_FORMAT, attributes_missed, open_quietly, reason},
};
/// What a reading thread keeps from file to file.
#[derive(Default)]
pub(super) struct Readers {
    small: Vec<u8>,
}

/// A file to be read.
pub(super) struct FileTask {
    pub(super) directory: Arc<OpenDirectory>,
    pub(super) parent: Arc<OwnedFd>,
    pub(super) name: OsString,
    /// What a clone is of.
    pub(super) original: Option<Box<Original>>,
}

/// A file that was cloned, as it was then.
pub(super) struct Original {
    path: PathBuf,
    before: Statx,
    node: Node,
}

/// A file that was opened and looked at.
struct OpenFile {
    directory: Arc<OpenDirectory>,
    path: PathBuf,
    fd: OwnedFd,
    before: Statx,
    node: Node,
    is_clone: bool,
}

/// How much of a file there was.
#[derive(Default)]
struct Length {
    /// Bytes that were read.
    data: u64,
    /// Bytes of holes, which were not.
    holes: u64,
}

impl FileTask {
    pub(super) fn read(self, engine: &Engine, queues: &Queues, readers: &mut Readers) {
        if engine.is_stopped() {
            return;
        }
        let directory = self.directory.clone();
        match self.open(engine) {
            Ok(file) if file.before.stx_size <= MIN as u64 => file.read_small(engine, readers),
            Ok(file) => LargeFile::read(file, engine, queues),
            Err(problem) => {
                engine.problem(problem);
                directory.close(engine);
            }
        }
    }

    /// Looks at the file and clones it, so that its content is read later; none where it cannot be opened, which is told.
    pub(super) fn clone_into(self, engine: &Engine, clones: &Clones) -> Option<Self> {
        let directory = self.directory.clone();
        let OpenFile { directory, path, fd, before, node, .. } = match self.open(engine) {
            Ok(file) => file,
            Err(problem) => {
                engine.problem(problem);
                directory.close(engine);
                return None;
            }
        };
        match clones.add(&fd) {
            Ok(name) => {
                let original = Some(Box::new(Original { path, before, node }));
                Some(Self { directory, parent: clones.folder.clone(), name, original })
            }
            Err(error) => {
                engine.fail(super::Error::NotCloned { path, made: clones.made(), source: error.into() });
                None
            }
        }
    }

    fn open(self, engine: &Engine) -> Result<OpenFile, Problem> {
        let Self { directory, parent, name, original } = self;
        if let Some(original) = original {
            let Original { path, before, node } = *original;
            let fd = open_quietly(&parent, &name, OFlags::RDONLY | OFlags::CLOEXEC);
            let fd = fd.map_err(|error| unreadable(&path, error))?;
            Clones::remove(&parent, &name);
            return Ok(OpenFile { directory, path, fd, before, node, is_clone: true });
        }
        let path = directory.path.join(&name);
        // a pipe or a device that took the file's place must not block us
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let fd = open_quietly(&parent, &name, flags).map_err(|error| not_opened(&path, error))?;
        let before = node::stat_open(&fd).map_err(|error| unreadable(&path, error))?;
        if node::kind(&before) != NodeKind::File {
            return Err(type_changed(&path));
        }
        let (mut node, replaced) = engine.names.node(&name, &before);
        if replaced {
            engine.problem(Problem::new(&path, ProblemKind::Attributes, BEYOND_THE_FORMAT));
        }
        match node::attributes(&fd) {
            Ok(attributes) => node.extended_attributes = attributes,
            Err(error) => engine.problem(attributes_missed(&path, error)),
        }
        Ok(OpenFile { directory, path, fd, before, node, is_clone: false })
    }
}

fn not_opened(path: &std::path::Path, error: Errno) -> Problem {
    match error {
        Errno::NOENT => Problem::new(path, ProblemKind::Vanished, reason(error)),
        Errno::LOOP | Errno::NXIO => type_changed(path),
        error => unreadable(path, error),
    }
}

fn unreadable(path: &std::path::Path, error: Errno) -> Problem {
    Problem::new(path, ProblemKind::Unreadable, reason(error))
}

fn type_changed(path: &std::path::Path) -> Problem {
    Problem::new(
        path,
        ProblemKind::TypeChanged,
        "it was a file when it was listed and something else when it was opened",
    )
}

impl OpenFile {
    fn read_small(self, engine: &Engine, readers: &mut Readers) {
        let size = usize::try_from(self.before.stx_size).unwrap_or(MIN);
        readers.small.resize(MIN, 0);
        let content = read_full(&self.fd, &mut readers.small[..size], 0);
        match content {
            Err(error) => self.give_up(engine, error),
            Ok(0) => self.complete(engine, Vec::new(), Length::default()),
            Ok(read) => match engine.writer.data(&readers.small[..read]) {
                Ok(piece) => self.complete(engine, vec![piece], Length { data: read as u64, holes: 0 }),
                Err(error) => engine.fail(error),
            },
        }
    }

    fn give_up(self, engine: &Engine, error: Errno) {
        engine.problem(unreadable(&self.path, error));
        self.directory.close(engine);
    }

    /// Adds the file to its directory, and says so if it was written meanwhile.
    fn complete(self, engine: &Engine, content: Vec<Id>, Length { data, holes }: Length) {
        let Self { directory, path, fd, before, node, is_clone } = self;
        let state = |stat: &Statx| (stat.stx_size, node::time(&stat.stx_mtime), node::time(&stat.stx_ctime));
        // a clone has times of its own, and nobody who writes to it
        let unchanged = is_clone || node::stat_open(&fd).is_ok_and(|after| state(&after) == state(&before));
        let size = data + holes;
        if !unchanged || size != before.stx_size {
            engine.problem(Problem::new(&path, ProblemKind::Changed, "it was written while it was read"));
        }
        engine.count(|counts| counts.bytes_read += data);
        directory.add(Node { size, content: Some(content), ..node });
        directory.close(engine);
    }
}

/// Reads until the buffer is full or the file ends.
fn read_full(fd: &OwnedFd, buffer: &mut [u8], offset: u64) -> Result<usize, Errno> {
    let mut read = 0;
    while read < buffer.len() {
        match io::pread(fd, &mut buffer[read..], offset + read as u64) {
            Ok(0) => break,
            Ok(more) => read += more,
            Err(Errno::INTR) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(read)
}
