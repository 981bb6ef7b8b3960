//! Names things in a repository by the SHA-256 of their bytes.
//!
//! One type serves blobs, trees, packs and all other files, because restic's format has one rule for all of them.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Visitor};
use sha2::{Digest, Sha256};

/// The SHA-256 that names a blob, a tree or a file of the repository.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Id(pub [u8; 32]);

/// Hexadecimal digits of an id.
const DIGITS: usize = 64;

/// A text that is not 64 hexadecimal digits.
#[derive(Debug, thiserror::Error)]
#[error("not an id: expected 64 lower-case hexadecimal digits")]
pub struct ParseIdError;

impl Id {
    /// The id of `bytes`: their SHA-256.
    pub fn of(bytes: &[u8]) -> Self {
        Self(Sha256::digest(bytes).into())
    }

    /// An id drawn at random, for what has no content to be named by.
    pub(crate) fn random() -> Self {
        let mut bytes = [0; 32];
        rand::fill(&mut bytes);
        Self(bytes)
    }

    /// The first eight hexadecimal digits, as restic prints ids.
    pub fn short(&self) -> String {
        hex::encode(&self.0[..4])
    }
}

/// The hexadecimal digits of an id.
fn text<'a>(id: &Id, digits: &'a mut [u8; DIGITS]) -> &'a str {
    // the length fits, and digits are text
    let _ = hex::encode_to_slice(id.0, digits);
    std::str::from_utf8(digits).unwrap_or_default()
}

impl fmt::Display for Id {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(text(self, &mut [0; DIGITS]))
    }
}

impl fmt::Debug for Id {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Id({self})")
    }
}

impl FromStr for Id {
    type Err = ParseIdError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if text.bytes().any(|byte| byte.is_ascii_uppercase()) {
            return Err(ParseIdError);
        }
        let mut bytes = [0; 32];
        hex::decode_to_slice(text, &mut bytes).map_err(|_| ParseIdError)?;
        Ok(Self(bytes))
    }
}

impl Serialize for Id {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(text(self, &mut [0; DIGITS]))
    }
}

impl<'de> Deserialize<'de> for Id {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_str(Digits)
    }
}

/// Reads an id from text that it need not own: an index has thousands.
struct Digits;

impl Visitor<'_> for Digits {
    type Value = Id;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an id")
    }

    fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<Id, E> {
        text.parse().map_err(E::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const EMPTY: &str = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

    #[test]
    fn an_id_is_the_sha256_of_the_bytes_and_reads_back() {
        let id = Id::of(b"");
        assert_eq!(id.to_string(), EMPTY);
        assert_eq!(EMPTY.parse::<Id>().unwrap(), id);
        assert_eq!(serde_json::to_string(&id).unwrap(), format!("\"{EMPTY}\""));
        assert_eq!(id.short(), "e3b0c442");
    }

    #[test]
    fn anything_but_64_lower_case_digits_is_refused() {
        let upper = EMPTY.to_uppercase();
        for text in ["", "e3", &EMPTY[1..], &format!("{EMPTY}0"), &upper, "zz"] {
            assert!(text.parse::<Id>().is_err(), "{text}");
        }
    }
}
