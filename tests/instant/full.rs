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

use super::user::{Cgroup, Python, User};

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
