//! `stillpoint backup get`.

use clap::Args;
use jiff::{Timestamp, Unit};
use serde::Serialize;
use stillpoint_api::{Digest, Outcome, SignerState};
use stillpoint_catalog::{self as catalog, Entry};
use stillpoint_repository::{Repository, signing::Trust};

use super::ReadArgs;
use crate::{args::OutputArgs, exit::Exit, output};

#[derive(Debug, Args)]
pub(crate) struct GetArgs {
    #[command(flatten)]
    read: ReadArgs,
    #[command(flatten)]
    output: OutputArgs,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Row {
    name: String,
    snapshot: String,
    #[serde(flatten)]
    state: State,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase", untagged)]
enum State {
    #[serde(rename_all = "camelCase")]
    Readable {
        cluster: String,
        taken: Timestamp,
        revision: u64,
        objects: u64,
        outcome: Outcome,
        tested: String,
        signer: SignerState,
        root: Digest,
    },
    Damaged {
        error: String,
    },
}

pub(crate) async fn run(args: GetArgs) -> anyhow::Result<Exit> {
    let (repository, trust) = args.read.open().await?;
    let mut rows = Vec::new();
    for entry in catalog::list(&repository, &trust).await? {
        rows.push(row(&repository, &trust, entry).await?);
    }
    let damaged = rows.iter().any(|row| matches!(row.state, State::Damaged { .. }));
    output::print(args.output.output, &rows, || {
        if rows.is_empty() {
            return "no backups yet: stillpoint backup create NAME\n".to_owned();
        }
        let header = ["NAME", "CLUSTER", "TAKEN", "REVISION", "OBJECTS", "STATE", "TESTED", "SIGNER"];
        output::table(header, rows.iter().map(Row::cells))
    })?;
    Ok(if damaged { Exit::Degraded } else { Exit::Done })
}

async fn row(repository: &Repository, trust: &Trust, entry: Entry) -> anyhow::Result<Row> {
    let state = match entry.backup {
        Err(error) => State::Damaged { error: error.to_string() },
        Ok(backup) => State::Readable {
            cluster: backup.manifest.cluster.name.clone(),
            taken: backup.manifest.cut.read_at,
            revision: backup.manifest.cut.revision,
            objects: backup.manifest.types.iter().map(|record| record.captured).sum(),
            outcome: backup.manifest.outcome,
            tested: catalog::standing(repository, backup.root, trust).await?.to_string(),
            signer: backup.signer,
            root: backup.root,
        },
    };
    Ok(Row { name: entry.name, snapshot: entry.snapshot.to_string(), state })
}

impl Row {
    fn cells(&self) -> [String; 8] {
        match &self.state {
            State::Damaged { error } => {
                let none = || "-".to_owned();
                [self.name.clone(), none(), none(), none(), none(), "Damaged".to_owned(), none(), error.clone()]
            }
            State::Readable { cluster, taken, revision, objects, outcome, tested, signer, root: _ } => [
                self.name.clone(),
                cluster.clone(),
                seconds(*taken).to_string(),
                revision.to_string(),
                output::count(*objects),
                outcome.to_string(),
                tested.clone(),
                signer.to_string(),
            ],
        }
    }
}

/// A point in time without its fraction, for people.
pub(crate) fn seconds(time: Timestamp) -> Timestamp {
    time.round(Unit::Second).unwrap_or(time)
}
