//! Knows in which pack each blob lies.
//!
//! The whole index is in memory: 64 KiB blobs make it a thousandth of the data, and every read and every
//! deduplication asks it. A blob may lie in several packs; the others serve where the first is damaged.

use std::collections::HashMap;

use serde::{Deserialize, Serialize};

use crate::{
    Error, Id,
    pack::{BlobKind, PackedBlob},
};

/// A blob's place in the repository.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Location {
    pub(crate) pack: Id,
    pub(crate) blob: PackedBlob,
}

/// All blobs that the index files list.
#[derive(Debug, Default)]
pub(crate) struct Index {
    first: HashMap<(BlobKind, Id), Location>,
    others: HashMap<(BlobKind, Id), Vec<Location>>,
}

impl Index {
    /// Places of a blob; more than one if it was stored twice.
    pub(crate) fn locations(&self, kind: BlobKind, id: &Id) -> impl Iterator<Item = &Location> {
        let key = (kind, *id);
        self.first.get(&key).into_iter().chain(self.others.get(&key).into_iter().flatten())
    }

    pub(crate) fn contains(&self, kind: BlobKind, id: &Id) -> bool {
        self.first.contains_key(&(kind, *id))
    }

    /// Adds the packs of an index file; `path` names it in errors.
    pub(crate) fn add_file(&mut self, json: &[u8], path: &str) -> Result<(), Error> {
        let file: IndexFile = serde_json::from_slice(json).map_err(|error| Error::damaged(path, error.to_string()))?;
        for pack in file.packs {
            for blob in pack.blobs {
                self.add(Location { pack: pack.id, blob: blob.into() });
            }
        }
        Ok(())
    }

    fn add(&mut self, location: Location) {
        let key = (location.blob.kind, location.blob.id);
        match self.first.get(&key) {
            None => drop(self.first.insert(key, location)),
            Some(known) if *known == location => {}
            Some(_) => self.others.entry(key).or_default().push(location),
        }
    }

    /// Keeps what lies in packs that exist and are long enough: nothing else may stand in for new data.
    pub(crate) fn retain_existing(&mut self, packs: &HashMap<Id, u64>) {
        let exists = |location: &Location| {
            let end = u64::from(location.blob.offset) + u64::from(location.blob.length);
            packs.get(&location.pack).is_some_and(|size| *size >= end)
        };
        let others = std::mem::take(&mut self.others);
        self.first.retain(|_, location| exists(location));
        others.into_values().flatten().filter(exists).for_each(|location| self.add(location));
    }
}

/// A file in `index/`.
#[derive(Serialize, Deserialize)]
pub(crate) struct IndexFile {
    pub(crate) packs: Vec<IndexedPack>,
}

/// What an index says of one pack.
#[derive(Serialize, Deserialize)]
pub(crate) struct IndexedPack {
    pub(crate) id: Id,
    pub(crate) blobs: Vec<IndexedBlob>,
}

/// What an index says of one blob.
#[derive(Serialize, Deserialize)]
pub(crate) struct IndexedBlob {
    id: Id,
    #[serde(rename = "type")]
    kind: BlobKind,
    offset: u32,
    length: u32,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    uncompressed_length: Option<u32>,
}

impl From<IndexedBlob> for PackedBlob {
    fn from(indexed: IndexedBlob) -> Self {
        let IndexedBlob { id, kind, offset, length, uncompressed_length } = indexed;
        // restic reads an absent length and a length of zero alike
        Self { kind, id, offset, length, uncompressed: uncompressed_length.filter(|length| *length > 0) }
    }
}

impl From<PackedBlob> for IndexedBlob {
    fn from(blob: PackedBlob) -> Self {
        let PackedBlob { kind, id, offset, length, uncompressed } = blob;
        Self { id, kind, offset, length, uncompressed_length: uncompressed }
    }
}

/// Packs that were written and wait to be indexed.
#[derive(Debug, Default)]
pub(crate) struct NewPacks(Vec<(Id, Vec<PackedBlob>)>);

