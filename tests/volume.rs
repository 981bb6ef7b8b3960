//! `stillpoint volume`: what a user types and is answered, and restores that are killed and run again.

#![allow(clippy::unwrap_used)]

mod common;

use std::{
    collections::BTreeMap,
    fs::{self, Permissions},
    os::unix::{
        fs::{MetadataExt, PermissionsExt, chown},
        process::CommandExt,
    },
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::{Duration, Instant, SystemTime},
};

use common::shell::User;
use serde_json::{Value, json};
use stillpoint_filetree::restore::MARKER;
use stillpoint_test_support::{disk::Disk, require};

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
    assert_eq!(listed[0]["bytes"], json!(null), "restic 0.14 records no size");
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

/// A file: inode, time of change, content.
type Found = (u64, (i64, i64), Vec<u8>);

/// The files below a folder.
fn files(top: &Path) -> BTreeMap<PathBuf, Found> {
    let (mut files, mut folders) = (BTreeMap::new(), vec![top.to_owned()]);
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).into_iter().flatten().map(Result::unwrap) {
            let (path, stat) = (entry.path(), entry.metadata().unwrap());
            if stat.is_dir() {
                folders.push(path);
            } else {
                let content = fs::read(&path).unwrap();
                let found = (stat.ino(), (stat.mtime(), stat.mtime_nsec()), content);
                files.insert(path.strip_prefix(top).unwrap().to_owned(), found);
            }
        }
    }
    files
}

/// How many files are complete, counted up to `wanted`: those whose size and time of change are right.
fn complete(target: &Path, recorded: &BTreeMap<PathBuf, Found>, wanted: usize) -> usize {
    let is_complete = |(path, (_, modified, content)): &(&PathBuf, &Found)| {
        let stat = fs::symlink_metadata(target.join(path));
        stat.is_ok_and(|stat| (stat.mtime(), stat.mtime_nsec()) == *modified && stat.len() == content.len() as u64)
    };
    recorded.iter().filter(is_complete).take(wanted).count()
}

/// Runs a restore into the target until `far_enough`, and kills it.
fn kill_when(user: &User, far_enough: impl Fn() -> bool) {
    let mut restore = user.command(&["volume", "restore", "data", "--target", "target"]);
    let mut child = restore.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    let deadline = Instant::now() + Duration::from_secs(60);
    while child.try_wait().unwrap().is_none() && !far_enough() {
        assert!(Instant::now() < deadline, "the restore neither comes so far nor ends");
        std::thread::yield_now();
    }
    child.kill().unwrap();
    child.wait().unwrap();
}

/// Writes a file whose time is not that of its writing.
fn write_old(path: &Path, seed: usize, size: usize) {
    fs::write(path, common::cluster::noise(seed, size)).unwrap();
    let file = fs::File::options().write(true).open(path).unwrap();
    file.set_modified(SystemTime::UNIX_EPOCH + Duration::new(1_000_000_000, 123_456_789)).unwrap();
}

#[test]
fn a_restore_that_is_killed_anywhere_goes_on_and_writes_no_complete_file_again() {
    let Some(_restic) = require::program("restic") else { return };
    let user = user();
    let source = PathBuf::from(user.path("source"));
    for folder in 0..20 {
        fs::create_dir(source.join(format!("dir{folder}"))).unwrap();
        for file in 0..100 {
            write_old(&source.join(format!("dir{folder}/file{file}")), folder * 100 + file, 4000);
        }
    }
    write_old(&source.join("large"), 1, 9_000_000);
    back_up(&user, &[]);

    let (target, recorded) = (PathBuf::from(user.path("target")), files(&source));
    let mut resumed = 0;
    for percent in [0, 1, 20, 50, 80, 99] {
        let wanted = recorded.len() * percent / 100;
        kill_when(&user, || target.exists() && complete(&target, &recorded, wanted) == wanted);
        let before = files(&target);
        let kept = complete(&target, &recorded, usize::MAX);
        assert!(kept >= wanted, "the test saw files that are not there");
        // it may have been killed before its first step and after its last one
        if before.is_empty() || target.join(MARKER).exists() {
            let report = user.reads(&["volume", "restore", "data", "--target", "target", "--verify", "-o", "json"]);
            assert_eq!(report["alreadyThere"], kept, "{report}");
            assert_eq!(report["verified"]["files"], recorded.len(), "{report}");
            resumed += usize::from(kept > 0);
        }
        let after = files(&target);
        assert!(after.keys().eq(recorded.keys()), "the target holds what was backed up, and no marker");
        for (path, (inode, modified, content)) in &after {
            let (_, recorded_time, recorded_content) = &recorded[path];
            assert!(modified == recorded_time && content == recorded_content, "{path:?}");
            let complete = before.get(path).filter(|(_, time, _)| time == recorded_time);
            assert!(complete.is_none_or(|(before, ..)| before == inode), "{path:?} was complete and was written again");
        }
        fs::remove_dir_all(&target).unwrap();
    }
    assert!(resumed > 0, "no restore was killed between its first file and its end");
}

