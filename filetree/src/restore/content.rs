//! Writes the contents: blobs come in the order of the repository and go wherever files have them.
//!
//! One task reads packs ahead; threads of their own open, expand and check blobs and write them at once, each into all
//! the files that hold it. Files are small and many, or large and few: one of a single blob is made, written and
//! completed in one go; larger ones were made before, and whoever writes the last piece completes them.
//!
//! # Bounds
//! [`BulkPlan`] bounds what is read ahead; each thread holds one blob more.

use std::{
    collections::HashMap,
    io,
    os::fd::OwnedFd,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU32, Ordering},
    },
};

use futures::StreamExt;
use lru::LruCache;
use rustix::fs::{Mode, OFlags, openat};
use stillpoint_repository::{BulkPlan, Id, Reader, SealedBlobs};
use tokio::{sync::mpsc, task::JoinSet};

use super::{
    Error,
    directories::OPEN,
    entries::{Content, Kind, Number, Piece},
    holes,
    job::Job,
    problem::ProblemKind,
};
use crate::lock;

/// Threads at most: more than these wait for the file system.
const MAX_THREADS: usize = 8;

/// How many threads do blocking work.
pub(super) fn threads() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from).min(MAX_THREADS)
}

/// The contents that are being written.
struct Contents {
    job: Arc<Job>,
    /// Pieces that each file still waits for.
    waiting: Vec<AtomicU32>,
    open: Mutex<LruCache<Number, Arc<OwnedFd>>>,
    faults: Mutex<HashMap<Number, Fault>>,
    /// Blobs that were not sound where they were read first.
    unread: Mutex<Vec<Id>>,
}

/// Why a file's content is not right.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fault {
    /// Some of it is damaged in the repository.
    Damaged,
    /// It cannot be written.
    Unwritable,
}

/// Writes all contents.
pub(super) async fn write(reader: &Reader, job: Arc<Job>, plan: BulkPlan) -> Result<(), Error> {
    let contents = Arc::new(Contents::new(job.clone()));
    let missing = plan.missing().to_vec();
    contents.clone().write_bulk(reader, plan).await?;
    let unread = std::mem::take(&mut *lock(&contents.unread));
    for id in unread.into_iter().chain(missing) {
        job.goes_on()?;
        let read = match reader.blob(&id).await {
            Err(error) if !error.is_damage() => return Err(error.into()),
            other => other,
        };
        let contents = contents.clone();
        tokio::task::spawn_blocking(move || match read {
            Ok(bytes) => contents.put(id, &bytes),
            Err(error) => contents.lose(id, &error),
        })
        .await??;
    }
    Ok(())
}

impl Contents {
    fn new(job: Arc<Job>) -> Self {
        let pieces = |kind: &Kind| match kind {
            Kind::File(content) => u32::try_from(content.pieces().len()).unwrap_or(u32::MAX),
            _ => 0,
        };
        let waiting = job.entries.iter().map(|(_, entry)| AtomicU32::new(pieces(&entry.kind))).collect();
        let open = Mutex::new(LruCache::new(OPEN));
        Self { job, waiting, open, faults: Mutex::default(), unread: Mutex::default() }
    }

    /// Reads what was planned and lets threads write it, until all is done or one fails.
    async fn write_bulk(self: Arc<Self>, reader: &Reader, plan: BulkPlan) -> Result<(), Error> {
        let mut read = reader.read_bulk(plan);
        let (sender, receiver) = mpsc::channel(1);
        let receiver = Arc::new(Mutex::new(receiver));
        let mut threads = JoinSet::new();
        for _ in 0..self::threads() {
            let (contents, receiver) = (self.clone(), receiver.clone());
            threads.spawn_blocking(move || contents.write_batches(&receiver));
        }
        // whoever sends must not keep the last receiver alive: a thread that fails closes the channel
        drop(receiver);
        let cancel = self.job.cancel.clone();
        let fed = cancel.run_until_cancelled(async {
            while let Some(batch) = read.next().await {
                if sender.send(batch?).await.is_err() {
                    break;
                }
            }
            Ok(())
        });
        let fed: Option<Result<(), Error>> = fed.await;
        drop(sender);
        let mut ended = fed.unwrap_or(Ok(()));
        while let Some(thread) = threads.join_next().await {
            ended = ended.and(thread?);
        }
        ended.and(self.job.goes_on())
    }

