//! `stillpoint volume ls`.

use std::path::{Path, PathBuf};

use clap::Args;
use jiff::Timestamp;
use serde::Serialize;
use stillpoint_filetree::{
    listing::{self, Depth},
    selection::{self, Selection},
    volume::VolumeBackup,
};
use stillpoint_repository::{Node, NodeKind, Reader, permissions};
use tokio_util::sync::CancellationToken;

use super::{BackupArgs, shown};
use crate::{
    args::{Format, OutputArgs},
    commands::backup::seconds,
    exit::Exit,
    interrupt, output,
};

#[derive(Debug, Args)]
pub(crate) struct LsArgs {
    /// The volume
    name: String,
    /// A file or directory in it: relative to what was backed up, or absolute
    path: Option<PathBuf>,
    /// Show mode, owner, size and time
    #[arg(short, long)]
    long: bool,
    /// Go down into directories
    #[arg(short = 'R', long)]
    recursive: bool,
    #[command(flatten)]
    backup: BackupArgs,
    #[command(flatten)]
    output: OutputArgs,
}

/// An entry, for programs.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Entry {
    path: String,
    #[serde(rename = "type")]
    kind: NodeKind,
    /// Octal, as chmod takes it.
    mode: String,
    uid: u32,
    gid: u32,
    size: u64,
    modified: Timestamp,
    #[serde(skip_serializing_if = "Option::is_none")]
    target: Option<String>,
}

pub(crate) async fn run(args: LsArgs) -> anyhow::Result<Exit> {
    let LsArgs { name, path, long, recursive, backup, output } = args;
    let cancel = CancellationToken::new();
    let find =
        async |reader: &Reader, backup: &VolumeBackup| Ok(selection::select(reader, backup, path.as_deref()).await?);
    let work = async |reader: Reader, selection: Selection| {
        interrupt::unless(&cancel, print(&reader, &selection, (recursive, long), output.output)).await
    };
    backup.reading(&name, &cancel, find, work).await?;
    Ok(Exit::Done)
}

async fn print(
    reader: &Reader,
    selection: &Selection,
    (recursive, long): (bool, bool),
    format: Format,
) -> anyhow::Result<()> {
    let depth = if recursive { Depth::All } else { Depth::Inside };
    if format == Format::Table {
        let print = |path: &Path, node: &Node| output::text(&line(path, node, long));
        return listing::list(reader, selection, depth, print).await;
    }
    let mut entries = Vec::new();
    let collect = |path: &Path, node: &Node| -> anyhow::Result<()> {
        entries.push(entry(path, node));
        Ok(())
    };
    listing::list(reader, selection, depth, collect).await?;
    output::print(format, &entries, String::new)
}

fn entry(path: &Path, node: &Node) -> Entry {
    Entry {
        path: path.to_string_lossy().into_owned(),
        kind: node.kind,
        mode: format!("{:04o}", permissions(node.mode)),
        uid: node.uid,
        gid: node.gid,
        size: node.size,
        modified: node.mtime,
        target: (node.kind == NodeKind::Symlink).then(|| node.linktarget.clone()),
    }
}

fn line(path: &Path, node: &Node, long: bool) -> String {
    let name = shown(path);
    if !long {
        return format!("{name}\n");
    }
    let target =
        if node.kind == NodeKind::Symlink { format!(" -> {}", node.linktarget.escape_debug()) } else { String::new() };
    let owner = format!("{}:{}", named(&node.user, node.uid), named(&node.group, node.gid));
    format!("{} {owner:<15} {:>13} {} {name}{target}\n", mode(node), node.size, seconds(node.mtime))
}

fn named(name: &str, number: u32) -> String {
    if name.is_empty() { number.to_string() } else { name.to_owned() }
}

/// The mode as `ls -l` shows it.
fn mode(node: &Node) -> String {
    let kind = match node.kind {
        NodeKind::File => '-',
        NodeKind::Dir => 'd',
        NodeKind::Symlink => 'l',
        NodeKind::Dev => 'b',
        NodeKind::CharDev => 'c',
        NodeKind::Fifo => 'p',
        NodeKind::Socket => 's',
        NodeKind::Irregular => '?',
    };
    let bits = permissions(node.mode);
    let triple = |shift: u32, special: u32, letter: char| {
        let bits = bits >> shift;
        let execute = match (bits & 1 != 0, permissions(node.mode) & special != 0) {
            (true, true) => letter,
            (false, true) => letter.to_ascii_uppercase(),
            (true, false) => 'x',
            (false, false) => '-',
        };
        [if bits & 4 != 0 { 'r' } else { '-' }, if bits & 2 != 0 { 'w' } else { '-' }, execute]
    };
    let triples = [triple(6, 0o4000, 's'), triple(3, 0o2000, 's'), triple(0, 0o1000, 't')];
    std::iter::once(kind).chain(triples.into_iter().flatten()).collect()
}

#[cfg(test)]
mod tests {
    use stillpoint_repository::{Id, go_mode};

    use super::*;

    #[test]
    fn modes_look_as_in_ls() {
        let node = |st_mode: u32| Node { mode: go_mode(st_mode), ..Node::dir("d", Id([0; 32]), Timestamp::UNIX_EPOCH) };
        assert_eq!(mode(&node(0o041_777)), "drwxrwxrwt");
        assert_eq!(mode(&node(0o046_750)), "drwsr-s---");
        assert_eq!(mode(&node(0o047_000)), "d--S--S--T");
    }
}
