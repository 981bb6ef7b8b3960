//! Every object of the cluster in memory, with its history: one revision counter for all types, as etcd has it.
//!
//! A table per type keeps the versions of each key in etcd's order, so that a list at an old revision is a range scan
//! under a read lock that clones pointers only. Values are computed outside the lock; a commit compares, counts up and
//! inserts. Watchers pull from a log that shares the versions with the history: nobody's slowness needs a queue.

mod history;
mod object;
mod table;

use std::{
    collections::{HashMap, VecDeque},
    sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard},
};

pub(crate) use history::FutureRevision;
pub(crate) use object::{Object, TypeMeta};
use table::Table;
pub(crate) use table::{Change, Found};
use tokio::sync::watch;

/// What bounds the store's memory.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Limits {
    pub(crate) history_revisions: u64,
    pub(crate) history_bytes: usize,
    pub(crate) live_bytes: usize,
}

/// What a write expects to find under its key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Expect {
    Absent,
    Revision(u64),
}

/// An object that must exist and must not be on its way out for a write to be accepted.
#[derive(Clone, Debug)]
pub(crate) struct Guard {
    pub(crate) table: Arc<str>,
    pub(crate) key: String,
}

/// One write: `next` is the new object, or `None` to remove it.
#[derive(Debug)]
pub(crate) struct Write {
    pub(crate) table: Arc<str>,
    pub(crate) key: String,
    pub(crate) expect: Expect,
    pub(crate) next: Option<Arc<Object>>,
    pub(crate) guards: Vec<Guard>,
}

/// Whether a write is kept, or only judged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mode {
    Commit,
    DryRun,
}

/// Why a write was not accepted.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum WriteError {
    Exists,
    Absent,
    Changed,
    GuardAbsent(String),
    GuardDeleting(String),
    Full,
}

/// Why a read or a compaction at a revision was refused.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum ReadError {
    Compacted { compacted: u64 },
    Future { current: u64 },
}

/// A range of keys: those that begin with `prefix` and sort after `after`.
#[derive(Clone, Debug, Default)]
pub(crate) struct Range {
    pub(crate) prefix: String,
    pub(crate) after: Option<String>,
}

/// What a range scan found.
#[derive(Debug)]
pub(crate) struct Page {
    /// The revision that was served.
    pub(crate) revision: u64,
    pub(crate) items: Vec<Found>,
    /// Whether objects in range, matching or not, may follow the last item.
    pub(crate) more: bool,
}

/// A batch of changes for a watcher, and the revision up to which nothing else happened.
#[derive(Debug)]
pub(crate) struct Changes {
    pub(crate) events: Vec<Change>,
    pub(crate) revision: u64,
}

/// The store.
#[derive(Debug)]
pub(crate) struct Store {
    inner: RwLock<Inner>,
    limits: Limits,
    revision: watch::Sender<u64>,
}

#[derive(Debug)]
struct Inner {
    revision: u64,
    compacted: u64,
    tables: HashMap<Arc<str>, Table>,
    /// The table written at each revision above `compacted`, oldest first: what compaction visits.
    written: VecDeque<Arc<str>>,
    /// The revision below the first of `written`.
    trimmed: u64,
    history_bytes: usize,
    live_bytes: usize,
}

impl Store {
    /// An empty store at revision 1.
    pub(crate) fn new(limits: Limits) -> Self {
        let inner = Inner {
            revision: 1,
            compacted: 1,
            tables: HashMap::new(),
            written: VecDeque::new(),
            trimmed: 1,
            history_bytes: 0,
            live_bytes: 0,
        };
        Self { inner: RwLock::new(inner), limits, revision: watch::Sender::new(1) }
    }

    /// The revision of the last write.
    pub(crate) fn revision(&self) -> u64 {
        self.read().revision
    }

    /// Changes whenever the revision does.
    pub(crate) fn subscribe(&self) -> watch::Receiver<u64> {
        self.revision.subscribe()
    }

    /// The newest version of an object.
    pub(crate) fn get(&self, table: &str, key: &str) -> Option<Found> {
        let inner = self.read();
        inner.tables.get(table)?.get(key)
    }

