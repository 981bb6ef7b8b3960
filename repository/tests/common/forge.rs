//! Writes into a repository what no sound program writes, sealed with its own key.
//!
//! The crate under test offers no way to do so, and must not: here the format is spelled out once more, by hand.

use std::path::{Path, PathBuf};

use aes256ctr_poly1305aes::{Aes256CtrPoly1305Aes, Key, Nonce, Tag, aead::AeadInPlace};
use base64::prelude::{BASE64_STANDARD, Engine as _};
use serde_json::{Value, json};
use stillpoint_repository::Id;

use super::PASSWORD;

/// A blob to be forged.
pub(crate) struct ForgedBlob {
    pub(crate) tree: bool,
    pub(crate) id: Id,
    /// What is sealed.
    pub(crate) stored: Vec<u8>,
    pub(crate) uncompressed: Option<u32>,
}

impl ForgedBlob {
    /// A directory, uncompressed.
    pub(crate) fn tree(json: &str) -> Self {
        Self { tree: true, id: Id::of(json.as_bytes()), stored: json.as_bytes().to_vec(), uncompressed: None }
    }

    /// A piece of a file, uncompressed.
    pub(crate) fn data(content: &[u8]) -> Self {
        Self { tree: false, id: Id::of(content), stored: content.to_vec(), uncompressed: None }
    }
}

/// A local repository and its master key.
pub(crate) struct Forge {
    folder: PathBuf,
    cipher: Aes256CtrPoly1305Aes,
}

fn cipher(key: &[u8]) -> Aes256CtrPoly1305Aes {
    Aes256CtrPoly1305Aes::new(Key::from_slice(key))
}

fn open(cipher: &Aes256CtrPoly1305Aes, sealed: &[u8]) -> Vec<u8> {
    let (nonce, rest) = sealed.split_at(16);
    let (text, tag) = rest.split_at(rest.len() - 16);
    let mut text = text.to_vec();
    cipher
        .decrypt_in_place_detached(Nonce::from_slice(nonce), b"", &mut text, Tag::from_slice(tag))
        .expect("the key fits");
    text
}

impl Forge {
    pub(crate) fn open(folder: &Path) -> Self {
        let file = std::fs::read_dir(folder.join("keys")).unwrap().next().unwrap().unwrap().path();
        let file: Value = serde_json::from_slice(&std::fs::read(file).unwrap()).unwrap();
        let bytes = |value: &Value| BASE64_STANDARD.decode(value.as_str().unwrap()).unwrap();
        let number = |field: &str| u32::try_from(file[field].as_u64().unwrap()).unwrap();
        let log_n = u8::try_from(number("N").ilog2()).unwrap();
        let params = scrypt::Params::new(log_n, number("r"), number("p")).unwrap();
        let mut user = [0; 64];
        scrypt::scrypt(PASSWORD.as_bytes(), &bytes(&file["salt"]), &params, &mut user).unwrap();
        let master: Value = serde_json::from_slice(&open(&cipher(&user), &bytes(&file["data"]))).unwrap();
        let parts = [&master["encrypt"], &master["mac"]["k"], &master["mac"]["r"]];
        Self { folder: folder.to_owned(), cipher: cipher(&parts.map(bytes).concat()) }
    }

    pub(crate) fn seal(&self, plaintext: &[u8]) -> Vec<u8> {
        let (nonce, mut text) = ([7; 16], plaintext.to_vec());
        let tag = self.cipher.encrypt_in_place_detached(Nonce::from_slice(&nonce), b"", &mut text).unwrap();
        [&nonce[..], &text, &tag].concat()
    }

    /// The content of a sealed file.
    pub(crate) fn read(&self, path: &str) -> Vec<u8> {
        let framed = open(&self.cipher, &std::fs::read(self.folder.join(path)).unwrap());
        assert_eq!(framed[0], 2);
        zstd::decode_all(&framed[1..]).unwrap()
    }

    /// Writes a sealed file into a folder and returns its path.
    pub(crate) fn write(&self, folder: &str, content: &[u8]) -> String {
        self.write_sealed(folder, &[&[2], &zstd::encode_all(content, 1).unwrap()[..]].concat())
    }

    /// The same without a frame.
    pub(crate) fn write_sealed(&self, folder: &str, plaintext: &[u8]) -> String {
        let sealed = self.seal(plaintext);
        let path = format!("{folder}/{}", Id::of(&sealed));
        std::fs::write(self.folder.join(&path), sealed).unwrap();
        path
    }

    /// Writes a pack of these blobs and returns its path, and what an index says of it.
    pub(crate) fn pack(&self, blobs: &[ForgedBlob]) -> (String, Value) {
        let (mut bytes, mut header, mut indexed) = (Vec::new(), Vec::new(), Vec::new());
        for ForgedBlob { tree, id, stored, uncompressed } in blobs {
            let sealed = self.seal(stored);
            let kind = if *tree { "tree" } else { "data" };
            header.push(u8::from(*tree) | u8::from(uncompressed.is_some()) << 1);
            header.extend_from_slice(&u32::try_from(sealed.len()).unwrap().to_le_bytes());
            header.extend(uncompressed.iter().flat_map(|length| length.to_le_bytes()));
            header.extend_from_slice(&id.0);
            let mut entry = json!({"id": id, "type": kind, "offset": bytes.len(), "length": sealed.len()});
            if let Some(length) = uncompressed {
                entry["uncompressed_length"] = (*length).into();
            }
            indexed.push(entry);
            bytes.extend_from_slice(&sealed);
        }
        let header = self.seal(&header);
        bytes.extend_from_slice(&header);
        bytes.extend_from_slice(&u32::try_from(header.len()).unwrap().to_le_bytes());
        let id = Id::of(&bytes);
        let path = format!("data/{}/{id}", &id.to_string()[..2]);
        std::fs::write(self.folder.join(&path), bytes).unwrap();
        (path, json!({"id": id, "blobs": indexed}))
    }

    /// Writes an index file of these packs and returns its path.
    pub(crate) fn index(&self, packs: &[Value]) -> String {
        self.write("index", json!({"packs": packs}).to_string().as_bytes())
    }

    /// Writes a snapshot of a tree and returns its path.
    pub(crate) fn snapshot(&self, tree: &Id) -> String {
        let snapshot = json!({"time": "2026-01-02T03:04:05Z", "tree": tree, "paths": ["/"], "hostname": "forged"});
        self.write("snapshots", snapshot.to_string().as_bytes())
    }
}
