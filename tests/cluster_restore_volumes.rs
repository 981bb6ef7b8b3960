//! Claims of a real node get their data back, file by file, before anything is created that runs; whatever is killed on
//! the way, the next restore goes on.
//!
//! The cluster has no scheduler: a task of the test puts every pod on the node, those that fill claims too.

#![allow(clippy::unwrap_used)]

mod common;
#[allow(dead_code)]
#[path = "../filetree/tests/common/manifest.rs"]
mod manifest;

use std::{
    fs::{self, File, Permissions},
    os::unix::fs::{FileExt, MetadataExt, PermissionsExt, chown, symlink},
    path::Path,
    process::{Command, Stdio},
};

use assert_cmd::assert::Assert;
use common::{
    cluster::{Real, ask, create, delete, eventually, get, on_real_cluster},
    shell::{self, User},
    volumes::{NODE, NODE_NAME, Scheduler, claim, kubelet_root, pod, pods},
};
use http::Method;
use manifest::{Manifest, manifest};
use rustix::fs::{CWD, FileType, Mode, XattrFlags, mknodat, setxattr};
use serde_json::{Value, json};
use stillpoint_test_support::{bucket, loop_mount::LoopMount, require};

/// It crashes where the data is not there yet, which counts a restart.
const NEEDS_DATA: &str = "grep -q last /a/last || exit 1; sleep 3600 & wait";
const MARKER: &str = ".stillpoint-restore";
const HELPER: [&str; 4] =
    ["--helper-image", "localhost/stillpoint:test", "--helper-host-network", "--accept-untrusted"];

/// A namespace with a claim, its backup in object storage, and who puts pods on the node.
struct Shop {
    real: Real,
    user: User,
    kubeconfig: String,
    volume: LoopMount,
    _scheduler: Scheduler,
}

/// Runs a test on a namespace that was backed up, with the data that `data` made.
async fn backed_up(script: &str, data: impl FnOnce(&Path), test: impl AsyncFnOnce(&Shop)) {
    let (Some(kubeconfig), Some(bucket)) = (require::env(NODE), bucket::s3()) else { return };
    let Some(ext4) = require::loop_device("ext4") else { return };
    on_real_cluster(NODE, async |real| {
        shell::put_image_together();
        let mut user = User::new().with("STILLPOINT_REPO", &format!("{}/shop", bucket.url));
        user = user.with("AWS_ALLOW_HTTP", "true");
        for (name, value) in &bucket.variables {
            user = user.with(name, value);
        }
        let volume = LoopMount::new(ext4);
        data(&volume.path());
        claim(&real, "a", &volume.path()).await;
        pod(&real, "app", &["a"], script, &[]).await;
        user.prints(0, &["repo", "init"]);
        let (root, journal, spool) = (kubelet_root(), user.path("journal"), user.path("spool"));
        let scope = ["--unsigned", "--include-namespaces", &real.namespace, "--kubeconfig", &kubeconfig];
        let node = ["--node-local", NODE_NAME, "--journal", &journal, "--spool", &spool];
        let node = [&node[..], &["--kubelet-root", root.to_str().unwrap()]].concat();
        user.prints(0, &[&["backup", "create", "whole"], &scope[..], &node].concat());
        let scheduler = Scheduler::start(&real);
        test(&Shop { real, user, kubeconfig, volume, _scheduler: scheduler }).await;
    })
    .await;
}

impl Shop {
    /// Removes the namespace, its volume, and what is in that.
    async fn lose(&self) {
        let Real { client, namespace, .. } = &self.real;
        let path = format!("/api/v1/namespaces/{namespace}");
        delete(client, &path).await;
        eventually("the namespace is gone", async || ask(client, Method::GET, &path, &Value::Null).await.is_err())
            .await;
        delete(client, &format!("/api/v1/persistentvolumes/{namespace}-a")).await;
        self.empty();
    }

    fn empty(&self) {
        for entry in fs::read_dir(self.volume.path()).unwrap().map(Result::unwrap) {
            match entry.file_type().unwrap().is_dir() {
                true if entry.file_name() == "lost+found" => {}
                true => fs::remove_dir_all(entry.path()).unwrap(),
                false => fs::remove_file(entry.path()).unwrap(),
            }
        }
    }

