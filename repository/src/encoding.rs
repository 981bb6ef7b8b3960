//! Compresses and expands what is stored, and frames whole files.
//!
//! ```text
//! file   = sealed( 2 | zstd(content) )      indexes, snapshots, locks, sidecars
//! file   = sealed( '{' … or '[' … )         the same uncompressed, read but never written
//! ```
//! The first plaintext byte is the encoding version of restic's format 2. Everything expanded has a bound, because
//! a few bytes of zstd can claim gigabytes.

use std::{cell::RefCell, io::Cursor};

use zstd::bulk::{Compressor, Decompressor};

use crate::{Error, crypto::Cipher};

const COMPRESSED: u8 = 2;
/// Whole files are compressed at one level: they are small beside the blobs.
const FILE_LEVEL: u8 = 1;

/// Limit of a whole file once expanded: restic keeps indexes below 8 MiB, trees and evidence stay far below too.
pub(crate) const MAX_FILE: usize = 128 << 20;

/// How hard blobs are compressed before they are sealed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Compression {
    /// Not at all.
    Off,
    /// By zstd at a level from 1, the fastest, to 19.
    Level(u8),
}

impl Default for Compression {
    /// Level 1: level 3 takes half as long again for 9 % fewer bytes, and a capture races the server's compaction.
    fn default() -> Self {
        Self::Level(1)
    }
}

