//! Runs that end without a commit, asked to or not: what they had uploaded is not uploaded again.

#![allow(clippy::unwrap_used)]

mod common;

use std::{sync::Arc, time::Duration};

use common::{init, lines, meta, objects, root};
use futures::TryStreamExt;
use object_store::{ObjectStore, ObjectStoreExt, memory::InMemory, path::Path};
use stillpoint_repository::{Repository, Store, Writer};
use tokio::time;

/// Fill a pack of 16 MiB and some of a second.
const OBJECTS: usize = 45_000;
/// What a full pack holds at least.
const PACK: u64 = 15 << 20;

async fn names(below: &InMemory, folder: &str) -> Vec<Path> {
    let listed = below.list(Some(&Path::from(folder))).map_ok(|object| object.location);
    listed.try_collect().await.unwrap()
}

async fn begin() -> (Arc<InMemory>, Repository) {
    let below = Arc::new(InMemory::new());
    let store = Store::new(below.clone(), Path::from(""), "test://store");
    (below, init(&store).await)
}

/// Stores the objects and waits until a pack is uploaded; the second is not full.
async fn upload(below: &InMemory, repository: &Repository) -> Writer {
    let writer = repository.writer().await.unwrap();
    lines(&writer, objects(OBJECTS)).await;
    let uploaded = async {
        while names(below, "data").await.is_empty() {
            time::sleep(Duration::from_millis(1)).await;
        }
    };
    time::timeout(Duration::from_secs(5), uploaded).await.unwrap();
    writer
}

/// Stores the same once more and commits it; how many bytes had to be uploaded.
async fn uploads_again(repository: &Repository) -> u64 {
    let writer = repository.writer().await.unwrap();
    let content = lines(&writer, objects(OBJECTS)).await;
    let tree = root(&writer, content).await;
    let stats = writer.stats();
    writer.commit(meta(tree)).await.unwrap();
    stats.bytes_packed
}

#[tokio::test]
async fn what_a_writer_that_gives_up_has_uploaded_is_not_uploaded_again() {
    let (below, repository) = begin().await;
    let writer = upload(&below, &repository).await;
    let all = writer.stats().bytes_packed;
    writer.abandon().await;
    assert!(uploads_again(&repository).await < all - PACK);
}

#[tokio::test(start_paused = true)]
async fn what_a_writer_that_is_killed_had_uploaded_for_some_seconds_is_not_uploaded_again() {
    let (below, repository) = begin().await;
    let writer = upload(&below, &repository).await;
    let all = writer.stats().bytes_packed;
    assert!(names(&below, "index").await.is_empty());
    time::sleep(Duration::from_secs(16)).await;
    drop(writer);
    assert!(uploads_again(&repository).await < all - PACK);
}

async fn lose_the_lock(below: &InMemory) {
    for lock in names(below, "locks").await {
        below.delete(&lock).await.unwrap();
    }
}

#[tokio::test]
async fn a_writer_that_gives_up_without_its_lock_indexes_nothing() {
    let (below, repository) = begin().await;
    let writer = upload(&below, &repository).await;
    lose_the_lock(&below).await;
    writer.abandon().await;
    assert!(names(&below, "index").await.is_empty(), "a prune may have removed the packs");
}

#[tokio::test(start_paused = true)]
async fn a_writer_that_has_lost_its_lock_indexes_nothing_in_between() {
    let (below, repository) = begin().await;
    let writer = upload(&below, &repository).await;
    lose_the_lock(&below).await;
    time::sleep(Duration::from_secs(16)).await;
    drop(writer);
    assert!(names(&below, "index").await.is_empty(), "a prune may have removed the packs");
}
