//! Reads the address of a repository.
//!
//! A value without any effect: what was typed is refused here, by name, before a store is built for it.

use std::path::{Path as FilePath, PathBuf};

use object_store::path::Path;
use url::Url;

/// Other programs' spellings, which would otherwise name a folder of this directory.
const FOREIGN: [&str; 8] = ["s3:", "azure:", "gs:", "b2:", "sftp:", "rest:", "swift:", "rclone:"];

/// Where a repository is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Address {
    /// A folder of this machine.
    Local(PathBuf),
    /// A bucket, or what its provider calls so, and a prefix in it.
    Bucket { provider: Provider, bucket: String, prefix: Path },
}

/// Whose protocol an address speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Provider {
    /// Amazon S3 and what is compatible with it.
    S3,
    /// Azure Blob Storage.
    Azure,
    /// Google Cloud Storage.
    Gcs,
}

impl Provider {
    fn of_scheme(scheme: &str) -> Option<Self> {
        match scheme {
            "s3" => Some(Self::S3),
            "az" => Some(Self::Azure),
            "gs" => Some(Self::Gcs),
            _ => None,
        }
    }
}

impl Address {
    /// Reads what a user typed.
    ///
    /// # Errors
    /// Says in words what is wrong.
    pub(super) fn parse(text: &str) -> Result<Self, String> {
        let foreign = |scheme: &&&str| text.starts_with(**scheme) && !text[scheme.len()..].starts_with("//");
        if let Some(scheme) = FOREIGN.iter().find(foreign) {
            return Err(format!(
                "{scheme} without // is another program's spelling; a folder of that name is ./{text}"
            ));
        }
        if !text.contains("://") {
            return local(FilePath::new(text));
        }
        let url = Url::parse(text).map_err(|error| error.to_string())?;
        if url.scheme() == "file" {
            return local(&url.to_file_path().map_err(|()| "it names no local path")?);
        }
        match Provider::of_scheme(url.scheme()) {
            Some(provider) => bucket(provider, &url),
            None => Err(format!("the scheme {:?} is unknown", url.scheme())),
        }
    }
}

fn local(path: &FilePath) -> Result<Address, String> {
    if path.as_os_str().is_empty() {
        return Err("it is empty".into());
    }
    std::path::absolute(path).map(Address::Local).map_err(|error| error.to_string())
}

fn bucket(provider: Provider, url: &Url) -> Result<Address, String> {
    if !url.username().is_empty() || url.password().is_some() {
        return Err("credentials do not belong in an address, which is printed and logged".into());
    }
    if url.port().is_some() {
        return Err("a server is named by --endpoint, the address begins with the bucket".into());
    }
    if url.query().is_some() || url.fragment().is_some() {
        return Err("write ? as %3F and # as %23".into());
    }
    let bucket = url.host_str().filter(|bucket| !bucket.is_empty()).ok_or("it names no bucket")?;
    let prefix = Path::from_url_path(url.path()).map_err(|error| error.to_string())?;
    Ok(Address::Bucket { provider, bucket: bucket.into(), prefix })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buckets_and_folders_are_told_apart() {
        let bucket = |provider, bucket: &str, prefix: &str| {
            Ok(Address::Bucket { provider, bucket: bucket.into(), prefix: Path::from(prefix) })
        };
        assert_eq!(Address::parse("s3://b/team/a"), bucket(Provider::S3, "b", "team/a"));
        assert_eq!(Address::parse("s3://b"), bucket(Provider::S3, "b", ""));
        assert_eq!(Address::parse("az://c/p/"), bucket(Provider::Azure, "c", "p"));
        assert_eq!(Address::parse("gs://b_1.example/odd%20one"), bucket(Provider::Gcs, "b_1.example", "odd one"));
        assert_eq!(Address::parse("file:///srv/a%20b"), Ok(Address::Local("/srv/a b".into())));
        assert_eq!(Address::parse("/srv/a#b"), Ok(Address::Local("/srv/a#b".into())));
        let here = std::env::current_dir().unwrap().join("s3:x");
        assert_eq!(Address::parse("./s3:x"), Ok(Address::Local(here)));
    }

    #[test]
    fn what_makes_no_sense_is_refused() {
        let refused = |text: &str| Address::parse(text).expect_err(text);
        for text in ["", "ftp://host/x", "s3://", "file://host/x", "s3:///only-a-prefix", "s3://b/a//b"] {
            refused(text);
        }
        assert!(refused("s3:https://host/bucket").contains("another program's spelling"));
        assert!(refused("azure:container:/").contains("another program's spelling"));
        assert!(refused("s3://key:secret@bucket/x").contains("credentials do not belong"));
        assert!(refused("s3://localhost:9000/bucket").contains("--endpoint"));
        assert!(refused("gs://bucket/a?b").contains("%3F"));
    }
}
