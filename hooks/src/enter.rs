//! A command in the container of another process: our binary run again, which enters, starts it and waits for it.
//!
//! A process id namespace is entered only by children, so that somebody has to wait outside; and all of it must happen
//! before a second thread runs. What enters gives up every right that the container has not: whoever may write a pod's
//! annotations must not become the node's root.
//!
//! # Caveats
//! The container's seccomp filter and its label of a security module are not taken over, and neither are its cgroups: a
//! paused container does not stop its own hook.

use std::{
    ffi::OsString,
    fs::{self, File},
    io::{self, Write},
    os::unix::process::{CommandExt, ExitStatusExt},
    path::{Path, PathBuf},
    process::{Command, ExitCode},
};

use nix::{
    sched::{CloneFlags, setns},
    sys::{
        prctl,
        signal::{SigSet, Signal},
    },
    unistd::{Gid, Uid, setgroups, setresgid, setresuid},
};
use procfs::process::{Process, Status};
use rustix::{
    process::{chroot, fchdir},
    thread::{CapabilitySet, capability_is_in_bounding_set, remove_capability_from_bounding_set},
};

/// What makes this program enter.
pub(crate) const NAME: &str = "stillpoint-enter";
/// The exit code of a command that was not started.
const NOT_STARTED: u8 = 125;
/// No kernel has more capabilities.
const CAPABILITIES: u32 = 64;

/// Why a container cannot be entered.
#[derive(Debug, thiserror::Error)]
enum Error {
    #[error("which process, and which command?")]
    Usage,
    #[error("cannot read the process: {0}")]
    Process(#[from] procfs::ProcError),
    #[error("it has a user namespace of its own, which is not entered from here")]
    UserNamespace,
    #[error("cannot {what}: {source}")]
    Step { what: &'static str, source: io::Error },
    #[error("cannot start {}: {source}", program.display())]
    Start { program: PathBuf, source: io::Error },
}

/// The command that has `program` run `argv` in the container of the process `pid`.
pub(crate) fn command(program: &Path, pid: u32, argv: &[String]) -> Command {
    let mut command = Command::new(program);
    command.arg0(NAME).arg(pid.to_string()).args(argv);
    command
}

/// Enters and runs the command, to its end; its exit code is this process's.
pub(crate) fn serve(arguments: impl Iterator<Item = OsString>) -> ExitCode {
    let arguments: Vec<_> = arguments.collect();
    run(&arguments).unwrap_or_else(|error| {
        let pid = arguments.first().cloned().unwrap_or_default();
        // standard error is the hook's: whoever reads its report learns why
        let _ = writeln!(io::stderr(), "cannot enter the container of process {}: {error}", pid.display());
        ExitCode::from(NOT_STARTED)
    })
}

fn run(arguments: &[OsString]) -> Result<ExitCode, Error> {
    let [pid, program, arguments @ ..] = arguments else { return Err(Error::Usage) };
    let pid = pid.to_str().and_then(|pid| pid.parse().ok()).ok_or(Error::Usage)?;
    let process = Process::new(pid)?;
    let (status, environment) = (process.status()?, process.environ()?);
    enter(Path::new("/proc").join(pid.to_string()).as_path())?;
    assume(&status)?;
    let mut command = Command::new(program);
    command.args(arguments).env_clear().envs(environment);
    stillpoint_sys::killed_with_parent(&mut command);
    let mut child = command.spawn().map_err(|source| Error::Start { program: program.into(), source })?;
    // who asks the command to end asks its whole group; this process stays to tell how it ended. Not earlier: the
    // command would inherit it
    SigSet::from(Signal::SIGTERM).thread_block().map_err(step("block a signal"))?;
    let ended = child.wait().map_err(step("wait for the command"))?;
    let code = ended.code().unwrap_or_else(|| 128 + ended.signal().unwrap_or_default());
    Ok(ExitCode::from(u8::try_from(code).unwrap_or(u8::MAX)))
}

fn step<E: Into<io::Error>>(what: &'static str) -> impl Fn(E) -> Error {
    move |error| Error::Step { what, source: error.into() }
}

/// Joins the namespaces, the root and the working directory of a process.
fn enter(process: &Path) -> Result<(), Error> {
    let of =
        |process: &Path, name: &str| fs::read_link(process.join("ns").join(name)).map_err(step("read a namespace"));
    let own = Path::new("/proc/self");
    if of(process, "user")? != of(own, "user")? {
        return Err(Error::UserNamespace);
    }
    let open = |name: &str| File::open(process.join(name)).map_err(step("open the container"));
    let (root, folder) = (open("root")?, open("cwd")?);
    let mut namespaces = Vec::new();
    for (name, flag) in [
        ("cgroup", CloneFlags::CLONE_NEWCGROUP),
        ("ipc", CloneFlags::CLONE_NEWIPC),
        ("uts", CloneFlags::CLONE_NEWUTS),
        ("net", CloneFlags::CLONE_NEWNET),
        ("pid", CloneFlags::CLONE_NEWPID),
        ("mnt", CloneFlags::CLONE_NEWNS),
    ] {
        // one that is ours already need not be permitted
        if of(process, name)? != of(own, name)? {
            namespaces.push((open(&format!("ns/{name}"))?, flag));
        }
    }
    for (namespace, flag) in namespaces {
        setns(namespace, flag).map_err(step("join a namespace"))?;
    }
    fchdir(root).and_then(|()| chroot(".")).map_err(step("change the root"))?;
    fchdir(folder).map_err(step("change the working directory"))
}

/// Becomes the user that the process is, with no right that it has not.
fn assume(status: &Status) -> Result<(), Error> {
    let kept = status.capbnd.unwrap_or_default();
    for number in (0..CAPABILITIES).filter(|number| kept >> number & 1 == 0) {
        let capability = CapabilitySet::from_bits_retain(1 << number);
        if capability_is_in_bounding_set(capability).unwrap_or(false) {
            remove_capability_from_bounding_set(capability).map_err(step("give up a capability"))?;
        }
    }
    let groups: Vec<Gid> = status.groups.iter().map(|group| Gid::from_raw(*group)).collect();
    setgroups(&groups).map_err(step("change the groups"))?;
    let (uid, gid) = (Uid::from_raw(status.euid), Gid::from_raw(status.egid));
    setresgid(gid, gid, gid).map_err(step("change the group"))?;
    setresuid(uid, uid, uid).map_err(step("change the user"))?;
    if status.nonewprivs == Some(1) {
        prctl::set_no_new_privs().map_err(step("give up new privileges"))?;
    }
    Ok(())
}
