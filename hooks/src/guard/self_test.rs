//! The proof, before the first stop, that a guard started from here outlives its caller and releases.
//!
//! What ends a container ends everything in its cgroups, and only a try tells whether that spares the guard: so a dummy
//! caller is started in cgroups of its own, as a container is, one in every hierarchy; it has a guard pause a cgroup that
//! is empty; and everything in its cgroups is killed. No filesystem is touched.

mod bench;

use std::{
    fs, io,
    io::{BufRead, BufReader, Write},
    os::unix::{fs::MetadataExt, process::CommandExt},
    path::{Path, PathBuf},
    process::{Child, ChildStdin, Command, Stdio},
    sync::mpsc,
    thread,
    time::{Duration, Instant},
};

use procfs::process::Process;

use self::bench::Bench;
use super::{
    NAME,
    client::Config,
    dummy::{self, Answer, Errand},
    protocol::Stop,
};
use crate::{journal, pause::Cgroup, release};

/// The initial process id namespace: a constant of the kernel's interface.
const HOST_PID_NAMESPACE: u64 = 0xEFFF_FFFC;
/// The bit of `CAP_SYS_ADMIN`.
const ADMIN: u32 = 21;
/// How long the dummy's guard may take to be armed and to pause.
const STOPPED: Duration = Duration::from_secs(25);
/// How long the guard may take to release after it.
const RELEASED: Duration = Duration::from_secs(3);
/// Later than all of that, so that it is the death that releases.
const DEADLINE: Duration = Duration::from_secs(60);
/// Between two looks.
const LOOK: Duration = Duration::from_millis(1);

