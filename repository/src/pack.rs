//! Builds pack files and reads their headers.
//!
//! ```text
//! pack   = blob | blob | … | sealed(entries) | length of the sealed entries (u32, little endian)
//! blob   = sealed(plaintext) or sealed(zstd(plaintext))
//! entry  = 0 data, 1 tree                | sealed length (u32) | id (32)
//!        | 2 zstd data, 3 zstd tree      | sealed length (u32) | plaintext length (u32) | id (32)
//! ```
//! The header lies at the end so that blobs stream out before their number is known. It is read back before a pack
//! leaves memory: a pack whose header is wrong is found now, not at the restore.

use crate::{
    Error, Id,
    crypto::{self, Cipher},
    encoding::{self, Compression},
};

/// A pack is closed once it has this many bytes, as restic's are.
pub(crate) const TARGET_SIZE: usize = 16 << 20;

/// The largest blob that is written or read, expanded.
pub(crate) const MAX_BLOB: usize = 128 << 20;

/// The same as it lies in a pack.
pub(crate) const MAX_SEALED: usize = MAX_BLOB + crypto::OVERHEAD;

/// Blobs in a pack at most, so that a pack of tiny blobs keeps a header that restic accepts.
const MAX_BLOBS: usize = 10_000;

const LENGTH_FIELD: usize = 4;

/// Bytes of the largest header, about.
const HEADER_ROOM: usize = 512 << 10;

/// Bytes of a pack without blobs.
pub(crate) const FRAME: u64 = (crypto::OVERHEAD + LENGTH_FIELD) as u64;

/// The largest header that is read, as in restic: of about 400,000 blobs.
pub(crate) const MAX_HEADER: usize = 16 << 20;

/// The two kinds of blobs; one pack holds one kind.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum BlobKind {
    /// A piece of a file.
    Data,
    /// A directory.
    Tree,
}

impl BlobKind {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Data => "data",
            Self::Tree => "tree",
        }
    }
}

/// Where a blob lies in its pack.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct PackedBlob {
    pub(crate) kind: BlobKind,
    pub(crate) id: Id,
    pub(crate) offset: u32,
    pub(crate) length: u32,
    /// Plaintext bytes of a compressed blob.
    pub(crate) uncompressed: Option<u32>,
}

impl PackedBlob {
    /// Where it ends in its pack.
    pub(crate) fn end(&self) -> u64 {
        u64::from(self.offset) + u64::from(self.length)
    }

    /// Bytes of the plaintext.
    pub(crate) fn plain(&self) -> u64 {
        let sealed = u64::from(self.length).saturating_sub(crypto::OVERHEAD as u64);
        self.uncompressed.map_or(sealed, u64::from)
    }

    /// Bytes of its entry in the header.
    pub(crate) fn entry(&self) -> u64 {
        if self.uncompressed.is_some() { 41 } else { 37 }
    }
}

/// A blob as it goes into a pack.
pub(crate) struct SealedBlob<'a> {
    kind: BlobKind,
    id: Id,
    sealed: &'a [u8],
    uncompressed: Option<u32>,
}

impl<'a> SealedBlob<'a> {
    /// Compresses, where that helps, and seals into `buffer` a plaintext whose id is known.
    pub(crate) fn new(
        cipher: &Cipher,
        compression: Compression,
        (kind, id): (BlobKind, Id),
        plaintext: &[u8],
        buffer: &'a mut Vec<u8>,
    ) -> Result<Self, Error> {
        let too_large = || Error::TooLarge { what: format!("{} blob {id}", kind.name()), limit: MAX_BLOB as u64 };
        if plaintext.len() > MAX_BLOB {
            return Err(too_large());
        }
        let length = u32::try_from(plaintext.len()).map_err(|_| too_large())?;
        let compressed = cipher.seal_into(buffer, |body| {
            let compressed = encoding::compress_blob(plaintext, compression, body)?;
            if !compressed {
                body.extend_from_slice(plaintext);
            }
            Ok(compressed)
        })?;
        Ok(Self { kind, id, sealed: buffer, uncompressed: compressed.then_some(length) })
    }

    /// Takes a blob over from another pack as it lies there.
    pub(crate) fn copied(blob: &PackedBlob, sealed: &'a [u8]) -> Self {
        let PackedBlob { kind, id, uncompressed, .. } = *blob;
        Self { kind, id, sealed, uncompressed }
    }

    /// Bytes of the plaintext, if it is compressed.
    pub(crate) fn uncompressed(&self) -> Option<u32> {
        self.uncompressed
    }

    /// Bytes that it takes in a pack.
    pub(crate) fn len(&self) -> usize {
        self.sealed.len()
    }
}

/// Opens a blob's bytes and checks that they are the blob; the error says what is wrong with them.
pub(crate) fn open_blob(cipher: &Cipher, blob: &PackedBlob, sealed: &[u8]) -> Result<Vec<u8>, String> {
    let opened = cipher.open(sealed).map_err(|error| error.to_string())?;
    let plaintext = match blob.uncompressed {
        Some(length) => expand(&opened, length)?,
        None => opened,
    };
    let found = Id::of(&plaintext);
    if found == blob.id { Ok(plaintext) } else { Err(format!("its content has the id {found}")) }
}

