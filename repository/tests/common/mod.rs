//! What the integration tests share.
//!
//! One module for all test binaries, so that each of them asks restic and fills repositories in the same way.

#![allow(dead_code, reason = "each test binary uses a part")]

pub(crate) mod forge;

use std::{
    ffi::OsStr,
    path::{Path, PathBuf},
    process::{Command, Output},
};

use futures::TryStreamExt;
use jiff::Timestamp;
use stillpoint_repository::{
    Error, FileContent, Id, Kdf, Node, Password, Repository, SnapshotMeta, Store, Tree, Writer,
};

/// The password of all test repositories.
pub(crate) const PASSWORD: &str = "correct horse";

pub(crate) fn password() -> Password {
    Password::new(PASSWORD)
}

pub(crate) async fn init(store: &Store) -> Repository {
    Repository::init(store.clone(), &password(), Kdf::fast_for_tests()).await.unwrap()
}

pub(crate) async fn open(store: &Store) -> Repository {
    Repository::open(store.clone(), &password()).await.unwrap()
}

/// The repository of a folder: where it is, and as a store.
pub(crate) fn local(folder: &Path) -> (PathBuf, Store) {
    let path = folder.join("repository");
    let store = Store::from_url(path.to_str().unwrap()).unwrap();
    (path, store)
}

pub(crate) fn time() -> Timestamp {
    "2026-01-02T03:04:05.678Z".parse().unwrap()
}

pub(crate) fn meta(tree: Id) -> SnapshotMeta {
    SnapshotMeta {
        tree,
        hostname: "shop".into(),
        paths: vec!["/".into()],
        tags: vec!["stillpoint".into()],
        time: time(),
        program_version: Some("stillpoint test".into()),
        summary: None,
    }
}

/// An object of about 1 KiB that compresses as badly as real ones do in part.
pub(crate) fn object(name: &str, revision: usize) -> Vec<u8> {
    let noise: String = (0..14).map(|n| Id::of(format!("{name}/{revision}/{n}").as_bytes()).to_string()).collect();
    format!(r#"{{"metadata":{{"name":"{name}","resourceVersion":"{revision}"}},"data":"{noise}"}}"#).into_bytes()
}

/// Writes objects as lines.
pub(crate) async fn lines(writer: &Writer, objects: impl IntoIterator<Item = (String, Vec<u8>)>) -> FileContent {
    let mut file = writer.file_writer();
    for (name, line) in objects {
        file.append(&name, &line).await.unwrap();
    }
    file.finish().await.unwrap()
}

pub(crate) fn objects(count: usize) -> Vec<(String, Vec<u8>)> {
    (0..count).map(|n| format!("object-{n:06}")).map(|name| (name.clone(), object(&name, 1))).collect()
}

pub(crate) fn joined(objects: &[(String, Vec<u8>)]) -> Vec<u8> {
    objects.iter().flat_map(|(_, line)| [line.as_slice(), b"\n"].concat()).collect()
}

/// A root tree with a manifest, and the content as `/resources/shop.jsonl`.
pub(crate) async fn root(writer: &Writer, content: FileContent) -> Id {
    let inner = writer.tree(Tree::new(vec![Node::file("shop.jsonl", content, time())]).unwrap()).await.unwrap();
    let manifest = writer.bytes(b"{\"kind\":\"manifest\"}").await.unwrap();
    let nodes = vec![Node::dir("resources", inner, time()), Node::file("manifest.json", manifest, time())];
    writer.tree(Tree::new(nodes).unwrap()).await.unwrap()
}

/// Commits a backup of so many objects, which compress to about 600 bytes each.
pub(crate) async fn backup(repository: &Repository, count: usize) -> Result<Id, Error> {
    commit(repository.writer().await?, count).await
}

/// The same by a writer that was made before.
pub(crate) async fn commit(writer: Writer, count: usize) -> Result<Id, Error> {
    let mut file = writer.file_writer();
    for (name, line) in objects(count) {
        file.append(&name, &line).await?;
    }
    let tree = root(&writer, file.finish().await?).await;
    writer.commit(meta(tree)).await
}

/// The objects of a snapshot whose tree [`root`] made, joined.
pub(crate) async fn content(repository: &Repository, snapshot: &Id) -> Result<Vec<u8>, Error> {
    let tree = repository.snapshot(snapshot).await?.tree;
    let reader = repository.reader().await?;
    let node = reader.find(&tree, "/resources/shop.jsonl").await?.unwrap();
    Ok(reader.content(&node)?.try_collect::<Vec<_>>().await?.concat())
}

/// Runs restic on a local repository.
pub(crate) fn restic<S: AsRef<OsStr>>(repository: &Path, arguments: impl IntoIterator<Item = S>) -> Output {
    restic_command(repository).args(arguments).output().unwrap()
}

/// restic with its repository and password, and nothing to do yet.
pub(crate) fn restic_command(repository: &Path) -> Command {
    let mut command = Command::new("restic");
    command.args(["--no-cache", "-r"]).arg(repository).env("RESTIC_PASSWORD", PASSWORD);
    command
}

/// Runs restic and returns what it printed; it must succeed.
pub(crate) fn restic_ok<S: AsRef<OsStr>>(repository: &Path, arguments: impl IntoIterator<Item = S>) -> Vec<u8> {
    let output = restic(repository, arguments);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&[output.stdout, output.stderr].concat()));
    output.stdout
}
