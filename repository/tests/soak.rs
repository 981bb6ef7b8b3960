//! Lets our backups, checks, forgets and prunes and those of restic work on one repository at the same time.
//!
//! In random order, by a seed that is printed, for as long as STILLPOINT_TEST_SOAK says in seconds. Locks refuse much of
//! it: that is expected and counted. What must hold at the end: every backup that was committed and not forgotten reads
//! back byte for byte, by us and by restic, and neither side's check finds anything.

#![allow(clippy::unwrap_used, clippy::print_stderr)]

mod common;

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use common::{init, joined, local, meta, object, open, restic, restic_ok, time};
use futures::TryStreamExt;
use rand::{RngExt, SeedableRng, rngs::StdRng, seq::IteratorRandom};
use stillpoint_repository::{CheckRequest, Control, Error, Id, Node, PruneRequest, ReadData, Reader, Repository, Tree};
use stillpoint_test_support::require;
use tokio::sync::{Notify, RwLock};

/// The number in an environment variable.
fn number(variable: &str) -> Option<u64> {
    std::env::var(variable).ok().map(|value| value.parse().unwrap())
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Kind {
    OurBackup,
    OurForget,
    OurPrune,
    OurCheck,
    ResticBackup,
    ResticForget,
    ResticPrune,
    ResticCheck,
}

/// How one operation ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    Done,
    /// Somebody's lock was in the way.
    Refused,
}

/// One operation, for the counts at the end.
struct Operation {
    kind: Kind,
    end: End,
    from: Instant,
    to: Instant,
}

/// What a backup holds: so many objects of a revision.
type Written = (usize, usize);

/// Names and contents.
type Files = BTreeMap<String, Vec<u8>>;

/// Backups kept at least, so that there is something to read back.
const KEPT: usize = 3;

struct Soak {
    path: PathBuf,
    repository: Repository,
    source: PathBuf,
    until: Instant,
    /// Backups of ours that were committed and not forgotten.
    backups: Mutex<BTreeMap<Id, Written>>,
    /// restic's last backup.
    last_of_restic: Mutex<Option<Written>>,
    operations: Mutex<Vec<Operation>>,
    /// Held by writers while they write; who wants to be alone can wait for it, or just try.
    writing: RwLock<()>,
    /// An operation was done: who was refused may try again.
    ended: Notify,
}

fn content(count: usize, revision: usize) -> Vec<(String, Vec<u8>)> {
    let names = (0..count).map(|n| format!("object-{n:06}"));
    // a tenth changes with every revision, the rest every now and then
    let of = |n: usize| if n.is_multiple_of(10) { revision } else { revision / 8 };
    names.enumerate().map(|(n, name)| (name.clone(), object(&name, of(n)))).collect()
}

/// Files of one blob each, a few of them new in every revision.
fn small_files(count: usize, revision: usize) -> Vec<(String, Vec<u8>)> {
    let of = |n: usize| if n.is_multiple_of(7) { revision } else { 0 };
    (0..count / 10).map(|n| (format!("file-{n}"), format!("{n} of {}", of(n)).into_bytes())).collect()
}

/// All files of a directory.
async fn read(reader: &Reader, root: &Id, path: &str) -> Files {
    let directory = reader.find(root, path).await.unwrap().unwrap();
    let tree = reader.tree(&directory.subtree.unwrap()).await.unwrap();
    let mut files = Files::new();
    for node in tree.nodes() {
        let content = reader.content(node).unwrap().try_collect::<Vec<_>>().await.unwrap().concat();
        files.insert(node.name.to_str().unwrap().to_owned(), content);
    }
    files
}

fn refused<T>(result: Result<T, Error>) -> Result<Option<T>, Error> {
    match result {
        Err(Error::Locked { .. }) => Ok(None),
        other => other.map(Some),
    }
}

impl Soak {
    fn is_over(&self) -> bool {
        Instant::now() >= self.until
    }

