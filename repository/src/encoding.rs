//! Compresses and expands what is stored, and frames whole files.
//!
//! ```text
//! file   = sealed( 2 | zstd(content) )      indexes, snapshots, locks, sidecars
//! file   = sealed( '{' … or '[' … )         the same uncompressed, read but never written
//! ```
//! The first plaintext byte is the encoding version of restic's format 2. Everything expanded has a bound, because
//! a few bytes of zstd can claim gigabytes.

use zstd::bulk;

use crate::{Error, crypto::Cipher};

/// Level 3 took half of a capture's processor time for 9 % fewer bytes, and a capture races the server's compaction.
const LEVEL: i32 = 1;
const COMPRESSED: u8 = 2;

/// Limit of a whole file once expanded: restic keeps indexes below 8 MiB, trees and evidence stay far below too.
pub(crate) const MAX_FILE: usize = 128 << 20;

/// Compresses with zstd.
pub(crate) fn compress(content: &[u8]) -> Result<Vec<u8>, Error> {
    bulk::compress(content, LEVEL).map_err(|error| Error::invalid("a blob", format!("zstd: {error}")))
}

/// Expands `compressed` to at most `limit` bytes.
pub(crate) fn expand(compressed: &[u8], limit: usize) -> Result<Vec<u8>, std::io::Error> {
    bulk::decompress(compressed, limit)
}

/// Frames and seals the content of a file.
pub(crate) fn seal_file(cipher: &Cipher, content: &[u8]) -> Result<Vec<u8>, Error> {
    let mut plaintext = vec![COMPRESSED];
    plaintext.extend(compress(content)?);
    cipher.seal(&plaintext)
}

/// Opens and unframes a file; `path` names it in errors.
pub(crate) fn open_file(cipher: &Cipher, sealed: &[u8], path: &str) -> Result<Vec<u8>, Error> {
    let damaged = |reason: String| Error::damaged(path, reason);
    let plaintext = cipher.open(sealed).map_err(|error| damaged(error.to_string()))?;
    match plaintext.split_first() {
        Some((&COMPRESSED, compressed)) => {
            expand(compressed, MAX_FILE).map_err(|error| damaged(format!("it does not decompress: {error}")))
        }
        Some((b'{' | b'[', _)) => Ok(plaintext),
        Some((version, _)) => Err(damaged(format!("its encoding {version} is unknown"))),
        None => Err(damaged("it is empty".into())),
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

    #[test]
    fn a_text_that_expands_beyond_its_limit_is_refused() {
        let bomb = compress(&vec![0; 1 << 20]).unwrap();
        assert!(bomb.len() < 1000);
        assert!(expand(&bomb, (1 << 20) - 1).is_err());
        assert_eq!(expand(&bomb, 1 << 20).unwrap().len(), 1 << 20);
    }
}
