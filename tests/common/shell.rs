//! The program as a user runs it: a home of its own, a scratch cluster as a process, exit codes and sentences.

use std::{
    fs,
    io::{Read, Write},
    net::TcpStream,
    path::PathBuf,
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use assert_cmd::assert::Assert;
use kube::config::Kubeconfig;
use serde_json::Value;
use tempfile::TempDir;

use super::cluster;

const PROGRAM: &str = env!("CARGO_BIN_EXE_stillpoint");

/// A user with a home, a repository's address and its password; nothing of ours is in the environment beside that.
pub(crate) struct User {
    pub(crate) home: TempDir,
    variables: Vec<(String, String)>,
}

impl User {
    /// A user whose repository is a folder of the home.
    pub(crate) fn new() -> Self {
        let home = tempfile::tempdir().unwrap();
        let repository = format!("file://{}", home.path().join("repository").display());
        Self { home, variables: Vec::new() }.with("STILLPOINT_REPO", &repository).with("STILLPOINT_PASSWORD", "secret")
    }

    /// The same user with another variable, or another value of it.
    pub(crate) fn with(mut self, name: &str, value: &str) -> Self {
        self.variables.retain(|(known, _)| known != name);
        self.variables.push((name.to_owned(), value.to_owned()));
        self
    }

    /// The same user with what S3 needs, at a server.
    pub(crate) fn with_s3(self, endpoint: &str, repository: &str) -> Self {
        self.with("STILLPOINT_REPO", repository)
            .with("AWS_ENDPOINT_URL", endpoint)
            .with("AWS_ALLOW_HTTP", "true")
            .with("AWS_ACCESS_KEY_ID", "key")
            .with("AWS_SECRET_ACCESS_KEY", "secret")
            .with("AWS_REGION", "us-east-1")
    }

    /// A path in the home, as text.
    pub(crate) fn path(&self, name: &str) -> String {
        self.home.path().join(name).to_str().unwrap().to_owned()
    }

    fn environment(&self) -> Vec<(String, String)> {
        let mut variables = self.variables.clone();
        variables.push(("HOME".to_owned(), self.path("")));
        variables.push(("PATH".to_owned(), std::env::var("PATH").unwrap()));
        variables
    }

    /// The program, for whoever starts and ends it.
    pub(crate) fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(PROGRAM);
        command.env_clear().envs(self.environment()).current_dir(self.home.path()).args(arguments);
        command
    }

    /// Runs the program, for two minutes at most.
    pub(crate) fn runs(&self, arguments: &[&str]) -> Assert {
        let mut command = assert_cmd::Command::new(PROGRAM);
        command.env_clear().envs(self.environment()).current_dir(self.home.path());
        command.args(arguments).timeout(Duration::from_secs(120)).assert()
    }

    /// Runs the program, which must end with this exit code; what it printed.
    pub(crate) fn prints(&self, code: i32, arguments: &[&str]) -> String {
        text(&self.runs(arguments).code(code).get_output().stdout)
    }

    /// Runs the program, which must succeed and print JSON.
    pub(crate) fn reads(&self, arguments: &[&str]) -> Value {
        let printed = self.prints(0, arguments);
        serde_json::from_str(&printed).unwrap_or_else(|error| panic!("{arguments:?}: {error}: {printed}"))
    }

    /// Runs the program, which must refuse with this exit code, print nothing, and say why in one line that holds
    /// these words.
    pub(crate) fn is_refused(&self, code: i32, words: &[&str], arguments: &[&str]) {
        let refused = self.runs(arguments).code(code).stdout("");
        let said = text(&refused.get_output().stderr);
        assert!(said.starts_with("stillpoint: ") && said.lines().count() == 1, "{arguments:?} says: {said}");
        for word in words {
            assert!(said.contains(word), "{arguments:?} does not say {word:?}: {said}");
        }
    }

    /// The files of a folder of the home, with their sizes.
    pub(crate) fn files(&self, folder: &str) -> Vec<(PathBuf, u64)> {
        let mut files = Vec::new();
        let mut folders = vec![self.home.path().join(folder)];
        while let Some(folder) = folders.pop() {
            for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
                match entry.file_type().unwrap().is_dir() {
                    true => folders.push(entry.path()),
                    false => files.push((entry.path(), entry.metadata().unwrap().len())),
                }
            }
        }
        files.sort();
        files
    }
}

pub(crate) fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// Makes this program the image `localhost/stillpoint:test` of the node.
pub(crate) fn put_image_together() {
    let images = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/cluster/images.sh");
    let made = Command::new(images).arg(PROGRAM).output().unwrap();
    assert!(made.status.success(), "{}", text(&made.stderr));
}

/// `stillpoint scratch run`, until it is dropped.
pub(crate) struct Scratch {
    child: Child,
    /// The path of its kubeconfig.
    pub(crate) kubeconfig: String,
    pub(crate) client: kube::Client,
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Scratch {
    /// Starts an embedded cluster whose kubeconfig gets this name.
    pub(crate) async fn start(user: &User, name: &str) -> Self {
        Self::start_kind(user, "embedded", name).await
    }

    pub(crate) async fn start_kind(user: &User, kind: &str, name: &str) -> Self {
        let kubeconfig = user.path(name);
        let mut command = user.command(&["scratch", "run", kind, "--kubeconfig-out", &kubeconfig]);
        let child = command.stderr(Stdio::null()).spawn().unwrap();
        let deadline = Instant::now() + Duration::from_secs(60);
        let config = loop {
            assert!(Instant::now() < deadline, "the scratch cluster does not start");
            match fs::read_to_string(&kubeconfig).ok().and_then(|text| Kubeconfig::from_yaml(&text).ok()) {
                Some(config) if config.current_context.is_some() => break config,
                _ => tokio::time::sleep(Duration::from_millis(20)).await,
            }
        };
        Self { child, kubeconfig, client: cluster::client(cluster::config(config).await) }
    }

    /// Asks it to end, as Ctrl-C does, and waits; its exit code.
    pub(crate) fn interrupt(mut self) -> Option<i32> {
        let pid = nix::unistd::Pid::from_raw(i32::try_from(self.child.id()).unwrap());
        nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGINT).unwrap();
        self.child.wait().unwrap().code()
    }
}

/// Makes a bucket of a new name; the name.
pub(crate) fn make_bucket(endpoint: &str) -> String {
    let host = endpoint.strip_prefix("http://").unwrap();
    let bucket = format!("bucket-{}", cluster::uuid());
    let mut stream = TcpStream::connect(host).unwrap();
    write!(stream, "PUT /{bucket} HTTP/1.1\r\nHost: {host}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    bucket
}
