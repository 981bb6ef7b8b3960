//! The objects of one type, every version of them that compaction has not removed, and the log of their changes.
//!
//! Log and versions share the same objects and live equally long, so one bound covers both.

use std::{
    collections::{BTreeMap, VecDeque},
    ops::Bound,
    sync::Arc,
};

use super::{Object, Range};

/// An object as a read found it.
#[derive(Clone, Debug)]
pub(crate) struct Found {
    pub(crate) key: Arc<str>,
    pub(crate) revision: u64,
    pub(crate) object: Arc<Object>,
}

/// One change: an object before and after it.
#[derive(Clone, Debug)]
pub(crate) struct Change {
    pub(crate) key: Arc<str>,
    pub(crate) revision: u64,
    pub(crate) before: Option<Arc<Object>>,
    pub(crate) after: Option<Arc<Object>>,
}

pub(super) type Event = Change;

#[derive(Debug)]
struct Version {
    revision: u64,
    /// `None`: removed at this revision.
    object: Option<Arc<Object>>,
}

#[derive(Debug, Default)]
pub(super) struct Table {
    objects: BTreeMap<Arc<str>, Vec<Version>>,
    log: VecDeque<Event>,
}

impl Table {
    pub(super) fn get(&self, key: &str) -> Option<Found> {
        let (key, versions) = self.objects.get_key_value(key)?;
        found(key, versions, u64::MAX)
    }

    /// Up to `limit` objects that `keep` accepts, and whether the range goes on after them.
    pub(super) fn scan(
        &self,
        range: &Range,
        revision: u64,
        limit: usize,
        keep: impl Fn(&str, &Object) -> bool,
    ) -> (Vec<Found>, bool) {
        let mut items = Vec::new();
        for found in self.at(range, revision) {
            if !keep(&found.key, &found.object) {
                continue;
            }
            if items.len() == limit {
                return (items, true);
            }
            items.push(found);
        }
        (items, false)
    }

    pub(super) fn count(&self, range: &Range, revision: u64) -> u64 {
        self.versions(range).filter(|(_, versions)| version_at(versions, revision).is_some()).count() as u64
    }

    pub(super) fn changes(&self, after: u64, limit: usize) -> Vec<Change> {
        let start = self.log.partition_point(|event| event.revision <= after);
        self.log.range(start..).take(limit).cloned().collect()
    }

    /// Adds a version and returns the object that it replaced or removed.
    pub(super) fn put(&mut self, key: Arc<str>, revision: u64, object: Option<Arc<Object>>) -> Option<Arc<Object>> {
        let key = self.objects.get_key_value(&key).map_or(key, |(known, _)| Arc::clone(known));
        let versions = self.objects.entry(Arc::clone(&key)).or_default();
        let before = versions.last().and_then(|last| last.object.clone());
        versions.push(Version { revision, object: object.clone() });
        self.log.push_back(Change { key, revision, before: before.clone(), after: object });
        before
    }

    /// Forgets the oldest change and the version that it superseded; returns the bytes freed.
    pub(super) fn forget_oldest(&mut self) -> usize {
        let Some(oldest) = self.log.pop_front() else { return 0 };
        if let Some(versions) = self.objects.get_mut(&oldest.key) {
            let keep_from = if oldest.after.is_some() { oldest.revision } else { oldest.revision + 1 };
            versions.retain(|version| version.revision >= keep_from);
            if versions.is_empty() {
                self.objects.remove(&oldest.key);
            }
        }
        oldest.before.map_or(0, |before| before.size())
    }

    fn at(&self, range: &Range, revision: u64) -> impl Iterator<Item = Found> {
        self.versions(range).filter_map(move |(key, versions)| found(key, versions, revision))
    }

    fn versions(&self, range: &Range) -> impl Iterator<Item = (&Arc<str>, &Vec<Version>)> {
        let start = match &range.after {
            Some(after) => Bound::Excluded(after.as_str()),
            None => Bound::Included(range.prefix.as_str()),
        };
        let prefix = range.prefix.clone();
        self.objects.range::<str, _>((start, Bound::Unbounded)).take_while(move |(key, _)| key.starts_with(&prefix))
    }
}

fn version_at(versions: &[Version], revision: u64) -> Option<(u64, &Arc<Object>)> {
    let version = versions.iter().rev().find(|version| version.revision <= revision)?;
    Some((version.revision, version.object.as_ref()?))
}

fn found(key: &Arc<str>, versions: &[Version], revision: u64) -> Option<Found> {
    let (revision, object) = version_at(versions, revision)?;
    Some(Found { key: Arc::clone(key), revision, object: Arc::clone(object) })
}
