//! What is known about a store beside its objects: its name in messages, and what it needs of its user.

use std::{
    fmt,
    path::{Path, PathBuf},
    time::Duration,
};

use super::{address::Provider, http::Health, pace::Pace};

/// How long an operation may stand still. A transfer that moves is waited for, however slow.
const REMOTE_PATIENCE: Duration = Duration::from_secs(120);
/// The same where no progress can be seen.
const PATIENCE: Duration = Duration::from_secs(300);

/// Where a store is.
#[derive(Debug)]
pub(super) struct Place {
    display: String,
    kind: Kind,
}

#[derive(Debug)]
enum Kind {
    Folder { path: PathBuf, upload: Pace, download: Pace },
    Remote { provider: Provider, health: Health },
    Other,
}

impl Place {
    pub(super) fn folder(path: &Path, upload: Pace, download: Pace) -> Self {
        Self { display: path.display().to_string(), kind: Kind::Folder { path: path.to_owned(), upload, download } }
    }

    pub(super) fn remote(display: &str, provider: Provider, health: Health) -> Self {
        Self { display: display.to_owned(), kind: Kind::Remote { provider, health } }
    }

    pub(super) fn other(display: String) -> Self {
        Self { display, kind: Kind::Other }
    }

    /// The folder, if it is one of this machine.
    pub(super) fn as_folder(&self) -> Option<&Path> {
        match &self.kind {
            Kind::Folder { path, .. } => Some(path),
            Kind::Remote { .. } | Kind::Other => None,
        }
    }

    /// The pace of writes, where no client below keeps it.
    pub(super) fn upload(&self) -> Option<&Pace> {
        match &self.kind {
            Kind::Folder { upload, .. } => Some(upload).filter(|pace| pace.is_limited()),
            Kind::Remote { .. } | Kind::Other => None,
        }
    }

    /// The pace of reads, where no client below keeps it.
    pub(super) fn download(&self) -> Option<&Pace> {
        match &self.kind {
            Kind::Folder { download, .. } => Some(download).filter(|pace| pace.is_limited()),
            Kind::Remote { .. } | Kind::Other => None,
        }
    }

    pub(super) fn patience(&self) -> Duration {
        match self.kind {
            Kind::Remote { .. } => REMOTE_PATIENCE,
            Kind::Folder { .. } | Kind::Other => PATIENCE,
        }
    }

    /// Where credentials could come from, if the store was asked without any.
    pub(super) fn missing_credentials(&self) -> Option<&'static str> {
        match &self.kind {
            Kind::Remote { provider, health } if health.lacks_identity() => Some(match provider {
                Provider::S3 => "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_PROFILE",
                Provider::Azure => {
                    "AZURE_STORAGE_KEY, AZURE_STORAGE_SAS_TOKEN, or a service principal's AZURE_CLIENT_ID, AZURE_TENANT_ID and AZURE_CLIENT_SECRET"
                }
                Provider::Gcs => "GOOGLE_APPLICATION_CREDENTIALS to a service account's key",
            }),
            _ => None,
        }
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.display)
    }
}
