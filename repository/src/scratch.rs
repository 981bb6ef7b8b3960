//! Sets bytes aside on this machine: in memory up to a limit, beyond it in a file that has no name.
//!
//! For what must not wait for the store: a file without a name goes with the process, however that ends.

use std::{
    fs::File,
    io,
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
};

use crate::Error;

/// Bytes that are set aside, in some order.
#[derive(Debug)]
pub(crate) struct Scratch {
    folder: PathBuf,
    /// Bytes that may still be kept in memory.
    room: usize,
    file: Option<File>,
    end: u64,
}

/// Where bytes were put.
#[derive(Debug)]
pub(crate) enum Slot {
    Memory(Vec<u8>),
    File { offset: u64, length: usize },
}

impl Scratch {
    /// Keeps `memory` bytes in memory and what is beyond in a file in `folder`.
    pub(crate) fn new(folder: &Path, memory: usize) -> Self {
        Self { folder: folder.to_owned(), room: memory, file: None, end: 0 }
    }

    /// Puts bytes aside.
    pub(crate) fn put(&mut self, bytes: Vec<u8>) -> Result<Slot, Error> {
        if let Some(room) = self.room.checked_sub(bytes.len()) {
            self.room = room;
            return Ok(Slot::Memory(bytes));
        }
        self.write(&bytes).map_err(|source| self.error(source))
    }

    /// Reads bytes that were put aside.
    pub(crate) fn get(&self, slot: &Slot) -> Result<Vec<u8>, Error> {
        match slot {
            Slot::Memory(bytes) => Ok(bytes.clone()),
            Slot::File { offset, length } => {
                let mut bytes = vec![0; *length];
                let file = self.file.as_ref().ok_or_else(|| self.error(io::ErrorKind::NotFound.into()))?;
                file.read_exact_at(&mut bytes, *offset).map_err(|source| self.error(source))?;
                Ok(bytes)
            }
        }
    }

    /// Takes bytes back; those in memory make room for others.
    pub(crate) fn take(&mut self, slot: Slot) -> Result<Vec<u8>, Error> {
        match slot {
            Slot::Memory(bytes) => {
                self.room += bytes.len();
                Ok(bytes)
            }
            slot @ Slot::File { .. } => self.get(&slot),
        }
    }

    fn write(&mut self, bytes: &[u8]) -> io::Result<Slot> {
        let file = match self.file.take() {
            Some(file) => file,
            None => tempfile::tempfile_in(&self.folder)?,
        };
        let file = self.file.insert(file);
        let slot = Slot::File { offset: self.end, length: bytes.len() };
        file.write_all_at(bytes, self.end)?;
        self.end += bytes.len() as u64;
        Ok(slot)
    }

    fn error(&self, source: io::Error) -> Error {
        Error::NotSetAside { folder: self.folder.clone(), source }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_exceeds_memory_goes_to_a_file_without_a_name_and_comes_back() {
        let folder = tempfile::tempdir().unwrap();
        let mut scratch = Scratch::new(folder.path(), 10);
        let small = scratch.put(b"memory".to_vec()).unwrap();
        let (one, two) =
            (scratch.put(b"first in the file".to_vec()).unwrap(), scratch.put(b"second".to_vec()).unwrap());
        assert!(matches!((&small, &one), (Slot::Memory(_), Slot::File { offset: 0, .. })));
        assert_eq!(scratch.get(&two).unwrap(), b"second");
        assert_eq!(scratch.get(&one).unwrap(), b"first in the file");
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
        assert_eq!(scratch.take(small).unwrap(), b"memory");
        assert!(matches!(scratch.put(b"memory".to_vec()).unwrap(), Slot::Memory(_)), "its room is free again");
    }

    #[test]
    fn a_folder_that_is_not_there_is_named() {
        let mut scratch = Scratch::new(Path::new("/no/such/folder"), 0);
        let error = scratch.put(vec![1]).unwrap_err().to_string();
        assert!(error.contains("/no/such/folder"), "{error}");
    }
}
