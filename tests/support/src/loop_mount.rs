//! A filesystem of a test's own on a loop device, which never stays frozen or mounted.
//!
//! Whatever becomes of the test, a process beside it thaws, unmounts and removes the filesystem at a deadline: the test
//! may hang in an uninterruptible write, or be killed, and can then do nothing by itself. That process is started
//! before the test has the path.

use std::{
    fs::{self, File},
    os::unix::process::CommandExt,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::Duration,
};

use tempfile::TempDir;

/// What the folders of all loop mounts begin with; the id of the test's process follows.
const PREFIX: &str = "stillpoint-loop-";
/// When the process beside the test ends whatever still stands.
const DEADLINE: Duration = Duration::from_secs(150);
/// The smallest that xfs accepts is 300 MiB; the file is sparse.
const SIZE: u64 = 320 << 20;
/// Waits, then cleans up after a test that did not; `$1` is the deadline, `$2` the folder.
const WATCHDOG: &str = r#"sleep "$1"
thawed=0
while fsfreeze -u "$2/mount" 2>/dev/null && [ $thawed -lt 100 ]; do thawed=$((thawed + 1)); done
umount -l "$2/mount"
rm -rf "$2""#;

/// A mounted filesystem; dropping it thaws, unmounts and removes it.
#[derive(Debug)]
pub struct LoopMount {
    folder: TempDir,
    watchdog: Child,
}

impl LoopMount {
    /// Makes and mounts a filesystem of a kind that [`crate::require::loop_device`] gave, of 320 MiB.
    ///
    /// # Panics
    /// When it cannot be made.
    #[must_use]
    pub fn new(kind: &str) -> Self {
        Self::with_size(kind, SIZE)
    }

    /// The same, for a test that takes so much longer than others.
    ///
    /// # Panics
    /// When it cannot be made.
    #[must_use]
    pub fn lasting(kind: &str, longer: Duration) -> Self {
        sweep();
        Self::make(kind, SIZE, TempDir::with_prefix(prefix()).expect("a temporary folder"), DEADLINE + longer)
    }

    /// The same, of a size.
    ///
    /// # Panics
    /// When it cannot be made.
    #[must_use]
    pub fn with_size(kind: &str, size: u64) -> Self {
        sweep();
        Self::make(kind, size, TempDir::with_prefix(prefix()).expect("a temporary folder"), DEADLINE)
    }

    /// The same, of 320 MiB, in a file in `folder`: on another filesystem of the test.
    ///
    /// # Panics
    /// When it cannot be made.
    #[must_use]
    pub fn in_folder(kind: &str, folder: &Path) -> Self {
        Self::make(kind, SIZE, TempDir::with_prefix_in(prefix(), folder).expect("a temporary folder"), DEADLINE)
    }

    fn make(kind: &str, size: u64, folder: TempDir, deadline: Duration) -> Self {
        let image = folder.path().join("image");
        File::create(&image).and_then(|image| image.set_len(size)).expect("an image");
        let quiet = if kind == "ext4" { ["-F", "-q"] } else { ["-f", "-q"] };
        run(Command::new(format!("mkfs.{kind}")).args(quiet).arg(&image));
        fs::create_dir(folder.path().join("mount")).expect("a mount point");
        let watchdog = watch(folder.path(), deadline);
        let mount = Self { folder, watchdog };
        run(Command::new("mount").args(["-t", kind, "-o", "loop"]).args([mount.image(), mount.path()]));
        mount
    }

    /// Where it is mounted.
    #[must_use]
    pub fn path(&self) -> PathBuf {
        self.folder.path().join("mount")
    }

    /// The file that it lies in.
    #[must_use]
    pub fn image(&self) -> PathBuf {
        self.folder.path().join("image")
    }

    /// The loop device.
    ///
    /// # Panics
    /// When it is not mounted any more.
    #[must_use]
    pub fn device(&self) -> PathBuf {
        let mounts = fs::read_to_string("/proc/mounts").expect("mounts");
        let path = self.path();
        let of = |line: &str| line.split(' ').nth(1).map(PathBuf::from) == Some(path.clone());
        let line = mounts.lines().find(|line| of(line)).expect("it is mounted");
        line.split(' ').next().unwrap_or_default().into()
    }
}

impl Drop for LoopMount {
    fn drop(&mut self) {
        clean(self.folder.path());
        let group = rustix::process::Pid::from_child(&self.watchdog);
        let _ = rustix::process::kill_process_group(group, rustix::process::Signal::KILL);
        let _ = self.watchdog.wait();
    }
}

fn prefix() -> String {
    format!("{PREFIX}{}-", std::process::id())
}

/// Starts the process that ends what still stands at the deadline, in a session that outlives the test's.
fn watch(folder: &Path, deadline: Duration) -> Child {
    let mut command = Command::new("sh");
    command.args(["-c", WATCHDOG, "watchdog", &deadline.as_secs().to_string()]).arg(folder);
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).current_dir("/");
    command.process_group(0).spawn().expect("a watchdog")
}

fn run(command: &mut Command) {
    let output = command.output().expect("a program of the system");
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
}

/// Thaws and unmounts; what is done already does not matter.
fn clean(folder: &Path) {
    let mount = folder.join("mount");
    // a test may have frozen what is thawed by now: then this fails, as it should
    let _ = Command::new("fsfreeze").arg("-u").arg(&mount).stderr(Stdio::null()).status();
    while Command::new("umount").arg("-l").arg(&mount).stderr(Stdio::null()).status().is_ok_and(|s| s.success()) {}
}

/// Ends what the tests of killed processes left.
fn sweep() {
    let mounts = fs::read_to_string("/proc/mounts").unwrap_or_default();
    for mount in mounts.lines().filter_map(|line| line.split(' ').nth(1)) {
        let Some(folder) = Path::new(mount).parent() else { continue };
        let name = folder.file_name().and_then(|name| name.to_str()).and_then(|name| name.strip_prefix(PREFIX));
        let Some(owner) = name.and_then(|name| name.split('-').next()) else { continue };
        if !Path::new("/proc").join(owner).exists() {
            clean(folder);
            let _ = fs::remove_dir_all(folder);
        }
    }
}
