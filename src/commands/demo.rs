//! `stillpoint demo`: the whole story, on a cluster inside this process.
//!
//! Everything a newcomer sees is done by the code that does it for real, in one folder that is left for the curious;
//! only the cluster and the judge are the embedded server, and the story says so.

mod shop;

use std::{
    fs,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use anyhow::{Context, bail, ensure};
use clap::Args;
use kube::Client;
use stillpoint_agent::{self as agent, BackupRequest, Report};
use stillpoint_api::{ObjectRef, Scope, ScratchKind, TestResult, Verdict, VolumeIntent};
use stillpoint_apiserver as apiserver;
use stillpoint_catalog as catalog;
use stillpoint_objects::{discovery, retry::Retry};
use stillpoint_repository::{
    Kdf, Password, Repository, Store,
    signing::{SigningKey, Trust},
};
use stillpoint_restore::{self as restore, RestoreRequest};
use stillpoint_verifier::{self as verifier, TestRequest, VolumeTests};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use self::shop::{Pair, Writer};
use super::{backup::diff, verify};
use crate::{cluster, exit::Exit, keys, output};

/// The names of what the demo leaves in its folder.
const REPOSITORY: &str = "repository";
const DAMAGED: &str = "repository-damaged";
const PASSWORD: &str = "password";
const REPORT: &str = "report.html";
/// About what lies between two types of a list that is read type after type.
const NAIVE_PAUSE: Duration = Duration::from_millis(200);

#[derive(Debug, Args)]
#[command(after_help = "Example:\n  stillpoint demo --dir /tmp/stillpoint-demo")]
pub(crate) struct DemoArgs {
    /// The folder to write to; must not exist [default: a new temporary one]
    #[arg(long, value_name = "FOLDER")]
    dir: Option<PathBuf>,
}

pub(crate) async fn run(args: DemoArgs) -> anyhow::Result<Exit> {
    let started = Instant::now();
    let folder = folder(args.dir)?;
    let server = apiserver::Server::start(apiserver::Config::default()).await?;
    let told = tell(&server, &folder).await;
    server.shutdown().await;
    told?;
    say(&format!("\nDone in {:.1} s. Everything is in {}.", started.elapsed().as_secs_f64(), folder.display()))?;
    say(&next_steps(&folder))?;
    Ok(Exit::Done)
}

/// What the story needs at every turn.
struct Stage {
    client: Client,
    repository: Repository,
    key: SigningKey,
    trust: Trust,
    folder: PathBuf,
}

async fn tell(server: &apiserver::Server, folder: &Path) -> anyhow::Result<()> {
    let stage = set_the_stage(server, folder).await?;
    take_two_backups(&stage).await?;
    lose_and_restore(&stage).await?;
    prove(&stage).await?;
    catch_damage(&stage).await
}

async fn set_the_stage(server: &apiserver::Server, folder: &Path) -> anyhow::Result<Stage> {
    say("1. A cluster with a shop in it")?;
    let client = cluster::client_of(&server.kubeconfig()).await?;
    let objects = shop::open(&client).await?;
    say(&format!(
        "   An API server runs inside this process and holds {objects} objects: Deployments, a StatefulSet, Services,\n   \
         Secrets, RBAC, a custom resource definition and its orders."
    ))?;
    let (_, _, public) = keys::generate(Some(&folder.join("keys")))?;
    let key = SigningKey::from_pem(&fs::read_to_string(folder.join("keys/signing.key"))?)?;
    // a throw-away repository: its password lies beside it, so that the commands at the end can be tried
    fs::write(folder.join(PASSWORD), "stillpoint-demo\n")?;
    let repository = Repository::init(store(&folder.join(REPOSITORY))?, &password(), Kdf::default()).await?;
    say(&format!(
        "   A repository in restic's format and a key pair ({}) to sign with are made beside it.",
        public.fingerprint()
    ))?;
    Ok(Stage { client, repository, key, trust: Trust::new(vec![public]), folder: folder.to_owned() })
}

async fn take_two_backups(stage: &Stage) -> anyhow::Result<()> {
    say("\n2. Two backups, while somebody writes")?;
    say("   A writer changes a ConfigMap (the stock), then an Order (the ledger), pair after pair, without a pause.")?;
    let writer = Writer::start(stage.client.clone());
    let first = stage.backup("shop-1").await?;
    let (stock, ledger) = shop::naive(&stage.client, NAIVE_PAUSE).await?;
    let second = stage.backup("shop-2").await?;
    let pairs = writer.stop().await?;
    for report in [&first, &second] {
        stage.check_instant(report, &pairs).await?;
    }
    say(&format!(
        "   Read one after the other, as backups usually read types, the same two objects said {stock} and {ledger}:\n   \
         a state that never existed."
    ))?;
    let (one, two) = (first.committed.stats, second.committed.stats);
    say(&format!(
        "   The first backup stored {}, the second only what had changed: {}.",
        output::bytes(one.bytes_packed),
        output::bytes(two.bytes_packed)
    ))
}

async fn lose_and_restore(stage: &Stage) -> anyhow::Result<()> {
    say("\n3. An accident, found and undone")?;
    let services: kube::Api<k8s_openapi::api::core::v1::Service> = kube::Api::namespaced(stage.client.clone(), "shop");
    services.delete("web", &Default::default()).await?;
    say("   $ kubectl -n shop delete service web\n   $ stillpoint backup diff shop-2 --live")?;
    let found = stage.diff_with_live("shop-2").await?;
    say(&indented(&found))?;
    ensure!(found.contains("- services.core/shop/web"), "the deleted Service was not found by the comparison");
    say("   $ stillpoint restore create --from-backup shop-2")?;
    let backup = catalog::find(&stage.repository, "shop-2", &stage.trust).await?;
    let discovery = discovery::discover(&stage.client, &Retry::default()).await?;
    let plan = restore::plan(&backup, &discovery, &RestoreRequest::default()).await?;
    let applied = restore::apply(&stage.client, &backup, &plan, None, watch::Sender::default()).await?;
    services.get("web").await.context("the Service did not come back")?;
    say(&format!(
        "   {} created, {} existed and were kept: the Service is back, and nothing else was touched.",
        output::counted(applied.created, "object"),
        applied.kept.len()
    ))
}

async fn prove(stage: &Stage) -> anyhow::Result<()> {
    say(
        "\n4. Proof: the whole backup restored into an empty cluster, and judged\n   $ stillpoint verify shop-2 --report report.html",
    )?;
    let verdict = test(&stage.repository, &stage.trust).await?;
    verify::keep(&stage.repository, &verdict, Some(&stage.key)).await?;
    verify::write_report(&stage.repository, &stage.trust, &verdict, &stage.folder.join(REPORT)).await?;
    say(&indented(&verify::to_text(&verdict)))?;
    ensure!(verdict.result == TestResult::Proven, "the restore test of an untouched backup failed");
    say(
        "   To be honest: here the cluster that was backed up and the one that judges are the same embedded server, which\n   \
         checks less than a real one. Against your cluster, --scratch control-plane judges with a real kube-apiserver.",
    )
}

async fn catch_damage(stage: &Stage) -> anyhow::Result<()> {
    say("\n5. One byte of the repository flips")?;
    let damaged = stage.folder.join(DAMAGED);
    copy_folder(&stage.folder.join(REPOSITORY), &damaged)?;
    let (pack, offset) = flip_a_byte(&damaged)?;
    say(&format!("   In a copy of it: byte {offset} of {}\n   $ stillpoint verify shop-2", pack.display()))?;
    let repository = Repository::open(store(&damaged)?, &password()).await?;
    let verdict = test(&repository, &stage.trust).await?;
    say(&indented(&verify::to_text(&verdict)))?;
    ensure!(verdict.result == TestResult::Failed, "the flipped byte was not caught");
    Ok(())
}

impl Stage {
    async fn backup(&self, name: &str) -> anyhow::Result<Report> {
        let scope = Scope {
            include_namespaces: vec!["shop*".to_owned()],
            // the embedded cluster has no volumes to read
            volumes: VolumeIntent::LeftOut,
            ..Scope::default()
        };
        say(&format!("   $ stillpoint backup create {name} --include-namespaces 'shop*' --no-volumes"))?;
        let request = BackupRequest { strict: true, ..BackupRequest::new(name, "demo", scope) };
        let progress = watch::Sender::default();
        Ok(agent::create(self.client.clone(), &self.repository, &request, Some(&self.key), progress).await?)
    }

    /// The captured pair must be the last that was written at or before the backup's revision.
    async fn check_instant(&self, report: &Report, pairs: &[Pair]) -> anyhow::Result<()> {
        let revision = report.manifest.cut.revision;
        let name = &report.manifest.backup.name;
        let last = |of: fn(&Pair) -> u64| {
            pairs.iter().filter(|pair| of(pair) <= revision).map(|pair| pair.sequence).max().unwrap_or(0)
        };
        let expected = (last(|pair| pair.stock_revision), last(|pair| pair.ledger_revision));
        let captured = (
            self.captured(name, "configmaps/shop/stock", "data").await?,
            self.captured(name, "orders.shop.example.com/shop/ledger", "spec").await?,
        );
        ensure!(captured == expected, "{name} holds the pair {captured:?}; at its revision it was {expected:?}");
        say(&format!(
            "   {name} is revision {revision}: {} objects. The pair in it is {} and {}, exactly the last that the writer\n   \
             had written by then.",
            report.manifest.types.iter().map(|record| record.captured).sum::<u64>(),
            captured.0,
            captured.1
        ))
    }

    async fn captured(&self, name: &str, object: &str, field: &str) -> anyhow::Result<u64> {
        let backup = catalog::find(&self.repository, name, &self.trust).await?;
        let object: ObjectRef = object.parse()?;
        let (resource, captured) = backup.object(&object).await?.with_context(|| format!("{name} lacks {object}"))?;
        shop::sequence(&captured.value(&resource)?, field)
    }

    async fn diff_with_live(&self, name: &str) -> anyhow::Result<String> {
        let older = catalog::find(&self.repository, name, &self.trust).await?;
        let target = cluster::Target { client: self.client.clone(), name: "demo".to_owned() };
        let live = diff::Live::capture(target, &older).await?;
        Ok(diff::to_text(&diff::between(&older, &live.backup, false).await?))
    }
}

async fn test(repository: &Repository, trust: &Trust) -> anyhow::Result<Verdict> {
    let request = TestRequest {
        scratch: ScratchKind::Embedded,
        trust: trust.clone(),
        volumes: VolumeTests::default(),
        cancel: CancellationToken::new(),
    };
    Ok(verifier::test(repository, "shop-2", &request, watch::Sender::default()).await?)
}

fn store(folder: &Path) -> anyhow::Result<Store> {
    Ok(Store::from_url(&folder.to_string_lossy())?)
}

fn password() -> Password {
    Password::new("stillpoint-demo")
}

/// The folder that everything goes to, made anew.
fn folder(named: Option<PathBuf>) -> anyhow::Result<PathBuf> {
    match named {
        Some(folder) => {
            fs::create_dir(&folder).with_context(|| format!("cannot create {} for the demo", folder.display()))?;
            Ok(folder.canonicalize()?)
        }
        None => Ok(tempfile::Builder::new().prefix("stillpoint-demo-").tempdir()?.keep()),
    }
}

fn copy_folder(from: &Path, to: &Path) -> anyhow::Result<()> {
    fs::create_dir(to)?;
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        let target = to.join(entry.file_name());
        if entry.file_type()?.is_dir() {
            copy_folder(&entry.path(), &target)?;
        } else {
            fs::copy(entry.path(), target)?;
        }
    }
    Ok(())
}

