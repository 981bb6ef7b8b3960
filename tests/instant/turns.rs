//! Two backups of one filesystem at once, in processes that know nothing of each other: the second waits for the first.

use std::{
    io::{BufRead, BufReader},
    path::Path,
    process::Stdio,
};

use jiff::Timestamp;
use serde_json::Value;
use stillpoint_test_support::{loop_mount::LoopMount, require};

use super::user::{User, told};

const ROUNDS: usize = 8;

/// When writers stood still: the work in the window begins after the stop, so this is a little longer.
fn window(told: &Value) -> (f64, f64) {
    let instant: Timestamp = told["cut"]["instant"].as_str().unwrap().parse().unwrap();
    let from = instant.as_duration().as_secs_f64();
    (from, from + told["cut"]["windowMs"].as_f64().unwrap() / 1e3)
}

/// Backs a directory up twice at once; gives what each one said.
fn both(user: &User, folder: &Path, options: &[&str]) -> [String; 2] {
    let backups = ["one", "two"].map(|name| {
        let common = ["volume", "backup", name, "-o", "json", "--path", folder.to_str().unwrap()];
        let mut command = user.command(&[&common[..], options].concat());
        command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
    });
    backups.map(|backup| {
        let ended = backup.wait_with_output().unwrap();
        let said = String::from_utf8_lossy(&[ended.stdout, ended.stderr].concat()).into_owned();
        assert!(ended.status.success(), "{said}");
        said
    })
}

#[test]
fn of_two_backups_at_once_the_second_waits_for_the_first_and_says_so_and_both_are_complete() {
    let Some(kind) = require::loop_device("ext4") else { return };
    let (mount, user) = (LoopMount::new(kind), User::new());
    for number in 0..300 {
        std::fs::write(mount.path().join(number.to_string()), number.to_string().repeat(2_000)).unwrap();
    }
    let mut waited = 0;
    for _ in 0..ROUNDS {
        let said = both(&user, &mount.path(), &["--freeze"]);
        waited += said
            .iter()
            .filter(|said| {
                let waits = said.contains("stillpoint: waiting for one (process ")
                    || said.contains("waiting for two (process ");
                waits && said.contains(", stillpoint volume backup)")
            })
            .count();
        let cuts = said.map(|said| told(&said));
        assert!(cuts.iter().all(|told| told["outcome"] == "complete" && told["cut"]["attempts"] == 1), "{cuts:?}");
        let mut windows = cuts.each_ref().map(window);
        windows.sort_by(|a, b| a.0.total_cmp(&b.0));
        assert!(windows[0].1 < windows[1].0, "the windows overlap: {windows:?}");
    }
    assert!(waited > 0, "nobody had to wait, so this proves nothing");
    eprintln!("of {ROUNDS} times two backups, {waited} waited");
}

#[test]
fn nobody_waits_for_a_backup_that_was_killed() {
    let Some(kind) = require::loop_device("ext4") else { return };
    let (mount, user) = (LoopMount::new(kind), User::new());
    let path = mount.path();
    let common = ["--path", path.to_str().unwrap(), "--freeze"];
    let reached = user.at("reached");
    let hook = format!("touch {}; sleep 30", reached.display());
    let first = [&["volume", "backup", "one"], &common[..], &["--hook-pre", &hook]].concat();
    let mut first = user.command(&first).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    while !reached.exists() {
        assert!(first.try_wait().unwrap().is_none(), "it ended before its hook");
        std::thread::yield_now();
    }
    let second = [&["volume", "backup", "two"], &common[..]].concat();
    let mut second = user.command(&second).stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
    let mut said = BufReader::new(second.stderr.take().unwrap()).lines().map(Result::unwrap);
    let waits = format!("waiting for one (process {}, stillpoint volume backup)", first.id());
    assert!(said.any(|line| line.contains(&waits)), "it did not say that it waits");
    first.kill().unwrap();
    first.wait().unwrap();
    let rest: Vec<_> = said.collect();
    assert!(second.wait().unwrap().success(), "{rest:?}");
}
