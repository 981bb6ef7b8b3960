//! The user's own checks: commands over restored volumes.
//!
//! Only the user knows what makes his data good: that a database opens, that a file is newer than a week. A command may
//! do to its copy of the volume what it likes, one after the other in the order they were given.

use std::{
    fmt,
    io::{self, PipeReader, Read},
    path::{Path, PathBuf},
    process::{Command, ExitStatus, Stdio},
    str::FromStr,
    sync::{Arc, Mutex, PoisonError, mpsc},
    time::{Duration, Instant},
};

use stillpoint_api::{Check, CheckKind};
use stillpoint_sys::Supervised;
use tokio_util::sync::CancellationToken;

use crate::findings::{Findings, counted};

/// What stands for the volume's directory in a command.
const PATH: &str = "{path}";
/// What a command's output is kept of: its end, where programs say what went wrong. Less than a finding takes.
const OUTPUT: usize = 1500;
/// Between two looks at whether a command has ended.
const POLL: Duration = Duration::from_millis(20);
/// How long a command that is asked to end may take.
const GRACE: Duration = Duration::from_secs(2);
/// How long what a command left running may keep its output open.
const OUTPUT_ENDS: Duration = Duration::from_millis(500);

/// A command over a restored volume; it passes if it ends with exit code 0.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UserCheck {
    /// The claim, as `namespace/name`.
    pub volume: String,
    /// What a shell runs in the volume's directory, `{path}` standing for that.
    pub command: String,
}

/// Not a check.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("write volume=NAMESPACE/CLAIM: COMMAND, such as 'volume=shop/data: test -s {{path}}/app.db'")]
pub struct BadCheck;

impl FromStr for UserCheck {
    type Err = BadCheck;

    fn from_str(text: &str) -> Result<Self, BadCheck> {
        let (volume, command) =
            text.trim().strip_prefix("volume=").and_then(|rest| rest.split_once(':')).ok_or(BadCheck)?;
        let (volume, command) = (volume.trim(), command.trim());
        match volume.split('/').collect::<Vec<_>>()[..] {
            [namespace, claim] if !namespace.is_empty() && !claim.is_empty() && !command.is_empty() => {
                Ok(Self { volume: volume.to_owned(), command: command.to_owned() })
            }
            _ => Err(BadCheck),
        }
    }
}

impl fmt::Display for UserCheck {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "volume {}: {}", self.volume, self.command)
    }
}

/// Whether a path can stand in a shell's command as it is.
pub(crate) fn is_plain(path: &Path) -> bool {
    let text = path.to_str();
    text.is_some_and(|text| text.chars().all(|c| c.is_ascii_alphanumeric() || "/._+-".contains(c)))
}

/// Runs checks over volumes, whose directories `place` knows. Blocks.
pub(crate) fn run(
    checks: &[UserCheck],
    place: impl Fn(&str) -> Option<PathBuf>,
    timeout: Duration,
    cancel: &CancellationToken,
) -> Check {
    let mut findings = Findings::default();
    for check in checks {
        if cancel.is_cancelled() {
            break;
        }
        let said = match place(&check.volume) {
            Some(folder) => one(check, &folder, timeout, cancel),
            None => Err("the backup holds no data of this volume that could be restored".to_owned()),
        };
        if let Err(message) = said {
            findings.add(check, message);
        }
    }
    let failed = findings.total();
    let commands = counted(checks.len() as u64, "command");
    let summary = if failed == 0 { format!("{commands} succeeded") } else { format!("{failed} of {commands} failed") };
    findings.judge(CheckKind::UserChecks, summary)
}

fn one(check: &UserCheck, folder: &Path, timeout: Duration, cancel: &CancellationToken) -> Result<(), String> {
    let (ended, output) = shell(&check.command, folder, timeout, cancel).map_err(|error| error.to_string())?;
    let happened = match ended {
        Some(status) if status.success() => return Ok(()),
        Some(status) => match status.code() {
            Some(code) => format!("it ended with exit code {code}"),
            None => format!("it was ended: {status}"),
        },
        None => format!("it did not end within {} s and was ended", timeout.as_secs_f64()),
    };
    Err(if output.is_empty() { happened } else { format!("{happened}: {output}") })
}

/// Runs a command to its end or to the deadline; its status, if it ended by itself, and the end of what it printed.
fn shell(
    command: &str,
    folder: &Path,
    timeout: Duration,
    cancel: &CancellationToken,
) -> io::Result<(Option<ExitStatus>, String)> {
    let (reader, writer) = io::pipe()?;
    let mut shell = Command::new("sh");
    shell.arg("-c").arg(command.replace(PATH, &folder.to_string_lossy())).current_dir(folder);
    shell.env("STILLPOINT_VOLUME", folder).stdin(Stdio::null()).stdout(writer.try_clone()?).stderr(writer);
    let output = Tail::of(reader);
    let running = Supervised::spawn(shell)?;
    let deadline = Instant::now() + timeout;
    let ended = loop {
        if let Some(status) = running.try_wait()? {
            break Some(status);
        }
        if Instant::now() >= deadline || cancel.is_cancelled() {
            running.terminate(GRACE)?;
            break None;
        }
        std::thread::sleep(POLL);
    };
    Ok((ended, output.text()))
}

