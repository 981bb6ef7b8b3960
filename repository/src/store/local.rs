//! A repository in a folder of this machine.
//!
//! A put is durable before it is reported: the library writes beside the target, syncs, renames and syncs the folder.
//! What it leaves to us is done here: the folders that restic expects, and removals.

use std::{
    fs::{DirBuilder, File},
    io,
    path::Path,
};

/// Makes the folders of restic's local layout, readable by their owner only, so that they survive a power failure.
pub(super) fn create_folders(root: &Path) -> io::Result<()> {
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
pub(super) fn sync(folder: &Path) -> io::Result<()> {
    File::open(folder)?.sync_all()
}
