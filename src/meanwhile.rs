//! Runs a command while writers stand still, and says whether they did.
//!
//! What `freeze` and `pause` share. Whatever can fail without a stop is tried before it: the command is looked up and the
//! report's file opened first, because every millisecond in between is somebody's writer waiting.

use std::{
    collections::BTreeSet,
    env,
    ffi::OsString,
    fs::File,
    io::Write,
    os::unix::{fs::PermissionsExt, process::ExitStatusExt},
    path::{Path, PathBuf},
    process::ExitStatus,
    time::{Duration, Instant},
};

use anyhow::Context;
use clap::Args;
use rustix::process::{Pid, Signal, kill_process};
use serde::Serialize;
use stillpoint_hooks::{
    guard::{self, Config, Failure, Guard, Held, Kind, Outcome, Reason, Release, Released, Stop},
    strangers::Writers,
};
use tokio::process::{Child, Command};

use crate::{exit::Exit, interrupt::asked_to_end, output};

/// How long a freeze may take before the cgroups that may hold it up are paused.
const GRACE: Duration = Duration::from_secs(2);
/// How long writing back may take before the stop.
const SYNC: Duration = Duration::from_secs(60);
/// How long a command that is asked to end may take.
const END: Duration = Duration::from_secs(5);

/// The guard's flags.
#[derive(Debug, Args)]
#[command(next_help_heading = "Guard")]
pub(crate) struct GuardArgs {
    /// The folder that remembers what is stopped; on none of the filesystems that are
    #[arg(long, env = "STILLPOINT_JOURNAL", value_name = "DIR", default_value = stillpoint_hooks::DEFAULT_JOURNAL)]
    pub(crate) journal: PathBuf,
    /// Where the host's cgroups are mounted
    #[arg(long, value_name = "DIR", default_value = "/sys/fs/cgroup")]
    cgroup_root: PathBuf,
}

impl GuardArgs {
    /// How a guard is started.
    pub(crate) fn config(self) -> anyhow::Result<Config> {
        let Self { journal, cgroup_root } = self;
        // the guard works from the root directory
        let journal = std::path::absolute(journal).context("cannot make sense of --journal")?;
        Ok(Config { journal, cgroup_root, ..Config::default() })
    }
}

/// A command to run while something stands still.
#[derive(Debug, Args)]
pub(crate) struct Meanwhile {
    /// Where to write a report in JSON
    #[arg(long, value_name = "FILE")]
    report: Option<PathBuf>,
    /// What to run meanwhile
    #[arg(last = true, required = true)]
    command: Vec<OsString>,
    // last: its heading would go on
    #[command(flatten)]
    guard: GuardArgs,
}

/// The times of a stop that lasts for `max` at most.
pub(crate) fn times(max: Duration) -> Stop {
    Stop { max, grace: GRACE.min(max / 2), sync: SYNC, ..Stop::default() }
}

/// What the report's file says.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Report {
    /// Whether everything stood still from the stop until the command had ended.
    whole: bool,
    /// What could not be stopped, where nothing was.
    not_stopped: Vec<Failure>,
    release: Option<Release>,
    /// Writers of what was drained that were not paused.
    strangers: BTreeSet<String>,
    command: Option<Ran>,
}

/// How the command ended.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Ran {
    code: u8,
    ms: f64,
    /// Whether it still ran when the release was asked for by a signal.
    interrupted: bool,
}

