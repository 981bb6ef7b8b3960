//! The whole way over S3, against a server that runs here, with restic as the judge.

#![allow(clippy::unwrap_used)]

mod common;

use std::{
    io::{Read, Write},
    net::TcpStream,
};

use common::{init, joined, lines, meta, objects, open, root};
use futures::TryStreamExt;
use stillpoint_repository::{Error, Id, Kdf, Repository, Store};
use stillpoint_test_support::require;

fn make_bucket(endpoint: &str, name: &str) {
    let host = endpoint.trim_start_matches("http://");
    let mut stream = TcpStream::connect(host).unwrap();
    write!(stream, "PUT /{name} HTTP/1.1\r\nHost: {host}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
}

fn settings(endpoint: &str) -> [(String, String); 5] {
    [
        ("AWS_ENDPOINT_URL", endpoint),
        ("AWS_ALLOW_HTTP", "true"),
        ("AWS_ACCESS_KEY_ID", "key"),
        ("AWS_SECRET_ACCESS_KEY", "secret"),
        ("AWS_REGION", "us-east-1"),
    ]
    .map(|(name, value)| (name.to_owned(), value.to_owned()))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_repository_in_s3_is_written_read_and_checked_by_restic() {
    let Some(endpoint) = require::env("STILLPOINT_TEST_S3") else { return };
    let Some(_restic) = require::program("restic") else { return };
    // the server outlives this run: each run has a bucket of its own
    let bucket = format!("backups-{}", Id::of(format!("{:?}", std::time::SystemTime::now()).as_bytes()).short());
    let store = Store::from_url_with(&format!("s3://{bucket}/team/a"), settings(&endpoint)).unwrap();
    let absent = Repository::open(store.clone(), &common::password()).await.unwrap_err();
    assert!(matches!(absent, Error::BucketAbsent { .. }), "{absent:?}");
    make_bucket(&endpoint, &bucket);
    let empty = Repository::open(store.clone(), &common::password()).await.unwrap_err();
    assert!(matches!(empty, Error::NoRepository { .. }), "{empty:?}");

    let repository = init(&store).await;
    let again = Repository::init(store.clone(), &common::password(), Kdf::fast_for_tests()).await;
    assert!(matches!(again, Err(Error::RepositoryExists { .. })));
    let writer = repository.writer().await.unwrap();
    let content = lines(&writer, objects(20_000)).await;
    let tree = root(&writer, content).await;
    let snapshot = writer.commit(meta(tree)).await.unwrap();

    let reader = open(&store).await.reader().await.unwrap();
    let node = reader.find(&tree, "resources/shop.jsonl").await.unwrap().unwrap();
    let read: Vec<_> = reader.content(&node).unwrap().try_collect().await.unwrap();
    assert!(read.concat() == joined(&objects(20_000)));

    let mut restic = common::restic_command(format!("s3:{endpoint}/{bucket}/team/a").as_ref());
    let checked = restic.envs(settings(&endpoint)).args(["check", "--read-data"]).output().unwrap();
    assert!(checked.status.success(), "{}", String::from_utf8_lossy(&checked.stderr));
    repository.forget(&snapshot).await.unwrap();
    assert!(repository.snapshots().await.unwrap().is_empty());
}
