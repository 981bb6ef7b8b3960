//! A backup that was opened: its manifest is read, its root known, its signature judged.
//!
//! The type exists only after those steps, so that nobody can read objects of a backup whose trees are not the ones
//! that its manifest names.

use std::fmt;

use futures::TryStreamExt;
use serde::Deserialize;
use stillpoint_api::{
    Digest, Manifest, ObjectRef, ResourceType, SignerState, TypeRecord, VolumeRecord,
    manifest::{CLUSTER_FILE, FORMAT_VERSION, MANIFEST_FILE, RESOURCES_FOLDER, SIGNATURE_FILE, VOLUMES_FOLDER},
};
use stillpoint_repository::{
    Id, LineReader, Node, NodeKind, Reader, Snapshot, Tree,
    signing::{Domain, Signature, Signer, Trust},
};

use crate::{CapturedObject, Damage, Error, MAX_MANIFEST, MAX_OBJECT, digest, id};

/// The ending of an object file's name.
const OBJECTS_ENDING: &str = ".jsonl";

/// An opened backup.
#[derive(Clone)]
pub struct Backup {
    /// The snapshot that commits it.
    pub snapshot: Id,
    /// The root: the SHA-256 of the manifest's bytes.
    pub root: Digest,
    /// The signed document.
    pub manifest: Manifest,
    /// Who signed it.
    pub signer: SignerState,
    reader: Reader,
}

impl fmt::Debug for Backup {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Backup")
            .field("name", &self.manifest.backup.name)
            .field("root", &self.root)
            .finish_non_exhaustive()
    }
}

/// One file of objects: one type in one namespace, or its cluster-scoped objects.
#[derive(Debug, Clone)]
pub struct ObjectFile {
    /// The type as it was read.
    pub resource: ResourceType,
    /// The namespace; none for cluster-scoped objects.
    pub namespace: Option<String>,
    /// The path in the backup.
    pub path: String,
    node: Node,
}

impl ObjectFile {
    /// The reference of one of its objects.
    pub fn object(&self, name: &str) -> ObjectRef {
        ObjectRef::new(self.resource.name.clone(), self.namespace.as_deref(), name)
    }
}

impl Backup {
    /// Opens the backup that `snapshot` commits and that should be named `name`.
    pub(crate) async fn open(reader: Reader, name: &str, snapshot: &Snapshot, trust: &Trust) -> Result<Self, Error> {
        Self::read(reader, name, snapshot, trust).await.map_err(|damage| damage.of(name))
    }

    async fn read(reader: Reader, name: &str, snapshot: &Snapshot, trust: &Trust) -> Result<Self, Damage> {
        let tree = read_tree(&reader, "/", &snapshot.tree).await?;
        let bytes = read_file(&reader, &tree, MANIFEST_FILE).await?.ok_or_else(|| missing(MANIFEST_FILE))?;
        let root = Id::of(&bytes);
        let signature = read_file(&reader, &tree, SIGNATURE_FILE).await?;
        let signer = judge(signature.as_deref(), trust, &root)?;
        let manifest = parse_manifest(&bytes)?;
        let backup = Self { snapshot: snapshot.id, root: digest(root), manifest, signer, reader };
        backup.compare(name, &tree)?;
        Ok(backup)
    }

    /// The manifest, the snapshot's name and its tree must say the same.
    fn compare(&self, name: &str, tree: &Tree) -> Result<(), Damage> {
        if self.manifest.backup.name != name {
            let manifest = self.manifest.backup.name.clone();
            return Err(Damage::WrongName { snapshot: name.to_owned(), manifest });
        }
        let trees = &self.manifest.trees;
        let named = [
            (MANIFEST_FILE, None),
            (SIGNATURE_FILE, None),
            (RESOURCES_FOLDER, Some(trees.resources)),
            (VOLUMES_FOLDER, trees.volumes),
        ];
        for node in tree.nodes() {
            let Some((name, expected)) = named.iter().find(|(name, _)| node.name == *name) else {
                return Err(Damage::Foreign { path: text(node) });
            };
            match (node.subtree.map(digest), *expected) {
                (None, None) => {}
                (Some(found), Some(expected)) if found == expected => {}
                (Some(found), Some(expected)) => {
                    return Err(Damage::WrongTree { path: (*name).to_owned(), found, expected });
                }
                _ => return Err(Damage::Foreign { path: text(node) }),
            }
        }
        match named.iter().find(|(name, expected)| expected.is_some() && tree.get(name).is_none()) {
            Some((name, _)) => Err(missing(name)),
            None => Ok(()),
        }
    }

