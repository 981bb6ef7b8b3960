//! Things that a test cannot do without.
//!
//! A test that returns early looks like one that passed; asked for here, what was skipped is named
//! by `./test` at its end, and where everything must run a missing thing fails the test.
//!
//! Where something is missing, `SKIPPED <test>: <reason>` goes to standard error and, for runners
//! that hide what passing tests print, to the file named by `STILLPOINT_SKIP_LOG`. With
//! `STILLPOINT_REQUIRE=all` the test fails instead.
//!
//! ```no_run
//! # use stillpoint_test_support::require;
//! let Some(restic) = require::program("restic") else { return };
//! ```

use std::{env, fs::OpenOptions, io::Write, path::PathBuf, thread};

/// The program called `name` in a folder of `PATH`; `None` when the test is to be skipped.
///
/// # Panics
/// When there is none and `STILLPOINT_REQUIRE=all`.
#[must_use]
pub fn program(name: &str) -> Option<PathBuf> {
    let path = env::var_os("PATH").unwrap_or_default();
    let found = env::split_paths(&path).map(|folder| folder.join(name)).find(|program| program.is_file());
    found.or_else(|| skip(&format!("no program {name} in PATH")))
}

/// The value of the environment variable `name`; `None` when the test is to be skipped.
///
/// # Panics
/// When it is not set or empty and `STILLPOINT_REQUIRE=all`.
#[must_use]
pub fn env(name: &str) -> Option<String> {
    let value = env::var(name).ok().filter(|value| !value.is_empty());
    value.or_else(|| skip(&format!("{name} is not set")))
}

/// Nothing, where the test runs as root with `CAP_SYS_ADMIN`; `None` when it is to be skipped.
///
/// # Panics
/// When it does not and `STILLPOINT_REQUIRE=all`.
#[must_use]
pub fn root() -> Option<()> {
    /// The bit of `CAP_SYS_ADMIN`, which root lacks in most containers.
    const ADMIN: u32 = 21;
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let effective = status.lines().find_map(|line| line.strip_prefix("CapEff:"));
    let rights = effective.and_then(|digits| u64::from_str_radix(digits.trim(), 16).ok()).unwrap_or_default();
    (rights >> ADMIN & 1 == 1).then_some(()).or_else(|| skip("only root with CAP_SYS_ADMIN can do this"))
}

/// A kind of filesystem that can be made and mounted on a loop device here; `None` when the test is to be skipped.
///
/// # Panics
/// When it cannot and `STILLPOINT_REQUIRE=all`.
#[must_use]
pub fn loop_device(kind: &str) -> Option<&str> {
    root()?;
    program(&format!("mkfs.{kind}"))?;
    let control = std::path::Path::new("/dev/loop-control");
    if control.exists() { Some(kind) } else { skip("no loop devices") }
}

/// A generation of the cgroup freezer.
#[derive(Debug, Clone, Copy)]
pub enum Freezer {
    /// `freezer.state`, below the hierarchy of that controller.
    V1,
    /// `cgroup.freeze`, in the unified hierarchy.
    V2,
}

/// The root of a hierarchy that cgroups of a test can be made in; `None` when the test is to be skipped.
///
/// # Panics
/// When there is none and `STILLPOINT_REQUIRE=all`.
#[must_use]
pub fn cgroup(freezer: Freezer) -> Option<PathBuf> {
    root()?;
    let (roots, file): (&[&str], _) = match freezer {
        Freezer::V1 => (&["/sys/fs/cgroup/freezer"], "cgroup.clone_children"),
        Freezer::V2 => (&["/sys/fs/cgroup/unified", "/sys/fs/cgroup"], "cgroup.subtree_control"),
    };
    let found = roots.iter().map(PathBuf::from).find(|root| root.join(file).exists());
    found.or_else(|| skip(&format!("no cgroup freezer {freezer:?}")))
}

fn skip<T>(reason: &str) -> Option<T> {
    let thread = thread::current();
    let test = thread.name().unwrap_or("a test without a name");
    assert!(!everything_is_required(), "{test} cannot be skipped: {reason}");
    report(&format!("SKIPPED {test}: {reason}"));
    None
}

fn everything_is_required() -> bool {
    env::var("STILLPOINT_REQUIRE").is_ok_and(|value| value == "all")
}

/// One write per line: tests of many processes append to the same file.
fn report(line: &str) {
    let line = format!("{line}\n");
    let mut standard_error = std::io::stderr();
    let _ = standard_error.write_all(line.as_bytes());
    if let Some(log) = env::var_os("STILLPOINT_SKIP_LOG") {
        let opened = OpenOptions::new().append(true).create(true).open(log);
        if let Ok(mut log) = opened {
            let _ = log.write_all(line.as_bytes());
        }
    }
}

#[cfg(test)]
mod tests {
    use std::process::{Command, Output};

    use super::*;

    /// Runs the test `asks_for_what_is_missing` as a process of its own, with `variables`.
    fn ask(variables: &[(&str, &str)]) -> Output {
        Command::new(env::current_exe().unwrap())
            .args(["--exact", "require::tests::asks_for_what_is_missing"])
            .args(["--ignored", "--nocapture"])
            .env_remove("STILLPOINT_REQUIRE")
            .env_remove("STILLPOINT_SKIP_LOG")
            .envs(variables.iter().copied())
            .output()
            .unwrap()
    }

    const LINE: &str = "SKIPPED require::tests::asks_for_what_is_missing: \
                        no program no-such-program in PATH\n";

    #[test]
    #[ignore = "run by the tests below, in another environment"]
    fn asks_for_what_is_missing() {
        assert_eq!(program("no-such-program"), None);
    }

    #[test]
    fn a_skipped_test_says_so_with_its_name_and_reason() {
        let output = ask(&[]);
        assert!(output.status.success());
        assert!(String::from_utf8_lossy(&output.stderr).contains(LINE));
    }

    #[test]
    fn the_skip_log_names_every_skipped_test() {
        let log = env::temp_dir().join(format!("stillpoint-skip-log-{}", std::process::id()));
        let name = log.to_str().unwrap();
        ask(&[("STILLPOINT_SKIP_LOG", name)]);
        ask(&[("STILLPOINT_SKIP_LOG", name)]);
        let logged = std::fs::read_to_string(&log).unwrap();
        std::fs::remove_file(&log).unwrap();
        assert_eq!(logged, LINE.repeat(2));
    }

    #[test]
    fn where_everything_is_required_a_missing_program_fails_the_test() {
        let output = ask(&[("STILLPOINT_REQUIRE", "all")]);
        assert!(!output.status.success());
    }

    #[test]
    fn what_is_there_is_given() {
        assert_eq!(program("sh").unwrap().file_name().unwrap(), "sh");
        assert_eq!(super::env("PATH"), env::var("PATH").ok());
    }
}
