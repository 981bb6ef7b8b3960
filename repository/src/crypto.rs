//! Seals and opens byte strings with restic's AES-256-CTR and Poly1305-AES.
//!
//! ```text
//! sealed = nonce (16) | ciphertext (as long as the plaintext) | MAC (16)
//! ```
//! Blobs, pack headers and whole files are all sealed this one way, each with a fresh random nonce.

use aes256ctr_poly1305aes::{Aes256CtrPoly1305Aes, Key, Nonce, Tag, aead::AeadInPlace};

use crate::Error;

const NONCE: usize = 16;
const MAC: usize = 16;

/// Bytes that sealing adds.
pub(crate) const OVERHEAD: usize = NONCE + MAC;

/// Bytes of a key: 32 for AES-256, 16 and 16 for Poly1305-AES.
pub(crate) const KEY_LENGTH: usize = 64;

/// A secret key, ready to use.
#[derive(Clone)]
pub(crate) struct Cipher(Aes256CtrPoly1305Aes);

/// The MAC does not fit: another key, or changed bytes.
#[derive(Debug, thiserror::Error)]
#[error("its message authentication code does not match")]
pub(crate) struct MacMismatch;

impl Cipher {
    pub(crate) fn new(key: &[u8; KEY_LENGTH]) -> Self {
        Self(Aes256CtrPoly1305Aes::new(Key::from_slice(key)))
    }

    pub(crate) fn seal(&self, plaintext: &[u8]) -> Result<Vec<u8>, Error> {
        let mut sealed = Vec::with_capacity(plaintext.len() + OVERHEAD);
        self.seal_into(&mut sealed, |body| {
            body.extend_from_slice(plaintext);
            Ok(())
        })?;
        Ok(sealed)
    }

    /// Replaces `sealed` by the sealed form of what `fill` appends, without another copy.
    pub(crate) fn seal_into<T>(
        &self,
        sealed: &mut Vec<u8>,
        fill: impl FnOnce(&mut Vec<u8>) -> Result<T, Error>,
    ) -> Result<T, Error> {
        sealed.clear();
        sealed.extend_from_slice(&rand::random::<[u8; NONCE]>());
        let filled = fill(sealed)?;
        let (nonce, body) = sealed.split_at_mut(NONCE);
        let tag = self
            .0
            .encrypt_in_place_detached(Nonce::from_slice(nonce), b"", body)
            .map_err(|error| Error::invalid("a text", format!("the cipher refused it: {error}")))?;
        sealed.extend_from_slice(&tag);
        Ok(filled)
    }

    pub(crate) fn open(&self, sealed: &[u8]) -> Result<Vec<u8>, MacMismatch> {
        let body_end = sealed.len().checked_sub(MAC).filter(|end| *end >= NONCE).ok_or(MacMismatch)?;
        let (nonce, tag) = (&sealed[..NONCE], &sealed[body_end..]);
        let mut plaintext = sealed[NONCE..body_end].to_vec();
        self.0
            .decrypt_in_place_detached(Nonce::from_slice(nonce), b"", &mut plaintext, Tag::from_slice(tag))
            .map_err(|_| MacMismatch)?;
        Ok(plaintext)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_sealed_opens_again_and_adds_the_overhead() {
        let cipher = Cipher::new(&[7; KEY_LENGTH]);
        for plaintext in [&b""[..], b"x", &[3; 1000]] {
            let sealed = cipher.seal(plaintext).unwrap();
            assert_eq!(sealed.len(), plaintext.len() + OVERHEAD);
            assert_eq!(cipher.open(&sealed).unwrap(), plaintext);
        }
    }

    #[test]
    fn a_flip_of_any_bit_is_noticed() {
        let cipher = Cipher::new(&[7; KEY_LENGTH]);
        let sealed = cipher.seal(b"fifteen and some").unwrap();
        for bit in 0..sealed.len() * 8 {
            let mut flipped = sealed.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            assert!(cipher.open(&flipped).is_err(), "bit {bit}");
        }
    }

    #[test]
    fn another_key_and_a_torn_text_do_not_open() {
        let sealed = Cipher::new(&[7; KEY_LENGTH]).seal(b"text").unwrap();
        assert!(Cipher::new(&[8; KEY_LENGTH]).open(&sealed).is_err());
        for length in 0..sealed.len() {
            assert!(Cipher::new(&[7; KEY_LENGTH]).open(&sealed[..length]).is_err());
        }
    }

    #[test]
    fn two_seals_of_one_text_differ() {
        let cipher = Cipher::new(&[7; KEY_LENGTH]);
        assert_ne!(cipher.seal(b"text").unwrap(), cipher.seal(b"text").unwrap());
    }
}
