//! Flags that several commands share.
//!
//! Each group is read in one place and turned into what the crates ask for, so that no command spells a flag its own
//! way.

use std::{
    num::NonZeroU32,
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context, anyhow};
use clap::{Args, ValueEnum};
use jiff::SignedDuration;
use stillpoint_agent::Access;
use stillpoint_api::Method;
use stillpoint_repository::{Error, Kdf, Password, Repository, Store, StoreOptions};
use tokio_util::sync::CancellationToken;
use zeroize::Zeroizing;

use crate::interrupt;

/// The command line is well formed but cannot be meant.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(crate) struct UsageError(pub(crate) String);

/// How data is printed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum Format {
    /// For people.
    #[default]
    Table,
    /// For programs.
    Json,
    /// For programs and people.
    Yaml,
}

#[derive(Debug, Args)]
#[command(next_help_heading = "Output")]
pub(crate) struct OutputArgs {
    /// How to print the result
    #[arg(short, long, value_enum, default_value_t)]
    pub(crate) output: Format,
}

/// How a volume is copied; the words are those of the manifest and of annotations.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum MethodArg {
    /// Read before, and what changed again while it is frozen.
    Precopy,
    /// Clone files while writers are paused, read later (xfs, btrfs).
    Reflink,
    /// Snapshot the subvolume while writers are paused, read later.
    Btrfs,
    /// Read all while writers are paused.
    ReadPaused,
    /// Read while it changes.
    Live,
}

impl From<MethodArg> for Method {
    fn from(method: MethodArg) -> Self {
        match method {
            MethodArg::Precopy => Self::Precopy,
            MethodArg::Reflink => Self::Reflink,
            MethodArg::Btrfs => Self::Btrfs,
            MethodArg::ReadPaused => Self::ReadPaused,
            MethodArg::Live => Self::Live,
        }
    }
}

/// Where the repository is and how to open it.
#[derive(Debug, Args)]
#[command(next_help_heading = "Repository")]
pub(crate) struct RepoArgs {
    /// The repository: a path, file:///path, s3://bucket/prefix, az://container/prefix or gs://bucket/prefix;
    /// credentials come from the provider's usual variables, profiles or the machine's identity
    #[arg(long, env = "STILLPOINT_REPO", value_name = "URL")]
    repo: String,
    /// A file whose first line is the repository's password; otherwise STILLPOINT_PASSWORD is read
    #[arg(long, env = "STILLPOINT_PASSWORD_FILE", value_name = "FILE")]
    password_file: Option<PathBuf>,
    #[command(flatten)]
    store: StoreArgs,
}

/// How to reach the store that the repository is in.
#[derive(Debug, Args)]
struct StoreArgs {
    /// The server to ask instead of the provider's own, http or https
    #[arg(long, env = "STILLPOINT_ENDPOINT", value_name = "URL")]
    endpoint: Option<String>,
    /// The region of the bucket (S3)
    #[arg(long, env = "STILLPOINT_REGION", value_name = "NAME")]
    region: Option<String>,
    /// A PEM file of certificates to trust in addition to those of the system
    #[arg(long, env = "STILLPOINT_CA_FILE", value_name = "FILE")]
    ca_file: Option<PathBuf>,
    /// Send at most so many KiB a second
    #[arg(long, env = "STILLPOINT_LIMIT_UPLOAD", value_name = "RATE")]
    limit_upload: Option<NonZeroU32>,
    /// Receive at most so many KiB a second
    #[arg(long, env = "STILLPOINT_LIMIT_DOWNLOAD", value_name = "RATE")]
    limit_download: Option<NonZeroU32>,
}

impl StoreArgs {
    fn options(&self) -> StoreOptions {
        let Self { endpoint, region, ca_file, limit_upload, limit_download } = self;
        StoreOptions {
            endpoint: endpoint.clone(),
            region: region.clone(),
            ca_file: ca_file.clone(),
            limit_upload: *limit_upload,
            limit_download: *limit_download,
        }
    }
}

impl RepoArgs {
    /// Opens the repository.
    pub(crate) async fn open(&self) -> anyhow::Result<Repository> {
        Ok(Repository::open(self.store()?, &self.password()?).await?)
    }

    /// Creates the repository.
    pub(crate) async fn init(&self) -> anyhow::Result<Repository> {
        Ok(Repository::init(self.store()?, &self.password()?, Kdf::default()).await?)
    }

    /// The URL as it was given.
    pub(crate) fn url(&self) -> &str {
        &self.repo
    }

    fn store(&self) -> anyhow::Result<Store> {
        Store::connect(&self.repo, &self.store.options()).map_err(|error| match error {
            Error::InvalidUrl { .. } | Error::InvalidSetting { .. } => UsageError(error.to_string()).into(),
            error => error.into(),
        })
    }

