//! Writes and reads repositories in restic's format, version 2, on any object store.
//!
//! The format is restic's so that nobody depends on us to get their data back: `restic snapshots | ls | dump | check |
//! restore | prune` work on what is written here. The writer is our own because a backup needs what general ones do
//! not offer: virtual files that come from an API, cut into blobs at object borders, and a commit that fails unless
//! everything it stands for is stored.
//!
//! ```no_run
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! use stillpoint_repository::{Kdf, Node, Password, Repository, SnapshotMeta, Store, Tree};
//!
//! let store = Store::from_url("file:///srv/backups")?;
//! let repository = Repository::init(store, &Password::new("secret"), Kdf::default()).await?;
//! let now = jiff::Timestamp::now();
//!
//! let writer = repository.writer().await?;
//! let mut file = writer.file_writer();
//! file.append("web", br#"{"metadata":{"name":"web"}}"#).await?;
//! let content = file.finish().await?;
//! let tree = writer.tree(Tree::new(vec![Node::file("shop.jsonl", content, now)])?).await?;
//! let meta = SnapshotMeta {
//!     tree,
//!     hostname: "cluster".into(),
//!     paths: vec!["/".into()],
//!     tags: vec!["stillpoint".into()],
//!     time: now,
//!     program_version: None,
//!     summary: None,
//! };
//! let snapshot = writer.commit(meta).await?;
//!
//! let snapshot = repository.snapshot(&snapshot).await?;
//! let reader = repository.reader().await?;
//! let node = reader.find(&snapshot.tree, "/shop.jsonl").await?.ok_or("not there")?;
//! let mut lines = reader.lines(&node, 4 << 20)?;
//! while let Some(line) = lines.next().await? {
//!     assert_eq!(&line[..2], b"{\"");
//! }
//! # Ok(())
//! # }
//! ```
//!
//! # Glossary
//! - *Blob*: a piece of a file (data blob) or a directory (tree blob), named by the SHA-256 of its plaintext.
//! - *Pack*: a file in `data/` that holds many blobs of one kind.
//! - *Index*: files in `index/` that say which pack holds which blob.
//! - *Tree*: a directory as JSON; its nodes name data blobs and further trees, so one id covers everything below it.
//! - *Snapshot*: a file in `snapshots/` that names a root tree. It is the commit: without it there is no backup.
//! - *Lock*: a file in `locks/` that keeps a prune away while others write.
//! - *Sidecar*: a file of ours in `stillpoint/`, sealed like the rest, that restic does not look at.
//! - *Root*: the id that is signed; what it is the id of is the caller's.
//!
//! # Order of writes and reads
//! - A pack must be stored before an index names it, all indexes before the snapshot that needs them.
//! - A snapshot must be written only while its writer's lock holds; that is looked at last.
//! - A tree must refer only to blobs that are stored or on their way: [`Writer::tree`] refuses others.
//! - Snapshots must be listed before the index is loaded, or a snapshot may come without its index.
//! - Whoever removes must hold the exclusive lock, and should remove in the reverse order.
//!
//! # Limits
//! Everything read back is bounded and checked: a file by its name, a blob by its id, compressed text by the size it
//! claims. `docs/format.md` describes the bytes and what is not protected.

#![cfg_attr(test, allow(clippy::unwrap_used))]

mod buffers;
mod check;
mod crypto;
mod encoding;
mod error;
mod files;
#[doc(hidden)]
pub mod fuzzing;
mod go;
mod held_packs;
mod id;
mod index;
mod inventory;
mod key;
mod keys;
mod lean;
mod local_trees;
mod lock;
mod pack;
mod polynomial;
mod process;
mod progress;
mod prune;
mod reader;
mod repository;
mod requests;
mod scratch;
mod segment;
mod sidecar;
pub mod signing;
mod snapshot;
mod stats;
mod store;
mod tree;
mod upload;
mod walk;
mod writer;

pub use buffers::Buffers;
pub use check::{Affected, AffectedSnapshot, CheckReport, CheckRequest, Finding, FindingKind, ReadData, Severity};
pub use encoding::Compression;
pub use error::{Cause, Error};
pub use id::{Id, ParseIdError};
pub use key::{Kdf, Password};
pub use keys::KeyInfo;
pub use local_trees::LocalTrees;
pub use lock::{FoundLock, Holder, LockState, ReadLock, Stale, Unlocked};
pub use progress::{Control, Progress, Stage};
pub use prune::{Prune, PrunePlan, PruneReport, PruneRequest, Tally};
pub use reader::{BulkPlan, ContentStream, LineReader, Reader, SealedBlobs, TreeRead};
pub use repository::Repository;
pub use segment::FileWriter;
pub use snapshot::{PART_TAG, Snapshot, SnapshotMeta, SnapshotSummary};
pub use stats::RepositoryStats;
pub use store::{Store, StoreOptions};
pub use tree::{ExtendedAttribute, FileContent, Node, NodeKind, Tree, go_mode, permissions};
pub use writer::{BlockingWriter, Stats, Writer};
