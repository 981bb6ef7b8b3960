//! Prunes repositories, fails every operation of it, and has restic look at what is left.

#![allow(clippy::unwrap_used, clippy::print_stderr)]

mod common;

use std::sync::Arc;

use common::{content, init, joined, lines, local, meta, objects, open, restic_ok, root};
use futures::TryStreamExt;
use object_store::{ObjectStore, ObjectStoreExt, memory::InMemory, path::Path};
use stillpoint_repository::{
    CheckReport, CheckRequest, Control, Error, Id, PART_TAG, PrunePlan, PruneReport, PruneRequest, ReadData,
    Repository, SnapshotMeta, Store,
};
use stillpoint_test_support::{
    faulty::{Fault, Faulty, copy_store},
    require,
};

const EAGER: PruneRequest = PruneRequest { max_unused_percent: 0.0, repack_small: false };

fn memory(objects: Arc<dyn ObjectStore>) -> Store {
    Store::new(objects, Path::from("prefix"), "test://store")
}

async fn backup(repository: &Repository, range: std::ops::Range<usize>) -> Id {
    let writer = repository.writer().await.unwrap();
    let content = lines(&writer, objects(range.end).split_off(range.start)).await;
    let tree = root(&writer, content).await;
    writer.commit(meta(tree)).await.unwrap()
}

async fn prune(repository: &Repository, request: &PruneRequest) -> Result<(PrunePlan, PruneReport), Error> {
    let control = Control::default();
    let prune = repository.prune(request, &control).await?;
    let plan = *prune.plan();
    Ok((plan, prune.execute(&control).await?))
}

async fn check(repository: &Repository) -> CheckReport {
    let request = CheckRequest { read_data: ReadData::All, without_lock: false };
    repository.check(&request, &Control::default()).await.unwrap()
}

fn expected(range: std::ops::Range<usize>) -> Vec<u8> {
    joined(&objects(range.end).split_off(range.start))
}

async fn size(store: &InMemory, folder: &str) -> (usize, u64) {
    let found: Vec<_> = store.list(Some(&Path::from(format!("prefix/{folder}")))).try_collect().await.unwrap();
    (found.len(), found.iter().map(|file| file.size).sum())
}

#[tokio::test(start_paused = true)]
async fn a_part_of_a_backup_that_was_never_committed_goes_with_all_that_it_kept() {
    let repository = init(&Store::memory()).await;
    let kept = backup(&repository, 0..200).await;
    let writer = repository.writer().await.unwrap();
    let part = lines(&writer, objects(900).split_off(300)).await;
    let tree = root(&writer, part).await;
    writer.commit(SnapshotMeta { tags: vec![PART_TAG.into()], ..meta(tree) }).await.unwrap();
    let (plan, report) = prune(&repository, &EAGER).await.unwrap();
    assert_eq!((plan.orphans, plan.snapshots), (1, 1));
    assert!(report.removed.count > 0);
    let left: Vec<_> = repository.snapshots().await.unwrap().into_iter().map(|snapshot| snapshot.id).collect();
    assert_eq!(left, [kept]);
    assert!(check(&repository).await.findings.is_empty());
    assert!(content(&repository, &kept).await.unwrap() == expected(0..200));
    assert!(prune(&repository, &EAGER).await.unwrap().0.is_empty());
}

#[tokio::test(start_paused = true)]
async fn what_no_snapshot_needs_goes_and_what_one_needs_stays() {
    let below = Arc::new(InMemory::new());
    let repository = init(&memory(below.clone())).await;
    let doomed = backup(&repository, 0..600).await;
    let kept = backup(&repository, 500..1000).await;
    repository.forget(&doomed).await.unwrap();
    let (packs, before) = size(&below, "data").await;

    let (plan, report) = prune(&repository, &EAGER).await.unwrap();
    let (left, after) = size(&below, "data").await;
    assert_eq!(plan.snapshots, 1);
    assert!(plan.repack.count > 0 && plan.copy.count < plan.needed.count, "{plan:?}");
    assert_eq!(report.removed.count, plan.repack.count + plan.delete.count);
    assert_eq!(left as u64, packs as u64 - report.removed.count + report.written.count);
    // headers of new packs are not counted before they are written
    assert!((before - after).abs_diff(plan.freed) < 1000, "{} freed, {} planned", before - after, plan.freed);
    assert!(content(&repository, &kept).await.unwrap() == expected(500..1000));
    assert!(check(&repository).await.findings.is_empty());

    let (again, _) = prune(&repository, &EAGER).await.unwrap();
    assert!(again.is_empty() && again.unused_left == 0, "{again:?}");
}

