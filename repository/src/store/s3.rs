//! Buckets of Amazon S3 and of what is compatible with it.
//!
//! Settings go to the library under its own names; what is added is what it does not read itself: profiles.

use std::sync::Arc;

use object_store::{ObjectStore, aws::AmazonS3Builder};

use super::{
    connect::{Connection, innermost},
    options::{Settings, StoreOptions},
    profile,
};

pub(super) fn build(
    bucket: &str,
    options: &StoreOptions,
    settings: &Settings,
    connection: Connection,
) -> Result<Arc<dyn ObjectStore>, String> {
    let settings = with_profile(settings, options)?;
    let mut builder = configured(&settings).with_bucket_name(bucket);
    if let Some(region) = &options.region {
        builder = builder.with_region(region);
    }
    if let Some(endpoint) = &options.endpoint {
        builder = builder.with_config(object_store::aws::AmazonS3ConfigKey::S3Endpoint, endpoint);
    }
    let endpoint =
        ["AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL", "AWS_ENDPOINT"].iter().find_map(|name| settings.get(*name));
    let store = builder
        // files are removed one at a time; one that is refused then says so with its own status
        .with_disable_bulk_delete(true)
        .with_client_options(connection.client(options.endpoint.as_ref().or(endpoint), &settings, "AWS_ALLOW_HTTP"))
        .with_retry(connection.retries())
        .with_http_connector(connection.http)
        .build()
        .map_err(|error| innermost(&error))?;
    Ok(Arc::new(store))
}

/// The settings, and below them those of the profile that they name.
fn with_profile(settings: &Settings, options: &StoreOptions) -> Result<Settings, String> {
    let mut merged = profile::load(settings, options)?;
    merged.extend(settings.iter().map(|(name, value)| (name.clone(), value.clone())));
    Ok(merged)
}

/// A builder with every setting that it knows, as it would take them from the environment by itself.
fn configured(settings: &Settings) -> AmazonS3Builder {
    let ours = settings.iter().filter(|(name, _)| name.starts_with("AWS_"));
    let known = ours.filter_map(|(name, value)| Some((name.to_ascii_lowercase().parse().ok()?, value)));
    known.fold(AmazonS3Builder::new(), |builder, (key, value)| builder.with_config(key, value))
}
