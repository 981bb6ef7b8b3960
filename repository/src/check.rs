//! Checks a whole repository and says what is damaged, whom that reaches and what to do.
//!
//! # Flow
//! Keys → snapshots → index → packs by size, and by content if asked for → directories. Snapshots are listed before the
//! index is loaded, or one that is just being committed would seem to lack its blobs. Content comes before directories,
//! so that a damaged blob is reported with the files that need it.
//!
//! # Guarantees
//! Nothing is changed. Damage is a finding and never ends the check; only a store that gives no answer does.
//!
//! # Assumptions
//! A non-exclusive lock. restic's check takes an exclusive one and keeps every backup waiting for hours; ours need not,
//! since a check only reads, writers only add, and what we read first never needs what is added later. A prune must
//! wait: it would remove packs between our look at the index and our look at them.
//!
//! # Caveats
//! Memory: 52 bytes and 7 bits for every place of a blob, twice that while the index loads, 4 more with content read;
//! 60 bytes a pack, 8 bytes for every directory in a directory, and what is under way: 64 MiB of directories, and about
//! 32 MiB of packs a processor.

mod finding;
mod packs;
mod trees;

use std::sync::Arc;

use fixedbitset::FixedBitSet;
use futures::{FutureExt, StreamExt, stream};
use rand::seq::SliceRandom;
use serde::Serialize;

use self::finding::Findings;
pub use self::finding::{Affected, AffectedSnapshot, Finding, FindingKind, Severity};
use crate::{
    Error, Id, Repository, Snapshot,
    files::Folder,
    inventory::{self, Inventory},
    key::KeyFile,
    lock::LockState,
    progress::{Control, Stage},
    walk::Walk,
};

/// Snapshots and keys read at the same time.
const CONCURRENT: usize = 8;
const MAX_KEY_FILE: u64 = 1 << 20;

/// Which packs a check reads whole.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub enum ReadData {
    /// None.
    #[default]
    None,
    /// All.
    All,
    /// A share of them in percent, drawn anew each time; at least one.
    Percent(f64),
    /// The `part`-th of `of` parts, at most 256, the same as restic's: every pack is in exactly one.
    Part {
        /// From 1.
        part: u16,
        /// How many parts there are.
        of: u16,
    },
}

/// What a check is to do.
#[derive(Debug, Clone, Default)]
pub struct CheckRequest {
    /// Packs that are read whole.
    pub read_data: ReadData,
    /// Take no lock, where the store cannot be written. What a prune removes meanwhile is then reported as missing.
    pub without_lock: bool,
}

/// What a check found.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct CheckReport {
    /// Findings, errors first.
    pub findings: Vec<Finding>,
    /// Errors beyond the findings that are listed.
    pub more_errors: u64,
    /// Hints beyond the findings that are listed.
    pub more_hints: u64,
    /// Snapshots that could be read.
    pub snapshots: u64,
    /// Directories, each once.
    pub trees: u64,
    /// Files in them.
    pub files: u64,
    /// Places of blobs that the index names.
    pub blobs: u64,
    /// Packs that the index names.
    pub packs: u64,
    /// Packs that were read whole.
    pub packs_read: u64,
    /// Their bytes.
    pub bytes_read: u64,
}

impl CheckReport {
    /// Number of errors.
    pub fn errors(&self) -> u64 {
        let listed = self.findings.iter().filter(|finding| finding.severity == Severity::Error).count();
        listed as u64 + self.more_errors
    }
}

impl Repository {
    /// Checks the repository.
    ///
    /// # Errors
    /// [`Error::Locked`] while a prune or a forget runs; those of a store that gives no answer.
    pub async fn check(&self, request: &CheckRequest, control: &Control) -> Result<CheckReport, Error> {
        let check = Check { repository: self, control, findings: Findings::default() };
        if request.without_lock {
            return control.until_cancelled(check.run(request).boxed()).await;
        }
        let lock = self.read_lock().await?;
        let report = control.until_cancelled(check.run(request).boxed()).await;
        lock.release().await;
        report
    }
}

struct Check<'a> {
    repository: &'a Repository,
    control: &'a Control,
    findings: Findings,
}

