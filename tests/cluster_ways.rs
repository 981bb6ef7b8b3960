//! The ways between the parts break in the middle of a backup: to the API server and to the object store.
//!
//! A way stands still, its connections open, or is cut. Whatever then becomes of the backup, its end is bounded and says
//! what did not answer, the pod goes on, and the next backup works. All cases run at once: most of their time they wait.

#![allow(clippy::unwrap_used)]
#![allow(clippy::print_stderr, reason = "the figures of the proof")]

mod common;

use std::{
    panic::{AssertUnwindSafe, resume_unwind},
    path::Path,
    process::Command,
    sync::{Arc, Once},
    time::{Duration, Instant, SystemTime},
};

use common::{
    agents::{Installed, with_agents, with_agents_behind},
    cluster::{self, Real, eventually, in_namespace},
    volumes::{NODE, claim, pod},
    wire::{Passage, Wire},
};
use futures::{FutureExt, future::join_all};
use kube::config::Kubeconfig;
use stillpoint_agent::{Access, Agents, BackupRequest, Error, OnStep, Progress, Report, Step, VolumesRequest, Way};
use stillpoint_api::{Scope, VolumeIntent};
use stillpoint_catalog as catalog;
use stillpoint_repository::{Kdf, Password, Repository, Store, StoreOptions, signing::Trust};
use stillpoint_test_support::{loop_mount::LoopMount, require};
use tokio::{
    sync::{Semaphore, watch},
    task::{JoinHandle, LocalSet, spawn_blocking, spawn_local},
    time::{sleep, timeout},
};

/// Backups that work at the same time: a loaded machine looks like a way that stands still.
const AT_WORK: usize = 4;
/// Within this writers go on: the agent's patience with a silent coordinator, and what a loaded machine takes.
const RELEASED: Duration = Duration::from_secs(4);
/// Within this a backup ends whose way does not come back: three silences of the store, and the retries of the cut.
const ENDS: Duration = Duration::from_secs(260);
/// Longer than all cases take.
const LASTS: Duration = Duration::from_secs(500);
/// What the large volumes hold: more than one pack.
const LARGE: usize = 24 << 20;
/// Bytes by which an upload is under way.
const UNDER_WAY: u64 = 256 << 10;
/// What the pod runs.
const TICKS: &str = "while true; do echo $((n += 1)) >/a/tick; sleep 0.3; done";

#[derive(Clone, Copy, PartialEq, Eq)]
enum To {
    Api,
    Store,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Moment {
    /// The agent uploads, and nothing is held.
    Preparing,
    /// Writers stand still.
    Window,
    /// The API is listed at R, after the release.
    Listing,
    /// The manifest is stored, and the snapshot that commits it is not.
    Committing,
}

enum Comes {
    /// There is no backup, and the error holds these words.
    Nothing(&'static [&'static str]),
    /// Nothing is missing.
    Complete,
}

struct Case {
    name: &'static str,
    filesystem: &'static str,
    method: Option<&'static str>,
    to: To,
    at: Moment,
    breaks: Passage,
    /// After how many seconds it is mended.
    mended: Option<u64>,
    comes: Comes,
}

const BY_FREEZE: (&str, Option<&str>) = ("ext4", None);
const BY_PAUSE: (&str, Option<&str>) = ("xfs", Some("reflink"));

