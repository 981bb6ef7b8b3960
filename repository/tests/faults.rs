//! Fails every operation that the repository makes, one after the other, and looks at what is left.
//!
//! Each fault is tried as a refusal, as an answer that is lost, late or never comes, as half a write, and as the death of
//! the process. Time is paused, so that waiting for a lock to settle costs nothing.

#![allow(clippy::unwrap_used, clippy::print_stderr)]

mod common;

use std::sync::Arc;

use common::{content, init, joined, lines, meta, objects, open, password, root};
use futures::TryStreamExt;
use object_store::{ObjectStore, ObjectStoreExt, memory::InMemory, path::Path};
use stillpoint_repository::{Error, Id, Kdf, Repository, Store};
use stillpoint_test_support::faulty::{Fault, Faulty, copy_store};

const FAULTS: [Fault; 6] = [Fault::Refuse, Fault::LoseAnswer, Fault::Tear, Fault::Delay, Fault::Hang, Fault::Die];

fn store(objects: Arc<dyn ObjectStore>) -> Store {
    Store::new(objects, Path::from("prefix"), "test://store")
}

async fn backup(store: &Store, count: usize) -> Result<Id, Error> {
    common::backup(&Repository::open(store.clone(), &password()).await?, count).await
}

/// All snapshots of the store, by the number of objects in each; every byte of each is read.
async fn complete_snapshots(store: &Store, counts: &[usize]) -> Vec<usize> {
    let repository = open(store).await;
    let mut found = Vec::new();
    for snapshot in repository.snapshots().await.unwrap() {
        let content = content(&repository, &snapshot.id).await.unwrap();
        found.push(*counts.iter().find(|count| joined(&objects(**count)) == content).expect("a whole backup"));
    }
    found.sort_unstable();
    found
}

#[tokio::test(start_paused = true)]
async fn a_backup_is_complete_or_absent_whatever_fails_and_the_next_one_works() {
    let base = Arc::new(InMemory::new());
    init(&store(base.clone())).await;
    backup(&store(base.clone()), 300).await.unwrap();
    let (mut committed, mut absent) = (0, 0);
    for fault in FAULTS {
        for at in 0.. {
            let below = copy_store(&base).await;
            let faulty = Faulty::new(at, fault);
            let result = backup(&store(faulty.before(&below)), 400).await;
            if !faulty.has_struck() {
                result.unwrap();
                assert!(at > 15, "{at} operations are too few to be all");
                break;
            }
            let clean = store(below);
            match (result, &complete_snapshots(&clean, &[300, 400]).await[..]) {
                (_, [300, 400]) => committed += 1,
                (Err(_), [300]) => absent += 1,
                (result, found) => panic!("{fault:?} at {at}: {result:?} and {found:?}"),
            }
            backup(&clean, 500).await.unwrap();
            assert!(complete_snapshots(&clean, &[300, 400, 500]).await.contains(&500));
        }
    }
    assert!(committed > 0 && absent > 30, "{committed} {absent}");
}

#[tokio::test(start_paused = true)]
async fn a_store_that_never_answers_is_reported_within_20_seconds() {
    let below = Arc::new(InMemory::new());
    init(&store(below.clone())).await;
    let started = tokio::time::Instant::now();
    let hanging = store(Faulty::new(0, Fault::Hang).before(&below));
    let error = Repository::open(hanging, &password()).await.unwrap_err();
    assert!(matches!(error, Error::Unreachable { .. }), "{error:?}");
    assert!(started.elapsed() <= std::time::Duration::from_secs(20));
}

