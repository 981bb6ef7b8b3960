//! A cgroup of our own that limits the memory of whatever enters it.
//!
//! Page cache and the kernel's own memory count too, so what runs in one proves that the limit is enough on a machine
//! that has no more.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use anyhow::{Context, bail};

/// A cgroup that is removed when it is dropped, by when it must be empty.
pub(super) struct MemoryCgroup {
    folder: PathBuf,
    /// The file that tells the highest use.
    peak: &'static str,
}

impl Drop for MemoryCgroup {
    fn drop(&mut self) {
        if let Err(error) = fs::remove_dir(&self.folder) {
            tracing::warn!(%error, "the cgroup {} stays behind", self.folder.display());
        }
    }
}

impl MemoryCgroup {
    /// Makes one in the hierarchy that controls memory here, of either version.
    pub(super) fn new(bytes: u64) -> anyhow::Result<Self> {
        let name = format!("stillpoint-bench-{}", std::process::id());
        let (root, files, peak) = match [Path::new("/sys/fs/cgroup/memory"), Path::new("/sys/fs/cgroup")] {
            [v1, _] if v1.join("memory.limit_in_bytes").exists() => {
                (v1, [("memory.limit_in_bytes", bytes), ("memory.swappiness", 0)], "memory.max_usage_in_bytes")
            }
            [_, v2] if v2.join("cgroup.subtree_control").exists() => {
                fs::write(v2.join("cgroup.subtree_control"), "+memory").context("cannot limit memory by a cgroup")?;
                (v2, [("memory.max", bytes), ("memory.swap.max", 0)], "memory.peak")
            }
            _ => bail!("no cgroup hierarchy that controls memory is mounted at /sys/fs/cgroup"),
        };
        let folder = root.join(name);
        fs::create_dir(&folder).with_context(|| format!("cannot make the cgroup {}", folder.display()))?;
        let cgroup = Self { folder, peak };
        for (file, value) in files {
            fs::write(cgroup.folder.join(file), value.to_string()).with_context(|| format!("cannot set {file}"))?;
        }
        Ok(cgroup)
    }

    pub(super) fn folder(&self) -> &Path {
        &self.folder
    }

    /// The most that was used at once.
    pub(super) fn peak(&self) -> anyhow::Result<u64> {
        Ok(fs::read_to_string(self.folder.join(self.peak))?.trim().parse()?)
    }
}

/// Moves this process into a cgroup; its children begin there.
pub(super) fn enter(folder: &Path) -> io::Result<()> {
    fs::write(folder.join("cgroup.procs"), std::process::id().to_string())
}
