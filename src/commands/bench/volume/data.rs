//! The directories that are backed up: the same bytes every time.
//!
//! Half is text of words that repeat as they do in logs, half is random, as what is compressed or encrypted already.

use std::{
    fs, io,
    io::{BufWriter, Write},
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
};

use super::Work;

/// Bytes that are made at a time.
const BLOCK: usize = 4096;
/// Small files in one directory.
const PER_FOLDER: usize = 500;
/// Large files that the bytes are spread over.
const LARGE_FILES: u64 = 8;
/// What a sparse file has one block of data in.
const GAP: u64 = 16 << 20;
/// Small files that a change touches.
const CHANGED: usize = 100;

/// What is backed up.
#[derive(Debug, Clone, Copy)]
pub(super) enum Data {
    /// A few large files.
    Large { mebibytes: u64 },
    /// Many files, none larger than a block.
    Small { files: usize, bytes: usize },
    /// One file of holes, with a block of data in each [`GAP`].
    Sparse { gibibytes: u64 },
}

/// Which change it is: each differs from the one before.
#[derive(Debug, Clone, Copy)]
pub(super) struct Change {
    pub(super) turn: usize,
}

impl Data {
    pub(super) fn words(self) -> String {
        match self {
            Self::Large { mebibytes } => format!("{mebibytes} MiB in {LARGE_FILES} files"),
            Self::Small { files, bytes } => format!("{files} files of {bytes} bytes"),
            Self::Sparse { gibibytes } => format!("a file of {gibibytes} GiB, nearly all holes"),
        }
    }

    /// Whether there is nothing of it.
    pub(super) fn is_empty(self) -> bool {
        matches!(self, Self::Large { mebibytes: 0 } | Self::Small { files: 0, .. } | Self::Sparse { gibibytes: 0 })
    }

    /// What is measured on it, in order.
    pub(super) fn works(self) -> &'static [Work] {
        match self {
            Self::Large { .. } | Self::Sparse { .. } => &[Work::FirstBackup, Work::Unchanged, Work::Restore],
            Self::Small { .. } => &[Work::FirstBackup, Work::Unchanged, Work::Changed, Work::Restore],
        }
    }

    pub(super) fn make(self, folder: &Path) -> io::Result<()> {
        let mut noise = Noise(1);
        match self {
            Self::Large { mebibytes } => {
                fs::create_dir_all(folder)?;
                for number in 0..LARGE_FILES {
                    let mut file = BufWriter::new(fs::File::create(folder.join(format!("file-{number}")))?);
                    for _ in 0..(mebibytes << 20) / LARGE_FILES / BLOCK as u64 {
                        file.write_all(&noise.block(number % 2 == 0))?;
                    }
                    file.flush()?;
                }
            }
            Self::Small { files, bytes } => {
                for number in 0..files {
                    let path = small(folder, number);
                    if number % PER_FOLDER == 0 {
                        fs::create_dir_all(path.parent().unwrap_or(folder))?;
                    }
                    fs::write(path, &noise.block(number % 2 == 0)[..bytes.min(BLOCK)])?;
                }
            }
            Self::Sparse { gibibytes } => {
                fs::create_dir_all(folder)?;
                let (file, size) = (fs::File::create(folder.join("sparse"))?, gibibytes << 30);
                file.set_len(size)?;
                for number in 0..size / GAP {
                    file.write_all_at(&noise.block(number % 2 == 0), number * GAP)?;
                }
            }
        }
        Ok(())
    }

    /// Overwrites some bytes of some small files, spread over all directories.
    pub(super) fn change(self, folder: &Path, change: Change) -> io::Result<()> {
        let Self::Small { files, .. } = self else { return Ok(()) };
        for number in (0..files).step_by((files / CHANGED).max(1)) {
            let file = fs::OpenOptions::new().write(true).open(small(folder, number))?;
            file.write_all_at(format!("change {}", change.turn).as_bytes(), 0)?;
        }
        Ok(())
    }
}

fn small(folder: &Path, number: usize) -> PathBuf {
    folder.join(format!("{:04}/{number:06}", number / PER_FOLDER))
}

/// A reproducible source of bytes.
struct Noise(u64);

impl Noise {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        self.0 >> 16
    }

    /// A block of text or of random bytes.
    fn block(&mut self, text: bool) -> Vec<u8> {
        let mut block = Vec::with_capacity(BLOCK + 16);
        while block.len() < BLOCK {
            let drawn = self.next();
            if text {
                // one of 4096 words of 3 to 10 letters
                let mut word = Self(drawn % 4096);
                let letters = 3 + usize::try_from(word.next() % 8).unwrap_or(0);
                block.extend((0..letters).map(|_| b'a' + u8::try_from(word.next() % 26).unwrap_or(0)));
                block.push(b' ');
            } else {
                block.extend_from_slice(&drawn.to_le_bytes()[..6]);
            }
        }
        block.truncate(BLOCK);
        block
    }
}
