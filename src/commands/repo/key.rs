//! `stillpoint repo key`: the passwords that open the repository.
//!
//! All of them open the same master key. A password is never a flag: it would show in the list of processes.

use std::{
    io::{self, IsTerminal},
    path::PathBuf,
};

use anyhow::bail;
use clap::{Args, Subcommand};
use jiff::Timestamp;
use serde::Serialize;
use stillpoint_repository::{Id, Kdf, KeyInfo, Password};
use zeroize::Zeroizing;

use super::WorkArgs;
use crate::{
    args::{OutputArgs, RepoArgs, UsageError, password_in},
    commands::backup::seconds,
    exit::Exit,
    output,
};

#[derive(Debug, Subcommand)]
pub(crate) enum KeyCommand {
    /// Adds a password.
    #[command(after_help = "Example:\n  stillpoint repo key add --new-password-file ./second")]
    Add(ChangeArgs),
    /// Lists the keys: who made them, where and when, and which one opened the repository.
    #[command(after_help = "Example:\n  stillpoint repo key list -o json | jq -r '.[].id'")]
    List(ListArgs),
    /// Removes a key other than the one that opened the repository.
    #[command(after_help = "Example:\n  stillpoint repo key remove 707de52a")]
    Remove(RemoveArgs),
    /// Replaces the password that opened the repository.
    #[command(after_help = "Example:\n  stillpoint repo key passwd --new-password-file ./new")]
    Passwd(ChangeArgs),
}

#[derive(Debug, Args)]
pub(crate) struct ChangeArgs {
    /// A file whose first line is the new password; otherwise it is asked for
    #[arg(long, value_name = "FILE")]
    new_password_file: Option<PathBuf>,
    #[command(flatten)]
    work: WorkArgs,
}

#[derive(Debug, Args)]
pub(crate) struct ListArgs {
    #[command(flatten)]
    repo: RepoArgs,
    #[command(flatten)]
    output: OutputArgs,
}

#[derive(Debug, Args)]
pub(crate) struct RemoveArgs {
    /// The key's id, or how it begins
    id: String,
    #[command(flatten)]
    work: WorkArgs,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Row {
    id: String,
    in_use: bool,
    user: String,
    host: String,
    created: Option<Timestamp>,
}

#[derive(Serialize)]
struct Changed {
    #[serde(skip_serializing_if = "Option::is_none")]
    added: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    removed: Option<String>,
}

pub(crate) async fn run(command: KeyCommand) -> anyhow::Result<Exit> {
    match command {
        KeyCommand::Add(args) => add(args).await?,
        KeyCommand::List(args) => list(args).await?,
        KeyCommand::Remove(args) => remove(args).await?,
        KeyCommand::Passwd(args) => passwd(args).await?,
    }
    Ok(Exit::Done)
}

async fn add(args: ChangeArgs) -> anyhow::Result<()> {
    let ChangeArgs { new_password_file, work } = args;
    let repository = work.open().await?;
    let id = repository.add_key(&new_password(new_password_file)?, Kdf::default()).await?;
    let changed = Changed { added: Some(id.to_string()), removed: None };
    output::print(work.output.output, &changed, || format!("added key {}\n", id.short()))
}

async fn list(args: ListArgs) -> anyhow::Result<()> {
    let ListArgs { repo, output } = args;
    let row = |key: KeyInfo| {
        let KeyInfo { id, in_use, user, host, created } = key;
        Row { id: id.to_string(), in_use, user, host, created }
    };
    let rows: Vec<Row> = repo.open().await?.keys().await?.into_iter().map(row).collect();
    output::print(output.output, &rows, || {
        let header = ["ID", "IN USE", "USER", "HOST", "CREATED"];
        output::table(header, rows.iter().map(Row::cells))
    })
}

async fn remove(args: RemoveArgs) -> anyhow::Result<()> {
    let RemoveArgs { id, work } = args;
    let repository = work.open().await?;
    let id = the_one(&id, &repository.keys().await?)?;
    repository.remove_key(&id).await?;
    let changed = Changed { added: None, removed: Some(id.to_string()) };
    output::print(work.output.output, &changed, || format!("removed key {}\n", id.short()))
}

async fn passwd(args: ChangeArgs) -> anyhow::Result<()> {
    let ChangeArgs { new_password_file, work } = args;
    let repository = work.open().await?;
    let old = repository.keys().await?.into_iter().find(|key| key.in_use).map(|key| key.id);
    let new = repository.change_password(&new_password(new_password_file)?, Kdf::default()).await?;
    let changed = Changed { added: Some(new.to_string()), removed: old.as_ref().map(Id::to_string) };
    output::print(work.output.output, &changed, || {
        format!("changed the password: key {} opens the repository from now on\n", new.short())
    })
}

fn the_one(start: &str, keys: &[KeyInfo]) -> anyhow::Result<Id> {
    let found: Vec<_> = keys.iter().map(|key| key.id).filter(|id| id.to_string().starts_with(start)).collect();
    match found[..] {
        [id] => Ok(id),
        [] => bail!("no key begins with {start}; see stillpoint repo key list"),
        _ => bail!("{} keys begin with {start}; give more of it", found.len()),
    }
}

fn new_password(file: Option<PathBuf>) -> anyhow::Result<Password> {
    if let Some(file) = file {
        return password_in(&file);
    }
    if !io::stdin().is_terminal() {
        return Err(UsageError("nobody can be asked here: give --new-password-file".to_owned()).into());
    }
    let first = Zeroizing::new(rpassword::prompt_password("new password: ")?);
    let second = Zeroizing::new(rpassword::prompt_password("once more: ")?);
    if first.is_empty() || first != second {
        bail!("the passwords are empty or differ; nothing was changed");
    }
    Ok(Password::new(first.as_str()))
}

impl Row {
    fn cells(&self) -> [String; 5] {
        let in_use = if self.in_use { "yes" } else { "" };
        let created = self.created.map_or_else(|| "unknown".to_owned(), |time| seconds(time).to_string());
        [self.id[..8].to_owned(), in_use.to_owned(), self.user.clone(), self.host.clone(), created]
    }
}