    /// Takes an operation into the books. Who was refused tries again when another is done.
    async fn record(&self, kind: Kind, from: Instant, done: bool) {
        let end = if done { End::Done } else { End::Refused };
        self.operations.lock().unwrap().push(Operation { kind, end, from, to: Instant::now() });
        match end {
            End::Done => self.ended.notify_waiters(),
            End::Refused => drop(tokio::time::timeout(Duration::from_millis(500), self.ended.notified()).await),
        }
    }

    /// Backs up until the end.
    async fn write(self: Arc<Self>, mut random: StdRng) {
        let mut revision = random.random_range(0..1000);
        while !self.is_over() {
            revision += 1;
            let count = random.random_range(50..1500);
            let polite = random.random_bool(0.8);
            let turn = if polite { Some(self.writing.read().await) } else { None };
            let from = Instant::now();
            let written = refused(self.back_up(count, revision).await).unwrap();
            if let Some(id) = written {
                self.backups.lock().unwrap().insert(id, (count, revision));
            }
            drop(turn);
            self.record(Kind::OurBackup, from, written.is_some()).await;
        }
    }

    async fn back_up(&self, count: usize, revision: usize) -> Result<Id, Error> {
        let writer = self.repository.writer().await?;
        let mut file = writer.file_writer();
        for (name, line) in content(count, revision) {
            file.append(&name, &line).await?;
        }
        let lines = file.finish().await?;
        let mut files = Vec::new();
        for (name, bytes) in small_files(count, revision) {
            files.push(Node::file(name, writer.bytes(&bytes).await?, time()));
        }
        let files = writer.tree(Tree::new(files)?).await?;
        let inner = writer.tree(Tree::new(vec![Node::file("shop.jsonl", lines, time())])?).await?;
        let nodes = vec![Node::dir("resources", inner, time()), Node::dir("files", files, time())];
        let tree = writer.tree(Tree::new(nodes)?).await?;
        writer.commit(meta(tree)).await
    }

    /// Forgets, prunes and checks until the end.
    async fn maintain(self: Arc<Self>, mut random: StdRng) {
        while !self.is_over() {
            let alone = if random.random_bool(0.5) { Some(self.writing.write().await) } else { None };
            let from = Instant::now();
            let (kind, done) = match random.random_range(0..4) {
                0 | 1 => (Kind::OurForget, self.forget(&mut random).await),
                2 => (Kind::OurPrune, refused(self.prune(&mut random).await).unwrap().is_some()),
                _ => (Kind::OurCheck, refused(self.check(ReadData::None).await).unwrap().is_some()),
            };
            drop(alone);
            self.record(kind, from, done).await;
        }
    }

    /// Takes up to so many backups out of the books, for whoever is going to forget them.
    fn pick(&self, random: &mut StdRng, most: usize) -> Vec<(Id, Written)> {
        let mut backups = self.backups.lock().unwrap();
        let most = most.min(backups.len().saturating_sub(KEPT));
        let picked = backups.keys().copied().sample(random, most);
        picked.into_iter().filter_map(|id| backups.remove_entry(&id)).collect()
    }

    async fn forget(&self, random: &mut StdRng) -> bool {
        let picked = self.pick(random, 1);
        let Some((id, _)) = picked.first() else { return true };
        let done = refused(self.repository.forget(id).await).unwrap().is_some();
        if !done {
            self.backups.lock().unwrap().extend(picked);
        }
        done
    }

    async fn prune(&self, random: &mut StdRng) -> Result<(), Error> {
        let max_unused_percent = [0.0, 5.0, 30.0][random.random_range(0..3)];
        let request = PruneRequest { max_unused_percent, repack_small: random.random_bool(0.3) };
        let control = Control::default();
        let prune = self.repository.prune(&request, &control).await?;
        prune.execute(&control).await.map(drop)
    }

