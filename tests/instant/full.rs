//! Disks that are full: what needs room is given up before anybody stands still, or named, and nothing is left.

use std::{
    fs,
    io::{ErrorKind, Read},
    path::Path,
};

use stillpoint_test_support::{
    disk::Disk,
    loop_mount::LoopMount,
    require::{self, Freezer},
};

use super::user::{Cgroup, Python, User, told};

/// Waits in a cgroup; a volume whose writers are known needs one.
const IDLE: &str = r#"
import sys
print("ready")
sys.stdin.read()
"#;

/// Makes directories until there is no room for another.
fn fill(folder: &Path) {
    for number in 0.. {
        match fs::create_dir(folder.join(format!("full{number}"))) {
            Ok(()) => {}
            Err(error) if error.kind() == ErrorKind::StorageFull => return,
            Err(error) => panic!("{error}"),
        }
    }
}

#[test]
fn clones_for_which_there_is_no_room_give_way_to_another_method_before_the_stop() {
    let (Some(kind), Some(root)) = (require::loop_device("xfs"), require::cgroup(Freezer::V2)) else { return };
    let (cgroup, user) = (Cgroup::new(&root), User::new());
    let disk = Disk::Loop(LoopMount::new(kind));
    let folder = disk.path();
    fs::write(folder.join("file"), "content").unwrap();
    let idle = Python::start(IDLE, &[]);
    cgroup.take(idle.id());
    let _ballast = disk.fill(1 << 10);
    fill(&folder);
    let pause = cgroup.0.to_str().unwrap();
    let told = user.backs_up(&[&folder], &["--pause-cgroup", pause, "--exclude", "ballast", "--max-paused", "1024"]);
    let directory = &told["cut"]["directories"][0];
    assert_eq!((&directory["method"], &directory["level"]), (&"read-paused".into(), &"filesystem".into()), "{told}");
    assert!(directory["reason"].as_str().unwrap().contains("No space left"), "{told}");
    assert_eq!(fs::read(user.restores(&folder).join("file")).unwrap(), b"content");
    assert_eq!(fs::read_dir(user.at("journal/clones")).map_or(0, Iterator::count), 0);
}

/// A pre hook: writes down what of ours lies in the volume, and fills it once.
const LOOK: &str = r#"cd "$VOLUME" && ls -A | grep -c '^\.stillpoint-' >>"$LOG"
[ -e "$LOG.full" ] && exit 0
touch "$LOG.full"
"#;
/// Fills any filesystem, but for what ten files take.
const FILL: &str = r#"mkdir full && head -c 1500 /dev/urandom >"$LOG.small"
for size in 16M 1M 64K 4K; do
  number=0
  while fallocate -l $size full/$size.$number; do number=$((number + 1)); done
done
number=0
while cat "$LOG.small" >full/small.$number; do number=$((number + 1)); done
rm -f full/small.$number full/small.?
exit 0"#;
/// Lets btrfs add nothing: without a limit it keeps room for snapshots.
const LIMIT: &str =
    r#"btrfs quota enable . && sync && btrfs quota rescan -w . >"$LOG.full" && btrfs qgroup limit 1M . "#;

/// A volume with some files, on a filesystem that the pre hook of a backup fills.
struct Filling {
    disk: Disk,
    cgroup: Cgroup,
    user: User,
    _idle: Python,
}

impl Filling {
    const FILES: usize = 300;

    fn new(kind: &str) -> Option<Self> {
        let (kind, root) = (require::loop_device(kind)?, require::cgroup(Freezer::V2)?);
        let (cgroup, user, disk) = (Cgroup::new(&root), User::new(), Disk::Loop(LoopMount::new(kind)));
        let idle = Python::start(IDLE, &[]);
        cgroup.take(idle.id());
        for number in 0..Self::FILES {
            fs::write(disk.path().join(format!("file{number}")), number.to_string().repeat(2_000)).unwrap();
        }
        Some(Self { disk, cgroup, user, _idle: idle })
    }

    fn backup(&self, fill: &str, options: &[&str]) -> (i32, String) {
        let (folder, log) = (self.disk.path(), self.user.at("log"));
        let pre = format!("VOLUME={} LOG={}\n{LOOK}{fill}", folder.display(), log.display());
        let pause = self.cgroup.0.to_str().unwrap();
        let common = ["--pause-cgroup", pause, "--exclude", "full", "--max", "20s", "--hook-pre", &pre];
        self.user.backup(&[&folder], &[&common[..], options].concat())
    }

    /// How much of ours lay in the volume before each stop.
    fn before_each_stop(&self) -> String {
        fs::read_to_string(self.user.at("log")).unwrap().split_whitespace().collect()
    }

