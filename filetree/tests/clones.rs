//! Takes a directory by clones while the store answers nothing.

#![allow(clippy::unwrap_used)]

mod common;

use std::{
    fs::{self, File},
    path::Path,
    sync::Arc,
};

use common::{PASSWORD, commit, wait_for_old_stamps};
use object_store::memory::InMemory;
use stillpoint_filetree::backup::{
    precopy::Earlier,
    tree::{self, Request},
};
use stillpoint_repository::{Kdf, LocalTrees, Password, Repository, Store};
use stillpoint_test_support::{
    faulty::{Fault, Faulty},
    loop_mount::LoopMount,
    require,
};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

const FILES: usize = 20;

fn request(directory: &Path) -> Request {
    Request {
        directory: File::open(directory).unwrap().into(),
        exclude: Vec::new(),
        earlier: None,
        fetched: None,
        cancel: CancellationToken::new(),
    }
}

/// Changes one file of a directory that was copied before, and takes it by clones while the store is dead; how many
/// clones are made.
async fn clones(kind: &str, fetches: bool) -> usize {
    let (mount, spool) = (LoopMount::new(kind), tempfile::tempdir().unwrap());
    let (data, folder) = (mount.path().join("data"), mount.path().join("clones"));
    fs::create_dir(&folder).unwrap();
    for n in 0..FILES {
        let directory = data.join(format!("sub-{}/deep", n % 3));
        fs::create_dir_all(&directory).unwrap();
        fs::write(directory.join(n.to_string()), n.to_string()).unwrap();
    }
    wait_for_old_stamps();
    let faulty = Faulty::new(usize::MAX, Fault::Die);
    let below = Arc::new(InMemory::new());
    let store = Store::new(faulty.before(&below), object_store::path::Path::from("prefix"), "test://store");
    let repository = Repository::init(store, &Password::new(PASSWORD), Kdf::fast_for_tests()).await.unwrap();
    let (writer, stopped) = (repository.writer().await.unwrap(), jiff::Timestamp::now());
    let tree = tree::read(&repository, &writer, request(&data), watch::Sender::default()).await.unwrap().tree;
    commit(writer, tree).await;
    fs::write(data.join("sub-1/deep/1"), "changed").unwrap();

    let writer = repository.writer().await.unwrap();
    let fetched: Option<Arc<LocalTrees>> = fetches.then(|| writer.local_trees(spool.path()));
    if let Some(trees) = &fetched {
        trees.fetch(&writer.reader(), tree).await.unwrap();
    }
    writer.hold_packs(spool.path());
    faulty.strike_next();
    let asked = Request { earlier: Some(Earlier { tree, stopped }), fetched, ..request(&data) };
    let into = File::open(&folder).unwrap().into();
    let mut cloning = tree::clone(&repository, &writer, asked, into, watch::Sender::default()).unwrap();
    cloning.taken().await.unwrap();
    fs::read_dir(&folder).unwrap().count()
}

#[tokio::test(flavor = "multi_thread")]
async fn what_has_not_changed_is_known_without_the_store_once_the_earlier_copys_trees_are_fetched() {
    let Some(kind) = require::loop_device("xfs") else { return };
    assert_eq!(clones(kind, true).await, 1);
    assert_eq!(clones(kind, false).await, FILES, "the control asks the store, and takes everything as new");
}
