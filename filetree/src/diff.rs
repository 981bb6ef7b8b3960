//! Compares two volume backups.
//!
//! A tree's id is the hash of everything below it, so directories of equal ids are passed over unread: the work grows
//! with what changed and with the way to it, not with the volume.

use std::{
    cmp::Ordering,
    path::{Path, PathBuf},
};

use serde::{Serialize, Serializer};
use stillpoint_repository::{Error, Id, Node, NodeKind, Reader, Tree};

use crate::selection::{Selected, Selection};

/// What is not the same in two backups.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Difference {
    /// Where, from the selected directory.
    #[serde(serialize_with = "lossy")]
    pub path: PathBuf,
    /// What changed.
    pub change: Change,
    /// Bytes of a file before.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub old_size: Option<u64>,
    /// Bytes of a file after.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub new_size: Option<u64>,
}

/// How something changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum Change {
    /// Only the newer backup has it.
    Added,
    /// Only the older backup has it.
    Removed,
    /// It is of another type now.
    Type,
    /// A file's content, a link's target or a device's number.
    Content,
    /// Owner, permissions, times, extended attributes.
    Metadata,
}

fn lossy<S: Serializer>(path: &Path, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(&path.to_string_lossy())
}

/// Everything that differs, by directory; what is added or removed is named with all that is in it.
///
/// # Errors
/// Those of reading a tree.
pub async fn diff(reader: &Reader, old: &Selection, new: &Selection) -> Result<Vec<Difference>, Error> {
    let mut differ = Differ { differences: Vec::new(), pending: Vec::new() };
    match (&old.what, &new.what) {
        (Selected::Node(old), Selected::Node(new)) => differ.compare(PathBuf::from("."), Some(old), Some(new)),
        _ => differ.descend(PathBuf::new(), old.tree(), new.tree()),
    }
    while let Some(Pending { path, old, new }) = differ.pending.pop() {
        let (old, new) = (read(reader, old).await?, read(reader, new).await?);
        differ.merge(&path, &old, &new);
    }
    differ.differences.sort_by(|a, b| a.path.cmp(&b.path));
    Ok(differ.differences)
}

async fn read(reader: &Reader, tree: Option<Id>) -> Result<Tree, Error> {
    match tree {
        Some(id) => reader.tree(&id).await,
        None => Ok(Tree::default()),
    }
}

struct Differ {
    differences: Vec<Difference>,
    pending: Vec<Pending>,
}

/// Directories still to be compared; one that is absent is empty.
struct Pending {
    path: PathBuf,
    old: Option<Id>,
    new: Option<Id>,
}

impl Differ {
    /// Compares two sorted directories name by name.
    fn merge(&mut self, path: &Path, old: &Tree, new: &Tree) {
        let (mut old, mut new) = (old.nodes().iter().peekable(), new.nodes().iter().peekable());
        loop {
            let order = match (old.peek(), new.peek()) {
                (None, None) => return,
                (Some(_), None) => Ordering::Less,
                (None, Some(_)) => Ordering::Greater,
                (Some(old), Some(new)) => old.name.cmp(&new.name),
            };
            let older = if order == Ordering::Greater { None } else { old.next() };
            let newer = if order == Ordering::Less { None } else { new.next() };
            if let Some(node) = older.or(newer) {
                self.compare(path.join(&node.name), older, newer);
            }
        }
    }

    fn compare(&mut self, path: PathBuf, old: Option<&Node>, new: Option<&Node>) {
        if let Some(change) = change(old, new) {
            let size = |node: Option<&Node>| node.filter(|node| node.kind == NodeKind::File).map(|node| node.size);
            let (old_size, new_size) = (size(old), size(new));
            self.differences.push(Difference { path: path.clone(), change, old_size, new_size });
        }
        let subtree = |node: Option<&Node>| node.and_then(|node| node.subtree);
        self.descend(if path == Path::new(".") { PathBuf::new() } else { path }, subtree(old), subtree(new));
    }

    fn descend(&mut self, path: PathBuf, old: Option<Id>, new: Option<Id>) {
        if old != new {
            self.pending.push(Pending { path, old, new });
        }
    }
}

/// How a node changed; times of access and of the inode, and its number, say nothing about what it is.
fn change(old: Option<&Node>, new: Option<&Node>) -> Option<Change> {
    let (old, new) = match (old, new) {
        (None, None) => return None,
        (None, Some(_)) => return Some(Change::Added),
        (Some(_), None) => return Some(Change::Removed),
        (Some(old), Some(new)) => (old, new),
    };
    let content = |node: &Node| {
        let target = node.linktarget_raw.clone().unwrap_or_else(|| node.linktarget.clone());
        (node.content.clone().unwrap_or_default(), target, node.device)
    };
    let owner = |node: &Node| (node.mode, node.uid, node.gid, node.mtime);
    if old.kind != new.kind {
        Some(Change::Type)
    } else if content(old) != content(new) {
        Some(Change::Content)
    } else if owner(old) != owner(new) || old.extended_attributes != new.extended_attributes {
        Some(Change::Metadata)
    } else {
        None
    }
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;
    use stillpoint_repository::FileContent;

    use super::*;

    fn file(name: &str, blob: u8) -> Node {
        Node::file(name, FileContent { blobs: vec![Id([blob; 32])], size: u64::from(blob) }, Timestamp::UNIX_EPOCH)
    }

    fn changes(old: Vec<Node>, new: Vec<Node>) -> Vec<(String, Change)> {
        let mut differ = Differ { differences: Vec::new(), pending: Vec::new() };
        differ.merge(Path::new(""), &Tree::new(old).unwrap(), &Tree::new(new).unwrap());
        let named = |difference: Difference| (difference.path.to_str().unwrap().to_owned(), difference.change);
        differ.differences.into_iter().map(named).collect()
    }

    #[test]
    fn every_kind_of_change_is_told_from_the_others() {
        let accessed = Node { atime: Timestamp::now(), inode: 7, ..file("same", 1) };
        let old = vec![file("content", 1), file("gone", 1), file("mode", 1), file("same", 1), file("type", 1)];
        let new = vec![
            file("content", 2),
            Node { mode: 0o644, ..file("mode", 1) },
            file("new", 1),
            accessed,
            Node::dir("type", Id([9; 32]), Timestamp::UNIX_EPOCH),
        ];
        let named = |name: &str, change| (name.to_owned(), change);
        assert_eq!(
            changes(old, new),
            [
                named("content", Change::Content),
                named("gone", Change::Removed),
                named("mode", Change::Metadata),
                named("new", Change::Added),
                named("type", Change::Type),
            ]
        );
    }

    #[test]
    fn directories_of_equal_ids_are_not_read() {
        let mut differ = Differ { differences: Vec::new(), pending: Vec::new() };
        let dir = |id: u8| Tree::new(vec![Node::dir("d", Id([id; 32]), Timestamp::UNIX_EPOCH)]).unwrap();
        differ.merge(Path::new(""), &dir(1), &dir(1));
        assert!(differ.pending.is_empty());
        differ.merge(Path::new(""), &dir(1), &dir(2));
        assert_eq!(differ.pending.len(), 1);
    }
}
