//! Disks that are full or read-only: what is said, what is left, and that the next run works.
//!
//! On small file systems of the test's own, of two kinds: one that allocates at once, and one that may find out late.

#![allow(clippy::unwrap_used)]

mod common;

use std::path::{Path, PathBuf};

use common::{backup, content, init, joined, local, objects, open, restic_ok};
use stillpoint_repository::{Error, Id, Repository};
use stillpoint_test_support::{disk::Disk, require};

fn files(folder: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    entries.flat_map(|path| if path.is_dir() { files(&path) } else { vec![path] }).collect()
}

/// Every file is what its name says: nothing half-written lies about, under its own name or another.
fn holds_whole_files_only(repository: &Path) {
    for path in files(repository).into_iter().filter(|path| !path.ends_with("config")) {
        let id = Id::of(&std::fs::read(&path).unwrap()).to_string();
        assert_eq!(path.file_name().unwrap().to_str().unwrap(), id, "{}", path.display());
    }
}

fn is_full(error: &Error) -> bool {
    match error {
        Error::WriterFailed { source } => is_full(source),
        error => matches!(error, Error::Full { .. }) && error.to_string().contains("is full"),
    }
}

async fn a_backup_that_does_not_fit(disk: &Disk) {
    let (path, store) = local(&disk.path());
    let repository = init(&store).await;
    let first = backup(&repository, 1_000).await.unwrap();
    let ballast = disk.fill(3 << 10);
    let error = backup(&repository, 10_000).await.unwrap_err();
    assert!(is_full(&error), "{error:?}");
    holds_whole_files_only(&path);
    let repository = open(&store).await;
    assert_eq!(repository.snapshots().await.unwrap().len(), 1);
    assert!(content(&repository, &first).await.unwrap() == joined(&objects(1_000)));

    std::fs::remove_file(ballast).unwrap();
    let second = backup(&repository, 8_000).await.unwrap();
    assert!(content(&repository, &second).await.unwrap() == joined(&objects(8_000)));
    holds_whole_files_only(&path);
    if require::program("restic").is_some() {
        restic_ok(&path, ["check", "--read-data"]);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_backup_that_does_not_fit_leaves_nothing_half_written_and_the_next_one_works() {
    let Some(memory) = Disk::tmpfs(48) else { return };
    a_backup_that_does_not_fit(&memory).await;
    let Some(ext4) = Disk::ext4(64) else { return };
    a_backup_that_does_not_fit(&ext4).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn on_a_disk_without_a_free_byte_everything_can_still_be_read() {
    let Some(disk) = Disk::tmpfs(16) else { return };
    let (path, store) = local(&disk.path());
    let snapshot = backup(&init(&store).await, 1_000).await.unwrap();
    let ballast = disk.fill(0);
    let repository = open(&store).await;
    assert!(content(&repository, &snapshot).await.unwrap() == joined(&objects(1_000)));
    let error = repository.writer().await.map(drop).unwrap_err();
    assert!(is_full(&error), "{error:?}");
    let other = local(&disk.path().join("other")).1;
    let error =
        Repository::init(other.clone(), &common::password(), stillpoint_repository::Kdf::fast_for_tests()).await;
    assert!(error.as_ref().is_err_and(is_full), "{error:?}");
    holds_whole_files_only(&path);
    std::fs::remove_file(ballast).unwrap();
    drop(repository.writer().await.unwrap());
    init(&other).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_read_only_disk_can_be_read_and_says_so_when_it_is_written() {
    let Some(disk) = Disk::tmpfs(16) else { return };
    let (_, store) = local(&disk.path());
    let snapshot = backup(&init(&store).await, 1_000).await.unwrap();
    disk.remount("ro");
    let repository = open(&store).await;
    assert!(content(&repository, &snapshot).await.unwrap() == joined(&objects(1_000)));
    let other = local(&disk.path().join("other")).1;
    let new = Repository::init(other, &common::password(), stillpoint_repository::Kdf::fast_for_tests()).await;
    for error in
        [repository.writer().await.map(drop), repository.forget(&snapshot).await, new.map(drop)].map(Result::unwrap_err)
    {
        assert!(matches!(error, Error::ReadOnly { .. }), "{error:?}");
        assert!(error.to_string().contains("Read-only file system"), "{error}");
    }
    disk.remount("rw");
    backup(&repository, 1_100).await.unwrap();
}