impl Check<'_> {
    async fn run(mut self, request: &CheckRequest) -> Result<CheckReport, Error> {
        self.keys().await?;
        self.locks().await?;
        let snapshots = self.snapshots().await?;
        self.control.tell(Stage::Index, 0, 0);
        let inventory = Arc::new(Inventory::load(self.repository.files()).await?);
        self.inventory(&inventory);
        let mut bad = inventory.out_of_reach();
        let (packs_read, bytes_read) = self.packs(&inventory, request.read_data, &mut bad).await?;
        let walk = Walk::new(self.repository.files(), inventory.clone(), Arc::new(bad));
        let control = self.control;
        let tell = |done| control.tell(Stage::Trees, done, 0);
        let counts = trees::check(&walk, &inventory, &snapshots, &mut self.findings, tell).await?;
        let (findings, more_errors, more_hints) = self.findings.into_parts();
        Ok(CheckReport {
            findings,
            more_errors,
            more_hints,
            snapshots: snapshots.len() as u64,
            trees: counts.trees,
            files: counts.files,
            blobs: inventory.places.len() as u64,
            packs: inventory.packs.len() as u64,
            packs_read,
            bytes_read,
        })
    }

    async fn keys(&mut self) -> Result<(), Error> {
        let store = self.repository.store();
        for entry in store.list("keys").await? {
            let path = format!("keys/{}", entry.name);
            let Ok(id) = entry.name.parse::<Id>() else {
                // restic takes every name that is hexadecimal for a key
                self.findings.add(FindingKind::ForeignFile, &path, "its name is no id");
                continue;
            };
            let found = match store.get(&path, MAX_KEY_FILE).await {
                Ok(bytes) => match Id::of(&bytes) {
                    found if found != id => Some(format!("its content has the id {found}")),
                    _ => KeyFile::parse(&bytes).err(),
                },
                Err(error) => Some(inventory::reason(error)?),
            };
            if let Some(reason) = found {
                self.findings.add(FindingKind::KeyUnreadable, &path, reason);
            }
        }
        Ok(())
    }

    async fn locks(&mut self) -> Result<(), Error> {
        for lock in self.repository.locks().await? {
            let path = Folder::Locks.path(&lock.id);
            match lock.state {
                LockState::Live => {}
                LockState::Stale(why) => drop(self.findings.add(FindingKind::StaleLock, &path, why.to_string())),
                LockState::Unreadable(why) => drop(self.findings.add(FindingKind::LockUnreadable, &path, why)),
            }
        }
        Ok(())
    }

    /// All snapshots that can be read, oldest first.
    async fn snapshots(&mut self) -> Result<Vec<Snapshot>, Error> {
        let repository = self.repository;
        let mut ids = Vec::new();
        for folder in [Folder::Snapshots, Folder::Index, Folder::Locks] {
            for entry in repository.store().list(folder.name()).await? {
                match entry.name.parse::<Id>() {
                    Ok(id) if folder == Folder::Snapshots => ids.push(id),
                    Ok(_) => {}
                    Err(_) => {
                        let path = format!("{}/{}", folder.name(), entry.name);
                        self.findings.add(FindingKind::ForeignFile, &path, "its name is no id");
                    }
                }
            }
        }
        let read = |id: Id| async move { (id, repository.snapshot(&id).await) };
        let mut reads = stream::iter(ids).map(read).buffer_unordered(CONCURRENT);
        let mut snapshots = Vec::new();
        while let Some((id, snapshot)) = reads.next().await {
            match snapshot {
                Ok(snapshot) => snapshots.push(snapshot),
                // somebody with the right to do so forgot it meanwhile, if there is no lock of ours
                Err(error) if error.is_missing() => {}
                Err(error) => {
                    let reason = inventory::reason(error)?;
                    self.findings.add(FindingKind::SnapshotUnreadable, &Folder::Snapshots.path(&id), reason);
                }
            }
        }
        snapshots.sort_by_key(|snapshot| (snapshot.time, snapshot.id));
        Ok(snapshots)
    }

    fn inventory(&mut self, inventory: &Inventory) {
        for unreadable in &inventory.unreadable {
            self.findings.add(FindingKind::IndexUnreadable, &unreadable.path, &unreadable.reason);
        }
        for pack in &inventory.packs {
            match pack.size {
                None => drop(self.findings.add(FindingKind::PackMissing, &pack.path(), "it does not exist")),
                Some(size) if size != pack.expected => {
                    let sentence = format!("it has {size} bytes, and {} by its index", pack.expected);
                    self.findings.add(FindingKind::PackSize, &pack.path(), sentence);
                }
                Some(_) => {}
            }
        }
        for path in &inventory.foreign {
            self.findings.add(FindingKind::ForeignFile, path, "its name is no pack's");
        }
        if !inventory.unreferenced.is_empty() {
            let bytes: u64 = inventory.unreferenced.iter().map(|(_, size)| size).sum();
            let sentence = format!("{} packs of {bytes} bytes are in no index", inventory.unreferenced.len());
            self.findings.add(FindingKind::UnreferencedPacks, "data", sentence);
        }
        let twice = inventory.places.array_windows().filter(|[a, b]| a.id == b.id && a.blob().kind == b.blob().kind);
        let (blobs, bytes) = twice.fold((0u64, 0), |(blobs, bytes), [_, b]| (blobs + 1, bytes + u64::from(b.length)));
        if blobs > 0 {
            let sentence = format!("{blobs} blobs of {bytes} bytes are stored more than once");
            self.findings.add(FindingKind::DuplicateBlobs, "data", sentence);
        }
    }

    /// Reads packs whole; how many, and how many bytes.
    async fn packs(
        &mut self,
        inventory: &Inventory,
        read_data: ReadData,
        bad: &mut FixedBitSet,
    ) -> Result<(u64, u64), Error> {
        let selected = select(inventory, read_data);
        if selected.is_empty() {
            return Ok((0, 0));
        }
        let (total, by_pack) = (selected.len() as u64, inventory.by_pack());
        let (mut done, mut bytes) = (0, 0);
        packs::read_all(self.repository.files(), inventory, &by_pack, selected, |report| {
            done += 1;
            bytes += report.bytes;
            let path = inventory.packs[report.pack].path();
            for sentence in report.damage {
                self.findings.add(FindingKind::PackDamaged, &path, sentence);
            }
            report.bad.into_iter().for_each(|position| bad.insert(position));
            self.control.tell(Stage::Packs, done, total);
        })
        .await?;
        Ok((done, bytes))
    }
}

