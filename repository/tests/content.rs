//! Writes and reads through the whole crate: what a change costs, what a limit stops, what damage is called.

#![allow(clippy::unwrap_used, clippy::print_stderr)]

mod common;

use std::sync::Arc;

use common::{init, joined, lines, meta, object, objects, open, root};
use futures::TryStreamExt;
use object_store::{ObjectStore, ObjectStoreExt, PutPayload, memory::InMemory, path::Path};
use stillpoint_repository::{Error, FileContent, Id, Node, Password, Reader, Repository, Store, Tree};

async fn committed(repository: &Repository, objects: Vec<(String, Vec<u8>)>) -> (Id, FileContent) {
    let writer = repository.writer().await.unwrap();
    let content = lines(&writer, objects).await;
    let tree = root(&writer, content.clone()).await;
    writer.commit(meta(tree)).await.unwrap();
    (tree, content)
}

async fn shop(reader: &Reader, tree: &Id) -> Node {
    reader.find(tree, "/resources/shop.jsonl").await.unwrap().unwrap()
}

async fn read(reader: &Reader, node: &Node) -> Result<Vec<u8>, Error> {
    Ok(reader.content(node)?.try_collect::<Vec<_>>().await?.concat())
}

#[tokio::test]
async fn lines_come_back_one_by_one_and_as_bytes() {
    let repository = init(&Store::memory()).await;
    let mut objects = objects(2000);
    objects.push(("huge".into(), vec![b'x'; 9 << 20]));
    objects.push(("empty".into(), Vec::new()));
    let (tree, content) = committed(&repository, objects.clone()).await;
    assert!(content.blobs.len() > 10);
    let reader = repository.reader().await.unwrap();
    let node = shop(&reader, &tree).await;
    assert_eq!(node.size, content.size);
    assert!(read(&reader, &node).await.unwrap() == joined(&objects));

    let mut found = reader.lines(&node, 9 << 20).unwrap();
    for (name, line) in &objects {
        assert!(found.next().await.unwrap().unwrap() == line, "{name}");
    }
    assert_eq!(found.next().await.unwrap(), None);

    let mut bounded = reader.lines(&node, 1 << 20).unwrap();
    let error = loop {
        match bounded.next().await {
            Ok(line) => assert!(line.is_some()),
            Err(error) => break error,
        }
    };
    assert!(matches!(error, Error::TooLarge { limit: 1_048_576, .. }), "{error}");
}

#[tokio::test]
async fn paths_find_what_is_there_and_nothing_else() {
    let repository = init(&Store::memory()).await;
    let (tree, _) = committed(&repository, objects(1)).await;
    let reader = repository.reader().await.unwrap();
    for path in ["manifest.json", "/manifest.json", "resources", "//resources//shop.jsonl"] {
        assert!(reader.find(&tree, path).await.unwrap().is_some(), "{path}");
    }
    for path in ["", "/", "other", "resources/other", "manifest.json/below", "other/below", ".."] {
        assert_eq!(reader.find(&tree, path).await.unwrap(), None, "{path}");
    }
    let missing = reader.tree(&Id::of(b"no such tree")).await.unwrap_err();
    assert!(matches!(missing, Error::BlobMissing { kind: "tree", .. }), "{missing}");
}

#[tokio::test]
async fn one_changed_inserted_or_removed_object_rewrites_few_blobs() {
    let repository = init(&Store::memory()).await;
    let base = objects(10_000);
    let (_, before) = committed(&repository, base.clone()).await;
    assert!((80..250).contains(&before.blobs.len()), "{} blobs", before.blobs.len());

    let mut changes: Vec<Vec<(String, Vec<u8>)>> = vec![base.clone(); 4];
    changes[0][5000].1 = object("object-005000", 2);
    changes[1].insert(5000, ("object-004999a".into(), object("object-004999a", 1)));
    changes[2].remove(5000);
    changes[3].insert(0, ("a-first".into(), object("a-first", 1)));
    for (number, objects) in changes.into_iter().enumerate() {
        let writer = repository.writer().await.unwrap();
        let content = lines(&writer, objects).await;
        let stats = writer.stats();
        assert!((1..=2).contains(&stats.blobs_new), "change {number}: {stats:?}");
        assert_eq!(stats.blobs_new + stats.blobs_known, content.blobs.len() as u64);
    }
}

#[tokio::test]
async fn the_same_backup_again_stores_only_its_snapshot() {
    let below = Arc::new(InMemory::new());
    let store = Store::new(below.clone(), Path::default(), "test://store");
    let repository = init(&store).await;
    committed(&repository, objects(3000)).await;
    let files = || async {
        let files: Vec<_> = below.list(None).try_collect().await.unwrap();
        files.iter().map(|file| (file.location.to_string(), file.size)).collect::<Vec<_>>()
    };
    let before = files().await;
    committed(&repository, objects(3000)).await;
    let new: Vec<_> = files().await.into_iter().filter(|file| !before.contains(file)).collect();
    assert!(matches!(&new[..], [(path, 0..1000)] if path.starts_with("snapshots/")), "{new:?}");
}