#[rustfmt::skip]
fn cases() -> Vec<Case> {
    use Comes::{Complete, Nothing};
    use Moment::{Committing, Listing, Preparing, Window};
    use Passage::{Cut, StandsStill};
    use To::{Api, Store};
    let case = |name, (filesystem, method), to, at, breaks, mended, comes| {
        Case { name, filesystem, method, to, at, breaks, mended, comes }
    };
    let no_store = || Nothing(&["s3://", "cannot be reached"]);
    let no_answer = || Nothing(&["API server cannot be reached: it does not answer; check it"]);
    vec![
        case("store-still-prepare", BY_FREEZE, Store, Preparing, StandsStill, None, no_store()),
        case("store-cut-window", BY_FREEZE, Store, Window, Cut, None, no_store()),
        case("store-still-window", BY_PAUSE, Store, Window, StandsStill, None, no_store()),
        case("store-still-commit", BY_FREEZE, Store, Committing, StandsStill, None, no_store()),
        case("api-still-list", BY_FREEZE, Api, Listing, StandsStill, None, no_answer()),
        case("api-still-prepare", BY_FREEZE, Api, Preparing, StandsStill, None, no_answer()),
        case("api-still-window", BY_FREEZE, Api, Window, StandsStill, None, no_answer()),
        case("api-still-pause", BY_PAUSE, Api, Window, StandsStill, None, no_answer()),
        case("api-cut-window", BY_FREEZE, Api, Window, Cut, None, Nothing(&["API server cannot be reached"])),
        case("api-cut-mended", BY_PAUSE, Api, Window, Cut, Some(1), Complete),
        case("api-short-prepare", BY_FREEZE, Api, Preparing, StandsStill, Some(8), Complete),
        case("store-short-prepare", BY_FREEZE, Store, Preparing, StandsStill, Some(8), Complete),
        case("store-cut-commit", BY_FREEZE, Store, Committing, Cut, Some(5), Complete),
    ]
}

