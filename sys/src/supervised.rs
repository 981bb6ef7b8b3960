//! A child process with a thread of its own, which spawned it and reaps it.
//!
//! The thread exists because the kernel ties the parent-death signal to the spawning thread: on a
//! thread pool the child would be killed when an idle worker retires. It also makes signalling
//! safe: only this thread reaps, and it does so under the lock that every signal is sent under,
//! so a signal never reaches a stranger who was given the dead child's pid.

use std::{
    io,
    process::{Child, Command, ExitStatus},
    sync::{
        Arc, Condvar, Mutex, MutexGuard, PoisonError,
        mpsc::{SyncSender, sync_channel},
    },
    thread,
    time::Duration,
};

use nix::{
    errno::Errno,
    sys::{
        signal::{Signal, killpg},
        wait::{Id, WaitPidFlag, waitid},
    },
    unistd::Pid,
};

use crate::die_with_parent;

/// How long a killed child may take to be gone before it is left to its thread: a process in an
/// uninterruptible system call does not die by SIGKILL.
const KILL_DEADLINE: Duration = Duration::from_secs(5);

/// A running child that dies with us: with this value, and with this process even by SIGKILL.
///
/// The child leads its own process group; signals go to the whole group, and what is left of the
/// group when the child ends is killed with it. Dropping kills the group and reaps the child,
/// waiting at most five seconds for it.
#[derive(Debug)]
pub struct Supervised {
    group: Pid,
    state: Arc<State>,
}

#[derive(Debug, Default)]
struct State {
    ending: Mutex<Ending>,
    changed: Condvar,
}

/// What is known of the child's end; its pid is ours to signal while `Running` only.
#[derive(Debug, Default)]
enum Ending {
    #[default]
    Running,
    Reaped(io::Result<ExitStatus>),
}

impl Supervised {
    /// Starts `command` as a child that dies with this process.
    ///
    /// # Errors
    /// Whatever starting the thread or the program gave.
    pub fn spawn(command: Command) -> io::Result<Self> {
        let state = Arc::new(State::default());
        let (started, start) = sync_channel(1);
        let supervisor = Arc::clone(&state);
        thread::Builder::new().name("supervise".to_owned()).spawn(move || supervise(command, &started, &supervisor))?;
        let pid = start.recv().map_err(io::Error::other)??;
        Ok(Self { group: pid, state })
    }

    /// The child's process id, which is also its process group's.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.group.as_raw().unsigned_abs()
    }

    /// The child's exit status, or `None` while it runs.
    ///
    /// # Errors
    /// When the operating system could not tell how the child ended.
    pub fn try_wait(&self) -> io::Result<Option<ExitStatus>> {
        self.state.lock().status()
    }

    /// Blocks until the child has ended, however long that takes.
    ///
    /// # Errors
    /// When the operating system could not tell how the child ended.
    pub fn join(&self) -> io::Result<ExitStatus> {
        let running = |ending: &mut Ending| matches!(ending, Ending::Running);
        let ended = self.state.changed.wait_while(self.state.lock(), running).unwrap_or_else(PoisonError::into_inner);
        ended.status()?.ok_or_else(|| io::Error::other("the child neither runs nor has ended"))
    }

    /// Ends the process group: SIGTERM, then SIGKILL if the child still runs after `grace`.
    /// Blocks until the child is reaped; a child that has ended already gives its status.
    ///
    /// # Errors
    /// `TimedOut` when the child is not gone five seconds after SIGKILL.
    pub fn terminate(&self, grace: Duration) -> io::Result<ExitStatus> {
        self.signal(Signal::SIGTERM)?;
        match self.wait(grace)? {
            Some(status) => Ok(status),
            None => self.kill(),
        }
    }

    fn kill(&self) -> io::Result<ExitStatus> {
        self.signal(Signal::SIGKILL)?;
        self.wait(KILL_DEADLINE)?.ok_or_else(|| io::Error::from(io::ErrorKind::TimedOut))
    }

    fn signal(&self, signal: Signal) -> io::Result<()> {
        match *self.state.lock() {
            Ending::Running => Ok(killpg(self.group, signal)?),
            Ending::Reaped(_) => Ok(()),
        }
    }

    fn wait(&self, timeout: Duration) -> io::Result<Option<ExitStatus>> {
        let running = |ending: &mut Ending| matches!(ending, Ending::Running);
        self.state
            .changed
            .wait_timeout_while(self.state.lock(), timeout, running)
            .unwrap_or_else(PoisonError::into_inner)
            .0
            .status()
    }
}