impl NewPacks {
    pub(crate) fn add(&mut self, pack: Id, blobs: Vec<PackedBlob>) {
        self.0.push((pack, blobs));
    }

    /// The JSON of index files that together list all packs, each below restic's 8 MiB.
    pub(crate) fn into_files(self) -> Result<Vec<Vec<u8>>, Error> {
        const BLOBS_PER_FILE: usize = 30_000;
        let mut files = Vec::new();
        let mut file = IndexFile { packs: Vec::new() };
        let mut blobs = 0;
        for (id, packed) in self.0 {
            if blobs > 0 && blobs + packed.len() > BLOBS_PER_FILE {
                files.push(std::mem::replace(&mut file, IndexFile { packs: Vec::new() }));
                blobs = 0;
            }
            blobs += packed.len();
            file.packs.push(IndexedPack { id, blobs: packed.into_iter().map(Into::into).collect() });
        }
        files.push(file);
        let encode = |file: &IndexFile| serde_json::to_vec(file);
        files
            .iter()
            .filter(|file| !file.packs.is_empty())
            .map(encode)
            .collect::<Result<_, _>>()
            .map_err(|error| Error::invalid("the index", error.to_string()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn blob(n: u32) -> PackedBlob {
        let id = Id::of(&n.to_le_bytes());
        PackedBlob {
            kind: BlobKind::Data,
            id,
            offset: n,
            length: 10,
            uncompressed: n.is_multiple_of(2).then_some(20 + n),
        }
    }

    fn index_of(packs: &[(Id, Vec<PackedBlob>)]) -> Index {
        let mut new = NewPacks::default();
        packs.iter().for_each(|(id, blobs)| new.add(*id, blobs.clone()));
        let mut index = Index::default();
        for file in new.into_files().unwrap() {
            index.add_file(&file, "index/x").unwrap();
        }
        index
    }

    #[test]
    fn an_index_reads_back_what_was_written() {
        let pack = Id::of(b"pack");
        let index = index_of(&[(pack, vec![blob(0), blob(1), blob(2)])]);
        for n in 0..3 {
            let found: Vec<_> = index.locations(BlobKind::Data, &blob(n).id).collect();
            assert_eq!(found, [&Location { pack, blob: blob(n) }]);
        }
        assert!(!index.contains(BlobKind::Tree, &blob(0).id));
    }

    #[test]
    fn many_blobs_are_spread_over_several_files() {
        let mut new = NewPacks::default();
        for pack in 0..7u32 {
            new.add(Id::of(&pack.to_be_bytes()), (0..10_000).map(|n| blob(pack * 10_000 + n)).collect());
        }
        let files = new.into_files().unwrap();
        assert_eq!(files.len(), 3);
        assert!(files.iter().all(|file| file.len() < 8 << 20));
        assert!(NewPacks::default().into_files().unwrap().is_empty());
    }

    #[test]
    fn the_second_place_of_a_blob_is_kept_and_serves_when_the_first_pack_is_gone() {
        let (lost, kept) = (Id::of(b"lost"), Id::of(b"kept"));
        let mut index = index_of(&[(lost, vec![blob(1)]), (kept, vec![blob(1)]), (lost, vec![blob(1), blob(2)])]);
        assert_eq!(index.locations(BlobKind::Data, &blob(1).id).count(), 2);
        index.retain_existing(&HashMap::from([(kept, 11)]));
        assert!(index.contains(BlobKind::Data, &blob(1).id));
        assert!(!index.contains(BlobKind::Data, &blob(2).id));
        index.retain_existing(&HashMap::from([(kept, 10)]));
        assert!(!index.contains(BlobKind::Data, &blob(1).id), "a torn pack is no place");
    }

    #[test]
    fn a_file_that_is_no_index_is_named() {
        let error = Index::default().add_file(b"{\"packs\":7}", "index/ab").unwrap_err();
        assert!(error.to_string().starts_with("index/ab is damaged"), "{error}");
    }
}
