//! One restore test, from the backup's name to the verdict.
//!
//! What needs no cluster comes first and can end the test: nothing of a backup that is not trusted or not sound is
//! given to any server. From there on a scratch cluster is alive, so everything that uses it runs inside one future,
//! and whatever comes of that (a verdict, an error, a cancellation) the cluster is shut down after it.

use std::time::Instant;

use stillpoint_api::{ScratchKind, Verdict, manifest::SIGNATURE_FILE};
use stillpoint_catalog::{self as catalog, Backup, Damage};
use stillpoint_objects::{
    discovery::{self, Discovery},
    order::Level,
    retry::Retry,
};
use stillpoint_repository::{Repository, signing::Trust};
use stillpoint_restore::{self as restore, Applied, Plan, RestoreRequest};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::{
    Error, Progress,
    checks::{
        accepted,
        integrity::{Integrity, damage_of},
        references::{Absent, Referred},
        signature,
    },
    collector::{self, Collected},
    contents::{self, Contents},
    expected::Expected,
    record::Record,
    restored::{Comparison, Seen},
    scratch::ScratchCluster,
    volumes::{self, VolumeTests},
};

const UNTRUSTED: &str = "not judged: the signature failed, and nothing of an untrusted backup is read or restored";
const DAMAGED: &str = "not judged: the backup is damaged, and a damaged backup is not restored";
const BROKE_OFF: &str = "not judged: the restore broke off";

/// How a backup is to be tested.
#[derive(Debug, Clone)]
pub struct TestRequest {
    /// Where to restore it.
    pub scratch: ScratchKind,
    /// The keys that are trusted; none leaves the signer unverified.
    pub trust: Trust,
    /// What is tested of restored volumes.
    pub volumes: VolumeTests,
    /// Ends the test early; the scratch cluster is removed all the same.
    pub cancel: CancellationToken,
}

/// Restores a backup into a scratch cluster and judges what came of it.
///
/// # Errors
/// There is no verdict: no such backup, a repository or scratch cluster that fails, or the test was cancelled. A
/// damaged backup is no error: its verdict says what is damaged.
pub async fn test(
    repository: &Repository,
    name: &str,
    request: &TestRequest,
    progress: watch::Sender<Progress>,
) -> Result<Verdict, Error> {
    progress.send_replace(Progress::Opening);
    let mut record = Record::begin(name, request.scratch, !request.volumes.checks.is_empty());
    let started = Instant::now();
    let opened = unless_cancelled(request, catalog::find(repository, name, &request.trust)).await?;
    let opening = started.elapsed().as_secs_f64();
    let backup = match opened {
        Ok(backup) => backup,
        Err(error) => return Ok(unreadable(record, &damage_of(error)?)),
    };
    record.opened(&backup);
    if !record.add(signature::check(&backup.signer, !request.trust.is_empty())) {
        return Ok(record.end(UNTRUSTED));
    }
    let (contents, absent) = match unless_cancelled(request, judge_contents(&mut record, &backup, &progress)).await?? {
        Some(sound) => sound,
        None => return Ok(record.end(DAMAGED)),
    };
    let restoring_volumes = volumes::judge(&mut record, &backup, request, &progress).await?;
    let subject = Subject { backup: &backup, contents: &contents, absent: &absent, progress: &progress };
    let reason = Box::pin(in_scratch_cluster(&mut record, request, &subject, opening + restoring_volumes)).await?;
    Ok(record.end(reason))
}

/// The verdict on a backup that cannot be opened.
fn unreadable(mut record: Record, damage: &Damage) -> Verdict {
    match damage {
        Damage::Malformed { path, .. } if path == SIGNATURE_FILE => {
            record.add(signature::unreadable(&damage.to_string()));
            record.end(UNTRUSTED)
        }
        damage => {
            let mut integrity = Integrity::default();
            integrity.damaged(damage);
            record.add(integrity.judge());
            record.end(DAMAGED)
        }
    }
}

/// Makes the checks that need no cluster; none where the backup is damaged.
async fn judge_contents(
    record: &mut Record,
    backup: &Backup,
    progress: &watch::Sender<Progress>,
) -> Result<Option<(Contents, Absent)>, Error> {
    let mut contents = contents::read(backup, progress).await?;
    if !record.add(std::mem::take(&mut contents.integrity).judge()) {
        return Ok(None);
    }
    record.add(std::mem::take(&mut contents.counts).judge(&backup.manifest));
    let Referred { check, absent } = contents::refer(backup, &contents, progress).await?;
    record.add(check);
    Ok(Some((contents, absent)))
}

/// What is restored and judged.
struct Subject<'a> {
    backup: &'a Backup,
    contents: &'a Contents,
    absent: &'a Absent,
    progress: &'a watch::Sender<Progress>,
}

