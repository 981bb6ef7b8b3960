//! One behaviour of all stores, asked of each of them.
//!
//! The servers are real where there is one that runs here. What differs between providers shows only in answers, so
//! that none of it is left out for any of them.

use std::{num::NonZeroU32, time::Instant};

use futures::{StreamExt, TryStreamExt, future, stream};
use stillpoint_test_support::{
    bucket::{self, Bucket},
    gcs::{Gcs, READER},
};

use super::*;

fn store(bucket: &Bucket, prefix: &str) -> Store {
    Store::from_url_with(&format!("{}/{prefix}", bucket.url), bucket.variables.clone()).unwrap()
}

fn bytes(text: &'static str) -> Bytes {
    Bytes::from_static(text.as_bytes())
}

/// All that a repository asks of a store.
async fn behaves(store: &Store) {
    store.create_folders().await.unwrap();
    small_files(store).await;
    removals(store).await;
    odd_content(store).await;
    one_creator_of_sixteen(store).await;
    a_large_file(store).await;
}

async fn small_files(store: &Store) {
    assert!(store.get("config", 10).await.unwrap_err().is_missing());
    assert!(store.list("keys").await.unwrap().is_empty());

    store.create("config", bytes("0123456789")).await.unwrap();
    let again = store.create("config", bytes("x")).await.unwrap_err();
    assert!(matches!(again, Error::FileExists { .. }), "{again:?}");
    assert_eq!(store.get("config", 10).await.unwrap(), "0123456789");
    let large = store.get("config", 9).await.unwrap_err();
    assert!(matches!(large, Error::TooLarge { limit: 9, .. }), "{large:?}");

    assert_eq!(store.get_range("config", 2..5).await.unwrap(), "234");
    assert_eq!(store.get_range("config", 0..10).await.unwrap(), "0123456789");
    store.get_range("config", 8..12).await.unwrap_err();
    store.get_range("config", 10..12).await.unwrap_err();
    let missing = store.get_range("data/00/none", 0..1).await.unwrap_err();
    assert!(missing.is_missing(), "{missing:?}");
}

async fn removals(store: &Store) {
    store.put("data/ab/abc", bytes("p")).await.unwrap();
    store.put("data/ab/abc", bytes("qq")).await.unwrap();
    store.put("data/abc", bytes("beside")).await.unwrap();
    store.put("database/x", bytes("not below data")).await.unwrap();
    let listed = store.list("data").await.unwrap();
    assert_eq!(listed, [Entry { name: "ab/abc".into(), size: 2 }, Entry { name: "abc".into(), size: 6 }]);
    for path in ["data/ab/abc", "data/abc", "database/x"] {
        store.delete(path).await.unwrap();
        store.delete(path).await.unwrap();
    }
    store.delete("snapshots/never").await.unwrap();
    assert!(store.list("data").await.unwrap().is_empty());
}

async fn odd_content(store: &Store) {
    store.put("locks/empty", Bytes::new()).await.unwrap();
    assert_eq!(store.get("locks/empty", 10).await.unwrap(), "");
    assert_eq!(store.list("locks").await.unwrap(), [Entry { name: "empty".into(), size: 0 }]);
    store.put("stillpoint/evidence/a b+c%41&<d>", bytes("odd")).await.unwrap();
    assert_eq!(store.get("stillpoint/evidence/a b+c%41&<d>", 10).await.unwrap(), "odd");
    assert_eq!(store.list("stillpoint").await.unwrap(), [Entry { name: "evidence/a b+c%41&<d>".into(), size: 3 }]);
}

async fn one_creator_of_sixteen(store: &Store) {
    let contents: Vec<_> = (0..16).map(|n| Bytes::from(format!("creator {n}"))).collect();
    let race = contents.iter().map(|content| store.create("stillpoint/race", content.clone()));
    let results = future::join_all(race).await;
    let winners: Vec<_> = results.iter().zip(&contents).filter(|(result, _)| result.is_ok()).collect();
    assert_eq!(winners.len(), 1, "{results:?}");
    assert_eq!(store.get("stillpoint/race", 100).await.unwrap(), *winners[0].1);
    let beaten = |result: &&Result<(), Error>| matches!(result, Err(Error::FileExists { .. }));
    assert_eq!(results.iter().filter(beaten).count(), 15, "{results:?}");
}

