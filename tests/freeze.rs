//! `stillpoint freeze`, `pause` and `thaw` as an operator runs them: what is printed, and with which exit code.
//!
//! The guard here is the very binary that is tested, run again.

#![allow(clippy::unwrap_used)]

use std::{
    fs,
    path::Path,
    process::{Command, Output},
};

use serde_json::Value;
use stillpoint_test_support::{loop_mount::LoopMount, require};
use tempfile::TempDir;

/// A mount to stop, a journal and a folder for the rest.
struct Operator {
    mount: LoopMount,
    folder: TempDir,
}

impl Operator {
    fn new() -> Option<Self> {
        let kind = require::loop_device("ext4")?;
        Some(Self { mount: LoopMount::new(kind), folder: tempfile::tempdir().unwrap() })
    }

    fn path(&self, name: &str) -> String {
        self.folder.path().join(name).to_str().unwrap().to_owned()
    }

    fn mounted(&self) -> String {
        self.mount.path().to_str().unwrap().to_owned()
    }

    /// Runs `stillpoint` with its journal; gives the exit code and what was said on both outputs.
    fn run(&self, arguments: &[&str]) -> (i32, String) {
        let mut command = Command::new(env!("CARGO_BIN_EXE_stillpoint"));
        command.args(arguments).env("STILLPOINT_JOURNAL", self.path("journal"));
        let Output { status, stdout, stderr } = command.output().unwrap();
        (status.code().unwrap(), String::from_utf8([stdout, stderr].concat()).unwrap())
    }

    fn freeze(&self, options: &[&str], command: &[&str]) -> (i32, String) {
        let mounted = self.mounted();
        self.run(&[&["freeze", &mounted], options, &["--"], command].concat())
    }

    fn report(&self) -> Value {
        serde_json::from_str(&fs::read_to_string(self.path("report")).unwrap()).unwrap()
    }
}

#[test]
fn a_command_runs_while_the_filesystem_is_frozen_and_its_exit_code_is_ours() {
    let Some(operator) = Operator::new() else { return };
    let report = operator.path("report");
    // it is frozen if it cannot be frozen once more
    let script = format!("fsfreeze -f {} 2>/dev/null && exit 1; exit 7", operator.mounted());
    let (code, said) = operator.freeze(&["--report", &report], &["sh", "-c", &script]);
    assert_eq!(code, 7, "{said}");
    assert!(said.contains(&format!("{}: frozen for ", operator.mounted())) && said.contains("thaw"), "{said}");
    let report = operator.report();
    assert_eq!((&report["whole"], &report["command"]["code"]), (&Value::Bool(true), &7.into()), "{report}");
    assert!(report["release"]["windowMs"].as_f64().unwrap() > 0.0, "{report}");
    fs::write(operator.mount.path().join("file"), "it is thawed").unwrap();
}

#[test]
fn a_stop_that_was_not_whole_ends_with_3_whatever_the_command_did() {
    let Some(operator) = Operator::new() else { return };
    let report = operator.path("report");
    let (code, said) = operator.freeze(&["--report", &report], &["fsfreeze", "-u", &operator.mounted()]);
    assert_eq!(code, 3, "{said}");
    assert!(said.contains("somebody else ended its freeze") && said.contains("the stop was not whole"), "{said}");
    assert_eq!(operator.report()["whole"], false);

    let (code, said) = operator.freeze(&["--max", "200ms"], &["sleep", "1"]);
    assert_eq!(code, 3, "{said}");
    assert!(said.contains("the writers go on although the command still runs"), "{said}");
    assert!(said.contains("not whole: the time was up"), "{said}");
}

#[test]
fn nothing_is_stopped_and_no_command_run_where_something_is_refused() {
    let Some(operator) = Operator::new() else { return };
    let (mounted, ran) = (operator.mounted(), operator.path("ran"));
    let command = ["--", "touch", ran.as_str()];
    for (arguments, reason) in [
        (vec!["freeze", "/etc"], "it is the root filesystem"),
        (vec!["freeze", mounted.as_str(), "/proc"], "proc cannot freeze"),
        (vec!["freeze", mounted.as_str(), "/no/such/folder"], "cannot open /no/such/folder"),
        (vec!["pause", "--cgroup", mounted.as_str()], "is not a cgroup that can be paused"),
    ] {
        let (code, said) = operator.run(&[&arguments[..], &command].concat());
        assert!(code == 125 && said.contains(reason), "{arguments:?}: {code} {said}");
        assert!(said.contains("the command was not run") && !Path::new(&ran).exists(), "{said}");
    }
    let (code, said) = operator.freeze(&[], &["no-such-program"]);
    assert!(code == 125 && said.contains("there is no program no-such-program"), "{said}");
    let (code, _) = operator.freeze(&["--max", "never"], &["true"]);
    assert_eq!(code, 2);
    // the control: what was refused beside others is free
    fs::write(operator.mount.path().join("file"), "it is not frozen").unwrap();
}

#[test]
fn thaw_says_what_it_found_and_may_be_run_again() {
    let Some(operator) = Operator::new() else { return };
    let mounted = operator.mounted();
    assert!(Command::new("fsfreeze").args(["-f", &mounted]).status().unwrap().success());
    let (code, said) = operator.run(&["thaw", &mounted]);
    assert!(code == 0 && said.contains("filesystem") && said.contains("thawed"), "{said}");
    let (code, said) = operator.run(&["thaw", &mounted]);
    assert!(code == 0 && said.contains("was not stopped"), "{said}");
    assert_eq!(operator.run(&["thaw", "--all"]), (0, "nothing is stopped\n".to_owned()));
    assert_eq!(operator.run(&["thaw", "--all", "-o", "json"]).1.trim(), "[]");
    assert_eq!(operator.run(&["thaw"]).0, 2);
}

#[test]
fn thaw_all_ends_a_stop_under_way_which_is_told() {
    let Some(operator) = Operator::new() else { return };
    let journal = operator.path("journal");
    let script = format!("'{}' thaw --all --journal {journal}", env!("CARGO_BIN_EXE_stillpoint"));
    let (code, said) = operator.freeze(&[], &["sh", "-c", &script]);
    assert!(code == 3 && said.contains("released by its guard"), "{said}");
    assert!(said.contains("not whole: the guard was asked to end"), "{said}");
}

#[test]
fn a_command_runs_while_a_cgroup_is_paused() {
    let Some(operator) = Operator::new() else { return };
    let Some(root) = require::cgroup(require::Freezer::V2) else { return };
    let group = root.join(format!("stillpoint-test-{}-cli", std::process::id()));
    fs::create_dir(&group).unwrap();
    let (name, mounted) = (group.to_str().unwrap(), operator.mounted());
    let events = group.join("cgroup.events");
    let grep = ["--", "grep", "-q", "frozen 1", events.to_str().unwrap()];
    let (code, said) = operator.run(&[&["pause", "--cgroup", name, "--drain", &mounted][..], &grep].concat());
    let afterwards = fs::read_to_string(&events).unwrap();
    let _stranger = fs::File::create(operator.mount.path().join("open")).unwrap();
    let with_stranger = operator.run(&["pause", "--cgroup", name, "--drain", &mounted, "--", "true"]);
    fs::remove_dir(&group).unwrap();
    assert_eq!(code, 0, "{said}");
    assert!(said.contains(&format!("{name}: paused for")) && said.contains(&format!("{mounted}: drained")), "{said}");
    assert!(afterwards.contains("frozen 0"), "{afterwards}");
    assert!(with_stranger.0 == 3 && with_stranger.1.contains("has /open open for writing"), "{with_stranger:?}");
}
