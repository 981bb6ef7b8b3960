//! A user with a repository, a journal and volumes of the test's own.

use std::{
    fs,
    io::{BufRead, BufReader, Write},
    path::{Path, PathBuf},
    process::{Child, ChildStdin, Command, Output, Stdio},
};

use serde_json::Value;
use tempfile::TempDir;

pub(crate) struct User {
    folder: TempDir,
}

impl User {
    pub(crate) fn new() -> Self {
        let user = Self { folder: tempfile::tempdir().unwrap() };
        let (code, said) = user.run(&["repo", "init"]);
        assert_eq!(code, 0, "{said}");
        user
    }

    pub(crate) fn at(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    pub(crate) fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_stillpoint"));
        command.args(arguments).env("STILLPOINT_REPO", self.at("repository")).env("STILLPOINT_PASSWORD", "secret");
        command.env("STILLPOINT_JOURNAL", self.at("journal"));
        command
    }

    /// Runs `stillpoint`; gives the exit code and what was said on both outputs.
    pub(crate) fn run(&self, arguments: &[&str]) -> (i32, String) {
        let Output { status, stdout, stderr } = self.command(arguments).output().unwrap();
        (status.code().unwrap_or(-1), String::from_utf8_lossy(&[stdout, stderr].concat()).into_owned())
    }

    /// Backs up a volume `data` and gives what is told of it.
    pub(crate) fn backs_up(&self, paths: &[&Path], options: &[&str]) -> Value {
        let (code, said) = self.backup(paths, options);
        assert_eq!(code, 0, "{said}");
        told(&said)
    }

    pub(crate) fn backup(&self, paths: &[&Path], options: &[&str]) -> (i32, String) {
        let mut arguments = vec!["volume", "backup", "data", "-o", "json"];
        for path in paths {
            arguments.extend(["--path", path.to_str().unwrap()]);
        }
        arguments.extend(options);
        self.run(&arguments)
    }

    /// Restores the newest backup of one of its paths, and gives where it is.
    pub(crate) fn restores(&self, path: &Path) -> PathBuf {
        let target = self.at("restored");
        let _ = fs::remove_dir_all(&target);
        let (path, to) = (path.to_str().unwrap(), target.to_str().unwrap());
        let (code, said) = self.run(&["volume", "restore", "data", "--path", path, "--target", to]);
        assert_eq!(code, 0, "{said}");
        target
    }

    pub(crate) fn backups(&self) -> usize {
        let (code, said) = self.run(&["volume", "get", "data", "-o", "json"]);
        assert_eq!(code, 0, "{said}");
        serde_json::from_str::<Value>(&said).unwrap().as_array().map_or(0, Vec::len)
    }
}

/// The first document in what was said.
pub(crate) fn told(said: &str) -> Value {
    let document = said
        .find('{')
        .and_then(|start| serde_json::Deserializer::from_str(&said[start..]).into_iter::<Value>().next()?.ok());
    document.unwrap_or_else(|| panic!("no JSON: {said}"))
}

/// A program in Python that is asked line by line.
pub(crate) struct Python {
    child: Child,
    input: ChildStdin,
    output: BufReader<std::process::ChildStdout>,
}

impl Python {
    pub(crate) fn start(script: &str, arguments: &[&Path]) -> Self {
        let mut child = Command::new("python3")
            .args(["-u", "-c", script])
            .args(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let (input, output) = (child.stdin.take().unwrap(), BufReader::new(child.stdout.take().unwrap()));
        let mut python = Self { child, input, output };
        assert_eq!(python.line(), "ready");
        python
    }

    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    pub(crate) fn line(&mut self) -> String {
        let mut line = String::new();
        self.output.read_line(&mut line).unwrap();
        line.trim_end().to_owned()
    }

    /// Asks, and waits for the answer.
    pub(crate) fn ask(&mut self, what: &str) -> String {
        writeln!(self.input, "{what}").unwrap();
        self.line()
    }
}

impl Drop for Python {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A cgroup of the test's own, resumed and removed at its end.
pub(crate) struct Cgroup(pub(crate) PathBuf);

impl Cgroup {
    pub(crate) fn new(root: &Path) -> Self {
        let path = root.join(format!("stillpoint-instant-{}", std::process::id()));
        fs::create_dir(&path).unwrap();
        Self(path)
    }

    pub(crate) fn take(&self, pid: u32) {
        fs::write(self.0.join("cgroup.procs"), pid.to_string()).unwrap();
    }

    pub(crate) fn is_paused(&self) -> bool {
        fs::read_to_string(self.0.join("cgroup.freeze")).unwrap().trim() == "1"
    }
}

impl Drop for Cgroup {
    fn drop(&mut self) {
        let _ = fs::write(self.0.join("cgroup.freeze"), "0");
        for pid in fs::read_to_string(self.0.join("cgroup.procs")).unwrap_or_default().lines() {
            let _ = Command::new("kill").args(["-9", pid]).status();
        }
        for _ in 0..1000 {
            if fs::remove_dir(&self.0).is_ok() {
                break;
            }
            std::thread::yield_now();
        }
    }
}
