//! Small file systems of a test's own, to fill up and to mount read-only.
//!
//! Real ones, because what a full disk does to a write, a sync and a rename is decided in the kernel.

use std::{
    path::{Path, PathBuf},
    process::Command,
};

use tempfile::TempDir;

use crate::{loop_mount::LoopMount, require};

/// A mounted file system; dropping it unmounts and removes it.
#[derive(Debug)]
pub enum Disk {
    /// In memory.
    Memory(Memory),
    /// In a file, on a loop device.
    Loop(LoopMount),
}

/// Where a tmpfs is mounted.
#[derive(Debug)]
pub struct Memory(TempDir);

impl Disk {
    /// A file system in memory; `None` when the test is to be skipped.
    ///
    /// # Panics
    /// When it cannot be mounted.
    #[must_use]
    pub fn tmpfs(mebibytes: u64) -> Option<Self> {
        require::root()?;
        let folder = TempDir::with_prefix("stillpoint-disk-").expect("a temporary folder");
        let size = format!("size={mebibytes}m");
        run(Command::new("mount").args(["-t", "tmpfs", "-o", &size, "tmpfs"]).arg(folder.path()));
        Some(Self::Memory(Memory(folder)))
    }

    /// An ext4 on a loop device; `None` when the test is to be skipped.
    #[must_use]
    pub fn ext4(mebibytes: u64) -> Option<Self> {
        let kind = require::loop_device("ext4")?;
        Some(Self::Loop(LoopMount::with_size(kind, mebibytes << 20)))
    }

    /// Where it is mounted.
    #[must_use]
    pub fn path(&self) -> PathBuf {
        match self {
            Self::Memory(Memory(folder)) => folder.path().to_owned(),
            Self::Loop(mount) => mount.path(),
        }
    }

    /// Mounts it read-only (`ro`), or writable again (`rw`).
    ///
    /// # Panics
    /// When the kernel refuses.
    pub fn remount(&self, how: &str) {
        run(Command::new("mount").arg("-o").arg(format!("remount,{how}")).arg(self.path()));
    }

    /// Fills it up but for so many KiB, by a file that the caller removes.
    ///
    /// # Panics
    /// When nothing can be written at all.
    #[must_use]
    pub fn fill(&self, but_for_kib: u64) -> PathBuf {
        let ballast = self.path().join("ballast");
        let size = free_kib(&self.path()).saturating_sub(but_for_kib);
        run(Command::new("fallocate").arg("-l").arg(format!("{size}KiB")).arg(&ballast));
        ballast
    }
}

impl Drop for Memory {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(self.0.path()).status();
    }
}

/// What root may still write, the reserve of ext4 included.
fn free_kib(folder: &Path) -> u64 {
    let output = run(Command::new("stat").args(["-f", "-c", "%f %S"]).arg(folder));
    let (blocks, size) = output.trim().split_once(' ').expect("two numbers");
    let number = |text: &str| text.parse::<u64>().expect("a number");
    number(blocks) * number(size) / 1024
}

fn run(command: &mut Command) -> String {
    let output = command.output().expect("a program of the system");
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).into_owned()
}
