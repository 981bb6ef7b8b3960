//! Copies blobs that stay out of packs that go.
//!
//! Every blob is decrypted and compared with its id on its way, and taken over as it was sealed: nothing is compressed
//! or encrypted again. One that is damaged is taken from wherever else it lies.

use std::ops::Range;

use bytes::Bytes;
use futures::{StreamExt, TryStreamExt, stream};
use tokio::task::JoinSet;

use super::{Tally, plan::Plan};
use crate::{
    Error, Id,
    files::Files,
    index::NewPacks,
    inventory::{self, Inventory},
    pack::{self, BlobKind, PackBuilder, PackedBlob, SealedBlob},
    requests::{self, Limits, Requests},
    upload::pack_path,
};

const LIMITS: Limits = Limits { span: 8 << 20, plain: 32 << 20, gap: 256 << 10 };
/// Requests that run ahead.
const AHEAD: usize = 3;
/// Packs on their way at the same time.
const UPLOADS: usize = 2;

/// What copying came to.
#[derive(Default)]
pub(super) struct Copied {
    pub(super) packs: NewPacks,
    pub(super) written: Tally,
    pub(super) rescued: u64,
}

/// Writes new packs of all blobs that the plan copies, and looks whether its witnesses are sound.
///
/// # Errors
/// [`Error::NeedsUnknown`] for a blob that is damaged wherever it lies.
pub(super) async fn copy(
    files: &Files,
    inventory: &Inventory,
    plan: &Plan,
    mut progress: impl FnMut(u64),
) -> Result<Copied, Error> {
    let wanted = plan.copies.union(&plan.witnesses);
    let mut positions: Vec<u32> = wanted.filter_map(|position| u32::try_from(position).ok()).collect();
    requests::sort(inventory, &mut positions);
    let mut packing = Packing::new(files);
    let requests = Requests { inventory, limits: LIMITS, apart: &plan.bad, rest: &positions };
    let mut reads = stream::iter(requests.map(|request| read(files, inventory, request))).buffered(AHEAD);
    let mut done = 0;
    while let Some(found) = reads.try_next().await? {
        for (position, sealed) in found {
            done += 1;
            let sealed = match sealed {
                Ok(_) if !plan.copies.contains(position) => continue,
                Ok(sealed) => sealed,
                Err(reason) => {
                    packing.copied.rescued += 1;
                    rescue(files, inventory, position, reason).await?
                }
            };
            packing.add(&inventory.places[position].blob(), &sealed).await?;
        }
        progress(done);
    }
    drop(reads);
    packing.finish().await
}

/// A blob's bytes as they are sealed, once they were opened, or why they cannot be.
type Found = Vec<(usize, Result<Bytes, String>)>;

/// Reads and checks blobs that lie together in one pack.
async fn read(files: &Files, inventory: &Inventory, request: Vec<u32>) -> Result<Found, Error> {
    let positions = request.into_iter().map(|position| position as usize);
    let blobs: Vec<_> = positions.map(|position| (position, inventory.places[position].blob())).collect();
    let range = range(&blobs);
    let path = inventory.pack_of(blobs[0].0).path();
    let sealed = match files.store.get_range(&path, range.clone()).await {
        Ok(sealed) => sealed,
        Err(error) => {
            let reason = inventory::reason(error)?;
            return Ok(blobs.iter().map(|(position, _)| (*position, Err(reason.clone()))).collect());
        }
    };
    let cipher = files.cipher.clone();
    let open = move |(position, blob): (usize, PackedBlob)| {
        let from = usize::try_from(u64::from(blob.offset) - range.start).unwrap_or(usize::MAX);
        let bytes = sealed.slice(from..from + blob.length as usize);
        (position, pack::open_blob(&cipher, &blob, &bytes).map(|_| bytes))
    };
    Ok(tokio::task::spawn_blocking(move || blobs.into_iter().map(open).collect()).await?)
}

fn range(blobs: &[(usize, PackedBlob)]) -> Range<u64> {
    let start = blobs.iter().map(|(_, blob)| u64::from(blob.offset)).min().unwrap_or(0);
    start..blobs.iter().map(|(_, blob)| blob.end()).max().unwrap_or(0)
}

/// Reads a blob that is damaged in one place from another.
async fn rescue(files: &Files, inventory: &Inventory, position: usize, reason: String) -> Result<Bytes, Error> {
    let exists = |at: &usize| inventory.pack_of(*at).size.is_some();
    for other in inventory.same_blob(position).filter(|other| *other != position && exists(other)) {
        let Ok(alone) = u32::try_from(other) else { continue };
        if let [(_, Ok(sealed))] = &read(files, inventory, vec![alone]).await?[..] {
            return Ok(sealed.clone());
        }
    }
    let PackedBlob { kind, id, .. } = inventory.places[position].blob();
    let pack = inventory.pack_of(position).path();
    let reason = format!("{} blob {id} in pack {pack} is damaged: {reason}", kind.name());
    Err(Error::NeedsUnknown { store: files.store.to_string(), reason, others: 0 })
}

/// A pack that was stored, what is in it, and its size.
type Stored = Result<(Id, Vec<PackedBlob>, u64), Error>;

/// New packs being filled and stored.
struct Packing<'a> {
    files: &'a Files,
    data: PackBuilder,
    trees: PackBuilder,
    uploads: JoinSet<Stored>,
    copied: Copied,
}

impl<'a> Packing<'a> {
    fn new(files: &'a Files) -> Self {
        let (data, trees) = (PackBuilder::default(), PackBuilder::default());
        Self { files, data, trees, uploads: JoinSet::new(), copied: Copied::default() }
    }

    async fn add(&mut self, blob: &PackedBlob, sealed: &[u8]) -> Result<(), Error> {
        let builder = match blob.kind {
            BlobKind::Data => &mut self.data,
            BlobKind::Tree => &mut self.trees,
        };
        builder.add(&SealedBlob::copied(blob, sealed))?;
        if builder.is_full() {
            let full = std::mem::take(builder);
            self.upload(full).await?;
        }
        Ok(())
    }

    async fn upload(&mut self, builder: PackBuilder) -> Result<(), Error> {
        while self.uploads.len() >= UPLOADS {
            self.record().await?;
        }
        let files = self.files.clone();
        self.uploads.spawn(async move {
            let cipher = files.cipher.clone();
            let pack = tokio::task::spawn_blocking(move || builder.finish(&cipher)).await??;
            let size = pack.bytes.len() as u64;
            files.store.put(&pack_path(&pack.id), pack.bytes.into()).await?;
            Ok((pack.id, pack.blobs, size))
        });
        Ok(())
    }

    async fn record(&mut self) -> Result<(), Error> {
        if let Some(stored) = self.uploads.join_next().await {
            let (id, blobs, size) = stored??;
            self.copied.packs.add(id, blobs);
            self.copied.written.add(size);
        }
        Ok(())
    }

    async fn finish(mut self) -> Result<Copied, Error> {
        for builder in [std::mem::take(&mut self.data), std::mem::take(&mut self.trees)] {
            if !builder.is_empty() {
                self.upload(builder).await?;
            }
        }
        while !self.uploads.is_empty() {
            self.record().await?;
        }
        Ok(self.copied)
    }
}
