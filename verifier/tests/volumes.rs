//! Restore tests of backups with volumes: every file is read back, damage has a name, and the user's checks count.
#![allow(clippy::unwrap_used)]

mod common;

use std::{fs, os::unix::fs::PermissionsExt, path::Path, time::Duration};

use common::{GOOD, Lab, assert_failed_only, assert_proven};
use object_store::ObjectStoreExt;
use stillpoint_api::{
    CheckKind, Digest, Judgement, Level, Method, ScratchKind, Verdict, VolumeData, VolumeRecord, VolumeSnapshot,
};
use stillpoint_filetree::{backup, selection, volume};
use stillpoint_repository::Node;
use stillpoint_verifier::{Error, VolumeTests};
use tokio::sync::watch;

/// A lab whose backup `volumes` holds the directory as the volume shop/data.
struct VolumeLab {
    lab: Lab,
    folder: tempfile::TempDir,
}

impl VolumeLab {
    async fn new() -> Self {
        Self { lab: Lab::new().await, folder: tempfile::tempdir().unwrap() }
    }

    async fn back_up(&self, directory: &Path) {
        self.place(self.node(directory).await).await;
    }

    async fn place(&self, node: Node) {
        let mut contents = self.lab.contents().await;
        contents.manifest.volumes.push(record(&node));
        contents.volumes.push(("shop".into(), "data".into(), node));
        self.lab.write("volumes", contents, Some(&self.lab.key)).await;
    }

    /// Stores a directory's tree.
    async fn node(&self, directory: &Path) -> Node {
        let repository = &self.lab.repository;
        let request = backup::Request::new("data", "here", vec![directory.to_owned()]);
        backup::backup(repository, &request, watch::Sender::default()).await.unwrap();
        let stored = volume::find(repository, "data", &volume::HostFilter::Any, None).await.unwrap();
        let found = selection::select(&repository.reader().await.unwrap(), &stored, None).await.unwrap();
        let selection::Selected::Node(node) = found.what else { panic!("{found:?}") };
        *node
    }

    async fn test(&self, checks: &[&str]) -> Verdict {
        self.try_test(checks, Duration::from_secs(20)).await.unwrap()
    }

    async fn try_test(&self, checks: &[&str], timeout: Duration) -> Result<Verdict, Error> {
        let checks = checks.iter().map(|check| check.parse().unwrap()).collect();
        let tests = VolumeTests { folder: Some(self.folder.path().to_owned()), checks, timeout };
        let verdict = self.lab.test_volumes(ScratchKind::Embedded, "volumes", self.lab.trust(), tests).await;
        let left: Vec<_> = fs::read_dir(self.folder.path()).unwrap().collect();
        assert!(left.is_empty(), "{left:?}");
        verdict
    }
}

fn record(node: &Node) -> VolumeRecord {
    let snapshot = VolumeSnapshot {
        tree: Digest(node.subtree.unwrap().0),
        node: "a".into(),
        filesystem: "ext4".into(),
        method: Method::Precopy,
        reason: "ext4 can be frozen".into(),
        level: Level::Filesystem,
        stopped: None,
        strangers: Vec::new(),
        files: 2,
        bytes: 100_005,
        bytes_read: 0,
        unread: 0,
    };
    VolumeRecord { namespace: "shop".into(), claim: "data".into(), data: VolumeData::Held(Box::new(snapshot)) }
}

/// A directory with a small file, a larger one deep below, and a link.
fn data() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("hello"), "world").unwrap();
    fs::create_dir_all(folder.path().join("a/b")).unwrap();
    let noise: Vec<u8> = (0..100_000_u32).map(|n| u8::try_from(n.wrapping_mul(2_654_435_761) >> 24).unwrap()).collect();
    fs::write(folder.path().join("a/b/noise"), noise).unwrap();
    std::os::unix::fs::symlink("b/noise", folder.path().join("a/link")).unwrap();
    fs::set_permissions(folder.path().join("hello"), fs::Permissions::from_mode(0o640)).unwrap();
    folder
}

