//! `stillpoint repo stats`.

use clap::Args;
use serde::Serialize;
use stillpoint_repository::{PART_TAG, RepositoryStats, Snapshot};

use super::{WorkArgs, attended, directories};
use crate::{exit::Exit, output};

pub(crate) const EXAMPLES: &str = "Examples:
  stillpoint repo stats
  stillpoint repo stats -o json | jq .unusedBytes";

#[derive(Debug, Args)]
pub(crate) struct StatsArgs {
    #[command(flatten)]
    work: WorkArgs,
}

/// Snapshots by what wrote them.
#[derive(Debug, Default, PartialEq, Eq, Serialize)]
struct Kinds {
    backups: u64,
    volumes: u64,
    /// What a backup that is under way, or was interrupted, has uploaded already.
    parts: u64,
    /// Of restic and others.
    others: u64,
}

impl Kinds {
    fn of(snapshots: &[Snapshot]) -> Self {
        let mut kinds = Self::default();
        for snapshot in snapshots {
            let kind = match () {
                () if snapshot.has_tag("stillpoint") => &mut kinds.backups,
                () if snapshot.has_tag("stillpoint-volume") => &mut kinds.volumes,
                () if snapshot.has_tag(PART_TAG) => &mut kinds.parts,
                () => &mut kinds.others,
            };
            *kind += 1;
        }
        kinds
    }
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Counted {
    repository: String,
    id: String,
    kinds: Kinds,
    /// Plaintext for each byte stored.
    compression: Option<f64>,
    #[serde(flatten)]
    stats: RepositoryStats,
}

pub(crate) async fn run(args: StatsArgs) -> anyhow::Result<Exit> {
    let StatsArgs { work } = args;
    let repository = work.open().await?;
    let kinds = Kinds::of(&repository.snapshots().await?);
    let stats = attended(&repository, async |repository, control| repository.stats(control).await).await?;
    let (url, id) = (work.repo.url().to_owned(), repository.id().to_string());
    let counted = Counted { repository: url, id, kinds, compression: stats.compression(), stats };
    output::print(work.output.output, &counted, || text(&counted))?;
    Ok(Exit::Done)
}

fn text(counted: &Counted) -> String {
    let Counted { repository, id, kinds: Kinds { backups, volumes, parts, others }, compression, stats } = counted;
    let kinds = [(backups, "backup"), (volumes, "volume"), (parts, "part"), (others, "other")];
    let kinds = kinds.map(|(number, noun)| output::counted(*number, noun)).join(", ");
    let compression = compression.map_or(String::new(), |ratio| format!(", {ratio:.2} for each byte stored"));
    let blobs = [stats.data.count, stats.directories.count].map(output::count);
    let unused = match (stats.unused_bytes, stats.unreferenced.count) {
        (0, _) => output::bytes(0),
        (unused, 0) => output::bytes(unused),
        (unused, packs) => format!("{}, {} in no index", output::bytes(unused), output::counted(packs, "pack")),
    };
    let packs = output::counted(stats.packs.count, "pack");
    output::fields(&[
        ("repository", format!("{repository} ({})", &id[..8])),
        ("snapshots", format!("{} ({kinds})", output::count(stats.snapshots))),
        ("files", format!("{} in {}", output::count(stats.files), directories(stats.trees))),
        ("content", format!("{}{compression}", output::bytes(stats.plain_bytes))),
        ("blobs", format!("{} of files, {} of directories", blobs[0], blobs[1])),
        ("stored", format!("{} in {packs}", output::bytes(stats.packs.bytes))),
        ("index", output::counted(stats.indexes, "file")),
        ("unused", if stats.unused_bytes > 0 { format!("{unused}; stillpoint repo prune frees it") } else { unused }),
    ])
}
