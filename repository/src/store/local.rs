//! A repository in a folder of this machine.
//!
//! A put is durable before it is reported: the library writes beside the target, syncs, renames and syncs the folder.
//! What it leaves to us is done here: the folders that restic expects, removals that last, and a limited speed, which
//! a folder on a network file system may need too.

use std::{
    fs::{DirBuilder, File},
    io,
    path::Path as FilePath,
};

use bytes::{Bytes, BytesMut};
use futures::TryStreamExt;
use object_store::{GetResult, ObjectStore, ObjectStoreExt, Result, path::Path};

use super::pace::{Pace, Progress};

/// Makes the folders of restic's local layout, readable by their owner only, so that they survive a power failure.
pub(super) fn create_folders(root: &FilePath) -> io::Result<()> {
    use std::os::unix::fs::DirBuilderExt;
    let mut builder = DirBuilder::new();
    builder.recursive(true).mode(0o700);
    let existing = root.ancestors().find(|folder| folder.exists()).unwrap_or(root).to_owned();
    let packs = (0..=u8::MAX).map(|first| format!("data/{first:02x}"));
    let others = ["index", "keys", "locks", "snapshots"].map(String::from);
    packs.chain(others).try_for_each(|folder| builder.create(root.join(folder)))?;
    sync(&root.join("data"))?;
    root.ancestors().take_while(|folder| folder.starts_with(&existing)).try_for_each(sync)
}

/// Makes what was done to the names in a folder durable.
pub(super) fn sync(folder: &FilePath) -> io::Result<()> {
    File::open(folder)?.sync_all()
}

/// Writes a file piece by piece; it appears when it is whole, and one that is given up leaves nothing.
pub(super) async fn put(
    objects: &dyn ObjectStore,
    location: &Path,
    mut content: Bytes,
    pace: &Pace,
    progress: &Progress,
) -> Result<()> {
    let mut upload = objects.put_multipart(location).await?;
    while !content.is_empty() {
        let piece = content.split_to(content.len().min(pace.piece()));
        pace.wait(piece.len()).await;
        progress.add(piece.len());
        upload.put_part(piece.into()).await?;
    }
    upload.complete().await.map(drop)
}

/// Reads what was found piece by piece.
pub(super) async fn read(found: GetResult, pace: &Pace, progress: &Progress) -> Result<Bytes> {
    let mut content = BytesMut::new();
    let mut pieces = found.into_stream();
    while let Some(piece) = pieces.try_next().await? {
        pace.wait(piece.len()).await;
        progress.add(piece.len());
        content.extend_from_slice(&piece);
    }
    Ok(content.freeze())
}