#[tokio::test(flavor = "multi_thread")]
async fn a_volume_is_restored_read_back_and_handed_to_the_users_checks() {
    let (lab, data) = (VolumeLab::new().await, data());
    lab.back_up(data.path()).await;
    let verdict = lab
        .test(&[
            "volume=shop/data: test \"$(cat hello)\" = world && test \"$(stat -c %a hello)\" = 640",
            "volume=shop/data: cmp {path}/a/link {path}/a/b/noise",
        ])
        .await;
    assert_proven(&verdict);
    let volumes = verdict.check(CheckKind::Volumes).unwrap();
    assert_eq!(
        volumes.summary,
        "2 files of 100005 bytes in 1 volume restored and read back, every byte is what was captured"
    );
    assert_eq!(verdict.check(CheckKind::UserChecks).unwrap().summary, "2 commands succeeded");
    assert!(serde_json::to_string(&verdict).unwrap().contains(r#""kind":"userChecks""#));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failing_check_fails_the_verdict_and_a_backup_without_volumes_has_no_such_check() {
    let (lab, data) = (VolumeLab::new().await, data());
    lab.back_up(data.path()).await;
    let verdict = lab.test(&["volume=shop/data: true", "volume=shop/data: echo row 7 missing; exit 4"]).await;
    let check = assert_failed_only(&verdict, CheckKind::UserChecks);
    assert_eq!(check.summary, "1 of 2 commands failed");
    assert_eq!(check.findings[0].message, "it ended with exit code 4: row 7 missing");

    let verdict = lab.test(&["volume=shop/dta: true"]).await;
    assert!(assert_failed_only(&verdict, CheckKind::UserChecks).findings[0].message.contains("holds no data"));

    let verdict = lab.lab.test(GOOD).await;
    assert_eq!((verdict.check(CheckKind::Volumes), verdict.check(CheckKind::UserChecks)), (None, None));
}

#[tokio::test(flavor = "multi_thread")]
async fn damage_in_a_volume_is_named_by_its_file() {
    let lab = VolumeLab::new().await;
    let (data, before) = (data(), lab.lab.packs().await);
    let node = lab.node(data.path()).await;
    let stored: Vec<_> = lab.lab.packs().await.into_iter().filter(|pack| !before.contains(pack)).collect();
    lab.place(node).await;
    assert_proven(&lab.test(&[]).await);
    // the files are in one pack, the directories in another, which is smaller
    let mut sizes = Vec::new();
    for pack in stored {
        sizes.push((lab.lab.objects.head(&pack).await.unwrap().size, pack));
    }
    lab.lab.flip(&sizes.into_iter().max().unwrap().1).await;
    let verdict = lab.test(&["volume=shop/data: grep -q world hello"]).await;
    let check = assert_failed_only(&verdict, CheckKind::Volumes);
    assert!(check.findings.iter().any(|found| found.subject == "volume shop/data: /a/b/noise"), "{check:#?}");
    assert!(!check.findings.iter().any(|found| found.subject.contains("hello")), "{check:#?}");
    assert_eq!(verdict.check(CheckKind::UserChecks).unwrap().judgement, Judgement::Passed);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_volume_that_the_manifest_names_and_the_backup_lacks_fails() {
    let (lab, data) = (VolumeLab::new().await, data());
    let node = lab.node(data.path()).await;
    let mut contents = lab.lab.contents().await;
    let mut missing = record(&node);
    missing.claim = "other".into();
    contents.manifest.volumes.extend([record(&node), missing]);
    contents.volumes.push(("shop".into(), "data".into(), node));
    lab.lab.write("volumes", contents, Some(&lab.lab.key)).await;
    let verdict = lab.test(&["volume=shop/data: true"]).await;
    let volumes = verdict.check(CheckKind::Volumes).unwrap();
    assert_eq!(volumes.findings[0].subject, "volumes/shop/other");
    assert_eq!(verdict.check(CheckKind::UserChecks).unwrap().judgement, Judgement::Failed);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_this_machine_cannot_do_is_no_verdict() {
    let (lab, data) = (VolumeLab::new().await, data());
    lab.back_up(data.path()).await;
    let tests = |folder: &str| VolumeTests {
        folder: Some(folder.into()),
        checks: vec!["volume=shop/data: true".parse().unwrap()],
        ..VolumeTests::default()
    };
    let test = async |tests| lab.lab.test_volumes(ScratchKind::Embedded, "volumes", lab.lab.trust(), tests).await;
    let error = test(tests("/proc/nowhere")).await.unwrap_err();
    assert!(error.to_string().contains("/proc/nowhere"), "{error}");
    let odd = lab.folder.path().join("a b");
    fs::create_dir(&odd).unwrap();
    let error = test(tests(odd.to_str().unwrap())).await.unwrap_err();
    assert!(error.to_string().contains("choose another with --scratch-folder"), "{error}");
}