    /// What another process needs to open the same repository: the agents of a cluster, which upload by themselves.
    pub(crate) fn access(&self) -> anyhow::Result<Access> {
        /// Whose variables hold the credentials of stores.
        const PROVIDERS: [&str; 3] = ["AWS_", "AZURE_", "GOOGLE_"];
        let StoreArgs { endpoint, region, ca_file: _, limit_upload, limit_download } = &self.store;
        let is_providers = |name: &str| PROVIDERS.iter().any(|provider| name.starts_with(provider));
        Ok(Access {
            url: self.repo.clone(),
            bound_to_this_host: self.bound_to_this_host(),
            password: self.password_text()?.to_string(),
            variables: std::env::vars().filter(|(name, _)| is_providers(name)).collect(),
            endpoint: endpoint.clone(),
            region: region.clone(),
            limit_upload: *limit_upload,
            limit_download: *limit_download,
        })
    }

    /// Whether only this host can reach the repository, or reach it only by a file of its own.
    fn bound_to_this_host(&self) -> Option<&'static str> {
        let is_local = !self.repo.contains("://") || self.repo.starts_with("file://");
        match &self.store.ca_file {
            _ if is_local => Some("the repository is a folder of this host"),
            Some(_) => Some("--ca-file is a file of this host"),
            None => None,
        }
    }

    fn password(&self) -> anyhow::Result<Password> {
        Ok(Password::new(self.password_text()?.as_str()))
    }

    fn password_text(&self) -> anyhow::Result<Zeroizing<String>> {
        if let Some(file) = &self.password_file {
            return first_line(file);
        }
        let text = Zeroizing::new(std::env::var("STILLPOINT_PASSWORD").unwrap_or_default());
        if text.is_empty() {
            return Err(UsageError(
                "no password: give --password-file, STILLPOINT_PASSWORD_FILE or STILLPOINT_PASSWORD".to_owned(),
            )
            .into());
        }
        Ok(text)
    }
}

/// Reads the first line of a password file.
pub(crate) fn password_in(file: &Path) -> anyhow::Result<Password> {
    Ok(Password::new(first_line(file)?.as_str()))
}

fn first_line(file: &Path) -> anyhow::Result<Zeroizing<String>> {
    let text = std::fs::read_to_string(file).map(Zeroizing::new);
    let text = text.with_context(|| format!("cannot read the password file {}", file.display()))?;
    match text.lines().next() {
        None | Some("") => Err(UsageError(format!("the password file {} has no first line", file.display())).into()),
        Some(line) => Ok(Zeroizing::new(line.to_owned())),
    }
}

/// What to do while others hold the repository's lock.
#[derive(Debug, Args)]
#[command(next_help_heading = "Repository")]
pub(crate) struct LockArgs {
    /// Wait so long for a lock of others, such as 90s or 1h30m, instead of failing at once
    #[arg(long, env = "STILLPOINT_RETRY_LOCK", value_name = "DURATION", default_value = "0s", value_parser = duration)]
    retry_lock: Duration,
}

impl LockArgs {
    /// The repository, as patient as was asked for.
    pub(crate) fn patient(&self, repository: Repository) -> Repository {
        repository.with_patience(self.retry_lock)
    }
}

/// How to keep prunes away from what is read.
#[derive(Debug, Args)]
#[command(next_help_heading = "Repository")]
pub(crate) struct ReadLockArgs {
    /// Take no lock, where the repository cannot be written; a prune may then remove what is being read
    #[arg(long)]
    pub(crate) no_lock: bool,
    #[command(flatten)]
    pub(crate) lock: LockArgs,
}

impl ReadLockArgs {
    /// Finds what is to be read, then does `work` with it; no prune can remove it meanwhile. A signal cancels the token,
    /// on which `work` must end.
    ///
    /// `find` only reads, runs while others may still object to our lock, and is dropped at a signal.
    pub(crate) async fn reading<T, R, F>(
        &self,
        repository: &Repository,
        cancel: &CancellationToken,
        find: impl Fn() -> F,
        work: impl AsyncFnOnce(T) -> anyhow::Result<R>,
    ) -> anyhow::Result<R>
    where
        F: Future<Output = anyhow::Result<T>>,
    {
        let repository = self.lock.patient(repository.clone()).giving_up_on(cancel.clone());
        let found = || interrupt::unless(cancel, find());
        let work = async {
            if self.no_lock {
                return work(found().await?).await;
            }
            let (lock, found) = repository.read_lock_while(found).await.map_err(unlockable)?;
            let done = work(found).await;
            lock.release().await;
            done
        };
        interrupt::cancelling(cancel, Box::pin(work)).await?
    }
}

/// Says how to read where no lock can be written.
fn unlockable(error: anyhow::Error) -> anyhow::Error {
    match error.downcast_ref() {
        Some(Error::ReadOnly { .. } | Error::AccessDenied { .. }) => {
            anyhow!("no lock can be taken: {error:#}; --no-lock reads without one")
        }
        _ => error,
    }
}

pub(crate) fn duration(text: &str) -> Result<Duration, String> {
    let parsed = text.parse::<SignedDuration>().ok().and_then(|duration| Duration::try_from(duration).ok());
    parsed.ok_or_else(|| "expected a time such as 90s or 1h30m".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_read_as_restic_reads_them() {
        assert_eq!(duration("1h30m"), Ok(Duration::from_secs(5400)));
        assert_eq!(duration("0s"), Ok(Duration::ZERO));
        assert_eq!(duration("1.5s"), Ok(Duration::from_millis(1500)));
        for text in ["", "5", "-5m", "soon"] {
            assert!(duration(text).is_err(), "{text}");
        }
    }
}
