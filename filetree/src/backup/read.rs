//! Reads the content of files: small ones whole, large ones piece by piece with their holes.
//!
//! A file is read as long as it was when it was opened and looked at once more at the end, so that one that grows
//! without end ends all the same and one that was written meanwhile is named.

use std::{
    ffi::OsString,
    os::fd::OwnedFd,
    path::PathBuf,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
};

use bytes::Bytes;
use crossbeam_channel::TrySendError;
use rustix::{
    buffer::spare_capacity,
    fs::{self, OFlags, SeekFrom, Statx},
    io::{self, Errno},
};
use stillpoint_repository::{Id, Node, NodeKind};

use super::{
    clones::Clones,
    cut::{MAX, MIN},
    directory::OpenDirectory,
    engine::{Engine, Queues},
    node,
    report::{Problem, ProblemKind},
    walk::{BEYOND_THE_FORMAT, attributes_missed, open_quietly, reason},
};
use crate::lock;

/// Bytes of a large file in memory at a time.
pub(super) const WINDOW: usize = MAX + MAX / 2;
/// Holes below this are read: each would end a piece early, and zeros compress to nothing.
const LEAST_HOLE: u64 = 1 << 20;

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
                engine.fail(super::Error::Path { path, source: error.into() });
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
            Ok(0) => self.complete(engine, Vec::new(), 0),
            Ok(read) => match engine.writer.data(&readers.small[..read]) {
                Ok(piece) => self.complete(engine, vec![piece], read as u64),
                Err(error) => engine.fail(error),
            },
        }
    }

    fn give_up(self, engine: &Engine, error: Errno) {
        engine.problem(unreadable(&self.path, error));
        self.directory.close(engine);
    }

    /// Adds the file to its directory, and says so if it was written meanwhile.
    fn complete(self, engine: &Engine, content: Vec<Id>, read: u64) {
        let Self { directory, path, fd, before, node, is_clone } = self;
        let state = |stat: &Statx| (stat.stx_size, node::time(&stat.stx_mtime), node::time(&stat.stx_ctime));
        // a clone has times of its own, and nobody who writes to it
        let unchanged = is_clone || node::stat_open(&fd).is_ok_and(|after| state(&after) == state(&before));
        if !unchanged || read != before.stx_size {
            engine.problem(Problem::new(&path, ProblemKind::Changed, "it was written while it was read"));
        }
        engine.count(|counts| counts.bytes_read += read);
        directory.add(Node { size: read, content: Some(content), ..node });
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

/// A large file whose pieces are on their way; whoever stores the last one completes it.
struct LargeFile {
    file: Mutex<Option<OpenFile>>,
    content: Mutex<Vec<Id>>,
    read: AtomicU64,
    /// Pieces under way, and one for the reader.
    open: AtomicUsize,
}

/// A piece of a large file, not stored yet.
pub(super) struct Piece {
    file: Arc<LargeFile>,
    number: usize,
    bytes: Bytes,
}

impl Piece {
    /// Hashes, compresses, seals and packs it.
    pub(super) fn store(self, engine: &Engine) {
        if engine.is_stopped() {
            return;
        }
        match engine.writer.data(&self.bytes) {
            Ok(id) => {
                lock(&self.file.content)[self.number] = id;
                self.file.close(engine);
            }
            Err(error) => engine.fail(error),
        }
    }
}

/// A part of a file: bytes, or a hole.
enum Part {
    Data { start: u64, end: u64 },
    Hole { size: u64 },
}

impl LargeFile {
    fn read(file: OpenFile, engine: &Engine, queues: &Queues) {
        let parts = parts(&file);
        let file = Arc::new(Self {
            file: Mutex::new(Some(file)),
            content: Mutex::default(),
            read: AtomicU64::new(0),
            open: AtomicUsize::new(1),
        });
        for part in parts {
            let done = match part {
                Part::Hole { size } => file.add_hole(engine, size),
                Part::Data { start, end } => file.add_data(engine, queues, start, end),
            };
            if let Err(stop) = done {
                return stop.report(&file, engine);
            }
        }
        file.close(engine);
    }

    fn add_hole(&self, engine: &Engine, size: u64) -> Result<(), Stop> {
        let pieces = engine.hole(size).map_err(Stop::Failed)?;
        lock(&self.content).extend(pieces);
        self.read.fetch_add(size, Ordering::Relaxed);
        Ok(())
    }

    /// Reads from `start` to `end`, or to where the file ends by now.
    fn add_data(self: &Arc<Self>, engine: &Engine, queues: &Queues, start: u64, end: u64) -> Result<(), Stop> {
        let (mut offset, mut rest) = (start, Bytes::new());
        loop {
            let wanted = usize::try_from(end - offset).map_or(WINDOW, |left| left.min(WINDOW - rest.len()));
            let mut window = engine.windows.take();
            window.extend_from_slice(&rest);
            let read = self.fill(&mut window, wanted, offset)?;
            offset += read as u64;
            let is_last = read < wanted || offset == end;
            rest = self.cut(engine, queues, engine.windows.lend(window), is_last);
            if is_last {
                return Ok(());
            }
            if engine.is_stopped() {
                return Err(Stop::Stopped);
            }
        }
    }

    /// Appends `wanted` bytes, or what the file has of them.
    fn fill(&self, window: &mut Vec<u8>, wanted: usize, offset: u64) -> Result<usize, Stop> {
        let file = lock(&self.file);
        let Some(file) = &*file else { return Err(Stop::Stopped) };
        let start = window.len();
        while window.len() < start + wanted {
            let at = offset + (window.len() - start) as u64;
            match io::pread(&file.fd, spare_capacity(window), at) {
                Ok(0) => break,
                Ok(_) | Err(Errno::INTR) => {}
                Err(error) => return Err(Stop::Unreadable(error)),
            }
        }
        // the room left may be larger than what is wanted
        window.truncate(start + wanted);
        let read = window.len() - start;
        self.read.fetch_add(read as u64, Ordering::Relaxed);
        Ok(read)
    }

    /// Sends the pieces of a window on; what may be part of a longer one is given back.
    fn cut(self: &Arc<Self>, engine: &Engine, queues: &Queues, mut window: Bytes, is_last: bool) -> Bytes {
        while window.len() >= MAX || (is_last && !window.is_empty()) {
            let bytes = window.split_to(engine.cutter.cut(&window));
            let number = {
                let mut content = lock(&self.content);
                content.push(Id([0; 32]));
                content.len() - 1
            };
            self.open.fetch_add(1, Ordering::Relaxed);
            let piece = Piece { file: self.clone(), number, bytes };
            // whoever finds the queue full has the time to do the work
            if let Err(TrySendError::Full(piece) | TrySendError::Disconnected(piece)) = queues.cut.try_send(piece) {
                piece.store(engine);
            }
        }
        window
    }

    fn close(&self, engine: &Engine) {
        if self.open.fetch_sub(1, Ordering::AcqRel) > 1 {
            return;
        }
        if let Some(file) = lock(&self.file).take() {
            let content = std::mem::take(&mut *lock(&self.content));
            file.complete(engine, content, self.read.load(Ordering::Relaxed));
        }
    }
}

/// Why the reading of a large file ended early.
enum Stop {
    Stopped,
    Unreadable(Errno),
    Failed(super::Error),
}

impl Stop {
    fn report(self, file: &LargeFile, engine: &Engine) {
        match self {
            Self::Stopped => {}
            Self::Failed(error) => engine.fail(error),
            Self::Unreadable(error) => {
                if let Some(file) = lock(&file.file).take() {
                    file.give_up(engine, error);
                }
            }
        }
    }
}

/// Where a file has data and where holes. A file system that cannot say has data everywhere.
fn parts(file: &OpenFile) -> Vec<Part> {
    let size = file.before.stx_size;
    let is_sparse = file.before.stx_blocks.saturating_mul(512) < size;
    if !is_sparse {
        return vec![Part::Data { start: 0, end: size }];
    }
    let (mut parts, mut at) = (Vec::new(), 0);
    // `data` is where the data that is not in a part yet begins
    let mut data = 0;
    while at < size {
        let hole = fs::seek(&file.fd, SeekFrom::Hole(at)).map_or(size, |hole| hole.min(size));
        let next = match fs::seek(&file.fd, SeekFrom::Data(hole)) {
            Ok(next) => next.min(size),
            // no data follows
            Err(_) => size,
        };
        if next - hole >= LEAST_HOLE {
            if hole > data {
                parts.push(Part::Data { start: data, end: hole });
            }
            parts.push(Part::Hole { size: next - hole });
            data = next;
        }
        at = next.max(at + 1);
    }
    if data < size {
        parts.push(Part::Data { start: data, end: size });
    }
    parts
}
