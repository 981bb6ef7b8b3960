//! `stillpoint key`: the pair that signs backups and evidence.
//!
//! Only generation: what is trusted is a file that people copy, as with any public key.

use std::path::PathBuf;

use clap::{Args, Subcommand};
use serde::Serialize;

use crate::{args::OutputArgs, exit::Exit, keys, output};

#[derive(Debug, Subcommand)]
pub(crate) enum KeyCommand {
    /// Makes a pair: signing.key to sign with, signing.pub to give to those who verify.
    #[command(after_help = "Example:\n  stillpoint key generate --out ./keys")]
    Generate(GenerateArgs),
}

#[derive(Debug, Args)]
pub(crate) struct GenerateArgs {
    /// The folder to write to [default: the user's configuration folder]
    #[arg(long, value_name = "FOLDER")]
    out: Option<PathBuf>,
    #[command(flatten)]
    output: OutputArgs,
}

/// Where the pair is.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Generated {
    private_key: PathBuf,
    public_key: PathBuf,
    fingerprint: String,
}

pub(crate) fn run(command: &KeyCommand) -> anyhow::Result<Exit> {
    let KeyCommand::Generate(GenerateArgs { out, output }) = command;
    let (private_key, public_key, key) = keys::generate(out.as_deref())?;
    let generated = Generated { private_key, public_key, fingerprint: key.fingerprint() };
    output::print(output.output, &generated, || {
        format!(
            "private key   {}   keep it; whoever has it can sign backups\n\
             public key    {}   give it to those who verify and restore\n\
             fingerprint   {}\n",
            generated.private_key.display(),
            generated.public_key.display(),
            generated.fingerprint,
        )
    })?;
    Ok(Exit::Done)
}
