//! Small documents for the tests of the checks.
//!
//! Each test changes the one field that it is about.

use jiff::Timestamp;
use stillpoint_api::{
    Backup, Cluster, Cut, Digest, Manifest, Outcome, ResourceType, Scope, Trees, TypeRecord, manifest::FORMAT_VERSION,
};

/// A type in version `v1`.
pub(crate) fn resource(name: &str, kind: &str, namespaced: bool) -> ResourceType {
    ResourceType { name: name.parse().unwrap(), version: "v1".into(), kind: kind.into(), namespaced }
}

/// A namespaced type of which all objects were captured.
pub(crate) fn record(name: &str, kind: &str, captured: u64) -> TypeRecord {
    let resource = resource(name, kind, true);
    TypeRecord { resource, existed: Some(captured), captured, excluded: Vec::new() }
}

/// A cluster-scoped type of which all objects were captured.
pub(crate) fn cluster_record(name: &str, kind: &str, captured: u64) -> TypeRecord {
    TypeRecord { resource: resource(name, kind, false), ..record(name, kind, captured) }
}

/// The manifest of a complete backup of everything.
pub(crate) fn manifest(types: Vec<TypeRecord>) -> Manifest {
    Manifest {
        format_version: FORMAT_VERSION,
        backup: Backup { name: "shop-1".into(), uid: "u".into() },
        tool_version: "0.1.0".into(),
        repository_id: "r".into(),
        cluster: Cluster { name: "production".into(), uid: None, version: "v1.35.1".into() },
        started: Timestamp::UNIX_EPOCH,
        finished: Timestamp::UNIX_EPOCH,
        cut: Cut { revision: 48211, read_at: Timestamp::UNIX_EPOCH, attempts: 1, window: None },
        scope: Scope::default(),
        outcome: Outcome::Complete,
        problems: Vec::new(),
        types,
        volumes: Vec::new(),
        hooks: Vec::new(),
        trees: Trees { resources: Digest([0; 32]), volumes: None },
        previous: None,
    }
}