/// Why nothing must be stopped from here.
#[derive(Debug, thiserror::Error)]
pub enum SelfTestError {
    /// The end of this process's container would be the guard's.
    #[error(
        "this process has a process id namespace of its own, whose end would kill the guard too: in a pod, set hostPID"
    )]
    NotHostPid,
    /// Only `CAP_SYS_ADMIN` may freeze and thaw.
    #[error("freezing and thawing need CAP_SYS_ADMIN: run as root, in a pod privileged")]
    NotPermitted,
    /// The cgroup hierarchies are not where they should be.
    #[error("the host's cgroup tree is not at {root}: {why}", root = root.display())]
    NoCgroupTree {
        /// Where it should be.
        root: PathBuf,
        /// What is missing.
        why: String,
    },
    /// No cgroup can be made where the hierarchies are.
    #[error("the host's cgroup tree is not writable: {path}: {source}", path = path.display())]
    CgroupTreeNotWritable {
        /// The cgroup that could not be made.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// No hierarchy can pause.
    #[error("no hierarchy of the host's cgroup tree can pause: it has neither cgroup.freeze nor freezer.state")]
    NoFreezer,
    /// The dummy caller did not start, or did not answer.
    #[error("the self-test's caller, {program}, does not answer: {source}", program = program.display())]
    NoCaller {
        /// Its program.
        program: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The guard was not armed, or could not pause an empty cgroup; the journal may be the reason.
    #[error("{0}")]
    NotStopped(String),
    /// What is killed with the caller did not end.
    #[error("the self-test's caller cannot be killed: {0}")]
    NotKilled(String),
    /// The guard was killed together with its caller.
    #[error("the guard did not survive the kill of its caller's cgroups: what it stops would stay stopped")]
    GuardDied,
    /// The guard lives and still holds.
    #[error("the guard outlived its caller and did not release within {} s", .0.as_secs())]
    NotReleased(Duration),
    /// The test itself was interrupted.
    #[error("the self-test ended early: {0}")]
    Interrupted(#[from] tokio::task::JoinError),
}

/// Kills a dummy caller as the end of a container would, and sees its guard survive and release.
///
/// An agent asks this at its start, and freezes nothing where the answer is an error. It takes well under a second.
///
/// # Guarantees
/// No filesystem and nobody's process is stopped; whatever becomes of the test, its cgroups and processes go with it.
///
/// # Errors
/// What is missing, by name.
pub async fn self_test(config: &Config) -> Result<(), SelfTestError> {
    let config = config.clone();
    tokio::task::spawn_blocking(move || run(&config)).await?
}

fn run(config: &Config) -> Result<(), SelfTestError> {
    demand_rights()?;
    let bench = Bench::build(&config.cgroup_root)?;
    let mut subject = Cgroup::open(&bench.subject).map_err(|error| SelfTestError::NotStopped(error.to_string()))?;
    let mut caller = Caller::start(config, &bench)?;
    let guard = caller.stopped(config)?;
    let survived = bench.kill_containers().and_then(|()| released(&subject, config, guard));
    if survived.is_err() {
        let _ = subject.resume();
        clear_journal(&config.journal, guard);
    }
    survived
}

fn demand_rights() -> Result<(), SelfTestError> {
    let namespace = fs::metadata("/proc/self/ns/pid").map(|namespace| namespace.ino());
    if namespace.is_ok_and(|namespace| namespace != HOST_PID_NAMESPACE) {
        return Err(SelfTestError::NotHostPid);
    }
    let rights = Process::myself().and_then(|this| this.status()).map_or(0, |status| status.capeff);
    if rights >> ADMIN & 1 == 1 { Ok(()) } else { Err(SelfTestError::NotPermitted) }
}

/// The dummy caller; it ends when its standard input does.
struct Caller {
    child: Child,
    _stdin: ChildStdin,
    answer: mpsc::Receiver<io::Result<Answer>>,
}

impl Caller {
    fn start(config: &Config, bench: &Bench) -> Result<Self, SelfTestError> {
        let error = no_caller(config);
        let mut command = Command::new(&config.program);
        command.arg0(NAME).arg(dummy::ARGUMENT).current_dir("/");
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
        let mut child = command.spawn().map_err(&error)?;
        let taken = child.stdin.take().zip(child.stdout.take());
        let (mut stdin, stdout) = taken.ok_or_else(|| error(io::ErrorKind::BrokenPipe.into()))?;
        let stop = Stop { pause: vec![bench.subject.clone()], max: DEADLINE, ..Stop::default() };
        let errand = Errand::new(config, bench.containers.clone(), stop);
        let (sender, answer) = mpsc::channel();
        let read = move || {
            let mut line = String::new();
            let read = BufReader::new(stdout).read_line(&mut line);
            // the receiver may have given up
            let _ = sender.send(read.and_then(|_| Ok(serde_json::from_str(&line)?)));
        };
        let sent = serde_json::to_vec(&errand).map_err(io::Error::from).and_then(|mut line| {
            line.push(b'\n');
            stdin.write_all(&line)
        });
        let caller = Self { child, _stdin: stdin, answer };
        sent.and_then(|()| thread::Builder::new().name("self-test".to_owned()).spawn(read)).map_err(error)?;
        Ok(caller)
    }

    /// Waits until its guard has paused, and gives the guard's process id.
    fn stopped(&mut self, config: &Config) -> Result<u32, SelfTestError> {
        let answer = self.answer.recv_timeout(STOPPED).map_err(|_| io::ErrorKind::TimedOut.into());
        match answer.flatten().map_err(no_caller(config))? {
            Answer::Stopped { guard } => Ok(guard),
            Answer::NotStopped(why) => Err(SelfTestError::NotStopped(why)),
        }
    }
}

impl Drop for Caller {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn no_caller(config: &Config) -> impl Fn(io::Error) -> SelfTestError {
    let program = config.program.clone();
    move |source| SelfTestError::NoCaller { program: program.clone(), source }
}

/// Waits until the guard has released and its journal is gone.
fn released(subject: &Cgroup, config: &Config, guard: u32) -> Result<(), SelfTestError> {
    let deadline = Instant::now() + RELEASED;
    loop {
        let open = has_journal(&config.journal, guard);
        if !open && subject.is_paused().is_ok_and(|paused| !paused) {
            return Ok(());
        }
        if !runs(guard) && open {
            return Err(SelfTestError::GuardDied);
        }
        if Instant::now() >= deadline {
            return Err(SelfTestError::NotReleased(RELEASED));
        }
        thread::sleep(LOOK);
    }
}

/// Removes what a guard left; it is locked until its last thread is gone.
fn clear_journal(folder: &Path, guard: u32) {
    let deadline = Instant::now() + RELEASED;
    while has_journal(folder, guard) && Instant::now() < deadline {
        release::of_guard(folder, guard);
        thread::sleep(LOOK);
    }
}

fn has_journal(folder: &Path, guard: u32) -> bool {
    let left = journal::left(folder).unwrap_or_default();
    left.into_iter().filter_map(Result::ok).any(|journal| journal.intent.guard == guard)
}

/// Whether a process runs: one that waits to be reaped does not.
fn runs(pid: u32) -> bool {
    let stat = Process::new(pid.cast_signed()).and_then(|process| process.stat());
    stat.is_ok_and(|stat| stat.state != 'Z')
}
