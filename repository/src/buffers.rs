//! Lends large buffers again and again.
//!
//! A fresh buffer of megabytes costs a page fault every 4 KiB, which was a tenth of a backup's processor time; the
//! allocator gives memory of this size back to the system each time.

use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;

/// Buffers that wait for their next use.
#[derive(Debug)]
pub struct Buffers {
    free: Mutex<Vec<Vec<u8>>>,
    capacity: usize,
    most: usize,
}

impl Buffers {
    /// Keeps at most `most` buffers of `capacity` bytes.
    pub fn new(capacity: usize, most: usize) -> Arc<Self> {
        Arc::new(Self { free: Mutex::default(), capacity, most })
    }

    /// An empty buffer.
    pub fn take(&self) -> Vec<u8> {
        let kept = self.free.lock().unwrap_or_else(PoisonError::into_inner).pop();
        kept.unwrap_or_else(|| Vec::with_capacity(self.capacity))
    }

    /// The content of a buffer, which comes back once nobody reads it any more.
    pub fn lend(self: &Arc<Self>, buffer: Vec<u8>) -> Bytes {
        Bytes::from_owner(Lent { buffer, home: self.clone() })
    }

    fn give_back(&self, mut buffer: Vec<u8>) {
        let mut free = self.free.lock().unwrap_or_else(PoisonError::into_inner);
        // one that grew would keep its size for good
        if free.len() < self.most && buffer.capacity() <= self.capacity {
            buffer.clear();
            free.push(buffer);
        }
    }
}

struct Lent {
    buffer: Vec<u8>,
    home: Arc<Buffers>,
}

impl AsRef<[u8]> for Lent {
    fn as_ref(&self) -> &[u8] {
        &self.buffer
    }
}

impl Drop for Lent {
    fn drop(&mut self) {
        self.home.give_back(std::mem::take(&mut self.buffer));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_buffer_comes_back_once_its_last_reader_is_gone() {
        let buffers = Buffers::new(1000, 1);
        let mut buffer = buffers.take();
        buffer.extend_from_slice(b"content");
        let place = buffer.as_ptr();
        let content = buffers.lend(buffer);
        let part = content.slice(3..);
        drop(content);
        assert_eq!(part, b"tent"[..]);
        let other = buffers.take();
        assert_ne!(other.as_ptr(), place, "it is still read");
        drop(part);
        let again = buffers.take();
        assert_eq!((again.as_ptr(), again.len()), (place, 0));
    }

    #[test]
    fn no_more_are_kept_than_told_and_none_that_grew() {
        let buffers = Buffers::new(10, 1);
        let (grown, a, b) = (vec![1; 100], buffers.take(), buffers.take());
        drop((buffers.lend(grown), buffers.lend(a), buffers.lend(b)));
        assert_eq!(buffers.free.lock().unwrap().len(), 1);
        assert_eq!(buffers.take().capacity(), 10);
    }
}
