//! Lists what a volume backup holds, one directory after the other.
//!
//! Entries are handed out as they are read, so that a list of a million files takes the memory of one directory and of
//! the directories still to come.

use std::path::{Path, PathBuf};

use stillpoint_repository::{Error, Node, Reader};

use crate::selection::{Selected, Selection};

/// How far a list goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Depth {
    /// What is directly inside.
    Inside,
    /// Everything below.
    All,
}

/// Hands every entry with its path to `take`, directories before what is in them; a selected file is its only entry.
///
/// # Errors
/// Those of reading a tree, and the first of `take`.
pub async fn list<E: From<Error>>(
    reader: &Reader,
    selection: &Selection,
    depth: Depth,
    mut take: impl FnMut(&Path, &Node) -> Result<(), E>,
) -> Result<(), E> {
    let Some(tree) = selection.tree() else {
        return match &selection.what {
            Selected::Node(node) => take(&selection.path, node),
            Selected::Root(_) => Ok(()),
        };
    };
    let mut pending = vec![(selection.path.clone(), tree)];
    while let Some((path, tree)) = pending.pop() {
        let tree = reader.tree(&tree).await?;
        let below = pending.len();
        for node in tree.nodes() {
            let path: PathBuf = path.join(&node.name);
            take(&path, node)?;
            if let (Depth::All, Some(subtree)) = (depth, node.subtree) {
                pending.push((path, subtree));
            }
        }
        // the last is taken first
        pending[below..].reverse();
    }
    Ok(())
}
