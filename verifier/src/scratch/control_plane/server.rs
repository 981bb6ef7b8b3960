//! One server process of a control plane, with its log.
//!
//! A server that ends by itself is told with its last words: its log goes with the directory.

use std::{
    ffi::OsString,
    fs::File,
    io::{self, Read, Seek, SeekFrom},
    path::{Path, PathBuf},
    process::{Command, ExitStatus, Stdio},
    time::Duration,
};

use stillpoint_sys::Supervised;

use super::{super::Error, directory::Directory};

/// How long a server may take to end in order; nothing of it is kept, so it is killed soon.
const STOP_GRACE: Duration = Duration::from_secs(2);

/// How much of a log's end is shown.
const LAST_BYTES: u64 = 4096;
const LAST_LINES: usize = 12;

/// A running server, killed with this value and with this process.
#[derive(Debug)]
pub(super) struct Server {
    path: PathBuf,
    log: PathBuf,
    process: Supervised,
}

/// A command line under construction.
pub(super) struct Arguments(Vec<OsString>);

impl Arguments {
    pub(super) fn new<const N: usize>(fixed: [&str; N]) -> Self {
        Self(fixed.map(OsString::from).to_vec())
    }

    /// Adds `--name=value`.
    pub(super) fn set(mut self, name: &str, value: impl AsRef<std::ffi::OsStr>) -> Self {
        let mut argument = OsString::from(format!("--{name}="));
        argument.push(value);
        self.0.push(argument);
        self
    }

    /// Adds `--name=value` where it applies.
    pub(super) fn set_if(self, applies: bool, name: &str, value: &str) -> Self {
        if applies { self.set(name, value) } else { self }
    }
}

impl Server {
    /// Starts `program` with its log in `directory`.
    pub(super) fn start(program: &Path, arguments: Arguments, directory: &Directory) -> Result<Self, Error> {
        let name = program.file_name().unwrap_or(program.as_os_str());
        let log = directory.path().join(name).with_extension("log");
        let output = File::create_new(&log).map_err(Error::file("create", &log))?;
        let errors = output.try_clone().map_err(Error::file("open", &log))?;
        // a relative path would be looked up in the new working directory
        let path = std::path::absolute(program).map_err(Error::run(program))?;
        let mut command = Command::new(&path);
        command
            .args(arguments.0)
            .current_dir(directory.path())
            // The data is thrown away: an etcd that knows this saves the disk the syncs, an older
            // one says in its log that it does not know it.
            .env("ETCD_UNSAFE_NO_FSYNC", "true")
            .stdin(Stdio::null())
            .stdout(output)
            .stderr(errors);
        Ok(Self { process: Supervised::spawn(command).map_err(Error::run(program))?, path, log })
    }

    /// An error if the server has ended.
    pub(super) fn check(&self) -> Result<(), Error> {
        match self.process.try_wait().map_err(Error::run(&self.path))? {
            None => Ok(()),
            Some(status) => Err(self.ended(status)),
        }
    }

    fn ended(&self, status: ExitStatus) -> Error {
        Error::Ended { path: self.path.clone(), status, log: self.last_words() }
    }

    pub(super) fn not_serving(&self, waited: Duration) -> Error {
        Error::NotServing { path: self.path.clone(), waited, log: self.last_words() }
    }

    /// Stops the server; blocks for at most a few seconds.
    pub(super) fn stop(self) -> Result<(), Error> {
        self.process.terminate(STOP_GRACE).map(drop).map_err(|source| Error::Stop { path: self.path.clone(), source })
    }

    fn last_words(&self) -> String {
        match end_of(&self.log) {
            Ok(text) if text.trim().is_empty() => "(its log is empty)".to_owned(),
            Ok(text) => text,
            Err(error) => format!("(its log cannot be read: {error})"),
        }
    }
}

fn end_of(log: &Path) -> io::Result<String> {
    let mut file = File::open(log)?;
    let length = file.metadata()?.len();
    file.seek(SeekFrom::Start(length.saturating_sub(LAST_BYTES)))?;
    let mut bytes = Vec::new();
    file.take(LAST_BYTES).read_to_end(&mut bytes)?;
    let text = String::from_utf8_lossy(&bytes);
    let lines: Vec<&str> = text.lines().collect();
    Ok(lines[lines.len().saturating_sub(LAST_LINES)..].join("\n"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_end_of_a_long_log_is_shown() {
        let folder = tempfile::tempdir().unwrap();
        let log = folder.path().join("log");
        let lines: Vec<String> = (0..10_000).map(|n| format!("line {n}")).collect();
        std::fs::write(&log, lines.join("\n")).unwrap();
        let shown = end_of(&log).unwrap();
        assert_eq!(shown.lines().count(), LAST_LINES);
        assert!(shown.starts_with("line 9988") && shown.ends_with("line 9999"), "{shown}");
    }

    #[test]
    fn a_server_that_ends_is_told_with_its_last_words() {
        let base = tempfile::tempdir().unwrap();
        let directory = Directory::create_in(base.path()).unwrap();
        let arguments = Arguments::new(["-c", "echo no such flag >&2; exit 3"]);
        let server = Server::start(Path::new("/bin/sh"), arguments, &directory).unwrap();
        let error = loop {
            if let Err(error) = server.check() {
                break error.to_string();
            }
            std::thread::yield_now();
        };
        assert!(error.contains("/bin/sh ended by itself (exit status: 3)"), "{error}");
        assert!(error.ends_with("no such flag"), "{error}");
    }
}