/// Numbers of the packs to be read whole.
fn select(inventory: &Inventory, read_data: ReadData) -> Vec<usize> {
    let mut existing: Vec<usize> =
        (0..inventory.packs.len()).filter(|at| inventory.packs[*at].size.is_some()).collect();
    match read_data {
        ReadData::None => Vec::new(),
        ReadData::All => existing,
        ReadData::Percent(percent) => {
            existing.shuffle(&mut rand::rng());
            existing.truncate(share(existing.len(), percent));
            existing
        }
        ReadData::Part { part, of } => {
            let bucket = |at: &usize| u16::from(inventory.packs[*at].id.0[0]) % of.max(1);
            existing.retain(|at| bucket(at) + 1 == part);
            existing
        }
    }
}

#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, clippy::cast_precision_loss, reason = "clamped")]
fn share(packs: usize, percent: f64) -> usize {
    ((packs as f64 * percent.clamp(0.0, 100.0) / 100.0) as usize).max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn packs(count: u8) -> Inventory {
        let mut inventory = Inventory::default();
        inventory.packs = (0..count)
            .map(|n| inventory::KnownPack { id: Id([n; 32]), size: (n > 0).then_some(36), expected: 36 })
            .collect();
        inventory
    }

    #[test]
    fn parts_are_disjoint_complete_and_always_the_same() {
        let inventory = packs(200);
        let part = |part, of| select(&inventory, ReadData::Part { part, of });
        assert_eq!(part(3, 7), part(3, 7));
        let mut all: Vec<usize> = (1..=7).flat_map(|n| part(n, 7)).collect();
        all.sort_unstable();
        assert_eq!(all, select(&inventory, ReadData::All));
        assert_eq!(all.len(), 199, "a pack that does not exist is not read");
    }

    #[test]
    fn a_share_is_drawn_and_never_empty() {
        let inventory = packs(101);
        assert_eq!(select(&inventory, ReadData::Percent(5.0)).len(), 5);
        assert_eq!(select(&inventory, ReadData::Percent(0.001)).len(), 1);
        assert_eq!(select(&inventory, ReadData::Percent(100.0)).len(), 100);
        assert!(select(&inventory, ReadData::None).is_empty());
        let draw = || select(&inventory, ReadData::Percent(10.0));
        assert!((0..20).any(|_| draw() != draw()), "drawn anew");
    }
}
