//! Writes bytes into a file that is all holes, and leaves holes where they are zeros.
//!
//! A file system keeps holes in blocks, so only whole aligned blocks of zeros are left out; the rest goes in as few
//! writes as possible.

use std::{io, os::fd::AsFd};

/// The block of nearly every file system; a larger one merely stores some zeros.
const BLOCK: usize = 4096;

static ZEROS: [u8; BLOCK] = [0; BLOCK];

/// Writes `bytes` at `offset`, where the file holds nothing but zeros yet. Whether its last byte was written.
pub(super) fn write(file: impl AsFd, bytes: &[u8], offset: u64) -> io::Result<bool> {
    let mut written_to = 0;
    for (start, end) in Runs::of(bytes, offset) {
        write_all(&file, &bytes[start..end], offset + start as u64)?;
        written_to = end;
    }
    Ok(written_to == bytes.len())
}

fn write_all(file: impl AsFd, mut bytes: &[u8], mut offset: u64) -> io::Result<()> {
    while !bytes.is_empty() {
        match rustix::io::pwrite(&file, bytes, offset) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(written) => {
                bytes = &bytes[written..];
                offset += written as u64;
            }
            Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}

/// Whether all bytes are zeros.
pub(super) fn is_zero(bytes: &[u8]) -> bool {
    bytes.chunks(BLOCK).all(|block| block == &ZEROS[..block.len()])
}

/// The runs between blocks of zeros.
struct Runs<'a> {
    bytes: &'a [u8],
    /// End of the first block, which ends where the file's block does.
    first_block: usize,
    at: usize,
}

impl<'a> Runs<'a> {
    fn of(bytes: &'a [u8], offset: u64) -> Self {
        let into_block = usize::try_from(offset % BLOCK as u64).unwrap_or(0);
        Self { bytes, first_block: BLOCK - into_block, at: 0 }
    }

    /// The end of the block that begins at `at`.
    fn block_end(&self, at: usize) -> usize {
        let end = if at < self.first_block { self.first_block } else { at + BLOCK };
        end.min(self.bytes.len())
    }

    /// Passes over blocks of zeros, or of anything else; where that ends.
    fn pass(&self, mut at: usize, zeros: bool) -> usize {
        while at < self.bytes.len() {
            let end = self.block_end(at);
            if is_zero(&self.bytes[at..end]) != zeros {
                break;
            }
            at = end;
        }
        at
    }
}

impl Iterator for Runs<'_> {
    type Item = (usize, usize);

    fn next(&mut self) -> Option<(usize, usize)> {
        let start = self.pass(self.at, true);
        self.at = self.pass(start, false);
        (start < self.at).then_some((start, self.at))
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::MetadataExt;

    use super::*;

    fn runs(bytes: &[u8], offset: u64) -> Vec<(usize, usize)> {
        Runs::of(bytes, offset).collect()
    }

    #[test]
    fn only_whole_aligned_blocks_of_zeros_are_left_out() {
        let mut bytes = vec![0; 5 * BLOCK];
        assert_eq!(runs(&bytes, 0), []);
        bytes[BLOCK] = 1;
        bytes[2 * BLOCK - 1] = 1;
        bytes[2 * BLOCK] = 1;
        assert_eq!(runs(&bytes, 0), [(BLOCK, 3 * BLOCK)]);
        assert_eq!(runs(&bytes, 7 * BLOCK as u64 + 4095), [(1, 2 * BLOCK + 1)]);
        assert_eq!(runs(b"", 3), []);
        assert_eq!(runs(b"\0\0\0", 3), []);
        assert_eq!(runs(b"\0\0x", 4095), [(1, 3)]);
    }

    #[test]
    fn what_is_written_reads_back_and_zeros_take_no_room() {
        let file = tempfile::tempfile().unwrap();
        let mut bytes = vec![0; 1 << 20];
        bytes[..9].copy_from_slice(b"beginning");
        bytes[600_000] = 1;
        file.set_len(bytes.len() as u64).unwrap();
        assert!(!write(&file, &bytes, 0).unwrap());
        let mut read = Vec::new();
        std::io::Read::read_to_end(&mut &file, &mut read).unwrap();
        assert!(read == bytes);
        assert!(file.metadata().unwrap().blocks() * 512 < 64 << 10, "holes were written");
        assert!(write(&file, b"end", (1 << 20) - 3).unwrap());
    }
}
