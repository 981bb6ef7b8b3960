//! Cuts of volumes and API on a real node: hooks that fail, strangers that thaw, backups that meet or are killed.
//!
//! That a cut is one instant is proven in `cluster_causality.rs`.

#![allow(clippy::unwrap_used)]

mod common;

use std::{
    path::Path,
    process::{Command, Stdio},
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use common::{
    backups::PASSWORD,
    cluster::{eventually, on_real_cluster},
    volumes::{IDLE, Lab, NODE, NODE_NAME, claim, kubelet_root, pod, writes},
};
use futures::FutureExt;
use rand::RngExt;
use stillpoint_agent::{OnStep, Report, Step, VolumesRequest};
use stillpoint_api::{HookOutcome, Level, Method, ProblemKind};
use stillpoint_catalog as catalog;
use stillpoint_repository::signing::Trust;
use stillpoint_test_support::{loop_mount::LoopMount, require};

#[tokio::test(flavor = "multi_thread")]
async fn a_pod_whose_pre_hook_fails_has_no_copy_and_its_post_runs_while_another_pods_volume_is_there() {
    let Some(ext4) = require::loop_device("ext4") else { return };
    on_real_cluster(NODE, async |real| {
        let (a, b, lab) = (LoopMount::new(ext4), LoopMount::new(ext4), Lab::new().await);
        claim(&real, "a", &a.path()).await;
        claim(&real, "b", &b.path()).await;
        let failing = [
            ("pre.hook.backup.velero.io/command", r#"["/bin/sh","-c","exit 7"]"#),
            ("post.hook.backup.velero.io/command", r#"["/bin/sh","-c","echo post >/a/post"]"#),
        ];
        pod(&real, "failing", &["a"], IDLE, &failing).await;
        let quiesced = [
            ("pre.hook.backup.velero.io/command", r#"["/bin/sh","-c","echo rest >/b/rest"]"#),
            ("post.hook.backup.velero.io/command", r#"["/bin/sh","-c","rm /b/rest"]"#),
        ];
        pod(&real, "quiesced", &["b"], IDLE, &quiesced).await;

        let manifest = lab.back_up(&real, "hooked", lab.volumes(&real.client, None, None)).await.manifest;
        let held = |claim: &str| manifest.volumes.iter().find(|volume| volume.claim == claim).unwrap().data.held();
        assert!(held("a").is_none(), "{:?}", manifest.volumes);
        assert_eq!(held("b").unwrap().level, Level::Application);
        let subjects: Vec<_> =
            manifest.problems.iter().map(|problem| (problem.kind, problem.subject.as_str())).collect();
        let (claim, hook) =
            (format!("persistentvolumeclaims.core/{}/a", real.namespace), format!("{}/failing pre", real.namespace));
        assert_eq!(subjects, [(ProblemKind::Volume, claim.as_str()), (ProblemKind::Hook, hook.as_str())]);
        let outcomes: Vec<_> = manifest.hooks.iter().map(|hook| (hook.hook.as_str(), hook.outcome)).collect();
        assert!(outcomes.contains(&("pre", HookOutcome::Failed)), "{outcomes:?}");
        assert_eq!(outcomes.iter().filter(|outcome| **outcome == ("post", HookOutcome::Succeeded)).count(), 2);
        assert_eq!(std::fs::read_to_string(a.path().join("post")).unwrap(), "post\n");
        // what the pre hook wrote is in the copy, though the post hook has removed it since
        assert_eq!(lab.file("hooked", "b", "rest").await.unwrap(), b"rest\n");
        assert!(!b.path().join("rest").exists());
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cut_in_which_a_stranger_thaws_is_void_and_taken_again() {
    let Some(ext4) = require::loop_device("ext4") else { return };
    on_real_cluster(NODE, async |real| {
        let (a, lab) = (LoopMount::new(ext4), Lab::new().await);
        claim(&real, "a", &a.path()).await;
        pod(&real, "holder", &["a"], IDLE, &[]).await;
        let (mount, thaws) = (a.path(), Arc::new(AtomicU64::new(0)));
        let seen = thaws.clone();
        let on_step: OnStep = Arc::new(move |step| {
            if step == Step::Revision && seen.fetch_add(1, Ordering::Relaxed) == 0 {
                assert!(Command::new("fsfreeze").arg("-u").arg(&mount).status().unwrap().success());
            }
            std::future::ready(()).boxed()
        });
        let manifest = lab.back_up(&real, "retaken", lab.volumes(&real.client, None, Some(on_step))).await.manifest;
        assert_eq!((manifest.cut.attempts, thaws.load(Ordering::Relaxed)), (2, 2));
        assert!(manifest.problems.is_empty() && manifest.volumes[0].data.held().is_some(), "{:?}", manifest.problems);
    })
    .await;
}

/// Fills a filesystem but for a few files, with holes that are quickly read.
fn fill(folder: &Path) {
    let reserves = |size: &str, file: &Path| {
        let mut reserve = Command::new("fallocate");
        reserve.args(["-l", size]).arg(file).stderr(Stdio::null()).status().unwrap().success()
    };
    for size in ["16M", "1M", "64K", "4K"] {
        let files = (0..).map(|number| folder.join(format!("full{size}.{number}")));
        files.take_while(|file| reserves(size, file)).for_each(drop);
    }
    let files = (0..).map(|number| folder.join(format!("full{number}")));
    let made: Vec<_> = files.take_while(|file| std::fs::write(file, "").is_ok()).collect();
    for file in made.iter().rev().take(10) {
        std::fs::remove_file(file).unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn clones_for_which_a_writer_left_no_room_give_way_in_the_retaken_cut_and_cost_no_other_volume() {
    let (Some(ext4), Some(xfs)) = (require::loop_device("ext4"), require::loop_device("xfs")) else { return };
    on_real_cluster(NODE, async |real| {
        let (a, b, lab) = (LoopMount::new(xfs), LoopMount::new(ext4), Lab::new().await);
        for (mount, name) in [(&a, "a"), (&b, "b")] {
            claim(&real, name, &mount.path()).await;
            for number in 0..200 {
                std::fs::write(mount.path().join(number.to_string()), format!("{number} of {name}")).unwrap();
            }
        }
        pod(&real, "cloned", &["a"], IDLE, &[("hooks.stillpoint.dev/freeze", "false")]).await;
        pod(&real, "frozen", &["b"], IDLE, &[]).await;
        let (folder, seen) = (a.path(), Arc::new(Mutex::new(Vec::new())));
        let cuts = seen.clone();
        let cloned = format!("{}/a", real.namespace);
        let on_step: OnStep = Arc::new(move |step| {
            if step == Step::Snapshot(cloned.clone()) {
                let mut cuts = cuts.lock().unwrap();
                if cuts.is_empty() {
                    fill(&folder);
                }
                cuts.push(own(&folder));
            }
            std::future::ready(()).boxed()
        });
        let volumes = VolumesRequest { max: Duration::from_secs(30), ..lab.volumes(&real.client, None, Some(on_step)) };
        let manifest = lab.back_up(&real, "full", volumes).await.manifest;
        assert!(manifest.problems.is_empty() && manifest.cut.attempts == 2, "{:?}", manifest.problems);
        let held: Vec<_> = manifest.volumes.iter().map(|volume| volume.data.held().unwrap()).collect();
        assert_eq!((held[0].method, held[1].method), (Method::ReadPaused, Method::Precopy), "{held:?}");
        assert!(held[0].reason.contains("No space left") && held[0].reason.contains(" are free"), "{}", held[0].reason);
        // nothing of the first attempt lay there any more when the second one began, and nothing does now
        assert_eq!(*seen.lock().unwrap(), [0, 0]);
        assert_eq!(own(&a.path()), 0);
        for name in ["a", "b"] {
            assert_eq!(lab.file("full", name, "199").await.unwrap(), format!("199 of {name}").as_bytes());
        }
    })
    .await;
}

/// How much of ours lies in a volume.
fn own(volume: &Path) -> usize {
    let names = std::fs::read_dir(volume).unwrap().map(|entry| entry.unwrap().file_name());
    names.filter(|name| name.to_string_lossy().starts_with(".stillpoint-")).count()
}

#[tokio::test(flavor = "multi_thread")]
async fn of_two_backups_at_once_the_second_waits_for_the_filesystem() {
    let Some(ext4) = require::loop_device("ext4") else { return };
    on_real_cluster(NODE, async |real| {
        let (a, lab) = (LoopMount::new(ext4), Lab::new().await);
        claim(&real, "a", &a.path()).await;
        pod(&real, "holder", &["a"], IDLE, &[]).await;
        let windows = Arc::new(Mutex::new(Vec::new()));
        let noting = |backup: &'static str| {
            let windows = windows.clone();
            let on_step: OnStep = Arc::new(move |_| {
                windows.lock().unwrap().push(backup);
                tokio::time::sleep(Duration::from_millis(100)).boxed()
            });
            lab.volumes(&real.client, None, Some(on_step))
        };
        let (one, two) =
            tokio::join!(lab.back_up(&real, "one", noting("one")), lab.back_up(&real, "two", noting("two")));
        for Report { manifest, .. } in [one, two] {
            assert!(manifest.problems.is_empty() && manifest.cut.attempts == 1, "{:?}", manifest.problems);
        }
        let mut order = windows.lock().unwrap().clone();
        order.dedup();
        assert_eq!(order.len(), 2, "their windows were mixed: {order:?}");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_backup_of_an_unchanged_volume_reads_no_file_and_is_the_same() {
    let Some(ext4) = require::loop_device("ext4") else { return };
    on_real_cluster(NODE, async |real| {
        let (a, lab) = (LoopMount::new(ext4), Lab::new().await);
        let file = a.path().join("large");
        std::fs::write(&file, vec![7; 5 << 20]).unwrap();
        claim(&real, "a", &a.path()).await;
        pod(&real, "holder", &["a"], IDLE, &[]).await;
        // stamps are trusted once they are older than the coarsest clock's grain
        eventually("the file is old enough", async || {
            file.metadata().unwrap().modified().unwrap().elapsed().unwrap() > Duration::from_millis(2_100)
        })
        .await;
        let first = lab.back_up(&real, "first", lab.volumes(&real.client, None, None)).await.manifest;
        let second = lab.back_up(&real, "second", lab.volumes(&real.client, None, None)).await.manifest;
        let (first, second) = (first.volumes[0].data.held().unwrap(), second.volumes[0].data.held().unwrap());
        assert_eq!((first.bytes_read, second.bytes_read), (5 << 20, 0));
        assert_eq!(first.tree, second.tree);
        assert_eq!(
            lab.repository.snapshots().await.unwrap().len(),
            2,
            "what nodes stored is kept by the backups alone"
        );
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_backup_that_is_killed_leaves_nothing_frozen_and_no_half_backup_and_the_next_one_works() {
    let Some(ext4) = require::loop_device("ext4") else { return };
    on_real_cluster(NODE, async |real| {
        let (a, lab) = (LoopMount::new(ext4), Lab::new().await);
        claim(&real, "a", &a.path()).await;
        pod(&real, "holder", &["a"], IDLE, &[]).await;
        std::fs::write(a.path().join("file"), "content").unwrap();
        let kubeconfig = require::env(NODE).unwrap();
        let command = |name: &str| {
            let mut command = Command::new(env!("CARGO_BIN_EXE_stillpoint"));
            command.args(["backup", "create", name, "--unsigned", "--include-namespaces", &real.namespace]);
            command.args(["--node-local", NODE_NAME, "--kubeconfig", &kubeconfig, "--repo", &lab.url()]);
            command.arg("--kubelet-root").arg(kubelet_root());
            command.arg("--journal").arg(lab.folder.path().join("journal"));
            command.arg("--spool").arg(lab.folder.path().join("spool"));
            command.env("STILLPOINT_PASSWORD", PASSWORD).stdout(Stdio::null()).stderr(Stdio::null());
            command
        };
        let began = Instant::now();
        assert!(command("whole").status().unwrap().success());
        let whole = began.elapsed();
        for kill in 0..12 {
            let name = format!("killed-{kill}");
            let mut child = command(&name).spawn().unwrap();
            tokio::time::sleep(whole.mul_f64(rand::rng().random_range(0.2..1.0))).await;
            let ended = child.try_wait().unwrap();
            child.kill().unwrap();
            child.wait().unwrap();
            // a second after the death of who stopped it nobody waits any more
            writes(a.path().join("after"), Duration::from_secs(1)).await;
            let listed = catalog::list(&lab.repository, &Trust::default()).await.unwrap();
            let is_there = listed.iter().any(|entry| entry.name == name);
            assert!(ended.is_some() || !is_there || lab.file(&name, "a", "file").await.is_some(), "{name} is half");
        }
        assert!(command("next").status().unwrap().success());
        assert_eq!(lab.file("next", "a", "file").await.unwrap(), b"content");
    })
    .await;
}
