//! Turns the address that a user types into an object store.
//!
//! Apart from the store because it knows the backends by name, their options and how their errors are nested.

use std::{
    collections::HashMap,
    error::Error as StdError,
    path::{Path as FilePath, PathBuf},
    sync::Arc,
    time::Duration,
};

use object_store::{
    ClientOptions, ObjectStore, RetryConfig,
    aws::AmazonS3Builder,
    client::{HttpError, HttpErrorKind},
    local::LocalFileSystem,
    path::Path,
};
use url::Url;

use crate::Error;

/// Where a store is, as messages call it and as folders are made.
pub(crate) enum Address {
    /// A folder of this machine.
    Local { path: PathBuf, display: String },
    /// Anything without folders.
    Other(String),
}

impl Address {
    pub(crate) fn display(&self) -> &str {
        match self {
            Self::Local { display, .. } | Self::Other(display) => display,
        }
    }

    pub(crate) fn local_path(&self) -> Option<&FilePath> {
        match self {
            Self::Local { path, .. } => Some(path),
            Self::Other(_) => None,
        }
    }
}

type Connected = (Arc<dyn ObjectStore>, Path, Address);

/// Settings of a store by the names of their environment variables, such as `AWS_REGION`.
pub(crate) type Settings = HashMap<String, String>;

/// Reads an address and builds its store, without asking it anything.
pub(crate) fn connect(text: &str, settings: &Settings) -> Result<Connected, Error> {
    let invalid = |reason: String| Error::InvalidUrl { url: text.into(), reason };
    if !text.contains("://") {
        return local(FilePath::new(text)).map_err(invalid);
    }
    let url = Url::parse(text).map_err(|error| invalid(error.to_string()))?;
    match url.scheme() {
        "file" => {
            let path = url.to_file_path().map_err(|()| invalid("it names no local path".into()))?;
            local(&path).map_err(invalid)
        }
        "s3" => s3(&url, settings).map_err(invalid),
        other => Err(invalid(format!("the scheme {other:?} is unknown"))),
    }
}

fn local(path: &FilePath) -> Result<Connected, String> {
    if path.as_os_str().is_empty() {
        return Err("it is empty".into());
    }
    let path = std::path::absolute(path).map_err(|error| error.to_string())?;
    let prefix = Path::from_absolute_path(&path).map_err(|error| error.to_string())?;
    let display = path.display().to_string();
    Ok((Arc::new(LocalFileSystem::new().with_fsync(true)), prefix, Address::Local { path, display }))
}

fn s3(url: &Url, settings: &Settings) -> Result<Connected, String> {
    let bucket = url.host_str().filter(|bucket| !bucket.is_empty()).ok_or("it names no bucket")?;
    let prefix = Path::from_url_path(url.path()).map_err(|error| error.to_string())?;
    // reqwest panics without a process-wide choice; a choice made before stays
    if rustls::crypto::CryptoProvider::get_default().is_none() {
        let _ = rustls::crypto::ring::default_provider().install_default();
    }
    let store = configured(settings)
        .with_bucket_name(bucket)
        .with_client_options(client_options(settings))
        .with_retry(retries())
        .build()
        .map_err(|error| innermost(&error))?;
    Ok((Arc::new(store), prefix, Address::Other(url.to_string())))
}

/// A builder with every setting that it knows, as it would take them from the environment by itself.
fn configured(settings: &Settings) -> AmazonS3Builder {
    let ours = settings.iter().filter(|(name, _)| name.starts_with("AWS_"));
    let known = ours.filter_map(|(name, value)| Some((name.to_ascii_lowercase().parse().ok()?, value)));
    known.fold(AmazonS3Builder::new(), |builder, (key, value)| builder.with_config(key, value))
}

/// Short to connect, patient with a transfer: a pack of 16 MiB may take minutes on a thin line. No read timeout: its
/// clock would run while a pack is sent.
fn client_options(settings: &Settings) -> ClientOptions {
    let allow_http = settings.get("AWS_ALLOW_HTTP").is_some_and(|value| value == "true" || value == "1");
    ClientOptions::new()
        .with_allow_http(allow_http)
        .with_connect_timeout(Duration::from_secs(4))
        .with_timeout(Duration::from_secs(240))
}

/// Tries again for a quarter of a minute, so that a server that is not there is reported while the user looks on.
fn retries() -> RetryConfig {
    RetryConfig { max_retries: 10, retry_timeout: Duration::from_secs(15), ..RetryConfig::default() }
}

/// Makes the folders of restic's local layout, readable by their owner only.
pub(crate) fn create_folders(root: &FilePath) -> std::io::Result<()> {
    use std::os::unix::fs::DirBuilderExt;
    let mut builder = std::fs::DirBuilder::new();
    builder.recursive(true).mode(0o700);
    let packs = (0..=u8::MAX).map(|first| format!("data/{first:02x}"));
    let others = ["index", "keys", "locks", "snapshots"].map(String::from);
    packs.chain(others).try_for_each(|folder| builder.create(root.join(folder)))
}

/// An error and its causes, outermost first.
fn chain<'a>(error: &'a (dyn StdError + 'static)) -> impl Iterator<Item = &'a (dyn StdError + 'static)> {
    std::iter::successors(Some(error), |error| (*error).source())
}

/// The first error of type `T` in a chain of causes.
pub(crate) fn find<'a, T: StdError + 'static>(error: &'a (dyn StdError + 'static)) -> Option<&'a T> {
    chain(error).find_map(|error| error.downcast_ref())
}

/// The words of the last cause in a chain: the one that says what really happened.
pub(crate) fn innermost(error: &(dyn StdError + 'static)) -> String {
    chain(error).last().map(ToString::to_string).unwrap_or_default()
}

/// Whether a server was not reached at all, as opposed to answering with an error.
pub(crate) fn is_connection_error(error: &(dyn StdError + 'static)) -> bool {
    use HttpErrorKind::{Connect, Interrupted, Request, Timeout};
    find::<HttpError>(error).is_some_and(|error| matches!(error.kind(), Connect | Request | Timeout | Interrupted))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_that_make_no_sense_are_refused_by_name() {
        for text in ["", "ftp://host/x", "s3://", "file://host/x", "s3:///only-a-prefix"] {
            let Err(error) = connect(text, &Settings::new()) else { panic!("{text} was taken") };
            assert!(error.to_string().starts_with(&format!("{text} is no repository address")), "{error}");
        }
    }

    #[test]
    fn the_last_cause_is_the_one_shown() {
        let inner = std::io::Error::other("inner");
        let outer = object_store::Error::Generic { store: "test", source: Box::new(std::io::Error::other(inner)) };
        assert_eq!(innermost(&outer), "inner");
        assert!(find::<std::io::Error>(&outer).is_some());
        assert!(!is_connection_error(&outer));
    }
}
