//! A directory that is being backed up, stored by whoever finishes the last of what is in it.
//!
//! Counting what is open instead of waiting for it lets a few threads work on any number of directories, and needs no
//! recursion however deep they are.

use std::{
    path::PathBuf,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
};

use stillpoint_repository::{Node, Tree};

use super::engine::Engine;
use crate::lock;

/// A directory whose entries are on their way.
pub(super) struct OpenDirectory {
    pub(super) path: PathBuf,
    /// Its own metadata, and where it belongs; the root of all belongs nowhere.
    place: Option<(Arc<OpenDirectory>, Node)>,
    entries: Mutex<Vec<Node>>,
    /// Entries under way, and one for the walk itself.
    open: AtomicUsize,
}

impl OpenDirectory {
    /// The root, which the walk closes.
    pub(super) fn root() -> Arc<Self> {
        Arc::new(Self { path: PathBuf::from("/"), place: None, entries: Mutex::default(), open: AtomicUsize::new(1) })
    }

    /// A directory below, with its own metadata. The walk closes it.
    pub(super) fn below(self: &Arc<Self>, path: PathBuf, node: Node) -> Arc<Self> {
        self.open.fetch_add(1, Ordering::Relaxed);
        let place = Some((self.clone(), node));
        Arc::new(Self { path, place, entries: Mutex::default(), open: AtomicUsize::new(1) })
    }

    /// Announces an entry that will be closed later.
    pub(super) fn expect(&self) {
        self.open.fetch_add(1, Ordering::Relaxed);
    }

    /// Adds an entry that is complete.
    pub(super) fn add(&self, node: Node) {
        lock(&self.entries).push(node);
    }

    /// Says that the walk, or one expected entry, is done. Whoever is last stores the directory, and those above whose
    /// last entry it was.
    pub(super) fn close(self: Arc<Self>, engine: &Engine) {
        let mut directory = self;
        while directory.open.fetch_sub(1, Ordering::AcqRel) == 1 && !engine.is_stopped() {
            let entries = std::mem::take(&mut *lock(&directory.entries));
            let tree = match Tree::new(entries).and_then(|tree| engine.writer.tree(&tree)) {
                Ok(tree) => tree,
                Err(error) => return engine.fail(error),
            };
            let Some((parent, node)) = &directory.place else { return engine.finish(tree) };
            parent.add(Node { subtree: Some(tree), ..node.clone() });
            directory = parent.clone();
        }
    }
}
