//! Knows in which pack each blob lies.
//!
//! The whole index is in memory, because every read and every deduplication asks it, so its entries are small: 48 bytes
//! a blob and about 10 of hash table, a million blobs in 58 MB. A blob may lie in several packs; the others serve where
//! the first is damaged.

use std::{
    collections::HashMap,
    hash::{BuildHasher, RandomState},
};

use hashbrown::HashTable;
use serde::{Deserialize, Serialize};

use crate::{
    Error, Id,
    files::{Files, Folder},
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
    /// Packs by number, so that a blob need not carry 32 bytes of name.
    packs: Vec<Id>,
    numbers: HashMap<Id, u32>,
    data: Places,
    trees: Places,
}

/// Places of all blobs of one kind.
#[derive(Debug, Default)]
struct Places {
    places: Vec<Place>,
    /// Positions in `places` by blob; a blob that lies in several packs is in it several times.
    by_id: HashTable<u32>,
    hasher: RandomState,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Place {
    id: Id,
    pack: u32,
    offset: u32,
    length: u32,
    /// Zero says that it is not compressed.
    uncompressed: u32,
}

/// An index names more packs or blobs than a number of 32 bits counts.
const TOO_MANY: &str = "it names more than 4 billion packs or blobs";

impl Index {
    /// Places of a blob; more than one if it was stored twice.
    pub(crate) fn locations(&self, kind: BlobKind, id: &Id) -> impl Iterator<Item = Location> {
        let location = move |place: Place| {
            let Place { id, pack, offset, length, uncompressed } = place;
            let uncompressed = (uncompressed > 0).then_some(uncompressed);
            Location { pack: self.packs[pack as usize], blob: PackedBlob { kind, id, offset, length, uncompressed } }
        };
        self.places(kind).of(*id).map(location)
    }

    pub(crate) fn contains(&self, kind: BlobKind, id: &Id) -> bool {
        self.places(kind).of(*id).next().is_some()
    }

    /// Adds the packs of an index file of which `usable` approves; `path` names the file in errors.
    pub(crate) fn add_file(
        &mut self,
        file: IndexFile,
        path: &str,
        usable: impl Fn(&Id, &PackedBlob) -> bool,
    ) -> Result<(), Error> {
        for pack in file.packs {
            let mut number = None;
            for blob in pack.blobs.into_iter().map(PackedBlob::from).filter(|blob| usable(&pack.id, blob)) {
                let number = match number {
                    Some(number) => number,
                    None => *number.insert(self.number(pack.id).ok_or_else(|| Error::damaged(path, TOO_MANY))?),
                };
                self.add(number, blob).ok_or_else(|| Error::damaged(path, TOO_MANY))?;
            }
        }
        Ok(())
    }

    fn number(&mut self, pack: Id) -> Option<u32> {
        let next = u32::try_from(self.packs.len()).ok()?;
        let number = *self.numbers.entry(pack).or_insert(next);
        if number == next {
            self.packs.push(pack);
        }
        Some(number)
    }

    fn add(&mut self, pack: u32, blob: PackedBlob) -> Option<()> {
        let PackedBlob { kind, id, offset, length, uncompressed } = blob;
        let place = Place { id, pack, offset, length, uncompressed: uncompressed.unwrap_or(0) };
        match kind {
            BlobKind::Data => self.data.add(place),
            BlobKind::Tree => self.trees.add(place),
        }
    }

    fn places(&self, kind: BlobKind) -> &Places {
        match kind {
            BlobKind::Data => &self.data,
            BlobKind::Tree => &self.trees,
        }
    }
}

impl Places {
    fn of(&self, id: Id) -> impl Iterator<Item = Place> {
        let found = self.by_id.iter_hash(self.hasher.hash_one(id));
        found.map(|at| self.places[*at as usize]).filter(move |place| place.id == id)
    }

