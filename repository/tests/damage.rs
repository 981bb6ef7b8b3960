//! Damages a repository in every way that storage and programs do, and looks at what a check says of it.
//!
//! One table: what is done, which finding must name which file, how many snapshots it reaches, and what restic's own
//! check makes of it. The other snapshot must stay readable throughout.

#![allow(clippy::unwrap_used, clippy::print_stderr)]

mod common;

use std::path::PathBuf;

use common::{
    forge::{Forge, ForgedBlob},
    init, joined, lines, meta, object, restic, restic_ok, root,
};
use futures::{StreamExt, TryStreamExt};
use serde_json::Value;
use stillpoint_repository::{
    CheckReport, CheckRequest, Control, Error, FindingKind, Id, ReadData, Repository, Severity, Snapshot, Store,
};
use stillpoint_test_support::require;

/// A repository with two backups that share nothing but a small file.
struct Fixture {
    _folder: tempfile::TempDir,
    path: PathBuf,
    repository: Repository,
    /// The two backups: what each added, and what is in it.
    backups: Vec<Backup>,
}

struct Backup {
    snapshot: Id,
    content: Vec<u8>,
    data: String,
    trees: String,
    index: String,
}

impl Fixture {
    async fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("repository");
        let store = Store::from_url(path.to_str().unwrap()).unwrap();
        let repository = init(&store).await;
        let mut fixture = Self { _folder: folder, path, repository, backups: Vec::new() };
        for revision in 0..2 {
            let backup = fixture.backup(revision).await;
            fixture.backups.push(backup);
        }
        fixture
    }

    async fn backup(&self, revision: usize) -> Backup {
        let before = self.files();
        let names = (0..200).map(|n| format!("object-{n:06}"));
        let objects: Vec<_> = names.map(|name| (name.clone(), object(&name, revision))).collect();
        let writer = self.repository.writer().await.unwrap();
        let content = lines(&writer, objects.clone()).await;
        let tree = root(&writer, content).await;
        let snapshot = writer.commit(meta(tree)).await.unwrap();
        let new: Vec<String> = self.files().into_iter().filter(|file| !before.contains(file)).collect();
        let index = new.iter().find(|file| file.starts_with("index/")).unwrap().clone();
        let indexed: Value = serde_json::from_slice(&Forge::open(&self.path).read(&index)).unwrap();
        let pack = |kind: &str| {
            let pack =
                indexed["packs"].as_array().unwrap().iter().find(|pack| pack["blobs"][0]["type"] == kind).unwrap();
            let id = pack["id"].as_str().unwrap();
            format!("data/{}/{id}", &id[..2])
        };
        Backup { snapshot, content: joined(&objects), data: pack("data"), trees: pack("tree"), index }
    }

    /// Paths of all files.
    fn files(&self) -> Vec<String> {
        let (mut files, mut folders) = (Vec::new(), vec![self.path.clone()]);
        while let Some(folder) = folders.pop() {
            for entry in std::fs::read_dir(folder).unwrap() {
                let path = entry.unwrap().path();
                if path.is_dir() {
                    folders.push(path);
                } else {
                    files.push(path.strip_prefix(&self.path).unwrap().to_str().unwrap().to_owned());
                }
            }
        }
        files
    }

    fn change(&self, file: &str, change: impl FnOnce(&mut Vec<u8>)) -> String {
        let path = self.path.join(file);
        let mut bytes = std::fs::read(&path).unwrap();
        change(&mut bytes);
        std::fs::write(path, bytes).unwrap();
        file.to_owned()
    }

    /// Flips a bit `from` bytes from the start.
    fn flip(&self, file: &str, from: usize) -> String {
        self.change(file, |bytes| bytes[from] ^= 0x10)
    }

    fn remove(&self, file: &str) -> String {
        std::fs::remove_file(self.path.join(file)).unwrap();
        file.to_owned()
    }

    fn forge(&self) -> Forge {
        Forge::open(&self.path)
    }

    fn key(&self) -> String {
        self.files().into_iter().find(|file| file.starts_with("keys/")).unwrap()
    }

    /// Rewrites the index file of the second backup.
    fn change_index(&self, change: impl FnOnce(&mut Value)) -> String {
        let (forge, index) = (self.forge(), &self.backups[1].index);
        let mut content: Value = serde_json::from_slice(&forge.read(index)).unwrap();
        change(&mut content);
        self.remove(index);
        forge.write("index", content.to_string().as_bytes())
    }

    /// Adds a snapshot of a directory as given.
    fn forge_tree(&self, json: &str) -> Id {
        let forge = self.forge();
        let content = ForgedBlob::data(b"abc");
        let (_, data) = forge.pack(&[content]);
        let (_, trees) = forge.pack(&[ForgedBlob::tree(json)]);
        forge.index(&[data, trees]);
        let tree = Id::of(json.as_bytes());
        forge.snapshot(&tree);
        tree
    }

    async fn check(&self, read_data: ReadData) -> CheckReport {
        let request = CheckRequest { read_data, ..CheckRequest::default() };
        self.repository.check(&request, &Control::default()).await.unwrap()
    }

    async fn content(&self, snapshot: &Snapshot) -> Result<Vec<u8>, Error> {
        let reader = self.repository.reader().await?;
        let node = reader.find(&snapshot.tree, "/resources/shop.jsonl").await?.unwrap();
        Ok(reader.content(&node)?.try_collect::<Vec<_>>().await?.concat())
    }
}

