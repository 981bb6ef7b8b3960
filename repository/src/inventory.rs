//! Lays out what all index files say, beside the packs that exist, for whoever judges the repository as a whole.
//!
//! Sorted arrays instead of the reader's hash tables, because a check and a prune ask about every blob and need the
//! same numbers for bit sets: 52 bytes a blob and 60 a pack, up to twice that while index files are still coming.

use std::{collections::HashMap, ops::Range};

use fixedbitset::FixedBitSet;
use futures::{StreamExt, stream};

use crate::{
    Error, Id,
    files::{Files, Folder},
    index::IndexFile,
    pack::{self, BlobKind, PackedBlob},
    upload::pack_path,
};

/// Index files read at the same time.
const CONCURRENT: usize = 4;

/// One place of a blob, as an index file says it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Place {
    kind: BlobKind,
    pub(crate) id: Id,
    /// Number of the pack in [`Inventory::packs`].
    pub(crate) pack: u32,
    offset: u32,
    pub(crate) length: u32,
    /// Zero says that it is not compressed.
    uncompressed: u32,
}

impl Place {
    pub(crate) fn blob(&self) -> PackedBlob {
        let Self { kind, id, offset, length, uncompressed, .. } = *self;
        PackedBlob { kind, id, offset, length, uncompressed: (uncompressed > 0).then_some(uncompressed) }
    }

    /// Bytes of the plaintext.
    pub(crate) fn plain(&self) -> u64 {
        self.blob().plain()
    }
}

/// A pack that an index file names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct KnownPack {
    pub(crate) id: Id,
    /// Bytes by the listing; `None` if there is no such file.
    pub(crate) size: Option<u64>,
    /// Bytes of a pack of exactly the blobs that the index names.
    pub(crate) expected: u64,
}

impl KnownPack {
    pub(crate) fn path(&self) -> String {
        pack_path(&self.id)
    }
}

/// An index file that could be read.
#[derive(Debug)]
pub(crate) struct KnownIndex {
    pub(crate) id: Id,
    /// Numbers of the packs that it names.
    pub(crate) packs: Vec<u32>,
    pub(crate) blobs: usize,
}

/// A file that cannot be used, and why.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Unreadable {
    pub(crate) path: String,
    pub(crate) reason: String,
}

/// What the repository holds according to its index and its listing.
#[derive(Debug, Default)]
pub(crate) struct Inventory {
    pub(crate) packs: Vec<KnownPack>,
    /// Sorted by kind, id, pack; places of one blob are neighbours.
    pub(crate) places: Vec<Place>,
    pub(crate) indexes: Vec<KnownIndex>,
    /// Index files that could not be read.
    pub(crate) unreadable: Vec<Unreadable>,
    /// Packs that exist and that no index names, with their sizes.
    pub(crate) unreferenced: Vec<(Id, u64)>,
    /// Names in `data/` that are no packs'.
    pub(crate) foreign: Vec<String>,
}

impl Inventory {
    /// Reads every index file and lists the packs, in this order: a pack is stored before an index names it.
    ///
    /// # Errors
    /// Only where the store gives no answer; an index file that is damaged is listed in `unreadable`.
    pub(crate) async fn load(files: &Files) -> Result<Self, Error> {
        let mut loading = Loading::default();
        let ids = files.list(Folder::Index).await?;
        let read = |id: Id| async move { (id, read_index(files, &id).await) };
        let mut contents = stream::iter(ids).map(read).buffer_unordered(CONCURRENT);
        while let Some((id, content)) = contents.next().await {
            match content {
                Ok(file) => loading.add(id, file)?,
                Err(error) => {
                    let path = Folder::Index.path(&id);
                    loading.inventory.unreadable.push(Unreadable { path, reason: reason(error)? });
                }
            }
        }
        drop(contents);
        let listed = files.store.list("data").await?;
        let entries = listed.into_iter().map(|entry| (entry.name, entry.size)).collect();
        Ok(tokio::task::spawn_blocking(move || loading.finish(entries)).await?)
    }

    /// Positions in `places` of a blob; none if no index names it.
    pub(crate) fn positions(&self, kind: BlobKind, id: &Id) -> Range<usize> {
        let start = self.places.partition_point(|place| (place.kind, place.id) < (kind, *id));
        let same = |place: &&Place| (place.kind, place.id) == (kind, *id);
        start..start + self.places[start..].iter().take_while(same).count()
    }

