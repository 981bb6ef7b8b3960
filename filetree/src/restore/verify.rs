//! Reads every restored file back and compares it with the ids of its blobs.
//!
//! Holes are not read: the file system says where they are, and the id of so many zeros is computed once.

use std::{
    collections::HashMap,
    io,
    os::fd::{AsFd, OwnedFd},
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicU32, AtomicU64, Ordering},
    },
};

use rustix::{
    fs::{Mode, OFlags, SeekFrom, openat, seek},
    io::Errno,
};
use serde::Serialize;
use stillpoint_repository::Id;

use super::{
    Error,
    attributes::{self, File},
    content::threads,
    entries::{Content, Entry, Kind, Number},
    job::Job,
    problem::ProblemKind,
};

/// Ids of zeros that are remembered; most files with holes have blobs of one length.
const REMEMBERED: usize = 1000;

/// What was read back and is right.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Verified {
    /// Files.
    pub files: u64,
    /// Their bytes.
    pub bytes: u64,
}

struct Verifier<'a> {
    job: &'a Job,
    next: AtomicU32,
    files: AtomicU64,
    bytes: AtomicU64,
    zeros: Mutex<HashMap<usize, Id>>,
}

/// Why a file is not as it should be.
enum Difference {
    Unreadable(io::Error),
    Size(u64),
    Bytes { from: u64, to: u64 },
}

/// Reads all files back; what differs is named among the problems.
pub(super) fn verify(job: &Job) -> Result<Verified, Error> {
    job.show_verifying();
    let verifier = Verifier {
        job,
        next: AtomicU32::new(0),
        files: AtomicU64::new(0),
        bytes: AtomicU64::new(0),
        zeros: Mutex::default(),
    };
    std::thread::scope(|scope| {
        for _ in 0..threads() {
            scope.spawn(|| verifier.work());
        }
    });
    job.goes_on()?;
    Ok(Verified { files: verifier.files.into_inner(), bytes: verifier.bytes.into_inner() })
}

impl Verifier<'_> {
    fn work(&self) {
        let mut buffer = Vec::new();
        while self.job.goes_on().is_ok() {
            let number = self.next.fetch_add(1, Ordering::Relaxed);
            if number as usize >= self.job.entries.len() {
                return;
            }
            let entry = self.job.entries.get(number);
            if let Kind::File(content) = &entry.kind {
                self.judge(number, content, self.compare(entry, content, &mut buffer));
            }
        }
    }

    fn judge(&self, number: Number, content: &Content, compared: Result<(), Difference>) {
        let what = match compared {
            Ok(()) => {
                self.files.fetch_add(1, Ordering::Relaxed);
                self.bytes.fetch_add(content.size, Ordering::Relaxed);
                self.job.files.fetch_add(1, Ordering::Relaxed);
                self.job.bytes.fetch_add(content.size, Ordering::Relaxed);
                return self.job.show();
            }
            Err(Difference::Unreadable(error)) => error.to_string(),
            Err(Difference::Size(found)) => format!("it has {found} bytes and should have {}", content.size),
            Err(Difference::Bytes { from, to }) => format!("its bytes {from} to {to} are not those of the backup"),
        };
        self.job.problem(number, ProblemKind::Verification, what);
    }

    fn compare(&self, entry: &Entry, content: &Content, buffer: &mut Vec<u8>) -> Result<(), Difference> {
        let (file, touched) = self.open(entry)?;
        let stat = rustix::fs::fstat(&file)?;
        let size = u64::try_from(stat.st_size).unwrap_or(0);
        if size != content.size {
            return Err(Difference::Size(size));
        }
        let pieces = self.job.entries.pieces_of(content);
        let ends = pieces.iter().skip(1).map(|piece| piece.offset).chain([size]);
        let mut data = Data { file: &file, next: 0 };
        for (piece, end) in pieces.iter().zip(ends) {
            let length = usize::try_from(end - piece.offset).unwrap_or(usize::MAX);
            let found = if data.begins_after(piece.offset, end)? {
                self.zeros(length)
            } else {
                buffer.resize(length, 0);
                std::os::unix::fs::FileExt::read_exact_at(
                    &std::fs::File::from(file.try_clone()?),
                    buffer,
                    piece.offset,
                )?;
                Id::of(buffer)
            };
            if found != piece.blob {
                return Err(Difference::Bytes { from: piece.offset, to: end });
            }
        }
        if touched {
            // a time that cannot be set back was named when it could not be set
            drop(attributes::set_times(File::Open(file.as_fd()), &entry.attributes));
        }
        Ok(())
    }

    /// Opens a file so that its time of access stays, if we may; whether it may be touched.
    fn open(&self, entry: &Entry) -> io::Result<(OwnedFd, bool)> {
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::NONBLOCK;
        let parent = self.job.parent(entry)?;
        match openat(&*parent, self.job.entries.name(entry), flags | OFlags::NOATIME, Mode::empty()) {
            Ok(file) => Ok((file, false)),
            Err(Errno::PERM) => Ok((openat(&*parent, self.job.entries.name(entry), flags, Mode::empty())?, true)),
            Err(error) => Err(error.into()),
        }
    }

    /// The id of so many zeros.
    fn zeros(&self, length: usize) -> Id {
        let mut zeros = self.zeros.lock().unwrap_or_else(PoisonError::into_inner);
        if zeros.len() >= REMEMBERED {
            zeros.clear();
        }
        *zeros.entry(length).or_insert_with(|| Id::of(&vec![0; length]))
    }
}

/// Where the data of a file lies, asked in ascending order.
struct Data<'a> {
    file: &'a OwnedFd,
    /// Where the next data begins, as far as it was asked.
    next: u64,
}

impl Data<'_> {
    /// Whether there is a hole from `from` to `end`.
    fn begins_after(&mut self, from: u64, end: u64) -> io::Result<bool> {
        if self.next <= from {
            self.next = match seek(self.file, SeekFrom::Data(from)) {
                Ok(at) => at,
                // nothing but a hole up to the end
                Err(Errno::NXIO) => u64::MAX,
                // a file system that cannot tell
                Err(Errno::INVAL | Errno::OPNOTSUPP) => from,
                Err(error) => return Err(error.into()),
            };
        }
        Ok(self.next >= end)
    }
}

impl From<io::Error> for Difference {
    fn from(error: io::Error) -> Self {
        Self::Unreadable(error)
    }
}

impl From<Errno> for Difference {
    fn from(error: Errno) -> Self {
        Self::Unreadable(error.into())
    }
}
