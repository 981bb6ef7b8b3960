//! The signing key pair: where it lies and how it is read.
//!
//! The private key stays in the user's configuration folder, outside every repository: whoever can write to the
//! repository must not be able to sign what is in it.

use std::{
    fs,
    io::Write,
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
};

use anyhow::Context;
use clap::Args;
use etcetera::BaseStrategy;
use stillpoint_repository::signing::{PublicKey, SigningKey, Trust};

/// The private key's file name.
const PRIVATE: &str = "signing.key";
/// The public key's file name.
const PUBLIC: &str = "signing.pub";

/// The key to sign with.
#[derive(Debug, Args)]
#[command(next_help_heading = "Signing")]
pub(crate) struct SigningArgs {
    /// The private key to sign with [default: signing.key in the configuration folder]
    #[arg(long, env = "STILLPOINT_SIGNING_KEY", value_name = "FILE")]
    signing_key: Option<PathBuf>,
}

impl SigningArgs {
    /// The key that was named, or the configuration folder's; none where neither is.
    pub(crate) fn key(&self) -> anyhow::Result<Option<SigningKey>> {
        match &self.signing_key {
            Some(path) => read_private(path).map(Some),
            None => {
                let path = configuration_folder()?.join(PRIVATE);
                if path.exists() { read_private(&path).map(Some) } else { Ok(None) }
            }
        }
    }
}

/// The keys to believe.
#[derive(Debug, Args)]
#[command(next_help_heading = "Signing")]
pub(crate) struct TrustArgs {
    /// A public key to trust; may be given several times [default: signing.pub in the configuration folder]
    #[arg(long = "trusted-key", env = "STILLPOINT_TRUSTED_KEY", value_name = "FILE", value_delimiter = ',')]
    trusted_keys: Vec<PathBuf>,
}

impl TrustArgs {
    /// The keys that were named, or the configuration folder's; none pinned where neither is.
    pub(crate) fn trust(&self) -> anyhow::Result<Trust> {
        let mut paths = self.trusted_keys.clone();
        if paths.is_empty() {
            let path = configuration_folder()?.join(PUBLIC);
            if path.exists() {
                paths.push(path);
            }
        }
        let keys = paths.iter().map(|path| read_public(path)).collect::<anyhow::Result<Vec<_>>>()?;
        Ok(Trust::new(keys))
    }
}

/// Makes a pair in `folder`, or in the configuration folder; refuses to replace one.
pub(crate) fn generate(folder: Option<&Path>) -> anyhow::Result<(PathBuf, PathBuf, PublicKey)> {
    let folder = folder.map_or_else(configuration_folder, |folder| Ok(folder.to_owned()))?;
    fs::create_dir_all(&folder).with_context(|| format!("cannot create the folder {}", folder.display()))?;
    let (private, public) = (folder.join(PRIVATE), folder.join(PUBLIC));
    let key = SigningKey::generate();
    write_new(&private, 0o600, &key.to_pem()?)?;
    write_new(&public, 0o644, &key.public().to_pem()?)?;
    Ok((private, public, key.public()))
}

fn configuration_folder() -> anyhow::Result<PathBuf> {
    let base = etcetera::choose_base_strategy().context("cannot tell the user's configuration folder")?;
    Ok(base.config_dir().join("stillpoint"))
}

fn write_new(path: &Path, mode: u32, text: &str) -> anyhow::Result<()> {
    let what =
        || format!("cannot create {}: a key is never replaced; choose another folder with --out", path.display());
    let mut file = fs::OpenOptions::new().write(true).create_new(true).mode(mode).open(path).with_context(what)?;
    file.write_all(text.as_bytes()).and_then(|()| file.sync_all()).with_context(what)
}

fn read_private(path: &Path) -> anyhow::Result<SigningKey> {
    SigningKey::from_pem(&read(path)?).with_context(|| format!("{} is no private key", path.display()))
}

fn read_public(path: &Path) -> anyhow::Result<PublicKey> {
    PublicKey::from_pem(&read(path)?).with_context(|| format!("{} is no public key", path.display()))
}

fn read(path: &Path) -> anyhow::Result<String> {
    fs::read_to_string(path).with_context(|| format!("cannot read the key {}", path.display()))
}