#[tokio::test(flavor = "multi_thread")]
async fn whichever_way_breaks_whenever_writers_go_on_no_half_backup_is_there_and_the_next_works() {
    let (Some(_ext4), Some(_xfs)) = (require::loop_device("ext4"), require::loop_device("xfs")) else { return };
    let test = Box::pin(with_agents(async |installed| {
        let at_work = Semaphore::new(AT_WORK);
        let cases = cases();
        let ended = join_all(cases.iter().map(|case| {
            let real =
                Real { namespace: format!("{}-{}", installed.real.namespace, case.name), ..installed.real.clone() };
            let case = in_namespace(real, async |real| Box::pin(case.run(installed, &real, &at_work)).await);
            AssertUnwindSafe(Box::pin(case)).catch_unwind()
        }));
        if let Some(panicked) = ended.await.into_iter().find_map(Result::err) {
            resume_unwind(panicked);
        }
    }));
    LocalSet::new().run_until(test).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_agent_whose_own_way_to_the_api_server_stands_still_lets_nobody_in_and_says_so() {
    let (Some(ext4), Some(kubeconfig)) = (require::loop_device("ext4"), require::env(NODE)) else { return };
    let config = cluster::config(Kubeconfig::read_from(&kubeconfig).unwrap()).await;
    let way = Wire::to(config.cluster_url.authority().unwrap().as_str()).await;
    let test = Box::pin(with_agents_behind(Some(way.address.to_string()), async |installed| {
        let (mount, real) = (LoopMount::new(ext4), &installed.real);
        claim(real, "a", &mount.path()).await;
        pod(real, "ticks", &["a"], TICKS, &[]).await;
        let stage = Stage::set(installed, real, "agents-way").await;
        way.set(Passage::StandsStill);
        let (backup, _) = stage.begin("broken", None, None);
        let ended = Ended::of(timeout(ENDS, backup).await.expect("it does not end").unwrap());
        way.set(Passage::Open);
        eprintln!("the agent's own way: {ended:?}");
        let words = ["node 127.0.0.1", "cannot have the token reviewed by the API server", "answer"];
        let Ended::Degraded(problems) = &ended else { panic!("{ended:?}") };
        assert!(problems.iter().all(|problem| words.iter().all(|word| problem.contains(word))), "{problems:?}");
        stage.next_works().await;
        eventually("no guard is left", async || {
            // it finds none, and says so by its exit code
            !Command::new("pgrep").args(["-f", "^stillpoint-guard"]).status().unwrap().success()
        })
        .await;
    }));
    LocalSet::new().run_until(test).await;
}

impl Case {
    async fn run(&self, installed: &Installed, real: &Real, at_work: &Semaphore) {
        let work = at_work.acquire().await.unwrap();
        let filesystem = self.filesystem;
        let mount = spawn_blocking(move || LoopMount::lasting(filesystem, LASTS)).await.unwrap();
        if self.at == Moment::Preparing {
            let mut content = vec![0; LARGE];
            rand::fill(&mut content[..]);
            std::fs::write(mount.path().join("large"), content).unwrap();
        }
        claim(real, "a", &mount.path()).await;
        pod(real, "ticks", &["a"], TICKS, &[]).await;
        let stage = Stage::set(installed, real, self.name).await;
        let way = stage.way(self.to);
        let on_step: Option<OnStep> = (self.at == Moment::Window).then(|| {
            // not again in a cut that is retaken
            let (way, breaks, once) = (way.clone(), self.breaks, Once::new());
            let breaks: OnStep = Arc::new(move |step| {
                if step == Step::Revision {
                    once.call_once(|| way.set(breaks));
                }
                std::future::ready(()).boxed()
            });
            breaks
        });
        if self.at == Moment::Committing {
            // the agent keeps what it stored by a snapshot of its own
            way.set_before(self.breaks, 1, |line| line.starts_with("PUT ") && line.contains("/snapshots/"));
        }
        let (mut backup, mut progress) = stage.begin("broken", self.method, on_step);
        let broken = async {
            match self.at {
                Moment::Preparing => {
                    let prepares =
                        |progress: &Progress| progress.nodes.values().any(|note| note.starts_with("preparing"));
                    progress.wait_for(prepares).await.unwrap();
                    stage.store.has_sent(UNDER_WAY).await;
                    way.set(self.breaks);
                }
                Moment::Listing => {
                    progress.wait_for(|progress| progress.units_done > 0).await.unwrap();
                    way.set(self.breaks);
                }
                Moment::Window | Moment::Committing => way.broken().await,
            }
        };
        tokio::select! {
            () = broken => {}
            ended = &mut backup => panic!("{}: it ended before: {:?}", self.name, Ended::of(ended.unwrap())),
        }
        let began = Instant::now();
        drop(work);
        goes_on(&mount.path(), self.name).await;
        if let Some(seconds) = self.mended {
            sleep(Duration::from_secs(seconds)).await;
            way.set(Passage::Open);
        }
        let ended = timeout(ENDS, backup).await.unwrap_or_else(|_| panic!("{}: it does not end", self.name));
        let ended = Ended::of(ended.unwrap());
        eprintln!("{}: after {:.0} s: {ended:?}", self.name, began.elapsed().as_secs_f64());
        self.judge(&ended);
        let listed = stage.listed().await;
        assert_eq!(listed.contains(&"broken".to_owned()), !matches!(self.comes, Comes::Nothing(_)), "{listed:?}");
        // what stood still on the way may arrive now
        way.set(Passage::Open);
        goes_on(&mount.path(), self.name).await;
        eventually("nothing of ours is left in the volume", async || {
            let mut names = std::fs::read_dir(mount.path()).unwrap().map(|entry| entry.unwrap().file_name());
            !names.any(|name| name.to_string_lossy().starts_with(".stillpoint"))
        })
        .await;
        let _work = at_work.acquire().await.unwrap();
        stage.next_works().await;
    }

    fn judge(&self, ended: &Ended) {
        let name = self.name;
        match (&self.comes, ended) {
            (Comes::Complete, Ended::Complete) => {}
            (Comes::Nothing(words), Ended::Failed(said)) => {
                assert!(words.iter().all(|word| said.contains(word)), "{name}: {said}");
            }
            (Comes::Complete, Ended::Degraded(problems)) => panic!("{name}: {}", problems.join("; ")),
            _ => panic!("{name}: {ended:?}"),
        }
    }
}

/// How a backup ended.
#[derive(Debug)]
enum Ended {
    Complete,
    Degraded(Vec<String>),
    Failed(String),
}

impl Ended {
    fn of(ended: Result<Report, Error>) -> Self {
        match ended {
            Err(error) => Self::Failed(error.to_string()),
            Ok(report) if report.manifest.problems.is_empty() => Self::Complete,
            Ok(report) => Self::Degraded(report.manifest.problems.iter().map(ToString::to_string).collect()),
        }
    }
}

/// The pod writes again: its filesystem is not frozen, and it is not paused.
async fn goes_on(mount: &Path, case: &str) {
    let (tick, since) = (mount.join("tick"), SystemTime::now());
    let ticks = async {
        while tick.metadata().unwrap().modified().unwrap() <= since {
            sleep(Duration::from_millis(20)).await;
        }
    };
    timeout(RELEASED, ticks).await.unwrap_or_else(|_| panic!("{case}: writers stand still"));
}

/// A repository of a case's own, and ways of its own to it and to the API server.
struct Stage {
    real: Real,
    api: Arc<Wire>,
    store: Arc<Wire>,
    /// As it is reached over the way.
    access: Access,
    /// Reached directly.
    repository: Repository,
}

impl Stage {
    async fn set(installed: &Installed, real: &Real, name: &str) -> Self {
        let direct = installed.access_to(name);
        let repository = Repository::init(store(&direct), &password(&direct), Kdf::fast_for_tests()).await.unwrap();
        let server = direct.variables["AWS_ENDPOINT_URL"].strip_prefix("http://").unwrap();
        let store = Arc::new(Wire::to(server).await);
        let api = Arc::new(Wire::to(real.config.cluster_url.authority().unwrap().as_str()).await);
        let mut access = direct.clone();
        access.variables.insert("AWS_ENDPOINT_URL".to_owned(), format!("http://{}", store.address));
        Self { real: real.clone(), api, store, access, repository }
    }

    fn way(&self, to: To) -> Arc<Wire> {
        match to {
            To::Api => self.api.clone(),
            To::Store => self.store.clone(),
        }
    }

    /// Begins a backup of the namespace, all of whose ways are this stage's.
    #[allow(clippy::type_complexity, reason = "both are taken apart at once")]
    fn begin(
        &self,
        name: &str,
        method: Option<&str>,
        on_step: Option<OnStep>,
    ) -> (JoinHandle<Result<Report, Error>>, watch::Receiver<Progress>) {
        let mut config = self.real.config.clone();
        config.cluster_url = format!("https://{}", self.api.address).parse().unwrap();
        let client = cluster::client_for_streams(config.clone());
        let agents = Agents::Cluster { client, namespace: "stillpoint-system".to_owned(), way: Way::PortForward };
        let volumes = VolumesRequest::new(agents, self.access.clone(), None);
        let volumes = VolumesRequest { method: method.map(str::to_owned), on_step, ..volumes };
        let include_namespaces = vec![self.real.namespace.clone()];
        let scope = Scope { include_namespaces, volumes: VolumeIntent::Wanted, ..Scope::default() };
        let request = BackupRequest { volumes: Some(volumes), ..BackupRequest::new(name, "test", scope) };
        let (client, access) = (cluster::client(config), self.access.clone());
        let (progress, seen) = watch::channel(Progress::default());
        let backup = async move {
            let repository = Repository::open(store(&access), &password(&access)).await.unwrap();
            Box::pin(stillpoint_agent::create(client, &repository, &request, None, progress)).await
        };
        (spawn_local(backup), seen)
    }

    async fn listed(&self) -> Vec<String> {
        let listed = catalog::list(&self.repository, &Trust::default()).await.unwrap();
        listed.into_iter().map(|entry| entry.backup.unwrap().manifest.backup.name).collect()
    }

    async fn next_works(&self) {
        let (next, _) = self.begin("next", None, None);
        let next = Ended::of(next.await.unwrap());
        assert!(matches!(next, Ended::Complete), "{}: the next backup: {next:?}", self.real.namespace);
        assert!(self.listed().await.contains(&"next".to_owned()));
    }
}

fn store(access: &Access) -> Store {
    Store::connect_with(&access.url, &StoreOptions::default(), access.variables.clone()).unwrap()
}

fn password(access: &Access) -> Password {
    Password::new(access.password.clone())
}
