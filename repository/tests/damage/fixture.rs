//! A repository to be damaged, and the means to do it.

use std::path::PathBuf;

use serde_json::Value;
use stillpoint_repository::{CheckReport, CheckRequest, Control, Error, Id, ReadData, Repository};

use crate::common::{
    content,
    forge::{Forge, ForgedBlob},
    init, joined, lines, local, meta, object, root,
};

/// A repository with two backups that share nothing but a small file.
pub(crate) struct Fixture {
    _folder: tempfile::TempDir,
    pub(crate) path: PathBuf,
    pub(crate) repository: Repository,
    /// The two backups: what each added, and what is in it.
    pub(crate) backups: Vec<Backup>,
}

pub(crate) struct Backup {
    pub(crate) snapshot: Id,
    pub(crate) content: Vec<u8>,
    pub(crate) data: String,
    pub(crate) trees: String,
    pub(crate) index: String,
}

impl Fixture {
    pub(crate) async fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let (path, store) = local(folder.path());
        let repository = init(&store).await;
        let mut fixture = Self { _folder: folder, path, repository, backups: Vec::new() };
        for revision in 0..2 {
            let backup = fixture.backup(revision).await;
            fixture.backups.push(backup);
        }
        fixture
    }

    pub(crate) async fn backup(&self, revision: usize) -> Backup {
        let before = self.files();
        let names = (0..200).map(|n| format!("object-{n:06}"));
        let objects: Vec<_> = names.map(|name| (name.clone(), object(&name, revision))).collect();
        let writer = self.repository.writer().await.unwrap();
        let content = lines(&writer, objects.clone()).await;
        let tree = root(&writer, content).await;
        let snapshot = writer.commit(meta(tree)).await.unwrap();
        let new: Vec<String> = self.files().into_iter().filter(|file| !before.contains(file)).collect();
        let index = new.iter().find(|file| file.starts_with("index/")).unwrap().clone();
        let indexed: Value = serde_json::from_slice(&Forge::open(&self.path).read(&index)).unwrap();
        let pack = |kind: &str| {
            let pack =
                indexed["packs"].as_array().unwrap().iter().find(|pack| pack["blobs"][0]["type"] == kind).unwrap();
            let id = pack["id"].as_str().unwrap();
            format!("data/{}/{id}", &id[..2])
        };
        Backup { snapshot, content: joined(&objects), data: pack("data"), trees: pack("tree"), index }
    }

    /// Paths of all files.
    pub(crate) fn files(&self) -> Vec<String> {
        let (mut files, mut folders) = (Vec::new(), vec![self.path.clone()]);
        while let Some(folder) = folders.pop() {
            for entry in std::fs::read_dir(folder).unwrap() {
                let path = entry.unwrap().path();
                if path.is_dir() {
                    folders.push(path);
                } else {
                    files.push(path.strip_prefix(&self.path).unwrap().to_str().unwrap().to_owned());
                }
            }
        }
        files
    }

    pub(crate) fn change(&self, file: &str, change: impl FnOnce(&mut Vec<u8>)) -> String {
        let path = self.path.join(file);
        let mut bytes = std::fs::read(&path).unwrap();
        change(&mut bytes);
        std::fs::write(path, bytes).unwrap();
        file.to_owned()
    }

    /// Flips a bit `from` bytes from the start.
    pub(crate) fn flip(&self, file: &str, from: usize) -> String {
        self.change(file, |bytes| bytes[from] ^= 0x10)
    }

    pub(crate) fn remove(&self, file: &str) -> String {
        std::fs::remove_file(self.path.join(file)).unwrap();
        file.to_owned()
    }

    pub(crate) fn forge(&self) -> Forge {
        Forge::open(&self.path)
    }

    pub(crate) fn key(&self) -> String {
        self.files().into_iter().find(|file| file.starts_with("keys/")).unwrap()
    }

    /// Rewrites the index file of the second backup.
    pub(crate) fn change_index(&self, change: impl FnOnce(&mut Value)) -> String {
        let (forge, index) = (self.forge(), &self.backups[1].index);
        let mut content: Value = serde_json::from_slice(&forge.read(index)).unwrap();
        change(&mut content);
        self.remove(index);
        forge.write("index", content.to_string().as_bytes())
    }

    /// Rewrites what the index says of the second backup's pack of a kind.
    pub(crate) fn change_pack(&self, kind: &str, change: impl FnOnce(&mut Value)) -> String {
        self.change_index(|index| {
            let packs = index["packs"].as_array_mut().unwrap();
            change(packs.iter_mut().find(|pack| pack["blobs"][0]["type"] == kind).unwrap());
        })
    }

    /// Adds a snapshot of a directory as given.
    pub(crate) fn forge_tree(&self, json: &str) -> Id {
        let forge = self.forge();
        let content = ForgedBlob::data(b"abc");
        let (_, data) = forge.pack(&[content]);
        let (_, trees) = forge.pack(&[ForgedBlob::tree(json)]);
        forge.index(&[data, trees]);
        let tree = Id::of(json.as_bytes());
        forge.snapshot(&tree);
        tree
    }

    pub(crate) async fn check(&self, read_data: ReadData) -> CheckReport {
        let request = CheckRequest { read_data, ..CheckRequest::default() };
        self.repository.check(&request, &Control::default()).await.unwrap()
    }

    /// What is in a backup.
    pub(crate) async fn content(&self, backup: usize) -> Result<Vec<u8>, Error> {
        content(&self.repository, &self.backups[backup].snapshot).await
    }
}