impl Meanwhile {
    /// Stops, runs the command, releases, and reports.
    pub(crate) async fn run(self, mut stop: Stop) -> anyhow::Result<Exit> {
        let Self { guard, report, command } = self;
        let prepared = prepare(&mut stop, guard, report.as_deref(), &command);
        let (config, mut file) = match prepared {
            Ok(prepared) => prepared,
            Err(error) => {
                output::note(format_args!("stillpoint: nothing was stopped: {error:#}"));
                return Ok(Exit::NotRun);
            }
        };
        // outside of the window, and again at its end: a stranger may come and go
        let before = strangers(&stop).await?;
        let stopped = async { Guard::start(&config).await?.stop(&stop).await };
        let report = match stopped.await {
            Ok(held) => hold(held, &command, &stop, before).await?,
            Err(error) => not_stopped(error),
        };
        if let Some(file) = &mut file {
            serde_json::to_writer_pretty(&mut *file, &report)?;
            file.write_all(b"\n")?;
        }
        Ok(report.exit())
    }
}

impl Report {
    fn exit(&self) -> Exit {
        match &self.command {
            None => Exit::NotRun,
            Some(_) if !self.whole => Exit::Degraded,
            Some(ran) => Exit::Of(ran.code),
        }
    }
}

fn prepare(
    stop: &mut Stop,
    guard: GuardArgs,
    report: Option<&Path>,
    command: &[OsString],
) -> anyhow::Result<(Config, Option<File>)> {
    let program = command.first().context("there is no command")?;
    find(program)?;
    let mut file = None;
    if let Some(path) = report {
        file = Some(File::create(path).with_context(|| format!("cannot write the report {}", path.display()))?);
        stop.protect.push(std::path::absolute(path)?);
    }
    for path in stop.freeze.iter_mut().chain(&mut stop.pause).chain(&mut stop.drain).chain(&mut stop.rescue) {
        *path = std::path::absolute(&*path)?;
    }
    Ok((guard.config()?, file))
}

/// The program is there and can be executed, as far as can be told without doing it.
fn find(program: &OsString) -> anyhow::Result<()> {
    let is_program = |path: &Path| {
        path.metadata().is_ok_and(|metadata| metadata.is_file() && metadata.permissions().mode() & 0o111 != 0)
    };
    let found = if Path::new(program).components().count() > 1 {
        is_program(Path::new(program))
    } else {
        env::split_paths(&env::var_os("PATH").unwrap_or_default()).any(|folder| is_program(&folder.join(program)))
    };
    anyhow::ensure!(found, "there is no program {}", Path::new(program).display());
    Ok(())
}

fn not_stopped(error: guard::Error) -> Report {
    output::note(format_args!("stillpoint: {}; the command was not run", output::printable(&error.to_string())));
    let not_stopped = match error {
        guard::Error::NotStopped(failures) => failures,
        other => vec![Failure { name: "guard".to_owned(), reason: other.to_string() }],
    };
    Report { whole: false, not_stopped, release: None, strangers: BTreeSet::new(), command: None }
}

/// Who writes to what is drained, and is not paused.
async fn strangers(stop: &Stop) -> anyhow::Result<BTreeSet<String>> {
    let (volumes, cgroups) = (stop.drain.clone(), stop.pause.clone());
    let search = move || {
        let writers = Writers::look();
        let each = volumes.iter().filter_map(|volume| writers.strangers(volume, &cgroups).ok());
        each.flatten().map(|stranger| stranger.to_string()).collect()
    };
    Ok(tokio::task::spawn_blocking(search).await?)
}

async fn hold(mut held: Held, command: &[OsString], stop: &Stop, before: BTreeSet<String>) -> anyhow::Result<Report> {
    let began = Instant::now();
    // kept as values: an error must not leave before the release
    let ran = run_command(&mut held, command).await;
    let after = strangers(stop).await;
    let release = held.release().await;
    let ms = began.elapsed().as_secs_f64() * 1e3;
    let strangers = &before | &after?;
    let whole = release.whole && strangers.is_empty() && matches!(ran, Ok(Ended::Itself(_)));
    print(&release, &strangers, whole);
    let (code, interrupted) = match ran {
        Ok(Ended::Itself(status)) => (code(status), false),
        Ok(Ended::Interrupted(child)) => (end(child).await?, true),
        Err(error) => {
            output::note(format_args!("stillpoint: cannot run the command: {error}"));
            (126, false)
        }
    };
    let command = Some(Ran { code, ms, interrupted });
    Ok(Report { whole, not_stopped: Vec::new(), release: Some(release), strangers, command })
}

