//! What an earlier snapshot of the same directories spares from being read.
//!
//! A file is taken as unchanged by inode, size and both times. That is right only where its last change is well before
//! the parent began: a stamp has the grain of the file system's clock, so a file that was written, read and written
//! again within one grain looks the same. And it is right only where no write was under way: a store to a mapped page
//! leaves no trace until the page was written back, so times are trusted fully only if a drain came after them.

use std::{cell::OnceCell, collections::HashMap, sync::Arc};

use jiff::{SignedDuration, Timestamp};
use rustix::fs::{Statx, StatxFlags};
use stillpoint_repository::{BlockingWriter, Error, Id, LocalTrees, Node, NodeKind, Reader, Tree};
use tokio::runtime::Handle;

use super::{node, stats::Stats};

/// The coarsest clock of a file system that is in use: FAT's.
pub(super) const GRAIN: SignedDuration = SignedDuration::from_secs(2);

/// Where a parent's trees are read.
pub(super) enum Trees {
    /// In the repository. Made on the runtime.
    Repository(Box<Reader>, Handle),
    /// On this machine, without the store.
    Local(Arc<LocalTrees>),
}

impl Trees {
    fn tree(&self, id: &Id) -> Result<Option<Tree>, Error> {
        match self {
            Self::Repository(reader, runtime) => runtime.block_on(reader.tree(id)).map(Some),
            Self::Local(trees) => trees.tree(id),
        }
    }
}

/// Which files of a parent are as they were.
pub(super) enum Trust {
    /// Those that look as the parent has them, and did so well before this time.
    Before(Timestamp),
    /// Those that look as they did in this walk, after which their writes were drained, before the parent read them.
    Drained(Arc<Stats>),
}

/// An earlier tree of the same directories. Its methods block: they are for the walking thread.
pub(super) struct Parent {
    trees: Trees,
    tree: Id,
    time: Timestamp,
    trust: Trust,
    /// Trees of all its directories by inode, looked up once a directory turns out to have moved.
    by_inode: OnceCell<HashMap<u64, Id>>,
}

impl Parent {
    /// A tree that was stored at `time`.
    pub(super) fn new(trees: Trees, tree: Id, time: Timestamp, trust: Trust) -> Self {
        Self { trees, tree, time, trust, by_inode: OnceCell::new() }
    }

    /// Its root.
    pub(super) fn root(&self) -> Option<Tree> {
        self.load(&self.tree)
    }

    /// What it has of a directory: under the name where it has it now, or wherever it was before it moved. Nothing where
    /// that is damaged, since reading the files anew is always right.
    pub(super) fn directory(&self, entry: Option<&Node>, stat: &Statx) -> Option<Tree> {
        let stayed = entry.filter(|entry| entry.inode == stat.stx_ino);
        let moved = || self.was_there(stat).then(|| self.by_inode().get(&stat.stx_ino))?;
        let tree = stayed.and_then(|entry| entry.subtree.as_ref()).or_else(moved);
        self.load(tree.or_else(|| entry?.subtree.as_ref())?)
    }

    /// Whether a directory is older than the parent, which is what tells a moved one from a new one.
    fn was_there(&self, stat: &Statx) -> bool {
        let says_birth = StatxFlags::from_bits_retain(stat.stx_mask).contains(StatxFlags::BTIME);
        says_birth && node::time(&stat.stx_btime).is_some_and(|born| born < self.time)
    }

    fn by_inode(&self) -> &HashMap<u64, Id> {
        self.by_inode.get_or_init(|| {
            let mut found = HashMap::new();
            let mut trees = vec![self.tree];
            while let Some(id) = trees.pop() {
                let Some(tree) = self.load(&id) else { continue };
                for node in tree.nodes() {
                    if let Some(subtree) = node.subtree
                        && found.insert(node.inode, subtree).is_none()
                    {
                        trees.push(subtree);
                    }
                }
            }
            found
        })
    }

    fn load(&self, tree: &Id) -> Option<Tree> {
        let loaded = self.trees.tree(tree);
        loaded.inspect_err(|error| tracing::warn!(%error, "the parent cannot be read; its files are read anew")).ok()?
    }

    /// Whether a file is as the parent has it, and all of it is stored.
    pub(super) fn is_unchanged(&self, old: &Node, stat: &Statx, writer: &BlockingWriter) -> bool {
        old.kind == NodeKind::File
            && node::kind(stat) == NodeKind::File
            && old.inode == stat.stx_ino
            && self.trusts(old, stat)
            && old.content.as_ref().is_some_and(|content| content.iter().all(|piece| writer.holds(piece)))
    }

    fn trusts(&self, old: &Node, stat: &Statx) -> bool {
        match &self.trust {
            Trust::Before(time) => {
                let trusted_before = *time - GRAIN;
                old.size == stat.stx_size
                    && node::time(&stat.stx_mtime) == Some(old.mtime)
                    && node::time(&stat.stx_ctime) == Some(old.ctime)
                    && old.ctime < trusted_before
                    && old.mtime < trusted_before
            }
            Trust::Drained(stats) => stats.has(stat),
        }
    }
}
