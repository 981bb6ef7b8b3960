//! The command line's grammar, and which command runs.
//!
//! Only what was typed: asking the system (files, clusters, repositories) is left to the commands, so that `--help`
//! and completion never touch anything.

use clap::{CommandFactory, Parser, Subcommand};

use crate::{
    commands::{
        agent, backup, bench, completion, demo, freeze, helper, hooks, install, key, pause, repo, restore, scratch,
        thaw, uninstall, verify, volume,
    },
    exit::Exit,
};

/// Backs up Kubernetes at one instant and proves that the backup restores.
#[derive(Debug, Parser)]
#[command(name = "stillpoint", version, about, max_term_width = 110)]
#[command(after_help = "Exit codes: 0 done, 1 failed, 2 usage, 3 done but degraded.\nNew here? Run: stillpoint demo")]
pub(crate) struct Cli {
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Shows the whole story on an embedded cluster: backup, damage, restore test. Needs nothing.
    Demo(demo::DemoArgs),
    /// Creates the repository that backups are written to.
    #[command(subcommand)]
    Repo(repo::RepoCommand),
    /// Takes backups and looks into them.
    #[command(subcommand)]
    Backup(backup::BackupCommand),
    /// Proves a backup: restores it into a scratch cluster and judges the result.
    Verify(verify::VerifyArgs),
    /// Restores a backup into a cluster.
    #[command(subcommand)]
    Restore(restore::RestoreCommand),
    /// Backs up directories of this host, and restores them.
    #[command(subcommand)]
    Volume(volume::VolumeCommand),
    /// Looks at the hooks of pods, and runs them.
    #[command(subcommand)]
    Hooks(hooks::HooksCommand),
    /// Runs a command while filesystems of this host stand still.
    #[command(after_help = freeze::AFTER_HELP)]
    Freeze(freeze::FreezeArgs),
    /// Runs a command while the processes of cgroups of this host stand still.
    #[command(after_help = pause::AFTER_HELP)]
    Pause(pause::PauseArgs),
    /// Works on one node for the backups of a cluster; `stillpoint install` runs it on every node.
    #[command(after_help = agent::AFTER_HELP)]
    Agent(agent::AgentArgs),
    /// Lets go what stands still on this host, whoever stopped it.
    #[command(after_help = thaw::AFTER_HELP)]
    Thaw(thaw::ThawArgs),
    /// Runs a scratch cluster to play with.
    #[command(subcommand)]
    Scratch(scratch::ScratchCommand),
    /// Puts the agents into a cluster, with their identities and certificate.
    #[command(after_help = install::AFTER_HELP)]
    Install(install::InstallArgs),
    /// Removes from a cluster what install made.
    #[command(
        after_help = "Example:\n  stillpoint uninstall          # prints what it will remove, and asks\n  stillpoint uninstall --yes"
    )]
    Uninstall(uninstall::UninstallArgs),
    /// Makes the key pair that signs backups.
    #[command(subcommand)]
    Key(key::KeyCommand),
    /// Measures Stillpoint against a peer on this machine.
    #[command(subcommand)]
    Bench(bench::BenchCommand),
    /// What runs in the pods that fill claims.
    #[command(subcommand, hide = true)]
    Helper(helper::HelperCommand),
    /// Prints the completion script of a shell.
    Completion(completion::CompletionArgs),
}

impl Command {
    /// Runs the command to its end.
    pub(crate) async fn run(self) -> anyhow::Result<Exit> {
        match self {
            Self::Demo(args) => demo::run(args).await,
            Self::Repo(command) => repo::run(command).await,
            Self::Backup(command) => backup::run(command).await,
            // boxed because it is by far the largest of these futures
            Self::Verify(args) => Box::pin(verify::run(args)).await,
            Self::Restore(command) => restore::run(command).await,
            Self::Volume(command) => volume::run(command).await,
            Self::Hooks(command) => hooks::run(command).await,
            Self::Freeze(args) => freeze::run(args).await,
            Self::Pause(args) => pause::run(args).await,
            Self::Agent(args) => Box::pin(agent::run(args)).await,
            Self::Thaw(args) => thaw::run(args).await,
            Self::Scratch(command) => scratch::run(command).await,
            Self::Install(args) => install::run(args).await,
            Self::Uninstall(args) => uninstall::run(args).await,
            Self::Key(command) => key::run(&command),
            Self::Bench(command) => bench::run(command).await,
            Self::Helper(command) => helper::run(command).await,
            Self::Completion(args) => completion::run(args, &mut Cli::command()),
        }
    }
}
