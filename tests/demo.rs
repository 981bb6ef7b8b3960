//! The demo: a newcomer's first minute, which must never fail and never leave its folder.

#![allow(clippy::unwrap_used)]

mod common;

use std::fs;

use common::shell::User;

#[test]
fn the_demo_tells_its_story_in_one_folder_and_its_next_steps_work() {
    let user = User::new();
    let folder = user.path("demo");
    let told = user.prints(0, &["demo", "--dir", &folder]);
    for turn in [
        "a state that never existed",
        "- services.core/shop/web",
        "1 object created",
        "backup shop-2: Proven on embedded",
        "the same embedded server",
        "backup shop-2: Failed on embedded",
        "is damaged",
    ] {
        assert!(told.contains(turn), "{turn:?} is not in:\n{told}");
    }
    let report = fs::read_to_string(user.path("demo/report.html")).unwrap();
    assert!(report.contains("shop-2") && !report.contains("src=\"http") && !report.contains("href=\"http"));
    let outside: Vec<_> = fs::read_dir(user.home.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(outside, ["demo"]);

    // what it tells to try, word by word
    let exports = told.lines().filter_map(|line| line.trim().strip_prefix("export "));
    let variables = exports.flat_map(str::split_whitespace).map(|variable| variable.split_once('=').unwrap());
    let user = variables.fold(user.with("STILLPOINT_PASSWORD", ""), |user, (name, value)| user.with(name, value));
    let listed = user.prints(0, &["backup", "get"]);
    assert!(listed.lines().nth(2).unwrap().contains("Proven") && listed.contains("trusted signer"), "{listed}");
    assert!(user.prints(0, &["backup", "cat", "shop-2", "deployments.apps/shop/web"]).contains("kind: Deployment"));
    user.is_refused(1, &["cannot create", &folder], &["demo", "--dir", &folder]);
}

#[test]
fn without_a_folder_the_demo_makes_a_temporary_one_and_says_where() {
    let user = User::new();
    let user = {
        let home = user.path("");
        user.with("TMPDIR", &home)
    };
    let told = user.prints(0, &["demo"]);
    let made: Vec<_> = fs::read_dir(user.home.path()).unwrap().map(|entry| entry.unwrap().path()).collect();
    let [folder] = made.as_slice() else { panic!("{made:?}") };
    assert!(told.contains(&format!("Everything is in {}", folder.display())), "{told}");
}