    fn nothing_is_left(&self) {
        let names = fs::read_dir(self.disk.path()).unwrap().flatten().map(|entry| entry.file_name());
        let own: Vec<_> = names.filter(|name| name.to_string_lossy().starts_with(".stillpoint-")).collect();
        assert!(own.is_empty(), "{own:?}");
        assert_eq!(fs::read_dir(self.user.at("journal/clones")).map_or(0, Iterator::count), 0);
        assert!(!self.cgroup.is_paused());
    }
}

fn gives_way_in_the_window(kind: &str, fill: &str, full: &str) {
    let Some(filling) = Filling::new(kind) else { return };
    let (code, said) = filling.backup(fill, &[]);
    assert_eq!(code, 0, "{said}");
    assert!(said.contains("attempt 1 of 3 was not whole: cannot make a snapshot or clones"), "{said}");
    let told = told(&said);
    let directory = &told["cut"]["directories"][0];
    assert_eq!((&directory["method"], &told["cut"]["attempts"]), (&"read-paused".into(), &2.into()), "{said}");
    assert_eq!(directory["level"], "application");
    let reason = directory["reason"].as_str().unwrap();
    assert!(reason.contains("not by reflink: ") && reason.contains(full), "{reason}");
    assert!(reason.contains(" KiB") && reason.contains(" are free"), "{reason}");
    eprintln!("{kind}: {reason}");
    // what the first attempt had made is gone before the second begins
    assert_eq!(filling.before_each_stop(), "00");
    filling.nothing_is_left();
    let restored = filling.user.restores(&filling.disk.path());
    for number in 0..Filling::FILES {
        let content = fs::read_to_string(restored.join(format!("file{number}"))).unwrap();
        assert_eq!(content, number.to_string().repeat(2_000));
    }
}

#[test]
fn clones_that_run_out_of_room_in_the_window_give_way_to_another_method_in_the_next() {
    gives_way_in_the_window("xfs", FILL, "No space left");
}

#[test]
fn a_snapshot_beyond_a_quota_in_the_window_gives_way_to_another_method_in_the_next() {
    let Some(_btrfs) = require::program("btrfs") else { return };
    gives_way_in_the_window("btrfs", LIMIT, "Disk quota exceeded");
}

#[test]
fn clones_that_run_out_of_room_where_nothing_else_fits_end_the_backup_by_name_and_nothing_is_left() {
    let Some(filling) = Filling::new("xfs") else { return };
    let (code, said) = filling.backup(FILL, &["--max-paused", "0"]);
    assert_eq!(code, 1, "{said}");
    assert!(said.contains("No space left") && said.contains(" inodes are free"), "{said}");
    assert!(said.contains("not by read-paused, because its 1 MiB would be read"), "{said}");
    filling.nothing_is_left();
    let (code, said) = filling.user.run(&["volume", "get", "data"]);
    assert!(code == 1 && said.contains("there is no backup"), "{said}");
}

#[test]
fn a_spool_that_is_full_ends_the_backup_by_name_and_nothing_is_left() {
    let Some(root) = require::cgroup(Freezer::V2) else { return };
    let (Some(data), Some(small)) = (Disk::tmpfs(160), Disk::tmpfs(4)) else { return };
    let (cgroup, user) = (Cgroup::new(&root), User::new());
    let idle = Python::start(IDLE, &[]);
    cgroup.take(idle.id());
    // what a window may hold in memory is less
    let mut noise = fs::File::open("/dev/urandom").unwrap().take(100 << 20);
    std::io::copy(&mut noise, &mut fs::File::create(data.path().join("file")).unwrap()).unwrap();
    let spool = small.path();
    let pause = ["--pause-cgroup", cgroup.0.to_str().unwrap(), "--max-paused", "1024", "--max", "20s"];
    let stops = [&pause[..], &["--spool", spool.to_str().unwrap()]].concat();
    let (code, said) = user.backup(&[&data.path()], &stops);
    assert_eq!(code, 1, "{said}");
    assert!(said.contains("No space left") && said.contains(spool.to_str().unwrap()), "{said}");
    assert!(!cgroup.is_paused());
    let (code, said) = user.run(&["volume", "get", "data"]);
    assert!(code == 1 && said.contains("there is no backup"), "{said}");
    assert_eq!(fs::read_dir(&spool).unwrap().count(), 0);
    assert_eq!(fs::read_dir(user.at("repository/locks")).unwrap().count(), 0);
    let enough = user.at("spool");
    fs::create_dir(&enough).unwrap();
    user.backs_up(&[&data.path()], &[&pause[..], &["--spool", enough.to_str().unwrap()]].concat());
}
