//! `stillpoint volume`: directories of this host.
//!
//! One file per verb; what they share is which backup of a volume is meant.

mod backup;
mod diff;
mod get;
mod ls;
mod restore;

use std::{os::unix::ffi::OsStrExt, path::Path};

use clap::{Args, Subcommand};
use stillpoint_filetree::{
    backup::problems,
    volume::{self, HostFilter, VolumeBackup},
};
use stillpoint_repository::{Reader, Repository};
use tokio_util::sync::CancellationToken;

use crate::{
    args::{ReadLockArgs, RepoArgs},
    exit::Exit,
    output,
};

#[derive(Debug, Subcommand)]
pub(crate) enum VolumeCommand {
    /// Backs up directories of this host as one restic snapshot.
    #[command(
        after_help = "Examples:\n  stillpoint volume backup data --path /srv/data\n  stillpoint volume backup host \\\n    \
                            --path /etc --path /var/lib --exclude '*.log'"
    )]
    Backup(backup::BackupArgs),
    /// Lists the backups of volumes, the newest last.
    #[command(after_help = "Examples:\n  stillpoint volume get\n  stillpoint volume get data --all-hosts")]
    Get(get::GetArgs),
    /// Lists files and directories in a backup of a volume.
    #[command(
        after_help = "Examples:\n  stillpoint volume ls data\n  stillpoint volume ls data logs -lR --snapshot 1a2b3c4d"
    )]
    Ls(ls::LsArgs),
    /// Compares two backups of a volume, without reading what is the same.
    #[command(
        after_help = "Examples:\n  stillpoint volume diff data\n  stillpoint volume diff data 1a2b3c4d latest --path logs"
    )]
    Diff(diff::DiffArgs),
    /// Restores a backup of a volume, or a part of it, into a directory.
    #[command(after_help = restore::EXAMPLES)]
    Restore(restore::RestoreArgs),
}

pub(crate) async fn run(command: VolumeCommand) -> anyhow::Result<Exit> {
    match command {
        VolumeCommand::Backup(args) => backup::run(args).await,
        VolumeCommand::Get(args) => get::run(args).await,
        VolumeCommand::Ls(args) => ls::run(args).await,
        VolumeCommand::Diff(args) => diff::run(args).await,
        VolumeCommand::Restore(args) => restore::run(args).await,
    }
}

/// Whose volumes are meant.
#[derive(Debug, Args)]
#[command(next_help_heading = "Selection")]
pub(crate) struct HostArgs {
    /// The host that was backed up; this one if not given
    #[arg(long, value_name = "NAME", conflicts_with = "all_hosts")]
    host: Option<String>,
    /// Volumes of any host
    #[arg(long)]
    all_hosts: bool,
}

impl HostArgs {
    fn filter(&self) -> HostFilter {
        match &self.host {
            Some(name) => HostFilter::Named(name.clone()),
            None if self.all_hosts => HostFilter::Any,
            None => HostFilter::this(),
        }
    }
}

/// Which backup of a volume is meant.
#[derive(Debug, Args)]
#[command(next_help_heading = "Selection")]
pub(crate) struct BackupArgs {
    /// The backup's snapshot id, or its first digits; the newest if not given
    #[arg(long, value_name = "ID", value_parser = snapshot_id)]
    snapshot: Option<String>,
    #[command(flatten)]
    host: HostArgs,
    #[command(flatten)]
    repo: RepoArgs,
    #[command(flatten)]
    lock: ReadLockArgs,
}

/// `latest` means what is meant anyway; it is spelt out where people are used to restic.
fn snapshot_id(text: &str) -> Result<String, String> {
    let is_id = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_hexdigit() && !byte.is_ascii_uppercase());
    if is_id || text == LATEST {
        Ok(text.to_owned())
    } else {
        Err("give lower-case hexadecimal digits, or latest".into())
    }
}

const LATEST: &str = "latest";

impl BackupArgs {
    /// Finds the backup that is meant, and does `work` on it while no prune can remove what it needs.
    ///
    /// `find` looks into the backup for what is to be worked on, as [`ReadLockArgs::reading`] asks.
    async fn reading<T, R>(
        &self,
        name: &str,
        cancel: &CancellationToken,
        find: impl AsyncFn(&Reader, &VolumeBackup) -> anyhow::Result<T>,
        work: impl AsyncFnOnce(Reader, T) -> anyhow::Result<R>,
    ) -> anyhow::Result<R> {
        let repository = self.repo.open().await?;
        let snapshot = self.snapshot.as_deref().filter(|id| *id != LATEST);
        let find = async || {
            let backup = volume::find(&repository, name, &self.host.filter(), snapshot).await?;
            let reader = repository.reader().await?;
            let found = find(&reader, &backup).await?;
            Ok((backup, reader, found))
        };
        let work = async |(backup, reader, found): (VolumeBackup, Reader, T)| {
            if backup.degraded {
                note_problems(&repository, &backup).await?;
            }
            work(reader, found).await
        };
        self.lock.reading(&repository, cancel, find, work).await
    }
}

/// A path on one line: a name may hold line feeds, and bytes that are no text.
fn shown(path: &Path) -> String {
    path.as_os_str().as_bytes().utf8_chunks().fold(String::new(), |mut shown, chunk| {
        for c in chunk.valid().chars() {
            if c.is_control() { shown.extend(c.escape_default()) } else { shown.push(c) }
        }
        shown.extend(chunk.invalid().iter().map(|byte| format!("\\x{byte:02x}")));
        shown
    })
}

/// Says beside whatever is done with a degraded backup what it lacks.
async fn note_problems(repository: &Repository, backup: &VolumeBackup) -> anyhow::Result<()> {
    const SHOWN: usize = 5;
    output::note(format_args!("backup {} of volume {} is degraded:", backup.snapshot.short(), backup.name));
    match problems::read(repository, &backup.tree).await? {
        None => output::note("  what it lacks was not copied along with it"),
        Some(problems) => {
            problems.iter().take(SHOWN).for_each(|problem| {
                output::note(format_args!("  ! {}", output::printable(&problem.to_string())));
            });
            if problems.len() > SHOWN {
                output::note(format_args!("  ! and {} more", problems.len() - SHOWN));
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn odd_names_stay_on_one_line() {
        let odd = std::ffi::OsStr::from_bytes(b"/a\nb\xff\xc3\xa4\x1b[31m");
        assert_eq!(shown(Path::new(odd)), "/a\\nb\\xffä\\u{1b}[31m");
    }
}
