//! `stillpoint volume`: what a user types and is answered.

#![allow(clippy::unwrap_used)]

mod common;

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use common::shell::User;
use serde_json::json;
use stillpoint_test_support::require;

/// A user whose repository holds what restic backs up as the volume `data`, from a folder of the home.
fn user() -> User {
    let user = User::new();
    user.prints(0, &["repo", "init"]);
    fs::create_dir(user.path("source")).unwrap();
    user
}

fn back_up(user: &User, more: &[&str]) {
    let (repository, source) = (user.path("repository"), user.path("source"));
    let arguments = ["--no-cache", "-q", "-r", &repository, "backup", "--tag", "stillpoint-volume", "--tag", "data"];
    let mut restic = Command::new("restic");
    restic.args(arguments).args(more).arg(source).env("RESTIC_PASSWORD", "secret");
    assert!(restic.status().unwrap().success());
}

#[test]
fn a_volume_is_listed_compared_and_restored() {
    let Some(_restic) = require::program("restic") else { return };
    let user = user();
    let source = PathBuf::from(user.path("source"));
    assert!(user.prints(0, &["volume", "get"]).starts_with("no volume backups of host"));
    fs::create_dir(source.join("sub")).unwrap();
    fs::write(source.join("sub/file"), b"first").unwrap();
    fs::write(source.join("gone"), b"").unwrap();
    back_up(&user, &[]);
    fs::write(source.join("sub/file"), b"second").unwrap();
    fs::remove_file(source.join("gone")).unwrap();
    fs::write(source.join("new"), b"").unwrap();
    back_up(&user, &[]);
    back_up(&user, &["--host", "elsewhere"]);

    let listed = user.reads(&["volume", "get", "data", "-o", "json"]);
    assert_eq!((listed.as_array().unwrap().len(), &listed[0]["paths"]), (2, &json!([user.path("source")])));
    assert_eq!(user.prints(0, &["volume", "get", "--all-hosts"]).lines().count(), 4);
    let first = listed[0]["snapshot"].as_str().unwrap();
    assert_eq!(user.prints(0, &["volume", "ls", "data"]).lines().count(), 2);
    let long = user.prints(0, &["volume", "ls", "data", "sub", "-l"]);
    assert!(long.starts_with("-rw-") && long.trim_end().ends_with("/source/sub/file"), "{long}");
    let differs = user.prints(0, &["volume", "diff", "data"]);
    for line in ["- gone", "+ new", "~ sub/file   (content, 5 B became 6 B)"] {
        assert!(differs.lines().any(|found| found == line), "{differs}");
    }

    let restored = user.prints(0, &["volume", "restore", "data", "--target", "new", "--verify"]);
    assert!(restored.contains("read back: 2 files"), "{restored}");
    assert_eq!(fs::read(user.path("new/sub/file")).unwrap(), b"second");
    let part = ["volume", "restore", "data", "--snapshot", first, "--path", "sub", "--target", "part"];
    let planned = user.prints(0, &[&part[..], &["--dry-run"]].concat());
    assert!(planned.contains("nothing is written") && !Path::new(&user.path("part")).exists(), "{planned}");
    user.prints(0, &part);
    assert_eq!(fs::read(user.path("part/file")).unwrap(), b"first");

    user.is_refused(1, &["new is not empty", "sub"], &part.map(|part| if part == "part" { "new" } else { part }));
    user.is_refused(1, &["holds no", "/nope"], &["volume", "ls", "data", "nope"]);
    user.is_refused(1, &["no backup of the volume \"other\""], &["volume", "restore", "other", "--target", "x"]);
    assert_eq!(user.reads(&["backup", "get", "-o", "json"]), json!([]));
}