/// The end of an output, read beside the program so that it never waits for us.
struct Tail {
    kept: Arc<Mutex<Vec<u8>>>,
    ended: mpsc::Receiver<()>,
}

impl Tail {
    fn of(mut output: PipeReader) -> Self {
        let kept = Arc::new(Mutex::new(Vec::new()));
        let (end, ended) = mpsc::channel();
        let keep = kept.clone();
        std::thread::spawn(move || {
            let mut part = [0; 4096];
            while let Ok(length @ 1..) = output.read(&mut part) {
                let mut kept = keep.lock().unwrap_or_else(PoisonError::into_inner);
                kept.extend_from_slice(&part[..length]);
                let excess = kept.len().saturating_sub(OUTPUT);
                kept.drain(..excess);
            }
            let _ = end.send(());
        });
        Self { kept, ended }
    }

    fn text(&self) -> String {
        // either way what there is by then is all that is wanted
        let _ = self.ended.recv_timeout(OUTPUT_ENDS);
        let kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        String::from_utf8_lossy(&kept).trim().to_owned()
    }
}

#[cfg(test)]
mod tests {
    use stillpoint_api::Judgement;

    use super::*;

    const SOON: Duration = Duration::from_secs(20);

    fn judged(command: &str, timeout: Duration) -> Check {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("file"), "content").unwrap();
        let check: UserCheck = format!("volume=shop/data: {command}").parse().unwrap();
        let place = |volume: &str| (volume == "shop/data").then(|| folder.path().to_owned());
        run(&[check], place, timeout, &CancellationToken::new())
    }

    #[test]
    fn a_check_names_a_claim_and_a_command() {
        let check: UserCheck = r#"volume=shop/data: sqlite3 {path}/a.db "pragma x: y""#.parse().unwrap();
        assert_eq!(
            (check.volume.as_str(), check.command.as_str()),
            ("shop/data", r#"sqlite3 {path}/a.db "pragma x: y""#)
        );
        for text in ["", "true", "volume=data: true", "volume=a/b/c: true", "volume=shop/data:", "volume=/data: true"] {
            assert_eq!(text.parse::<UserCheck>(), Err(BadCheck), "{text:?}");
        }
    }

    #[test]
    fn a_command_runs_in_its_volume_and_passes_by_its_exit_code() {
        for command in
            ["grep -q content file", "grep -q content {path}/file", "grep -q content $STILLPOINT_VOLUME/file"]
        {
            assert_eq!(judged(command, SOON).judgement, Judgement::Passed, "{command}");
        }
        let failed = judged("echo on the way; echo page 7 is bad >&2; exit 3", SOON);
        assert_eq!(failed.judgement, Judgement::Failed);
        assert_eq!(failed.findings[0].subject, "volume shop/data: echo on the way; echo page 7 is bad >&2; exit 3");
        assert_eq!(failed.findings[0].message, "it ended with exit code 3: on the way\npage 7 is bad");
    }

    #[test]
    fn a_command_that_does_not_end_is_ended_with_all_it_started() {
        let begun = Instant::now();
        let failed = judged("sleep 1000 & echo $!; trap '' TERM; sleep 1000", Duration::from_millis(300));
        assert!(begun.elapsed() < SOON);
        let message = &failed.findings[0].message;
        let (said, pid) = message.split_once(": ").unwrap();
        assert!(said.starts_with("it did not end within 0.3 s"), "{message}");
        let ended = || match std::fs::read_to_string(format!("/proc/{pid}/stat")) {
            // whoever adopts it may reap it late
            Ok(stat) => stat.contains(") Z "),
            Err(_) => true,
        };
        while !ended() {
            assert!(begun.elapsed() < SOON, "{pid} still runs");
            std::thread::sleep(POLL);
        }
    }

    #[test]
    fn of_a_long_output_the_end_is_kept() {
        let failed = judged("seq 1 100000; echo the end; exit 1", SOON);
        let message = &failed.findings[0].message;
        assert!(message.ends_with("100000\nthe end") && message.len() < OUTPUT + 100, "{message}");
    }

    #[test]
    fn a_volume_that_is_not_there_fails_its_check() {
        let check: UserCheck = "volume=shop/other: true".parse().unwrap();
        let failed = run(&[check], |_| None, SOON, &CancellationToken::new());
        assert_eq!(failed.judgement, Judgement::Failed);
        assert!(failed.findings[0].message.contains("holds no data of this volume"));
    }
}