/// Expands a blob to the length that is claimed for it.
pub(crate) fn expand(compressed: &[u8], length: u32) -> Result<Vec<u8>, String> {
    if length as usize > MAX_BLOB {
        return Err("it claims to be too large".into());
    }
    encoding::expand(compressed, length as usize).map_err(|error| format!("it does not decompress: {error}"))
}

/// A complete pack, ready to be written.
pub(crate) struct Pack {
    pub(crate) id: Id,
    pub(crate) bytes: Vec<u8>,
    pub(crate) blobs: Vec<PackedBlob>,
}

/// A pack being filled.
#[derive(Default)]
pub(crate) struct PackBuilder {
    bytes: Vec<u8>,
    blobs: Vec<PackedBlob>,
}

impl PackBuilder {
    /// Bytes of a buffer that holds a whole pack.
    pub(crate) const BUFFER: usize = TARGET_SIZE + HEADER_ROOM;

    /// Fills an empty buffer.
    pub(crate) fn with_buffer(bytes: Vec<u8>) -> Self {
        Self { bytes, blobs: Vec::new() }
    }

    /// Appends a blob.
    pub(crate) fn add(&mut self, blob: &SealedBlob<'_>) -> Result<(), Error> {
        let too_large = |_| Error::TooLarge { what: "a pack".into(), limit: u64::from(u32::MAX) };
        let offset = u32::try_from(self.bytes.len()).map_err(too_large)?;
        let length = u32::try_from(blob.sealed.len()).map_err(too_large)?;
        let SealedBlob { kind, id, sealed, uncompressed } = *blob;
        if self.bytes.capacity() == 0 {
            // growing by doubling would copy every byte about twice
            self.bytes.reserve(Self::BUFFER);
        }
        self.bytes.extend_from_slice(sealed);
        self.blobs.push(PackedBlob { kind, id, offset, length, uncompressed });
        Ok(())
    }

    /// Whether it is time to close it.
    pub(crate) fn is_full(&self) -> bool {
        self.bytes.len() >= TARGET_SIZE || self.blobs.len() >= MAX_BLOBS
    }

    /// Whether a blob had better begin the next pack.
    pub(crate) fn lacks_room_for(&self, blob: &SealedBlob<'_>) -> bool {
        !self.is_empty() && self.bytes.len() + blob.len() > TARGET_SIZE
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.blobs.is_empty()
    }

    /// Appends the header, names the pack, and reads the header back.
    pub(crate) fn finish(self, cipher: &Cipher) -> Result<Pack, Error> {
        let Self { mut bytes, blobs } = self;
        let header = cipher.seal(&encode_header(&blobs))?;
        let length = u32::try_from(header.len()).map_err(|_| Error::invalid("a pack", "its header is too large"))?;
        bytes.extend_from_slice(&header);
        bytes.extend_from_slice(&length.to_le_bytes());
        match read_header(cipher, &bytes) {
            Ok(read) if read == blobs => Ok(Pack { id: Id::of(&bytes), bytes, blobs }),
            Ok(_) => Err(Error::damaged("a new pack", "its header does not list what was put in")),
            Err(reason) => Err(Error::damaged("a new pack", reason)),
        }
    }
}

pub(crate) fn encode_header(blobs: &[PackedBlob]) -> Vec<u8> {
    let mut header = Vec::with_capacity(blobs.len() * 41);
    for blob in blobs {
        let kind = match blob.kind {
            BlobKind::Data => 0,
            BlobKind::Tree => 1,
        };
        header.push(kind | if blob.uncompressed.is_some() { 2 } else { 0 });
        header.extend_from_slice(&blob.length.to_le_bytes());
        if let Some(length) = blob.uncompressed {
            header.extend_from_slice(&length.to_le_bytes());
        }
        header.extend_from_slice(&blob.id.0);
    }
    header
}

/// Reads the header of a whole pack and checks that it accounts for every byte.
pub(crate) fn read_header(cipher: &Cipher, pack: &[u8]) -> Result<Vec<PackedBlob>, String> {
    read_header_of(cipher, pack, pack.len() as u64)
}

/// The same for a pack of `size` bytes of which only the last ones are at hand.
pub(crate) fn read_header_of(cipher: &Cipher, tail: &[u8], size: u64) -> Result<Vec<PackedBlob>, String> {
    let (rest, length) = tail.split_last_chunk::<LENGTH_FIELD>().ok_or("it is too short for a pack")?;
    let length = u32::from_le_bytes(*length) as usize;
    let start = rest.len().checked_sub(length).filter(|_| (crypto::OVERHEAD..=MAX_HEADER).contains(&length));
    let start = start.ok_or("its header length is out of bounds")?;
    let header = cipher.open(&rest[start..]).map_err(|error| format!("its header does not open: {error}"))?;
    let blobs = decode_header(&header)?;
    let end = blobs.last().map_or(0, PackedBlob::end);
    let before = size - (tail.len() - start) as u64;
    if end == before { Ok(blobs) } else { Err("its header does not account for all its bytes".into()) }
}

