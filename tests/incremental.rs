//! A second backup of an unchanged cluster stores only what changed.
//!
//! Counted twice: by what the writer says it stored, and by what the folder grew.

#![allow(clippy::unwrap_used)]

mod common;

use std::{fs, path::Path};

use common::{
    backups::{self, back_up_strictly, namespaces},
    cluster::{config_map, config_maps, create, create_config_maps, create_namespace, delete, embedded, noise, patch},
};
use serde_json::json;
use stillpoint_repository::{Repository, Stats, Store};

const OBJECTS: usize = 5000;
/// Blobs of objects have 64 to 128 KiB on average; this one and its neighbours are known to have less than this.
const A_BLOB: u64 = 256 << 10;
/// What a backup of whatever cluster writes: manifest, trees, index, snapshot.
const OVERHEAD: u64 = 48 << 10;

fn size(folder: &Path) -> u64 {
    let entries = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap());
    entries.map(|entry| if entry.path().is_dir() { size(&entry.path()) } else { entry.metadata().unwrap().len() }).sum()
}

struct Taken {
    stats: Stats,
    grown: u64,
}

async fn take(client: &kube::Client, repository: &Repository, folder: &Path, name: &str) -> Taken {
    let before = size(folder);
    let report = back_up_strictly(client, repository, name, namespaces(&["proof"])).await.unwrap();
    Taken { stats: report.committed.stats, grown: size(folder) - before }
}

#[tokio::test(flavor = "multi_thread")]
#[allow(clippy::print_stdout, reason = "the figures of the proof")]
async fn an_unchanged_cluster_costs_next_to_nothing_and_a_changed_object_about_a_blob() {
    let cluster = embedded().await;
    let client = &cluster.client;
    create_namespace(client, "proof").await;
    create_config_maps(client, "proof", "some", OBJECTS, 1000).await;
    let folder = tempfile::tempdir().unwrap();
    let repository = backups::init(Store::from_url(folder.path().to_str().unwrap()).unwrap()).await;

    let first = take(client, &repository, folder.path(), "first").await;
    assert!(first.stats.bytes_new > OBJECTS as u64 * 1000, "{:?}", first.stats);
    assert!(first.grown > OBJECTS as u64 * 500, "{}", first.grown);

    let unchanged = take(client, &repository, folder.path(), "unchanged").await;
    println!("first {} bytes, unchanged {}: {:?}", first.grown, unchanged.grown, unchanged.stats);
    assert!(unchanged.stats.bytes_known > OBJECTS as u64 * 1000, "{:?}", unchanged.stats);
    assert!(unchanged.stats.bytes_new < OVERHEAD, "{:?}", unchanged.stats);
    assert!(unchanged.grown < OVERHEAD, "{}", unchanged.grown);

    let one = format!("{}/some-02500", config_maps("proof"));
    patch(client, &one, &json!({"data": {"text": noise(9999, 1000)}})).await;
    let changed = take(client, &repository, folder.path(), "changed").await;
    create(client, &config_maps("proof"), &config_map("some-02500-inserted", &noise(77, 1000))).await;
    let inserted = take(client, &repository, folder.path(), "inserted").await;
    delete(client, &one).await;
    let removed = take(client, &repository, folder.path(), "removed").await;
    for (what, taken) in [("changed", changed), ("inserted", inserted), ("removed", removed)] {
        println!("one {what}: {} bytes: {:?}", taken.grown, taken.stats);
        let more = taken.stats.blobs_new - unchanged.stats.blobs_new;
        assert!((1..=2).contains(&more), "{what}: {more} blobs more than an unchanged cluster");
        assert!(taken.stats.bytes_new - unchanged.stats.bytes_new < A_BLOB, "{what}: {:?}", taken.stats);
        assert!(taken.grown < OVERHEAD + A_BLOB, "{what}: {}", taken.grown);
    }
}
