//! `stillpoint thaw`: lets go what stands still, whoever stopped it.
//!
//! For three in the morning: it may be run at any time, as often as one likes, and says what it found.

use std::path::PathBuf;

use clap::Args;
use serde::Serialize;
use stillpoint_hooks::{
    guard::Kind,
    release::{self, Found, Living, What},
};

use crate::{args::OutputArgs, exit::Exit, output};

pub(crate) const AFTER_HELP: &str = "\
Example:
  stillpoint thaw --all            # everything that Stillpoint's journal on this host names
  stillpoint thaw /mnt/data        # whoever froze it

A backup that is under way is told that its stop was not whole. Exit code 1: something may still stand still.";

#[derive(Debug, Args)]
pub(crate) struct ThawArgs {
    /// Directories whose filesystems are thawed, and cgroups that are resumed, whoever stopped them
    #[arg(required_unless_present = "all", value_name = "DIR")]
    paths: Vec<PathBuf>,
    /// Everything that the journal names
    #[arg(long, conflicts_with = "paths")]
    all: bool,
    /// The folder that remembers what is stopped
    #[arg(long, env = "STILLPOINT_JOURNAL", value_name = "DIR", default_value = stillpoint_hooks::DEFAULT_JOURNAL)]
    journal: PathBuf,
    #[command(flatten)]
    output: OutputArgs,
}

/// One thing that was looked at.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Row {
    name: String,
    kind: &'static str,
    outcome: String,
    may_stand_still: bool,
}

pub(crate) async fn run(args: ThawArgs) -> anyhow::Result<Exit> {
    let ThawArgs { paths, all, journal, output } = args;
    let look = move || if all { everything(&journal) } else { Ok(paths.iter().map(|path| one(path)).collect()) };
    let rows: Vec<Row> = tokio::task::spawn_blocking(look).await??;
    output::print(output.output, &rows, || {
        if rows.is_empty() {
            return "nothing is stopped\n".to_owned();
        }
        let cells = rows.iter().map(|row| [row.name.clone(), row.kind.to_owned(), row.outcome.clone()]);
        output::table(["NAME", "KIND", "OUTCOME"], cells)
    })?;
    Ok(if rows.iter().any(|row| row.may_stand_still) { Exit::Failed } else { Exit::Done })
}

fn everything(journal: &std::path::Path) -> anyhow::Result<Vec<Row>> {
    let found = release::all(journal, Living::End)?;
    Ok(found
        .into_iter()
        .map(|found| found.map_or_else(|error| failed("journal".to_owned(), &error), Row::from))
        .collect())
}

fn one(path: &std::path::Path) -> Row {
    release::path(path).map_or_else(|error| failed(path.display().to_string(), &error), Row::from)
}

fn failed(name: String, error: &dyn std::error::Error) -> Row {
    Row { name, kind: "unknown", outcome: error.to_string(), may_stand_still: true }
}

impl From<Found> for Row {
    fn from(found: Found) -> Self {
        let Found { name, kind, what } = found;
        let kind = match kind {
            Kind::Freeze | Kind::Drain => "filesystem",
            Kind::Pause | Kind::Rescue => "cgroup",
        };
        let outcome = match what {
            What::Released if kind == "filesystem" => "thawed".to_owned(),
            What::Released => "resumed".to_owned(),
            ref what => what.to_string(),
        };
        Self { name, kind, outcome, may_stand_still: what.may_stand() }
    }
}
