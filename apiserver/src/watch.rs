//! Watches: each one pulls from the store's log at its own pace.
//!
//! There is no queue a watcher, hence nothing that a slow one could fill: when compaction overtakes it, it is told 410
//! and lists again, as with a real server.

use std::{convert::Infallible, sync::Arc, time::Duration};

use axum::{body::Body, response::Response};
use bytes::Bytes;
use futures::stream;
use http::{HeaderValue, header};
use tokio::{
    sync::watch::Receiver,
    task::yield_now,
    time::{Instant, sleep_until},
};

use crate::{
    api::{Api, Target},
    list::prefix,
    params::Params,
    refusal::Refusal,
    selector::Selector,
    store::{Change, Object, Range, ReadError},
    types::ResourceType,
};

/// Changes and initial objects taken from the store at a time.
const BATCH: usize = 256;

/// How long a watch lasts when its client does not say, and at most.
const DEFAULT_TIMEOUT: Duration = Duration::from_secs(30 * 60);

/// Where a watch is.
enum Phase {
    /// Sending what exists at `revision`, after key `after`.
    Initial {
        revision: Option<u64>,
        after: Option<String>,
    },
    Following,
    Ended,
}

struct Watch {
    api: Arc<Api>,
    resource: Arc<ResourceType>,
    prefix: String,
    selector: Selector,
    phase: Phase,
    /// Everything up to here was sent.
    position: u64,
    changed: Receiver<u64>,
    bookmarks: bool,
    /// Whether the end of the initial objects is to be marked.
    marks_initial_end: bool,
    next_bookmark: Instant,
    deadline: Instant,
}

/// Answers a watch request.
pub(crate) fn watch(api: Arc<Api>, target: &Target, params: &Params) -> Result<Response, Refusal> {
    let selector = Selector::parse(params, &target.resource)?;
    let from = params.resource_version()?.unwrap_or_default();
    let current = api.store.revision();
    if from > current {
        return Err(Refusal::future(from, current));
    }
    let initial = params.wants_initial_events();
    let phase = match (initial, from) {
        (Some(true), _) | (None, 0) => Phase::Initial { revision: None, after: None },
        _ => Phase::Following,
    };
    let timeout = params.timeout_seconds()?.map_or(DEFAULT_TIMEOUT, Duration::from_secs).min(DEFAULT_TIMEOUT);
    let now = Instant::now();
    let watch = Watch {
        resource: Arc::clone(&target.resource),
        prefix: prefix(&target.namespace),
        selector,
        phase,
        position: if from == 0 { current } else { from },
        changed: api.store.subscribe(),
        bookmarks: params.wants_bookmarks(),
        marks_initial_end: initial == Some(true),
        next_bookmark: now + api.bookmark_interval,
        deadline: now + timeout,
        api,
    };
    Ok(respond(watch))
}

fn respond(watch: Watch) -> Response {
    let chunks = stream::unfold(watch, |mut watch| async move {
        let chunk = watch.next_chunk().await?;
        Some((Ok::<_, Infallible>(Bytes::from(chunk)), watch))
    });
    let mut response = Response::new(Body::from_stream(chunks));
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}

impl Watch {
    /// The next lines to send; `None` when the watch is over.
    async fn next_chunk(&mut self) -> Option<Vec<u8>> {
        loop {
            let mut lines = Vec::new();
            match &self.phase {
                Phase::Ended => return None,
                Phase::Initial { revision, after } => {
                    let (revision, after) = (*revision, after.clone());
                    self.send_initial(revision, after, &mut lines);
                }
                Phase::Following => {
                    self.changed.mark_unchanged();
                    self.send_changes(&mut lines);
                    if lines.is_empty() && self.position >= *self.changed.borrow() {
                        self.wait(&mut lines).await;
                    }
                }
            }
            if !lines.is_empty() {
                return Some(lines);
            }
            // A long stretch of other namespaces' changes must not keep the thread.
            yield_now().await;
        }
    }

