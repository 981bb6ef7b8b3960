//! `stillpoint verify`: a restore test, its verdict, and the evidence of it.

use std::{
    fmt::Write,
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::Context;
use clap::Args;
use stillpoint_api::{Check, CheckKind, Judgement, Outcome, SignerState, TestResult, Verdict};
use stillpoint_catalog as catalog;
use stillpoint_repository::{
    Repository,
    signing::{SigningKey, Trust},
};
use stillpoint_verifier::{self as verifier, Progress, TestRequest, UserCheck, VolumeTests, report};
use tokio_util::sync::CancellationToken;

use crate::{
    args::{OutputArgs, ReadLockArgs, duration},
    commands::{backup::ReadArgs, scratch::Kind},
    exit::Exit,
    keys::SigningArgs,
    output, progress,
};

const AFTER_HELP: &str = r#"Volumes are restored into a folder of this machine, read back, and removed again.

Examples:
  stillpoint verify shop-1
  stillpoint verify shop-1 --scratch control-plane --report report.html
  stillpoint verify shop-1 --check 'volume=shop/data: sqlite3 {path}/app.db "pragma integrity_check" | grep -qx ok'

A check passes if it ends with exit code 0: sqlite3 does whatever it finds, hence the grep."#;

/// Findings of one check that are shown on a terminal; the report and `-o json` have all.
const SHOWN_FINDINGS: usize = 10;

#[derive(Debug, Args)]
#[command(after_help = AFTER_HELP)]
pub(crate) struct VerifyArgs {
    /// The backup's name
    name: String,
    /// Where to restore it
    #[arg(long, value_enum, default_value_t = Kind::Embedded)]
    scratch: Kind,
    /// Write a report for people: one HTML file
    #[arg(long, value_name = "FILE")]
    report: Option<PathBuf>,
    /// Do not keep the verdict in the repository
    #[arg(long)]
    no_evidence: bool,
    #[command(flatten)]
    volumes: VolumeArgs,
    #[command(flatten)]
    read: ReadArgs,
    #[command(flatten)]
    lock: ReadLockArgs,
    #[command(flatten)]
    signing: SigningArgs,
    #[command(flatten)]
    output: OutputArgs,
}

/// What is tested of volumes.
#[derive(Debug, Args)]
#[command(next_help_heading = "Volumes")]
struct VolumeArgs {
    /// A command that must succeed over a restored volume, run by sh in its directory, for which {path} stands; may be
    /// given several times
    #[arg(long = "check", value_name = "volume=NAMESPACE/CLAIM: COMMAND")]
    checks: Vec<UserCheck>,
    /// How long one check may take
    #[arg(long, value_name = "DURATION", default_value = "5m", value_parser = duration)]
    check_timeout: Duration,
    /// The folder to restore volumes into [default: the system's temporary folder]
    #[arg(long, value_name = "DIR")]
    scratch_folder: Option<PathBuf>,
}

impl From<VolumeArgs> for VolumeTests {
    fn from(args: VolumeArgs) -> Self {
        let VolumeArgs { checks, check_timeout, scratch_folder } = args;
        Self { folder: scratch_folder, checks, timeout: check_timeout }
    }
}

pub(crate) async fn run(args: VerifyArgs) -> anyhow::Result<Exit> {
    let key = args.signing.key()?;
    let (repository, trust) = args.read.open().await?;
    let cancel = CancellationToken::new();
    let (scratch, volumes) = (args.scratch.into(), args.volumes.into());
    let request = TestRequest { scratch, trust: trust.clone(), volumes, cancel: cancel.clone() };
    let test = async |()| {
        let (progress, drawn) = progress::draw(|progress: &Progress| progress.to_string());
        let verdict = Box::pin(verifier::test(&repository, &args.name, &request, progress)).await?;
        drop(drawn);
        Ok(verdict)
    };
    let verdict = args.lock.reading(&repository, &cancel, async || Ok(()), test).await?;
    if let Some(path) = &args.report {
        write_report(&repository, &trust, &verdict, path).await?;
    }
    if !args.no_evidence {
        keep(&repository, &verdict, key.as_ref()).await?;
    }
    output::print(args.output.output, &verdict, || to_text(&verdict))?;
    Ok(exit(&verdict))
}

/// Writes the report of a verdict.
pub(crate) async fn write_report(
    repository: &Repository,
    trust: &Trust,
    verdict: &Verdict,
    path: &Path,
) -> anyhow::Result<()> {
    // a report of a damaged backup is wanted most of all; it then has the verdict only
    let manifest = catalog::find(repository, &verdict.backup, trust).await.ok().map(|backup| backup.manifest);
    let html = report::html(verdict, manifest.as_ref())?;
    tokio::fs::write(path, html).await.with_context(|| format!("cannot write the report {}", path.display()))
}

/// Keeps a verdict as evidence; one about a backup without a readable manifest has no root to be kept under.
pub(crate) async fn keep(repository: &Repository, verdict: &Verdict, key: Option<&SigningKey>) -> anyhow::Result<()> {
    match verdict.root {
        Some(root) => Ok(catalog::put_evidence(repository, root, verdict, key).await?),
        None => Ok(()),
    }
}

fn exit(verdict: &Verdict) -> Exit {
    match verdict.result {
        TestResult::Failed => Exit::Failed,
        TestResult::Proven if verdict.backup_outcome == Some(Outcome::Degraded) => Exit::Degraded,
        TestResult::Proven if !matches!(verdict.signer, SignerState::Trusted(_)) => Exit::Degraded,
        TestResult::Proven => Exit::Done,
    }
}

/// The verdict for people.
pub(crate) fn to_text(verdict: &Verdict) -> String {
    let mut text = format!("backup {}: {} on {}", verdict.backup, verdict.result, verdict.scratch);
    if !matches!(verdict.signer, SignerState::Trusted(_)) {
        let _ = write!(text, ", {}", verdict.signer);
    }
    if verdict.backup_outcome == Some(Outcome::Degraded) {
        text.push_str(", and the backup itself is degraded");
    }
    text.push('\n');
    for check in &verdict.checks {
        text.push_str(&check_text(check));
    }
    if let (Some(rto), Some(rpo)) = (verdict.rto_seconds, verdict.rpo_seconds) {
        let restored = output::count(verdict.objects_restored);
        let _ =
            writeln!(text, "  {restored} objects restored; recovery time {rto:.1} s, recovery point {rpo:.0} s ago");
    }
    if !verdict.not_judged.is_empty() {
        let limits = verdict.not_judged.len();
        let _ =
            writeln!(text, "  {limits} things are not judged on {}; the report and -o json list them", verdict.scratch);
    }
    text
}

fn check_text(check: &Check) -> String {
    let mark = match check.judgement {
        Judgement::Passed => "ok",
        Judgement::Failed => "FAILED",
        Judgement::NotJudged => "-",
    };
    let name = CheckKind::to_string(&check.kind);
    let mut text = format!("  {mark:<7} {name:<12} {}\n", output::printable(&check.summary));
    for finding in check.findings.iter().take(SHOWN_FINDINGS) {
        let line = format!("{}: {}", finding.subject, finding.message);
        let _ = writeln!(text, "            {}", output::printable(&line));
    }
    let more = check.findings.len().saturating_sub(SHOWN_FINDINGS) as u64 + check.more_findings;
    if more > 0 {
        let _ = writeln!(text, "            and {} more", output::count(more));
    }
    text
}