    fn write_batches(&self, batches: &Mutex<mpsc::Receiver<SealedBlobs>>) -> Result<(), Error> {
        loop {
            let next = lock(batches).blocking_recv();
            let Some(batch) = next else { return Ok(()) };
            let written = self.job.goes_on().and_then(|()| self.write_batch(&batch));
            if let Err(error) = written {
                lock(batches).close();
                return Err(error);
            }
            self.job.show();
        }
    }

    fn write_batch(&self, batch: &SealedBlobs) -> Result<(), Error> {
        let mut written = Ok(());
        batch.open_each(|id, plaintext| match plaintext {
            _ if written.is_err() => {}
            Some(plaintext) => written = self.put(id, &plaintext),
            None => lock(&self.unread).push(id),
        });
        written
    }

    /// Writes a blob wherever it belongs.
    fn put(&self, id: Id, plaintext: &[u8]) -> Result<(), Error> {
        let hole = holes::is_zero(plaintext);
        for piece in self.job.todo.pieces_of(&self.job.entries, id) {
            let piece = self.job.entries.piece(piece);
            let bytes = if hole { &[] } else { plaintext };
            self.put_piece(piece, bytes)?;
            self.job.bytes.fetch_add(plaintext.len() as u64, Ordering::Relaxed);
        }
        Ok(())
    }

    /// Leaves a hole wherever a blob belonged.
    fn lose(&self, id: Id, reason: &stillpoint_repository::Error) -> Result<(), Error> {
        for piece in self.job.todo.pieces_of(&self.job.entries, id) {
            let piece = self.job.entries.piece(piece);
            let from = piece.offset;
            self.job.problem(piece.file, ProblemKind::Content, format!("from byte {from} on: {reason}"));
            lock(&self.faults).entry(piece.file).or_insert(Fault::Damaged);
            self.put_piece(piece, &[])?;
        }
        Ok(())
    }

    /// Writes a piece that has no more than zeros beside `bytes`, and completes its file if nothing is missing then.
    fn put_piece(&self, piece: &Piece, bytes: &[u8]) -> Result<(), Error> {
        let number = piece.file;
        let Kind::File(content) = &self.job.entries.get(number).kind else { return Ok(()) };
        if content.pieces().len() == 1 {
            return self.put_small(number, content, bytes);
        }
        let file = match self.fault(number) {
            Some(Fault::Unwritable) => None,
            _ => self.write_piece(number, bytes, piece.offset)?,
        };
        // counted after it was written: whoever brings it to zero completes the file
        let last = self.waiting[number as usize].fetch_sub(1, Ordering::AcqRel) == 1;
        if let Some(file) = file.filter(|_| last) {
            self.job.complete(number, &file, self.fault(number).is_none());
            lock(&self.open).pop(&number);
        }
        Ok(())
    }

    fn write_piece(&self, number: Number, bytes: &[u8], offset: u64) -> Result<Option<Arc<OwnedFd>>, Error> {
        let written = self.opened(number).and_then(|file| {
            holes::write(&*file, bytes, offset)?;
            Ok(file)
        });
        let file = self.job.made(number, written)?;
        if file.is_none() {
            lock(&self.faults).insert(number, Fault::Unwritable);
        }
        Ok(file)
    }

    /// Makes, writes and completes a file of one piece.
    fn put_small(&self, number: Number, content: &Content, bytes: &[u8]) -> Result<(), Error> {
        let written = self.job.create(number).and_then(|file| {
            let to_the_end = holes::write(&file, bytes, 0)? && !bytes.is_empty();
            if !to_the_end {
                rustix::fs::ftruncate(&file, content.size)?;
            }
            Ok(file)
        });
        if let Some(file) = self.job.made(number, written)? {
            self.job.complete(number, &file, self.fault(number).is_none());
        }
        Ok(())
    }

    fn fault(&self, number: Number) -> Option<Fault> {
        lock(&self.faults).get(&number).copied()
    }

    /// Opens a file that was made before.
    fn opened(&self, number: Number) -> io::Result<Arc<OwnedFd>> {
        if let Some(file) = lock(&self.open).get(&number) {
            return Ok(file.clone());
        }
        let entry = self.job.entries.get(number);
        let flags = OFlags::WRONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::NONBLOCK;
        let file = Arc::new(openat(&*self.job.parent(entry)?, self.job.entries.name(entry), flags, Mode::empty())?);
        lock(&self.open).put(number, file.clone());
        Ok(file)
    }
}
