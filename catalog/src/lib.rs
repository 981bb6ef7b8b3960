//! Backups in a repository: listing, opening, writing, evidence.
//!
//! The one place that knows what a backup looks like among restic's snapshots, so that the capture that writes one,
//! the restore that reads it and the commands that list them cannot disagree. Bytes are the repository's business,
//! documents are `stillpoint-api`'s; here they meet.
//!
//! ```text
//! snapshot (tags stillpoint, stillpoint-name:NAME) ── the commit
//!   └─ / ─┬─ manifest.json        its SHA-256 is the root
//!         ├─ manifest.sig         over the root
//!         └─ resources/deployments.apps/shop.jsonl
//! ```

#![cfg_attr(test, allow(clippy::unwrap_used))]

mod backup;
mod draft;
mod error;
mod evidence;
#[doc(hidden)]
pub mod fuzzing;
mod listing;
mod object;

pub use backup::{Backup, ObjectFile, ObjectLines};
pub use draft::{Committed, Draft, Sealed};
pub use error::{Damage, Error};
pub use evidence::{Standing, evidence, put_evidence, standing};
pub use listing::{Entry, find, forget, list, newest};
pub use object::CapturedObject;
use stillpoint_api::Digest;
use stillpoint_repository::Id;

/// The tag of every backup's snapshot.
pub const BACKUP_TAG: &str = "stillpoint";
/// The prefix of the tag that carries a backup's name.
const NAME_TAG: &str = "stillpoint-name:";
/// The longest object line that is read; etcd's own limit is 1.5 MiB before it becomes JSON.
const MAX_OBJECT: usize = 16 << 20;
/// The longest manifest that is read.
const MAX_MANIFEST: u64 = 64 << 20;

fn digest(id: Id) -> Digest {
    Digest(id.0)
}

fn id(digest: Digest) -> Id {
    Id(digest.0)
}
