//! The commands, one file each.
//!
//! Each turns its flags into a request value, lets the crates do the work, and prints what came of it.

pub(crate) mod backup;
pub(crate) mod bench;
pub(crate) mod completion;
pub(crate) mod demo;
pub(crate) mod key;
pub(crate) mod repo;
pub(crate) mod restore;
pub(crate) mod scratch;
pub(crate) mod verify;

use crate::{args::Command, exit::Exit};

pub(crate) async fn run(command: Command) -> anyhow::Result<Exit> {
    match command {
        Command::Demo(args) => demo::run(args).await,
        Command::Repo(command) => repo::run(command).await,
        Command::Backup(command) => backup::run(command).await,
        // boxed because it is by far the largest of these futures
        Command::Verify(args) => Box::pin(verify::run(args)).await,
        Command::Restore(command) => restore::run(command).await,
        Command::Scratch(command) => scratch::run(command).await,
        Command::Key(command) => key::run(&command),
        Command::Bench(command) => bench::run(command).await,
        Command::Completion(args) => completion::run(args, &mut <crate::args::Cli as clap::CommandFactory>::command()),
    }
}
