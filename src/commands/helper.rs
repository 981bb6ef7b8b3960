//! `stillpoint helper`: what runs in helper pods, which fill claims or hold them for a backup; not meant for people.
//!
//! A pod must not outlive whoever wants it. While a claim is filled standard input is the lease: it gives the order, and
//! when it ends, so does the work. A pod that only holds its claim is told a word that changes.

use std::{
    fs::{File, TryLockError},
    io::{self, BufRead, Read},
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use anyhow::{Context, bail};
use clap::{Args, Subcommand};
use stillpoint_agent::Access;
use stillpoint_catalog as catalog;
use stillpoint_filetree::restore::{Progress, Report};
use stillpoint_repository::signing::Trust;
use stillpoint_restore::{
    fill::{Done, Order, Said},
    volumes,
};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::{args::duration, exit::Exit, interrupt::asked_to_end, output};

/// A pod in which nothing runs for so long is one that nobody will come back to.
const IDLE: Duration = Duration::from_secs(120);
const LOOK: Duration = Duration::from_secs(5);
/// The longest order.
const MAX_ORDER: u64 = 1 << 20;
/// How long a filling whose caller was lost may take to let go of the volume.
const LET_GO: Duration = Duration::from_secs(60);
/// Between two words about how far it is.
const REPORTED: Duration = Duration::from_secs(1);
/// Problems that are told by name.
const NAMED: usize = 100;

#[derive(Debug, Subcommand)]
pub(crate) enum HelperCommand {
    /// Keeps the pod alive while something else runs in it, or a file changes.
    Hold(HoldArgs),
    /// Restores the volume that standard input orders, as long as that stays open.
    Fill(FillArgs),
}

#[derive(Debug, Args)]
pub(crate) struct HoldArgs {
    /// End when this file stays as it is, instead of when nothing else runs
    #[arg(long, value_name = "FILE", requires = "within")]
    while_changing: Option<PathBuf>,
    /// For so long
    #[arg(long, value_name = "DURATION", value_parser = duration, requires = "while_changing")]
    within: Option<Duration>,
}

#[derive(Debug, Args)]
pub(crate) struct FillArgs {
    /// The directory to restore into
    #[arg(long, value_name = "DIR")]
    target: PathBuf,
}

pub(crate) async fn run(command: HelperCommand) -> anyhow::Result<Exit> {
    match command {
        HelperCommand::Hold(args) => hold(args).await,
        HelperCommand::Fill(args) => Box::pin(fill(args)).await,
    }
}

async fn hold(HoldArgs { while_changing, within }: HoldArgs) -> anyhow::Result<Exit> {
    let patience = within.unwrap_or(IDLE);
    let mut told = None;
    let mut is_wanted = || match &while_changing {
        None => others_run().unwrap_or(true),
        Some(file) => {
            let now = std::fs::read(file).ok();
            let is_new = now.is_some() && now != told;
            told = now.or_else(|| told.take());
            is_new
        }
    };
    let idle = async {
        let mut since = Instant::now();
        while since.elapsed() < patience {
            tokio::time::sleep(LOOK.min(patience / 4)).await;
            if is_wanted() {
                since = Instant::now();
            }
        }
    };
    tokio::select! {
        () = idle => Ok(Exit::Done),
        asked = asked_to_end() => asked.map(|()| Exit::Done),
    }
}

/// Whether other processes are in this pod.
fn others_run() -> io::Result<bool> {
    let own = std::process::id().to_string();
    for entry in std::fs::read_dir("/proc")? {
        let name = entry?.file_name();
        let name = name.to_string_lossy();
        if name.bytes().all(|byte| byte.is_ascii_digit()) && *name != own {
            return Ok(true);
        }
    }
    Ok(false)
}

async fn fill(args: FillArgs) -> anyhow::Result<Exit> {
    let cancel = CancellationToken::new();
    let (sender, receiver) = watch::channel(Progress::default());
    let restored = tokio::select! {
        restored = Box::pin(restore(&args.target, sender, &cancel)) => restored,
        gone = tell(receiver) => gone,
    };
    let (said, exit) = match restored {
        Ok(report) => (done(report), Exit::Done),
        Err(error) => (Said::Failed { reason: format!("{error:#}") }, Exit::Failed),
    };
    say(&said)?;
    Ok(exit)
}

async fn restore(
    target: &Path,
    progress: watch::Sender<Progress>,
    cancel: &CancellationToken,
) -> anyhow::Result<Report> {
    let Order { access, backup, root, volume } = order(cancel.clone()).await?;
    let access: Access = serde_json::from_value(access).context("the order holds no way into a repository")?;
    let repository = access.open().await?;
    let backup = catalog::find(&repository, &backup, &Trust::default()).await?;
    if backup.root != root {
        bail!("the backup has the root {}, and {root} was ordered", backup.root);
    }
    let found = volumes::of(&backup).await?.into_iter().find(|found| found.name() == volume);
    let volume = found.with_context(|| format!("the backup holds no data of {volume}"))?;
    let _alone = alone(target).await?;
    Ok(Box::pin(volume.restore(backup.reader(), target, progress, cancel.clone())).await?)
}

/// Reads the order; the end of the input cancels the work. The thread ends with the process.
async fn order(cancel: CancellationToken) -> anyhow::Result<Order> {
    let (sender, receiver) = tokio::sync::oneshot::channel();
    std::thread::spawn(move || {
        let mut input = io::stdin().lock();
        let mut line = zeroize::Zeroizing::new(String::new());
        let read = (&mut input).take(MAX_ORDER).read_line(&mut line);
        let _ = sender.send(read.map(|_| line));
        let mut rest = [0; 64];
        while let Ok(1..) = input.read(&mut rest) {}
        cancel.cancel();
    });
    let line = receiver.await.context("the input was lost")?.context("cannot read the order")?;
    serde_json::from_str(&line).context("the order cannot be read")
}

/// Waits until no other filling works in the volume: one whose caller was lost may not have noticed yet.
async fn alone(target: &Path) -> anyhow::Result<File> {
    let folder = File::open(target).with_context(|| format!("cannot open {}", target.display()))?;
    let deadline = Instant::now() + LET_GO;
    loop {
        match folder.try_lock() {
            Ok(()) => return Ok(folder),
            Err(TryLockError::WouldBlock) if Instant::now() < deadline => tokio::time::sleep(REPORTED).await,
            Err(TryLockError::WouldBlock) => bail!("another filling works in {}", target.display()),
            Err(TryLockError::Error(error)) => {
                return Err(error).with_context(|| format!("cannot lock {}", target.display()));
            }
        }
    }
}

/// Says every second how far it is, until nobody listens any more.
async fn tell(progress: watch::Receiver<Progress>) -> anyhow::Result<Report> {
    loop {
        let bytes = progress.borrow().bytes;
        say(&Said::Progress { bytes })?;
        tokio::time::sleep(REPORTED).await;
    }
}

fn say(said: &Said) -> anyhow::Result<()> {
    output::text(&(serde_json::to_string(said)? + "\n"))
}

fn done(report: Report) -> Said {
    let verified = report.verified.unwrap_or_default();
    let named = report.problems.named.len();
    let problems = report.problems.named.iter().take(NAMED);
    let problems =
        problems.map(|problem| format!("/{}: {}: {}", problem.path.display(), problem.kind, problem.message));
    Said::Done(Done {
        files: verified.files,
        bytes: verified.bytes,
        problems: problems.collect(),
        more_problems: report.problems.more + named.saturating_sub(NAMED) as u64,
    })
}