#[tokio::test(start_paused = true)]
async fn a_plan_changes_nothing_and_holds_the_lock() {
    let below = Arc::new(InMemory::new());
    let repository = init(&memory(below.clone())).await;
    let doomed = backup(&repository, 0..100).await;
    repository.forget(&doomed).await.unwrap();
    let before = (size(&below, "data").await, size(&below, "index").await);
    let control = Control::default();
    let planned = repository.prune(&EAGER, &control).await.unwrap();
    assert!(!planned.plan().is_empty());
    assert!(matches!(repository.writer().await.err(), Some(Error::Locked { exclusive: true, .. })));
    planned.abandon().await;
    assert_eq!((size(&below, "data").await, size(&below, "index").await), before);
    assert_eq!(size(&below, "locks").await.0, 0);
}

#[tokio::test(start_paused = true)]
async fn a_prune_waits_for_nobody_and_refuses_while_a_writer_works() {
    let repository = init(&memory(Arc::new(InMemory::new()))).await;
    let writer = repository.writer().await.unwrap();
    let refused = prune(&repository, &EAGER).await;
    assert!(matches!(refused, Err(Error::Locked { exclusive: false, .. })), "{refused:?}");
    writer.abandon().await;
    prune(&repository, &EAGER).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_lost_lock_ends_a_prune_before_it_removes_anything() {
    let below = Arc::new(InMemory::new());
    let repository = init(&memory(below.clone())).await;
    let doomed = backup(&repository, 0..100).await;
    repository.forget(&doomed).await.unwrap();
    let control = Control::default();
    let planned = repository.prune(&EAGER, &control).await.unwrap();
    let locks: Vec<_> = below.list(Some(&Path::from("prefix/locks"))).try_collect().await.unwrap();
    assert_eq!(locks.len(), 1);
    unlock(&below).await;
    let before = (size(&below, "data").await, size(&below, "index").await);
    let lost = planned.execute(&control).await;
    assert!(matches!(lost, Err(Error::LockLost { .. })), "{lost:?}");
    assert_eq!((size(&below, "data").await, size(&below, "index").await), before);
}

/// Removes all locks: what looks dead to the store is this process, so its lock is not stale by itself.
async fn unlock(below: &InMemory) {
    for lock in below.list(Some(&Path::from("prefix/locks"))).try_collect::<Vec<_>>().await.unwrap() {
        below.delete(&lock.location).await.unwrap();
    }
}

/// A repository with something for every step: packs to copy, to delete and that no index names.
async fn littered() -> (Arc<InMemory>, Id) {
    let below = Arc::new(InMemory::new());
    let repository = init(&memory(below.clone())).await;
    let doomed = backup(&repository, 0..300).await;
    let kept = backup(&repository, 200..400).await;
    let wholly = backup(&repository, 600..700).await;
    for id in [doomed, wholly] {
        repository.forget(&id).await.unwrap();
    }
    below.put(&Path::from(format!("prefix/data/00/{}", "0".repeat(64))), "litter".into()).await.unwrap();
    (below, kept)
}

#[tokio::test(start_paused = true)]
async fn a_prune_that_fails_anywhere_loses_nothing_and_the_next_one_finishes() {
    let (base, kept) = littered().await;
    let (mut struck, mut left_over) = (0, 0);
    for fault in [Fault::Refuse, Fault::LoseAnswer, Fault::Hang, Fault::Die] {
        for at in 0.. {
            let below = copy_store(&base).await;
            let faulty = Faulty::new(at, fault);
            let result = match Repository::open(memory(faulty.before(&below)), &common::password()).await {
                Ok(repository) => prune(&repository, &EAGER).await.map(drop),
                Err(error) => Err(error),
            };
            if !faulty.has_struck() {
                result.unwrap();
                assert!(at > 20, "{at} operations are too few to be all");
                break;
            }
            struck += 1;
            unlock(&below).await;
            let repository = open(&memory(below.clone())).await;
            assert!(content(&repository, &kept).await.unwrap() == expected(200..400), "{fault:?} at {at}: {result:?}");
            assert_eq!(check(&repository).await.errors(), 0, "{fault:?} at {at}");
            let (plan, _) = prune(&repository, &EAGER).await.unwrap();
            left_over += u64::from(plan.duplicates.count > 0);
            let report = check(&repository).await;
            assert!(report.findings.is_empty(), "{fault:?} at {at}: {report:#?}");
            assert!(content(&repository, &kept).await.unwrap() == expected(200..400), "{fault:?} at {at}");
        }
    }
    assert!(struck > 80 && left_over > 0, "{struck} {left_over}");
}

#[tokio::test(start_paused = true)]
async fn a_prune_refuses_by_name_what_it_cannot_read() {
    let (base, _) = littered().await;
    for folder in ["snapshots", "index", "data"] {
        let files: Vec<_> = base.list(Some(&Path::from(format!("prefix/{folder}")))).try_collect().await.unwrap();
        let mut refusals = 0;
        for file in files {
            for torn in [false, true] {
                let below = copy_store(&base).await;
                let repository = open(&memory(below.clone())).await;
                let mut bytes = below.get(&file.location).await.unwrap().bytes().await.unwrap().to_vec();
                if torn {
                    bytes.truncate(10)
                } else {
                    bytes[3] ^= 1
                }
                below.put(&file.location, bytes.into()).await.unwrap();
                let before = size(&below, "data").await.0;
                let Err(error) = prune(&repository, &EAGER).await else { continue };
                refusals += 1;
                let name = file.location.filename().unwrap();
                assert!(matches!(error, Error::NeedsUnknown { .. }), "{error}");
                assert!(error.to_string().contains(name), "{name}: {error}");
                assert!(size(&below, "data").await.0 >= before, "nothing is removed");
            }
        }
        assert!(refusals > 0, "{folder}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_damaged_copy_of_a_blob_is_replaced_by_a_sound_one_before_that_goes() {
    let below = Arc::new(InMemory::new());
    let store = memory(below.clone());
    let repository = init(&store).await;
    // side by side, so that both store everything
    let (a, b) = (repository.writer().await.unwrap(), repository.writer().await.unwrap());
    let mut snapshots = Vec::new();
    for (writer, count) in [(a, 300), (b, 400)] {
        let content = lines(&writer, objects(count)).await;
        let tree = root(&writer, content).await;
        snapshots.push(writer.commit(meta(tree)).await.unwrap());
    }
    let mut packs: Vec<_> = below.list(Some(&Path::from("prefix/data"))).try_collect().await.unwrap();
    packs.sort_by_key(|pack| pack.size);
    let kept = &packs.last().unwrap().location;
    let mut bytes = below.get(kept).await.unwrap().bytes().await.unwrap().to_vec();
    bytes[100] ^= 1;
    below.put(kept, bytes.into()).await.unwrap();

    let (plan, report) = prune(&repository, &EAGER).await.unwrap();
    assert!(plan.duplicates.count > 0 && plan.repack.count > 0, "{plan:?}");
    assert_eq!(report.rescued, 1);
    assert!(content(&repository, &snapshots[0]).await.unwrap() == expected(0..300));
    assert!(content(&repository, &snapshots[1]).await.unwrap() == expected(0..400));
}

#[tokio::test(flavor = "multi_thread")]
async fn restic_is_content_with_what_our_prune_leaves_and_we_with_what_its_prune_leaves() {
    let Some(_restic) = require::program("restic") else { return };
    let folder = tempfile::tempdir().unwrap();
    let (path, store) = local(folder.path());
    let repository = init(&store).await;
    let source = folder.path().join("source");
    std::fs::write(&source, expected(0..3000)).unwrap();
    let tags = ["stillpoint", "stillpoint-volume", "anything"];
    for tag in tags {
        restic_ok(&path, ["backup", "--tag", tag, source.to_str().unwrap()]);
    }
    let doomed = backup(&repository, 0..500).await;
    let kept = backup(&repository, 400..800).await;
    repository.forget(&doomed).await.unwrap();
    let gathering = PruneRequest { repack_small: true, ..EAGER };
    let (plan, report) = prune(&repository, &gathering).await.unwrap();
    assert_eq!((plan.snapshots, report.rescued), (4, 0));
    assert!(plan.freed > 0 && report.removed.count > report.written.count, "{plan:?} {report:?}");
    let checked = restic_ok(&path, ["check", "--read-data"]);
    assert!(!String::from_utf8_lossy(&checked).contains("duplicate"));
    for tag in tags {
        let dumped = restic_ok(&path, ["dump", "--tag", tag, "latest", source.to_str().unwrap()]);
        assert!(dumped == expected(0..3000), "{tag}");
    }

    restic_ok(&path, ["forget", "--tag", "anything", "--keep-last", "1", "--prune"]);
    restic_ok(&path, ["prune", "--max-unused", "0"]);
    let report = check(&repository).await;
    assert!(report.findings.is_empty(), "{report:#?}");
    assert!(content(&repository, &kept).await.unwrap() == expected(400..800));
    let (plan, _) = prune(&repository, &EAGER).await.unwrap();
    assert!(plan.is_empty(), "{plan:?}");
}
