//! What a user may say about a store beside its address.
//!
//! Values only: files are read and servers named when the store is built, so a wrong one is reported with its flag.

use std::{collections::BTreeMap, num::NonZeroU32, path::PathBuf};

/// Settings of a store by the names of their environment variables, such as `AWS_REGION`; ordered, so that of two
/// names for one thing always the same one wins.
pub(super) type Settings = BTreeMap<String, String>;

/// What flags say about a store; each overrules the environment.
#[derive(Debug, Clone, Default)]
pub struct StoreOptions {
    /// The server to ask instead of the provider's own, such as `https://minio.example:9000`.
    pub endpoint: Option<String>,
    /// The region of the bucket; only S3 has regions.
    pub region: Option<String>,
    /// A PEM file of certificates to trust in addition to those of the system.
    pub ca_file: Option<PathBuf>,
    /// The most to send, in KiB a second.
    pub limit_upload: Option<NonZeroU32>,
    /// The most to receive, in KiB a second.
    pub limit_download: Option<NonZeroU32>,
}