/// Starts a scratch cluster, judges the restore in it, and shuts it down whatever came of that.
async fn in_scratch_cluster(
    record: &mut Record,
    request: &TestRequest,
    subject: &Subject<'_>,
    opening: f64,
) -> Result<&'static str, Error> {
    subject.progress.send_replace(Progress::Starting);
    let cluster = unless_cancelled(request, ScratchCluster::start(request.scratch)).await??;
    record.0.not_judged.extend(cluster.not_judged());
    let judged = unless_cancelled(request, Box::pin(judge_restore(record, subject, &cluster, opening))).await;
    if let Err(error) = cluster.shutdown().await {
        tracing::warn!(%error, "something of the scratch cluster is left behind");
    }
    judged?
}

/// Restores and judges; the answer says why the checks that are still missing did not run.
async fn judge_restore(
    record: &mut Record,
    subject: &Subject<'_>,
    cluster: &ScratchCluster,
    opening: f64,
) -> Result<&'static str, Error> {
    let (client, retry) = (cluster.client(), Retry::default());
    let discovery = discovery::discover(&client, &retry).await?;
    record.0.scratch_version = Some(discovery.server_version.clone());
    let collects = collector::runs(cluster, &retry).await?;
    let started = Instant::now();
    let (plan, applied) = match restore(&client, subject, &discovery).await {
        Ok(restored) => restored,
        Err(error @ (restore::Error::NotServed { .. } | restore::Error::BadObject { .. })) => {
            record.add(accepted::broke_off(&subject.backup.manifest.backup.name, sentence(&error)));
            return Ok(BROKE_OFF);
        }
        Err(restore::Error::Backup(error)) => return Err(error.into()),
        Err(restore::Error::Target(error)) => return Err(error.into()),
        Err(error) => return Err(Error::Restore(error)),
    };
    record.0.rto_seconds = Some(opening + started.elapsed().as_secs_f64());
    record.0.objects_restored = applied.created;
    let left_out = plan.left_out.iter().map(|left_out| left_out.reason.as_str());
    record.add(accepted::check(&applied, left_out, subject.absent));
    record.0.not_judged.extend(not_compared(&applied));
    let collected = if collects { subject.collect(&client, &plan, &retry).await? } else { Collected::NoCollector };
    let Seen { still_there, equal } = subject.compare(&client, &plan, &applied, &retry).await?;
    record.add(still_there.judge(collected));
    record.add(equal.judge());
    Ok(BROKE_OFF)
}

/// Plans and applies; the clock of the recovery time runs meanwhile.
async fn restore(
    client: &kube::Client,
    subject: &Subject<'_>,
    discovery: &Discovery,
) -> Result<(Plan, Applied), restore::Error> {
    // what a pinned key does not vouch for has been judged; without one the scratch cluster is the place to look
    let request = RestoreRequest { accept_untrusted: true, ..RestoreRequest::default() };
    let plan = restore::plan(subject.backup, discovery, &request).await?;
    let (sender, mut receiver) = watch::channel(restore::Progress::default());
    let forward = async {
        while receiver.changed().await.is_ok() {
            subject.progress.send_replace(Progress::Restoring(*receiver.borrow_and_update()));
        }
    };
    let (applied, ()) = tokio::join!(restore::apply(client, subject.backup, &plan, None, sender), forward);
    Ok((plan, applied?))
}

impl Subject<'_> {
    async fn collect(&self, client: &kube::Client, plan: &Plan, retry: &Retry) -> Result<Collected, Error> {
        self.progress.send_replace(Progress::Collecting);
        let custom = plan.stages.iter().any(|stage| stage.level == Level::CustomResourceDefinitions);
        Ok(collector::wait(client, custom, retry).await?)
    }

    async fn compare(
        &self,
        client: &kube::Client,
        plan: &Plan,
        applied: &Applied,
        retry: &Retry,
    ) -> Result<Seen, Error> {
        let Self { backup, contents, progress, .. } = self;
        let expected = Expected::new(&backup.manifest, &contents.held, plan, applied);
        Comparison { backup, expected: &expected, retry, progress }.run(client, &contents.files).await
    }
}

/// Names the objects that every cluster makes by itself, where some were not as captured.
fn not_compared(applied: &Applied) -> Option<String> {
    let objects: Vec<_> = accepted::not_compared(applied).map(ToString::to_string).collect();
    let listed = objects.join(", ");
    (!objects.is_empty()).then(|| format!("whether these are as captured, as every cluster makes its own: {listed}"))
}

/// An error with its causes.
fn sentence(error: &dyn std::error::Error) -> String {
    let causes = std::iter::successors(error.source(), |cause| cause.source());
    causes.fold(error.to_string(), |text, cause| format!("{text}: {cause}"))
}

async fn unless_cancelled<T>(request: &TestRequest, work: impl Future<Output = T>) -> Result<T, Error> {
    tokio::select! {
        biased;
        () = request.cancel.cancelled() => Err(Error::Cancelled),
        done = work => Ok(done),
    }
}
