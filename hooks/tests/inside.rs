//! Hooks in a container of this host, which is entered by a process of it.

#![allow(clippy::unwrap_used)]

mod common;

use std::{
    fs,
    io::{BufRead, BufReader},
    process::{Child, Command, Stdio},
    sync::Arc,
    time::Duration,
};

use common::{eventually, outcome, plan, pod, result};
use stillpoint_hooks::hook::{
    exec::local::Local,
    report::{Outcome, Report},
    run::{self, Limits, Running},
};
use stillpoint_test_support::require;

const GUARD: &str = env!("CARGO_BIN_EXE_stillpoint-guard");

/// Something like a container: a process with namespaces, a root, a user and rights of its own.
struct Container {
    outside: Child,
    process: u32,
}

impl Container {
    fn start() -> Option<Self> {
        require::root()?;
        let unshare = require::program("unshare")?;
        require::program("setpriv")?;
        // a private tmpfs is its root's /run, its first process is one of its namespace
        let script = r#"mount -t tmpfs none /run && echo of the container >/run/file && hostname inside && cd /run || exit 1
            export MARK=marked OURS=; exec setpriv --reuid 65534 --regid 65533 --groups 65532 --bounding-set -sys_admin,-sys_ptrace \
            --no-new-privs sh -c 'echo ready; while :; do sleep 1; done'"#;
        let mut command = Command::new(unshare);
        command.args([
            "--mount",
            "--uts",
            "--ipc",
            "--pid",
            "--fork",
            "--mount-proc",
            "--kill-child",
            "sh",
            "-c",
            script,
        ]);
        let mut outside = command.stdout(Stdio::piped()).spawn().unwrap();
        let ready = BufReader::new(outside.stdout.take().unwrap()).lines().next().unwrap().unwrap();
        assert_eq!(ready, "ready");
        let children = fs::read_to_string(format!("/proc/{0}/task/{0}/children", outside.id())).unwrap();
        Some(Self { process: children.trim().parse().unwrap(), outside })
    }

    fn start_hooks(&self, annotations: &[(&str, &str)]) -> Running {
        let local = Arc::new(Local::inside(GUARD, self.process));
        run::start(plan([&pod("inside", annotations)]), local, Limits::default(), None)
    }

    async fn run(&self, annotations: &[(&str, &str)]) -> Report {
        let mut running = self.start_hooks(annotations);
        running.ready().await;
        running.finish().await
    }

    /// The command lines in its process id namespace that contain a text.
    fn processes(&self, text: &str) -> Vec<String> {
        let namespace = |pid: &str| fs::read_link(format!("/proc/{pid}/ns/pid")).ok();
        let own = namespace(&self.process.to_string());
        let pids = fs::read_dir("/proc").unwrap().flatten().map(|entry| entry.file_name().into_string().unwrap());
        let inside = pids.filter(|pid| pid.parse::<u32>().is_ok() && namespace(pid) == own);
        let lines = inside.map(|pid| fs::read_to_string(format!("/proc/{pid}/cmdline")).unwrap_or_default());
        lines.filter(|line| line.contains(text)).collect()
    }
}

impl Drop for Container {
    fn drop(&mut self) {
        // the first process of its namespace takes all others along
        let process = self.process.to_string();
        common::server::run(Command::new("kill").args(["-KILL", &process]));
        let _ = self.outside.wait();
    }
}

#[tokio::test]
async fn a_command_sees_what_the_container_sees_and_may_what_it_may() {
    let Some(container) = Container::start() else { return };
    let script = "cat file; pwd; hostname; echo $MARK $HOME_OF_THE_NODE; id -u; id -g; id -G; grep -E 'CapBnd|NoNewPrivs' /proc/self/status; \
                  readlink /proc/self/ns/pid /proc/1/ns/pid | uniq | wc -l";
    let report = container.run(&[("pre.shell", script)]).await;
    assert_eq!(*outcome(&report, "pre"), Outcome::Succeeded, "{report:#?}");
    let lines: Vec<_> = result(&report, "pre").stdout.text.lines().map(str::to_owned).collect();
    assert_eq!(lines[..7], ["of the container", "/run", "inside", "marked", "65534", "65533", "65533 65532"]);
    let status = fs::read_to_string(format!("/proc/{}/status", container.process)).unwrap();
    let of_container = |name: &str| status.lines().find(|line| line.starts_with(name)).unwrap().to_owned();
    assert_eq!(lines[7..], [of_container("CapBnd"), of_container("NoNewPrivs"), "1".to_owned()]);
}

#[tokio::test]
async fn exit_codes_come_back_and_what_cannot_be_entered_is_named() {
    let Some(container) = Container::start() else { return };
    let report = container.run(&[("pre.shell", "exit 7"), ("post.command", "/no/such/program")]).await;
    assert_eq!(*outcome(&report, "pre"), Outcome::Failed { why: "exit code 7".to_owned() });
    let post = result(&report, "post");
    assert_eq!(post.outcome, Outcome::Failed { why: "exit code 125".to_owned() });
    assert!(post.stderr.text.contains("cannot start /no/such/program"), "{post:#?}");
    let process = container.process;
    drop(container);
    let local = Arc::new(Local::inside(GUARD, process));
    let mut running = run::start(plan([&pod("gone", &[("pre.shell", "true")])]), local, Limits::default(), None);
    let report = running.ready().await;
    let stderr = &result(&report, "pre").stderr.text;
    assert!(stderr.contains(&format!("cannot enter the container of process {process}: cannot read")), "{stderr}");
}

#[tokio::test]
async fn a_command_that_takes_too_long_is_ended_with_its_children() {
    let Some(container) = Container::start() else { return };
    let script = "trap 'echo asked to end' TERM; sleep 607 & wait; wait";
    let report = container.run(&[("pre.shell", script), ("pre.timeout", "1s")]).await;
    assert!(matches!(outcome(&report, "pre"), Outcome::TimedOut { .. }), "{report:#?}");
    assert_eq!(result(&report, "pre").stdout.text, "asked to end\n");
    eventually("its children are gone", async || container.processes("607").is_empty()).await;
}

#[tokio::test]
async fn a_hold_holds_and_dies_with_what_entered_for_it() {
    let Some(container) = Container::start() else { return };
    let hold = [("hold.shell", "echo ready; read line; echo told to $line")];
    let mut running = container.start_hooks(&hold);
    assert_eq!(running.ready().await.failed(), 0);
    let report = running.finish().await;
    assert_eq!(result(&report, "hold").stdout.text, "ready\ntold to release\n");

    let mut running = container.start_hooks(&hold);
    assert_eq!(running.ready().await.failed(), 0);
    assert_eq!(container.processes("read line").len(), 1);
    let children = fs::read_dir("/proc/self/task").unwrap().flatten();
    let children = children.map(|task| fs::read_to_string(task.path().join("children")).unwrap_or_default());
    let children = children.collect::<String>();
    let entered = children.split_whitespace().find(|pid| {
        fs::read_to_string(format!("/proc/{pid}/cmdline")).is_ok_and(|line| line.starts_with("stillpoint-enter"))
    });
    common::server::run(Command::new("kill").args(["-KILL", entered.unwrap()]));
    let broke = tokio::time::timeout(Duration::from_secs(20), running.broke()).await.unwrap();
    assert!(broke.outcome.failed());
    eventually("the command is gone", async || container.processes("read line").is_empty()).await;
    running.finish().await;
}
