//! Packs that are held back, and trees that are read again without the store.
#![allow(clippy::unwrap_used)]

mod common;

use std::sync::Arc;

use common::{init, meta, time};
use futures::TryStreamExt;
use object_store::{ObjectStore, memory::InMemory, path::Path};
use rand::{RngExt, SeedableRng, rngs::SmallRng};
use stillpoint_repository::{Error, Id, Node, NodeKind, Store, Tree, Writer};

/// Incompressible pieces of one MiB.
fn pieces(count: u64) -> Vec<Vec<u8>> {
    let piece = |number| {
        let mut piece = vec![0; 1 << 20];
        SmallRng::seed_from_u64(number).fill(&mut piece[..]);
        piece
    };
    (0..count).map(piece).collect()
}

async fn packs(objects: &InMemory) -> usize {
    objects.list(Some(&Path::from("data"))).try_collect::<Vec<_>>().await.unwrap().len()
}

async fn store(writer: &Writer, pieces: Vec<Vec<u8>>) -> Result<Node, Error> {
    let threads = writer.threads();
    let size = pieces.iter().map(Vec::len).sum::<usize>() as u64;
    let stored = move || pieces.iter().map(|piece| threads.data(piece)).collect::<Result<Vec<Id>, _>>();
    let content = tokio::task::spawn_blocking(stored).await.unwrap()?;
    let file = Node::file("file", writer.bytes(b"").await?, time());
    Ok(Node { size, content: Some(content), ..file })
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_goes_to_the_store_while_packs_are_held_and_all_of_it_after() {
    let objects = Arc::new(InMemory::new());
    let repository = init(&Store::new(objects.clone(), Path::default(), "memory://")).await;
    let writer = repository.writer().await.unwrap();
    let folder = tempfile::tempdir().unwrap();
    writer.hold_packs(folder.path());
    // five packs, of which one exceeds what is kept in memory
    let pieces = pieces(90);
    let file = store(&writer, pieces.clone()).await.unwrap();
    assert_eq!(packs(&objects).await, 0);
    writer.send_packs().await.unwrap();
    let tree = writer.tree(Tree::new(vec![file.clone()]).unwrap()).await.unwrap();
    writer.commit(meta(tree)).await.unwrap();
    assert_eq!(packs(&objects).await, 7);
    let read = repository.reader().await.unwrap().content(&file).unwrap().try_collect::<Vec<_>>().await.unwrap();
    assert!(read.concat() == pieces.concat());
}

#[tokio::test(flavor = "multi_thread")]
async fn packs_that_nobody_sent_are_sent_by_the_commit() {
    let repository = init(&Store::memory()).await;
    let writer = repository.writer().await.unwrap();
    writer.hold_packs(&std::env::temp_dir());
    let file = store(&writer, pieces(20)).await.unwrap();
    let tree = writer.tree(Tree::new(vec![file.clone()]).unwrap()).await.unwrap();
    writer.commit(meta(tree)).await.unwrap();
    let read = repository.reader().await.unwrap().content(&file).unwrap().try_collect::<Vec<_>>().await.unwrap();
    assert_eq!(read.concat().len(), 20 << 20);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_folder_without_room_fails_the_writer_by_name_and_leaves_no_snapshot() {
    let repository = init(&Store::memory()).await;
    let writer = repository.writer().await.unwrap();
    writer.hold_packs("/no/such/folder".as_ref());
    let error = store(&writer, pieces(90)).await.unwrap_err();
    assert!(format!("{error:?}").contains("/no/such/folder"), "{error:?}");
    assert!(matches!(writer.send_packs().await, Ok(()) | Err(Error::WriterFailed { .. })));
    let tree = Tree::new(Vec::new()).unwrap();
    assert!(matches!(writer.tree(tree).await, Err(Error::WriterFailed { .. })));
    assert!(repository.snapshots().await.unwrap().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn trees_that_were_kept_are_read_without_the_store_and_others_are_not() {
    let repository = init(&Store::memory()).await;
    let writer = repository.writer().await.unwrap();
    let folder = tempfile::tempdir().unwrap();
    let kept = writer.local_trees(folder.path());
    let threads = writer.threads().keeping(kept.clone());
    let content = writer.bytes(b"hello").await.unwrap();
    let names = (0..500).map(|number| Node::file(format!("file-{number:03}"), content.clone(), time()));
    let tree = Tree::new(names.collect()).unwrap();
    let stored = tree.clone();
    let id = tokio::task::spawn_blocking(move || threads.tree(&stored)).await.unwrap().unwrap();
    let found = kept.tree(&id).unwrap().unwrap();
    assert_eq!(found.nodes(), tree.nodes());
    assert!(found.nodes().iter().all(|node| node.kind == NodeKind::File));
    assert!(kept.tree(&Id([1; 32])).unwrap().is_none());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tree_that_another_writer_stored_is_adopted_and_its_part_removed_by_the_commit() {
    let repository = init(&Store::memory()).await;
    let (ours, theirs) = (repository.writer().await.unwrap(), repository.writer().await.unwrap());
    let file = Node::file("file", theirs.bytes(b"theirs").await.unwrap(), time());
    let tree = theirs.tree(Tree::new(vec![file]).unwrap()).await.unwrap();
    let above = || Tree::new(vec![Node::dir("volume", tree, time())]).unwrap();
    let early = repository.reader().await.unwrap();
    assert!(matches!(ours.adopt(&early, [tree]), Err(Error::BlobMissing { .. })), "nobody keeps it yet");
    let part = theirs.commit(meta(tree)).await.unwrap();
    assert!(matches!(ours.tree(above()).await, Err(Error::BlobMissing { .. })));
    ours.adopt(&repository.reader().await.unwrap(), [tree]).unwrap();
    let root = ours.tree(above()).await.unwrap();
    let whole = ours.commit_over(meta(root), &[part]).await.unwrap();
    let snapshots: Vec<_> = repository.snapshots().await.unwrap().into_iter().map(|snapshot| snapshot.id).collect();
    assert_eq!(snapshots, [whole]);
    let reader = repository.reader().await.unwrap();
    assert!(reader.find(&root, "volume/file").await.unwrap().is_some());
}