#[tokio::test]
async fn trees_that_refer_to_what_is_not_stored_are_refused() {
    let repository = init(&Store::memory()).await;
    let writer = repository.writer().await.unwrap();
    let nowhere = FileContent { blobs: vec![Id::of(b"nowhere")], size: 7 };
    let refused = writer.tree(Tree::new(vec![Node::file("a", nowhere, common::time())]).unwrap()).await;
    assert!(matches!(refused, Err(Error::BlobMissing { kind: "data", .. })));
    let refused = writer.tree(Tree::new(vec![Node::dir("a", Id::of(b"nowhere"), common::time())]).unwrap()).await;
    assert!(matches!(refused, Err(Error::BlobMissing { kind: "tree", .. })));
    let refused = writer.clone().commit(meta(Id::of(b"nowhere"))).await;
    assert!(matches!(refused, Err(Error::BlobMissing { kind: "tree", .. })));
    assert!(matches!(writer.commit(meta(Id::of(b"x"))).await, Err(Error::WriterClosed)));
    assert!(repository.snapshots().await.unwrap().is_empty());
}

#[tokio::test]
async fn a_line_feed_inside_a_line_is_refused() {
    let repository = init(&Store::memory()).await;
    let mut file = repository.writer().await.unwrap().file_writer();
    assert!(matches!(file.append("a", b"two\nlines").await, Err(Error::Invalid { .. })));
}

async fn files_below(objects: &InMemory, folder: &str) -> Vec<Path> {
    let files: Vec<_> = objects.list(Some(&Path::from(folder))).try_collect().await.unwrap();
    files.into_iter().map(|file| file.location).collect()
}

async fn rewrite(objects: &InMemory, path: &Path, change: impl FnOnce(&mut Vec<u8>)) {
    let mut bytes = objects.get(path).await.unwrap().bytes().await.unwrap().to_vec();
    change(&mut bytes);
    objects.put(path, PutPayload::from(bytes)).await.unwrap();
}

/// Opens, lists and reads everything.
async fn read_all(store: &Store) -> Result<Vec<u8>, Error> {
    let repository = Repository::open(store.clone(), &common::password()).await?;
    let mut all = Vec::new();
    for snapshot in repository.snapshots().await? {
        let reader = repository.reader().await?;
        let node = reader.find(&snapshot.tree, "/resources/shop.jsonl").await?;
        all.extend(read(&reader, &node.unwrap()).await?);
    }
    Ok(all)
}

#[tokio::test]
async fn damage_to_any_file_is_an_error_that_names_it() {
    let below = Arc::new(InMemory::new());
    let store = Store::new(below.clone(), Path::default(), "test://store");
    committed(&init(&store).await, objects(100)).await;
    for folder in ["config", "keys", "index", "snapshots", "data"] {
        let files = if folder == "config" { vec![Path::from("config")] } else { files_below(&below, folder).await };
        for file in files {
            let intact = below.get(&file).await.unwrap().bytes().await.unwrap();
            let flip: fn(&mut Vec<u8>) = |bytes| bytes[20] ^= 1;
            let tear: fn(&mut Vec<u8>) = |bytes| bytes.truncate(bytes.len() / 3);
            for change in [flip, tear, |bytes| bytes.clear()] {
                rewrite(&below, &file, change).await;
                let error = read_all(&store).await.map(|all| all.len()).expect_err(file.as_ref());
                assert!(matches!(error, Error::Damaged { .. }), "{file}: {error:?}");
                assert!(error.to_string().contains(file.as_ref()), "{file}: {error}");
                below.put(&file, intact.clone().into()).await.unwrap();
            }
            assert_eq!(read_all(&store).await.unwrap(), joined(&objects(100)));
        }
    }
}

#[tokio::test]
async fn missing_files_are_named_or_told_apart() {
    let below = Arc::new(InMemory::new());
    let store = Store::new(below.clone(), Path::default(), "test://store");
    assert!(matches!(read_all(&store).await, Err(Error::NoRepository { .. })));
    committed(&init(&store).await, objects(100)).await;
    let wrong = Repository::open(store.clone(), &Password::new("wrong")).await;
    assert!(matches!(wrong, Err(Error::WrongPassword { keys: 1, .. })), "{wrong:?}");
    for pack in files_below(&below, "data").await {
        let intact = below.get(&pack).await.unwrap().bytes().await.unwrap();
        below.delete(&pack).await.unwrap();
        let error = read_all(&store).await.unwrap_err().to_string();
        assert!(error.contains(pack.as_ref()) && error.contains("the pack is missing"), "{error}");
        below.put(&pack, intact.into()).await.unwrap();
    }
    let index = files_below(&below, "index").await.remove(0);
    below.delete(&index).await.unwrap();
    assert!(matches!(read_all(&store).await, Err(Error::BlobMissing { .. })));
    let key = files_below(&below, "keys").await.remove(0);
    below.delete(&key).await.unwrap();
    let error = read_all(&store).await.unwrap_err();
    assert!(error.to_string().contains("there is no key file"), "{error}");
}

