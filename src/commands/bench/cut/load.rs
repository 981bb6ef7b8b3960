//! Who writes to the first volume while it is cut: pgbench where PostgreSQL is installed, else a shell.
//!
//! All of them are in one cgroup, as the processes of a pod are; it is what a pause stops, and what ends them.

use std::{
    fs, io,
    path::{Path, PathBuf},
    process::Stdio,
    time::{Duration, Instant},
};

use anyhow::{Context, bail, ensure};
use rustix::process::{Pid, Signal, kill_process};
use tokio::process::{Child, Command};

/// How long a database may take to answer.
const STARTS: Duration = Duration::from_secs(60);
/// How long processes may take to end.
const ENDS: Duration = Duration::from_secs(30);
const POLL: Duration = Duration::from_millis(50);
/// Writes, syncs and replaces, for as long as it is let.
const SHELL: &str = r#"n=0; while :; do n=$((n + 1)); echo $n >load.$((n % 100)); sync load.$((n % 100)); done"#;
/// `$1` the programs' folder, `$2` the data's, which is the socket's too.
const POSTGRES: &str = r#"set -e
"$1/initdb" -A trust -U postgres -D "$2/data" >/dev/null
exec "$1/postgres" -D "$2/data" -k "$2" -c listen_addresses= 2>"$2/log""#;

/// A cgroup of the freezer, whose processes end with it.
pub(super) struct Cgroup(PathBuf);

impl Cgroup {
    pub(super) fn make() -> anyhow::Result<Self> {
        let root = Path::new("/sys/fs/cgroup");
        let [v1, hybrid] = ["freezer", "unified"].map(|name| root.join(name));
        let root = [v1, hybrid, root.to_owned()].into_iter().find(|root| root.join("cgroup.procs").exists());
        let root = root.context("no cgroup hierarchy that can pause is mounted at /sys/fs/cgroup")?;
        let folder = root.join(format!("stillpoint-bench-{}", std::process::id()));
        fs::create_dir(&folder).with_context(|| format!("cannot make the cgroup {}", folder.display()))?;
        Ok(Self(folder))
    }

    pub(super) fn path(&self) -> &Path {
        &self.0
    }

    fn processes(&self) -> Vec<Pid> {
        let processes = fs::read_to_string(self.0.join("cgroup.procs")).unwrap_or_default();
        processes.lines().filter_map(|pid| Pid::from_raw(pid.parse().ok()?)).collect()
    }

    /// A shell's script in the cgroup.
    fn shell(&self, script: &str, arguments: &[&Path]) -> io::Result<Child> {
        let enter = format!("echo $$ >\"$0\" && {script}");
        let mut command = Command::new("sh");
        command.arg("-c").arg(enter).arg(self.0.join("cgroup.procs")).args(arguments);
        command.stdin(Stdio::null()).stdout(Stdio::null()).kill_on_drop(true).spawn()
    }
}

impl Drop for Cgroup {
    fn drop(&mut self) {
        let deadline = Instant::now() + ENDS;
        while fs::remove_dir(&self.0).is_err() && Instant::now() < deadline {
            for process in self.processes() {
                let _ = kill_process(process, Signal::KILL);
            }
            std::thread::sleep(POLL);
        }
    }
}

/// Processes at work.
pub(super) struct Load<'a> {
    cgroup: &'a Cgroup,
    words: &'static str,
    children: Vec<Child>,
    folder: Option<PathBuf>,
}

impl<'a> Load<'a> {
    /// Nobody writes.
    pub(super) fn idle(cgroup: &'a Cgroup) -> anyhow::Result<Self> {
        let children = vec![cgroup.shell("exec sleep 1000000", &[])?];
        Ok(Self { cgroup, words: "idle", children, folder: None })
    }

    /// Starts to write to a directory.
    pub(super) async fn start(directory: &Path, cgroup: &'a Cgroup) -> anyhow::Result<Self> {
        let folder = directory.join("load");
        tokio::fs::create_dir(&folder).await?;
        let mut load = Self { cgroup, words: "shell", children: Vec::new(), folder: Some(folder.clone()) };
        match programs() {
            None => load.children.push(cgroup.shell(&format!("cd \"$1\" && {SHELL}"), &[&folder])?),
            Some(programs) => {
                load.words = "pgbench";
                let owned = Command::new("chown").arg("postgres").arg(&folder).status().await?;
                ensure!(owned.success(), "chown ended with {owned}");
                // the folder may lie below one that only root may enter
                let as_postgres = "cd \"$2\" && exec setpriv --reuid postgres --regid postgres --clear-groups \
                                   --inh-caps +dac_read_search --ambient-caps +dac_read_search sh -c";
                let script = format!("{as_postgres} '{POSTGRES}' sh \"$1\" \"$2\"");
                load.children.push(cgroup.shell(&script, &[&programs, &folder])?);
                load.answers(&programs, &folder).await?;
                let pgbench = "exec \"$1/pgbench\" -U postgres -h \"$2\" -c 4 -T 1000000 postgres 2>/dev/null";
                load.children.push(cgroup.shell(pgbench, &[&programs, &folder])?);
            }
        }
        Ok(load)
    }

    /// Waits for the database, and fills it.
    async fn answers(&mut self, programs: &Path, folder: &Path) -> anyhow::Result<()> {
        let deadline = Instant::now() + STARTS;
        loop {
            let mut fill = Command::new(programs.join("pgbench"));
            fill.args(["-i", "-q", "-s", "5", "-U", "postgres", "-h"]).arg(folder).arg("postgres");
            let fill = fill.stdin(Stdio::null()).kill_on_drop(true).output().await?;
            if fill.status.success() {
                return Ok(());
            }
            self.goes_on()?;
            if Instant::now() >= deadline {
                bail!("PostgreSQL does not answer: {}", String::from_utf8_lossy(&fill.stderr));
            }
            tokio::time::sleep(POLL).await;
        }
    }

    pub(super) fn words(&self) -> &'static str {
        self.words
    }

    /// Whether all of them still run.
    pub(super) fn goes_on(&mut self) -> anyhow::Result<()> {
        for child in &mut self.children {
            let ended = child.try_wait()?;
            ensure!(ended.is_none(), "the load ended by itself: {ended:?}");
        }
        Ok(())
    }

    /// Ends them and removes what they wrote.
    pub(super) async fn end(self) -> anyhow::Result<()> {
        let deadline = Instant::now() + ENDS;
        loop {
            let processes = self.cgroup.processes();
            if processes.is_empty() {
                break;
            }
            for process in processes {
                // it may have ended meanwhile
                let _ = kill_process(process, Signal::KILL);
            }
            ensure!(Instant::now() < deadline, "the load does not end");
            tokio::time::sleep(POLL).await;
        }
        if let Some(folder) = self.folder {
            tokio::fs::remove_dir_all(folder).await?;
        }
        Ok(())
    }
}

/// Where PostgreSQL's programs are; Debian keeps them out of PATH.
fn programs() -> Option<PathBuf> {
    let versions = fs::read_dir("/usr/lib/postgresql").into_iter().flatten().flatten();
    versions.map(|version| version.path().join("bin")).find(|bin| bin.join("pgbench").is_file())
}