async fn a_large_file(store: &Store) {
    let content: Bytes = (0..20_u32 << 18).flat_map(u32::to_le_bytes).collect();
    store.put("data/cd/large", content.clone()).await.unwrap();
    assert!(store.get("data/cd/large", 64 << 20).await.unwrap() == content);
    let (start, end) = (5 << 20, (5 << 20) + 1234);
    assert_eq!(store.get_range("data/cd/large", start..end).await.unwrap(), content[5 << 20..(5 << 20) + 1234]);
}

/// More files than fit into one page of a list.
async fn lists(store: &Store, count: usize) {
    let names: Vec<_> = (0..count).map(|n| format!("{:02x}/{n:06}", n % 7)).collect();
    let puts = names.iter().map(|name| async move { store.put(&format!("data/{name}"), bytes("x")).await });
    stream::iter(puts).buffer_unordered(32).try_collect::<()>().await.unwrap();
    let mut expected = names.clone();
    expected.sort();
    let listed: Vec<_> = store.list("data").await.unwrap().into_iter().map(|entry| entry.name).collect();
    assert!(listed == expected, "{} of {count}", listed.len());
}

/// A bucket that is not there is said to be so, whatever is asked of it.
async fn misses_its_bucket(bucket: &Bucket) {
    let store = store(&bucket.absent(), "prefix");
    for result in [
        store.get("config", 10).await.map(drop),
        store.get_range("config", 0..10).await.map(drop),
        store.list("data").await.map(drop),
        store.put("data/x", bytes("x")).await,
        store.create("config", bytes("x")).await,
    ] {
        assert!(matches!(result, Err(Error::BucketAbsent { .. })), "{result:?}");
    }
}

/// Prefixes that could meet each other or need quoting hold repositories of their own.
async fn keeps_prefixes_apart(bucket: &Bucket) {
    let prefixes = ["", "a", "a/b", "a%20b", "A", "%C3%BC+%26", "a.b-c_d~e"];
    let stores: Vec<_> = prefixes.iter().map(|prefix| store(bucket, prefix)).collect();
    for (store, prefix) in stores.iter().zip(prefixes) {
        store.create("config", prefix.into()).await.unwrap();
        store.put("index/x", prefix.into()).await.unwrap();
    }
    for (store, prefix) in stores.iter().zip(prefixes) {
        assert_eq!(store.get("config", 100).await.unwrap(), prefix);
        let listed = store.list("index").await.unwrap();
        assert_eq!(listed, [Entry { name: "x".into(), size: prefix.len() as u64 }], "{prefix}");
    }
}