#[tokio::test]
async fn a_lost_or_torn_pack_is_written_again_by_the_next_backup_and_heals_the_old_one() {
    let below = Arc::new(InMemory::new());
    let store = Store::new(below.clone(), Path::default(), "test://store");
    let repository = init(&store).await;
    committed(&repository, objects(100)).await;
    for pack in files_below(&below, "data").await {
        rewrite(&below, &pack, |bytes| bytes.truncate(40)).await;
    }
    read_all(&store).await.unwrap_err();
    committed(&repository, objects(100)).await;
    assert_eq!(read_all(&store).await.unwrap(), joined(&objects(100)).repeat(2));
}

#[tokio::test]
async fn sidecars_are_sealed_and_bound_to_their_name() {
    let below = Arc::new(InMemory::new());
    let store = Store::new(below.clone(), Path::default(), "test://store");
    let repository = init(&store).await;
    repository.put_sidecar("evidence/a.json", b"first").await.unwrap();
    repository.put_sidecar("evidence/b.json", b"second\nline").await.unwrap();
    repository.put_sidecar("evidence/a.json", b"").await.unwrap();
    assert_eq!(repository.get_sidecar("evidence/a.json").await.unwrap(), b"");
    assert_eq!(repository.get_sidecar("evidence/b.json").await.unwrap(), b"second\nline");
    assert_eq!(repository.list_sidecars("evidence/").await.unwrap(), ["evidence/a.json", "evidence/b.json"]);
    assert!(repository.list_sidecars("journal/").await.unwrap().is_empty());
    for path in ["", "/a", "a/", "a//b", "../config", "a b", "ä"] {
        assert!(matches!(repository.put_sidecar(path, b"x").await, Err(Error::Invalid { .. })), "{path:?}");
    }
    let b = below.get(&Path::from("stillpoint/evidence/b.json")).await.unwrap().bytes().await.unwrap();
    assert!(!b.windows(6).any(|window| window == b"second"));
    below.put(&Path::from("stillpoint/evidence/a.json"), b.into()).await.unwrap();
    let moved = repository.get_sidecar("evidence/a.json").await.unwrap_err();
    assert!(matches!(moved, Error::Damaged { .. }), "{moved}");
    repository.delete_sidecar("evidence/a.json").await.unwrap();
    assert!(repository.get_sidecar("evidence/a.json").await.unwrap_err().is_missing());
}

#[tokio::test]
async fn forgetting_takes_one_snapshot_and_refuses_what_is_not_there() {
    let store = Store::memory();
    let repository = init(&store).await;
    committed(&repository, objects(1)).await;
    committed(&repository, objects(2)).await;
    let [first, second] = &repository.snapshots().await.unwrap()[..] else { panic!("two expected") };
    repository.forget(&first.id).await.unwrap();
    assert_eq!(open(&store).await.snapshots().await.unwrap(), std::slice::from_ref(second));
    assert!(repository.forget(&first.id).await.unwrap_err().is_missing());
    let writer = repository.writer().await.unwrap();
    assert!(matches!(repository.forget(&second.id).await, Err(Error::Locked { exclusive: false, .. })));
    drop(writer);
}

#[tokio::test]
async fn many_tasks_write_at_once_and_store_what_is_equal_once() {
    let repository = init(&Store::memory()).await;
    let writer = repository.writer().await.unwrap();
    let tasks: Vec<_> = (0..8)
        .map(|_| {
            let writer = writer.clone();
            tokio::spawn(async move { lines(&writer, objects(1500)).await })
        })
        .collect();
    let contents = futures::future::try_join_all(tasks).await.unwrap();
    assert!(contents.windows(2).all(|pair| pair[0] == pair[1]));
    assert_eq!(writer.stats().blobs_new, contents[0].blobs.len() as u64);
    let tree = root(&writer, contents[0].clone()).await;
    writer.commit(meta(tree)).await.unwrap();
    let reader = repository.reader().await.unwrap();
    let node = shop(&reader, &tree).await;
    assert!(read(&reader, &node).await.unwrap() == joined(&objects(1500)));
}

#[tokio::test]
async fn an_abandoned_writer_leaves_no_lock_and_commits_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let repository = init(&Store::from_url(folder.path().to_str().unwrap()).unwrap()).await;
    let locks = || std::fs::read_dir(folder.path().join("locks")).unwrap().count();
    let writer = repository.writer().await.unwrap();
    let tree = root(&writer, FileContent::default()).await;
    let other = writer.clone();
    assert_eq!(locks(), 1);
    writer.abandon().await;
    assert_eq!(locks(), 0);
    assert!(matches!(other.commit(meta(tree)).await, Err(Error::WriterClosed)));
    assert!(repository.snapshots().await.unwrap().is_empty());
}
