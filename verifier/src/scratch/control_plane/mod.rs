//! The `control-plane` scratch cluster: etcd and a real API server as processes on loopback.
//!
//! Of the controller manager only those controllers run that keep the API itself in order (garbage
//! collection, namespaces, service accounts): one that made Pods for a restored Deployment would
//! blur what was restored.

mod commands;
mod directory;
mod pki;
mod programs;
mod server;

use std::{
    fmt, fs, io,
    net::{Ipv4Addr, TcpListener},
    path::Path,
    time::Duration,
};

use commands::Ports;
use directory::Directory;
use http::Request;
use kube::Client;
use pki::Pki;
pub use programs::Programs;
use programs::Version;
use server::Server;
use tokio::{
    net::TcpStream,
    task::spawn_blocking,
    time::{Instant, sleep, timeout_at},
};

use super::{Error, client_for};

/// How long all servers together may take until the cluster serves.
const START_DEADLINE: Duration = Duration::from_secs(60);

/// How often a server that is starting is asked whether it serves.
const POLL: Duration = Duration::from_millis(100);

/// A port that is free when it is chosen may be taken when it is used: so often all is started.
const PORT_ATTEMPTS: usize = 3;

const DEFAULT_SERVICE_ACCOUNT: &str = "/api/v1/namespaces/default/serviceaccounts/default";

/// Since this release no Secret is made for a service account's token.
const NO_TOKEN_SECRETS: Version = Version::new(1, 24);

const NEVER_JUDGED: [&str; 4] = [
    "scheduling and running of Pods (there is no scheduler and no node)",
    "what workload controllers make of restored objects (no Deployment, Job or similar controller runs)",
    "admission webhooks and aggregated APIs that Pods of the cluster serve (no Pod runs)",
    "binding and content of volumes (there is no volume controller and no storage)",
];

const UNJUDGED_WITHOUT_CONTROLLERS: [&str; 3] = [
    "garbage collection of objects whose owner is gone (no kube-controller-manager was found)",
    "deletion of namespaces (no kube-controller-manager was found)",
    "the service accounts of Pods (no kube-controller-manager was found)",
];

/// A running control plane in a temporary directory.
///
/// Dropping it kills its servers and removes the directory, which may block for a moment;
/// [`shutdown`](Self::shutdown) does the same off the runtime. When this process is killed, its
/// servers are killed with it, and the next start removes the directory.
pub struct ControlPlane {
    client: Client,
    kubeconfig: String,
    machine: Machine,
}

impl ControlPlane {
    /// Starts a control plane and waits until it serves, at most a minute.
    ///
    /// # Errors
    /// When a program cannot be run, ends by itself or does not serve in time, with the end of its
    /// log; what was started is stopped and removed.
    pub async fn start(programs: Programs) -> Result<Self, Error> {
        let version = Version::of(&programs.kube_apiserver).await?;
        for _ in 1..PORT_ATTEMPTS {
            match Self::start_once(programs.clone(), version).await {
                Err(error) if error.is_port_taken() => {
                    tracing::info!("another program took a port: starting the control plane anew");
                }
                outcome => return outcome,
            }
        }
        Self::start_once(programs, version).await
    }

    async fn start_once(programs: Programs, version: Version) -> Result<Self, Error> {
        let deadline = Instant::now() + START_DEADLINE;
        let machine = off_runtime(move || Machine::new(programs, version)).await?;
        let etcd = machine.ports.etcd;
        machine.until(deadline, async || listens(etcd).await).await?;

        let machine = off_runtime(move || machine.with_apiserver()).await?;
        let kubeconfig = machine.kubeconfig();
        let client = client_for(&kubeconfig).await?;
        machine.until(deadline, async || serves(&client).await).await?;

        let machine = off_runtime(move || machine.with_controllers()).await?;
        if machine.has_controllers() {
            machine.until(deadline, async || machine.controls(&client).await).await?;
        }
        Ok(Self { client, kubeconfig, machine })
    }

    /// A client with every right on the cluster.
    #[must_use]
    pub fn client(&self) -> Client {
        self.client.clone()
    }

    /// The administrator's kubeconfig, credentials included, as YAML.
    #[must_use]
    pub fn kubeconfig(&self) -> &str {
        &self.kubeconfig
    }

    /// What no test on this cluster can judge, a phrase each.
    #[must_use]
    pub fn not_judged(&self) -> Vec<&'static str> {
        let mut phrases = NEVER_JUDGED.to_vec();
        if !self.machine.has_controllers() {
            phrases.extend(UNJUDGED_WITHOUT_CONTROLLERS);
        }
        phrases
    }

    /// The temporary directory; the servers' logs are the files in it that end in `.log`.
    #[must_use]
    pub fn directory(&self) -> &Path {
        self.machine.directory.path()
    }

    /// Stops the servers and removes the directory.
    ///
    /// # Errors
    /// When a server cannot be stopped or the directory not be removed, by name.
    pub async fn shutdown(self) -> Result<(), Error> {
        let machine = self.machine;
        off_runtime(move || machine.stop()).await
    }
}