impl Drop for Supervised {
    fn drop(&mut self) {
        // Nobody is left to tell; the thread goes on waiting for what does not die in time.
        let _ = self.kill();
    }
}

impl State {
    fn lock(&self) -> MutexGuard<'_, Ending> {
        self.ending.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Ending {
    fn status(&self) -> io::Result<Option<ExitStatus>> {
        match self {
            Self::Running => Ok(None),
            Self::Reaped(Ok(status)) => Ok(Some(*status)),
            Self::Reaped(Err(error)) => Err(io::Error::new(error.kind(), error.to_string())),
        }
    }
}

/// The supervising thread: it lives exactly as long as the child.
fn supervise(mut command: Command, started: &SyncSender<io::Result<Pid>>, state: &State) {
    die_with_parent(&mut command);
    let spawned = command.spawn();
    // The command's handles are the child's now: a pipe must close when the child ends.
    drop(command);
    let mut child = match spawned {
        Ok(child) => child,
        Err(error) => return send(started, Err(error)),
    };
    let pid = Pid::from_raw(child.id().cast_signed());
    send(started, Ok(pid));
    let waited = wait_for_end(pid);
    let mut ending = state.lock();
    *ending = Ending::Reaped(waited.and_then(|()| reap(pid, &mut child)));
    state.changed.notify_all();
}

fn send(started: &SyncSender<io::Result<Pid>>, outcome: io::Result<Pid>) {
    // The receiver waits for this one message: a failed send means that it panicked.
    let _ = started.send(outcome);
}

/// Blocks until the child has ended, and leaves it to be reaped: until then its pid and its
/// process group's id are given to nobody else.
fn wait_for_end(pid: Pid) -> io::Result<()> {
    let flags = WaitPidFlag::WEXITED | WaitPidFlag::WNOWAIT;
    loop {
        match waitid(Id::Pid(pid), flags) {
            Err(Errno::EINTR) => {}
            other => return Ok(other.map(drop)?),
        }
    }
}

fn reap(group: Pid, child: &mut Child) -> io::Result<ExitStatus> {
    // The ended child is the group's only member if it left nobody behind: then this does nothing.
    let _ = killpg(group, Signal::SIGKILL);
    child.wait()
}

#[cfg(test)]
mod tests {
    use std::{
        io::{BufRead, BufReader, Read},
        os::unix::process::ExitStatusExt,
        process::Stdio,
        time::Instant,
    };

    use super::*;

    const SOON: Duration = Duration::from_secs(20);

    fn shell(script: &str) -> Command {
        let mut command = Command::new("sh");
        command.args(["-c", script]);
        command
    }

    /// Starts `script`, whose first line of output says that it is ready.
    fn spawn_ready(script: &str) -> (Supervised, String) {
        let (read, write) = io::pipe().unwrap();
        let mut command = shell(script);
        command.stdout(write);
        let child = Supervised::spawn(command).unwrap();
        let mut line = String::new();
        BufReader::new(read).read_line(&mut line).unwrap();
        (child, line.trim().to_owned())
    }

    /// Whether the process runs: one that waits to be reaped does not.
    fn runs(pid: &str) -> bool {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        let state = stat.rsplit_once(") ").map(|(_, rest)| rest.starts_with('Z'));
        state == Some(false)
    }

