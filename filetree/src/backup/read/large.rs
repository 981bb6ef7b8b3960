//! Reads a large file piece by piece, and its holes not at all.
//!
//! One thread reads, any thread stores: what is in memory is a few windows, however large the file is.

use std::sync::{
    Arc, Mutex,
    atomic::{AtomicU64, AtomicUsize, Ordering},
};

use bytes::Bytes;
use crossbeam_channel::TrySendError;
use rustix::{
    buffer::spare_capacity,
    fs::{self, SeekFrom},
    io::{self, Errno},
};
use stillpoint_repository::Id;

use super::{Length, OpenFile};
use crate::{
    backup::{
        self,
        cut::MAX,
        engine::{Engine, Queues},
    },
    lock,
};

/// Bytes of a large file in memory at a time.
pub(in crate::backup) const WINDOW: usize = MAX + MAX / 2;
/// Holes below this are read: each would end a piece early, and zeros compress to nothing.
const LEAST_HOLE: u64 = 1 << 20;

/// A large file whose pieces are on their way; whoever stores the last one completes it.
pub(super) struct LargeFile {
    file: Mutex<Option<OpenFile>>,
    content: Mutex<Vec<Id>>,
    data: AtomicU64,
    holes: AtomicU64,
    /// Pieces under way, and one for the reader.
    open: AtomicUsize,
}

/// A piece of a large file, not stored yet.
pub(in crate::backup) struct Piece {
    file: Arc<LargeFile>,
    number: usize,
    bytes: Bytes,
}

impl Piece {
    /// Hashes, compresses, seals and packs it.
    pub(in crate::backup) fn store(self, engine: &Engine) {
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
    pub(super) fn read(file: OpenFile, engine: &Engine, queues: &Queues) {
        let parts = parts(&file);
        let file = Arc::new(Self {
            file: Mutex::new(Some(file)),
            content: Mutex::default(),
            data: AtomicU64::new(0),
            holes: AtomicU64::new(0),
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
        self.holes.fetch_add(size, Ordering::Relaxed);
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
        self.data.fetch_add(read as u64, Ordering::Relaxed);
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
            let [data, holes] = [&self.data, &self.holes].map(|bytes| bytes.load(Ordering::Relaxed));
            file.complete(engine, content, Length { data, holes });
        }
    }
}

/// Why the reading of a large file ended early.
enum Stop {
    Stopped,
    Unreadable(Errno),
    Failed(backup::Error),
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
