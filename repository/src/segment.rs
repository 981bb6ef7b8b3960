//! Cuts a file of lines into blobs at borders that a change moves as little as possible.
//!
//! A line is an object with a name. A border lies after an object if the hash of its name falls below its share: its
//! size, rounded down to a power of two, in 64 Ki. So:
//!
//! - Every border depends on one object alone. An object that is inserted, removed or changed can move no border but
//!   its own, and costs the one blob that it lies in, or two. A least size of blobs would break that, since it makes a
//!   border depend on the one before, so there is none.
//! - Rounding makes a border outlive a change of size; only a change across a power of two may add or remove it.
//! - Blobs have 64 to 128 KiB on average whatever the objects' size: about 64 objects of 1 KiB; one of 64 KiB or more
//!   has blobs of its own.
//! - A blob of small objects that found no border ends at 1 MiB. That is the only border that depends on others; one
//!   blob in thousands has it, and the next border by name ends its effect.

use std::collections::VecDeque;

use sha2::{Digest, Sha256};
use tokio::task::JoinHandle;

use crate::{Error, Id, pack::BlobKind, tree::FileContent, writer::Writer};

/// Objects of this size always end their blob; smaller ones with the probability that they have a share of it.
const AVERAGE: usize = 1 << 16;
/// The most that small objects without a border between them are gathered.
const GATHERED: usize = 1 << 20;
/// Pieces of what is larger than a blob should be.
pub(crate) const PIECE: usize = 4 << 20;
/// Blobs of one file that may be under way.
const PENDING: usize = 8;

/// Writes one file of lines. Any number of them may be open; each is used from one task.
///
/// An error ends it. So does cancelling a call: whether the line is in is then unknown.
pub struct FileWriter {
    writer: Writer,
    gathered: Vec<u8>,
    pending: VecDeque<JoinHandle<Result<Id, Error>>>,
    content: FileContent,
}

impl FileWriter {
    pub(crate) fn new(writer: Writer) -> Self {
        Self { writer, gathered: Vec::new(), pending: VecDeque::new(), content: FileContent::default() }
    }

    /// Adds an object as a line; the line feed is added. The name decides where blobs end, so it should be the same
    /// from backup to backup.
    ///
    /// # Errors
    /// [`Error::Invalid`] for a line that holds a line feed; otherwise those of writing.
    pub async fn append(&mut self, name: &str, line: &[u8]) -> Result<(), Error> {
        if line.contains(&b'\n') {
            return Err(Error::invalid(format!("the line of {name:?}"), "it holds a line feed"));
        }
        let size = line.len() + 1;
        if size >= AVERAGE || self.gathered.len() + size > GATHERED {
            self.cut().await?;
        }
        self.gathered.extend_from_slice(line);
        self.gathered.push(b'\n');
        self.content.size += size as u64;
        if is_border(name, size) { self.cut().await } else { Ok(()) }
    }

    /// Ends the file. Its blobs are stored once the writer commits.
    ///
    /// # Errors
    /// The first error of writing.
    pub async fn finish(mut self) -> Result<FileContent, Error> {
        self.cut().await?;
        self.collect(0).await?;
        Ok(self.content)
    }

    async fn cut(&mut self) -> Result<(), Error> {
        let gathered = bytes::Bytes::from(std::mem::take(&mut self.gathered));
        for start in (0..gathered.len()).step_by(PIECE) {
            self.collect(PENDING - 1).await?;
            let piece = gathered.slice(start..gathered.len().min(start + PIECE));
            let stored = self.writer.start(BlobKind::Data, piece).await?;
            self.pending.push_back(stored);
        }
        Ok(())
    }

    /// Waits until no more than `most` blobs are under way.
    async fn collect(&mut self, most: usize) -> Result<(), Error> {
        while self.pending.len() > most
            && let Some(first) = self.pending.front_mut()
        {
            let id = first.await??;
            self.pending.pop_front();
            self.content.blobs.push(id);
        }
        Ok(())
    }
}

/// Whether a blob ends after the object of this name and size in bytes.
fn is_border(name: &str, size: usize) -> bool {
    let hash = Sha256::digest(name.as_bytes());
    let drawn = usize::from(u16::from_be_bytes([hash[0], hash[1]]));
    let share = 1 << size.max(1).ilog2();
    drawn < share
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Sizes of blobs of many objects of one size, by the rule alone.
    fn average(size: usize, objects: usize) -> usize {
        let borders = (0..objects).filter(|n| is_border(&format!("object-{n}"), size)).count();
        size * objects / borders.max(1)
    }

    #[test]
    fn blobs_are_about_64_kib_whatever_the_size_of_objects() {
        for size in [64, 300, 1024, 1500, 10_000, 40_000] {
            let average = average(size, 200 * AVERAGE / size);
            assert!((40_000..160_000).contains(&average), "{size}: {average}");
        }
    }

    #[test]
    fn an_object_of_64_kib_or_more_always_ends_its_blob() {
        assert!((0..1000).all(|n| is_border(&n.to_string(), AVERAGE)));
    }

    #[test]
    fn a_border_outlives_a_change_of_size_below_the_next_power_of_two() {
        for n in 0..1000 {
            let name = n.to_string();
            assert_eq!(is_border(&name, 1024), is_border(&name, 2047));
            assert!(!is_border(&name, 1024) || is_border(&name, 4096), "growing takes no border away");
        }
    }
}
