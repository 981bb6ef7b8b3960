//! Compaction: old versions are forgotten, on request or when the history outgrows its bounds.
//!
//! It goes in small steps with the lock released in between, because a long history must not stop the readers.

use super::{Inner, Limits, Store};

/// A compaction named a revision above the newest, which is given.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct FutureRevision {
    pub(crate) current: u64,
}

/// Changes forgotten under one hold of the lock.
const STEP: u64 = 1024;

impl Store {
    /// Forgets what only revisions below `revision` need; reads there are refused from now on.
    pub(crate) fn compact(&self, revision: u64) -> Result<(), FutureRevision> {
        {
            let mut inner = self.write();
            if revision > inner.revision {
                return Err(FutureRevision { current: inner.revision });
            }
            inner.compacted = inner.compacted.max(revision);
        }
        while self.write().trim(STEP) {}
        Ok(())
    }
}

impl Inner {
    /// Forgets up to `steps` compacted changes; true if more wait.
    fn trim(&mut self, steps: u64) -> bool {
        for _ in 0..steps {
            if self.trimmed >= self.compacted {
                return false;
            }
            self.forget_oldest();
        }
        self.trimmed < self.compacted
    }

    pub(super) fn trim_to_limits(&mut self, limits: &Limits) {
        while self.revision - self.trimmed > limits.history_revisions || self.history_bytes > limits.history_bytes {
            if self.trimmed + 1 >= self.revision {
                return;
            }
            self.compacted = self.compacted.max(self.trimmed + 1);
            self.forget_oldest();
        }
    }

    fn forget_oldest(&mut self) {
        let Some(table) = self.written.pop_front() else { return };
        self.trimmed += 1;
        if let Some(table) = self.tables.get_mut(&table) {
            self.history_bytes = self.history_bytes.saturating_sub(table.forget_oldest());
        }
    }
}
