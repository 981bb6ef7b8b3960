//! Fails every operation that a backup of a directory makes, one after the other, and looks at what is left.
//!
//! Each time there is a complete backup or none, and the next run works. Time is paused, so that waiting for a lock to
//! settle costs nothing; the clock stands still while the backup's own threads work.

#![allow(clippy::unwrap_used)]

use std::{fs, path::PathBuf, sync::Arc};

use futures::TryStreamExt;
use object_store::{memory::InMemory, path::Path};
use stillpoint_filetree::{
    backup::{self, Error, Report, Request},
    volume::{self, HostFilter, VolumeBackup},
};
use stillpoint_repository::{Id, Kdf, Password, Repository, Store};
use stillpoint_test_support::faulty::{Fault, Faulty, copy_store};
use tokio::sync::watch;

fn store(objects: Arc<dyn object_store::ObjectStore>) -> Store {
    Store::new(objects, Path::from("prefix"), "test://store")
}

fn password() -> Password {
    Password::new("test")
}

/// The files of each version of the directory: small ones, and one of several pieces.
fn files(version: u8) -> Vec<(String, Vec<u8>)> {
    let small = (0..8).map(|n| (format!("d{}/small-{n}", n % 2), vec![n + version * (n % 3); 100 + usize::from(n)]));
    let noise = (0u32..600_000).flat_map(|n| n.wrapping_mul(2_654_435_761 + u32::from(version)).to_le_bytes());
    small.chain([("large".to_owned(), noise.collect())]).collect()
}

fn write(folder: &std::path::Path, version: u8) {
    for (name, content) in files(version) {
        let path = folder.join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, content).unwrap();
    }
}

async fn backup(store: &Store, folder: PathBuf) -> Result<Report, Error> {
    let repository = Repository::open(store.clone(), &password()).await?;
    let request = Request::new("data", "host", vec![folder]);
    backup::backup(&repository, &request, watch::Sender::default()).await
}

/// Which versions are backed up; every byte of each is read.
async fn complete(store: &Store, folder: &std::path::Path) -> Vec<u8> {
    let repository = Repository::open(store.clone(), &password()).await.unwrap();
    let mut found = Vec::new();
    for backup in volume::all(&repository, "data", &HostFilter::Any).await.unwrap_or_default() {
        let mut version = None;
        for candidate in 0..3 {
            if holds(&repository, &backup, folder, candidate).await {
                version = Some(candidate);
            }
        }
        found.push(version.expect("a whole backup"));
    }
    found
}

async fn holds(repository: &Repository, backup: &VolumeBackup, folder: &std::path::Path, version: u8) -> bool {
    let reader = repository.reader().await.unwrap();
    for (name, content) in files(version) {
        let path = folder.join(name);
        let node = reader.find(&backup.tree, path.to_str().unwrap()).await.unwrap().unwrap();
        let read: Vec<_> = reader.content(&node).unwrap().try_collect().await.unwrap();
        if read.concat() != content {
            return false;
        }
    }
    true
}

async fn each_operation_meets(fault: Fault) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().canonicalize().unwrap();
    let base = Arc::new(InMemory::new());
    Repository::init(store(base.clone()), &password(), Kdf::fast_for_tests()).await.unwrap();
    write(&path, 0);
    backup(&store(base.clone()), path.clone()).await.unwrap();
    write(&path, 1);
    let (mut committed, mut absent) = (0, 0);
    for at in 0.. {
        let below = copy_store(&base).await;
        let faulty = Faulty::new(at, fault);
        let result = backup(&store(faulty.before(&below)), path.clone()).await;
        if !faulty.has_struck() {
            assert_eq!(result.unwrap().problems, []);
            assert!(at > 15, "{at} operations are too few to be all");
            break;
        }
        let clean = store(below);
        match (&result, &complete(&clean, &path).await[..]) {
            (_, [0, 1]) => committed += 1,
            (Err(_), [0]) => absent += 1,
            (result, found) => panic!("{fault:?} at {at}: {:?} and {found:?}", result.as_ref().map(drop)),
        }
        let next: Id = backup(&clean, path.clone()).await.unwrap().snapshot;
        assert!(complete(&clean, &path).await.ends_with(&[1]), "{fault:?} at {at}: {next}");
    }
    assert!(if fault == Fault::Delay { committed > 15 } else { absent > 10 }, "{committed} {absent}");
}

#[tokio::test(start_paused = true)]
async fn a_refused_operation_leaves_a_complete_backup_or_none() {
    each_operation_meets(Fault::Refuse).await;
}

#[tokio::test(start_paused = true)]
async fn a_lost_answer_leaves_a_complete_backup_or_none() {
    each_operation_meets(Fault::LoseAnswer).await;
}

#[tokio::test(start_paused = true)]
async fn a_torn_write_leaves_a_complete_backup_or_none() {
    each_operation_meets(Fault::Tear).await;
}

/// In real time: what is late on a clock that stands still while threads wait for it never comes.
#[tokio::test(flavor = "multi_thread")]
async fn a_late_answer_changes_nothing() {
    each_operation_meets(Fault::Delay).await;
}

#[tokio::test(start_paused = true)]
async fn a_death_leaves_a_complete_backup_or_none() {
    each_operation_meets(Fault::Die).await;
}
