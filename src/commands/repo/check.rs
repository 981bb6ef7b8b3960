//! `stillpoint repo check`.

use std::fmt::Write;

use clap::Args;
use serde::Serialize;
use stillpoint_repository::{Affected, CheckReport, CheckRequest, Finding, ReadData, Severity};

use super::{WorkArgs, attended, directories};
use crate::{commands::backup::seconds, exit::Exit, output};

pub(crate) const EXAMPLES: &str = "Examples:
  stillpoint repo check                              # index, packs by size, every directory
  stillpoint repo check --read-data                  # and every byte
  stillpoint repo check --read-data-subset 5%        # and a random share of the packs
  stillpoint repo check --read-data-subset 3/7       # and the third of seven parts: one a day reads all in a week

Exit code 1 says that errors were found; hints alone are no failure. Backups may run meanwhile, a prune may not.";

#[derive(Debug, Args)]
pub(crate) struct CheckArgs {
    /// Read every pack whole and check every byte
    #[arg(long, conflicts_with = "read_data_subset")]
    read_data: bool,
    /// Read a part of the packs whole: 5% draws a share anew each time, 3/7 is the third of seven fixed parts
    #[arg(long, value_name = "PART", value_parser = read_data)]
    read_data_subset: Option<ReadData>,
    /// Take no lock, where the repository cannot be written; what a prune removes meanwhile shows as missing
    #[arg(long)]
    no_lock: bool,
    #[command(flatten)]
    work: WorkArgs,
}

/// Reads `5%` or `3/7`.
fn read_data(text: &str) -> Result<ReadData, String> {
    let usage = || "expected a share such as 5%, or a part such as 3/7 of at most 256".to_owned();
    if let Some(percent) = text.strip_suffix('%') {
        let percent: f64 = percent.parse().map_err(|_| usage())?;
        return if percent > 0.0 && percent <= 100.0 { Ok(ReadData::Percent(percent)) } else { Err(usage()) };
    }
    let (part, of) = text.split_once('/').ok_or_else(usage)?;
    let (part, of): (u16, u16) = (part.parse().map_err(|_| usage())?, of.parse().map_err(|_| usage())?);
    if part == 0 || part > of || of > 256 { Err(usage()) } else { Ok(ReadData::Part { part, of }) }
}

/// The report, and what it comes to.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Checked {
    errors: u64,
    #[serde(flatten)]
    report: CheckReport,
}

pub(crate) async fn run(args: CheckArgs) -> anyhow::Result<Exit> {
    let CheckArgs { read_data, read_data_subset, no_lock, work } = args;
    let read_data = if read_data { ReadData::All } else { read_data_subset.unwrap_or_default() };
    let repository = work.open().await?;
    let request = CheckRequest { read_data, without_lock: no_lock };
    let report = attended(&repository, async |repository, control| repository.check(&request, control).await).await?;
    let checked = Checked { errors: report.errors(), report };
    output::print(work.output.output, &checked, || text(&checked.report))?;
    Ok(if checked.errors == 0 { Exit::Done } else { Exit::Failed })
}

fn text(report: &CheckReport) -> String {
    let mut text: String = report.findings.iter().map(finding_text).collect();
    let more = report.more_errors + report.more_hints;
    if more > 0 {
        let _ = writeln!(text, "and {} more", output::counted(more, "finding"));
    }
    let CheckReport { snapshots, trees, files, blobs, packs, packs_read, bytes_read, .. } = report;
    let counted = [(*files, "file"), (*blobs, "blob"), (*packs, "pack")].map(|(n, noun)| output::counted(n, noun));
    let snapshots = output::counted(*snapshots, "snapshot");
    let _ = writeln!(text, "checked {snapshots}, {}, {}", directories(*trees), counted.join(", "));
    let _ = match packs_read {
        0 => writeln!(text, "no pack was read whole: --read-data does so"),
        read => writeln!(text, "{} read whole, {}", output::counted(*read, "pack"), output::bytes(*bytes_read)),
    };
    let _ = match report.errors() {
        0 => writeln!(text, "no errors were found"),
        errors => writeln!(text, "{} found", output::counted(errors, "error")),
    };
    text
}

fn finding_text(finding: &Finding) -> String {
    let Finding { severity, file, message, affected, advice, .. } = finding;
    let severity = match severity {
        Severity::Error => "error",
        Severity::Hint => "hint",
    };
    let affected = if affected.snapshot_count > 0 { affected_text(affected) } else { String::new() };
    output::printable(&format!("{severity}: {file}: {message}\n{affected}  -> {advice}\n")).into_owned()
}

fn affected_text(affected: &Affected) -> String {
    let Affected { snapshots, snapshot_count, paths, path_count } = affected;
    let mut text = format!("  needed by {}:\n", output::counted(*snapshot_count, "snapshot"));
    for snapshot in snapshots {
        let (id, host, taken) = (snapshot.id.short(), &snapshot.host, seconds(snapshot.time));
        let _ = writeln!(text, "    {id} of {host}, taken {taken}");
    }
    more(&mut text, *snapshot_count, snapshots.len(), "snapshot");
    for path in paths {
        let _ = writeln!(text, "    {path}");
    }
    more(&mut text, *path_count, paths.len(), "path");
    text
}

fn more(text: &mut String, all: u64, named: usize, noun: &str) {
    let more = all.saturating_sub(named as u64);
    if more > 0 {
        let _ = writeln!(text, "    and {}", output::counted(more, &format!("more {noun}")));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_and_shares_are_read_and_nonsense_is_refused() {
        assert_eq!(read_data("5%"), Ok(ReadData::Percent(5.0)));
        assert_eq!(read_data("3/7"), Ok(ReadData::Part { part: 3, of: 7 }));
        assert_eq!(read_data("256/256"), Ok(ReadData::Part { part: 256, of: 256 }));
        for text in ["", "5", "0%", "101%", "NaN%", "0/7", "8/7", "1/257", "a/b", "-1%"] {
            assert!(read_data(text).is_err(), "{text}");
        }
    }
}
