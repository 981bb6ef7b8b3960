//! Reads trees and files back, checking every byte.
//!
//! Nothing is handed out that is not exactly what its id says. Neighbouring blobs of a pack come in one request and a
//! few requests run ahead, because a file written at once lies together and a store's latency is what costs.

mod bulk;

use std::sync::Arc;

use bytes::{Buf, Bytes, BytesMut};
use futures::{
    StreamExt, TryStreamExt,
    stream::{self, BoxStream},
};

pub use self::bulk::{BulkPlan, SealedBlobs, TreeRead};
use crate::{
    Error, Id,
    files::Files,
    index::{Index, Location},
    pack::{self, BlobKind},
    tree::{Node, NodeKind, Tree},
    upload::pack_path,
};

/// The most that one request reads, and that it may expand to.
const REQUEST: u64 = 4 << 20;
/// Requests that run ahead of the consumer.
const AHEAD: usize = 3;

/// Reads from a repository as it was when the reader was made. Cheap to clone.
#[derive(Clone)]
pub struct Reader {
    files: Arc<Files>,
    index: Arc<Index>,
    /// An index file that could not be read, and why.
    unread: Option<(String, String)>,
}

/// The bytes of a file in order; it ends after the first error.
pub type ContentStream = BoxStream<'static, Result<Bytes, Error>>;

impl Reader {
    pub(crate) fn new(files: Arc<Files>, index: Arc<Index>, unread: Option<(String, String)>) -> Self {
        Self { files, index, unread }
    }

    /// Reads a directory.
    ///
    /// # Errors
    /// [`Error::BlobMissing`] or [`Error::Damaged`], naming blob and pack.
    pub async fn tree(&self, id: &Id) -> Result<Tree, Error> {
        let json = self.load(BlobKind::Tree, id).await?;
        Tree::from_json(&json).map_err(|reason| Error::damaged(format!("tree {id}"), reason))
    }

    /// Fails unless a directory is stored.
    pub(crate) fn require_tree(&self, id: &Id) -> Result<(), Error> {
        self.locations(BlobKind::Tree, id).map(drop)
    }

    /// Finds the node at a path below a tree; `None` if there is none. Empty parts of the path count for nothing.
    ///
    /// # Errors
    /// Those of [`Reader::tree`].
    pub async fn find(&self, root: &Id, path: &str) -> Result<Option<Node>, Error> {
        let (mut subtree, mut found) = (Some(*root), None);
        for part in path.split('/').filter(|part| !part.is_empty()) {
            let Some(id) = subtree else { return Ok(None) };
            found = self.tree(&id).await?.get(part).cloned();
            subtree = found.as_ref().and_then(|node| node.subtree);
            if found.is_none() {
                return Ok(None);
            }
        }
        Ok(found)
    }

    /// Reads a data blob.
    ///
    /// # Errors
    /// [`Error::BlobMissing`] or [`Error::Damaged`], naming blob and pack.
    pub async fn blob(&self, id: &Id) -> Result<Bytes, Error> {
        self.load(BlobKind::Data, id).await
    }

    /// Streams the content of a file.
    ///
    /// # Errors
    /// [`Error::Invalid`] if the node is no file. The stream fails with those of [`Reader::blob`], and with
    /// [`Error::Damaged`] if it is not as long as the node says.
    pub fn content(&self, node: &Node) -> Result<ContentStream, Error> {
        let (NodeKind::File, Some(blobs)) = (node.kind, &node.content) else {
            return Err(Error::invalid(format!("the content of {:?}", node.name), "it is no file"));
        };
        let requests = self.requests(blobs)?;
        let reader = self.clone();
        let pieces = stream::iter(requests)
            .map(move |request| reader.clone().fetch(request))
            .buffered(AHEAD)
            .map_ok(|pieces| stream::iter(pieces).map(Ok))
            .try_flatten();
        Ok(measured(pieces.boxed(), node.size, format!("{:?}", node.name)))
    }

    /// Reads a file line by line; a line of more than `max_line_bytes` is an error.
    ///
    /// # Errors
    /// Those of [`Reader::content`].
    pub fn lines(&self, node: &Node, max_line_bytes: usize) -> Result<LineReader, Error> {
        let what = format!("a line of {:?}", node.name);
        let content = self.content(node)?;
        Ok(LineReader { content, chunk: Bytes::new(), line: BytesMut::new(), max: max_line_bytes, what })
    }

    /// Groups blobs that lie together in a pack.
    fn requests(&self, blobs: &[Id]) -> Result<Vec<Request>, Error> {
        let mut requests: Vec<Request> = Vec::new();
        for id in blobs {
            let location = self.locations(BlobKind::Data, id)?[0];
            match requests.last_mut() {
                Some(last) if last.takes(&location) => last.blobs.push(location),
                _ => requests.push(Request { blobs: vec![location] }),
            }
        }
        Ok(requests)
    }

    fn locations(&self, kind: BlobKind, id: &Id) -> Result<Vec<Location>, Error> {
        let locations: Vec<_> = self.index.locations(kind, id).collect();
        match &self.unread {
            _ if !locations.is_empty() => Ok(locations),
            Some((path, reason)) => {
                Err(Error::damaged(path, format!("{reason}, and {} blob {id} is in no other", kind.name())))
            }
            None => Err(Error::BlobMissing { store: self.files.store.to_string(), kind: kind.name(), id: *id }),
        }
    }

    /// Reads the blobs of a request; if that fails, each alone, from wherever else it lies.
    async fn fetch(self, request: Request) -> Result<Vec<Bytes>, Error> {
        if let Ok(pieces) = self.fetch_together(&request).await {
            return Ok(pieces);
        }
        let mut pieces = Vec::with_capacity(request.blobs.len());
        for location in &request.blobs {
            pieces.push(self.blob(&location.blob.id).await?);
        }
        Ok(pieces)
    }

