//! Filesystems in files, for one bench.

use std::{
    fs::{self, File},
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use anyhow::{Context, ensure};

/// The smallest that xfs accepts is 300 MiB, and a database wants room; the files are sparse.
const BYTES: u64 = 1 << 30;
/// What lies in each of them.
const FILES: usize = 1000;

/// Mounted filesystems, until this is dropped.
pub(super) struct Volumes {
    folder: PathBuf,
    directories: Vec<PathBuf>,
}

impl Volumes {
    /// Makes so many, with a thousand small files in each. Blocks.
    pub(super) fn make(folder: &Path, kind: &str, count: usize) -> anyhow::Result<Self> {
        fs::create_dir(folder)?;
        let mut volumes = Self { folder: folder.to_owned(), directories: Vec::new() };
        for number in 0..count {
            let (image, directory) = (folder.join(format!("image-{number}")), folder.join(format!("volume-{number}")));
            File::create(&image)?.set_len(BYTES)?;
            let force = if kind == "ext4" { "-F" } else { "-f" };
            run(Command::new(format!("mkfs.{kind}")).args(["-q", force]).arg(&image))?;
            fs::create_dir(&directory)?;
            run(Command::new("mount").args(["-t", kind, "-o", "loop"]).args([&image, &directory]))?;
            volumes.directories.push(directory.clone());
            for file in 0..FILES {
                fs::write(directory.join(format!("file-{file}")), file.to_string())?;
            }
        }
        Ok(volumes)
    }

    pub(super) fn folder(&self) -> &Path {
        &self.folder
    }

    pub(super) fn directories(&self) -> &[PathBuf] {
        &self.directories
    }
}

impl Drop for Volumes {
    fn drop(&mut self) {
        for directory in &self.directories {
            let unmount = Command::new("umount").arg("-l").arg(directory).status();
            if !unmount.is_ok_and(|status| status.success()) {
                tracing::warn!("{} stays mounted", directory.display());
            }
        }
    }
}

/// Runs a program that must succeed.
fn run(command: &mut Command) -> anyhow::Result<()> {
    let program = command.get_program().to_string_lossy().into_owned();
    let done = command.stdin(Stdio::null()).output().with_context(|| format!("cannot run {program}"))?;
    ensure!(done.status.success(), "{program} ended with {}: {}", done.status, String::from_utf8_lossy(&done.stderr));
    Ok(())
}