    fn arguments<'a>(&'a self, more: &[&'a str]) -> Vec<&'a str> {
        let create = ["restore", "create", "--from-backup", "whole", "--kubeconfig", &self.kubeconfig];
        [&create[..], &HELPER, more].concat()
    }

    fn restores(&self, more: &[&str]) -> Assert {
        self.user.runs(&self.arguments(more))
    }

    async fn refuses(&self, words: &[&str], more: &[&str]) {
        let arguments = self.arguments(more);
        tokio::task::block_in_place(|| self.user.is_refused(1, words, &arguments));
        assert_eq!(self.pods().await, [""; 0], "a pod is left");
    }

    async fn pods(&self) -> Vec<String> {
        pods(&self.real).await
    }

    async fn claim(&self) -> Value {
        let path = format!("/api/v1/namespaces/{}/persistentvolumeclaims/a", self.real.namespace);
        get(&self.real.client, &path).await
    }
}

/// Several owners, modes and kinds of files, extended attributes, and a file that is nearly all a hole.
fn many_kinds(top: &Path) {
    let folder = top.join("folder");
    fs::create_dir(&folder).unwrap();
    for (name, owner, mode) in
        [("mine", 0, 0o644), ("theirs", 999, 0o600), ("nobody", 65534, 0o000), ("suid", 1000, 0o4755)]
    {
        let path = folder.join(name);
        fs::write(&path, format!("of {name}").repeat(1000)).unwrap();
        chown(&path, Some(owner), Some(owner + 1)).unwrap();
        fs::set_permissions(&path, Permissions::from_mode(mode)).unwrap();
    }
    fs::hard_link(folder.join("mine"), top.join("again")).unwrap();
    symlink("folder/nowhere", top.join("link")).unwrap();
    mknodat(CWD, top.join("pipe"), FileType::Fifo, Mode::RUSR, 0).unwrap();
    setxattr(folder.join("theirs"), "user.colour", b"blue", XattrFlags::empty()).unwrap();
    // cap_net_bind_service+ep, as setcap writes it
    let capability = [1, 0, 0, 2, 0, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    setxattr(folder.join("mine"), "security.capability", &capability, XattrFlags::empty()).unwrap();
    File::create(top.join("sparse")).unwrap().write_all_at(b"end", 8 << 20).unwrap();
    fs::write(top.join("last"), "last").unwrap();
    chown(&folder, Some(999), Some(999)).unwrap();
    fs::set_permissions(&folder, Permissions::from_mode(0o1770)).unwrap();
    chown(top, Some(7), Some(7)).unwrap();
}

/// A tree but for its times of access, which the backup and the test itself set.
fn described(top: &Path) -> Manifest {
    let mut manifest = manifest(top);
    manifest.values_mut().for_each(|entry| entry.accessed = None);
    manifest
}

#[tokio::test(flavor = "multi_thread")]
async fn a_claim_gets_its_files_as_they_were_before_its_pod_is_created() {
    backed_up(NEEDS_DATA, many_kinds, async |shop| {
        let before = described(&shop.volume.path());
        assert!(before[Path::new("sparse")].stored.is_none_or(|stored| stored < 1 << 20));
        shop.lose().await;
        let foretold = shop.restores(&["--dry-run"]);
        let foretold = shell::text(&foretold.code(0).get_output().stdout);
        assert!(
            foretold.contains(&format!("fills persistentvolumeclaims.core/{}/a", shop.real.namespace)),
            "{foretold}"
        );

        let restored = tokio::task::block_in_place(|| shop.restores(&["-o", "json"]));
        let restored: Value = serde_json::from_slice(&restored.code(0).get_output().stdout).unwrap();
        assert_eq!(
            (&restored["notFilled"], &restored["filled"][0]["problems"]),
            (&json!([]), &json!([])),
            "{restored}"
        );
        assert_eq!(described(&shop.volume.path()), before);
        let app = format!("/api/v1/namespaces/{}/pods/app", shop.real.namespace);
        eventually("the pod runs", async || {
            let status = get(&shop.real.client, &app).await["status"]["containerStatuses"][0].clone();
            assert!(status["restartCount"].as_u64().unwrap_or_default() == 0, "it ran without its data: {status}");
            status["state"]["running"].is_object()
        })
        .await;
        assert_eq!(shop.pods().await, ["app"], "what filled the claim is left");

        // the same again: all of it is there
        let again = tokio::task::block_in_place(|| shop.restores(&["-o", "json"]));
        let again: Value = serde_json::from_slice(&again.code(0).get_output().stdout).unwrap();
        assert_eq!((&again["created"], &again["filled"], &again["notFilled"]), (&json!(0), &json!([]), &json!([])));
        assert!(again["kept"].as_array().unwrap().iter().all(|kept| kept["differs"] == json!([])), "{again}");
    })
    .await;
}

/// When a file was last changed, if it is there.
fn changed(file: &Path) -> Option<(i64, i64)> {
    file.metadata().ok().map(|metadata| (metadata.ctime(), metadata.ctime_nsec()))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restore_that_is_killed_while_it_fills_leaves_no_pod_and_the_next_one_goes_on() {
    let noise =
        |top: &Path| fs::write(top.join("last"), "last".repeat(1 << 10) + &common::cluster::noise(1, 4 << 20)).unwrap();
    backed_up(NEEDS_DATA, noise, async |shop| {
        let before = described(&shop.volume.path());
        shop.lose().await;
        let pods = format!("/api/v1/namespaces/{}/pods", shop.real.namespace);
        for kill in ["-INT", "-KILL", "the pod"] {
            let left_at = changed(&shop.volume.path().join("last"));
            let slowly = shop.arguments(&["--limit-download", "100"]);
            let mut restore = shop.user.command(&slowly);
            let restore = restore.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
            // what an earlier one left is begun again
            let (file, marker) = (shop.volume.path().join("last"), shop.volume.path().join(MARKER));
            eventually("the claim is being filled", async || marker.exists() && changed(&file) > left_at).await;
            if kill == "the pod" {
                delete(&shop.real.client, &format!("{pods}/stillpoint-fill-a?gracePeriodSeconds=0")).await;
            } else {
                Command::new("kill").args([kill, &restore.id().to_string()]).status().unwrap();
            }
            let ended = tokio::task::spawn_blocking(move || restore.wait_with_output().unwrap()).await.unwrap();
            let said = shell::text(&ended.stderr);
            let left = shop.pods().await;
            match kill {
                "-KILL" => assert_eq!(left, ["stillpoint-fill-a"]),
                "-INT" => assert!(left.is_empty() && said.contains("interrupted"), "{left:?} {said}"),
                _ => assert!(left.is_empty() && said.contains("was not filled: the pod"), "{left:?} {said}"),
            }
            assert_eq!(shop.claim().await["metadata"]["annotations"]["stillpoint.dev/filled-from"], Value::Null);
        }
        tokio::task::block_in_place(|| shop.restores(&[])).code(0);
        assert_eq!(described(&shop.volume.path()), before);
        assert_eq!(shop.pods().await, ["app"]);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_filled_is_named_with_what_to_do_and_nothing_that_runs_is_created() {
    let one = |top: &Path| fs::write(top.join("last"), "last").unwrap();
    backed_up("sleep 3600 & wait", one, async |shop| {
        // what exists is kept, or filled if nobody uses it and it is empty
        let kept = tokio::task::block_in_place(|| shop.restores(&[])).code(3);
        assert!(shell::text(&kept.get_output().stdout).contains("was not filled: it existed, and was kept"), "{kept}");
        let pods = format!("/api/v1/namespaces/{}/pods", shop.real.namespace);
        let used = tokio::task::block_in_place(|| shop.restores(&["--into-existing"])).code(1);
        assert!(shell::text(&used.get_output().stderr).contains("the pod app mounts it"), "{used}");
        delete(&shop.real.client, &format!("{pods}/app?gracePeriodSeconds=0")).await;
        eventually("the pod is gone", async || shop.pods().await.is_empty()).await;
        shop.refuses(&["it holds \"last\"", "nothing that runs was created"], &["--into-existing"]).await;
        shop.empty();
        tokio::task::block_in_place(|| shop.restores(&["--into-existing"])).code(0);
        assert_eq!(fs::read_to_string(shop.volume.path().join("last")).unwrap(), "last");

        shop.lose().await;
        let unbound = ["the claim is Pending", "storage class \"absent\"", "--storage-class-mappings"];
        let absent = ["--storage-class-mappings", "manual:absent", "--volume-timeout", "3s"];
        shop.refuses(&unbound, &absent).await;
        assert_eq!(shop.claim().await["spec"]["storageClassName"], "absent");

        let Real { client, namespace, .. } = &shop.real;
        let quota = json!({"metadata": {"name": "no-pods"}, "spec": {"hard": {"pods": "0"}}});
        create(client, &format!("/api/v1/namespaces/{namespace}/resourcequotas"), &quota).await;
        shop.refuses(&["its pod is refused", "no-pods", "pod security"], &[]).await;
    })
    .await;
}
