//! Looks up what a directory names, and finds what is wrong with it.
//!
//! Apart from the reading, because nothing here waits: it runs where the directory was decrypted.

use std::cmp::Ordering;

use super::Walk;
use crate::{
    Id,
    lean::{LeanNode, LeanTree},
    pack::BlobKind,
    tree::{self, NodeKind},
};

/// What is wrong with one node of a directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum NodeFault {
    /// It needs a blob that no index names.
    Missing(BlobKind, Id),
    /// It needs the blob at this position, which cannot be read anywhere.
    Lost(usize),
    /// It says another size than its blobs have.
    Size { said: u64, found: u64 },
    /// It contradicts itself or its neighbours.
    Shape(&'static str),
}

/// A directory that was read.
#[derive(Debug, Default)]
pub(crate) struct View {
    /// First positions of the directories in it.
    pub(crate) subtrees: Vec<u32>,
    /// First positions of the blobs of its files.
    pub(crate) content: Vec<u32>,
    pub(crate) files: u64,
    /// What is wrong, with the node's name.
    pub(crate) faults: Vec<(String, NodeFault)>,
}

impl Walk {
    pub(super) fn view(&self, directory: &LeanTree) -> View {
        let mut view = View::default();
        let mut before: Option<&LeanNode> = None;
        for node in &directory.nodes {
            let mut fault = |fault| view.faults.push((node.name.to_string_lossy().into_owned(), fault));
            match before.map(|before| before.name.cmp(&node.name)) {
                Some(Ordering::Equal) => fault(NodeFault::Shape("its name occurs twice")),
                Some(Ordering::Greater) => fault(NodeFault::Shape("it stands behind a later name")),
                _ => {}
            }
            if !tree::is_safe(&node.name) {
                fault(NodeFault::Shape("this is no name for a file"));
            }
            self.look_up(node, &mut view);
            before = Some(node);
        }
        view
    }

    fn look_up(&self, node: &LeanNode, view: &mut View) {
        let name = || node.name.to_string_lossy().into_owned();
        let mut fault = |fault| view.faults.push((name(), fault));
        match (node.kind, &node.content, &node.subtree) {
            (NodeKind::Dir, _, None) => fault(NodeFault::Shape("a directory without a tree")),
            (NodeKind::File, None, _) => fault(NodeFault::Shape("a file without a list of blobs")),
            _ => {}
        }
        if let Some(id) = &node.subtree {
            match self.find(BlobKind::Tree, id) {
                Ok(tree) => view.subtrees.push(tree),
                Err(missing) => fault(missing),
            }
        }
        view.files += u64::from(node.kind == NodeKind::File);
        let mut found = Some(0u64);
        for id in node.content.iter().flatten() {
            match self.find(BlobKind::Data, id) {
                Err(missing) => {
                    fault(missing);
                    found = None;
                }
                Ok(first) => {
                    view.content.push(first);
                    found = found.map(|found| found + self.inventory.places[first as usize].plain());
                    if self.inventory.same_blob(first as usize).all(|position| self.bad.contains(position)) {
                        fault(NodeFault::Lost(first as usize));
                    }
                }
            }
        }
        if let (NodeKind::File, Some(found)) = (node.kind, found)
            && found != node.size
        {
            fault(NodeFault::Size { said: node.size, found });
        }
    }

    fn find(&self, kind: BlobKind, id: &Id) -> Result<u32, NodeFault> {
        let positions = self.inventory.positions(kind, id);
        if positions.is_empty() {
            return Err(NodeFault::Missing(kind, *id));
        }
        u32::try_from(positions.start).map_err(|_| NodeFault::Missing(kind, *id))
    }
}
