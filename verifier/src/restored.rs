//! Compares the scratch cluster with the backup, object by object.
//!
//! Both sides come sorted by name, so each file of the backup is merged with the list of its type and namespace: no
//! more than a page of either is in memory, whatever the number of objects.

use std::{cmp::Ordering, collections::VecDeque};

use futures::{StreamExt, TryStreamExt, stream};
use serde_json::Value;
use stillpoint_catalog::{Backup, ObjectFile};
use stillpoint_objects::{
    self as objects,
    list::{self, Pages},
    retry::Retry,
};
use tokio::sync::watch;

use crate::{
    Error, Progress,
    checks::{equal::Equal, still_there::StillThere},
    expected::{Exception, Expected},
};

/// Files that are compared at once.
const CONCURRENCY: usize = 4;

/// Looks at what was restored.
#[derive(Debug)]
pub(crate) struct Comparison<'a> {
    pub(crate) backup: &'a Backup,
    pub(crate) expected: &'a Expected<'a>,
    pub(crate) retry: &'a Retry,
    pub(crate) progress: &'a watch::Sender<Progress>,
}

/// What was seen of the restored objects.
#[derive(Debug, Default)]
pub(crate) struct Seen {
    pub(crate) still_there: StillThere,
    pub(crate) equal: Equal,
}

impl Comparison<'_> {
    /// Compares every file.
    ///
    /// # Errors
    /// The cluster or the repository fails.
    pub(crate) async fn run(&self, client: &kube::Client, files: &[ObjectFile]) -> Result<Seen, Error> {
        self.progress.send_replace(Progress::Comparing { objects: 0 });
        let mut parts = stream::iter(files).map(|file| self.file(client, file)).buffer_unordered(CONCURRENCY);
        let mut seen = Seen::default();
        while let Some(part) = parts.try_next().await? {
            seen.still_there.extend(part.still_there);
            seen.equal.extend(part.equal);
        }
        Ok(seen)
    }

    async fn file(&self, client: &kube::Client, file: &ObjectFile) -> Result<Seen, Error> {
        let mut seen = Seen::default();
        // a revision of its own for each file, so that compaction has no time to take it away
        let revision = list::read_revision(client, self.retry).await?;
        let listed = list::list_at(client, &file.resource, file.namespace.as_deref(), revision, self.retry);
        let mut listed = Listed { pages: listed, objects: VecDeque::new() };
        let mut captured = self.backup.objects(file)?;
        let mut last = String::new();
        while let Some(object) = captured.next().await? {
            match object.name.cmp(&last) {
                Ordering::Less => {
                    seen.equal.file_not_in_order();
                    break;
                }
                // the same object twice: the counts have said it
                Ordering::Equal => continue,
                Ordering::Greater => {}
            }
            let found = listed.at(&object.name).await?;
            if let Ok(value) = object.value(&file.resource) {
                self.object(&mut seen, file, &object.name, value, found);
            }
            last = object.name;
            self.progress.send_modify(Progress::read_one);
        }
        Ok(seen)
    }

    fn object(&self, seen: &mut Seen, file: &ObjectFile, name: &str, captured: Value, found: Option<Value>) {
        let object = file.object(name);
        match (self.expected.exception(&object), found) {
            (Some(Exception::NotRestored), _) => {}
            (_, None) => seen.still_there.gone(&object),
            (Some(Exception::Kept), Some(_)) => seen.still_there.there(),
            (None, Some(found)) => {
                seen.still_there.there();
                let restored = |owner: &Value| self.expected.restores_owner(file.namespace.as_deref(), owner);
                seen.equal.compare(&file.resource, &object, captured, found, restored);
            }
        }
    }
}

/// The scratch cluster's objects of one file, in the order of their names.
struct Listed {
    pages: Pages,
    objects: VecDeque<(String, String)>,
}

impl Listed {
    /// The object of that name; names must be asked for in their order.
    async fn at(&mut self, name: &str) -> Result<Option<Value>, Error> {
        loop {
            while let Some((first, _)) = self.objects.front() {
                match first.as_str().cmp(name) {
                    Ordering::Less => drop(self.objects.pop_front()),
                    Ordering::Equal => {
                        return Ok(self.objects.pop_front().map(|(_, raw)| value(name, &raw)).transpose()?);
                    }
                    Ordering::Greater => return Ok(None),
                }
            }
            if !self.turn().await? {
                return Ok(None);
            }
        }
    }

    /// Gets the next page; false after the last.
    async fn turn(&mut self) -> Result<bool, objects::Error> {
        let page = match self.pages.next().await {
            Ok(Some(page)) => page,
            Ok(None) => return Ok(false),
            // a type that is not served has no objects
            Err(objects::Error::NotFound { .. } | objects::Error::MethodNotSupported { .. }) => return Ok(false),
            Err(error) => return Err(error),
        };
        for item in page.items() {
            let item = item?;
            self.objects.push_back((item.meta.name.clone().into_owned(), item.raw.to_owned()));
        }
        Ok(true)
    }
}

fn value(name: &str, raw: &str) -> Result<Value, objects::Error> {
    serde_json::from_str(raw).map_err(|source| objects::Error::Unreadable { what: format!("read {name}"), source })
}

#[cfg(test)]
mod tests;
