//! The parsers of a backup's documents, for fuzzers: bytes go in, what was understood comes out as bytes again.
//!
//! They are hidden from the documentation because nobody else needs them. Each panics if what it wrote is not
//! understood as the same once more.

use bytes::Bytes;
use stillpoint_api::{Evidence, Verdict};
use stillpoint_repository::{
    fuzzing::{Parsed, Parser, again},
    signing::Trust,
};

use crate::{CapturedObject, backup::parse_manifest, evidence::parse};

/// All parsers by name.
pub const PARSERS: [(&str, Parser); 3] = [("evidence", evidence), ("manifest", manifest), ("object", object)];

fn evidence(input: &[u8]) -> Parsed {
    let read = |json: &[u8]| {
        let believed = parse(json, &Trust::default());
        believed.map(|(verdict, _)| verdict).ok_or_else(|| "it proves nothing".to_owned())
    };
    let write = |verdict: &Verdict| {
        let verdict = serde_json::to_string(verdict).map_err(|error| error.to_string())?;
        serde_json::to_vec(&Evidence { verdict, signature: None }).map_err(|error| error.to_string())
    };
    again(input, read, write)
}

fn manifest(input: &[u8]) -> Parsed {
    let read = |json: &[u8]| parse_manifest(json).map_err(|damage| damage.to_string());
    again(input, read, |manifest| serde_json::to_vec(manifest).map_err(|error| error.to_string()))
}

/// One line of an object file: never written again, since its bytes are what was captured.
fn object(input: &[u8]) -> Parsed {
    let object = CapturedObject::parse(Bytes::copy_from_slice(input)).map_err(|error| error.to_string())?;
    Ok(object.raw.to_vec())
}
