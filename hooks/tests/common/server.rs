//! Real servers for one test, in folders of their own.

use std::{
    io::Read,
    net::TcpListener,
    os::unix::fs::MetadataExt,
    path::Path,
    process::{Command, Stdio},
};

use stillpoint_sys::Supervised;
use tempfile::TempDir;

/// A server that ends with its test, however that ends.
pub(crate) struct Server {
    _child: Supervised,
}

impl Server {
    pub(crate) fn start(command: &mut Command) -> Self {
        let mut own = Command::new(command.get_program());
        own.args(command.get_args()).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        Self { _child: Supervised::spawn(own).unwrap() }
    }
}

fn root() -> bool {
    std::fs::metadata("/proc/self").unwrap().uid() == 0
}

/// A new folder that belongs to `user`, where we may say so.
pub(crate) fn owned_folder(user: &str) -> TempDir {
    let folder = TempDir::new().unwrap();
    if root() {
        run(Command::new("chown").arg(user).arg(folder.path()));
    }
    folder
}

/// A program that refuses to run as root, run as `user` where we are root.
pub(crate) fn as_user(user: &str, program: &Path) -> Command {
    if !root() {
        return Command::new(program);
    }
    let mut command = Command::new("runuser");
    command.args(["-u", user, "--"]).arg(program);
    command
}

pub(crate) fn free_port() -> u16 {
    TcpListener::bind(("127.0.0.1", 0)).unwrap().local_addr().unwrap().port()
}

/// Runs a command that must succeed.
pub(crate) fn run(command: &mut Command) {
    let output = command.stdin(Stdio::null()).output().unwrap();
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
}

/// What a command prints; none when it fails.
pub(crate) fn output_of(command: &mut Command) -> Option<String> {
    let output = command.stdin(Stdio::null()).stderr(Stdio::null()).output().unwrap();
    let mut text = String::new();
    (&output.stdout[..]).read_to_string(&mut text).unwrap();
    output.status.success().then_some(text)
}