    async fn check(&self, read_data: ReadData) -> Result<(), Error> {
        let request = CheckRequest { read_data, without_lock: false };
        let report = self.repository.check(&request, &Control::default()).await?;
        assert_eq!(report.errors(), 0, "{report:#?}");
        Ok(())
    }

    /// Has restic do the same until the end.
    async fn run_restic(self: Arc<Self>, mut random: StdRng) {
        let mut revision = 0;
        while !self.is_over() {
            let alone = if random.random_bool(0.5) { Some(self.writing.write().await) } else { None };
            let from = Instant::now();
            let (kind, done) = match random.random_range(0..5) {
                0 => {
                    revision += 1;
                    (Kind::ResticBackup, self.restic_backup(random.random_range(50..1500), revision).await)
                }
                1 => (Kind::ResticForget, self.restic_forget(&mut random).await),
                2 => {
                    let unused = ["0", "5%", "30%"][random.random_range(0..3)];
                    (Kind::ResticPrune, self.restic(vec!["prune".into(), "--max-unused".into(), unused.into()]).await)
                }
                3 => (Kind::ResticCheck, self.restic(vec!["check".into()]).await),
                _ => {
                    let keep = ["forget", "--tag", "restic", "--keep-last", "2", "--prune"];
                    (Kind::ResticPrune, self.restic(keep.map(String::from).to_vec()).await)
                }
            };
            drop(alone);
            self.record(kind, from, done).await;
        }
    }

    async fn restic_backup(&self, count: usize, revision: usize) -> bool {
        std::fs::write(&self.source, joined(&content(count, revision))).unwrap();
        let source = self.source.to_str().unwrap().to_owned();
        let done = self.restic(vec!["backup".into(), "--tag".into(), "restic".into(), source]).await;
        if done {
            *self.last_of_restic.lock().unwrap() = Some((count, revision));
        }
        done
    }

    /// Forgets a quarter of the backups at once: so as many go as come, and there is an end to reading them back.
    async fn restic_forget(&self, random: &mut StdRng) -> bool {
        let quarter = self.backups.lock().unwrap().len() / 4;
        let picked = self.pick(random, quarter);
        if picked.is_empty() {
            return true;
        }
        let ids = picked.iter().map(|(id, _)| id.to_string());
        let done = self.restic(["forget".to_owned()].into_iter().chain(ids).collect()).await;
        if !done {
            self.backups.lock().unwrap().extend(picked);
        }
        done
    }

    /// Runs restic; whether it was done, or refused by a lock.
    async fn restic(&self, arguments: Vec<String>) -> bool {
        let path = self.path.clone();
        let shown = arguments.join(" ");
        let output = tokio::task::spawn_blocking(move || restic(&path, arguments)).await.unwrap();
        let said = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
        let locked = said.contains("already locked");
        assert!(output.status.success() || locked, "restic {shown}: {said}");
        output.status.success()
    }

    /// Reads every backup in the books, by us and some of them by restic too. Nobody else is at work any more.
    async fn read_back(&self) -> usize {
        let backups = self.backups.lock().unwrap().clone();
        let reader = self.repository.reader().await.unwrap();
        for (at, (id, (count, revision))) in backups.iter().enumerate() {
            let expected = Files::from([("shop.jsonl".into(), joined(&content(*count, *revision)))]);
            let tree = self.repository.snapshot(id).await.unwrap().tree;
            assert!(read(&reader, &tree, "/resources").await == expected, "{id}");
            let small = small_files(*count, *revision).into_iter().collect::<Files>();
            assert!(read(&reader, &tree, "/files").await == small, "{id}");
            if at.is_multiple_of(10) {
                let dump = ["--no-lock", "dump", &id.to_string(), "/resources/shop.jsonl"];
                assert!(restic_ok(&self.path, dump) == expected["shop.jsonl"], "{id}");
            }
        }
        if let Some((count, revision)) = *self.last_of_restic.lock().unwrap() {
            let dump = ["--no-lock", "dump", "--tag", "restic", "latest", self.source.to_str().unwrap()];
            assert!(restic_ok(&self.path, dump) == joined(&content(count, revision)));
        }
        let ours = self.repository.snapshots().await.unwrap();
        let ours = ours.iter().filter(|snapshot| snapshot.has_tag("stillpoint")).count();
        assert_eq!(ours, backups.len(), "what was forgotten is gone, and nothing else");
        backups.len()
    }

