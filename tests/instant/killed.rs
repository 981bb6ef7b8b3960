//! Backups that are killed anywhere: writers go on, no backup is listed, and the next start removes what they left.

use std::{
    fs,
    path::Path,
    process::Stdio,
    time::{Duration, Instant},
};

use stillpoint_test_support::{
    loop_mount::LoopMount,
    require::{self, Freezer},
};

use super::user::{Cgroup, Python, User};

/// Writes all the time, and tells how often it has.
const BUSY: &str = r#"
import os, sys, threading
file = os.open(sys.argv[1], os.O_RDWR | os.O_CREAT)
count = 0
def run():
    global count
    while True:
        os.pwrite(file, b"%d" % count, 0)
        count += 1
threading.Thread(target=run, daemon=True).start()
print("ready")
for line in sys.stdin:
    print(count)
"#;

const KILLS: u32 = 8;
const SOON: Duration = Duration::from_secs(20);

fn goes_on(writer: &mut Python) {
    let before: u64 = writer.ask("count").parse().unwrap();
    let deadline = Instant::now() + SOON;
    while writer.ask("count").parse::<u64>().unwrap() == before {
        assert!(Instant::now() < deadline, "the writer stands still");
    }
}

fn hidden(folder: &Path) -> usize {
    let names = fs::read_dir(folder).unwrap().flatten().map(|entry| entry.file_name());
    names.filter(|name| name.to_string_lossy().starts_with(".stillpoint-")).count()
}

fn leaves_nothing(kind: &str, method: &str) {
    let (Some(kind), Some(root)) = (require::loop_device(kind), require::cgroup(Freezer::V2)) else { return };
    let (mount, cgroup, user) = (LoopMount::new(kind), Cgroup::new(&root), User::new());
    let folder = mount.path();
    fs::create_dir(folder.join("files")).unwrap();
    for number in 0..300 {
        fs::write(folder.join("files").join(number.to_string()), vec![1; 20_000]).unwrap();
    }
    let mut writer = Python::start(BUSY, &[&folder.join("busy")]);
    cgroup.take(writer.id());
    let options = ["--pause-cgroup", cgroup.0.to_str().unwrap(), "--method", method, "--max", "5s"];
    let arguments: Vec<&str> =
        [&["volume", "backup", "data", "--path", folder.to_str().unwrap()], &options[..]].concat();
    let began = Instant::now();
    assert_eq!(user.run(&arguments).0, 0);
    let whole = began.elapsed();
    let mut left = 0;
    for kill in 0..KILLS {
        let known = user.backups();
        let mut command = user.command(&arguments);
        let mut backup = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        // every other one as soon as it has left something in the volume, if it does
        let until = Instant::now() + if kill % 2 == 0 { whole * kill / KILLS } else { whole * 4 };
        while Instant::now() < until && backup.try_wait().unwrap().is_none() && (kill % 2 == 0 || hidden(&folder) == 0)
        {
            std::thread::yield_now();
        }
        let _ = backup.kill();
        let ended = backup.wait().unwrap();
        goes_on(&mut writer);
        assert!(!cgroup.is_paused());
        left += hidden(&folder);
        assert!(ended.success() || user.backups() == known, "a killed backup is listed");
        // its lock is not waited for: its process is gone
        let (code, said) = user.run(&arguments);
        assert_eq!((code, hidden(&folder)), (0, 0), "{said}");
    }
    assert!(left > 0 || method == "precopy", "no kill came in time");
    eprintln!("{method} on {kind}: {left} of {KILLS} kills left something, which the next start removed");
    // a journal that names nothing any more
    assert_eq!(fs::read_dir(user.at("journal/clones")).map_or(0, Iterator::count), 0);
}

#[test]
fn clones_of_a_killed_backup_are_removed_by_the_next() {
    leaves_nothing("xfs", "reflink");
}

#[test]
fn snapshots_of_a_killed_backup_are_removed_by_the_next() {
    leaves_nothing("btrfs", "btrfs");
}

#[test]
fn a_killed_precopy_leaves_nothing_frozen() {
    leaves_nothing("ext4", "precopy");
}