/// What restic's check says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Restic {
    /// It finds it too.
    Agrees,
    /// It is content.
    Silent,
    /// It would take most of a minute: it repeats what is missing, and expands whatever is there.
    NotAsked,
}

struct Case {
    name: &'static str,
    /// Does the damage and returns the path that the finding must name.
    damage: fn(&Fixture) -> String,
    read_data: ReadData,
    kind: FindingKind,
    /// Snapshots that the finding must name.
    reaches: u64,
    restic: Restic,
}

fn node(name: &str, rest: &str) -> String {
    let time = "2026-01-02T03:04:05Z";
    format!(r#"{{"name":"{name}","mtime":"{time}","atime":"{time}","ctime":"{time}","uid":0,"gid":0,{rest}}}"#)
}

fn file(name: &str, size: u64) -> String {
    let content = Id::of(b"abc");
    node(name, &format!(r#""type":"file","size":{size},"content":["{content}"]"#))
}

const ALL: ReadData = ReadData::All;
const NONE: ReadData = ReadData::None;

const CASES: &[Case] = &[
    Case {
        name: "a flipped bit in a blob of a file",
        damage: |fixture| fixture.flip(&fixture.backups[1].data, 100),
        read_data: ALL,
        kind: FindingKind::PackDamaged,
        reaches: 1,
        restic: Restic::Agrees,
    },
    Case {
        name: "a flipped bit in the header of a pack",
        damage: |fixture| {
            fixture.change(&fixture.backups[1].data, |bytes| *bytes.iter_mut().nth_back(30).unwrap() ^= 1)
        },
        read_data: ALL,
        kind: FindingKind::PackDamaged,
        reaches: 0,
        restic: Restic::Agrees,
    },
    Case {
        name: "a header length beyond the pack",
        damage: |fixture| {
            fixture
                .change(&fixture.backups[1].data, |bytes| bytes.iter_mut().rev().take(4).for_each(|byte| *byte = 0xff))
        },
        read_data: ALL,
        kind: FindingKind::PackDamaged,
        reaches: 0,
        restic: Restic::Agrees,
    },
    Case {
        name: "a flipped bit in a directory",
        damage: |fixture| fixture.flip(&fixture.backups[1].trees, 20),
        read_data: NONE,
        kind: FindingKind::PackDamaged,
        reaches: 1,
        restic: Restic::Agrees,
    },
    Case {
        name: "a flipped bit in an index",
        damage: |fixture| fixture.flip(&fixture.backups[1].index, 50),
        read_data: NONE,
        kind: FindingKind::IndexUnreadable,
        reaches: 0,
        restic: Restic::Agrees,
    },
    Case {
        name: "a flipped bit in a snapshot",
        damage: |fixture| fixture.flip(&format!("snapshots/{}", fixture.backups[1].snapshot), 60),
        read_data: NONE,
        kind: FindingKind::SnapshotUnreadable,
        reaches: 0,
        restic: Restic::Agrees,
    },
    Case {
        name: "a flipped bit in a key",
        damage: |fixture| fixture.flip(&fixture.key(), 40),
        read_data: NONE,
        kind: FindingKind::KeyUnreadable,
        reaches: 0,
        restic: Restic::Agrees,
    },
    Case {
        name: "a truncated pack",
        damage: |fixture| fixture.change(&fixture.backups[1].data, |bytes| bytes.truncate(1000)),
        read_data: NONE,
        kind: FindingKind::PackSize,
        reaches: 1,
        restic: Restic::Agrees,
    },
    Case {
        name: "an empty pack",
        damage: |fixture| fixture.change(&fixture.backups[1].data, Vec::clear),
        read_data: NONE,
        kind: FindingKind::PackSize,
        reaches: 1,
        restic: Restic::Agrees,
    },
    Case {
        name: "a pack that is longer than its blobs",
        damage: |fixture| fixture.change(&fixture.backups[1].data, |bytes| bytes.push(0)),
        read_data: NONE,
        kind: FindingKind::PackSize,
        reaches: 0,
        restic: Restic::Agrees,
    },
    Case {
        name: "a missing pack of files",
        damage: |fixture| fixture.remove(&fixture.backups[1].data),
        read_data: NONE,
        kind: FindingKind::PackMissing,
        reaches: 1,
        restic: Restic::Agrees,
    },
    Case {
        name: "a missing pack of directories",
        damage: |fixture| fixture.remove(&fixture.backups[1].trees),
        read_data: NONE,
        kind: FindingKind::PackMissing,
        reaches: 1,
        restic: Restic::NotAsked,
    },
    Case {
        name: "a missing index",
        damage: |fixture| {
            fixture.remove(&fixture.backups[1].index);
            "index".into()
        },
        read_data: NONE,
        kind: FindingKind::BlobsMissing,
        reaches: 1,
        restic: Restic::Agrees,
    },
    Case {
        name: "a snapshot of a directory that is nowhere",
        damage: |fixture| {
            fixture.forge().snapshot(&Id::of(b"nowhere"));
            "index".into()
        },
        read_data: NONE,
        kind: FindingKind::BlobsMissing,
        reaches: 1,
        restic: Restic::Agrees,
    },
    Case {
        name: "an index that takes one blob for another",
        damage: |fixture| {
            fixture.change_index(|index| {
                let packs = index["packs"].as_array_mut().unwrap();
                let pack = packs.iter_mut().find(|pack| pack["blobs"][0]["type"] == "data").unwrap();
                let (first, second) = (pack["blobs"][0]["id"].clone(), pack["blobs"][1]["id"].clone());
                pack["blobs"][0]["id"] = second;
                pack["blobs"][1]["id"] = first;
            });
            fixture.backups[1].data.clone()
        },
        read_data: ALL,
        kind: FindingKind::PackDamaged,
        reaches: 1,
        restic: Restic::Agrees,
    },
    Case {
        name: "an index that claims a blob of 4 GiB",
        damage: |fixture| {
            fixture.change_index(|index| {
                let packs = index["packs"].as_array_mut().unwrap();
                let pack = packs.iter_mut().find(|pack| pack["blobs"][0]["type"] == "data").unwrap();
                pack["blobs"][0]["length"] = u32::MAX.into();
                pack["blobs"][0]["uncompressed_length"] = u32::MAX.into();
            });
            fixture.backups[1].data.clone()
        },
        read_data: ALL,
        kind: FindingKind::PackSize,
        reaches: 1,
        restic: Restic::Agrees,
    },
    Case {
        name: "a directory that claims 4 GiB",
        damage: |fixture| {
            fixture.change_index(|index| {
                let packs = index["packs"].as_array_mut().unwrap();
                let pack = packs.iter_mut().find(|pack| pack["blobs"][0]["type"] == "tree").unwrap();
                let blobs = pack["blobs"].as_array_mut().unwrap();
                blobs.iter_mut().for_each(|blob| blob["uncompressed_length"] = u32::MAX.into());
            });
            fixture.backups[1].trees.clone()
        },
        read_data: NONE,
        kind: FindingKind::PackDamaged,
        reaches: 1,
        restic: Restic::Silent,
    },
    Case {
        name: "a blob that expands to 200 MiB",
        damage: |fixture| {
            let id = Id::of(b"bomb");
            let stored = zstd::encode_all(std::io::Read::take(std::io::repeat(0), 200 << 20), 1).unwrap();
            let bomb = ForgedBlob { tree: false, id, stored, uncompressed: Some(100) };
            let (path, indexed) = fixture.forge().pack(&[bomb]);
            fixture.forge().index(&[indexed]);
            path
        },
        read_data: ALL,
        kind: FindingKind::PackDamaged,
        reaches: 0,
        restic: Restic::NotAsked,
    },
    Case {
        name: "an index that expands to 200 MiB",
        damage: |fixture| {
            let bomb = zstd::encode_all(std::io::Read::take(std::io::repeat(b' '), 200 << 20), 1).unwrap();
            fixture.forge().write_sealed("index", &[&[2], &bomb[..]].concat())
        },
        read_data: NONE,
        kind: FindingKind::IndexUnreadable,
        reaches: 0,
        restic: Restic::NotAsked,
    },
    Case {
        name: "an index of endless depth",
        damage: |fixture| {
            let deep = format!(r#"{{"packs":[{{"id":{}"#, "[".repeat(1 << 20));
            fixture.forge().write("index", deep.as_bytes())
        },
        read_data: NONE,
        kind: FindingKind::IndexUnreadable,
        reaches: 0,
        restic: Restic::Agrees,
    },
    Case {
        name: "a snapshot that is no snapshot",
        damage: |fixture| fixture.forge().write("snapshots", br#"{"time":"yesterday"}"#),
        read_data: NONE,
        kind: FindingKind::SnapshotUnreadable,
        reaches: 0,
        restic: Restic::Agrees,
    },
    Case {
        name: "a directory that is no directory",
        damage: |fixture| {
            let forge = fixture.forge();
            let (path, indexed) = forge.pack(&[ForgedBlob::tree("{\"nodes\":7}")]);
            forge.index(&[indexed]);
            forge.snapshot(&Id::of(b"{\"nodes\":7}"));
            path
        },
        read_data: NONE,
        kind: FindingKind::PackDamaged,
        reaches: 1,
        restic: Restic::Agrees,
    },
    Case {
        name: "a name that occurs twice in its directory",
        damage: |fixture| {
            format!("tree {}", fixture.forge_tree(&format!(r#"{{"nodes":[{},{}]}}"#, file("a", 3), file("a", 3))))
        },
        read_data: NONE,
        kind: FindingKind::TreeInvalid,
        reaches: 1,
        restic: Restic::Silent,
    },
    Case {
        name: "a directory that is not sorted",
        damage: |fixture| {
            format!("tree {}", fixture.forge_tree(&format!(r#"{{"nodes":[{},{}]}}"#, file("b", 3), file("a", 3))))
        },
        read_data: NONE,
        kind: FindingKind::TreeInvalid,
        reaches: 1,
        restic: Restic::Silent,
    },
    Case {
        name: "a name that leads out of its directory",
        damage: |fixture| format!("tree {}", fixture.forge_tree(&format!(r#"{{"nodes":[{}]}}"#, file("../a", 3)))),
        read_data: NONE,
        kind: FindingKind::TreeInvalid,
        reaches: 1,
        restic: Restic::Silent,
    },
    Case {
        name: "a directory without a tree",
        damage: |fixture| {
            let tree = format!(r#"{{"nodes":[{}]}}"#, node("a", r#""type":"dir","content":null"#));
            format!("tree {}", fixture.forge_tree(&tree))
        },
        read_data: NONE,
        kind: FindingKind::TreeInvalid,
        reaches: 1,
        restic: Restic::Agrees,
    },
    Case {
        name: "a file of another size than its blobs",
        damage: |fixture| format!("tree {}", fixture.forge_tree(&format!(r#"{{"nodes":[{}]}}"#, file("a", 4)))),
        read_data: NONE,
        kind: FindingKind::FileSize,
        reaches: 1,
        restic: Restic::Silent,
    },
    Case {
        name: "a lock that cannot be read",
        damage: |fixture| {
            let garbage = [7; 100];
            let lock = format!("locks/{}", Id::of(&garbage));
            std::fs::write(fixture.path.join(&lock), garbage).unwrap();
            lock
        },
        read_data: NONE,
        kind: FindingKind::LockUnreadable,
        reaches: 0,
        restic: Restic::Silent,
    },
    Case {
        name: "a lock whose holder is gone",
        damage: |fixture| {
            let lock =
                r#"{"time":"2026-01-02T03:04:05Z","exclusive":false,"hostname":"gone","username":"root","pid":1}"#;
            fixture.forge().write("locks", lock.as_bytes())
        },
        read_data: NONE,
        kind: FindingKind::StaleLock,
        reaches: 0,
        // it does not even begin
        restic: Restic::Agrees,
    },
    Case {
        name: "packs that no index names",
        damage: |fixture| {
            fixture.forge().pack(&[ForgedBlob::data(b"orphan")]);
            "data".into()
        },
        read_data: NONE,
        kind: FindingKind::UnreferencedPacks,
        reaches: 0,
        restic: Restic::Silent,
    },
    Case {
        name: "a blob that is stored twice",
        damage: |fixture| {
            let forge = fixture.forge();
            let twice = [(); 2].map(|()| forge.pack(&[ForgedBlob::data(b"one"), ForgedBlob::data(b"two")]).1);
            let other = forge.pack(&[ForgedBlob::data(b"two")]).1;
            forge.index(&[twice[0].clone(), other]);
            "data".into()
        },
        read_data: NONE,
        kind: FindingKind::DuplicateBlobs,
        reaches: 0,
        restic: Restic::Silent,
    },
];

fn named<'a>(report: &'a CheckReport, kind: FindingKind, file: &str) -> Option<&'a stillpoint_repository::Finding> {
    report.findings.iter().find(|finding| finding.kind == kind && finding.file == file)
}

async fn tried(case: &'static Case) {
    let fixture = Fixture::new().await;
    let first = fixture.repository.snapshot(&fixture.backups[0].snapshot).await.unwrap();
    let file = (case.damage)(&fixture);
    let report = fixture.check(case.read_data).await;
    let name = case.name;
    let finding = named(&report, case.kind, &file).unwrap_or_else(|| panic!("{name}: {file}: {report:#?}"));
    assert_eq!(finding.affected.snapshot_count, case.reaches, "{name}: {finding:#?}");
    assert_eq!(report.errors() > 0, case.kind.severity() == Severity::Error, "{name}: {report:#?}");
    eprintln!("{name}: {}: {}", finding.file, finding.message);
    let sound = fixture.content(&first).await;
    assert!(sound.is_ok_and(|content| content == fixture.backups[0].content), "{name}: the other backup is sound");
    if case.restic != Restic::NotAsked && require::program("restic").is_some() {
        let arguments: &[&str] = if case.read_data == NONE { &["check"] } else { &["check", "--read-data"] };
        let path = fixture.path.clone();
        let checked = tokio::task::spawn_blocking(move || restic(&path, arguments)).await.unwrap();
        let said = String::from_utf8_lossy(&[checked.stdout, checked.stderr].concat()).into_owned();
        assert_eq!(checked.status.success(), case.restic == Restic::Silent, "{name}: {said}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_damage_is_found_by_name_and_what_is_sound_stays_readable() {
    // a few at a time, since restic repeats what it cannot read, with pauses
    let cases = futures::stream::iter(CASES).map(|case| tokio::spawn(tried(case))).buffer_unordered(6);
    let failed: Vec<_> = cases.filter_map(async |tried| tried.err()).collect().await;
    assert!(failed.is_empty(), "{failed:#?}");
    let peak = peak_memory();
    assert!(peak < 600 << 20, "hostile sizes are bounded: {peak}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_undamaged_repository_has_no_finding() {
    let fixture = Fixture::new().await;
    for read_data in [NONE, ALL, ReadData::Percent(50.0), ReadData::Part { part: 1, of: 2 }] {
        let report = fixture.check(read_data).await;
        assert!(report.findings.is_empty(), "{report:#?}");
        assert_eq!((report.snapshots, report.trees, report.files), (2, 4, 4));
    }
    for (read_data, packs) in [(NONE, 0), (ReadData::Percent(50.0), 2), (ALL, 4)] {
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
    let report = fixture.check(ALL).await;
    let mut found: Vec<_> = report.findings.iter().map(|finding| (finding.kind, finding.file.as_str())).collect();
    let mut expected: Vec<_> = strangers.iter().map(|name| (FindingKind::ForeignFile, name.as_str())).collect();
    found.sort_unstable_by_key(|(_, file)| *file);
    expected.sort_unstable_by_key(|(_, file)| *file);
    assert_eq!(found, expected);
    let first = fixture.repository.snapshot(&fixture.backups[0].snapshot).await.unwrap();
    assert!(fixture.content(&first).await.unwrap() == fixture.backups[0].content);
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
    let error = fixture.content(&second).await.unwrap_err();
    assert!(error.to_string().contains(&lost), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_index_that_is_missing_is_named_by_a_reader_and_made_anew_by_restic() {
    let Some(_restic) = require::program("restic") else { return };
    let fixture = Fixture::new().await;
    let second = fixture.repository.snapshot(&fixture.backups[1].snapshot).await.unwrap();
    fixture.remove(&fixture.backups[1].index);
    let error = fixture.content(&second).await.unwrap_err();
    assert!(matches!(error, Error::BlobMissing { .. }), "{error}");
    for advice in ["stillpoint repo check", "rebuild-index"] {
        assert!(error.to_string().contains(advice), "{error}");
    }
    let report = fixture.check(NONE).await;
    assert!(named(&report, FindingKind::UnreferencedPacks, "data").is_some(), "{report:#?}");
    let missing = named(&report, FindingKind::BlobsMissing, "index").unwrap();
    assert!(missing.advice.contains("rebuild-index"), "{missing:?}");
    restic_ok(&fixture.path, ["rebuild-index"]);
    let report = fixture.check(ALL).await;
    assert!(report.findings.is_empty(), "{report:#?}");
    assert!(fixture.content(&second).await.unwrap() == fixture.backups[1].content);
}

/// The most memory that this process ever had.
fn peak_memory() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("VmHWM:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap() << 10
}
