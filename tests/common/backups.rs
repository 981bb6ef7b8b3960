//! Backups in repositories that are quick to open, and what is in them.

use std::collections::BTreeMap;

use serde_json::Value;
use stillpoint_agent::{self as agent, BackupRequest, Report};
use stillpoint_api::{Manifest, ObjectRef, ProblemKind, Scope, TypeRecord, VolumeIntent};
use stillpoint_catalog::{self as catalog, Backup};
use stillpoint_repository::{Kdf, Password, Repository, Store, signing::Trust};
use tokio::sync::watch;

/// The password of all test repositories.
pub(crate) const PASSWORD: &str = "correct horse";

/// A new repository in memory.
pub(crate) async fn repository() -> Repository {
    init(Store::memory()).await
}

pub(crate) async fn init(store: Store) -> Repository {
    Repository::init(store, &Password::new(PASSWORD), Kdf::fast_for_tests()).await.unwrap()
}

/// A scope of some namespaces, volumes' data not wanted.
pub(crate) fn namespaces(globs: &[&str]) -> Scope {
    let include_namespaces = globs.iter().map(|&glob| glob.to_owned()).collect();
    Scope { include_namespaces, volumes: VolumeIntent::LeftOut, ..Scope::default() }
}

/// Takes a backup that may be degraded.
pub(crate) async fn back_up(
    client: &kube::Client,
    repository: &Repository,
    name: &str,
    scope: Scope,
) -> Result<Report, agent::Error> {
    create(client, repository, name, scope, false).await
}

/// Takes a backup that must miss nothing.
pub(crate) async fn back_up_strictly(
    client: &kube::Client,
    repository: &Repository,
    name: &str,
    scope: Scope,
) -> Result<Report, agent::Error> {
    create(client, repository, name, scope, true).await
}

async fn create(
    client: &kube::Client,
    repository: &Repository,
    name: &str,
    scope: Scope,
    strict: bool,
) -> Result<Report, agent::Error> {
    let request = BackupRequest { strict, ..BackupRequest::new(name, "test", scope) };
    // large, and tests hold several of them
    Box::pin(agent::create(client.clone(), repository, &request, None, watch::Sender::default())).await
}

/// The names of the backups that the repository lists; each must be readable.
pub(crate) async fn names(repository: &Repository) -> Vec<String> {
    let entries = catalog::list(repository, &Trust::default()).await.unwrap();
    entries.into_iter().map(|entry| entry.backup.unwrap().manifest.backup.name).collect()
}

pub(crate) async fn find(repository: &Repository, name: &str) -> Backup {
    catalog::find(repository, name, &Trust::default()).await.unwrap()
}

/// Every object of a backup; none is in it twice.
pub(crate) async fn objects(backup: &Backup) -> BTreeMap<ObjectRef, Value> {
    let mut objects = BTreeMap::new();
    for file in backup.files().await.unwrap() {
        let mut lines = backup.objects(&file).unwrap();
        while let Some(object) = lines.next().await.unwrap() {
            let name = file.object(&object.name);
            let twice = objects.insert(name.clone(), object.value(&file.resource).unwrap());
            assert!(twice.is_none(), "{name} is in the backup twice");
        }
    }
    objects
}

/// One object of a backup.
pub(crate) async fn object(backup: &Backup, name: &str) -> Value {
    let (resource, object) = backup.object(&name.parse().unwrap()).await.unwrap().unwrap();
    object.value(&resource).unwrap()
}

/// What the manifest says of a type.
pub(crate) fn record<'a>(manifest: &'a Manifest, resource: &str) -> &'a TypeRecord {
    let found = manifest.types.iter().find(|record| record.resource.name.to_string() == resource);
    found.unwrap_or_else(|| panic!("the manifest does not name {resource}"))
}

/// The subjects of the problems of one kind.
pub(crate) fn subjects(manifest: &Manifest, kind: ProblemKind) -> Vec<&str> {
    manifest.problems.iter().filter(|problem| problem.kind == kind).map(|problem| problem.subject.as_str()).collect()
}

/// Everything that existed is captured or excluded by a rule, and what is captured is in the files.
pub(crate) async fn assert_counts_add_up(backup: &Backup) {
    let mut held: BTreeMap<String, u64> = BTreeMap::new();
    for object in objects(backup).await.keys() {
        *held.entry(object.resource.to_string()).or_default() += 1;
    }
    for record in &backup.manifest.types {
        let name = record.resource.name.to_string();
        assert_eq!(record.existed, Some(record.captured + record.excluded_objects()), "{record:?}");
        assert_eq!(record.captured, held.remove(&name).unwrap_or(0), "{name}");
    }
    assert!(held.is_empty(), "held but not in the manifest: {held:?}");
}