thread_local! {
    /// A compressor is half a megabyte of tables, dear to make anew for every small file.
    static COMPRESSOR: RefCell<Option<(u8, Compressor<'static>)>> = const { RefCell::new(None) };
    static DECOMPRESSOR: RefCell<Option<Decompressor<'static>>> = const { RefCell::new(None) };
}

/// Appends `content`, compressed by zstd, to `compressed`.
fn compress_into(content: &[u8], level: u8, compressed: &mut Vec<u8>) -> Result<(), Error> {
    let failed = |error: std::io::Error| Error::invalid("a blob", format!("zstd: {error}"));
    COMPRESSOR.with_borrow_mut(|kept| {
        let compressor = match kept {
            Some((kept_level, compressor)) if *kept_level == level => compressor,
            _ => &mut kept.insert((level, Compressor::new(i32::from(level)).map_err(failed)?)).1,
        };
        compressed.reserve(zstd::zstd_safe::compress_bound(content.len()));
        let mut end = Cursor::new(&mut *compressed);
        end.set_position(end.get_ref().len() as u64);
        compressor.compress_to_buffer(content, &mut end).map(drop).map_err(failed)
    })
}

/// Appends the compressed form of a blob to `compressed` and says true, or leaves it as it is where that saves nothing.
pub(crate) fn compress_blob(plaintext: &[u8], level: Compression, compressed: &mut Vec<u8>) -> Result<bool, Error> {
    let Compression::Level(level) = level else { return Ok(false) };
    let start = compressed.len();
    if !is_worthwhile(plaintext, level, compressed)? {
        return Ok(false);
    }
    compress_into(plaintext, level, compressed)?;
    let smaller = compressed.len() - start < plaintext.len();
    if !smaller {
        compressed.truncate(start);
    }
    Ok(smaller)
}

/// Whether samples of a large blob get smaller at all: what is encrypted or compressed already costs a few samples
/// instead of a whole pass.
fn is_worthwhile(plaintext: &[u8], level: u8, scratch: &mut Vec<u8>) -> Result<bool, Error> {
    const SAMPLE: usize = 8 << 10;
    const SAMPLES: usize = 4;
    if plaintext.len() < 8 * SAMPLES * SAMPLE {
        return Ok(true);
    }
    let start = scratch.len();
    let step = (plaintext.len() - SAMPLE) / (SAMPLES - 1);
    let mut worthwhile = false;
    for sample in 0..SAMPLES {
        compress_into(&plaintext[sample * step..][..SAMPLE], level, scratch)?;
        worthwhile |= scratch.len() - start < SAMPLE - SAMPLE / 32;
        scratch.truncate(start);
    }
    Ok(worthwhile)
}

/// Expands `compressed` to at most `limit` bytes.
pub(crate) fn expand(compressed: &[u8], limit: usize) -> Result<Vec<u8>, std::io::Error> {
    DECOMPRESSOR.with_borrow_mut(|kept| {
        let decompressor = match kept {
            Some(decompressor) => decompressor,
            None => kept.insert(Decompressor::new()?),
        };
        decompressor.decompress(compressed, limit)
    })
}

/// Frames and seals the content of a file.
pub(crate) fn seal_file(cipher: &Cipher, content: &[u8]) -> Result<Vec<u8>, Error> {
    let mut sealed = Vec::new();
    cipher.seal_into(&mut sealed, |plaintext| {
        plaintext.push(COMPRESSED);
        compress_into(content, FILE_LEVEL, plaintext)
    })?;
    Ok(sealed)
}

/// Opens and unframes a file; `path` names it in errors.
pub(crate) fn open_file(cipher: &Cipher, sealed: &[u8], path: &str) -> Result<Vec<u8>, Error> {
    let opened = cipher.open(sealed).map_err(|error| error.to_string());
    opened.and_then(unframe).map_err(|reason| Error::damaged(path, reason))
}

/// Unframes what a file holds; the error says what is wrong with it.
pub(crate) fn unframe(plaintext: Vec<u8>) -> Result<Vec<u8>, String> {
    match plaintext.split_first() {
        Some((&COMPRESSED, compressed)) => {
            expand(compressed, MAX_FILE).map_err(|error| format!("it does not decompress: {error}"))
        }
        Some((b'{' | b'[', _)) => Ok(plaintext),
        Some((version, _)) => Err(format!("its encoding {version} is unknown")),
        None => Err("it is empty".into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::crypto::KEY_LENGTH;

    fn cipher() -> Cipher {
        Cipher::new(&[1; KEY_LENGTH])
    }

    #[test]
    fn files_come_back_compressed_or_plain() {
        let content = b"{\"a\":1}".repeat(100);
        let sealed = seal_file(&cipher(), &content).unwrap();
        assert!(sealed.len() < content.len());
        assert_eq!(open_file(&cipher(), &sealed, "f").unwrap(), content);
        let plain = cipher().seal(b"[1]").unwrap();
        assert_eq!(open_file(&cipher(), &plain, "f").unwrap(), b"[1]");
    }

    #[test]
    fn unknown_encodings_and_empty_files_are_damage() {
        for plaintext in [&b""[..], b"\x03abc", b"\x02not zstd"] {
            let sealed = cipher().seal(plaintext).unwrap();
            let error = open_file(&cipher(), &sealed, "index/ab").unwrap_err();
            assert!(error.to_string().starts_with("index/ab is damaged"), "{error}");
        }
    }

    fn compressed(content: &[u8]) -> Option<Vec<u8>> {
        let mut text = b"before".to_vec();
        let smaller = compress_blob(content, Compression::Level(3), &mut text).unwrap();
        assert_eq!(&text[..6], b"before");
        assert_eq!(smaller, text.len() > 6);
        smaller.then(|| text.split_off(6))
    }

    #[test]
    fn blobs_are_compressed_only_where_it_saves_something() {
        let mut random = vec![0; 1 << 20];
        rand::fill(&mut random[..]);
        assert_eq!(compressed(&random), None);
        assert_eq!(compressed(&random[..1000]), None);
        assert_eq!(compressed(b""), None);
        let text = b"some text, ".repeat(100_000);
        assert_eq!(expand(&compressed(&text).unwrap(), text.len()).unwrap(), text);
        random[600_000..].fill(7);
        assert!(compressed(&random).unwrap().len() < 700_000, "one sample that shrinks is enough");
        let mut off = Vec::new();
        assert!(!compress_blob(&text, Compression::Off, &mut off).unwrap() && off.is_empty());
    }

    #[test]
    fn a_text_that_expands_beyond_its_limit_is_refused() {
        let bomb = compressed(&vec![0; 1 << 20]).unwrap();
        assert!(bomb.len() < 1000);
        assert!(expand(&bomb, (1 << 20) - 1).is_err());
        assert_eq!(expand(&bomb, 1 << 20).unwrap().len(), 1 << 20);
    }
}
