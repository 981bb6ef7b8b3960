//! Keeps trees readable without the store: those that a writer stores, or those of an earlier copy.
//!
//! Whoever copies a volume compares it with what was copied before while the volume's writers stand still, when nothing
//! may wait for a network. They are sealed like everything that leaves memory.

use std::{
    collections::{HashMap, HashSet},
    fmt,
    path::Path,
    sync::{Arc, Mutex, PoisonError},
};

use futures::TryStreamExt;

use crate::{
    Error, Id, Reader, SealedBlobs,
    crypto::Cipher,
    encoding::Compression,
    pack::{self, BlobKind, PackedBlob, SealedBlob},
    scratch::{Scratch, Slot},
    tree::Tree,
};

/// Bytes of trees in memory; a tree of a thousand files takes about 60 KiB.
const MEMORY: usize = 32 << 20;

/// Trees by their ids.
pub struct LocalTrees {
    cipher: Cipher,
    kept: Mutex<Kept>,
}

struct Kept {
    scratch: Scratch,
    slots: HashMap<Id, (Slot, Option<u32>)>,
}

impl fmt::Debug for LocalTrees {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LocalTrees").finish_non_exhaustive()
    }
}

impl LocalTrees {
    pub(crate) fn new(cipher: Cipher, folder: &Path) -> Self {
        let kept = Kept { scratch: Scratch::new(folder, MEMORY), slots: HashMap::new() };
        Self { cipher, kept: Mutex::new(kept) }
    }

    pub(crate) fn put(&self, id: Id, json: &[u8]) -> Result<(), Error> {
        let mut sealed = Vec::new();
        let blob = SealedBlob::new(&self.cipher, Compression::default(), (BlobKind::Tree, id), json, &mut sealed)?;
        let uncompressed = blob.uncompressed();
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        if !kept.slots.contains_key(&id) {
            sealed.shrink_to_fit();
            let slot = kept.scratch.put(sealed)?;
            kept.slots.insert(id, (slot, uncompressed));
        }
        Ok(())
    }

    /// Fetches a tree and all below it. One that is damaged is not kept, and so nothing that only it names.
    ///
    /// # Errors
    /// The store gives no answer, or the trees cannot be set aside.
    pub async fn fetch(self: &Arc<Self>, reader: &Reader, root: Id) -> Result<(), Error> {
        let (mut level, mut known) = (vec![root], HashSet::from([root]));
        while !level.is_empty() {
            let (mut sealed, mut below) = (reader.sealed_trees(level), Vec::new());
            while let Some(sealed) = sealed.try_next().await? {
                let trees = self.clone();
                below.extend(tokio::task::spawn_blocking(move || trees.put_all(&sealed)).await??);
            }
            below.retain(|tree| known.insert(*tree));
            level = below;
        }
        Ok(())
    }

    /// Keeps trees, and gives those below them.
    fn put_all(&self, sealed: &SealedBlobs) -> Result<Vec<Id>, Error> {
        let (mut below, mut put) = (Vec::new(), Ok(()));
        sealed.open_each(|id, json| {
            let Some(json) = json.filter(|_| put.is_ok()) else { return };
            let Ok(tree) = Tree::from_json(&json) else { return };
            below.extend(tree.nodes().iter().filter_map(|node| node.subtree));
            put = self.put(id, &json);
        });
        put.map(|()| below)
    }

    /// Reads a tree; none where it was not kept.
    ///
    /// # Errors
    /// [`Error::Damaged`] or [`Error::NotSetAside`] if it cannot be read back.
    pub fn tree(&self, id: &Id) -> Result<Option<Tree>, Error> {
        let kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        let Some((slot, uncompressed)) = kept.slots.get(id) else { return Ok(None) };
        let (sealed, uncompressed) = (kept.scratch.get(slot)?, *uncompressed);
        drop(kept);
        let damaged = |reason| Error::damaged(format!("tree {id}, which was kept here"), reason);
        let blob = PackedBlob { kind: BlobKind::Tree, id: *id, offset: 0, length: 0, uncompressed };
        let json = pack::open_blob(&self.cipher, &blob, &sealed).map_err(damaged)?;
        Tree::from_json(&json).map(Some).map_err(|reason| Error::damaged(format!("tree {id}"), reason))
    }
}