impl fmt::Debug for ControlPlane {
    /// Leaves out the credentials.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ControlPlane").field("directory", &self.directory()).finish_non_exhaustive()
    }
}

/// What was started so far, and what the rest is started from.
struct Machine {
    programs: Programs,
    version: Version,
    ports: Ports,
    pki: Pki,
    /// In the order of their start. They go before the directory that they write to.
    servers: Vec<Server>,
    directory: Directory,
}

impl Machine {
    /// Makes the directory and the certificates, and starts etcd.
    fn new(programs: Programs, version: Version) -> Result<Self, Error> {
        let directory = Directory::create_in(&std::env::temp_dir())?;
        let pki = Pki::create(&directory)?;
        let ports = free_ports().map_err(Error::Port)?;
        let etcd = Server::start(&programs.etcd, commands::etcd(&pki, ports), &directory)?;
        Ok(Self { programs, version, ports, pki, servers: vec![etcd], directory })
    }

    fn with_apiserver(mut self) -> Result<Self, Error> {
        let arguments = commands::kube_apiserver(&self.pki, self.ports, self.has_controllers());
        let program = &self.programs.kube_apiserver;
        let server = Server::start(program, arguments, &self.directory)?;
        self.servers.push(server);
        Ok(self)
    }

    /// Starts the controller manager where there is one.
    fn with_controllers(mut self) -> Result<Self, Error> {
        let Some(program) = &self.programs.kube_controller_manager else {
            return Ok(self);
        };
        let path = self.directory.file("kubeconfig");
        fs::write(&path, self.kubeconfig()).map_err(Error::file("write", &path))?;
        let arguments = commands::kube_controller_manager(&self.pki, self.version, &path);
        let server = Server::start(program, arguments, &self.directory)?;
        self.servers.push(server);
        Ok(self)
    }

    fn has_controllers(&self) -> bool {
        self.programs.kube_controller_manager.is_some()
    }

    fn kubeconfig(&self) -> String {
        self.pki.kubeconfig(self.ports.apiserver)
    }

    /// Waits until the newest server is `ready`, while none of them ends.
    async fn until(&self, deadline: Instant, ready: impl AsyncFn() -> bool) -> Result<(), Error> {
        let polling = async {
            loop {
                self.servers.iter().try_for_each(Server::check)?;
                if ready().await {
                    return Ok(());
                }
                sleep(POLL).await;
            }
        };
        let in_time = timeout_at(deadline, polling).await;
        in_time.unwrap_or_else(|_| Err(self.not_serving()))
    }

    /// Whether the controllers have made what they make for every namespace: its service account,
    /// and on old releases the account's token, without which no Pod is admitted.
    async fn controls(&self, client: &Client) -> bool {
        match get(client, DEFAULT_SERVICE_ACCOUNT).await {
            Some(account) if self.version < NO_TOKEN_SECRETS => account.contains("\"secrets\""),
            Some(_) => true,
            None => false,
        }
    }

    fn not_serving(&self) -> Error {
        // the newest is the one that is waited for; etcd is there from the start
        self.servers[self.servers.len() - 1].not_serving(START_DEADLINE)
    }

    fn stop(mut self) -> Result<(), Error> {
        while let Some(newest) = self.servers.pop() {
            newest.stop()?;
        }
        self.directory.remove()
    }
}

/// Ports that are free now, chosen together so that they differ.
fn free_ports() -> io::Result<Ports> {
    let apiserver = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    let etcd = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    Ok(Ports { apiserver: apiserver.local_addr()?.port(), etcd: etcd.local_addr()?.port() })
}

async fn listens(port: u16) -> bool {
    TcpStream::connect((Ipv4Addr::LOCALHOST, port)).await.is_ok()
}

/// The server makes its first namespaces some time after it calls itself ready.
async fn serves(client: &Client) -> bool {
    answers(client, "/readyz").await && answers(client, "/api/v1/namespaces/default").await
}

async fn answers(client: &Client, path: &str) -> bool {
    get(client, path).await.is_some()
}

async fn get(client: &Client, path: &str) -> Option<String> {
    let request = Request::get(path).body(Vec::new()).ok()?;
    client.request_text(request).await.ok()
}

async fn off_runtime<T: Send + 'static>(work: impl FnOnce() -> Result<T, Error> + Send + 'static) -> Result<T, Error> {
    spawn_blocking(work).await.map_err(Error::Interrupted)?
}