    /// All positions of the blob that lies at one of them.
    pub(crate) fn same_blob(&self, position: usize) -> Range<usize> {
        let Place { kind, id, .. } = self.places[position];
        self.positions(kind, &id)
    }

    pub(crate) fn pack_of(&self, position: usize) -> &KnownPack {
        &self.packs[self.places[position].pack as usize]
    }

    /// Positions of places that cannot be read, because their pack is missing or too short, or the blob larger than any.
    pub(crate) fn out_of_reach(&self) -> FixedBitSet {
        let mut found = FixedBitSet::with_capacity(self.places.len());
        for (position, place) in self.places.iter().enumerate() {
            let size = self.packs[place.pack as usize].size;
            let too_large = place.length as usize > pack::MAX_SEALED;
            found.set(position, too_large || size.is_none_or(|size| size < place.blob().end()));
        }
        found
    }

    /// Positions of every pack's places, in the order in which they lie there: 4 bytes a blob.
    pub(crate) fn by_pack(&self) -> ByPack {
        let mut starts = vec![0; self.packs.len() + 1];
        self.places.iter().for_each(|place| starts[place.pack as usize + 1] += 1);
        for at in 1..starts.len() {
            starts[at] += starts[at - 1];
        }
        let mut order: Vec<u32> = (0..).take(self.places.len()).collect();
        order.sort_unstable_by_key(|position| {
            let place = &self.places[*position as usize];
            (place.pack, place.offset)
        });
        ByPack { order, starts }
    }
}

/// Positions of places, pack after pack.
pub(crate) struct ByPack {
    order: Vec<u32>,
    starts: Vec<usize>,
}

impl ByPack {
    /// Positions of one pack's places, by offset.
    pub(crate) fn of(&self, pack: usize) -> impl Iterator<Item = usize> {
        self.order[self.starts[pack]..self.starts[pack + 1]].iter().map(|position| *position as usize)
    }
}

/// Words for an error that concerns one file only.
///
/// # Errors
/// The error itself, where the store as a whole does not answer: nothing can be said then.
pub(crate) fn reason(error: Error) -> Result<String, Error> {
    match error {
        Error::Damaged { reason, .. } | Error::Store { reason, .. } => Ok(reason),
        Error::FileMissing { .. } => Ok("it is missing".into()),
        Error::TooLarge { limit, .. } => Ok(format!("it is larger than the limit of {limit} bytes")),
        other => Err(other),
    }
}

async fn read_index(files: &Files, id: &Id) -> Result<IndexFile, Error> {
    let json = files.read(Folder::Index, id).await?;
    let path = Folder::Index.path(id);
    tokio::task::spawn_blocking(move || IndexFile::parse(&json, &path)).await?
}

/// An inventory while index files are still coming.
#[derive(Default)]
struct Loading {
    inventory: Inventory,
    numbers: HashMap<Id, u32>,
}

impl Loading {
    fn add(&mut self, id: Id, file: IndexFile) -> Result<(), Error> {
        let mut known = KnownIndex { id, packs: Vec::with_capacity(file.packs.len()), blobs: 0 };
        for indexed in file.packs {
            let pack = self.number(indexed.id);
            known.packs.push(pack);
            known.blobs += indexed.blobs.len();
            self.inventory.places.extend(indexed.blobs.into_iter().map(|blob| {
                let PackedBlob { kind, id, offset, length, uncompressed } = blob.into();
                Place { kind, id, pack, offset, length, uncompressed: uncompressed.unwrap_or(0) }
            }));
        }
        if u32::try_from(self.inventory.places.len()).is_err() {
            return Err(Error::damaged(Folder::Index.path(&id), "the index names more than 4 billion blobs"));
        }
        self.inventory.indexes.push(known);
        Ok(())
    }

    fn number(&mut self, id: Id) -> u32 {
        let packs = &mut self.inventory.packs;
        *self.numbers.entry(id).or_insert_with(|| {
            packs.push(KnownPack { id, size: None, expected: pack::FRAME });
            // fewer packs than blobs, whose number is checked, but for packs without any
            u32::try_from(packs.len() - 1).unwrap_or(u32::MAX)
        })
    }