    /// Reads a blob from the first place where it is sound.
    async fn load(&self, kind: BlobKind, id: &Id) -> Result<Bytes, Error> {
        let mut first_error = None;
        for location in self.locations(kind, id)? {
            match self.fetch_together(&Request { blobs: vec![location] }).await {
                Ok(mut pieces) => return Ok(pieces.pop().unwrap_or_default()),
                Err(error) => drop(first_error.get_or_insert(error)),
            }
        }
        Err(first_error.unwrap_or_else(|| Error::damaged(format!("blob {id}"), "it has no place")))
    }

    async fn fetch_together(&self, request: &Request) -> Result<Vec<Bytes>, Error> {
        let Some(range) = request.range() else { return Ok(Vec::new()) };
        let path = pack_path(&request.blobs[0].pack);
        let start = range.start;
        let sealed = self.files.store.get_range(&path, range).await.map_err(|error| request.explain(error))?;
        let (cipher, blobs) = (self.files.cipher.clone(), request.blobs.clone());
        let open = move || {
            let open_one = |location: &Location| {
                let blob = &location.blob;
                let from = usize::try_from(u64::from(blob.offset) - start).unwrap_or(usize::MAX);
                let bytes = sealed.get(from..).and_then(|rest| rest.get(..blob.length as usize));
                let bytes = bytes.ok_or_else(|| "it lies outside its pack".to_owned());
                bytes
                    .and_then(|bytes| pack::open_blob(&cipher, blob, bytes))
                    .map(Bytes::from)
                    .map_err(|reason| Error::damaged(place(location), reason))
            };
            blobs.iter().map(open_one).collect()
        };
        tokio::task::spawn_blocking(open).await?
    }
}

/// Blobs of one pack that one request reads.
struct Request {
    blobs: Vec<Location>,
}

impl Request {
    fn range(&self) -> Option<std::ops::Range<u64>> {
        let start = self.blobs.iter().map(|location| u64::from(location.blob.offset)).min()?;
        let end = self.blobs.iter().map(|location| location.blob.end()).max()?;
        Some(start..end)
    }

    /// Whether a further blob is near enough that one request is better than two.
    fn takes(&self, next: &Location) -> bool {
        let Some(range) = self.range() else { return true };
        let span = range.end.max(next.blob.end()) - range.start.min(u64::from(next.blob.offset));
        let expanded = |location: &Location| u64::from(location.blob.uncompressed.unwrap_or(location.blob.length));
        let stored = |location: &Location| u64::from(location.blob.length);
        let length = self.blobs.iter().map(stored).sum::<u64>() + stored(next);
        let plain = self.blobs.iter().map(expanded).sum::<u64>() + expanded(next);
        next.pack == self.blobs[0].pack && span <= REQUEST && span <= 2 * length && plain <= REQUEST
    }

    /// Says what a store's error means for the blobs.
    fn explain(&self, error: Error) -> Error {
        let Some(first) = self.blobs.first() else { return error };
        match error {
            Error::FileMissing { .. } => Error::damaged(place(first), "the pack is missing"),
            Error::Store { reason, .. } | Error::Damaged { reason, .. } => Error::damaged(place(first), reason),
            other => other,
        }
    }
}

fn place(location: &Location) -> String {
    let Location { pack, blob } = location;
    format!("{} blob {} in pack {}", blob.kind.name(), blob.id, pack_path(pack))
}

/// Fails a stream that ends before or after `size` bytes.
fn measured(pieces: ContentStream, size: u64, name: String) -> ContentStream {
    let start = Some((pieces, 0));
    stream::try_unfold(start, move |state| {
        let name = name.clone();
        async move {
            let Some((mut pieces, read)) = state else { return Ok(None) };
            match pieces.try_next().await? {
                Some(piece) => {
                    let read = read + piece.len() as u64;
                    Ok(Some((piece, Some((pieces, read)))))
                }
                None if read == size => Ok(None),
                None => Err(Error::damaged(name, format!("it has {read} bytes and should have {size}"))),
            }
        }
    })
    .boxed()
}

/// Reads a file line by line.
pub struct LineReader {
    content: ContentStream,
    chunk: Bytes,
    line: BytesMut,
    max: usize,
    what: String,
}

impl LineReader {
    /// The next line without its line feed; `None` after the last. Cancelling it loses nothing.
    ///
    /// # Errors
    /// [`Error::TooLarge`] for a line above the limit, and those of reading.
    pub async fn next(&mut self) -> Result<Option<Bytes>, Error> {
        loop {
            if let Some(end) = self.chunk.iter().position(|byte| *byte == b'\n') {
                let tail = self.chunk.split_to(end);
                self.chunk.advance(1);
                return self.complete(tail).map(Some);
            }
            let tail = std::mem::take(&mut self.chunk);
            self.check(tail.len())?;
            self.line.extend_from_slice(&tail);
            match self.content.try_next().await? {
                Some(chunk) => self.chunk = chunk,
                None if self.line.is_empty() => return Ok(None),
                None => return self.complete(Bytes::new()).map(Some),
            }
        }
    }

    fn complete(&mut self, tail: Bytes) -> Result<Bytes, Error> {
        self.check(tail.len())?;
        if self.line.is_empty() {
            return Ok(tail);
        }
        self.line.extend_from_slice(&tail);
        Ok(self.line.split().freeze())
    }

    fn check(&self, more: usize) -> Result<(), Error> {
        if self.line.len() + more <= self.max {
            return Ok(());
        }
        Err(Error::TooLarge { what: self.what.clone(), limit: self.max as u64 })
    }
}
