//! Lets our volume backups and restic's work on one repository while everything is forgotten, pruned and checked.
//!
//! In random order, by a seed that is printed, for as long as STILLPOINT_TEST_SOAK says in seconds. Each volume is changed
//! between its backups, and trusts the parent for what did not change. Locks refuse much: that is expected and counted.
//! What must hold at the end: restic's check of all data finds nothing, and every backup that was committed and not
//! forgotten is restored byte for byte.

#![allow(clippy::unwrap_used, clippy::print_stderr)]

mod common;

use std::{
    collections::BTreeMap,
    env, fs, iter,
    path::{Path, PathBuf},
    process::Command,
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use rand::{RngExt, SeedableRng, rngs::StdRng, seq::IteratorRandom};
use stillpoint_filetree::{
    backup, restore, selection,
    volume::{self, HostFilter},
};
use stillpoint_repository::{Control, Error, Id, PruneRequest, Repository};
use stillpoint_test_support::require;
use tokio::sync::{Notify, watch};
use tokio_util::sync::CancellationToken;

/// What a volume held: relative paths and contents.
type Files = BTreeMap<PathBuf, Vec<u8>>;

/// Backups kept at least, so that there is something to read back.
const KEPT: usize = 3;

struct Soak {
    path: PathBuf,
    repository: Repository,
    until: Instant,
    /// Backups that were committed and not forgotten.
    backups: Mutex<BTreeMap<Id, Files>>,
    /// How often what was done and refused.
    counts: Mutex<BTreeMap<&'static str, [u64; 2]>>,
    /// Who was refused may try again.
    ended: Notify,
}

/// A directory that one task changes and backs up.
struct Volume {
    top: PathBuf,
    files: Files,
}

impl Volume {
    fn new(top: PathBuf) -> Self {
        fs::create_dir(&top).unwrap();
        Self { top, files: Files::new() }
    }

    /// Writes, rewrites, moves and removes some files. Sizes are few, so many a change leaves the size.
    fn change(&mut self, random: &mut StdRng) {
        for _ in 0..random.random_range(1..40) {
            let path = PathBuf::from(format!("{}/{}", random.random_range(0..6), random.random_range(0..60)));
            match random.random_range(0..10) {
                0 => self.remove(&path),
                1 => self.rename(&path, &path.with_extension("moved")),
                2 => self.write(path, noise(random, 2_500_000)),
                _ => {
                    let size = [0, 10, 1000, 20_000][random.random_range(0..4)];
                    self.write(path, noise(random, size));
                }
            }
        }
    }

    fn write(&mut self, path: PathBuf, content: Vec<u8>) {
        let full = self.top.join(&path);
        fs::create_dir_all(full.parent().unwrap()).unwrap();
        fs::write(full, &content).unwrap();
        self.files.insert(path, content);
    }

    fn remove(&mut self, path: &Path) {
        if self.files.remove(path).is_some() {
            fs::remove_file(self.top.join(path)).unwrap();
        }
    }

    fn rename(&mut self, from: &Path, to: &Path) {
        if let Some(content) = self.files.remove(from) {
            fs::rename(self.top.join(from), self.top.join(to)).unwrap();
            self.files.insert(to.to_owned(), content);
        }
    }
}

fn noise(random: &mut StdRng, size: usize) -> Vec<u8> {
    let mut bytes = vec![0; size];
    random.fill(&mut bytes[..]);
    bytes
}

fn read(top: &Path) -> Files {
    let mut files = Files::new();
    let mut folders = vec![top.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap().map(Result::unwrap) {
            let path = entry.path();
            match entry.file_type().unwrap().is_dir() {
                true => folders.push(path),
                false => drop(files.insert(path.strip_prefix(top).unwrap().to_owned(), fs::read(&path).unwrap())),
            }
        }
    }
    files
}

/// Whether it was done; a lock in the way is no failure.
fn unless_locked<T>(result: Result<T, Error>) -> Option<T> {
    match result {
        Err(Error::Locked { .. }) => None,
        other => Some(other.unwrap()),
    }
}

impl Soak {
    fn is_over(&self) -> bool {
        Instant::now() >= self.until
    }

    /// Counts an operation. Who was refused goes on when another is done.
    async fn record(&self, what: &'static str, done: bool) {
        self.counts.lock().unwrap().entry(what).or_default()[usize::from(!done)] += 1;
        if done {
            self.ended.notify_waiters();
        } else {
            drop(tokio::time::timeout(Duration::from_millis(300), self.ended.notified()).await);
        }
    }

    /// Changes a volume and backs it up, now and then with restic, until the end.
    async fn back_up(self: Arc<Self>, mut volume: Volume, mut random: StdRng) {
        while !self.is_over() {
            volume.change(&mut random);
            let (what, snapshot) = if random.random_bool(0.2) {
                ("restic's backup", self.restic_backup(&volume.top).await)
            } else {
                ("our backup", self.our_backup(&volume.top).await)
            };
            if let Some(snapshot) = snapshot {
                self.backups.lock().unwrap().insert(snapshot, volume.files.clone());
            }
            self.record(what, snapshot.is_some()).await;
        }
    }

    async fn our_backup(&self, top: &Path) -> Option<Id> {
        let report = match common::backup(&self.repository, top).await {
            Err(backup::Error::Repository(Error::Locked { .. })) => return None,
            other => other.unwrap(),
        };
        assert_eq!(report.problems, []);
        Some(report.snapshot)
    }

    async fn restic_backup(&self, top: &Path) -> Option<Id> {
        let said =
            self.restic(&["backup", "--json", "--tag", volume::TAG, "--tag", common::VOLUME, top.to_str()?]).await?;
        let summary: serde_json::Value = serde_json::from_str(said.lines().last().unwrap()).unwrap();
        let short = summary["snapshot_id"].as_str().unwrap().to_owned();
        let found = volume::find(&self.repository, common::VOLUME, &HostFilter::Any, Some(&short)).await.unwrap();
        Some(found.snapshot)
    }

    /// Forgets, prunes and checks, by us and by restic, until the end.
    async fn maintain(self: Arc<Self>, mut random: StdRng) {
        while !self.is_over() {
            let (what, done) = match random.random_range(0..6) {
                0 => ("our forget", self.forget(&mut random, false).await),
                1 => ("restic's forget", self.forget(&mut random, true).await),
                2 => ("our prune", self.prune(&mut random).await),
                3 => ("restic's prune", self.restic(&["prune", "--max-unused", "0"]).await.is_some()),
                4 => ("restic's check", self.restic(&["check"]).await.is_some()),
                _ => ("restic's check of data", self.restic(&["check", "--read-data"]).await.is_some()),
            };
            self.record(what, done).await;
        }
    }

    /// Forgets a backup, or by restic a quarter of them at once: so as many go as come, and there is an end to restoring
    /// them. They are out of the books before that.
    async fn forget(&self, random: &mut StdRng, by_restic: bool) -> bool {
        let picked: Vec<(Id, Files)> = {
            let mut backups = self.backups.lock().unwrap();
            let most = if by_restic { backups.len() / 4 } else { 1 };
            let ids = backups.keys().copied().sample(random, most.min(backups.len().saturating_sub(KEPT)));
            ids.into_iter().filter_map(|id| backups.remove_entry(&id)).collect()
        };
        let Some((first, _)) = picked.first() else { return true };
        let done = if by_restic {
            let ids: Vec<String> = picked.iter().map(|(id, _)| id.to_string()).collect();
            let arguments: Vec<&str> = iter::once("forget").chain(ids.iter().map(String::as_str)).collect();
            self.restic(&arguments).await.is_some()
        } else {
            unless_locked(self.repository.forget(first).await).is_some()
        };
        if !done {
            self.backups.lock().unwrap().extend(picked);
        }
        done
    }

    async fn prune(&self, random: &mut StdRng) -> bool {
        let max_unused_percent = [0.0, 5.0, 30.0][random.random_range(0..3)];
        let request = PruneRequest { max_unused_percent, repack_small: random.random_bool(0.3) };
        let control = Control::default();
        let Some(prune) = unless_locked(self.repository.prune(&request, &control).await) else { return false };
        unless_locked(prune.execute(&control).await.map(drop)).is_some()
    }

    /// Runs restic; what it printed, or nothing if a lock was in its way.
    async fn restic(&self, arguments: &[&str]) -> Option<String> {
        let mut command = Command::new("restic");
        command.args(["--no-cache", "-r"]).arg(&self.path).env("RESTIC_PASSWORD", common::PASSWORD).args(arguments);
        let output = tokio::task::spawn_blocking(move || command.output()).await.unwrap().unwrap();
        let [out, errors] = [output.stdout, output.stderr].map(|bytes| String::from_utf8_lossy(&bytes).into_owned());
        let locked = errors.contains("already locked") || out.contains("already locked");
        assert!(output.status.success() || locked, "restic {arguments:?}: {out}{errors}");
        output.status.success().then_some(out)
    }

    /// Restores every backup in the books; how many there are.
    async fn read_back(&self, folder: &Path) -> usize {
        let backups = self.backups.lock().unwrap().clone();
        let reader = self.repository.reader().await.unwrap();
        for (id, files) in &backups {
            let id = id.to_string();
            let target = folder.join("restored");
            let found = volume::find(&self.repository, common::VOLUME, &HostFilter::Any, Some(&id)).await.unwrap();
            let selection = selection::select(&reader, &found, None).await.unwrap();
            let plan = restore::plan(&reader, &found, &selection, &target).await.unwrap();
            let (progress, cancel) = (watch::Sender::default(), CancellationToken::new());
            let report = restore::apply(&reader, plan, false, progress, cancel).await.unwrap();
            assert!(report.problems.is_empty(), "{id}: {:?}", report.problems);
            let restored = read(&target);
            assert!(restored.keys().eq(files.keys()), "{id} holds other files");
            for (path, content) in files {
                assert!(restored[path] == *content, "{id}: {path:?} is not what it was");
            }
            fs::remove_dir_all(&target).unwrap();
        }
        let all = volume::all(&self.repository, common::VOLUME, &HostFilter::Any).await.unwrap();
        assert_eq!(all.len(), backups.len(), "what was forgotten is gone, and nothing else");
        backups.len()
    }
}

fn number(variable: &str) -> Option<u64> {
    env::var(variable).ok().map(|value| value.parse().unwrap())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn volume_backups_outlive_all_that_we_and_restic_do_beside_them() {
    let Some(_restic) = require::program("restic") else { return };
    let seconds = number("STILLPOINT_TEST_SOAK").unwrap_or(8);
    let seed = number("STILLPOINT_TEST_SOAK_SEED").unwrap_or_else(rand::random);
    eprintln!("{seconds} s; STILLPOINT_TEST_SOAK_SEED={seed} draws the same operations");
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("repository");
    let soak = Arc::new(Soak {
        repository: common::init(&path).await,
        path,
        until: Instant::now() + Duration::from_secs(seconds),
        backups: Mutex::default(),
        counts: Mutex::default(),
        ended: Notify::new(),
    });
    let random = |actor: u64| StdRng::seed_from_u64(seed.wrapping_add(actor));
    let mut actors = tokio::task::JoinSet::new();
    actors.spawn(soak.clone().back_up(Volume::new(folder.path().join("first")), random(0)));
    actors.spawn(soak.clone().back_up(Volume::new(folder.path().join("second")), random(1)));
    actors.spawn(soak.clone().maintain(random(2)));
    while let Some(ended) = actors.join_next().await {
        ended.unwrap();
    }
    soak.restic(&["check", "--read-data"]).await.expect("nobody holds a lock any more");
    assert!(soak.prune(&mut random(3)).await, "nobody holds a lock any more");
    let kept = soak.read_back(folder.path()).await;
    soak.restic(&["check", "--read-data"]).await.expect("nobody holds a lock any more");
    let counts = soak.counts.lock().unwrap().clone();
    eprintln!("{kept} backups kept; done and refused: {counts:#?}");
    assert!(kept > 0 && counts["our backup"][0] > 0, "nothing was tried");
}