/// How a command ended, or that it did not.
enum Ended {
    Itself(ExitStatus),
    /// A signal asked for the release while it ran.
    Interrupted(Child),
}

async fn run_command(held: &mut Held, command: &[OsString]) -> anyhow::Result<Ended> {
    let (program, arguments) = command.split_first().context("there is no command")?;
    let mut child = Command::new(program).args(arguments).kill_on_drop(true).spawn()?;
    let mut told = false;
    loop {
        tokio::select! {
            status = child.wait() => return Ok(Ended::Itself(status?)),
            asked = asked_to_end() => {
                asked?;
                return Ok(Ended::Interrupted(child));
            }
            () = held.lost(), if !told => {
                told = true;
                output::note("stillpoint: the writers go on although the command still runs");
            }
        }
    }
}

/// Asks a command to end once the writers go on, and makes it.
async fn end(mut child: Child) -> anyhow::Result<u8> {
    let pid = child.id().and_then(|pid| Pid::from_raw(pid.cast_signed()));
    if let Some(pid) = pid {
        let _ = kill_process(pid, Signal::TERM);
    }
    let status = match tokio::time::timeout(END, child.wait()).await {
        Ok(status) => status?,
        Err(_) => {
            child.kill().await?;
            child.wait().await?
        }
    };
    Ok(code(status))
}

/// A command's exit code as shells give it.
fn code(status: ExitStatus) -> u8 {
    let code = status.code().or_else(|| status.signal().map(|signal| 128 + signal));
    code.and_then(|code| u8::try_from(code).ok()).unwrap_or(u8::MAX)
}

fn print(release: &Release, strangers: &BTreeSet<String>, whole: bool) {
    for target in &release.targets {
        output::note(output::printable(&line(target)));
    }
    for stranger in strangers {
        output::note(format_args!("not paused: {}", output::printable(stranger)));
    }
    if !whole {
        let told = release.targets.iter().any(|target| target.held != Outcome::Whole && target.kind != Kind::Drain);
        let why = match release.reason {
            Reason::Asked if told || !strangers.is_empty() => "see above".to_owned(),
            Reason::Asked => "the command did not run to its end".to_owned(),
            reason => reason.to_string(),
        };
        output::note(format_args!("stillpoint: the stop was not whole: {why}"));
    }
}

fn line(target: &Released) -> String {
    let Released { name, kind, held, stop_ms, release_ms, window_ms } = target;
    let (stop, release, done) = match kind {
        Kind::Freeze => ("freeze", "thaw", "frozen"),
        Kind::Pause | Kind::Rescue => ("pause", "resume", "paused"),
        Kind::Drain => return format!("{name}: drained"),
    };
    match held {
        Outcome::Whole => {
            format!("{name}: {done} for {window_ms:.1} ms ({stop} {stop_ms:.1} ms, {release} {release_ms:.1} ms)")
        }
        Outcome::ReleasedByAnother => format!("{name}: somebody else ended its {stop} before the {release}"),
        Outcome::NeverStopped => format!("{name}: was not {done}"),
        Outcome::StillFreezing => {
            format!("{name}: its freeze is held up by a writer; it is thawed the moment it completes")
        }
        Outcome::Failed(reason) => format!("{name}: the {release} failed: {reason}"),
    }
}

/// A duration of at least a millisecond, as hooks spell it.
pub(crate) fn duration(text: &str) -> Result<Duration, String> {
    let duration = stillpoint_hooks::hook::duration::parse(text).map_err(|error| error.to_string())?;
    if duration < Duration::from_millis(1) { Err("at least 1ms".to_owned()) } else { Ok(duration) }
}
