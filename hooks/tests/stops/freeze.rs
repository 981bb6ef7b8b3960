//! A freeze and its release: what stands still, what is refused, what the release says.

use std::{fs::File, path::Path};

use stillpoint_hooks::guard::{Guard, Outcome, Reason, Stop};
use stillpoint_test_support::{loop_mount::LoopMount, require};

use crate::common::{Desk, Writer, freeze};

async fn a_writer_stands_still(kind: &str) {
    let Some(kind) = require::loop_device(kind) else { return };
    let (mount, desk) = (LoopMount::new(kind), Desk::new());
    let writer = Writer::start(mount.path().join("file"));
    let held = desk.stop(&freeze(&[&mount.path()])).await;
    // the one line that was being written when the freeze came may be counted only now
    let frozen = writer.lines();
    let settled = || writer.lines() <= frozen + 1;
    for _ in 0..200 {
        assert!(settled());
        tokio::task::yield_now().await;
    }
    let release = held.release().await;
    assert!(release.whole && release.reason == Reason::Asked, "{release:?}");
    let [target] = &release.targets[..] else { panic!("{release:?}") };
    assert!(target.window_ms >= target.stop_ms + target.release_ms, "{release:?}");
    writer.wait_until_it_goes_on();
    writer.end_and_check();
    desk.wait_until_empty();
}

#[tokio::test]
async fn a_writer_on_ext4_stands_still_and_goes_on_with_its_data_intact() {
    a_writer_stands_still("ext4").await;
}

#[tokio::test]
async fn a_writer_on_xfs_stands_still_and_goes_on_with_its_data_intact() {
    a_writer_stands_still("xfs").await;
}

#[tokio::test]
async fn a_writer_on_btrfs_stands_still_and_goes_on_with_its_data_intact() {
    a_writer_stands_still("btrfs").await;
}

#[tokio::test]
async fn dropping_what_is_held_releases_it() {
    let Some(kind) = require::loop_device("ext4") else { return };
    let (mount, desk) = (LoopMount::new(kind), Desk::new());
    let writer = Writer::start(mount.path().join("file"));
    let held = desk.stop(&freeze(&[&mount.path()])).await;
    drop(held);
    writer.wait_until_it_goes_on();
    writer.end_and_check();
    desk.wait_until_empty();
}

#[tokio::test]
async fn a_stranger_who_thaws_is_noticed_every_time() {
    let Some(kind) = require::loop_device("ext4") else { return };
    let (mount, desk) = (LoopMount::new(kind), Desk::new());
    for _ in 0..20 {
        let held = desk.stop(&freeze(&[&mount.path()])).await;
        stillpoint_sys::thaw(File::open(mount.path()).unwrap()).unwrap();
        let release = held.release().await;
        assert!(!release.whole, "{release:?}");
        assert_eq!(release.targets[0].held, Outcome::ReleasedByAnother);
        // the control: without the stranger it is whole
        assert!(desk.stop(&freeze(&[&mount.path()])).await.release().await.whole);
    }
}

#[tokio::test]
async fn the_time_being_up_releases_and_is_told() {
    let Some(kind) = require::loop_device("ext4") else { return };
    let (mount, desk) = (LoopMount::new(kind), Desk::new());
    let writer = Writer::start(mount.path().join("file"));
    let stop = Stop { max: std::time::Duration::from_millis(300), ..freeze(&[&mount.path()]) };
    let mut held = desk.stop(&stop).await;
    held.lost().await;
    writer.wait_until_it_goes_on();
    let release = held.release().await;
    assert!(!release.whole && release.reason == Reason::Deadline, "{release:?}");
    assert!((300.0..400.0).contains(&release.window_ms), "{release:?}");
    writer.end_and_check();
}

#[tokio::test]
async fn what_was_frozen_before_is_not_ours_and_the_rest_is_released() {
    let Some(kind) = require::loop_device("ext4") else { return };
    let (frozen, free, desk) = (LoopMount::new(kind), LoopMount::new(kind), Desk::new());
    let directory = File::open(frozen.path()).unwrap();
    stillpoint_sys::freeze(&directory).unwrap();
    let guard = Guard::start(&desk.config()).await.unwrap();
    let error = guard.stop(&freeze(&[&free.path(), &frozen.path()])).await.unwrap_err().to_string();
    assert!(error.contains("was frozen before") && error.contains("stillpoint thaw"), "{error}");
    std::fs::write(free.path().join("file"), "the rest was released").unwrap();
    desk.wait_until_empty();
    // it still is as it was
    stillpoint_sys::thaw(&directory).unwrap();
}

#[tokio::test]
async fn two_paths_and_two_mounts_of_one_filesystem_are_one_freeze() {
    let Some(kind) = require::loop_device("xfs") else { return };
    let (mount, desk) = (LoopMount::new(kind), Desk::new());
    let folder = mount.path().join("folder");
    std::fs::create_dir(&folder).unwrap();
    let bound = desk.folder.path().join("bound");
    std::fs::create_dir(&bound).unwrap();
    let bind = std::process::Command::new("mount").arg("--bind").args([&folder, &bound]).status();
    assert!(bind.unwrap().success());
    let held = desk.stop(&freeze(&[&mount.path(), &folder, &bound])).await;
    let release = held.release().await;
    assert!(std::process::Command::new("umount").arg(&bound).status().unwrap().success());
    assert!(release.whole && release.targets.len() == 1, "{release:?}");
}