#[tokio::test]
async fn memory_and_local_files_behave_alike() {
    behaves(&Store::memory()).await;
    lists(&Store::memory(), 1100).await;
    let folder = tempfile::tempdir().unwrap();
    let odd = folder.path().join("a b#1 %41/repo");
    behaves(&Store::from_url(odd.to_str().unwrap()).unwrap()).await;
    let url = format!("file://{}/repo", folder.path().display());
    let store = Store::from_url(&url).unwrap();
    behaves(&store).await;
    assert!(folder.path().join("repo/data/ff").is_dir());
    store.delete("data/cd/large").await.unwrap();
    lists(&store, 1100).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn s3_behaves_so_too() {
    let Some(bucket) = bucket::s3() else { return };
    behaves(&store(&bucket, "team/behaves")).await;
    lists(&store(&bucket, "lists"), 1100).await;
    keeps_prefixes_apart(&bucket).await;
    misses_its_bucket(&bucket).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn azure_behaves_so_too() {
    let Some(bucket) = bucket::azure() else { return };
    behaves(&store(&bucket, "team/behaves")).await;
    keeps_prefixes_apart(&bucket).await;
    misses_its_bucket(&bucket).await;
    let other_key = "AAAAvdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw==";
    let denied = store(&bucket.with("AZURE_STORAGE_ACCOUNT_KEY", other_key), "x");
    let error = denied.put("config", bytes("x")).await.unwrap_err();
    assert!(matches!(error, Error::AccessDenied { .. }), "{error:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn azure_lists_more_than_its_page_of_5000() {
    let Some(bucket) = bucket::azure() else { return };
    lists(&store(&bucket, "lists"), 5010).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn gcs_behaves_so_too() {
    let server = Gcs::start().await;
    let bucket = server.bucket();
    behaves(&store(&bucket, "team/behaves")).await;
    lists(&store(&bucket, "lists"), 1100).await;
    keeps_prefixes_apart(&bucket).await;
    misses_its_bucket(&bucket).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_may_only_read_is_told_so_and_who_is_unknown_is_denied() {
    let server = Gcs::start().await;
    let bucket = server.bucket();
    store(&bucket, "x").put("config", bytes("here")).await.unwrap();
    let reader = store(&bucket.clone().with("GOOGLE_BEARER_TOKEN", READER), "x");
    assert_eq!(reader.get("config", 10).await.unwrap(), "here");
    for result in
        [reader.put("config", bytes("x")).await, reader.create("new", bytes("x")).await, reader.delete("config").await]
    {
        assert!(matches!(result, Err(Error::ReadOnly { .. })), "{result:?}");
    }
    let stranger = store(&bucket.with("GOOGLE_BEARER_TOKEN", "stranger"), "x");
    for result in [stranger.get("config", 10).await.map(drop), stranger.list("data").await.map(drop)] {
        assert!(matches!(result, Err(Error::AccessDenied { .. })), "{result:?}");
    }
}

/// Writes and reads 1 MiB at 1 and 2 MiB a second.
async fn keeps_its_limits(url: &str, variables: Vec<(String, String)>) {
    let options = StoreOptions {
        limit_upload: NonZeroU32::new(1024),
        limit_download: NonZeroU32::new(2048),
        ..StoreOptions::default()
    };
    let store = Store::connect_with(url, &options, variables).unwrap();
    let content = Bytes::from(vec![1; 1 << 20]);
    let started = Instant::now();
    store.put("data/x", content.clone()).await.unwrap();
    let sent = started.elapsed().as_secs_f64();
    assert!((0.8..4.0).contains(&sent), "{sent} s for 1 MiB at 1 MiB/s");
    let started = Instant::now();
    assert!(store.get("data/x", 4 << 20).await.unwrap() == content);
    let received = started.elapsed().as_secs_f64();
    assert!((0.3..3.0).contains(&received), "{received} s for 1 MiB at 2 MiB/s");
    store.create("config", content.slice(..100)).await.unwrap();
    assert_eq!(store.get("config", 100).await.unwrap().len(), 100);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_limited_store_takes_its_time_over_the_network_and_in_a_folder() {
    let server = Gcs::start().await;
    let bucket = server.bucket();
    let folder = tempfile::tempdir().unwrap();
    let url = format!("{}/x", bucket.url);
    future::join(keeps_its_limits(&url, bucket.variables), keeps_its_limits(folder.path().to_str().unwrap(), vec![]))
        .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_is_started_again_is_waited_for() {
    let mut server = Gcs::start().await;
    let store = store(&server.bucket(), "x");
    store.put("data/x", bytes("x")).await.unwrap();
    server.stop().await;
    let outage = async {
        tokio::time::sleep(Duration::from_secs(12)).await;
        server.restart().await;
    };
    let ((), put, read) = tokio::join!(outage, store.put("data/y", bytes("y")), store.get("data/x", 10));
    put.unwrap();
    assert_eq!(read.unwrap(), "x");
}

#[tokio::test(start_paused = true)]
async fn a_transfer_that_moves_is_waited_for_and_one_that_stops_is_reported() {
    let (store, progress) = (Store::memory(), Progress::default());
    let moving = async {
        for _ in 0..100 {
            tokio::time::sleep(SMALL_PATIENCE - Duration::from_secs(1)).await;
            progress.add(1);
        }
        Ok(())
    };
    store.within(SMALL_PATIENCE, &progress, Act::Read, "config", moving).await.unwrap();
    let stopped = future::pending::<Result<(), StoreError>>();
    let error = store.within(SMALL_PATIENCE, &Progress::default(), Act::Read, "config", stopped).await.unwrap_err();
    assert!(matches!(error, Error::Unreachable { .. }), "{error:?}");
}

#[tokio::test]
async fn a_file_where_a_folder_should_be_is_an_error_and_not_an_empty_store() {
    let file = tempfile::NamedTempFile::new().unwrap();
    let store = Store::from_url(file.path().to_str().unwrap()).unwrap();
    store.create_folders().await.unwrap_err();
}
