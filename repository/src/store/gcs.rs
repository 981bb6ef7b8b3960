//! Buckets of Google Cloud Storage.
//!
//! Settings go to the library under its own names. A credentials file of a kind that it cannot use is refused by name
//! here: the library would say that the file cannot be parsed.

use std::{
    io::Read,
    path::{Path, PathBuf},
    sync::Arc,
};

use object_store::{ObjectStore, gcp::GoogleCloudStorageBuilder};
use serde::Deserialize;

use super::{
    connect::{Connection, innermost},
    options::{Settings, StoreOptions},
};

/// Bytes of a credentials file; real ones have two to four thousand.
const MAX_CREDENTIALS: u64 = 1 << 20;

pub(super) fn build(
    bucket: &str,
    options: &StoreOptions,
    settings: &Settings,
    connection: Connection,
) -> Result<Arc<dyn ObjectStore>, String> {
    let mut builder = configured(settings).with_bucket_name(bucket);
    if let Some(token) = settings.get("GOOGLE_ACCESS_TOKEN") {
        builder = builder.with_bearer_token(token);
    } else if let Some(path) = credentials_file(settings) {
        check_kind(&path)?;
        builder = builder.with_application_credentials(path.to_string_lossy());
    }
    if let Some(endpoint) = &options.endpoint {
        builder = builder.with_base_url(endpoint.trim_end_matches('/'));
    }
    let endpoint = options.endpoint.as_ref().or_else(|| settings.get("GOOGLE_BASE_URL"));
    let store = builder
        .with_client_options(connection.client(endpoint, settings, "GOOGLE_ALLOW_HTTP"))
        .with_retry(connection.retries())
        .with_http_connector(connection.http)
        .build()
        .map_err(|error| innermost(&error))?;
    Ok(Arc::new(store))
}

fn configured(settings: &Settings) -> GoogleCloudStorageBuilder {
    let ours = settings.iter().filter(|(name, _)| name.starts_with("GOOGLE_"));
    let known = ours.filter_map(|(name, value)| Some((name.to_ascii_lowercase().parse().ok()?, value)));
    known.fold(GoogleCloudStorageBuilder::new(), |builder, (key, value)| builder.with_config(key, value))
}

/// The file of the application default credentials, if there is one and nothing else says who we are.
fn credentials_file(settings: &Settings) -> Option<PathBuf> {
    if settings.keys().any(|name| name.starts_with("GOOGLE_SERVICE_ACCOUNT") || name == "GOOGLE_BEARER_TOKEN") {
        return None;
    }
    if let Some(path) = settings.get("GOOGLE_APPLICATION_CREDENTIALS") {
        return Some(path.into());
    }
    let known = Path::new(settings.get("HOME")?).join(".config/gcloud/application_default_credentials.json");
    known.exists().then_some(known)
}

#[derive(Deserialize)]
struct Credentials {
    #[serde(rename = "type")]
    kind: String,
}

fn check_kind(path: &Path) -> Result<(), String> {
    let shown = path.display();
    let unreadable = |error: &dyn std::fmt::Display| format!("the credentials file {shown} cannot be read: {error}");
    let file = std::fs::File::open(path).map_err(|error| unreadable(&error))?;
    let mut text = String::new();
    file.take(MAX_CREDENTIALS).read_to_string(&mut text).map_err(|error| unreadable(&error))?;
    let found: Credentials = serde_json::from_str(&text).map_err(|error| unreadable(&error))?;
    match found.kind.as_str() {
        "service_account" | "authorized_user" => Ok(()),
        kind => Err(format!(
            "the credentials file {shown} is of the type {kind:?}, which is not supported; use a service account's \
             key, or GOOGLE_ACCESS_TOKEN=$(gcloud auth print-access-token) for an hour"
        )),
    }
}
