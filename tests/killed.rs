//! Killed at every operation that the repository makes: there is no backup, or a complete one, and the next works.
//!
//! The process that is killed is this test binary itself, with a store below its repository that ends it at a chosen
//! operation; what it left is looked at from outside.

#![allow(clippy::unwrap_used)]

mod common;

use std::{
    collections::BTreeMap,
    fs,
    os::unix::process::ExitStatusExt,
    path::{Path as FilePath, PathBuf},
    process::ExitStatus,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use common::{
    backups::{self, PASSWORD, back_up_strictly, find, namespaces},
    cluster::{client, config, config_maps, create_config_maps, create_namespace, embedded, noise, patch, secrets},
};
use futures::{
    StreamExt,
    stream::{self, BoxStream},
};
use kube::config::Kubeconfig;
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use object_store::{ObjectMeta, Result, local::LocalFileSystem, path::Path};
use serde_json::{Value, json};
use stillpoint_api::ObjectRef;
use stillpoint_repository::{Password, Repository, Store};
use stillpoint_test_support::{
    require,
    store::{Behind, Between},
};
use tokio::process::Command;

/// Processes that are killed at the same time: most of their time they wait.
const AT_ONCE: usize = 6;

/// When a process dies, seen from an operation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Moment {
    Before,
    During,
    After,
}

impl Moment {
    const ALL: [Self; 3] = [Self::Before, Self::During, Self::After];
}

/// Kills its process at an operation.
#[derive(Debug, Clone)]
struct Deadly {
    done: Arc<AtomicUsize>,
    at: usize,
    moment: Moment,
}

fn die() -> ! {
    kill(Pid::this(), Signal::SIGKILL).unwrap();
    loop {
        std::thread::park();
    }
}

impl Deadly {
    /// The moment to die at, where this is the operation.
    fn fate(&self) -> Option<Moment> {
        let number = self.done.fetch_add(1, Ordering::SeqCst);
        (number == self.at).then_some(self.moment)
    }
}

impl Between for Deadly {
    async fn through<T: Send>(&self, operation: impl Future<Output = Result<T>> + Send) -> Result<T> {
        match self.fate() {
            None => operation.await,
            Some(Moment::Before) => die(),
            Some(Moment::During) => {
                // asked once, it is under way on another thread
                let _ = futures::poll!(std::pin::pin!(operation));
                die()
            }
            Some(Moment::After) => {
                let _ = operation.await;
                die()
            }
        }
    }

