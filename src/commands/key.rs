//! `stillpoint key`: the pair that signs backups and evidence.
//!
//! Only generation: what is trusted is a file that people copy, as with any public key.

use std::path::PathBuf;

use clap::{Args, Subcommand};

use crate::{exit::Exit, keys, output};

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
}

pub(crate) fn run(command: &KeyCommand) -> anyhow::Result<Exit> {
    let KeyCommand::Generate(GenerateArgs { out }) = command;
    let (private, public, key) = keys::generate(out.as_deref())?;
    output::text(&format!(
        "private key   {}   keep it; whoever has it can sign backups\n\
         public key    {}   give it to those who verify and restore\n\
         fingerprint   {}\n",
        private.display(),
        public.display(),
        key.fingerprint(),
    ))?;
    Ok(Exit::Done)
}