    /// Reads the repository that the backup is in, as of its opening.
    pub fn reader(&self) -> &Reader {
        &self.reader
    }

    /// The directory of each volume whose data the backup holds, beside the manifest's record of it: its attributes are
    /// those of the volume's own root.
    ///
    /// # Errors
    /// A tree is damaged, or holds other volumes than the manifest names.
    pub async fn volumes(&self) -> Result<Vec<(VolumeRecord, Node)>, Error> {
        self.read_volumes().await.map_err(|damage| damage.of(&self.manifest.backup.name))
    }

    async fn read_volumes(&self) -> Result<Vec<(VolumeRecord, Node)>, Damage> {
        let mut found = Vec::new();
        if let Some(tree) = self.manifest.trees.volumes {
            for namespace in read_tree(&self.reader, VOLUMES_FOLDER, &id(tree)).await?.nodes() {
                let path = format!("{VOLUMES_FOLDER}/{}", text(namespace));
                let Some(subtree) = namespace.subtree else { return Err(Damage::Foreign { path }) };
                for node in read_tree(&self.reader, &path, &subtree).await?.nodes() {
                    found.push(self.volume(namespace, node, &path)?);
                }
            }
        }
        let held = self.manifest.volumes.iter().filter(|record| record.data.held().is_some());
        let is_there = |record: &&VolumeRecord| found.iter().any(|(other, _)| other == *record);
        match held.into_iter().find(|record| !is_there(record)) {
            Some(record) => Err(missing(&format!("{VOLUMES_FOLDER}/{}/{}", record.namespace, record.claim))),
            None => Ok(found),
        }
    }

    fn volume(&self, namespace: &Node, node: &Node, folder: &str) -> Result<(VolumeRecord, Node), Damage> {
        let path = format!("{folder}/{}", text(node));
        let is_it = |record: &&VolumeRecord| namespace.name == *record.namespace && node.name == *record.claim;
        let record = self.manifest.volumes.iter().find(is_it);
        let held = record.and_then(|record| Some((record, record.data.held()?)));
        let (Some((record, held)), Some(subtree)) = (held, node.subtree) else { return Err(Damage::Foreign { path }) };
        if digest(subtree) == held.tree {
            Ok((record.clone(), node.clone()))
        } else {
            Err(Damage::WrongTree { path, found: digest(subtree), expected: held.tree })
        }
    }

    /// Its object files, sorted by type and namespace.
    ///
    /// # Errors
    /// A tree is damaged, or holds a file of a type that the manifest does not name.
    pub async fn files(&self) -> Result<Vec<ObjectFile>, Error> {
        self.read_files().await.map_err(|damage| damage.of(&self.manifest.backup.name))
    }

    async fn read_files(&self) -> Result<Vec<ObjectFile>, Damage> {
        let mut files = Vec::new();
        let resources = read_tree(&self.reader, RESOURCES_FOLDER, &id(self.manifest.trees.resources)).await?;
        for folder in resources.nodes() {
            let path = format!("{RESOURCES_FOLDER}/{}", text(folder));
            let of_folder = |record: &&TypeRecord| folder.name == *record.resource.name.to_string();
            let record = self.manifest.types.iter().find(of_folder);
            let (Some(record), Some(subtree)) = (record, folder.subtree) else {
                return Err(Damage::Foreign { path });
            };
            for node in read_tree(&self.reader, &path, &subtree).await?.nodes() {
                files.push(object_file(&record.resource, &path, node)?);
            }
        }
        Ok(files)
    }

    /// Reads a file's objects one after the other; every byte is checked against its id on the way.
    ///
    /// # Errors
    /// The repository does not know where the file's blobs are.
    pub fn objects(&self, file: &ObjectFile) -> Result<ObjectLines, Error> {
        let (path, backup) = (file.path.clone(), self.manifest.backup.name.clone());
        match self.reader.lines(&file.node, MAX_OBJECT) {
            Ok(lines) => Ok(ObjectLines { lines, path, backup, line: 0 }),
            Err(source) => Err(Damage::Unreadable { path, source }.of(&backup)),
        }
    }

