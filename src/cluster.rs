//! The cluster a command talks to, chosen as kubectl chooses it.
//!
//! One place turns flags into a client with deadlines, so that no request of ours can wait for ever.

use std::{
    fs,
    io::{self, Write},
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::Context;
use clap::Args;
use kube::{
    Client, Config,
    config::{KubeConfigOptions, Kubeconfig},
};

/// Longer than any list page takes, shorter than an operator's patience.
const READ_TIMEOUT: Duration = Duration::from_secs(60);
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

#[derive(Debug, Args)]
#[command(next_help_heading = "Cluster")]
pub(crate) struct ClusterArgs {
    /// The kubeconfig file [default: KUBECONFIG, then ~/.kube/config, then the pod's service account]
    #[arg(long, value_name = "FILE")]
    kubeconfig: Option<PathBuf>,
    /// The kubeconfig's context [default: its current one]
    #[arg(long, value_name = "NAME")]
    context: Option<String>,
}

/// A client and the name its cluster goes by.
pub(crate) struct Target {
    pub(crate) client: Client,
    pub(crate) name: String,
}

impl ClusterArgs {
    pub(crate) async fn connect(&self) -> anyhow::Result<Target> {
        let (config, name) = self.config().await?;
        Ok(Target { client: client(config)?, name })
    }

    /// A client whose answers may be silent for long, as a command in a container is: whoever uses it has deadlines
    /// of his own.
    pub(crate) async fn connect_for_streams(&self) -> anyhow::Result<Target> {
        let (config, name) = self.config().await?;
        Ok(Target { client: client_with(config, None)?, name })
    }

    /// Whether there is a cluster to speak to at all, by a kubeconfig or because this is a pod.
    pub(crate) fn is_known(&self) -> bool {
        !matches!(self.read(), Ok(None)) || Config::incluster().is_ok()
    }

    async fn config(&self) -> anyhow::Result<(Config, String)> {
        let options = KubeConfigOptions { context: self.context.clone(), ..Default::default() };
        match self.read()? {
            Some(file) => from_file(file, &options).await,
            None => in_cluster(),
        }
    }

    /// The kubeconfig that is meant; none where nothing is named and nothing lies in the usual place.
    fn read(&self) -> anyhow::Result<Option<Kubeconfig>> {
        let read = match &self.kubeconfig {
            Some(path) => Kubeconfig::read_from(path),
            None => Kubeconfig::read(),
        };
        let named = self.kubeconfig.is_some() || self.context.is_some() || std::env::var_os("KUBECONFIG").is_some();
        match read.map_err(anyhow::Error::new) {
            Ok(file) => Ok(Some(file)),
            Err(error) if !named && is_absence(&error) => Ok(None),
            Err(error) => match &self.kubeconfig {
                Some(path) => anyhow::bail!("cannot read the kubeconfig {}: {}", path.display(), error.root_cause()),
                // names the file by itself
                None => Err(error),
            },
        }
    }
}

fn is_absence(error: &anyhow::Error) -> bool {
    error.root_cause().downcast_ref::<io::Error>().is_some_and(|error| error.kind() == io::ErrorKind::NotFound)
}

fn in_cluster() -> anyhow::Result<(Config, String)> {
    match Config::incluster() {
        Ok(config) => Ok((config, "in-cluster".to_owned())),
        Err(_) => anyhow::bail!(
            "no cluster: there is no kubeconfig, and this is no pod; give --kubeconfig or KUBECONFIG, or run: stillpoint demo"
        ),
    }
}

/// A client with our deadlines for a kubeconfig's text.
pub(crate) async fn client_of(kubeconfig: &str) -> anyhow::Result<Client> {
    let file = Kubeconfig::from_yaml(kubeconfig).context("the scratch cluster's kubeconfig is unreadable")?;
    client(from_file(file, &KubeConfigOptions::default()).await?.0)
}

fn client(config: Config) -> anyhow::Result<Client> {
    client_with(config, Some(READ_TIMEOUT))
}

fn client_with(mut config: Config, read_timeout: Option<Duration>) -> anyhow::Result<Client> {
    config.connect_timeout = Some(CONNECT_TIMEOUT);
    config.read_timeout = read_timeout;
    config.write_timeout = Some(READ_TIMEOUT);
    // what is worth repeating is decided in one place, and that is not the transport
    config.default_retry = false;
    Client::try_from(config).context("cannot make a client for the cluster")
}

async fn from_file(file: Kubeconfig, options: &KubeConfigOptions) -> anyhow::Result<(Config, String)> {
    let current = options.context.clone().or_else(|| file.current_context.clone());
    let name = file
        .contexts
        .iter()
        .find(|context| Some(&context.name) == current.as_ref())
        .and_then(|context| Some(context.context.as_ref()?.cluster.clone()))
        .or(current)
        .unwrap_or_else(|| "cluster".to_owned());
    let config =
        Config::from_custom_kubeconfig(file, options).await.context("the kubeconfig names no usable cluster")?;
    Ok((config, name))
}

/// Writes a kubeconfig that only its owner may read: it holds credentials.
pub(crate) fn write_kubeconfig(path: &Path, text: &str) -> anyhow::Result<()> {
    let what = || format!("cannot write the kubeconfig {}", path.display());
    let options = fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).clone();
    options.open(path).and_then(|mut file| file.write_all(text.as_bytes())).with_context(what)
}