    fn add(&mut self, place: Place) -> Option<()> {
        if self.of(place.id).any(|known| known == place) {
            return Some(());
        }
        let at = u32::try_from(self.places.len()).ok()?;
        self.places.push(place);
        let (places, hasher) = (&self.places, &self.hasher);
        let hash = |at: &u32| hasher.hash_one(places[*at as usize].id);
        self.by_id.insert_unique(hash(&at), at, hash);
        Some(())
    }
}

impl IndexFile {
    /// Reads the content of an index file; `path` names it in errors.
    pub(crate) fn parse(json: &[u8], path: &str) -> Result<Self, Error> {
        serde_json::from_slice(json).map_err(|error| Error::damaged(path, error.to_string()))
    }
}

/// A file in `index/`.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct IndexFile {
    pub(crate) packs: Vec<IndexedPack>,
}

/// What an index says of one pack.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct IndexedPack {
    pub(crate) id: Id,
    pub(crate) blobs: Vec<IndexedBlob>,
}

/// What an index says of one blob.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct IndexedBlob {
    pub(crate) id: Id,
    #[serde(rename = "type")]
    pub(crate) kind: BlobKind,
    pub(crate) offset: u32,
    pub(crate) length: u32,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) uncompressed_length: Option<u32>,
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

    /// How many blobs wait.
    pub(crate) fn blobs(&self) -> usize {
        self.0.iter().map(|(_, blobs)| blobs.len()).sum()
    }

    /// Writes the index files of all packs.
    pub(crate) async fn write(self, files: &Files) -> Result<(), Error> {
        for content in self.into_files()? {
            let file = files.seal(Folder::Index, content).await?;
            files.write(file).await?;
        }
        Ok(())
    }

    /// The JSON of index files that together list all packs, each below restic's 8 MiB.
    fn into_files(self) -> Result<Vec<Vec<u8>>, Error> {
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

    fn index_of(packs: &[(Id, Vec<PackedBlob>)], usable: impl Fn(&Id, &PackedBlob) -> bool) -> Index {
        let mut new = NewPacks::default();
        packs.iter().for_each(|(id, blobs)| new.add(*id, blobs.clone()));
        let mut index = Index::default();
        for file in new.into_files().unwrap() {
            index.add_file(IndexFile::parse(&file, "index/x").unwrap(), "index/x", &usable).unwrap();
        }
        index
    }

    #[test]
    fn an_index_reads_back_what_was_written() {
        let pack = Id::of(b"pack");
        let index = index_of(&[(pack, vec![blob(0), blob(1), blob(2)])], |_, _| true);
        for n in 0..3 {
            let found: Vec<_> = index.locations(BlobKind::Data, &blob(n).id).collect();
            assert_eq!(found, [Location { pack, blob: blob(n) }]);
        }
        assert!(!index.contains(BlobKind::Tree, &blob(0).id));
    }

    #[test]
    fn a_blob_takes_48_bytes() {
        assert_eq!(size_of::<Place>(), 48);
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
    fn the_second_place_of_a_blob_is_kept_and_what_is_not_usable_is_left_out() {
        let (lost, kept) = (Id::of(b"lost"), Id::of(b"kept"));
        let packs = [(lost, vec![blob(1)]), (kept, vec![blob(1)]), (lost, vec![blob(1), blob(2)])];
        let index = index_of(&packs, |_, _| true);
        assert_eq!(index.locations(BlobKind::Data, &blob(1).id).count(), 2);
        let index = index_of(&packs, |pack, _| *pack == kept);
        assert!(index.contains(BlobKind::Data, &blob(1).id));
        assert!(!index.contains(BlobKind::Data, &blob(2).id));
    }

    #[test]
    fn a_file_that_is_no_index_is_named() {
        let Err(error) = IndexFile::parse(b"{\"packs\":7}", "index/ab") else { panic!("taken") };
        assert!(error.to_string().starts_with("index/ab is damaged"), "{error}");
    }
}
