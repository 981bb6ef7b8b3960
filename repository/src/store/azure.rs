//! Containers of Azure Blob Storage.
//!
//! Settings go to the library under its own names; the shorter ones of Azure's own command line and of restic are
//! translated, so that what works there works here.

use std::sync::Arc;

use object_store::{ObjectStore, azure::MicrosoftAzureBuilder};

use super::{
    connect::{Connection, innermost},
    options::{Settings, StoreOptions},
};

/// Other programs' names and the library's.
const ALIASES: [(&str, &str); 6] = [
    ("AZURE_STORAGE_ACCOUNT", "AZURE_STORAGE_ACCOUNT_NAME"),
    ("AZURE_ACCOUNT_NAME", "AZURE_STORAGE_ACCOUNT_NAME"),
    ("AZURE_STORAGE_KEY", "AZURE_STORAGE_ACCOUNT_KEY"),
    ("AZURE_ACCOUNT_KEY", "AZURE_STORAGE_ACCOUNT_KEY"),
    ("AZURE_ACCOUNT_SAS", "AZURE_STORAGE_SAS_TOKEN"),
    ("AZURE_STORAGE_SAS_KEY", "AZURE_STORAGE_SAS_TOKEN"),
];
const ACCOUNT: &str = "AZURE_STORAGE_ACCOUNT_NAME";

pub(super) fn build(
    container: &str,
    options: &StoreOptions,
    settings: &Settings,
    connection: Connection,
) -> Result<Arc<dyn ObjectStore>, String> {
    let settings = translated(settings);
    let account = settings.get(ACCOUNT).ok_or_else(|| no_account(&settings))?;
    let suffix = settings.get("AZURE_ENDPOINT_SUFFIX").map(|suffix| format!("https://{account}.blob.{suffix}"));
    let endpoint = options.endpoint.clone().or_else(|| settings.get("AZURE_STORAGE_ENDPOINT").cloned()).or(suffix);
    let mut builder = configured(&settings).with_container_name(container);
    if let Some(host) = settings.get("AZURE_AUTHORITY_HOST") {
        // in pods it ends in a slash, to which the library would add one
        builder = builder.with_authority_host(host.trim_end_matches('/'));
    }
    if let Some(endpoint) = &endpoint {
        builder = builder.with_endpoint(endpoint.clone());
    }
    let store = builder
        .with_client_options(connection.client(endpoint.as_ref(), &settings, "AZURE_ALLOW_HTTP"))
        .with_retry(connection.retries())
        .with_http_connector(connection.http)
        .build()
        .map_err(|error| innermost(&error))?;
    Ok(Arc::new(store))
}

fn no_account(settings: &Settings) -> String {
    match settings.contains_key("AZURE_STORAGE_CONNECTION_STRING") {
        true => "connection strings are not read, set AZURE_STORAGE_ACCOUNT and AZURE_STORAGE_KEY instead".into(),
        false => "its storage account is not named, set AZURE_STORAGE_ACCOUNT".into(),
    }
}

fn translated(settings: &Settings) -> Settings {
    let mut translated = settings.clone();
    for (other, own) in ALIASES {
        if let Some(value) = settings.get(other) {
            translated.entry(own.to_owned()).or_insert_with(|| value.clone());
        }
    }
    translated
}

fn configured(settings: &Settings) -> MicrosoftAzureBuilder {
    // the emulator's mode would ignore the endpoint; its accounts are reached by theirs
    let ours = settings.iter().filter(|(name, _)| name.starts_with("AZURE_") && *name != "AZURE_STORAGE_USE_EMULATOR");
    let known = ours.filter_map(|(name, value)| Some((name.to_ascii_lowercase().parse().ok()?, value)));
    known.fold(MicrosoftAzureBuilder::new(), |builder, (key, value)| builder.with_config(key, value))
}
