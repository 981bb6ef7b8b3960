//! Two files written in turn: whatever the method, a copy holds the second write of no pair without the first.

use std::{fs, path::Path};

use serde_json::Value;
use stillpoint_test_support::{
    disk::Disk,
    loop_mount::LoopMount,
    require::{self, Freezer},
};

use super::user::{Cgroup, Python, User, told};

/// Writes a number to the first file, then to the second, and so on; nothing is synced.
const IN_TURN: &str = r#"
import os, struct, sys, threading
files = [os.open(path, os.O_RDWR | os.O_CREAT) for path in sys.argv[1:3]]
ended = threading.Event()
go = threading.Event()
def run():
    n = 0
    go.wait()
    while not ended.is_set():
        n += 1
        for file in files:
            os.pwrite(file, struct.pack("<Q", n), 0)
thread = threading.Thread(target=run, daemon=True)
thread.start()
print("ready")
for line in sys.stdin:
    go.set() if line.strip() == "go" else ended.set()
    print("done")
"#;

const BACKUPS: usize = 6;

fn number(file: &Path) -> u64 {
    let bytes = fs::read(file).unwrap();
    u64::from_le_bytes(bytes.get(..8).map_or([0; 8], |bytes| bytes.try_into().unwrap()))
}

/// How many of some backups broke the order, and what was told of the last.
fn broken(user: &User, paths: &[&Path], files: [&Path; 2], options: &[&str]) -> (usize, Value) {
    let (mut broken, mut last) = (0, Value::Null);
    for _ in 0..BACKUPS {
        let (code, said) = user.backup(paths, options);
        // a file that changes while it is read degrades a backup that stops nobody
        assert!(code == 0 || code == 3 && options.contains(&"live"), "{code}: {said}");
        last = told(&said);
        let restored = files.map(|file| {
            let path = paths.iter().find(|path| file.starts_with(path)).unwrap();
            number(&user.restores(path).join(file.strip_prefix(path).unwrap()))
        });
        assert!(restored[0] > 0, "nothing was written: {restored:?}");
        broken += usize::from(restored[1] > restored[0] || restored[0] > restored[1] + 1);
    }
    (broken, last)
}

/// A writer that is alone in a cgroup.
fn writer(files: [&Path; 2], cgroup: &Cgroup) -> Python {
    let mut writer = Python::start(IN_TURN, &files);
    cgroup.take(writer.id());
    writer.ask("go");
    writer
}

/// One volume whose writer is paused.
fn keeps_the_order(folder: &Path, method: &str) {
    let Some(root) = require::cgroup(Freezer::V2) else { return };
    let (cgroup, user) = (Cgroup::new(&root), User::new());
    let (first, second) = (folder.join("a"), folder.join("b"));
    let _writer = writer([&first, &second], &cgroup);
    let pause = cgroup.0.to_str().unwrap();
    let (found, told) =
        broken(&user, &[folder], [&first, &second], &["--pause-cgroup", pause, "--method", method, "--max", "5s"]);
    let directory = &told["cut"]["directories"][0];
    assert_eq!((&directory["method"], &directory["level"]), (&method.into(), &"filesystem".into()), "{told}");
    assert_eq!(found, 0, "{told}");
    assert!(!cgroup.is_paused());
    let hidden = fs::read_dir(folder).unwrap().flatten();
    assert!(hidden.into_iter().all(|entry| !entry.file_name().to_string_lossy().starts_with(".stillpoint-")));
    eprintln!("{method}: window {} ms", told["cut"]["windowMs"]);
}

#[test]
fn a_freeze_of_two_filesystems_keeps_the_order_of_writes_and_a_live_read_breaks_it() {
    let (Some(_), Some(_)) = (require::loop_device("xfs"), require::loop_device("ext4")) else { return };
    let Some(root) = require::cgroup(Freezer::V2) else { return };
    let (one, two) = (LoopMount::new("ext4"), LoopMount::new("xfs"));
    let (cgroup, user) = (Cgroup::new(&root), User::new());
    let (first, second) = (one.path(), two.path());
    let (a, b) = (first.join("file"), second.join("file"));
    let _writer = writer([&a, &b], &cgroup);
    let (found, told) = broken(&user, &[&first, &second], [&a, &b], &["--freeze"]);
    assert_eq!(found, 0, "{told}");
    eprintln!("freeze: window {} ms", told["cut"]["windowMs"]);
    let (found, told) = broken(&user, &[&first, &second], [&a, &b], &["--method", "live"]);
    assert!(found >= BACKUPS / 2, "without the stop only {found} of {BACKUPS} broke: {told}");
    assert_eq!(told["cut"]["directories"][0]["level"], "fuzzy");
}

#[test]
fn a_btrfs_snapshot_under_a_pause_keeps_the_order_of_writes() {
    let Some(kind) = require::loop_device("btrfs") else { return };
    keeps_the_order(&LoopMount::new(kind).path(), "btrfs");
}

#[test]
fn clones_under_a_pause_keep_the_order_of_writes_on_btrfs() {
    let Some(kind) = require::loop_device("btrfs") else { return };
    keeps_the_order(&LoopMount::new(kind).path(), "reflink");
}

#[test]
fn clones_under_a_pause_keep_the_order_of_writes_on_xfs() {
    let Some(kind) = require::loop_device("xfs") else { return };
    keeps_the_order(&LoopMount::new(kind).path(), "reflink");
}

#[test]
fn a_read_under_a_pause_keeps_the_order_of_writes_where_nothing_else_can() {
    let Some(disk) = Disk::tmpfs(16) else { return };
    keeps_the_order(&disk.path(), "read-paused");
}

#[test]
fn a_writer_that_is_not_paused_is_named_and_lowers_the_level() {
    let (Some(kind), Some(root)) = (require::loop_device("btrfs"), require::cgroup(Freezer::V2)) else { return };
    let (mount, cgroup, user) = (LoopMount::new(kind), Cgroup::new(&root), User::new());
    let folder = mount.path();
    let _known = writer([&folder.join("a"), &folder.join("b")], &cgroup);
    let mut stranger = Python::start(IN_TURN, &[&folder.join("c"), &folder.join("d")]);
    stranger.ask("go");
    for (method, level) in [("btrfs", "crash"), ("reflink", "fuzzy"), ("read-paused", "fuzzy")] {
        let pause = cgroup.0.to_str().unwrap();
        let (code, said) = user.backup(&[&folder], &["--pause-cgroup", pause, "--method", method, "--max", "5s"]);
        assert_eq!(code, 3, "{said}");
        assert!(said.contains(&format!("\"level\": \"{level}\"")) && said.contains("python3"), "{said}");
    }
}