    /// Scans `range` at revision `at` (the newest if `None`) for up to `limit` objects that `keep` accepts.
    pub(crate) fn scan(
        &self,
        table: &str,
        range: &Range,
        at: Option<u64>,
        limit: usize,
        keep: impl Fn(&str, &Object) -> bool,
    ) -> Result<Page, ReadError> {
        let inner = self.read();
        let revision = inner.readable(at)?;
        let Some(table) = inner.tables.get(table) else {
            return Ok(Page { revision, items: Vec::new(), more: false });
        };
        let (items, more) = table.scan(range, revision, limit, keep);
        Ok(Page { revision, items, more })
    }

    /// How many objects of `range` existed at revision `at`.
    pub(crate) fn count(&self, table: &str, range: &Range, at: u64) -> Result<u64, ReadError> {
        let inner = self.read();
        let revision = inner.readable(Some(at))?;
        Ok(inner.tables.get(table).map_or(0, |table| table.count(range, revision)))
    }

    /// The changes of `table` after revision `after`, at most `limit`.
    pub(crate) fn changes(&self, table: &str, after: u64, limit: usize) -> Result<Changes, ReadError> {
        let inner = self.read();
        inner.readable(Some(after))?;
        let events = inner.tables.get(table).map(|table| table.changes(after, limit)).unwrap_or_default();
        let revision = match events.last() {
            Some(last) if events.len() == limit => last.revision,
            _ => inner.revision,
        };
        Ok(Changes { events, revision })
    }

    /// Judges a write and, unless it is a dry run, keeps it; returns the revision of the object.
    pub(crate) fn commit(&self, write: Write, mode: Mode) -> Result<u64, WriteError> {
        let revision = match mode {
            Mode::DryRun => return self.read().judge(&write, &self.limits),
            Mode::Commit => self.write().commit(write, &self.limits)?,
        };
        self.revision.send_replace(revision);
        Ok(revision)
    }

    fn read(&self) -> RwLockReadGuard<'_, Inner> {
        self.inner.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, Inner> {
        self.inner.write().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Inner {
    fn readable(&self, at: Option<u64>) -> Result<u64, ReadError> {
        match at.unwrap_or(self.revision) {
            at if at < self.compacted => Err(ReadError::Compacted { compacted: self.compacted }),
            at if at > self.revision => Err(ReadError::Future { current: self.revision }),
            at => Ok(at),
        }
    }

    /// The revision that the object has now: what a dry run reports.
    fn judge(&self, write: &Write, limits: &Limits) -> Result<u64, WriteError> {
        let current = self.tables.get(&write.table).and_then(|table| table.get(&write.key));
        let revision = match (write.expect, &current) {
            (Expect::Absent, Some(_)) => return Err(WriteError::Exists),
            (Expect::Revision(_), None) => return Err(WriteError::Absent),
            (Expect::Revision(expected), Some(found)) if found.revision != expected => {
                return Err(WriteError::Changed);
            }
            (_, found) => found.as_ref().map_or(0, |found| found.revision),
        };
        for guard in &write.guards {
            self.judge_guard(guard)?;
        }
        if write.next.as_ref().is_some_and(|next| self.live_bytes + next.size() > limits.live_bytes) {
            return Err(WriteError::Full);
        }
        Ok(revision)
    }

    fn judge_guard(&self, guard: &Guard) -> Result<(), WriteError> {
        match self.tables.get(&guard.table).and_then(|table| table.get(&guard.key)) {
            None => Err(WriteError::GuardAbsent(guard.key.clone())),
            Some(found) if found.object.is_deleting() => Err(WriteError::GuardDeleting(guard.key.clone())),
            Some(_) => Ok(()),
        }
    }

    fn commit(&mut self, write: Write, limits: &Limits) -> Result<u64, WriteError> {
        self.judge(&write, limits)?;
        self.revision += 1;
        let revision = self.revision;
        self.live_bytes += write.next.as_ref().map_or(0, |next| next.size());
        let table = self.tables.entry(Arc::clone(&write.table)).or_default();
        if let Some(replaced) = table.put(write.key.into(), revision, write.next) {
            self.live_bytes = self.live_bytes.saturating_sub(replaced.size());
            self.history_bytes += replaced.size();
        }
        self.written.push_back(write.table);
        self.trim_to_limits(limits);
        Ok(revision)
    }
}

#[cfg(test)]
mod tests;
