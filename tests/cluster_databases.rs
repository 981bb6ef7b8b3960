//! Databases that are written to while the installed agent backs them up: every commit that was acknowledged before the
//! stop is in the restored copy, none that was begun after the release is, and the database starts on it.
//!
//! Their processes are in the cgroup of a pod that mounts the volume, so that they stand still as a container's would.

#![allow(clippy::unwrap_used)]

mod common;

use std::{
    fs,
    io::{BufRead, BufReader},
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::{Arc, Mutex},
    time::Duration,
};

use common::{
    agents::with_agents,
    cluster::eventually,
    in_pod::InPod,
    volumes::{IDLE, back_up, claim, pod},
};
use jiff::Timestamp;
use serde_json::{Value, json};
use stillpoint_agent::{VolumesRequest, Way};
use stillpoint_api::{Level, Method, Window};
use stillpoint_test_support::{loop_mount::LoopMount, require};

/// Backups of one test; STILLPOINT_TEST_CUTS for more.
const CUTS: u32 = 2;
/// What one of them and its verification may take on a loaded machine.
const BACKUP: Duration = Duration::from_secs(60);
const WRITER: &str = include_str!("databases/writer.py");
/// Beside the commits that are counted; no faster, so that a debug build's window keeps to its budget.
const PGBENCH: [&str; 10] = ["-n", "-c", "2", "-R", "100", "-T", "1000", "-U", "postgres", "-h"];
/// PostgreSQL does not run as root, and the volume lies in a folder that only root may enter.
const AS_POSTGRES: [&str; 10] = [
    "setpriv",
    "--reuid",
    "postgres",
    "--regid",
    "postgres",
    "--clear-groups",
    "--inh-caps",
    "+dac_read_search",
    "--ambient-caps",
    "+dac_read_search",
];

/// Debian keeps them out of PATH.
fn postgres_programs() -> Option<PathBuf> {
    let versions = fs::read_dir("/usr/lib/postgresql").into_iter().flatten().flatten();
    let found = versions.map(|version| version.path().join("bin")).find(|bin| bin.join("initdb").is_file());
    found.or_else(|| Some(require::program("initdb")?.parent()?.to_owned()))
}

/// A commit, and when it was begun and acknowledged.
#[derive(Debug, Clone, Copy)]
struct Commit {
    n: u64,
    begun: f64,
    acknowledged: f64,
}

impl InPod {
    /// Starts to commit, and gives what is committed as it grows.
    fn commits(&mut self, kind: &str, folder: &Path) -> Arc<Mutex<Vec<Commit>>> {
        let mut writer = self.command(&["python3", "-c", WRITER, kind, folder.to_str().unwrap()]);
        let output = self.start(writer.stdout(Stdio::piped())).stdout.take().unwrap();
        let commits = Arc::new(Mutex::new(Vec::new()));
        let seen = commits.clone();
        std::thread::spawn(move || {
            for line in BufReader::new(output).lines().map_while(Result::ok) {
                let [n, begun, acknowledged] = line.split(' ').collect::<Vec<_>>()[..] else { return };
                let time = |text: &str| text.parse::<f64>().unwrap();
                let commit = Commit { n: n.parse().unwrap(), begun: time(begun), acknowledged: time(acknowledged) };
                seen.lock().unwrap().push(commit);
            }
        });
        commits
    }

    async fn postgres(&mut self, bin: &Path, folder: &Path) -> Arc<Mutex<Vec<Commit>>> {
        fs::create_dir(folder).unwrap();
        run(Command::new("chown").arg("postgres").arg(folder));
        let (data, socket) = (folder.join("data"), folder.to_str().unwrap());
        let program = |name: &str| bin.join(name).display().to_string();
        let mut initdb = Command::new(AS_POSTGRES[0]);
        initdb.args(&AS_POSTGRES[1..]).arg(bin.join("initdb")).args(["-A", "trust", "-U", "postgres"]);
        run(initdb.args(["--wal-segsize", "1", "-D"]).arg(&data).current_dir(folder));
        let server = program("postgres");
        let settings = ["-k", socket, "-c", "listen_addresses=", "-c", "max_wal_size=32MB", "-c", "min_wal_size=2MB"];
        let arguments = [&AS_POSTGRES[..], &[&server, "-D", data.to_str().unwrap()], &settings].concat();
        let log = fs::File::create(folder.join("log")).unwrap();
        let mut server = self.command(&arguments);
        self.start(server.current_dir(folder).stderr(log));
        let fill =
            || Command::new(program("pgbench")).args(["-i", "-q", "-U", "postgres", "-h", socket, "postgres"]).output();
        eventually("PostgreSQL answers", async || fill().unwrap().status.success()).await;
        let pgbench = program("pgbench");
        let mut pgbench = self.command(&[&[&*pgbench], &PGBENCH[..], &[socket, "postgres"]].concat());
        self.start(pgbench.stdout(Stdio::null()).stderr(Stdio::null()));
        self.commits("postgres", folder)
    }
}