    fn wait_until_gone(pid: &str) {
        let deadline = Instant::now() + SOON;
        while runs(pid) {
            assert!(Instant::now() < deadline, "process {pid} still runs");
            thread::yield_now();
        }
    }

    #[test]
    fn an_ended_child_gives_its_status() {
        let child = Supervised::spawn(shell("exit 3")).unwrap();
        assert_eq!(child.wait(SOON).unwrap().unwrap().code(), Some(3));
        assert_eq!(child.try_wait().unwrap().unwrap().code(), Some(3));
        assert_eq!(child.join().unwrap().code(), Some(3));
        assert_eq!(child.terminate(SOON).unwrap().code(), Some(3));
    }

    #[test]
    fn a_running_child_has_no_status() {
        let (child, _) = spawn_ready("echo ready; exec sleep 600");
        assert_eq!(child.try_wait().unwrap(), None);
    }

    #[test]
    fn a_program_that_is_not_there_is_an_error_of_spawn() {
        let error = Supervised::spawn(Command::new("/no/such/program")).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::NotFound);
    }

    #[test]
    fn terminate_lets_the_child_end_by_itself() {
        let (child, _) = spawn_ready("trap 'exit 7' TERM; echo ready; sleep 600 & wait");
        assert_eq!(child.terminate(SOON).unwrap().code(), Some(7));
    }

    #[test]
    fn a_child_that_ignores_the_term_signal_is_killed_after_the_grace() {
        let script = "trap '' TERM; echo ready; while :; do sleep 600; done";
        let (child, _) = spawn_ready(script);
        let status = child.terminate(Duration::from_millis(50)).unwrap();
        assert_eq!(status.signal(), Some(Signal::SIGKILL as i32));
    }

    #[test]
    fn what_an_ended_child_left_running_in_its_group_is_killed() {
        let (child, grandchild) = spawn_ready("sleep 600 & echo $!; exit 0");
        assert!(child.wait(SOON).unwrap().unwrap().success());
        wait_until_gone(&grandchild);
    }

    #[test]
    fn dropping_kills_and_reaps() {
        let (child, _) = spawn_ready("echo ready; exec sleep 600");
        let pid = child.pid();
        drop(child);
        assert!(!std::path::Path::new(&format!("/proc/{pid}")).exists());
    }

    #[test]
    fn the_child_outlives_the_thread_that_asked_for_it() {
        let asked = thread::spawn(|| spawn_ready("echo ready; exec sleep 600").0);
        let child = asked.join().unwrap();
        assert_eq!(child.wait(Duration::from_millis(200)).unwrap(), None);

        // the control: without a thread of its own the child dies with the thread that spawned it
        let spawned = thread::spawn(|| {
            let mut command = Command::new("sleep");
            command.arg("600");
            die_with_parent(&mut command);
            command.spawn().unwrap()
        });
        let mut child = spawned.join().unwrap();
        assert_eq!(child.wait().unwrap().signal(), Some(Signal::SIGKILL as i32));
    }

    #[test]
    fn the_child_dies_when_its_parent_is_killed() {
        let mut parent = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "supervised::tests::parent_of_a_sleeper"])
            .args(["--ignored", "--nocapture"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let lines = BufReader::new(parent.stdout.take().unwrap()).lines();
        let child = lines
            .map_while(Result::ok)
            .find_map(|line| line.split_once("sleeper ").map(|(_, pid)| pid.to_owned()))
            .unwrap();
        assert!(runs(&child));
        parent.kill().unwrap();
        parent.wait().unwrap();
        wait_until_gone(&child);
    }

    #[test]
    #[ignore = "the parent process of the_child_dies_when_its_parent_is_killed"]
    #[allow(clippy::print_stdout)]
    fn parent_of_a_sleeper() {
        let child = Supervised::spawn(shell("exec sleep 600")).unwrap();
        println!("sleeper {}", child.pid());
        io::stdin().read_to_end(&mut Vec::new()).unwrap();
    }
}
