//! A repository of backups for the tests: good ones are written as captures write them, damaged ones are snapshots made by
//! hand through the repository, each with one thing wrong.
#![allow(dead_code)]

use std::sync::Arc;

use jiff::Timestamp;
use object_store::{memory::InMemory, path::Path};
use stillpoint_api::{
    Backup as Named, Cluster, Cut, GroupResource, Manifest, Outcome, ResourceType, Scope, Trees, TypeRecord,
    manifest::{FORMAT_VERSION, MANIFEST_FILE, SIGNATURE_FILE},
};
use stillpoint_catalog::{self as catalog, BACKUP_TAG, Committed, Damage, Draft, Error};
use stillpoint_repository::{
    Id, Kdf, Node, Password, Repository, SnapshotMeta, Store, Tree, Writer,
    signing::{Domain, SigningKey, Trust},
};

/// A repository, its bytes, and the key that signs in it.
pub(crate) struct Shelf {
    pub(crate) objects: Arc<InMemory>,
    pub(crate) repository: Repository,
    pub(crate) key: SigningKey,
}

/// What a snapshot made by hand holds: nodes of its root tree.
pub(crate) struct Parts {
    pub(crate) writer: Writer,
    pub(crate) time: Timestamp,
    pub(crate) nodes: Vec<Node>,
}

pub(crate) fn at(second: i64) -> Timestamp {
    Timestamp::from_second(second).unwrap()
}

pub(crate) fn config_maps() -> ResourceType {
    ResourceType {
        name: GroupResource::core("configmaps"),
        version: "v1".into(),
        kind: "ConfigMap".into(),
        namespaced: true,
    }
}

pub(crate) fn manifest(name: &str, cluster: &str, trees: Trees) -> Manifest {
    Manifest {
        format_version: FORMAT_VERSION,
        backup: Named { name: name.into(), uid: "u".into() },
        tool_version: "0".into(),
        repository_id: "r".into(),
        cluster: Cluster { name: cluster.into(), uid: None, version: "v1".into() },
        started: at(0),
        finished: at(0),
        cut: Cut { revision: 1, read_at: at(0), attempts: 1, window: None },
        scope: Scope::default(),
        outcome: Outcome::Complete,
        problems: Vec::new(),
        types: vec![TypeRecord { resource: config_maps(), existed: Some(1), captured: 1, excluded: Vec::new() }],
        volumes: Vec::new(),
        hooks: Vec::new(),
        trees,
        previous: None,
    }
}

impl Shelf {
    pub(crate) async fn new() -> Self {
        let objects = Arc::new(InMemory::new());
        let store = Store::new(objects.clone(), Path::default(), "memory://shelf");
        let repository = Repository::init(store, &Password::new("secret"), Kdf::fast_for_tests()).await.unwrap();
        Self { objects, repository, key: SigningKey::generate() }
    }

    pub(crate) fn trust(&self) -> Trust {
        Trust::new([self.key.public()])
    }

    pub(crate) async fn find(&self, name: &str) -> Result<catalog::Backup, Error> {
        catalog::find(&self.repository, name, &self.trust()).await
    }

    /// What is wrong with a backup.
    pub(crate) async fn damage(&self, name: &str) -> Damage {
        match self.find(name).await.unwrap_err() {
            Error::Damaged { name: named, damage } => {
                assert_eq!(named, name);
                *damage
            }
            other => panic!("{other}"),
        }
    }

    /// A good backup of one object at some second.
    pub(crate) async fn put(&self, name: &str, cluster: &str, second: i64) -> Committed {
        self.put_line(name, cluster, second, br#"{"metadata":{"name":"settings","uid":"1"}}"#).await
    }

    pub(crate) async fn put_line(&self, name: &str, cluster: &str, second: i64, line: &[u8]) -> Committed {
        let mut draft = Draft::begin(&self.repository, name).await.unwrap();
        let mut file = draft.writer().file_writer();
        file.append("settings", line).await.unwrap();
        draft.place(&config_maps().name, Some("shop"), file.finish().await.unwrap());
        let sealed = draft.seal(at(second)).await.unwrap();
        let manifest = manifest(name, cluster, sealed.trees.clone());
        sealed.commit(&manifest, Some(&self.key)).await.unwrap()
    }

    /// The parts of a good backup, to be committed under another name with something changed.
    pub(crate) async fn copy(&self, name: &str) -> Parts {
        let good = self.find(name).await.unwrap();
        let snapshot = self.repository.snapshot(&good.snapshot).await.unwrap();
        let tree = self.repository.reader().await.unwrap().tree(&snapshot.tree).await.unwrap();
        let writer = self.repository.writer().await.unwrap();
        Parts { writer, time: snapshot.time, nodes: tree.nodes().to_vec() }
    }

    /// The same of a backup that gives its name away, because its manifest says it.
    pub(crate) async fn take(&self, name: &str) -> Parts {
        let Parts { writer, time, nodes } = self.copy(name).await;
        writer.abandon().await;
        catalog::forget(&self.repository, name).await.unwrap();
        Parts { writer: self.repository.writer().await.unwrap(), time, nodes }
    }
}

impl Parts {
    pub(crate) fn drop(&mut self, name: &str) {
        let before = self.nodes.len();
        self.nodes.retain(|node| node.name != *name);
        assert_eq!(self.nodes.len() + 1, before, "{name} is not there");
    }

    pub(crate) async fn add_file(&mut self, name: &str, content: &[u8]) {
        self.nodes.push(Node::file(name, self.writer.bytes(content).await.unwrap(), self.time));
    }

    /// Puts a document in the manifest's place, signed.
    pub(crate) async fn replace_manifest(&mut self, bytes: &[u8], key: &SigningKey) {
        self.drop(MANIFEST_FILE);
        self.drop(SIGNATURE_FILE);
        self.add_file(MANIFEST_FILE, bytes).await;
        let signature = serde_json::to_vec(&key.sign(Domain::Manifest, &Id::of(bytes))).unwrap();
        self.add_file(SIGNATURE_FILE, &signature).await;
    }

    pub(crate) async fn commit(self, name: &str) -> Id {
        self.commit_with(vec![BACKUP_TAG.into(), format!("stillpoint-name:{name}")]).await
    }

    pub(crate) async fn commit_with(self, tags: Vec<String>) -> Id {
        let meta = SnapshotMeta {
            tree: self.writer.tree(Tree::new(self.nodes).unwrap()).await.unwrap(),
            hostname: "shop".into(),
            paths: vec!["/".into()],
            tags,
            time: self.time,
            program_version: None,
            summary: None,
        };
        self.writer.commit(meta).await.unwrap()
    }
}