/// Flips one byte in the middle of the largest pack: objects are most of a repository.
fn flip_a_byte(repository: &Path) -> anyhow::Result<(PathBuf, usize)> {
    let mut packs = Vec::new();
    for folder in fs::read_dir(repository.join("data"))? {
        for pack in fs::read_dir(folder?.path())? {
            let pack = pack?;
            packs.push((pack.metadata()?.len(), pack.path()));
        }
    }
    let Some((_, pack)) = packs.into_iter().max() else { bail!("the repository has no packs") };
    let mut bytes = fs::read(&pack)?;
    let offset = bytes.len() / 2;
    bytes[offset] ^= 1;
    let mut permissions = fs::metadata(&pack)?.permissions();
    std::os::unix::fs::PermissionsExt::set_mode(&mut permissions, 0o600);
    fs::set_permissions(&pack, permissions)?;
    fs::write(&pack, bytes)?;
    Ok((pack.strip_prefix(repository)?.to_owned(), offset))
}

fn next_steps(folder: &Path) -> String {
    let folder = folder.display();
    format!(
        "\nLook around (`cargo install --path .` puts stillpoint on your PATH):\n  \
         export STILLPOINT_REPO=file://{folder}/{REPOSITORY} STILLPOINT_PASSWORD_FILE={folder}/{PASSWORD}\n  \
         export STILLPOINT_TRUSTED_KEY={folder}/keys/signing.pub\n  \
         stillpoint backup get\n  \
         stillpoint backup cat shop-2 deployments.apps/shop/web\n  \
         xdg-open {folder}/{REPORT}\n\
         Then your own cluster; nothing is installed into it, and backup only reads:\n  \
         stillpoint key generate && stillpoint repo init --repo file:///srv/backups\n  \
         stillpoint backup create first --no-volumes && stillpoint verify first --report report.html"
    )
}

fn indented(text: &str) -> String {
    text.lines().map(|line| format!("     {line}")).collect::<Vec<_>>().join("\n")
}

fn say(text: &str) -> anyhow::Result<()> {
    output::text(&format!("{text}\n"))
}