pub(crate) fn decode_header(mut header: &[u8]) -> Result<Vec<PackedBlob>, String> {
    let mut blobs = Vec::new();
    let mut offset = 0u32;
    while !header.is_empty() {
        let (kind, compressed) = match take::<1>(&mut header)? {
            [0] => (BlobKind::Data, false),
            [1] => (BlobKind::Tree, false),
            [2] => (BlobKind::Data, true),
            [3] => (BlobKind::Tree, true),
            [other] => return Err(format!("its header has a blob of unknown type {other}")),
        };
        let length = u32::from_le_bytes(take(&mut header)?);
        let uncompressed = if compressed { Some(u32::from_le_bytes(take(&mut header)?)) } else { None };
        let id = Id(take(&mut header)?);
        blobs.push(PackedBlob { kind, id, offset, length, uncompressed });
        offset = offset.checked_add(length).ok_or("its header claims too many bytes")?;
    }
    Ok(blobs)
}

fn take<const N: usize>(header: &mut &[u8]) -> Result<[u8; N], String> {
    let (taken, rest) = header.split_first_chunk::<N>().ok_or("its header is torn")?;
    *header = rest;
    Ok(*taken)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::crypto::KEY_LENGTH;

    fn cipher() -> Cipher {
        Cipher::new(&[5; KEY_LENGTH])
    }

    fn pack_of(plaintexts: &[&[u8]]) -> Pack {
        let mut builder = PackBuilder::default();
        for plaintext in plaintexts {
            let (name, mut buffer) = ((BlobKind::Data, Id::of(plaintext)), Vec::new());
            let blob = SealedBlob::new(&cipher(), Compression::default(), name, plaintext, &mut buffer).unwrap();
            builder.add(&blob).unwrap();
        }
        builder.finish(&cipher()).unwrap()
    }

    fn sealed<'a>(pack: &'a Pack, blob: &PackedBlob) -> &'a [u8] {
        &pack.bytes[blob.offset as usize..][..blob.length as usize]
    }

    #[test]
    fn blobs_come_back_out_of_a_pack() {
        let long = b"compressible ".repeat(50);
        let pack = pack_of(&[b"ab", &long]);
        assert_eq!(pack.id, Id::of(&pack.bytes));
        assert_eq!(read_header(&cipher(), &pack.bytes).unwrap(), pack.blobs);
        let [short_blob, long_blob] = pack.blobs[..] else { panic!("two blobs expected") };
        assert_eq!(short_blob.uncompressed, None);
        assert_eq!(long_blob.uncompressed, Some(650));
        assert_eq!(open_blob(&cipher(), &short_blob, sealed(&pack, &short_blob)).unwrap(), b"ab");
        assert_eq!(open_blob(&cipher(), &long_blob, sealed(&pack, &long_blob)).unwrap(), long);
    }

    #[test]
    fn the_bytes_of_a_pack_are_as_the_format_draws_them() {
        let pack = pack_of(&[b"ab"]);
        let header = 1 + 4 + 32 + crypto::OVERHEAD;
        assert_eq!(pack.bytes.len(), 2 + crypto::OVERHEAD + header + LENGTH_FIELD);
        assert_eq!(pack.bytes[pack.bytes.len() - LENGTH_FIELD..], [69, 0, 0, 0]);
        assert_eq!(header, 69);
    }

    #[test]
    fn a_flipped_byte_anywhere_in_a_pack_is_noticed() {
        let pack = pack_of(&[b"ab", b"cd"]);
        for position in 0..pack.bytes.len() {
            let mut bytes = pack.bytes.clone();
            bytes[position] ^= 0x40;
            let flipped = Pack { id: pack.id, bytes, blobs: pack.blobs.clone() };
            let header_fails = read_header(&cipher(), &flipped.bytes).is_err();
            let blob_fails =
                flipped.blobs.iter().any(|blob| open_blob(&cipher(), blob, sealed(&flipped, blob)).is_err());
            assert!(header_fails || blob_fails, "byte {position}");
        }
    }

    #[test]
    fn one_blob_is_never_taken_for_another() {
        let pack = pack_of(&[b"ab", b"cd"]);
        let swapped = PackedBlob { offset: pack.blobs[1].offset, ..pack.blobs[0] };
        let error = open_blob(&cipher(), &swapped, sealed(&pack, &swapped)).unwrap_err();
        assert!(error.starts_with("its content has the id"), "{error}");
    }

    #[test]
    fn torn_packs_are_refused_at_every_length() {
        let pack = pack_of(&[b"ab"]);
        for length in 0..pack.bytes.len() {
            assert!(read_header(&cipher(), &pack.bytes[..length]).is_err(), "{length}");
        }
    }
}
