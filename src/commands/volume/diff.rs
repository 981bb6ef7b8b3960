//! `stillpoint volume diff`.

use std::{
    fmt::Write,
    path::{Path, PathBuf},
};

use clap::Args;
use stillpoint_filetree::{
    diff::{self, Change, Difference},
    selection,
    volume::{self, VolumeBackup},
};
use stillpoint_repository::Reader;
use tokio_util::sync::CancellationToken;

use super::{HostArgs, shown, snapshot_id};
use crate::{
    args::{OutputArgs, ReadLockArgs, RepoArgs, UsageError},
    exit::Exit,
    interrupt, output,
};

#[derive(Debug, Args)]
pub(crate) struct DiffArgs {
    /// The volume
    name: String,
    /// The older backup's snapshot id, or its first digits; the last but one if not given
    #[arg(value_parser = snapshot_id)]
    old: Option<String>,
    /// The newer backup's; the newest if not given
    #[arg(value_parser = snapshot_id)]
    new: Option<String>,
    /// Compare only this file or directory: relative to what was backed up, or absolute
    #[arg(long, value_name = "PATH")]
    path: Option<PathBuf>,
    #[command(flatten)]
    host: HostArgs,
    #[command(flatten)]
    repo: RepoArgs,
    #[command(flatten)]
    lock: ReadLockArgs,
    #[command(flatten)]
    output: OutputArgs,
}

pub(crate) async fn run(args: DiffArgs) -> anyhow::Result<Exit> {
    let DiffArgs { name, old, new, path, host, repo, lock, output } = args;
    let (repository, cancel) = (repo.open().await?, CancellationToken::new());
    let host = host.filter();
    let find = async || {
        let all = volume::all(&repository, &name, &host).await?;
        let pick = |id: Option<&str>| volume::pick(all.clone(), &name, &host, id);
        let new = pick(new.as_deref().filter(|id| *id != super::LATEST))?;
        let old = match old.as_deref() {
            Some(super::LATEST) => pick(None)?,
            Some(id) => pick(Some(id))?,
            None => before(&all, &new)?,
        };
        Ok((repository.reader().await?, old, new))
    };
    let work = async |(reader, old, new): (Reader, VolumeBackup, VolumeBackup)| {
        let differences = interrupt::unless(&cancel, compare(&reader, &old, &new, path.as_deref())).await?;
        output::print(output.output, &differences, || to_text(&old, &new, &differences))
    };
    lock.reading(&repository, &cancel, find, work).await?;
    Ok(Exit::Done)
}

async fn compare(
    reader: &Reader,
    old: &VolumeBackup,
    new: &VolumeBackup,
    path: Option<&Path>,
) -> anyhow::Result<Vec<Difference>> {
    let (old, new) = (selection::select(reader, old, path).await?, selection::select(reader, new, path).await?);
    Ok(diff::diff(reader, &old, &new).await?)
}

/// The last backup before `new`.
fn before(all: &[VolumeBackup], new: &VolumeBackup) -> Result<VolumeBackup, UsageError> {
    let at = all.iter().position(|backup| backup.snapshot == new.snapshot).unwrap_or(0);
    let before = at.checked_sub(1).and_then(|at| all.get(at)).cloned();
    before.ok_or_else(|| UsageError(format!("{} is the only backup of the volume {}", new.snapshot.short(), new.name)))
}

fn to_text(old: &VolumeBackup, new: &VolumeBackup, differences: &[Difference]) -> String {
    let mut text = format!("{} -> {}: ", old.snapshot.short(), new.snapshot.short());
    let _ = match differences.len() {
        0 => writeln!(text, "nothing changed"),
        some => writeln!(text, "{}", output::counted(some as u64, "difference")),
    };
    for Difference { path, change, old_size, new_size } in differences {
        let (sign, what) = match change {
            Change::Added => ('+', ""),
            Change::Removed => ('-', ""),
            Change::Type => ('!', "another type"),
            Change::Content => ('~', "content"),
            Change::Metadata => ('.', "metadata"),
        };
        let size = match (old_size, new_size) {
            (Some(old), Some(new)) if old != new => format!(", {} became {}", output::bytes(*old), output::bytes(*new)),
            _ => String::new(),
        };
        let what = if what.is_empty() { String::new() } else { format!("   ({what}{size})") };
        let _ = writeln!(text, "{sign} {}{what}", shown(path));
    }
    text
}