#[test]
fn a_restore_by_somebody_who_is_not_root_names_the_owners_and_permissions_that_it_may_not_set() {
    const NOBODY: u32 = 65534;
    let Some(()) = require::root() else { return };
    let user = User::new();
    user.prints(0, &["repo", "init"]);
    let source = PathBuf::from(user.path("source"));
    fs::create_dir(&source).unwrap();
    for (name, owner, mode) in [("own", NOBODY, 0o640), ("root's", 0, 0o600), ("suid", 1000, 0o4755)] {
        fs::write(source.join(name), name).unwrap();
        chown(source.join(name), Some(owner), Some(owner)).unwrap();
        fs::set_permissions(source.join(name), Permissions::from_mode(mode)).unwrap();
    }
    chown(&source, Some(NOBODY), Some(NOBODY)).unwrap();
    user.prints(0, &["volume", "backup", "data", "--path", &user.path("source")]);

    // what nobody needs: the program, the way to it, the repository, and a folder of their own
    let program = user.path("program");
    let restore = user.command(&["volume", "restore", "data", "--target", "theirs/new", "--no-lock", "-o", "json"]);
    fs::copy(restore.get_program(), &program).unwrap();
    fs::create_dir(user.path("theirs")).unwrap();
    chown(user.path("theirs"), Some(NOBODY), Some(NOBODY)).unwrap();
    assert!(Command::new("chmod").args(["-R", "a+rX", &user.path("")]).status().unwrap().success());
    let variables = restore.get_envs().filter_map(|(name, value)| Some((name, value?)));
    let mut theirs = Command::new(program);
    theirs.args(restore.get_args()).env_clear().envs(variables).current_dir(user.path("")).uid(NOBODY).gid(NOBODY);
    let output = theirs.output().unwrap();
    assert_eq!(output.status.code(), Some(3), "{}", String::from_utf8_lossy(&output.stderr));

    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    let named = report["problems"]["named"].as_array().unwrap().iter();
    let mut problems: Vec<_> = named.map(|problem| (problem["path"].as_str().unwrap(), &problem["kind"])).collect();
    problems.sort_by_key(|(path, kind)| (*path, kind.to_string()));
    let (owner, mode) = (json!("owner"), json!("mode"));
    assert_eq!(problems, [("root's", &owner), ("suid", &mode), ("suid", &owner)], "{report}");
    for (name, mode) in [("own", 0o640), ("root's", 0o600), ("suid", 0o755)] {
        let stat = fs::metadata(user.path(&format!("theirs/new/{name}"))).unwrap();
        assert_eq!((stat.uid(), stat.mode() & 0o7777), (NOBODY, mode), "{name}");
        assert_eq!(fs::read_to_string(user.path(&format!("theirs/new/{name}"))).unwrap(), name);
    }
}

#[test]
fn a_restore_to_a_full_disk_says_so_and_goes_on_once_there_is_room() {
    let Some(disk) = Disk::tmpfs(32) else { return };
    let user = User::new();
    user.prints(0, &["repo", "init"]);
    fs::create_dir(user.path("source")).unwrap();
    for file in 0..100 {
        write_old(&PathBuf::from(user.path(&format!("source/file{file:02}"))), file, 100_000);
    }
    write_old(&PathBuf::from(user.path("source/large")), 1, 9_000_000);
    user.prints(0, &["volume", "backup", "data", "--path", &user.path("source")]);
    let listed = user.reads(&["volume", "get", "-o", "json"]);
    assert_eq!((&listed[0]["files"], &listed[0]["bytes"]), (&json!(101), &json!(19_000_000)), "{listed}");
    let target = disk.path().join("target").to_str().unwrap().to_owned();
    let ballast = disk.fill(8 << 10);
    let restore = ["volume", "restore", "data", "--target", &target, "--verify"];
    user.is_refused(1, &["is full", "make room", "goes on where it stopped"], &restore);
    assert!(Path::new(&target).join(MARKER).exists());
    assert_eq!(fs::read_dir(user.path("repository/locks")).unwrap().count(), 0);
    fs::remove_file(ballast).unwrap();
    let report = user.reads(&[&restore[..], &["-o", "json"]].concat());
    assert_eq!((&report["start"], &report["verified"]["files"]), (&json!("resumed"), &json!(101)), "{report}");
}
