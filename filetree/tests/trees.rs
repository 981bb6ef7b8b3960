//! Random trees of every kind of node: what we restore is what restic restores, and what there was.

#![allow(clippy::unwrap_used, clippy::print_stderr)]

mod common;

use std::{
    collections::BTreeSet,
    env,
    os::unix::ffi::OsStrExt,
    path::{Path, PathBuf},
};

use common::{
    manifest::{Entry, Manifest, assert_equal, manifest},
    random,
};
use proptest::test_runner::{Config, RngSeed, TestRunner};
use stillpoint_repository::Repository;
use stillpoint_test_support::require;
use tempfile::TempDir;
use tokio::runtime::Runtime;

/// Trees that are tried.
const CASES: u32 = 10;

/// Tries random trees. The seed is printed: STILLPOINT_TEST_SEED repeats a run.
fn with_random_trees(test: impl Fn(&[random::Item])) {
    let seed = env::var("STILLPOINT_TEST_SEED").ok().and_then(|seed| seed.parse().ok());
    let seed = seed.unwrap_or_else(|| std::hash::BuildHasher::hash_one(&std::hash::RandomState::new(), 0));
    eprintln!("STILLPOINT_TEST_SEED={seed}");
    let config = Config {
        cases: CASES,
        max_shrink_iters: 20,
        rng_seed: RngSeed::Fixed(seed),
        failure_persistence: None,
        ..Config::default()
    };
    let run = TestRunner::new(config).run(&random::tree(common::is_root()), |items| {
        test(&items);
        Ok(())
    });
    if let Err(error) = run {
        panic!("with STILLPOINT_TEST_SEED={seed}: {error}");
    }
}

/// What restic 0.14 records or restores wrongly or not at all, of a source: sockets, and links whose target is no text.
fn lost_by_restic(source: &Manifest) -> BTreeSet<PathBuf> {
    let lost = |entry: &Entry| {
        let odd = |target: &PathBuf| std::str::from_utf8(target.as_os_str().as_bytes()).is_err();
        entry.kind == "socket" || entry.target.as_ref().is_some_and(odd)
    };
    source.iter().filter(|(_, entry)| lost(entry)).map(|(path, _)| path.clone()).collect()
}

/// A tree without what restic loses: some names, further names of what is no regular file, and holes. It reads a link's
/// target between the status of one of its names and the next, so they differ in the time of access.
fn as_restic_knows(manifest: Manifest, lost: &BTreeSet<PathBuf>) -> Manifest {
    let linked = |entry: Entry| Entry {
        linked: entry.linked.filter(|_| entry.kind == "file"),
        accessed: entry.accessed.filter(|_| entry.kind != "link"),
        ..entry
    };
    let known = manifest.into_iter().filter(|(path, _)| !lost.contains(path));
    without_storage(known.map(|(path, entry)| (path, linked(entry))).collect())
}

fn without_storage(manifest: Manifest) -> Manifest {
    manifest.into_iter().map(|(path, entry)| (path, Entry { stored: None, ..entry })).collect()
}

/// Leaves out times of access, which the backup itself changed, and those of the top.
fn without_access(manifest: Manifest) -> Manifest {
    manifest.into_iter().map(|(path, entry)| (path, Entry { accessed: None, ..entry })).collect()
}

/// No file takes more room than in the source, but for what a file system rounds up.
fn assert_holes(restored: &Manifest, source: &Manifest) {
    for (path, entry) in restored {
        let (Some(stored), Some(before)) = (entry.stored, source.get(path).and_then(|entry| entry.stored)) else {
            continue;
        };
        assert!(stored <= before + (64 << 10), "{path:?} takes {stored} bytes and took {before}");
    }
}

struct Case {
    folder: TempDir,
}

impl Case {
    fn new(items: &[random::Item]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        random::make(&folder.path().join("source"), items);
        Self { folder }
    }

    fn source(&self) -> PathBuf {
        self.folder.path().join("source")
    }

    /// Our restore of the newest backup.
    fn ours(&self, runtime: &Runtime, repository: &Repository) -> Manifest {
        let target = self.folder.path().join("ours");
        let report = runtime.block_on(common::restore(repository, &target)).unwrap();
        assert!(report.problems.is_empty(), "{:?}", report.problems);
        assert_eq!(report.verified.unwrap().bytes, report.counts.bytes);
        manifest(&target)
    }

    /// restic's restore of the newest backup.
    fn restics(&self, repository: &Path) -> Manifest {
        self.restics_into("restics", repository)
    }

    fn restics_into(&self, name: &str, repository: &Path) -> Manifest {
        let target = self.folder.path().join(name);
        common::restic(repository, &["restore", "latest", "--target", target.to_str().unwrap()]);
        manifest(&target.join(self.source().strip_prefix("/").unwrap()))
    }
}

#[test]
fn we_restore_restics_backups_as_restic_does_and_as_they_were() {
    let Some(_restic) = require::program("restic") else { return };
    let runtime = Runtime::new().unwrap();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("repository");
    let repository = runtime.block_on(common::init(&path));
    with_random_trees(|items| {
        let case = Case::new(items);
        common::restic_backup(&path, &case.source());
        let (ours, restics, source) = (case.ours(&runtime, &repository), case.restics(&path), manifest(&case.source()));
        assert_holes(&ours, &source);
        let lost = lost_by_restic(&source);
        let [ours, restics, source] = [ours, restics, source].map(|manifest| as_restic_knows(manifest, &lost));
        assert_equal(&ours, &restics, "our restore and restic's");
        assert_equal(&without_access(ours), &without_access(source), "our restore and the source");
    });
}

#[test]
fn our_backups_are_restored_by_restic_as_its_own_and_by_us_as_they_were() {
    let Some(_restic) = require::program("restic") else { return };
    let runtime = Runtime::new().unwrap();
    let folder = tempfile::tempdir().unwrap();
    let [path, path_of_restic] = ["ours", "restics"].map(|name| folder.path().join(name));
    let repository = runtime.block_on(common::init(&path));
    runtime.block_on(common::init(&path_of_restic));
    with_random_trees(|items| {
        let case = Case::new(items);
        let source = case.source();
        // neither keeps the time of the last access
        common::restic(&path_of_restic, &["backup", source.to_str().unwrap()]);
        let report = runtime.block_on(common::backup(&repository, &source)).unwrap();
        assert_eq!(report.problems, []);
        let by_restic = case.restics_into("ours-by-restic", &path);
        let restics = case.restics_into("restics", &path_of_restic);
        let (ours, source) = (case.ours(&runtime, &repository), manifest(&source));
        assert_holes(&ours, &source);
        let lost = lost_by_restic(&source);
        let [by_restic, restics] = [by_restic, restics].map(|manifest| as_restic_knows(manifest, &lost));
        assert_equal(&by_restic, &restics, "restic's restores of our backup and of its own");
        let [ours, source] = [ours, source].map(|manifest| without_access(without_storage(manifest)));
        assert_equal(&ours, &source, "our restore of our backup and the source");
    });
    common::restic(&path, &["check", "--read-data"]);
}