fn run(command: &mut Command) {
    let output = command.stdin(Stdio::null()).output().unwrap();
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
}

/// Backs a database up while it commits, and looks at what a verify finds in each copy by a check; `check` makes the
/// check's command of where the copy is and where to write what was committed.
async fn holds_what_was_committed(
    kind: &str,
    method: Method,
    start: impl AsyncFnOnce(&mut InPod, &Path) -> Arc<Mutex<Vec<Commit>>>,
    check: impl Fn(&str, &str) -> String,
) {
    let Some(kind) = require::loop_device(kind) else { return };
    with_agents(async |installed| {
        let cuts = std::env::var("STILLPOINT_TEST_CUTS").ok().and_then(|cuts| cuts.parse().ok()).unwrap_or(CUTS);
        let (real, user, repository) = (&installed.real, &installed.user, installed.repository().await);
        let a = LoopMount::lasting(kind, BACKUP * cuts);
        claim(real, "a", &a.path()).await;
        pod(real, "database", &["a"], IDLE, &[]).await;
        let mut database = InPod::new(real, "database").await;
        let commits = start(&mut database, &a.path().join("database")).await;
        let count = || commits.lock().unwrap().len();
        for cut in 0..cuts {
            let (name, before) = (format!("backup-{cut}"), count());
            eventually("the database commits", async || count() > before + 20).await;
            let volumes = installed.volumes(&real.client, Way::Direct, None);
            let volumes =
                VolumesRequest { method: Some(method.to_string()), budget: Duration::from_secs(5), ..volumes };
            let manifest = back_up(real, &repository, &name, volumes).await.unwrap().manifest;
            let held = manifest.volumes[0].data.held();
            assert!(held.is_some_and(|held| held.method == method && held.level == Level::Filesystem), "{manifest:?}");
            let after = count();
            eventually("the database goes on", async || count() > after + 5).await;

            let found = user.path("found");
            let command = format!("volume={}/a: {}", real.namespace, check("{path}/database", &found));
            let verified = user.runs(&["verify", &name, "-o", "json", "--no-evidence", "--check", &command]);
            let verdict: Value = serde_json::from_slice(&verified.get_output().stdout).unwrap();
            let checked = verdict["checks"].as_array().unwrap().iter().find(|check| check["kind"] == "userChecks");
            assert_eq!(checked.map(|check| &check["judgement"]), Some(&json!("passed")), "{verdict}");
            let found = fs::read_to_string(&found).unwrap();
            let found: Vec<u64> = found.lines().map(|line| line.parse().unwrap()).collect();
            judge(&commits.lock().unwrap(), &found, manifest.cut.window.unwrap());
        }
    })
    .await;
}

fn judge(commits: &[Commit], found: &[u64], window: Window) {
    let seconds = |time: Timestamp| time.as_nanosecond() as f64 / 1e9;
    let (from, to) = (seconds(window.from), seconds(window.to));
    assert!(found.iter().copied().eq(1..=found.len() as u64), "a commit is missing between others: {found:?}");
    let last = found.len() as u64;
    let lost: Vec<_> = commits.iter().filter(|commit| commit.acknowledged < from && commit.n > last).collect();
    assert!(lost.is_empty(), "acknowledged before {from} and not there: {lost:?}");
    let early: Vec<_> = commits.iter().filter(|commit| commit.begun > to && commit.n <= last).collect();
    assert!(early.is_empty(), "begun after {to} and there: {early:?}");
    let [before, after] = [commits.iter().any(|c| c.acknowledged < from), commits.iter().any(|c| c.begun > to)];
    assert!(before && after, "nothing was committed before or after the window");
}

async fn postgres(kind: &str, method: Method) {
    let Some(bin) = postgres_programs() else { return };
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/databases/postgres.sh");
    let check = |copy: &str, found: &str| format!("sh {script} {} {copy} {found}", bin.display());
    let start = async |database: &mut InPod, folder: &Path| database.postgres(&bin, folder).await;
    holds_what_was_committed(kind, method, start, check).await;
}

async fn sqlite(kind: &str, method: Method) {
    let (Some(_), Some(_)) = (require::program("sqlite3"), require::program("python3")) else { return };
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/databases/sqlite.sh");
    let check = |copy: &str, found: &str| format!("sh {script} {copy} {found}");
    let start = async |database: &mut InPod, folder: &Path| {
        fs::create_dir(folder).unwrap();
        database.commits("sqlite", folder)
    };
    holds_what_was_committed(kind, method, start, check).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn postgresql_that_is_frozen_holds_what_was_committed() {
    postgres("ext4", Method::Precopy).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn postgresql_that_is_paused_holds_what_was_committed() {
    postgres("xfs", Method::Reflink).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn sqlite_that_is_frozen_holds_what_was_committed() {
    sqlite("ext4", Method::Precopy).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn sqlite_that_is_paused_holds_what_was_committed() {
    sqlite("xfs", Method::Reflink).await;
}