    fn finish(self, listed: Vec<(String, u64)>) -> Inventory {
        let Self { mut inventory, numbers } = self;
        for (name, size) in listed {
            match pack_id(&name) {
                None => inventory.foreign.push(format!("data/{name}")),
                Some(id) => match numbers.get(&id) {
                    Some(number) => inventory.packs[*number as usize].size = Some(size),
                    None => inventory.unreferenced.push((id, size)),
                },
            }
        }
        inventory.places.sort_unstable();
        // two index files may name one pack, as after a prune that was interrupted
        inventory.places.dedup();
        for place in &inventory.places {
            let pack = &mut inventory.packs[place.pack as usize];
            pack.expected += u64::from(place.length) + place.blob().entry();
        }
        inventory
    }
}

/// The id of a pack by its name below `data/`.
fn pack_id(name: &str) -> Option<Id> {
    let (folder, id) = name.split_once('/')?;
    id.parse().ok().filter(|_| id.starts_with(folder) && folder.len() == 2)
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::index::IndexedPack;

    pub(crate) fn id(n: u32) -> Id {
        Id::of(&n.to_le_bytes())
    }

    /// A blob of 100 bytes of plaintext, stored as it is.
    pub(crate) fn blob(kind: BlobKind, n: u32, at: u32) -> PackedBlob {
        PackedBlob { kind, id: id(n), offset: at * 132, length: 132, uncompressed: None }
    }

    /// One index file for each list of packs; each pack a number and the numbers of its data blobs.
    pub(crate) fn inventory(indexes: &[&[(u32, &[u32])]], listed: &[(u32, u64)]) -> Inventory {
        let mut loading = Loading::default();
        for (number, packs) in (1000..).zip(indexes) {
            let pack = |(pack, blobs): &(u32, &[u32])| {
                let blobs = (0..).zip(*blobs).map(|(at, n)| blob(BlobKind::Data, *n, at).into()).collect();
                IndexedPack { id: id(*pack), blobs }
            };
            loading.add(id(number), IndexFile { packs: packs.iter().map(pack).collect() }).unwrap();
        }
        let name = |pack: u32| pack_path(&id(pack)).strip_prefix("data/").unwrap().to_owned();
        loading.finish(listed.iter().map(|(pack, size)| (name(*pack), *size)).collect())
    }

    /// Bytes of a pack of so many blobs.
    pub(crate) fn pack_size(blobs: u64) -> u64 {
        blobs * (132 + 37) + 36
    }

    #[test]
    fn every_place_of_a_blob_is_found_and_the_same_place_counts_once() {
        let inventory = inventory(&[&[(1, &[7, 8]), (2, &[8])], &[(1, &[7, 8])]], &[]);
        assert_eq!(inventory.places.len(), 3);
        let positions = inventory.positions(BlobKind::Data, &id(8));
        assert_eq!(positions.len(), 2);
        assert!(positions.clone().all(|position| inventory.same_blob(position) == positions));
        assert!(inventory.positions(BlobKind::Tree, &id(8)).is_empty());
        assert!(inventory.positions(BlobKind::Data, &id(9)).is_empty());
        let by_pack = inventory.by_pack();
        let first: Vec<_> = by_pack.of(0).map(|position| inventory.places[position].id).collect();
        assert_eq!(first, [id(7), id(8)]);
    }

    #[test]
    fn sizes_and_strangers_come_from_the_listing() {
        let whole = pack_size(2);
        let inventory = inventory(&[&[(1, &[7, 8]), (2, &[9, 10]), (3, &[11])]], &[(1, whole), (2, 140), (9, 5)]);
        assert_eq!((inventory.packs[0].size, inventory.packs[0].expected), (Some(whole), whole));
        assert_eq!(inventory.packs[2].size, None);
        assert_eq!(inventory.unreferenced, [(id(9), 5)]);
        let out_of_reach: Vec<_> = inventory.out_of_reach().ones().map(|at| inventory.places[at].id).collect();
        assert_eq!(out_of_reach.len(), 2);
        assert!(out_of_reach.contains(&id(10)) && out_of_reach.contains(&id(11)));
    }

    #[test]
    fn a_place_takes_52_bytes() {
        assert_eq!(size_of::<Place>(), 52);
    }

    #[test]
    fn names_of_packs_lie_in_the_folder_of_their_first_digits() {
        let name = id(1).to_string();
        assert_eq!(pack_id(&format!("{}/{name}", &name[..2])), Some(id(1)));
        for other in [name.clone(), format!("zz/{name}"), format!("{}/{name}-tmp-1", &name[..2]), "x".into()] {
            assert_eq!(pack_id(&other), None, "{other}");
        }
    }
}