    /// One object; none where the backup does not hold it.
    ///
    /// # Errors
    /// What must be read to tell is damaged.
    pub async fn object(&self, wanted: &ObjectRef) -> Result<Option<(ResourceType, CapturedObject)>, Error> {
        for file in self.files().await? {
            if file.resource.name != wanted.resource || file.namespace != wanted.namespace {
                continue;
            }
            let mut objects = self.objects(&file)?;
            while let Some(object) = objects.next().await? {
                if object.name == wanted.name {
                    return Ok(Some((file.resource, object)));
                }
            }
        }
        Ok(None)
    }
}

/// The objects of one file, in the order of their names.
pub struct ObjectLines {
    lines: LineReader,
    path: String,
    backup: String,
    line: u64,
}

impl ObjectLines {
    /// The next object; none at the end.
    ///
    /// # Errors
    /// The file is damaged there.
    pub async fn next(&mut self) -> Result<Option<CapturedObject>, Error> {
        self.line += 1;
        let read = self.lines.next().await.map_err(|source| Damage::Unreadable { path: self.path.clone(), source });
        match read.map_err(|damage| damage.of(&self.backup))? {
            None => Ok(None),
            Some(raw) => CapturedObject::parse(raw).map(Some).map_err(|error| {
                let (path, line, message) = (self.path.clone(), self.line, error.to_string());
                Damage::BadLine { path, line, message }.of(&self.backup)
            }),
        }
    }
}

fn missing(path: &str) -> Damage {
    Damage::Missing { path: path.to_owned() }
}

fn text(node: &Node) -> String {
    node.name.to_string_lossy().into_owned()
}

fn object_file(resource: &ResourceType, folder: &str, node: &Node) -> Result<ObjectFile, Damage> {
    let path = format!("{folder}/{}", text(node));
    let stem = match node.name.to_str().and_then(|name| name.strip_suffix(OBJECTS_ENDING)) {
        Some(stem) if node.kind == NodeKind::File => stem,
        _ => return Err(Damage::Foreign { path }),
    };
    let namespace = match (resource.namespaced, stem) {
        (false, CLUSTER_FILE) => None,
        (true, namespace) if namespace != CLUSTER_FILE => Some(namespace.to_owned()),
        _ => return Err(Damage::Foreign { path }),
    };
    Ok(ObjectFile { resource: resource.clone(), namespace, path, node: node.clone() })
}

async fn read_tree(reader: &Reader, path: &str, id: &Id) -> Result<Tree, Damage> {
    reader.tree(id).await.map_err(|source| Damage::Unreadable { path: path.to_owned(), source })
}

async fn read_file(reader: &Reader, tree: &Tree, name: &str) -> Result<Option<Vec<u8>>, Damage> {
    let Some(node) = tree.get(name) else { return Ok(None) };
    if node.size > MAX_MANIFEST {
        return Err(Damage::TooLarge { path: name.to_owned(), size: node.size });
    }
    let unreadable = |source| Damage::Unreadable { path: name.to_owned(), source };
    let mut content = reader.content(node).map_err(unreadable)?;
    let mut bytes = Vec::new();
    while let Some(part) = content.try_next().await.map_err(unreadable)? {
        bytes.extend_from_slice(&part);
    }
    Ok(Some(bytes))
}

fn judge(signature: Option<&[u8]>, trust: &Trust, root: &Id) -> Result<SignerState, Damage> {
    let malformed = |source| Damage::Malformed { path: SIGNATURE_FILE.to_owned(), source };
    let signature: Option<Signature> = signature.map(serde_json::from_slice).transpose().map_err(malformed)?;
    Ok(signer_state(trust.judge(signature.as_ref(), Domain::Manifest, root)))
}

/// The repository's words for a signer in the documents' words.
pub(crate) fn signer_state(signer: Signer) -> SignerState {
    match signer {
        Signer::Trusted(key) => SignerState::Trusted(key),
        Signer::Unverified(key) => SignerState::Unverified(key),
        Signer::Untrusted(key) => SignerState::Untrusted(key),
        Signer::Unsigned => SignerState::Unsigned,
        Signer::Invalid => SignerState::Invalid,
    }
}

/// Reads the version before the rest, so that a newer document is named as such instead of as nonsense.
pub(crate) fn parse_manifest(bytes: &[u8]) -> Result<Manifest, Damage> {
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Version {
        format_version: u64,
    }
    let malformed = |source| Damage::Malformed { path: MANIFEST_FILE.to_owned(), source };
    let Version { format_version: found } = serde_json::from_slice(bytes).map_err(malformed)?;
    if found != u64::from(FORMAT_VERSION) {
        return Err(Damage::Version { found, known: FORMAT_VERSION });
    }
    serde_json::from_slice(bytes).map_err(malformed)
}
