//! Presets against the real programs, which run on this host as their own users.

#![allow(clippy::unwrap_used)]

mod common;

use std::{
    fs,
    io::{BufRead, BufReader, Write},
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::Arc,
};

use common::{
    eventually, outcome, plan, pod, result,
    server::{Server, as_user, free_port, output_of, owned_folder, run},
};
use stillpoint_hooks::hook::{
    exec::local::Local,
    report::{Outcome, Report},
    run::{self, Limits, Running},
};
use stillpoint_test_support::require;
use tempfile::TempDir;

/// Starts the hooks of `annotations` with the variables that the image of a container would have.
fn start(annotations: &[(&str, &str)], variables: &[(&str, &str)]) -> Running {
    run::start(plan([&pod("db", annotations)]), Arc::new(Local::with(variables)), Limits::default(), None)
}

async fn whole_run(annotations: &[(&str, &str)], variables: &[(&str, &str)]) -> Report {
    let mut running = start(annotations, variables);
    running.ready().await;
    running.finish().await
}

/// Debian keeps them out of PATH.
fn postgres_programs() -> Option<PathBuf> {
    let versions = fs::read_dir("/usr/lib/postgresql").into_iter().flatten().flatten();
    let found = versions.map(|version| version.path().join("bin")).find(|bin| bin.join("initdb").is_file());
    found.or_else(|| Some(require::program("initdb")?.parent()?.to_owned()))
}

#[tokio::test]
async fn postgresql_writes_a_checkpoint() {
    let Some(bin) = postgres_programs() else { return };
    let folder = owned_folder("postgres");
    let (data, path) = (folder.path().join("data"), folder.path().to_str().unwrap().to_owned());
    run(as_user("postgres", &bin.join("initdb")).args(["-A", "trust", "-U", "postgres", "-D"]).arg(&data));
    let mut server = as_user("postgres", &bin.join("postgres"));
    let _server = Server::start(server.arg("-D").arg(&data).args(["-k", &path, "-c", "listen_addresses="]));
    let variables = [("PGHOST", &*path)];
    let ask = |sql: &str| output_of(Command::new("psql").envs(variables).args(["-XqAt", "-U", "postgres", "-c", sql]));
    eventually("the server answers", async || ask("SELECT 1").is_some()).await;
    let checkpoint = || ask("SELECT checkpoint_lsn FROM pg_control_checkpoint()").unwrap();
    ask("CREATE TABLE t AS SELECT generate_series(1, 10000)").unwrap();
    let before = checkpoint();
    assert_eq!(checkpoint(), before, "none comes by itself so soon");

    let report = whole_run(&[("preset", "postgresql")], &variables).await;
    assert_eq!(*outcome(&report, "postgresql"), Outcome::Succeeded, "{report:#?}");
    assert_ne!(checkpoint(), before);

    let report =
        whole_run(&[("preset", "postgresql")], &[("PGHOST", &path), ("POSTGRES_USER", "nobody-of-ours")]).await;
    assert!(outcome(&report, "postgresql").failed(), "one that is not let in: {report:#?}");
}

/// A MariaDB server with a table `t`.
struct MariaDb {
    home: String,
    _folder: TempDir,
    _server: Server,
}

impl MariaDb {
    async fn start() -> Option<Self> {
        let (server, install) = (require::program("mariadbd")?, require::program("mariadb-install-db")?);
        let folder = owned_folder("mysql");
        let path = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
        let (data, socket) = (format!("--datadir={}", path("data")), path("socket"));
        // a server that starts removes every server's temporary tables from the folder that it shares with them
        let temporary = format!("--tmpdir={}", folder.path().to_str().unwrap());
        let own = ["--no-defaults", "--user=mysql", &data, &temporary];
        let normal = "--auth-root-authentication-method=normal";
        run(Command::new(install).args(own).args([normal, "--skip-test-db"]));
        let mut command = Command::new(server);
        command.args(own).args(["--skip-networking", &format!("--socket={socket}")]);
        let server = Server::start(command.arg(format!("--pid-file={}", path("pid"))));
        let home = folder.path().to_str().unwrap().to_owned();
        // Debian's own settings name another socket, which a home's override
        fs::write(path(".my.cnf"), format!("[client]\nsocket={socket}\n")).unwrap();
        let database = Self { home, _folder: folder, _server: server };
        eventually("the server answers", async || database.ask("SELECT 1").is_some()).await;
        database.ask("CREATE DATABASE d; CREATE TABLE d.t (a INT) ENGINE=InnoDB").unwrap();
        Some(database)
    }

    fn variables(&self) -> [(&str, &str); 1] {
        [("HOME", &self.home)]
    }

