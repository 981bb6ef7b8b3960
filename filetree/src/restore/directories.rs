//! Opens directories of the target, step by step from its root, and keeps some open.
//!
//! A path is never handed to the system: each step goes from an open directory to one name in it and follows no link,
//! so whatever a backup holds or somebody moves meanwhile, nothing is written outside the target.

use std::{
    io,
    num::NonZeroUsize,
    os::fd::OwnedFd,
    sync::{Arc, Mutex, PoisonError},
};

use lru::LruCache;
use rustix::fs::{Mode, OFlags, openat};

use super::entries::{Entries, Number, ROOT};

/// Directories and files that stay open, each.
pub(super) const OPEN: NonZeroUsize = NonZeroUsize::new(128).expect("not zero");

/// How every directory is opened.
const DIRECTORY: OFlags = OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);

/// The directories of a restore.
pub(super) struct Directories {
    root: Arc<OwnedFd>,
    open: Mutex<LruCache<Number, Arc<OwnedFd>>>,
}

impl Directories {
    pub(super) fn new(root: OwnedFd) -> Self {
        Self { root: Arc::new(root), open: Mutex::new(LruCache::new(OPEN)) }
    }

    /// The target itself.
    pub(super) fn root(&self) -> &OwnedFd {
        &self.root
    }

    /// Opens the directory of this number. Without recursion: a tree may be deeper than a stack.
    pub(super) fn open(&self, entries: &Entries, number: Number) -> io::Result<Arc<OwnedFd>> {
        let mut steps = Vec::new();
        let mut at = number;
        let mut directory = loop {
            if let Some(open) = self.kept(at) {
                break open;
            }
            steps.push(at);
            at = entries.get(at).parent;
        };
        for step in steps.into_iter().rev() {
            let opened = openat(&*directory, entries.name(entries.get(step)), DIRECTORY, Mode::empty())?;
            directory = Arc::new(opened);
            self.kept_open().put(step, directory.clone());
        }
        Ok(directory)
    }

    fn kept(&self, number: Number) -> Option<Arc<OwnedFd>> {
        if number == ROOT {
            return Some(self.root.clone());
        }
        self.kept_open().get(&number).cloned()
    }

    fn kept_open(&self) -> std::sync::MutexGuard<'_, LruCache<Number, Arc<OwnedFd>>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