#[tokio::test(start_paused = true)]
async fn an_interrupted_init_can_be_run_again_and_leaves_one_key() {
    // half a config is no state that a store leaves: it is one small write
    for fault in FAULTS.into_iter().filter(|fault| *fault != Fault::Tear) {
        for at in 0.. {
            let below = Arc::new(InMemory::new());
            let faulty = Faulty::new(at, fault);
            let first = Repository::init(store(faulty.before(&below)), &password(), Kdf::fast_for_tests()).await;
            if !faulty.has_struck() {
                first.unwrap();
                assert!(at > 3);
                break;
            }
            let clean = store(below.clone());
            match Repository::open(clean.clone(), &password()).await {
                Ok(_) => {
                    let again = Repository::init(clean.clone(), &password(), Kdf::fast_for_tests()).await;
                    assert!(matches!(again, Err(Error::RepositoryExists { .. })), "{again:?}");
                }
                Err(Error::NoRepository { .. }) => drop(init(&clean).await),
                Err(error) => panic!("{fault:?} at {at}: {error}"),
            }
            backup(&clean, 3).await.unwrap();
            let keys: Vec<_> = below.list(Some(&Path::from("prefix/keys"))).try_collect().await.unwrap();
            assert_eq!(keys.len(), 1, "{fault:?} at {at}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_forget_removes_its_snapshot_or_nothing_whatever_fails() {
    let base = Arc::new(InMemory::new());
    init(&store(base.clone())).await;
    backup(&store(base.clone()), 20).await.unwrap();
    let doomed = backup(&store(base.clone()), 30).await.unwrap();
    for fault in FAULTS {
        for at in 0.. {
            let below = copy_store(&base).await;
            let faulty = Faulty::new(at, fault);
            let result = match Repository::open(store(faulty.before(&below)), &password()).await {
                Ok(repository) => repository.forget(&doomed).await,
                Err(error) => Err(error),
            };
            if !faulty.has_struck() {
                result.unwrap();
                break;
            }
            let left = complete_snapshots(&store(below), &[20, 30]).await;
            assert!(left == [20] || (left == [20, 30] && result.is_err()), "{fault:?} at {at}: {left:?}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pack_that_cannot_be_stored_ends_the_writer_long_before_the_commit() {
    let below = Arc::new(InMemory::new());
    init(&store(below.clone())).await;
    let faulty = Faulty::new(usize::MAX, Fault::Refuse);
    let repository = open(&store(faulty.before(&below))).await;
    let writer = repository.writer().await.unwrap();
    faulty.strike_next();
    let mut file = writer.file_writer();
    let mut error = None;
    for (name, line) in objects(200_000) {
        error = file.append(&name, &line).await.err();
        if error.is_some() {
            break;
        }
    }
    let error = error.expect("the writer takes no endless amount of data");
    assert!(matches!(error, Error::WriterFailed { .. }), "{error}");
    assert!(error.to_string().contains("injected"), "{error}");
    assert!(matches!(writer.bytes(b"more").await, Err(Error::WriterFailed { .. })));
    assert!(repository.snapshots().await.unwrap().is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_writer_that_is_dropped_leaves_no_snapshot_and_no_lock() {
    let below = Arc::new(InMemory::new());
    let repository = init(&store(below.clone())).await;
    let writer = repository.writer().await.unwrap();
    lines(&writer, objects(50)).await;
    drop(writer);
    assert!(repository.snapshots().await.unwrap().is_empty());
    let locks = Path::from("prefix/locks");
    while !below.list(Some(&locks)).try_collect::<Vec<_>>().await.unwrap().is_empty() {
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_commit_fails_once_its_lock_is_removed() {
    let below = Arc::new(InMemory::new());
    let repository = init(&store(below.clone())).await;
    let writer = repository.writer().await.unwrap();
    let content = lines(&writer, objects(50)).await;
    let tree = root(&writer, content).await;
    let locks: Vec<_> = below.list(Some(&Path::from("prefix/locks"))).try_collect().await.unwrap();
    for lock in locks {
        below.delete(&lock.location).await.unwrap();
    }
    let refused = writer.commit(meta(tree)).await;
    assert!(matches!(refused, Err(Error::LockLost { .. })), "{refused:?}");
    assert!(repository.snapshots().await.unwrap().is_empty());
}
