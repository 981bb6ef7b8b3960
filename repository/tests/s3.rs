//! The whole way over S3, against a server that runs here, with restic as the judge.
//!
//! A binary of its own with one test: S3 takes its settings from the environment, which all tests of a binary share.

#![allow(clippy::unwrap_used, clippy::print_stderr, unsafe_code)]

mod common;

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use common::{available, init, joined, lines, meta, objects, open, root};
use futures::TryStreamExt;
use stillpoint_repository::{Error, Repository, Store};

struct Server {
    child: Child,
    address: String,
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Server {
    fn start() -> Self {
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let child = Command::new("moto_server")
            .args(["-H", "127.0.0.1", "-p", &port.to_string()])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let server = Self { child, address: format!("127.0.0.1:{port}") };
        let deadline = Instant::now() + Duration::from_secs(60);
        while TcpStream::connect(&server.address).is_err() {
            assert!(Instant::now() < deadline, "moto_server does not answer");
            std::thread::yield_now();
        }
        server
    }

    fn make_bucket(&self, name: &str) {
        let mut stream = TcpStream::connect(&self.address).unwrap();
        let host = &self.address;
        write!(stream, "PUT /{name} HTTP/1.1\r\nHost: {host}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
            .unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_repository_in_s3_is_written_read_and_checked_by_restic() {
    let test = "a_repository_in_s3_is_written_read_and_checked_by_restic";
    if !available("moto_server", test) || !available("restic", test) {
        return;
    }
    let server = Server::start();
    let settings = [
        ("AWS_ENDPOINT_URL", format!("http://{}", server.address)),
        ("AWS_ALLOW_HTTP", "true".into()),
        ("AWS_ACCESS_KEY_ID", "key".into()),
        ("AWS_SECRET_ACCESS_KEY", "secret".into()),
        ("AWS_REGION", "us-east-1".into()),
    ];
    for (name, value) in settings {
        // SAFETY: the binary's one test sets these before anything reads the environment
        unsafe { std::env::set_var(name, value) };
    }
    let store = Store::from_url("s3://backups/team/a").unwrap();
    let absent = Repository::open(store.clone(), &common::password()).await.unwrap_err();
    assert!(matches!(absent, Error::BucketAbsent { .. }), "{absent:?}");
    server.make_bucket("backups");
    let empty = Repository::open(store.clone(), &common::password()).await.unwrap_err();
    assert!(matches!(empty, Error::NoRepository { .. }), "{empty:?}");

    let repository = init(&store).await;
    let again =
        Repository::init(store.clone(), &common::password(), stillpoint_repository::Kdf::fast_for_tests()).await;
    assert!(matches!(again, Err(Error::RepositoryExists { .. })));
    let writer = repository.writer().await.unwrap();
    let content = lines(&writer, objects(20_000)).await;
    let tree = root(&writer, content).await;
    let snapshot = writer.commit(meta(tree)).await.unwrap();

    let reader = open(&store).await.reader().await.unwrap();
    let node = reader.find(&tree, "resources/shop.jsonl").await.unwrap().unwrap();
    let read: Vec<_> = reader.content(&node).unwrap().try_collect().await.unwrap();
    assert!(read.concat() == joined(&objects(20_000)));

    let address = format!("s3:http://{}/backups/team/a", server.address);
    common::restic_ok(address.as_ref(), ["check", "--read-data"]);
    repository.forget(&snapshot).await.unwrap();
    assert!(repository.snapshots().await.unwrap().is_empty());
}
