//! Damages a repository in every way that storage and programs do, and looks at what a check says of it.
//!
//! Tables, one for each part of a repository: what is done, which finding must name which file, how many snapshots it
//! reaches, and what restic's own check makes of it. The other snapshot must stay readable throughout.

#![allow(clippy::unwrap_used, clippy::print_stderr)]

mod case;
#[path = "../common/mod.rs"]
mod common;
mod directories;
mod fixture;
mod indexes;
mod others;
mod packs;

use case::{Case, Restic};
use common::{restic, restic_ok};
use fixture::Fixture;
use futures::{StreamExt, TryStreamExt};
use stillpoint_repository::{CheckReport, Error, Finding, FindingKind, ReadData, Severity};
use stillpoint_test_support::require;

fn named<'a>(report: &'a CheckReport, kind: FindingKind, file: &str) -> Option<&'a Finding> {
    report.findings.iter().find(|finding| finding.kind == kind && finding.file == file)
}

async fn tried(case: &'static Case) {
    let fixture = Fixture::new().await;
    let file = (case.damage)(&fixture);
    let report = fixture.check(case.read_data).await;
    let name = case.name;
    let finding = named(&report, case.kind, &file).unwrap_or_else(|| panic!("{name}: {file}: {report:#?}"));
    assert_eq!(finding.affected.snapshot_count, case.reaches, "{name}: {finding:#?}");
    assert_eq!(report.errors() > 0, case.kind.severity() == Severity::Error, "{name}: {report:#?}");
    eprintln!("{name}: {}: {}", finding.file, finding.message);
    let sound = fixture.content(0).await;
    assert!(sound.is_ok_and(|content| content == fixture.backups[0].content), "{name}: the other backup is sound");
    if case.restic != Restic::NotAsked && require::program("restic").is_some() {
        let arguments: &[&str] = if case.read_data == ReadData::None { &["check"] } else { &["check", "--read-data"] };
        let path = fixture.path.clone();
        let checked = tokio::task::spawn_blocking(move || restic(&path, arguments)).await.unwrap();
        let said = String::from_utf8_lossy(&[checked.stdout, checked.stderr].concat()).into_owned();
        assert_eq!(checked.status.success(), case.restic == Restic::Silent, "{name}: {said}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_damage_is_found_by_name_and_what_is_sound_stays_readable() {
    // a few at a time, since restic repeats what it cannot read, with pauses
    let cases = [packs::CASES, indexes::CASES, directories::CASES, others::CASES].into_iter().flatten();
    let cases = futures::stream::iter(cases).map(|case| tokio::spawn(tried(case))).buffer_unordered(6);
    let failed: Vec<_> = cases.filter_map(async |tried| tried.err()).collect().await;
    assert!(failed.is_empty(), "{failed:#?}");
    let peak = peak_memory();
    assert!(peak < 600 << 20, "hostile sizes are bounded: {peak}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_undamaged_repository_has_no_finding() {
    let fixture = Fixture::new().await;
    for read_data in [ReadData::None, ReadData::All, ReadData::Percent(50.0), ReadData::Part { part: 1, of: 2 }] {
        let report = fixture.check(read_data).await;
        assert!(report.findings.is_empty(), "{report:#?}");
        assert_eq!((report.snapshots, report.trees, report.files), (2, 4, 4));
    }
    for (read_data, packs) in [(ReadData::None, 0), (ReadData::Percent(50.0), 2), (ReadData::All, 4)] {
        assert_eq!(fixture.check(read_data).await.packs_read, packs);
    }
    if require::program("restic").is_some() {
        restic_ok(&fixture.path, ["check", "--read-data"]);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn foreign_files_are_hints_and_in_nobodys_way() {
    let fixture = Fixture::new().await;
    let moved = fixture.backups[1].data.replace("data/", "").split_once('/').unwrap().1.to_owned();
    let elsewhere = if moved.starts_with("00") { "data/01" } else { "data/00" };
    let strangers = ["keys/README", "index/README", "snapshots/a b", "locks/x.tmp", "data/notes", "data/ab/README"];
    let strangers = strangers.map(String::from).into_iter().chain([format!("{elsewhere}/{moved}")]);
    let strangers: Vec<String> = strangers.collect();
    for stranger in &strangers {
        std::fs::write(fixture.path.join(stranger), b"foreign").unwrap();
    }
    let report = fixture.check(ReadData::All).await;
    let mut found: Vec<_> = report.findings.iter().map(|finding| (finding.kind, finding.file.as_str())).collect();
    let mut expected: Vec<_> = strangers.iter().map(|name| (FindingKind::ForeignFile, name.as_str())).collect();
    found.sort_unstable_by_key(|(_, file)| *file);
    expected.sort_unstable_by_key(|(_, file)| *file);
    assert_eq!(found, expected);
    assert!(fixture.content(0).await.unwrap() == fixture.backups[0].content);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_whose_blobs_are_sound_is_read_while_another_pack_of_its_backup_is_lost() {
    let fixture = Fixture::new().await;
    let lost = fixture.remove(&fixture.backups[1].data);
    let second = fixture.repository.snapshot(&fixture.backups[1].snapshot).await.unwrap();
    let reader = fixture.repository.reader().await.unwrap();
    // stored by the first backup
    let manifest = reader.find(&second.tree, "/manifest.json").await.unwrap().unwrap();
    let read = reader.content(&manifest).unwrap().try_collect::<Vec<_>>().await.unwrap().concat();
    assert_eq!(read, b"{\"kind\":\"manifest\"}");
    let error = fixture.content(1).await.unwrap_err();
    assert!(error.to_string().contains(&lost), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_index_that_is_missing_is_named_by_a_reader_and_made_anew_by_restic() {
    let Some(_restic) = require::program("restic") else { return };
    let fixture = Fixture::new().await;
    fixture.remove(&fixture.backups[1].index);
    let error = fixture.content(1).await.unwrap_err();
    assert!(matches!(error, Error::BlobMissing { .. }), "{error}");
    for advice in ["stillpoint repo check", "rebuild-index"] {
        assert!(error.to_string().contains(advice), "{error}");
    }
    let report = fixture.check(ReadData::None).await;
    assert!(named(&report, FindingKind::UnreferencedPacks, "data").is_some(), "{report:#?}");
    let missing = named(&report, FindingKind::BlobsMissing, "index").unwrap();
    assert!(missing.advice.contains("rebuild-index"), "{missing:?}");
    restic_ok(&fixture.path, ["rebuild-index"]);
    let report = fixture.check(ReadData::All).await;
    assert!(report.findings.is_empty(), "{report:#?}");
    assert!(fixture.content(1).await.unwrap() == fixture.backups[1].content);
}

/// The most memory that this process ever had.
fn peak_memory() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("VmHWM:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap() << 10
}
