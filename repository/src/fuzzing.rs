//! The parsers of all that is read back, for fuzzers: bytes go in, what was understood comes out as bytes again.
//!
//! They are hidden from the documentation because nobody else needs them. Each panics if what it wrote is not
//! understood as the same once more; what is sealed comes here opened, since its code proves nothing about the rest.

use std::{ffi::OsString, fmt::Debug};

use serde::{Serialize, de::DeserializeOwned};

use crate::{
    Tree, encoding, go,
    index::IndexFile,
    key::{KeyFile, MasterKey},
    lean::{LeanNode, LeanTree},
    lock::LockFile,
    pack, polynomial,
    repository::Config,
    sidecar, signing,
    snapshot::SnapshotFile,
};

/// What was understood, written again, or why it was refused.
pub type Parsed = Result<Vec<u8>, String>;

/// Reads bytes and writes what it understood.
pub type Parser = fn(&[u8]) -> Parsed;

/// All parsers by name.
pub const PARSERS: [(&str, Parser); 14] = [
    ("blob", blob),
    ("config", config),
    ("file", file),
    ("index", json::<IndexFile>),
    ("key", key),
    ("lock", json::<LockFile>),
    ("master-key", master_key),
    ("name", name),
    ("pack", pack),
    ("public-key", public_key),
    ("sidecar", sidecar),
    ("signature", signature),
    ("snapshot", json::<SnapshotFile>),
    ("tree", tree),
];

/// Reads, writes what was understood, and reads that again.
///
/// # Panics
/// If what was read cannot be written, or reads as something else then.
pub fn again<T: PartialEq + Debug>(
    input: &[u8],
    read: impl Fn(&[u8]) -> Result<T, String>,
    write: impl Fn(&T) -> Parsed,
) -> Parsed {
    let value = read(input)?;
    let written = write(&value).unwrap_or_else(|error| panic!("what was read cannot be written: {error}: {value:?}"));
    let once_more = read(&written);
    assert!(once_more.as_ref() == Ok(&value), "{value:?} was written and read as {once_more:?}");
    Ok(written)
}

fn json<T: PartialEq + Debug + Serialize + DeserializeOwned>(input: &[u8]) -> Parsed {
    let read = |json: &[u8]| serde_json::from_slice::<T>(json).map_err(|error| error.to_string());
    again(input, read, |value| serde_json::to_vec(value).map_err(|error| error.to_string()))
}

/// The config, and the polynomial in it.
fn config(input: &[u8]) -> Parsed {
    let written = json::<Config>(input)?;
    let config: Config = serde_json::from_slice(input).map_err(|error| error.to_string())?;
    if let Ok(polynomial) = config.polynomial() {
        assert_eq!(polynomial::parse(&format!("{polynomial:x}")), Ok(polynomial), "a polynomial changed");
    }
    Ok(written)
}

fn key(input: &[u8]) -> Parsed {
    again(input, KeyFile::parse, |value| serde_json::to_vec(value).map_err(|error| error.to_string()))
}

fn master_key(input: &[u8]) -> Parsed {
    let key = MasterKey::from_json(input)?;
    let json = key.to_json().map_err(|error| error.to_string())?;
    assert!(MasterKey::from_json(&json).is_ok_and(|same| same == key), "a master key changed");
    Ok(json.to_vec())
}

fn tree(input: &[u8]) -> Parsed {
    let written = again(input, Tree::from_json, |tree| tree.to_json().map_err(|error| error.to_string()))?;
    let (whole, lean) = (Tree::from_json(input)?, LeanTree::from_json(input));
    let mut lean = lean.unwrap_or_else(|error| panic!("a check does not read {whole:?}: {error}"));
    lean.nodes.sort_by(|a, b| a.name.cmp(&b.name));
    let same = lean.nodes.iter().zip(whole.nodes()).all(|(lean, node)| {
        let LeanNode { name, kind, size, content, subtree } = lean;
        (name, kind, size, content, subtree) == (&node.name, &node.kind, &node.size, &node.content, &node.subtree)
    });
    assert!(same && lean.nodes.len() == whole.nodes().len(), "a check reads {lean:?} for {whole:?}");
    Ok(written)
}

fn name(input: &[u8]) -> Parsed {
    let read = |text: &[u8]| -> Result<OsString, String> {
        let text = str::from_utf8(text).map_err(|error| error.to_string())?;
        go::unquote(text).ok_or_else(|| "it is not quoted rightly".into())
    };
    again(input, read, |name| Ok(go::quote(name).into_bytes()))
}

/// The opened header of a pack.
fn pack(input: &[u8]) -> Parsed {
    again(input, pack::decode_header, |blobs| Ok(pack::encode_header(blobs)))
}

/// The opened content of a sealed file.
fn file(input: &[u8]) -> Parsed {
    encoding::unframe(input.to_vec())
}

/// Four bytes of length as an index claims it, then a compressed blob.
fn blob(input: &[u8]) -> Parsed {
    let (claimed, compressed) = input.split_first_chunk().ok_or("it is too short")?;
    pack::expand(compressed, u32::from_le_bytes(*claimed))
}

fn sidecar(input: &[u8]) -> Parsed {
    const PATH: &str = "evidence/sample";
    let read = |framed: &[u8]| sidecar::unframe(PATH, framed.to_vec()).ok_or_else(|| "another path".to_owned());
    again(input, read, |content| Ok(sidecar::frame(PATH, content)))
}

fn signature(input: &[u8]) -> Parsed {
    let written = json::<signing::Signature>(input)?;
    let signature: signing::Signature = serde_json::from_slice(input).map_err(|error| error.to_string())?;
    // most are not valid, and must only not harm
    let _ = signature.verify(signing::Domain::Manifest, &crate::Id::of(b"root"));
    Ok(written)
}

fn public_key(input: &[u8]) -> Parsed {
    let read = |pem: &[u8]| {
        let pem = str::from_utf8(pem).map_err(|error| error.to_string())?;
        signing::PublicKey::from_pem(pem).map_err(|error| error.to_string())
    };
    again(input, read, |key| key.to_pem().map(String::into_bytes).map_err(|error| error.to_string()))
}