    fn ask(&self, sql: &str) -> Option<String> {
        output_of(Command::new("mariadb").envs(self.variables()).args(["-N", "-B", "-e", sql]))
    }

    /// Whether a write gets through within a second.
    fn can_write(&self) -> bool {
        self.ask("SET lock_wait_timeout = 1; INSERT INTO d.t VALUES (1)").is_some()
    }

    async fn hold(&self) -> Running {
        assert!(self.can_write(), "before the hold");
        let mut running = start(&[("preset", "mariadb"), ("post.shell", "true")], &self.variables());
        let ready = running.ready().await;
        assert_eq!((ready.attempted(), ready.failed()), (1, 0), "{ready:#?}");
        assert!(!self.can_write(), "while it holds");
        running
    }
}

#[tokio::test]
async fn mariadb_lets_nobody_write_while_it_is_held() {
    let Some(database) = MariaDb::start().await else { return };
    let running = database.hold().await;
    let report = running.finish().await;
    assert_eq!(*outcome(&report, "mariadb"), Outcome::Succeeded, "{report:#?}");
    assert!(database.can_write(), "after the release");
}

#[tokio::test]
async fn a_commit_waits_while_mariadb_is_held() {
    let Some(database) = MariaDb::start().await else { return };
    let mut client = Command::new("mariadb");
    client.envs(database.variables()).args(["-N", "-B", "--unbuffered", "d"]);
    let mut client = client.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    let mut stdin = client.stdin.take().unwrap();
    let mut say = |sql: &str| stdin.write_all(sql.as_bytes()).unwrap();
    let mut answers = BufReader::new(client.stdout.take().unwrap()).lines().map(Result::unwrap);
    say("BEGIN; INSERT INTO t VALUES (7); SELECT 'open';\n");
    assert_eq!(answers.next().unwrap(), "open");
    let running = database.hold().await;
    say("COMMIT; SELECT 'committed';\n");
    let waits =
        "SELECT count(*) FROM information_schema.processlist WHERE state LIKE 'Waiting for%' AND info = 'COMMIT'";
    eventually("the commit waits", async || database.ask(waits).unwrap().trim() == "1").await;
    let rows = || database.ask("SELECT count(*) FROM d.t WHERE a = 7").unwrap().trim().to_owned();
    assert_eq!(rows(), "0");
    assert_eq!(*outcome(&running.finish().await, "mariadb"), Outcome::Succeeded);
    assert_eq!((answers.next().unwrap(), rows()), ("committed".to_owned(), "1".to_owned()));
    drop(stdin);
    assert!(client.wait().unwrap().success());
}

#[tokio::test]
async fn mariadbs_lock_ends_with_the_death_of_its_hold_which_is_known() {
    let Some(database) = MariaDb::start().await else { return };
    let mut running = database.hold().await;
    // the client of this server alone: its arguments and environment say so
    let pids: Vec<_> = fs::read_dir("/proc")
        .unwrap()
        .filter_map(|entry| entry.ok()?.file_name().into_string().ok())
        .filter(|pid| {
            let has = |file: &str, text: &str| {
                fs::read(Path::new("/proc").join(pid).join(file))
                    .is_ok_and(|bytes| String::from_utf8_lossy(&bytes).contains(text))
            };
            has("cmdline", "mariadb\0--user=root") && has("environ", &format!("HOME={}\0", database.home))
        })
        .collect();
    assert_eq!(pids.len(), 1, "{pids:?}");
    run(Command::new("kill").args(["-KILL", &pids[0]]));
    let broke = tokio::time::timeout(common::SOON, running.broke()).await.unwrap();
    assert!(broke.outcome.to_string().contains("ended before it was released"), "{broke:#?}");
    eventually("writes get through again", async || database.can_write()).await;
    let report = running.finish().await;
    assert_eq!((report.ruled_out().len(), outcome(&report, "post")), (1, &Outcome::Succeeded));
}

#[tokio::test]
async fn a_connection_that_the_server_ended_fails_mariadbs_hold() {
    let Some(database) = MariaDb::start().await else { return };
    let running = database.hold().await;
    let held = "SELECT id FROM information_schema.processlist WHERE command = 'Sleep'";
    let connection = database.ask(held).unwrap();
    database.ask(&format!("KILL {}", connection.trim())).unwrap();
    eventually("writes get through again", async || database.can_write()).await;
    let report = running.finish().await;
    assert!(outcome(&report, "mariadb").failed(), "it must not reconnect and unlock nothing: {report:#?}");
}

/// A Redis server in `folder`.
async fn redis(folder: &Path, settings: &[&str]) -> (Server, String) {
    let port = free_port().to_string();
    let server = Server::start(
        Command::new("redis-server").args(["--bind", "127.0.0.1", "--port", &port, "--dir"]).arg(folder).args(settings),
    );
    eventually("the server answers", async || {
        ask_redis(&port, &["PING"]).is_some_and(|answer| answer.contains("PONG") || answer.contains("NOAUTH"))
    })
    .await;
    (server, port)
}