    fn list(&self, list: BoxStream<'static, Result<ObjectMeta>>) -> BoxStream<'static, Result<ObjectMeta>> {
        match self.fate() {
            None => list,
            Some(_) => die(),
        }
    }
}

/// What the process that dies is told.
const KUBECONFIG: &str = "KILLED_KUBECONFIG";
const FOLDER: &str = "KILLED_REPOSITORY";
const AT: &str = "KILLED_AT";
const MOMENT: &str = "KILLED_MOMENT";

#[tokio::test(flavor = "multi_thread")]
#[ignore = "the process that dies, run by the test below"]
async fn takes_a_backup_and_dies_at_an_operation() {
    let told = |name| std::env::var(name).ok();
    let (Some(kubeconfig), Some(folder), Some(at), Some(moment)) =
        (told(KUBECONFIG), told(FOLDER), told(AT), told(MOMENT))
    else {
        return;
    };
    let moment = *Moment::ALL.iter().find(|known| format!("{known:?}") == moment).unwrap();
    let below = Arc::new(LocalFileSystem::new_with_prefix(folder).unwrap().with_fsync(true));
    let deadly = Deadly { done: Arc::default(), at: at.parse().unwrap(), moment };
    let store = Store::new(Arc::new(Behind::new(below, deadly)), Path::default(), "deadly");
    let client = client(config(Kubeconfig::read_from(kubeconfig).unwrap()).await);
    let repository = Repository::open(store, &Password::new(PASSWORD)).await.unwrap();
    back_up_strictly(&client, &repository, "second", namespaces(&["proof"])).await.unwrap();
}

type Objects = BTreeMap<ObjectRef, Value>;

/// What every death is prepared with and held against.
struct Stage {
    client: kube::Client,
    kubeconfig: PathBuf,
    folder: PathBuf,
    /// A repository with one backup.
    template: PathBuf,
    /// What the template's backup holds.
    first: Objects,
    /// What a backup of the cluster as it is holds.
    now: Objects,
    restic: Option<PathBuf>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Left {
    NoBackup,
    ABackup,
    /// The process lived to its end.
    Lived,
}

#[tokio::test(flavor = "multi_thread")]
#[allow(clippy::print_stdout, reason = "the figures of the proof")]
async fn whatever_operation_is_the_last_there_is_no_backup_or_a_complete_one_and_the_next_works() {
    let restic = require::program("restic");
    let cluster = embedded().await;
    let folder = tempfile::tempdir().unwrap();
    let kubeconfig = folder.path().join("kubeconfig");
    fs::write(&kubeconfig, cluster.server.kubeconfig()).unwrap();
    let stage = set(cluster.client.clone(), kubeconfig, folder.path().to_owned(), restic).await;
    for moment in Moment::ALL {
        let left = die_at_every_operation(&stage, moment).await;
        let count = |what| left.iter().filter(|left| **left == what).count();
        println!("{moment:?}: {} without a backup, {} with one", count(Left::NoBackup), count(Left::ABackup));
        assert!(count(Left::NoBackup) > 10, "{left:?}");
        // the lock is removed after the commit
        assert!(count(Left::ABackup) > 0, "{left:?}");
    }
}

async fn set(client: kube::Client, kubeconfig: PathBuf, folder: PathBuf, restic: Option<PathBuf>) -> Stage {
    create_namespace(&client, "proof").await;
    create_config_maps(&client, "proof", "some", 100, 5000).await;
    let template = folder.join("template");
    let repository = backups::init(Store::from_url(template.to_str().unwrap()).unwrap()).await;
    back_up_strictly(&client, &repository, "first", namespaces(&["proof"])).await.unwrap();
    let first = backups::objects(&find(&repository, "first").await).await;
    for number in (0..100).step_by(7) {
        let change = json!({"data": {"text": noise(number + 1000, 5000)}});
        patch(&client, &format!("{}/some-{number:05}", config_maps("proof")), &change).await;
    }
    common::cluster::create(&client, &secrets("proof"), &json!({"metadata": {"name": "new"}})).await;
    let repository = backups::repository().await;
    back_up_strictly(&client, &repository, "now", namespaces(&["proof"])).await.unwrap();
    let now = backups::objects(&find(&repository, "now").await).await;
    assert_ne!(first, now);
    Stage { client, kubeconfig, folder, template, first, now, restic }
}

/// What each death left, until a process lives.
async fn die_at_every_operation(stage: &Stage, moment: Moment) -> Vec<Left> {
    let mut left: Vec<Left> = Vec::new();
    while !left.contains(&Left::Lived) {
        let next = left.len()..left.len() + AT_ONCE;
        left.extend(stream::iter(next).map(|at| stage.die(at, moment)).buffered(AT_ONCE).collect::<Vec<_>>().await);
    }
    left
}

impl Stage {
    /// Lets a process die in a copy of the template and judges what it left.
    async fn die(&self, at: usize, moment: Moment) -> Left {
        let case = format!("{moment:?} operation {at}");
        let folder = self.folder.join(format!("{moment:?}-{at}"));
        copy(&self.template, &folder);
        let ended = self.run(&folder, at, moment).await;
        let store = Store::from_url(folder.to_str().unwrap()).unwrap();
        let repository = Repository::open(store, &Password::new(PASSWORD)).await.unwrap();
        let names = backups::names(&repository).await;
        let left = match (ended.success(), names.join(" ").as_str()) {
            (true, "first second") => Left::Lived,
            (false, "first second") => Left::ABackup,
            (false, "first") => Left::NoBackup,
            _ => panic!("{case}: {ended}, and the repository lists {names:?}"),
        };
        assert!(ended.success() || ended.signal() == Some(Signal::SIGKILL as i32), "{case}: {ended}");
        back_up_strictly(&self.client, &repository, "third", namespaces(&["proof"]))
            .await
            .unwrap_or_else(|error| panic!("{case}: the next backup fails: {error}"));
        for name in backups::names(&repository).await {
            let held = backups::objects(&find(&repository, &name).await).await;
            assert!(held == *if name == "first" { &self.first } else { &self.now }, "{case}: {name} is not complete");
        }
        self.check_with_restic(&folder, &case).await;
        fs::remove_dir_all(&folder).unwrap();
        left
    }

    async fn run(&self, folder: &FilePath, at: usize, moment: Moment) -> ExitStatus {
        let mut command = Command::new(std::env::current_exe().unwrap());
        command.args(["--exact", "takes_a_backup_and_dies_at_an_operation", "--ignored", "--nocapture"]);
        command.env(KUBECONFIG, &self.kubeconfig).env(FOLDER, folder);
        command.env(AT, at.to_string()).env(MOMENT, format!("{moment:?}"));
        command.kill_on_drop(true).output().await.unwrap().status
    }

    /// restic must find nothing wrong once the dead process's lock is gone, which it calls stale by itself.
    async fn check_with_restic(&self, folder: &FilePath, case: &str) {
        let Some(restic) = &self.restic else { return };
        for arguments in [&["unlock"][..], &["check", "--read-data"]] {
            let mut command = Command::new(restic);
            command.args(["--no-cache", "-r"]).arg(folder).args(arguments).env("RESTIC_PASSWORD", PASSWORD);
            let output = command.kill_on_drop(true).output().await.unwrap();
            let said = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
            assert!(output.status.success(), "{case}: restic {arguments:?}: {said}");
        }
    }
}

fn copy(from: &FilePath, to: &FilePath) {
    fs::create_dir(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy(&entry.path(), &target);
        } else {
            fs::copy(entry.path(), target).unwrap();
        }
    }
}
