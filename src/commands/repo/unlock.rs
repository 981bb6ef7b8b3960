//! `stillpoint repo unlock`.

use clap::Args;
use jiff::Timestamp;
use serde::Serialize;
use stillpoint_repository::{FoundLock, LockState};

use crate::{
    args::{OutputArgs, RepoArgs},
    commands::backup::seconds,
    exit::Exit,
    output,
};

pub(crate) const EXAMPLES: &str = "Examples:
  stillpoint repo unlock                 # what was not refreshed for 30 minutes, or whose process has ended
  stillpoint repo unlock --remove-all    # every lock, read or not: only if nobody works on the repository

A backup whose lock is removed commits nothing.";

#[derive(Debug, Args)]
pub(crate) struct UnlockArgs {
    /// Remove live locks too, and those that cannot be read
    #[arg(long)]
    remove_all: bool,
    #[command(flatten)]
    repo: RepoArgs,
    #[command(flatten)]
    output: OutputArgs,
}

/// What became of the locks.
#[derive(Serialize)]
struct Unlocked {
    removed: Vec<Row>,
    kept: Vec<Row>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Row {
    id: String,
    #[serde(flatten)]
    holder: Option<Holder>,
    state: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<String>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Holder {
    since: Timestamp,
    exclusive: bool,
    user: String,
    host: String,
    pid: u32,
}

pub(crate) async fn run(args: UnlockArgs) -> anyhow::Result<Exit> {
    let UnlockArgs { remove_all, repo, output } = args;
    let unlocked = repo.open().await?.unlock(remove_all).await?;
    let rows = |locks: Vec<FoundLock>| locks.into_iter().map(Row::from).collect();
    let unlocked = Unlocked { removed: rows(unlocked.removed), kept: rows(unlocked.kept) };
    output::print(output.output, &unlocked, || unlocked.text())?;
    Ok(Exit::Done)
}

impl From<FoundLock> for Row {
    fn from(lock: FoundLock) -> Self {
        let FoundLock { id, holder, state } = lock;
        let holder = holder.map(|holder| {
            let stillpoint_repository::Holder { since, exclusive, user, host, pid } = holder;
            Holder { since, exclusive, user, host, pid }
        });
        let (state, reason) = match state {
            LockState::Live => ("live", None),
            LockState::Stale(why) => ("stale", Some(why.to_string())),
            LockState::Unreadable(why) => ("unreadable", Some(why)),
        };
        Self { id: id.to_string(), holder, state, reason }
    }
}

impl Unlocked {
    fn text(&self) -> String {
        let removed = self.removed.iter().map(|lock| format!("removed {}\n", lock.text()));
        let kept = self.kept.iter().map(|lock| format!("kept    {}\n", lock.text()));
        let text: String = removed.chain(kept).collect();
        if text.is_empty() { "there is no lock\n".to_owned() } else { text }
    }
}

impl Row {
    fn text(&self) -> String {
        let id = &self.id[..8];
        let state = match &self.reason {
            None => self.state.to_owned(),
            Some(reason) => format!("{}: {reason}", self.state),
        };
        match &self.holder {
            None => format!("{id}  {state}"),
            Some(Holder { since, exclusive, user, host, pid }) => {
                let kind = if *exclusive { "exclusive" } else { "shared" };
                let since = seconds(*since);
                format!("{id}  {kind}, by {user} on {host} (pid {pid}) since {since}; {state}")
            }
        }
    }
}