fn ask_redis(port: &str, words: &[&str]) -> Option<String> {
    output_of(Command::new("redis-cli").args(["-p", port]).args(words))
}

#[tokio::test]
async fn redis_saves_everything_before_the_hook_ends() {
    let Some(_) = require::program("redis-server") else { return };
    let folder = TempDir::new().unwrap();
    let (_server, port) = redis(folder.path(), &["--save", ""]).await;
    ask_redis(&port, &["SET", "key", "value"]).unwrap();
    let file = folder.path().join("dump.rdb");
    assert!(!file.exists(), "nothing is saved by itself");
    let report = whole_run(&[("preset", "redis")], &[("REDIS_PORT", &port)]).await;
    assert_eq!((outcome(&report, "redis"), &*result(&report, "redis").stdout.text), (&Outcome::Succeeded, "saved\n"));

    let copy = TempDir::new().unwrap();
    fs::copy(file, copy.path().join("dump.rdb")).unwrap();
    let (_restored, port) = redis(copy.path(), &["--save", ""]).await;
    assert_eq!(ask_redis(&port, &["GET", "key"]).unwrap().trim(), "value");
}

#[tokio::test]
async fn redis_with_an_append_only_file_needs_no_save_and_a_password_is_asked_for() {
    let Some(_) = require::program("redis-server") else { return };
    let folder = TempDir::new().unwrap();
    let (_server, port) = redis(folder.path(), &["--save", "", "--appendonly", "yes", "--requirepass", "secret"]).await;
    let report = whole_run(&[("preset", "redis")], &[("REDIS_PORT", &port)]).await;
    assert!(outcome(&report, "redis").failed(), "without the password: {report:#?}");
    let report = whole_run(&[("preset", "redis")], &[("REDIS_PORT", &port), ("REDIS_PASSWORD", "secret")]).await;
    assert_eq!(*outcome(&report, "redis"), Outcome::Succeeded, "{report:#?}");
    assert_eq!(result(&report, "redis").stdout.text, "append-only file: nothing to save\n");
    assert!(!folder.path().join("dump.rdb").exists());
}

#[tokio::test]
async fn sqlites_file_is_whole_after_the_checkpoint_and_a_reader_in_the_way_is_a_failure() {
    let Some(sqlite) = require::program("sqlite3") else { return };
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("app.db");
    let path = path.to_str().unwrap();
    let ask = |path: &str, sql: &str| output_of(Command::new(&sqlite).args(["-batch", path, sql]));
    // an application that keeps the file open, and a reader that does not end
    let open = |statements: &str| {
        let mut child =
            Command::new(&sqlite).args(["-batch", path]).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let stdin = child.stdin.as_mut().unwrap();
        std::io::Write::write_all(stdin, format!("{statements}\nSELECT 'done';\n").as_bytes()).unwrap();
        let mut lines = std::io::BufRead::lines(std::io::BufReader::new(child.stdout.take().unwrap()));
        assert!(lines.any(|line| line.unwrap() == "done"));
        child
    };
    let mut application = open("PRAGMA journal_mode=WAL; CREATE TABLE t (a); INSERT INTO t VALUES (1), (2), (3);");
    let log = format!("{path}-wal");
    assert!(fs::metadata(&log).unwrap().len() > 0);
    let preset = [("preset", "sqlite"), ("preset.path", path)];
    let report = whole_run(&preset, &[]).await;
    assert_eq!(*outcome(&report, "sqlite"), Outcome::Succeeded, "{report:#?}");
    assert_eq!(fs::metadata(&log).unwrap().len(), 0);
    let copy = folder.path().join("copy.db");
    fs::copy(path, &copy).unwrap();
    assert_eq!(ask(copy.to_str().unwrap(), "SELECT count(*) FROM t").unwrap().trim(), "3");

    let mut reader = open("BEGIN; SELECT count(*) FROM t;");
    ask(path, "INSERT INTO t VALUES (4)").unwrap();
    let report = whole_run(&preset, &[]).await;
    assert!(result(&report, "sqlite").stderr.text.contains("in the way"), "{report:#?}");
    assert!(outcome(&report, "sqlite").failed());
    for child in [&mut application, &mut reader] {
        child.kill().unwrap();
        child.wait().unwrap();
    }
}

#[tokio::test]
async fn etcd_needs_no_hook() {
    assert_eq!(plan([&pod("etcd", &[("preset", "etcd")])]).hooks(), 0);
    let report = whole_run(&[("preset", "etcd")], &[]).await;
    assert_eq!(report, Report::default());
}
