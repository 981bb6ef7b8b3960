//! A caller in a process of its own, to be killed.
//!
//! It is this test binary run again: it stops what it is told to, says what it does a line at a time on standard output,
//! and does the next thing when it is sent a line. Its own watchdogs are the loop mounts' of the test that runs it.

use std::{
    env,
    io::{BufRead, BufReader, Write, stdin, stdout},
    path::{Path, PathBuf},
    process::{Child, ChildStdin, Command, Stdio},
    sync::{
        Arc,
        mpsc::{self, Receiver},
    },
    time::{Duration, Instant},
};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use stillpoint_hooks::guard::{Config, Guard, Step, Stop};

use crate::common::{SOON, config};

const STOP: &str = "CALLER_STOP";
const JOURNAL: &str = "CALLER_JOURNAL";
const DIES_AT: &str = "CALLER_DIES_AT";
const TEST: &str = "caller::a_caller_to_be_killed";

/// A line on the output: the test harness prints lines of its own.
const MARK: &str = "caller: ";

fn say(what: impl std::fmt::Display) {
    stdout().write_all(format!("\n{MARK}{what}\n").as_bytes()).unwrap();
    stdout().flush().unwrap();
}

fn die_at(name: &str) {
    if env::var(DIES_AT).is_ok_and(|at| at == name) {
        kill(Pid::this(), Signal::SIGKILL).unwrap();
        loop {
            std::thread::park();
        }
    }
}

fn wait_for_line() {
    let mut line = String::new();
    assert!(stdin().read_line(&mut line).unwrap() > 0, "nobody is there any more");
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "the process that is killed, run by the tests of deaths"]
async fn a_caller_to_be_killed() {
    let (Ok(stop), Ok(journal)) = (env::var(STOP), env::var(JOURNAL)) else { return };
    let stop: Stop = serde_json::from_str(&stop).unwrap();
    say("begins");
    tokio::task::spawn_blocking(wait_for_line).await.unwrap();
    let on_step = Arc::new(|step: Step| die_at(&format!("{step:?}")));
    let config = Config { on_step: Some(on_step), ..config(Path::new(&journal)) };
    loop {
        let guard = Guard::start(&config).await.unwrap();
        say(format_args!("guard {}", guard.pid()));
        die_at("Armed");
        let mut held = guard.stop(&stop).await.unwrap();
        die_at("Stopped");
        say("stopped");
        let next = tokio::task::spawn_blocking(wait_for_line);
        tokio::select! {
            next = next => next.unwrap(),
            () = held.lost() => say("lost"),
        }
        let release = held.release().await;
        die_at("Released");
        say(serde_json::to_string(&release).unwrap());
    }
}

/// Such a process; it is killed when dropped.
pub(crate) struct Caller {
    pub(crate) child: Child,
    stdin: ChildStdin,
    said: Receiver<String>,
}

impl Caller {
    /// Starts one that waits to begin; `wrapper` are programs that run it.
    pub(crate) fn start(wrapper: &[&str], journal: &Path, stop: &Stop, dies_at: &str) -> Self {
        let this: PathBuf = env::current_exe().unwrap();
        let mut words: Vec<_> = wrapper.iter().map(Into::into).collect();
        words.push(this.into_os_string());
        let mut command = Command::new(&words[0]);
        command.args(&words[1..]).args(["--exact", TEST, "--ignored", "--nocapture", "--test-threads", "1"]);
        command.env(STOP, serde_json::to_string(stop).unwrap()).env(JOURNAL, journal).env(DIES_AT, dies_at);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
        let mut child = command.spawn().unwrap();
        let stdin = child.stdin.take().unwrap();
        let (sender, said) = mpsc::channel();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        std::thread::spawn(move || {
            for line in lines.map_while(Result::ok) {
                if let Some(said) = line.strip_prefix(MARK) {
                    let _ = sender.send(said.to_owned());
                }
            }
        });
        let mut caller = Self { child, stdin, said };
        caller.says("begins");
        caller
    }

    /// Waits until it says something that begins so, and returns the rest.
    pub(crate) fn says(&mut self, beginning: &str) -> String {
        let deadline = Instant::now() + SOON;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            let line = self.said.recv_timeout(left).unwrap_or_else(|_| panic!("it never says {beginning}"));
            if let Some(rest) = line.strip_prefix(beginning) {
                return rest.to_owned();
            }
        }
    }

    /// Lets it do the next thing.
    pub(crate) fn go_on(&mut self) {
        // it may be dead by now
        let _ = self.stdin.write_all(b"\n");
    }

    pub(crate) fn pid(&self) -> Pid {
        Pid::from_raw(self.child.id().cast_signed())
    }

    pub(crate) fn signal(&self, signal: Signal) {
        kill(self.pid(), signal).unwrap();
    }

    /// Kills it and waits until it is gone.
    pub(crate) fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

impl Drop for Caller {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Whether a file can be written within a time; the attempt ends with the freeze, at the latest.
pub(crate) fn writable_within(folder: &Path, time: Duration) -> bool {
    let path = folder.join("probe");
    let (sender, receiver) = mpsc::channel();
    std::thread::spawn(move || sender.send(std::fs::write(path, "probe").is_ok()));
    receiver.recv_timeout(time) == Ok(true)
}
