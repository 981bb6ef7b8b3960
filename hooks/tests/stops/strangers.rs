//! Writers of a volume that a pause does not hold are found.

use std::{fs, path::Path, process::Command};

use stillpoint_hooks::strangers::{self, Stranger, Writers};
use stillpoint_test_support::{loop_mount::LoopMount, require};

use crate::{common::wait_for, deaths::Group, pause::Member};

/// The strangers in a volume when nothing of it is paused.
fn strangers(folder: &Path) -> Vec<Stranger> {
    Writers::look().strangers(folder, &[]).unwrap().into_iter().collect()
}

#[test]
fn writers_by_descriptor_by_map_through_a_loop_device_and_through_an_overlay_are_found() {
    let Some(kind) = require::loop_device("ext4") else { return };
    let Some(group) = Group::v2("strangers") else { return };
    let outer = LoopMount::with_size(kind, 900 << 20);
    assert_eq!(strangers(&outer.path()), []);

    let file = outer.path().join("open");
    let opens = Member::start(&group, r#"exec 5> "$1"; exec sleep 600"#, &file);
    wait_for("the descriptor", || {
        strangers(&outer.path())
            .iter()
            .any(|found| matches!(found, Stranger::Open { file, .. } if file.ends_with("open")))
    });
    // who is in a cgroup that is paused is no stranger
    assert_eq!(Writers::look().strangers(&outer.path(), std::slice::from_ref(&group.0)).unwrap().len(), 0);
    drop(opens);

    let maps = r#"exec python3 -c '
import mmap, sys, time
file = open(sys.argv[1], "w+b"); file.truncate(4096)
shared = mmap.mmap(file.fileno(), 4096)
file.close(); time.sleep(600)' "$1""#;
    let maps = Member::start(&group, maps, &outer.path().join("mapped"));
    wait_for("the map", || {
        strangers(&outer.path())
            .iter()
            .any(|found| matches!(found, Stranger::Mapped { file, .. } if file.ends_with("mapped")))
    });
    drop(maps);
    wait_for("the map to be gone", || strangers(&outer.path()).is_empty());

    let inner = LoopMount::in_folder(kind, &outer.path());
    assert!(matches!(&strangers(&outer.path())[..], [Stranger::Loop { .. }]), "{:?}", strangers(&outer.path()));
    drop(inner);
    wait_for("the loop device to be gone", || strangers(&outer.path()).is_empty());

    let [lower, upper, work, merged] = ["lower", "upper", "work", "merged"].map(|name| outer.path().join(name));
    [&lower, &upper, &work, &merged].iter().for_each(|folder| fs::create_dir(folder).unwrap());
    let options = format!("lowerdir={},upperdir={},workdir={}", lower.display(), upper.display(), work.display());
    let mut mount = Command::new("mount");
    assert!(mount.args(["-t", "overlay", "overlay", "-o", &options]).arg(&merged).status().unwrap().success());
    let found = strangers(&outer.path());
    let elsewhere = strangers(&lower);
    assert!(Command::new("umount").arg(&merged).status().unwrap().success());
    assert!(matches!(&found[..], [Stranger::Overlay { .. }]), "{found:?}");
    // another folder of the same filesystem has no strangers
    assert_eq!(elsewhere, []);
}

/// Swap on a file, switched off when dropped.
struct Swap(std::path::PathBuf);

impl Drop for Swap {
    fn drop(&mut self) {
        let _ = Command::new("swapoff").arg(&self.0).status();
    }
}

#[test]
fn a_file_that_the_kernel_swaps_to_is_found_and_its_filesystem_is_not_frozen() {
    let Some(kind) = require::loop_device("ext4") else { return };
    let Some(mkswap) = require::program("mkswap") else { return };
    let mount = LoopMount::new(kind);
    let swap = Swap(mount.path().join("a swap file"));
    fs::write(&swap.0, vec![0; 1 << 20]).unwrap();
    assert!(Command::new(mkswap).arg(&swap.0).stdout(std::process::Stdio::null()).status().unwrap().success());
    assert!(Command::new("swapon").args(["--priority", "0"]).arg(&swap.0).status().unwrap().success());
    assert!(matches!(&strangers(&mount.path())[..], [Stranger::Swap { file }] if *file == swap.0));
    let stop = crate::common::freeze(&[&mount.path()]);
    let refused = stillpoint_hooks::guard::check(&stop, &mount.path().with_file_name("journal")).unwrap_err();
    assert!(refused[0].reason.contains("it holds swap"), "{refused:?}");
    drop(swap);
    assert_eq!(strangers(&mount.path()), []);
}

#[test]
fn what_changed_after_an_instant_is_found_whatever_changed_it() {
    let Some(kind) = require::loop_device("ext4") else { return };
    let (mount, other) = (LoopMount::new(kind), LoopMount::new(kind));
    let folder = mount.path().join("volume");
    let at = |name: &str| folder.join(name);
    fs::create_dir_all(at("deep/mounted")).unwrap();
    for name in ["same", "written", "renamed", "deep/touched", "removed"] {
        fs::write(at(name), name).unwrap();
    }
    let mut bind = Command::new("mount");
    assert!(bind.arg("--bind").args([other.path(), at("deep/mounted")]).status().unwrap().success());
    let changed = |since| strangers::changed_since(&folder, since).unwrap().into_iter().collect::<Vec<_>>();

    let since = strangers::next_instant().unwrap();
    assert_eq!(changed(since), Vec::<std::path::PathBuf>::new());
    fs::write(at("written"), "anew").unwrap();
    // neither the size nor the time of the last write changes
    fs::set_permissions(at("deep/touched"), std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
    fs::write(other.path().join("elsewhere"), "on another filesystem").unwrap();
    assert_eq!(changed(since), [at("deep/touched"), at("written")]);

    let since = strangers::next_instant().unwrap();
    fs::rename(at("renamed"), at("new")).unwrap();
    fs::remove_file(at("removed")).unwrap();
    assert_eq!(changed(since), [folder.clone(), at("new")]);
    assert!(Command::new("umount").arg(at("deep/mounted")).status().unwrap().success());
}
