//! The programs that are compared, and how each is asked for the same work.

use std::{
    env,
    ffi::OsStr,
    fmt,
    path::{Path, PathBuf},
    process::Stdio,
};

use anyhow::{Context, ensure};
use tokio::process::Command;

use super::{super::PASSWORD, cgroup::MemoryCgroup, child::Measured};

/// A program that backs up and restores directories.
pub(super) enum Side {
    /// This one.
    Stillpoint(PathBuf),
    /// A restic, by its version.
    Restic(PathBuf, String),
}

impl fmt::Display for Side {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Stillpoint(_) => f.write_str("stillpoint"),
            Self::Restic(_, version) => write!(f, "restic {version}"),
        }
    }
}

impl Side {
    /// This program.
    pub(super) fn this() -> anyhow::Result<Self> {
        Ok(Self::Stillpoint(env::current_exe()?))
    }

    /// This program first, then every restic on PATH, each version once.
    pub(super) async fn all() -> anyhow::Result<Vec<Self>> {
        let mut sides = vec![Self::this()?];
        for folder in env::split_paths(&env::var_os("PATH").unwrap_or_default()) {
            let program = folder.join("restic");
            if !program.is_file() {
                continue;
            }
            let told = Command::new(&program).arg("version").output().await?;
            let told = String::from_utf8_lossy(&told.stdout).into_owned();
            let Some(version) = told.split_whitespace().nth(1) else { continue };
            let is_known = |side: &Self| matches!(side, Self::Restic(_, known) if known == version);
            if !sides.iter().any(is_known) {
                sides.push(Self::Restic(program, version.to_owned()));
            }
        }
        Ok(sides)
    }

    pub(super) async fn init(&self, place: &Path) -> anyhow::Result<()> {
        let arguments: &[&str] = match self {
            Self::Stillpoint(_) => &["repo", "init"],
            Self::Restic(..) => &["init", "--quiet", "--repository-version", "2"],
        };
        let mut command = self.command(self.program(), place);
        let status = command.args(arguments).stdout(Stdio::null()).status().await?;
        ensure!(status.success(), "{self} could not make a repository: {status}");
        Ok(())
    }

    pub(super) async fn backup(&self, place: &Path, source: &Path, limit: Option<u64>) -> anyhow::Result<Measured> {
        let arguments: Vec<&OsStr> = match self {
            Self::Stillpoint(_) => {
                ["volume", "backup", "bench", "--path"].iter().map(OsStr::new).chain([source.as_os_str()]).collect()
            }
            Self::Restic(..) => ["--quiet", "backup"].iter().map(OsStr::new).chain([source.as_os_str()]).collect(),
        };
        self.measure(place, &arguments, limit).await
    }

    /// Restores the newest backup into a new directory, and removes that.
    pub(super) async fn restore(&self, place: &Path, limit: Option<u64>) -> anyhow::Result<Measured> {
        let target = place.join("restored");
        let arguments: Vec<&OsStr> = match self {
            Self::Stillpoint(_) => ["volume", "restore", "bench", "--target"].iter().map(OsStr::new).collect(),
            Self::Restic(..) => ["--quiet", "restore", "latest", "--target"].iter().map(OsStr::new).collect(),
        };
        let measured = self.measure(place, &[&arguments[..], &[target.as_os_str()]].concat(), limit).await?;
        tokio::fs::remove_dir_all(&target).await?;
        Ok(measured)
    }

    fn program(&self) -> &Path {
        match self {
            Self::Stillpoint(program) | Self::Restic(program, _) => program,
        }
    }

    fn command(&self, program: &Path, place: &Path) -> Command {
        let repository = place.join("repository");
        let mut command = Command::new(program);
        command
            .env("STILLPOINT_REPO", &repository)
            .env("STILLPOINT_PASSWORD", PASSWORD)
            .env("RESTIC_REPOSITORY", &repository)
            .env("RESTIC_PASSWORD", PASSWORD)
            .env("RESTIC_CACHE_DIR", place.join("cache"))
            .env("RESTIC_PROGRESS_FPS", "0.01")
            .kill_on_drop(true);
        command
    }

    async fn measure(&self, place: &Path, arguments: &[&OsStr], limit: Option<u64>) -> anyhow::Result<Measured> {
        let cgroup = limit.map(MemoryCgroup::new).transpose()?;
        let mut command = self.command(&env::current_exe()?, place);
        command.args(["bench", "child"]);
        if let Some(cgroup) = &cgroup {
            command.arg("--cgroup").arg(cgroup.folder());
        }
        command.arg("--").arg(self.program()).args(arguments);
        let output = command.stderr(Stdio::inherit()).output().await?;
        ensure!(output.status.success(), "{self} failed: {}", output.status);
        let measured: Measured =
            serde_json::from_slice(&output.stdout).context("the measured process did not say what it took")?;
        Ok(Measured { cgroup_peak_bytes: cgroup.map(|cgroup| cgroup.peak()).transpose()?, ..measured })
    }
}
