//! Reads packs whole and checks every byte of them.
//!
//! A pack is read once, in pieces, and each piece goes off the runtime's threads to be hashed and opened: a pack may
//! have 4 GiB, and an index may claim anything. A pack under way takes 8 MiB of pieces, the last 16 MiB for its header,
//! and one blob: at most 160 MiB, normally below 32; as many are under way as there are processors.

use bytes::{Buf, Bytes, BytesMut};
use futures::{StreamExt, TryStreamExt, stream};
use sha2::{Digest, Sha256};

use crate::{
    Error, Id,
    crypto::Cipher,
    files::Files,
    inventory::{self, ByPack, Inventory},
    pack::{self, PackedBlob},
};

const PIECE: u64 = 4 << 20;
/// Pieces that are asked for at the same time.
const AHEAD: usize = 2;
/// What may be the header.
const TAIL: u64 = pack::MAX_HEADER as u64 + pack::FRAME;

/// What reading a pack came to.
#[derive(Debug, Default)]
pub(super) struct PackReport {
    pub(super) pack: usize,
    pub(super) bytes: u64,
    /// What is wrong, in sentences; empty if nothing is.
    pub(super) damage: Vec<String>,
    /// Positions of the blobs in it that cannot be read.
    pub(super) bad: Vec<usize>,
}

/// Reads packs, given by their numbers, and tells of each.
///
/// # Errors
/// Only where the store gives no answer.
pub(super) async fn read_all(
    files: &Files,
    inventory: &Inventory,
    by_pack: &ByPack,
    packs: Vec<usize>,
    mut each: impl FnMut(PackReport),
) -> Result<(), Error> {
    let processors = std::thread::available_parallelism().map_or(2, |n| n.get().min(32));
    let mut reports =
        stream::iter(packs).map(|pack| read(files, inventory, by_pack, pack)).buffer_unordered(processors);
    while let Some(report) = reports.try_next().await? {
        each(report);
    }
    Ok(())
}

async fn read(files: &Files, inventory: &Inventory, by_pack: &ByPack, number: usize) -> Result<PackReport, Error> {
    let known = &inventory.packs[number];
    let (path, size) = (known.path(), known.size.unwrap_or(0));
    let positions: Vec<usize> = by_pack.of(number).collect();
    let blobs: Vec<_> = positions.iter().map(|position| inventory.places[*position].blob()).collect();
    let ranges = (0..size).step_by(usize::try_from(PIECE).unwrap_or(usize::MAX));
    let ranges = ranges.map(|start| start..size.min(start + PIECE));
    let mut pieces = stream::iter(ranges).map(|range| files.store.get_range(&path, range)).buffered(AHEAD);
    let mut scan = Scan::new(files.cipher.clone(), blobs, size);
    while let Some(piece) = pieces.next().await {
        match piece {
            Ok(piece) => scan = tokio::task::spawn_blocking(move || scan.feed(&piece)).await?,
            Err(error) => {
                let damage = vec![format!("it cannot be read: {}", inventory::reason(error)?)];
                return Ok(PackReport { pack: number, bytes: scan.read, damage, bad: positions });
            }
        }
    }
    let id = known.id;
    let (damage, bad) = tokio::task::spawn_blocking(move || scan.finish(id)).await?;
    let bad = bad.into_iter().map(|at| positions[at]).collect();
    Ok(PackReport { pack: number, bytes: size, damage, bad })
}

/// A pack on its way through.
struct Scan {
    cipher: Cipher,
    /// Blobs by offset, as the index has them.
    blobs: Vec<PackedBlob>,
    next: usize,
    size: u64,
    read: u64,
    hasher: Sha256,
    /// Bytes from `read - buffer.len()` on that no blob has taken yet.
    buffer: BytesMut,
    tail: BytesMut,
    bad: Vec<(usize, String)>,
}

impl Scan {
    fn new(cipher: Cipher, blobs: Vec<PackedBlob>, size: u64) -> Self {
        let (buffer, tail) = (BytesMut::new(), BytesMut::new());
        Self { cipher, blobs, next: 0, size, read: 0, hasher: Sha256::new(), buffer, tail, bad: Vec::new() }
    }

    fn feed(mut self, piece: &Bytes) -> Self {
        self.hasher.update(piece);
        let before_tail = self.size.saturating_sub(TAIL).saturating_sub(self.read);
        let from = usize::try_from(before_tail).unwrap_or(usize::MAX).min(piece.len());
        self.tail.extend_from_slice(&piece[from..]);
        self.read += piece.len() as u64;
        self.buffer.extend_from_slice(piece);
        while self.next < self.blobs.len() && self.take(self.blobs[self.next]) {
            self.next += 1;
        }
        if self.next == self.blobs.len() {
            self.buffer.clear();
        }
        self
    }

    /// Opens the next blob if all of it is there; whether it is settled.
    fn take(&mut self, blob: PackedBlob) -> bool {
        let start = self.read - self.buffer.len() as u64;
        let length = blob.length as usize;
        let Some(skip) = u64::from(blob.offset).checked_sub(start) else {
            return self.settle(Err("the index says that it overlaps another blob".into()));
        };
        if length > pack::MAX_SEALED {
            return self.settle(Err("it claims to be too large".into()));
        }
        self.buffer.advance(usize::try_from(skip).unwrap_or(usize::MAX).min(self.buffer.len()));
        if u64::from(blob.offset) > self.read || self.buffer.len() < length {
            return false;
        }
        let sealed = self.buffer.split_to(length);
        let opened = pack::open_blob(&self.cipher, &blob, &sealed);
        self.settle(opened.map(drop))
    }

