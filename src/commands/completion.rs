//! `stillpoint completion`: the completion script of a shell.
//!
//! Made from the same grammar that parses, so that it cannot be out of date.

use std::io;

use clap::{Args, Command, ValueEnum};
use clap_complete::Shell;

use crate::{exit::Exit, output};

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Supported {
    Bash,
    Zsh,
    Fish,
}

#[derive(Debug, Clone, Copy, Args)]
#[command(after_help = "Example:\n  stillpoint completion bash > /etc/bash_completion.d/stillpoint")]
pub(crate) struct CompletionArgs {
    /// The shell
    shell: Supported,
}

pub(crate) fn run(args: CompletionArgs, command: &mut Command) -> anyhow::Result<Exit> {
    let shell = match args.shell {
        Supported::Bash => Shell::Bash,
        Supported::Zsh => Shell::Zsh,
        Supported::Fish => Shell::Fish,
    };
    let mut script = Vec::new();
    clap_complete::generate(shell, command, "stillpoint", &mut script);
    output::text(&String::from_utf8(script).map_err(io::Error::other)?)?;
    Ok(Exit::Done)
}
