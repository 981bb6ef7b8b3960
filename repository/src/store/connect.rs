//! Builds the store behind an address, without asking it anything.
//!
//! What all providers share is settled once: the client, its patience, and when plain HTTP is allowed.

use std::{error::Error as StdError, path::Path as FilePath, sync::Arc, time::Duration};

use object_store::{ClientOptions, ObjectStore, RetryConfig, local::LocalFileSystem, path::Path};
use reqwest::Certificate;

use super::{
    address::{Address, Provider},
    azure, gcs,
    http::Http,
    options::{Settings, StoreOptions},
    pace::Pace,
    place::Place,
    s3,
};
use crate::Error;

/// How long a store may take to accept a connection.
pub(super) const CONNECT_TIMEOUT: Duration = Duration::from_secs(4);

/// How long after its start an operation is tried again.
const RETRY_TIMEOUT: Duration = Duration::from_secs(45);

/// A store, the repository's place in it, and how messages call it.
pub(super) type Connected = (Arc<dyn ObjectStore>, Path, Place);

/// What every provider's store is built with.
pub(super) struct Connection {
    pub(super) http: Http,
}

/// Builds the store of an address.
///
/// # Errors
/// Says what of the address, the options or the settings makes no sense.
pub(super) fn connect(text: &str, options: &StoreOptions, settings: &Settings) -> Result<Connected, Error> {
    let url = without_secrets(text);
    let address = Address::parse(text).map_err(|reason| Error::InvalidUrl { url: url.clone(), reason })?;
    build(text, address, options, settings).map_err(|reason| Error::InvalidSetting { store: url, reason })
}

/// An address as it may be printed; what stands before an `@` was meant as a secret.
fn without_secrets(text: &str) -> String {
    match (text.split_once("://"), text.rsplit_once('@')) {
        (Some((scheme, _)), Some((_, rest))) => format!("{scheme}://…@{rest}"),
        _ => text.into(),
    }
}

fn build(text: &str, address: Address, options: &StoreOptions, settings: &Settings) -> Result<Connected, String> {
    match address {
        Address::Local(path) => local(&path, options),
        Address::Bucket { provider, bucket, prefix } => {
            let http = http(options)?;
            let place = Place::remote(text, provider, http.health.clone());
            let build = match provider {
                Provider::S3 => s3::build,
                Provider::Azure => azure::build,
                Provider::Gcs => gcs::build,
            };
            Ok((build(&bucket, options, settings, Connection { http })?, prefix, place))
        }
    }
}

fn local(path: &FilePath, options: &StoreOptions) -> Result<Connected, String> {
    let prefix = Path::from_absolute_path(path).map_err(|error| error.to_string())?;
    let place = Place::folder(path, Pace::new(options.limit_upload), Pace::new(options.limit_download));
    Ok((Arc::new(LocalFileSystem::new().with_fsync(true)), prefix, place))
}

fn http(options: &StoreOptions) -> Result<Http, String> {
    // reqwest panics without a process-wide choice; a choice made before stays
    if rustls::crypto::CryptoProvider::get_default().is_none() {
        let _ = rustls::crypto::ring::default_provider().install_default();
    }
    Ok(Http {
        roots: options.ca_file.as_deref().map(roots).transpose()?.unwrap_or_default(),
        upload: Pace::new(options.limit_upload),
        download: Pace::new(options.limit_download),
        ..Http::default()
    })
}

fn roots(file: &FilePath) -> Result<Vec<Certificate>, String> {
    let shown = file.display();
    let pem = std::fs::read(file).map_err(|error| format!("the CA file {shown} cannot be read: {error}"))?;
    let roots = Certificate::from_pem_bundle(&pem).map_err(|error| format!("the CA file {shown}: {error}"))?;
    if roots.is_empty() {
        return Err(format!("the CA file {shown} holds no certificate in PEM"));
    }
    Ok(roots)
}

impl Connection {
    /// Short to connect. A transfer has no time limit here, the store watches that it moves. Plain HTTP where the user
    /// named a server by it.
    pub(super) fn client(&self, endpoint: Option<&String>, settings: &Settings, allow_http: &str) -> ClientOptions {
        let named = endpoint.is_some_and(|endpoint| endpoint.starts_with("http://"));
        let allowed = settings.get(allow_http).is_some_and(|value| value == "true" || value == "1");
        ClientOptions::new().with_allow_http(named || allowed).with_connect_timeout(CONNECT_TIMEOUT)
    }

    /// Outlives the restart of a server; that a server was never there is found out sooner, by the client.
    pub(super) fn retries(&self) -> RetryConfig {
        RetryConfig { max_retries: 100, retry_timeout: RETRY_TIMEOUT, ..RetryConfig::default() }
    }
}

/// An error and its causes, outermost first.
pub(super) fn chain<'a>(error: &'a (dyn StdError + 'static)) -> impl Iterator<Item = &'a (dyn StdError + 'static)> {
    std::iter::successors(Some(error), |error| (*error).source())
}

/// The words of the last cause in a chain: the one that says what really happened.
pub(super) fn innermost(error: &(dyn StdError + 'static)) -> String {
    chain(error).last().map(ToString::to_string).unwrap_or_default()
}