    fn settle(&mut self, opened: Result<(), String>) -> bool {
        if let Err(reason) = opened {
            self.bad.push((self.next, reason));
        }
        true
    }

    /// What is wrong with the pack, and which blobs cannot be read.
    fn finish(mut self, id: Id) -> (Vec<String>, Vec<usize>) {
        let mut damage = Vec::new();
        let found = Id(self.hasher.finalize().into());
        if found != id {
            damage.push(format!("its content has the id {found}"));
        }
        match pack::read_header_of(&self.cipher, &self.tail, self.size) {
            Err(reason) => damage.push(reason),
            Ok(header) if header == self.blobs => {}
            Ok(header) => {
                let (header, index) = (header.len(), self.blobs.len());
                damage.push(format!("its header, of {header} blobs, is not what the index says, of {index}"));
            }
        }
        let beyond = self.next..self.blobs.len();
        self.bad.extend(beyond.map(|at| (at, "it lies outside its pack".to_owned())));
        if let Some((first, reason)) = self.bad.first() {
            let PackedBlob { kind, id, .. } = self.blobs[*first];
            let (bad, all) = (self.bad.len(), self.blobs.len());
            damage
                .push(format!("{bad} of its {all} blobs cannot be read, the first is {} {id}: {reason}", kind.name()));
        }
        (damage, self.bad.into_iter().map(|(at, _)| at).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        crypto::KEY_LENGTH,
        encoding::Compression,
        pack::{BlobKind, Pack, PackBuilder, SealedBlob},
    };

    fn cipher() -> Cipher {
        Cipher::new(&[4; KEY_LENGTH])
    }

    fn pack() -> Pack {
        let mut builder = PackBuilder::default();
        for plaintext in [&b"one"[..], b"two", &[7; 3000]] {
            let mut buffer = Vec::new();
            let named = (BlobKind::Data, Id::of(plaintext));
            let blob = SealedBlob::new(&cipher(), Compression::Off, named, plaintext, &mut buffer).unwrap();
            builder.add(&blob).unwrap();
        }
        builder.finish(&cipher()).unwrap()
    }

    fn scan(bytes: &[u8], blobs: &[PackedBlob], id: Id, piece: usize) -> (Vec<String>, Vec<usize>) {
        let scan = Scan::new(cipher(), blobs.to_vec(), bytes.len() as u64);
        let feed = |scan: Scan, piece: &[u8]| scan.feed(&Bytes::copy_from_slice(piece));
        bytes.chunks(piece).fold(scan, feed).finish(id)
    }

    #[test]
    fn a_sound_pack_is_sound_in_pieces_of_any_size() {
        let Pack { id, bytes, blobs } = pack();
        for piece in [1, 7, 33, 1000, bytes.len()] {
            assert_eq!(scan(&bytes, &blobs, id, piece), (Vec::new(), Vec::new()));
        }
    }

    #[test]
    fn any_flipped_byte_is_found_and_costs_only_its_own_blob() {
        let Pack { id, bytes, blobs } = pack();
        for at in (0..bytes.len()).step_by(11) {
            let mut flipped = bytes.clone();
            flipped[at] ^= 1;
            let (damage, bad) = scan(&flipped, &blobs, id, 500);
            let hit = blobs.iter().position(|blob| (u64::from(blob.offset)..blob.end()).contains(&(at as u64)));
            assert!(damage[0].starts_with("its content has the id"), "{damage:?}");
            assert_eq!(bad, hit.into_iter().collect::<Vec<_>>(), "byte {at}");
        }
    }

    #[test]
    fn an_index_that_says_otherwise_is_found() {
        let Pack { id, bytes, blobs } = pack();
        let with = |at: usize, change: fn(&mut PackedBlob)| {
            let mut changed = blobs.clone();
            change(&mut changed[at]);
            scan(&bytes, &changed, id, 100)
        };
        for (at, change) in [
            (2, (|blob| blob.length = u32::MAX) as fn(&mut PackedBlob)),
            (2, |blob| blob.offset = u32::MAX),
            (1, |blob| blob.offset -= 1),
            (1, |blob| blob.uncompressed = Some(u32::MAX)),
            (0, |blob| blob.id = Id([9; 32])),
        ] {
            let (damage, bad) = with(at, change);
            assert_eq!(damage.len(), 2, "{damage:?}");
            assert!(bad.contains(&at), "{bad:?}");
        }
        let (damage, bad) = scan(&bytes, &blobs[..2], id, 100);
        assert_eq!((damage.len(), bad.len()), (1, 0));
        assert_eq!(damage[0], "its header, of 3 blobs, is not what the index says, of 2");
    }

    #[test]
    fn a_torn_pack_loses_what_lies_behind_the_tear() {
        let Pack { id, bytes, blobs } = pack();
        let (damage, bad) = scan(&bytes[..100], &blobs, id, 64);
        assert_eq!((damage.len(), bad), (3, vec![2]));
    }
}
