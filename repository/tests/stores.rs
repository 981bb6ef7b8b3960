//! A whole repository in every store, with restic as the judge.
//!
//! restic reaches folders and S3 itself; what lies elsewhere is copied out first, file by file, so that its judgement
//! is about the same bytes.

#![allow(clippy::unwrap_used)]

mod common;

use std::{
    ffi::OsString,
    path::Path,
    time::{Duration, Instant},
};

use common::{init, joined, lines, meta, objects, open, root};
use futures::TryStreamExt;
use object_store::ObjectStoreExt;
use stillpoint_repository::{Error, Kdf, Repository, Store, StoreOptions};
use stillpoint_test_support::{
    bucket::{self, Bucket},
    gcs::Gcs,
    require,
};

fn store(bucket: &Bucket) -> Store {
    Store::from_url_with(&format!("{}/team/a", bucket.url), bucket.variables.clone()).unwrap()
}

/// Creates a repository, fills it, reads it back, has it judged, and removes the backup.
async fn lives_in(store: Store, judge: impl AsyncFnOnce()) {
    let empty = Repository::open(store.clone(), &common::password()).await.unwrap_err();
    assert!(matches!(empty, Error::NoRepository { .. }), "{empty:?}");
    let repository = init(&store).await;
    let again = Repository::init(store.clone(), &common::password(), Kdf::fast_for_tests()).await;
    assert!(matches!(again, Err(Error::RepositoryExists { .. })));

    let objects = objects(5_000);
    let writer = repository.writer().await.unwrap();
    let content = lines(&writer, objects.clone()).await;
    let tree = root(&writer, content).await;
    let snapshot = writer.commit(meta(tree)).await.unwrap();

    let reader = open(&store).await.reader().await.unwrap();
    let node = reader.find(&tree, "resources/shop.jsonl").await.unwrap().unwrap();
    let read: Vec<_> = reader.content(&node).unwrap().try_collect().await.unwrap();
    assert!(read.concat() == joined(&objects));
    judge().await;
    repository.forget(&snapshot).await.unwrap();
    assert!(repository.snapshots().await.unwrap().is_empty());
}

/// restic reads every byte of a repository.
fn judged_at(repository: OsString, variables: &[(String, String)]) {
    let mut restic = common::restic_command(repository.as_ref());
    let checked = restic.envs(variables.iter().cloned()).args(["check", "--read-data"]).output().unwrap();
    assert!(checked.status.success(), "{}", String::from_utf8_lossy(&checked.stderr));
}

/// Copies a bucket's files to a folder, by another client than ours.
async fn copy_out(bucket: &Bucket, folder: &Path) {
    let plain = [("allow_http".to_owned(), "true".to_owned())];
    let options = bucket.variables.iter().map(|(name, value)| (name.to_lowercase(), value.clone())).chain(plain);
    let (objects, _) = object_store::parse_url_opts(&bucket.url.parse().unwrap(), options).unwrap();
    for meta in objects.list(None).try_collect::<Vec<_>>().await.unwrap() {
        let bytes = objects.get(&meta.location).await.unwrap().bytes().await.unwrap();
        let path = folder.join(meta.location.as_ref());
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, bytes).unwrap();
    }
}

async fn judged_after_copying(bucket: &Bucket) {
    let folder = tempfile::tempdir().unwrap();
    copy_out(bucket, folder.path()).await;
    judged_at(folder.path().join("team/a").into(), &[]);
}

/// An endpoint that nobody serves, for the client of each provider.
async fn is_unreachable(url: &str, endpoint: &str, variables: &[(&str, &str)]) {
    let options = StoreOptions { endpoint: Some(endpoint.to_owned()), ..StoreOptions::default() };
    let variables = variables.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
    let started = Instant::now();
    let store = Store::connect_with(url, &options, variables).unwrap();
    let error = Repository::open(store, &common::password()).await.unwrap_err();
    assert!(matches!(error, Error::Unreachable { .. }), "{error:?}");
    let sentence = error.to_string();
    assert!(sentence.starts_with(&format!("{url} cannot be reached: ")), "{sentence}");
    assert!(sentence.contains("Connection refused"), "{sentence}");
    assert!(started.elapsed() < Duration::from_secs(25), "{:?}", started.elapsed());
}

#[tokio::test]
async fn an_unreachable_endpoint_is_one_clear_sentence_within_25_seconds() {
    // a port that was free a moment ago
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let endpoint = format!("http://127.0.0.1:{port}");
    let s3 = [("AWS_ACCESS_KEY_ID", "key"), ("AWS_SECRET_ACCESS_KEY", "secret")];
    let azure = [("AZURE_STORAGE_ACCOUNT", "account"), ("AZURE_STORAGE_KEY", "c2VjcmV0")];
    let gcs = [("GOOGLE_ACCESS_TOKEN", "token")];
    futures::join!(
        is_unreachable("s3://bucket/some/prefix", &endpoint, &s3),
        is_unreachable("az://container/some/prefix", &endpoint, &azure),
        is_unreachable("gs://bucket/some/prefix", &endpoint, &gcs),
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_repository_lives_in_a_folder() {
    let Some(_restic) = require::program("restic") else { return };
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("team a/repository");
    lives_in(Store::from_url(path.to_str().unwrap()).unwrap(), async || judged_at(path.clone().into(), &[])).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_repository_lives_in_s3() {
    let Some(_restic) = require::program("restic") else { return };
    let Some(bucket) = bucket::s3() else { return };
    let endpoint = require::env("STILLPOINT_TEST_S3").unwrap();
    let address = format!("s3:{endpoint}/{}/team/a", bucket.name);
    lives_in(store(&bucket), async || judged_at(address.into(), &bucket.variables)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_repository_lives_in_azure() {
    let Some(_restic) = require::program("restic") else { return };
    let Some(bucket) = bucket::azure() else { return };
    lives_in(store(&bucket), async || judged_after_copying(&bucket).await).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_repository_lives_in_google_cloud_storage() {
    let Some(_restic) = require::program("restic") else { return };
    let server = Gcs::start().await;
    let bucket = server.bucket();
    lives_in(store(&bucket), async || judged_after_copying(&bucket).await).await;
}