#[tokio::test]
async fn what_the_guard_or_its_caller_needs_is_refused_by_name() {
    let Some(kind) = require::loop_device("ext4") else { return };
    let (mount, desk) = (LoopMount::new(kind), Desk::new());
    let stop = Stop { protect: vec![mount.path().join("report.json")], ..freeze(&[&mount.path()]) };
    assert!(desk.refused(&stop).await.contains("report.json, which is needed meanwhile"));
    let inside = crate::common::config(&mount.path().join("journal"));
    let error = Guard::start(&inside).await.unwrap().stop(&freeze(&[&mount.path()])).await.unwrap_err();
    assert!(error.to_string().contains("give another --journal"), "{error}");
    let root = desk.refused(&freeze(&[Path::new("/etc")])).await;
    assert!(root.contains("/etc: it must not be frozen: it is the root filesystem"), "{root}");
    // the control: nothing of it is needed
    assert!(desk.stop(&freeze(&[&mount.path()])).await.release().await.whole);
}

#[tokio::test]
async fn what_lies_in_a_file_on_another_is_refused_with_it() {
    let Some(kind) = require::loop_device("ext4") else { return };
    let outer = LoopMount::with_size(kind, 900 << 20);
    let inner = LoopMount::in_folder(kind, &outer.path());
    let desk = Desk::new();
    let error = desk.refused(&freeze(&[&outer.path(), &inner.path()])).await;
    assert!(error.contains("it lies in a file on"), "{error}");
    // the journal on the inner one needs the outer one
    let inside = crate::common::config(&inner.path().join("journal"));
    let error = Guard::start(&inside).await.unwrap().stop(&freeze(&[&outer.path()])).await.unwrap_err().to_string();
    assert!(error.contains("give another --journal (which lies in a file on it)"), "{error}");
}

#[tokio::test]
async fn a_journal_on_a_full_disk_stops_nothing() {
    let Some(kind) = require::loop_device("ext4") else { return };
    let (mount, full, desk) = (LoopMount::new(kind), LoopMount::new(kind), Desk::new());
    let journal = full.path().join("journal");
    std::fs::create_dir(&journal).unwrap();
    let mut filler = File::create(full.path().join("filler")).unwrap();
    let chunk = vec![1_u8; 1 << 20];
    while std::io::Write::write_all(&mut filler, &chunk).is_ok() {}
    while std::io::Write::write_all(&mut filler, &[1; 512]).is_ok() {}
    let full = crate::common::config(&journal);
    let error = Guard::start(&full).await.unwrap().stop(&freeze(&[&mount.path()])).await.unwrap_err();
    assert!(error.to_string().contains("No space left"), "{error}");
    std::fs::write(mount.path().join("file"), "it is not frozen").unwrap();
    // the control: with another journal it can be
    assert!(desk.stop(&freeze(&[&mount.path()])).await.release().await.whole);
}

/// An image copied while its filesystem is frozen under a writer is a filesystem that its checker finds nothing wrong with.
async fn a_copy_made_meanwhile_is_clean(kind: &str, check: &[&str]) {
    let Some(kind) = require::loop_device(kind) else { return };
    let (mount, desk) = (LoopMount::new(kind), Desk::new());
    let writer = Writer::start(mount.path().join("file"));
    let copy = desk.folder.path().join("copy");
    let held = desk.stop(&freeze(&[&mount.path()])).await;
    std::fs::copy(mount.image(), &copy).unwrap();
    assert!(held.release().await.whole);
    writer.end_and_check();
    let checked = std::process::Command::new(check[0]).args(&check[1..]).arg(&copy).output().unwrap();
    let said = String::from_utf8_lossy(&[checked.stdout, checked.stderr].concat()).into_owned();
    assert!(checked.status.success(), "{check:?}: {said}");
}

#[tokio::test]
async fn an_ext4_image_copied_while_it_is_frozen_is_clean() {
    a_copy_made_meanwhile_is_clean("ext4", &["e2fsck", "-f", "-n"]).await;
}

#[tokio::test]
async fn an_xfs_image_copied_while_it_is_frozen_is_clean_once_its_log_is_replayed() {
    // a frozen xfs leaves its log for files that were unlinked while open; xfs_repair does not replay it, a mount does
    let replay =
        r#"mkdir "$0.mount" && mount -o loop,nouuid "$0" "$0.mount" && umount "$0.mount" && xfs_repair -n -f "$0""#;
    a_copy_made_meanwhile_is_clean("xfs", &["sh", "-c", replay]).await;
}

#[tokio::test]
async fn a_btrfs_image_copied_while_it_is_frozen_is_clean() {
    a_copy_made_meanwhile_is_clean("btrfs", &["btrfs", "check", "--readonly"]).await;
}
