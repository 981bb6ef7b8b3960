//! Flags that several commands share.
//!
//! Each group is read in one place and turned into what the crates ask for, so that no command spells a flag its own
//! way.

use std::path::PathBuf;

use clap::{Args, ValueEnum};
use stillpoint_repository::{Kdf, Password, Repository, Store};

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

/// Where the repository is and how to open it.
#[derive(Debug, Args)]
#[command(next_help_heading = "Repository")]
pub(crate) struct RepoArgs {
    /// The repository: file:///path or s3://bucket/prefix (credentials from the usual AWS variables)
    #[arg(long, env = "STILLPOINT_REPO", value_name = "URL")]
    repo: String,
    /// A file whose first line is the repository's password; otherwise STILLPOINT_PASSWORD is read
    #[arg(long, env = "STILLPOINT_PASSWORD_FILE", value_name = "FILE")]
    password_file: Option<PathBuf>,
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
        Ok(Store::from_url(&self.repo)?)
    }

    fn password(&self) -> anyhow::Result<Password> {
        let text = match &self.password_file {
            Some(path) => {
                let text = std::fs::read_to_string(path)
                    .map_err(|error| anyhow::anyhow!("cannot read the password file {}: {error}", path.display()))?;
                text.lines().next().unwrap_or_default().to_owned()
            }
            None => std::env::var("STILLPOINT_PASSWORD").unwrap_or_default(),
        };
        if text.is_empty() {
            return Err(UsageError(
                "no password: give --password-file, STILLPOINT_PASSWORD_FILE or STILLPOINT_PASSWORD".to_owned(),
            )
            .into());
        }
        Ok(Password::new(text))
    }
}
