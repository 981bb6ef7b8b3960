//! The commands that look after a repository, as an operator types them.
//!
//! restic fills the repository, so no cluster is needed.

#![allow(clippy::unwrap_used)]

mod common;

use std::{
    fs,
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use common::shell::User;
use serde_json::json;
use stillpoint_test_support::{disk::Disk, require};

/// restic on the user's repository.
fn restic(user: &User, arguments: &[&str]) {
    let mut restic = Command::new("restic");
    restic.args(["--no-cache", "-q", "-r", &user.path("repository")]).args(arguments);
    let output = restic.env("RESTIC_PASSWORD", "secret").current_dir(user.path("")).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

/// A user whose repository holds the files `kept` and `doomed`, each backed up by its own name as tag.
fn user() -> User {
    let user = User::new();
    user.prints(0, &["repo", "init"]);
    for name in ["kept", "doomed"] {
        fs::write(user.path(name), format!("{name} ").repeat(100_000)).unwrap();
        restic(&user, &["backup", "--tag", name, name]);
    }
    user
}

#[test]
fn a_prune_prints_its_plan_asks_and_frees_what_was_forgotten() {
    let Some(_restic) = require::program("restic") else { return };
    let user = user();
    assert!(user.prints(0, &["repo", "stats"]).contains("snapshots:  2 (0 backups, 0 volumes, 0 parts, 2 others)"));
    assert!(user.prints(0, &["repo", "prune", "--dry-run"]).contains("nothing to do"));
    let doomed = fs::read_dir(user.path("repository/snapshots")).unwrap().count();
    restic(&user, &["forget", "--tag", "doomed", "--keep-tag", "kept", "--group-by", ""]);
    assert_eq!(fs::read_dir(user.path("repository/snapshots")).unwrap().count(), doomed - 1);

    let before = user.files("repository/data");
    user.is_refused(2, &["--yes", "--dry-run"], &["repo", "prune"]);
    let plan = user.reads(&["repo", "prune", "--dry-run", "-o", "json"]);
    assert_eq!((plan["plan"]["delete"]["count"].as_u64(), plan["done"].is_null()), (Some(2), true), "{plan}");
    assert_eq!(user.files("repository/data"), before, "a plan changes nothing");
    let unused = user.reads(&["repo", "stats", "-o", "json"])["unusedBytes"].as_u64().unwrap();
    assert!(unused > 0);
    let done = user.prints(0, &["repo", "prune", "--yes"]);
    assert!(done.contains("delete:") && done.contains("removed 2 packs"), "{done}");
    assert_eq!(user.reads(&["repo", "stats", "-o", "json"])["unusedBytes"], 0);
    assert!(user.prints(0, &["repo", "check", "--read-data"]).contains("no errors were found"));
    restic(&user, &["check", "--read-data"]);
}

#[test]
fn a_check_names_the_damage_the_files_it_reaches_and_what_to_do() {
    let Some(_restic) = require::program("restic") else { return };
    let user = user();
    let index = fs::read_dir(user.path("repository/index")).unwrap().next().unwrap().unwrap().path();
    fs::write(index.with_file_name("README"), "not an index").unwrap();
    assert!(user.prints(0, &["repo", "check"]).contains("hint: index/README"), "hints alone are no failure");
    fs::remove_file(&index).unwrap();
    let said = user.prints(1, &["repo", "check"]);
    for words in ["error: index: ", "is in no index", "needed by 1 snapshot", "rebuild-index", "1 error found"] {
        assert!(said.contains(words), "{words}: {said}");
    }
    user.is_refused(1, &["nothing was changed", "stillpoint repo check"], &["repo", "prune", "--yes"]);
    user.is_refused(1, &["stillpoint repo check"], &["repo", "stats"]);
}

#[test]
fn passwords_are_added_listed_changed_and_removed() {
    let user = User::new();
    user.prints(0, &["repo", "init"]);
    let passwords = [("first", "secret"), ("second", "two\n"), ("third", "three\nand a second line\n"), ("none", "\n")];
    for (name, password) in passwords {
        fs::write(user.path(name), password).unwrap();
    }
    let added = user.prints(0, &["repo", "key", "add", "--new-password-file", "second"]);
    assert!(added.starts_with("added key "), "{added}");
    user.is_refused(2, &["no first line"], &["repo", "key", "add", "--new-password-file", "none"]);

    let listed = user.reads(&["repo", "key", "list", "-o", "json"]);
    let [first, second] = &listed.as_array().unwrap()[..] else { panic!("{listed}") };
    assert_eq!([first, second].map(|key| key["inUse"].as_bool().unwrap()).iter().filter(|used| **used).count(), 1);
    let used = if first["inUse"] == true { first } else { second };
    let table = user.prints(0, &["repo", "key", "list"]);
    assert!(table.lines().count() == 3 && table.contains(&used["id"].as_str().unwrap()[..8]), "{table}");

    let as_second = user.with("STILLPOINT_PASSWORD_FILE", "second");
    let changed = as_second.reads(&["repo", "key", "passwd", "--new-password-file", "third", "-o", "json"]);
    as_second.is_refused(1, &["the password opens none of the 2 keys"], &["repo", "key", "list"]);
    let as_third = as_second.with("STILLPOINT_PASSWORD_FILE", "third");
    let own = changed["added"].as_str().unwrap();
    as_third.is_refused(1, &["is the one that opened"], &["repo", "key", "remove", own]);
    as_third.is_refused(1, &["no key begins with ffffffff"], &["repo", "key", "remove", "ffffffff"]);
    let removed = as_third.reads(&["repo", "key", "remove", &used["id"].as_str().unwrap()[..8], "-o", "json"]);
    assert_eq!(removed["removed"], used["id"]);
    assert_eq!(as_third.reads(&["repo", "key", "list", "-o", "json"])[0]["id"], own);
    let as_first = as_third.with("STILLPOINT_PASSWORD_FILE", "first");
    as_first.is_refused(1, &["the password opens none"], &["repo", "stats"]);
}

#[test]
fn unlock_removes_the_lock_of_a_dead_process_and_a_live_one_only_if_told() {
    let Some(_restic) = require::program("restic") else { return };
    let user = user();
    assert_eq!(user.prints(0, &["repo", "unlock"]), "there is no lock\n");
    let mut backup = Command::new("restic");
    backup.args(["--no-cache", "-q", "-r", &user.path("repository"), "backup", "--stdin"]);
    let locked = || fs::read_dir(user.path("repository/locks")).unwrap().count();
    let mut child = backup.env("RESTIC_PASSWORD", "secret").stdin(Stdio::piped()).spawn().unwrap();
    let deadline = Instant::now() + Duration::from_secs(60);
    while locked() == 0 {
        assert!(Instant::now() < deadline, "restic takes no lock");
        std::thread::yield_now();
    }
    let live = user.reads(&["repo", "unlock", "-o", "json"]);
    assert_eq!((&live["kept"][0]["pid"], &live["kept"][0]["state"]), (&json!(child.id()), &json!("live")), "{live}");
    user.is_refused(1, &["is locked by", &format!("pid {}", child.id())], &["repo", "prune", "--yes"]);
    child.kill().unwrap();
    child.wait().unwrap();
    let stale = user.prints(0, &["repo", "unlock"]);
    assert!(stale.starts_with("removed ") && stale.contains("its process has ended"), "{stale}");
    assert_eq!(locked(), 0);

    let garbage = format!("repository/locks/{}", "ab".repeat(32));
    fs::write(user.path(&garbage), "garbage").unwrap();
    assert!(user.prints(0, &["repo", "unlock"]).starts_with("kept    abababab  unreadable"));
    assert!(user.prints(0, &["repo", "unlock", "--remove-all"]).starts_with("removed abababab"));
    assert_eq!(locked(), 0);
}

#[test]
fn a_repository_that_cannot_be_written_is_read_without_a_lock() {
    let Some(disk) = Disk::tmpfs(16) else { return };
    let repository = disk.path().join("repository");
    let user = User::new().with("STILLPOINT_REPO", repository.to_str().unwrap());
    user.prints(0, &["repo", "init"]);
    fs::write(user.path("file"), "content").unwrap();
    user.prints(0, &["volume", "backup", "data", "--path", &user.path("file")]);
    disk.remount("ro");
    let restore = ["volume", "restore", "data", "--target", "target"];
    user.is_refused(1, &["no lock can be taken", "Read-only file system", "--no-lock"], &restore);
    user.prints(0, &[&restore[..], &["--no-lock"]].concat());
    assert_eq!(fs::read(user.path("target/file")).unwrap(), b"content");
    user.is_refused(1, &["--no-lock"], &["volume", "ls", "data"]);
    assert!(user.prints(0, &["volume", "ls", "data", "--no-lock"]).contains("file"));
    user.is_refused(1, &["Read-only file system"], &["repo", "check"]);
    user.prints(0, &["repo", "check", "--no-lock"]);
}
