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

use crate::common::{SOON, config, wait_for};

const STOP: &str = "CALLER_STOP";
const JOURNAL: &str = "CALLER_JOURNAL";
const DIES_AT: &str = "CALLER_DIES_AT";
/// What keeps it from dying: `writes PATH` to what is frozen, `holds PATH` unlinked.
const HINDRANCE: &str = "CALLER_HINDRANCE";
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
    let hindrance = env::var(HINDRANCE).unwrap_or_default();
    let hindrance = hindrance.split_once(' ').map(|(how, path)| (how, PathBuf::from(path)));
    let _unlinked = hindrance.as_ref().filter(|(how, _)| *how == "holds").map(|(_, path)| unlinked(path));
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
        match &hindrance {
            Some(("writes", path)) => write_and_say(path.clone()),
            Some(_) => say("hindered"),
            None => {}
        }
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

/// An open file with something in it and without a name.
fn unlinked(path: &Path) -> std::fs::File {
    let mut file = std::fs::File::create(path).unwrap();
    file.write_all(&[1; 1 << 16]).unwrap();
    std::fs::remove_file(path).unwrap();
    file
}

/// Writes on a thread of its own, and says so once that hangs.
fn write_and_say(path: PathBuf) {
    let (sender, task) = mpsc::channel();
    std::thread::spawn(move || {
        sender.send(nix::unistd::gettid()).unwrap();
        std::fs::write(path, "hangs").unwrap();
    });
    let stat = format!("/proc/self/task/{}/stat", task.recv().unwrap());
    wait_for("the write to hang", || std::fs::read_to_string(&stat).is_ok_and(|stat| stat.contains(") D ")));
    say("hindered");
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
        Self::run(wrapper, journal, stop, (DIES_AT, dies_at))
    }

    /// Starts one that something keeps from dying.
    pub(crate) fn hindered(journal: &Path, stop: &Stop, hindrance: &str) -> Self {
        Self::run(&[], journal, stop, (HINDRANCE, hindrance))
    }

    fn run(wrapper: &[&str], journal: &Path, stop: &Stop, (variable, value): (&str, &str)) -> Self {
        let this: PathBuf = env::current_exe().unwrap();
        let mut words: Vec<_> = wrapper.iter().map(Into::into).collect();
        words.push(this.into_os_string());
        let mut command = Command::new(&words[0]);
        command.args(&words[1..]).args(["--exact", TEST, "--ignored", "--nocapture", "--test-threads", "1"]);
        command.env(STOP, serde_json::to_string(stop).unwrap()).env(JOURNAL, journal).env(variable, value);
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