    /// Prints what happened, and fails if it was not what is to be tested.
    fn judge(&self, kept: usize) {
        let operations = self.operations.lock().unwrap();
        let mut counts: BTreeMap<Kind, [usize; 2]> = BTreeMap::new();
        for operation in operations.iter() {
            counts.entry(operation.kind).or_default()[usize::from(operation.end == End::Refused)] += 1;
        }
        for (kind, [done, refused]) in &counts {
            eprintln!("{kind:?}: {done} done, {refused} refused");
        }
        let overlap = |a: &Operation, b: &Operation| a.from < b.to && b.from < a.to;
        let is_backup = |operation: &&Operation| operation.kind == Kind::OurBackup && operation.end == End::Done;
        let others = || operations.iter().filter(|operation| operation.kind != Kind::OurBackup);
        let (mut beside_ours, mut beside_others) = (0, 0);
        for (at, backup) in operations.iter().enumerate().filter(|(_, operation)| is_backup(operation)) {
            beside_ours += operations[at + 1..].iter().filter(is_backup).filter(|other| overlap(backup, other)).count();
            beside_others += others().filter(|other| overlap(backup, other)).count();
        }
        eprintln!("{kept} backups kept; backups ran beside {beside_ours} of ours and {beside_others} other operations");
        assert!(beside_ours > 0 && beside_others > 0, "nothing ran at the same time");
        let done = |kind| counts.get(&kind).is_some_and(|[done, _]| *done > 0);
        assert!(done(Kind::OurBackup), "{counts:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn backups_outlive_all_that_we_and_restic_do_beside_them() {
    let Some(_restic) = require::program("restic") else { return };
    let seconds = number("STILLPOINT_TEST_SOAK").unwrap_or(10);
    let seed = number("STILLPOINT_TEST_SOAK_SEED").unwrap_or_else(rand::random);
    eprintln!("{seconds} s; STILLPOINT_TEST_SOAK_SEED={seed} draws the same operations");
    let folder = tempfile::tempdir().unwrap();
    let (path, store) = local(folder.path());
    init(&store).await;
    let soak = Arc::new(Soak {
        repository: open(&store).await,
        source: folder.path().join("source"),
        path: path.clone(),
        until: Instant::now() + Duration::from_secs(seconds),
        backups: Mutex::default(),
        last_of_restic: Mutex::default(),
        operations: Mutex::default(),
        writing: RwLock::new(()),
        ended: Notify::new(),
    });
    let random = |actor: u64| StdRng::seed_from_u64(seed.wrapping_add(actor));
    let mut actors = tokio::task::JoinSet::new();
    actors.spawn(soak.clone().write(random(0)));
    actors.spawn(soak.clone().write(random(1)));
    actors.spawn(soak.clone().maintain(random(2)));
    actors.spawn(soak.clone().run_restic(random(3)));
    while let Some(ended) = actors.join_next().await {
        ended.unwrap();
    }
    finish(&soak, &path).await;
}

async fn finish(soak: &Soak, path: &Path) {
    restic_ok(path, ["check", "--read-data"]);
    soak.check(ReadData::All).await.unwrap();
    let kept = soak.read_back().await;
    soak.prune(&mut StdRng::seed_from_u64(0)).await.unwrap();
    assert_eq!(soak.read_back().await, kept);
    restic_ok(path, ["check", "--read-data"]);
    soak.judge(kept);
}