    fn send_initial(&mut self, revision: Option<u64>, after: Option<String>, lines: &mut Vec<u8>) {
        let range = Range { prefix: self.prefix.clone(), after };
        let selected = |key: &str, object: &Object| self.selector.matches(key, object);
        let page = match self.api.store.scan(&self.resource.table, &range, revision, BATCH, selected) {
            Ok(page) => page,
            Err(error) => return self.fail(&error, lines),
        };
        for found in &page.items {
            self.write_event(lines, "ADDED", &found.object, found.revision);
        }
        if let (true, Some(last)) = (page.more, page.items.last()) {
            self.phase = Phase::Initial { revision: Some(page.revision), after: Some(last.key.to_string()) };
            return;
        }
        self.position = page.revision;
        self.phase = Phase::Following;
        if self.marks_initial_end {
            let annotations = ",\"annotations\":{\"k8s.io/initial-events-end\":\"true\"}";
            self.write_bookmark(lines, annotations);
        }
    }

    fn send_changes(&mut self, lines: &mut Vec<u8>) {
        let changes = match self.api.store.changes(&self.resource.table, self.position, BATCH) {
            Ok(changes) => changes,
            Err(error) => return self.fail(&error, lines),
        };
        for change in &changes.events {
            self.send_change(change, lines);
        }
        self.position = changes.revision;
    }

    /// A change seen through the selector: an object that begins or ceases to match is added or deleted.
    fn send_change(&self, change: &Change, lines: &mut Vec<u8>) {
        if !change.key.starts_with(&self.prefix) {
            return;
        }
        let matching =
            |object: &Option<Arc<Object>>| object.clone().filter(|object| self.selector.matches(&change.key, object));
        let (kind, object) = match (matching(&change.before), matching(&change.after)) {
            (None, Some(after)) => ("ADDED", after),
            (Some(_), Some(after)) => ("MODIFIED", after),
            (Some(before), None) => ("DELETED", change.after.clone().unwrap_or(before)),
            (None, None) => return,
        };
        self.write_event(lines, kind, &object, change.revision);
    }

    /// Waits for a change, a bookmark's time or the end.
    async fn wait(&mut self, lines: &mut Vec<u8>) {
        let stop = self.api.stop.clone();
        tokio::select! {
            changed = self.changed.changed() => if changed.is_err() {
                self.phase = Phase::Ended;
            },
            () = stop.cancelled() => self.phase = Phase::Ended,
            () = sleep_until(self.deadline) => {
                self.phase = Phase::Ended;
                self.bookmark(lines);
            }
            () = sleep_until(self.next_bookmark) => self.bookmark(lines),
        }
    }

    fn bookmark(&mut self, lines: &mut Vec<u8>) {
        self.next_bookmark = Instant::now() + self.api.bookmark_interval;
        if self.bookmarks {
            self.write_bookmark(lines, "");
        }
    }

    fn fail(&mut self, error: &ReadError, lines: &mut Vec<u8>) {
        self.phase = Phase::Ended;
        let refusal = match error {
            ReadError::Future { current } => Refusal::future(self.position, *current),
            ReadError::Compacted { compacted } => {
                Refusal::expired(format!("too old resource version: {} ({compacted})", self.position))
            }
        };
        lines.extend_from_slice(format!("{{\"type\":\"ERROR\",\"object\":{}}}\n", refusal.status()).as_bytes());
    }

    fn write_event(&self, lines: &mut Vec<u8>, kind: &str, object: &Object, revision: u64) {
        lines.extend_from_slice(format!("{{\"type\":\"{kind}\",\"object\":").as_bytes());
        object.write(lines, Some(&self.resource.types), revision);
        lines.extend_from_slice(b"}\n");
    }

    fn write_bookmark(&self, lines: &mut Vec<u8>, annotations: &str) {
        let (kind, version, revision) = (self.resource.kind(), &self.resource.types.api_version, self.position);
        let metadata = format!("{{\"resourceVersion\":\"{revision}\",\"creationTimestamp\":null{annotations}}}");
        let line = format!(
            "{{\"type\":\"BOOKMARK\",\"object\":{{\"kind\":{kind:?},\"apiVersion\":{version:?},\"metadata\":{metadata}}}}}\n"
        );
        lines.extend_from_slice(line.as_bytes());
    }
}
