//! A backup in the making.
//!
//! Three types for three states: a `Draft` takes object files, a `Sealed` one has its trees and waits for the
//! manifest that names them, and only `Sealed::commit` writes the snapshot. Dropped before that, there is no backup.

use std::collections::BTreeMap;

use jiff::Timestamp;
use stillpoint_api::{
    Digest, GroupResource, Manifest, Trees,
    manifest::{CLUSTER_FILE, MANIFEST_FILE, RESOURCES_FOLDER, SIGNATURE_FILE, VOLUMES_FOLDER},
};
use stillpoint_repository::{
    FileContent, Id, Node, Repository, SnapshotMeta, Stats, Tree, Writer,
    signing::{Domain, SigningKey},
};

use crate::{BACKUP_TAG, Error, NAME_TAG, digest, id, listing};

/// A backup that takes object files.
pub struct Draft {
    writer: Writer,
    name: String,
    folders: BTreeMap<GroupResource, BTreeMap<String, FileContent>>,
    /// By namespace.
    volumes: BTreeMap<String, Vec<Node>>,
    /// Snapshots that keep what others stored for this backup until it is committed.
    parts: Vec<Id>,
}

/// A backup whose trees are written and whose manifest is not.
pub struct Sealed {
    writer: Writer,
    name: String,
    time: Timestamp,
    parts: Vec<Id>,
    /// The trees that the manifest must name.
    pub trees: Trees,
}

/// A backup that exists.
#[derive(Debug, Clone)]
pub struct Committed {
    /// The root: the SHA-256 of the manifest's bytes.
    pub root: Digest,
    /// The snapshot that commits it.
    pub snapshot: Id,
    /// What was written, and what was there already.
    pub stats: Stats,
}

impl Draft {
    /// Starts a backup: the name is checked and the repository locked against prunes.
    ///
    /// # Errors
    /// The name cannot be one or is taken, or the repository refuses.
    pub async fn begin(repository: &Repository, name: &str) -> Result<Self, Error> {
        listing::check_name(repository, name).await?;
        let writer = repository.writer().await?;
        Ok(Self {
            writer,
            name: name.to_owned(),
            folders: BTreeMap::new(),
            volumes: BTreeMap::new(),
            parts: Vec::new(),
        })
    }

    /// Makes files to append objects to, in the order of their names; many may be written at once.
    pub fn writer(&self) -> Writer {
        self.writer.clone()
    }

    /// Places a finished file: one type in one namespace, or its cluster-scoped objects.
    pub fn place(&mut self, resource: &GroupResource, namespace: Option<&str>, content: FileContent) {
        let name = format!("{}.jsonl", namespace.unwrap_or(CLUSTER_FILE));
        self.folders.entry(resource.clone()).or_default().insert(name, content);
    }

    /// Takes over what others stored for this backup: `trees`, which the snapshots `parts` keep until the commit removes
    /// them.
    ///
    /// # Errors
    /// The repository fails, or a tree is not in it.
    pub async fn adopt(&mut self, repository: &Repository, trees: &[Id], parts: Vec<Id>) -> Result<(), Error> {
        self.parts.extend(parts);
        Ok(self.writer.adopt(&repository.reader().await?, trees.iter().copied())?)
    }

    /// Places a volume: the directory that it is, whose tree is stored or adopted.
    pub fn place_volume(&mut self, namespace: &str, claim: &str, directory: Node) {
        let node = Node { name: claim.into(), ..directory };
        self.volumes.entry(namespace.to_owned()).or_default().push(node);
    }

    /// Writes the trees. `time` is the instant that the backup's files carry.
    ///
    /// # Errors
    /// The repository fails.
    pub async fn seal(self, time: Timestamp) -> Result<Sealed, Error> {
        let mut folders = Vec::new();
        for (resource, files) in self.folders {
            let nodes = files.into_iter().map(|(name, content)| Node::file(name, content, time)).collect();
            folders.push(Node::dir(resource.to_string(), self.writer.tree(Tree::new(nodes)?).await?, time));
        }
        let resources = digest(self.writer.tree(Tree::new(folders)?).await?);
        let mut namespaces = Vec::new();
        for (namespace, volumes) in self.volumes {
            namespaces.push(Node::dir(namespace, self.writer.tree(Tree::new(volumes)?).await?, time));
        }
        let volumes = match namespaces.is_empty() {
            true => None,
            false => Some(digest(self.writer.tree(Tree::new(namespaces)?).await?)),
        };
        let (writer, name, parts) = (self.writer, self.name, self.parts);
        Ok(Sealed { writer, name, time, parts, trees: Trees { resources, volumes } })
    }
}

impl Sealed {
    /// Writes the manifest, its signature and the snapshot: from here on the backup exists.
    ///
    /// # Errors
    /// The repository fails; there is no backup then.
    pub async fn commit(self, manifest: &Manifest, key: Option<&SigningKey>) -> Result<Committed, Error> {
        let bytes = json("the manifest", manifest)?;
        let root = Id::of(&bytes);
        let mut nodes = vec![
            Node::file(MANIFEST_FILE.to_owned(), self.writer.bytes(&bytes).await?, self.time),
            Node::dir(RESOURCES_FOLDER.to_owned(), id(self.trees.resources), self.time),
        ];
        if let Some(volumes) = self.trees.volumes {
            nodes.push(Node::dir(VOLUMES_FOLDER.to_owned(), id(volumes), self.time));
        }
        if let Some(key) = key {
            let signature = json("the signature", &key.sign(Domain::Manifest, &root))?;
            nodes.push(Node::file(SIGNATURE_FILE.to_owned(), self.writer.bytes(&signature).await?, self.time));
        }
        let tree = self.writer.tree(Tree::new(nodes)?).await?;
        let meta = SnapshotMeta {
            tree,
            time: self.time,
            hostname: manifest.cluster.name.clone(),
            paths: vec!["/".to_owned()],
            tags: vec![BACKUP_TAG.to_owned(), format!("{NAME_TAG}{}", self.name)],
            program_version: Some(format!("stillpoint {}", manifest.tool_version)),
            summary: None,
        };
        let stats = self.writer.stats();
        let snapshot = self.writer.commit_over(meta, &self.parts).await?;
        Ok(Committed { root: digest(root), snapshot, stats })
    }
}

fn json<T: serde::Serialize>(what: &'static str, document: &T) -> Result<Vec<u8>, Error> {
    let mut bytes = serde_json::to_vec_pretty(document).map_err(|source| Error::Encode { what, source })?;
    bytes.push(b'\n');
    Ok(bytes)
}
