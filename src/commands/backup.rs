//! `stillpoint backup`: takes backups and looks into them.
//!
//! One file per verb; what they share is which backup is meant and whom to trust.

mod agents;
mod cat;
mod create;
mod delete;
mod describe;
pub(super) mod diff;
mod get;
mod volumes;

pub(crate) use get::seconds;

use clap::{Args, Subcommand};
use stillpoint_agent::Access;
use stillpoint_catalog::{self as catalog, Backup};
use stillpoint_repository::{Repository, signing::Trust};

use crate::{
    args::{RepoArgs, UsageError},
    exit::Exit,
    keys::TrustArgs,
};

#[derive(Debug, Subcommand)]
pub(crate) enum BackupCommand {
    /// Takes a backup: every object as it was at one etcd revision.
    #[command(after_help = create::EXAMPLES)]
    Create(Box<create::CreateArgs>),
    /// Lists the backups and what restore tests said of them.
    #[command(after_help = "Example:\n  stillpoint backup get -o json | jq -r '.[].name'")]
    Get(get::GetArgs),
    /// Shows what a backup holds, what it does not hold, and why; of one under way, whom it waits for.
    #[command(after_help = "Example:\n  stillpoint backup describe shop-1 --details")]
    Describe(describe::DescribeArgs),
    /// Prints one object as it was captured.
    #[command(after_help = "Examples:\n  stillpoint backup cat shop-1 deployments.apps/shop/web\n  \
                            stillpoint backup cat shop-1 namespaces/shop -o json")]
    Cat(cat::CatArgs),
    /// Compares two backups, or a backup with the cluster as it is now.
    #[command(after_help = "Examples:\n  stillpoint backup diff shop-1 shop-2\n  stillpoint backup diff shop-1 --live")]
    Diff(diff::DiffArgs),
    /// Deletes a backup; says what goes before it goes.
    #[command(after_help = "Example:\n  stillpoint backup delete shop-1 --yes")]
    Delete(delete::DeleteArgs),
}

pub(crate) async fn run(command: BackupCommand) -> anyhow::Result<Exit> {
    match command {
        BackupCommand::Create(args) => create::run(*args).await,
        BackupCommand::Get(args) => get::run(args).await,
        BackupCommand::Describe(args) => describe::run(args).await,
        BackupCommand::Cat(args) => cat::run(args).await,
        BackupCommand::Diff(args) => diff::run(args).await,
        BackupCommand::Delete(args) => delete::run(args).await,
    }
}

/// The repository to read and whom to believe.
#[derive(Debug, Args)]
pub(crate) struct ReadArgs {
    #[command(flatten)]
    repo: RepoArgs,
    #[command(flatten)]
    trust: TrustArgs,
}

impl ReadArgs {
    pub(crate) async fn open(&self) -> anyhow::Result<(Repository, Trust)> {
        let trust = self.trust.trust()?;
        Ok((self.repo.open().await?, trust))
    }

    /// What a pod needs to open the same repository.
    ///
    /// # Errors
    /// Only this host can.
    pub(crate) fn access_for_pods(&self) -> anyhow::Result<Access> {
        let access = self.repo.access()?;
        match access.bound_to_this_host {
            None => Ok(access),
            Some(why) => Err(UsageError(format!(
                "the pods that fill claims cannot open the repository: {why}; use one in object storage, or restore \
                 without data by --no-volumes"
            ))
            .into()),
        }
    }

    pub(crate) async fn find(&self, name: &str) -> anyhow::Result<(Repository, Trust, Backup)> {
        let (repository, trust) = self.open().await?;
        let backup = catalog::find(&repository, name, &trust).await?;
        Ok((repository, trust, backup))
    }
}
