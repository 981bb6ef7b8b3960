//! The commands that look after a repository, as an operator types them.
//!
//! restic fills the repository, so no cluster is needed.

#![allow(clippy::unwrap_used)]

mod common;

use std::{fs, process::Command};

use common::shell::User;
use stillpoint_test_support::require;

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
