//! Which filesystem a path is on.
//!
//! A freeze is a superblock's, not a path's or a mount's: the kernel's number of the superblock, as mountinfo gives it,
//! is what two paths are compared by. `stat` will not do, because btrfs gives every subvolume a number of its own.

use std::{
    collections::BTreeSet,
    ffi::OsString,
    fs::{self, File, OpenOptions},
    io,
    os::{
        fd::AsRawFd,
        unix::{ffi::OsStringExt, fs::OpenOptionsExt},
    },
    path::{Path, PathBuf},
};

use procfs::process::{MountInfo, Process};
use rustix::fs::OFlags;
use serde::{Deserialize, Serialize};

/// Why it could not be told.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The path does not open.
    #[error("cannot open {path}: {source}", path = path.display())]
    Open {
        /// The path.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The mounts cannot be read.
    #[error("cannot read the mounts of process {pid}: {source}")]
    Mounts {
        /// Whose.
        pid: String,
        /// Why.
        source: procfs::ProcError,
    },
    /// No mount that is visible here holds the path.
    #[error("{path} is on a mount that is not visible here", path = .0.display())]
    Unknown(PathBuf),
}

/// The kernel's number of a superblock, as `major:minor`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Device(String);

impl std::fmt::Display for Device {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

/// A filesystem, reached by a path on it.
#[derive(Debug)]
pub struct Filesystem {
    /// The path as it was given.
    pub path: PathBuf,
    /// Its number.
    pub device: Device,
    /// Its kind, such as `ext4`.
    pub kind: String,
    /// What is mounted, such as `/dev/sda1`.
    pub source: String,
    /// Where it is mounted.
    pub mount_point: PathBuf,
    /// Where the path is below the filesystem's own root.
    pub inside: PathBuf,
    /// An open directory on it, that a freeze, a thaw and a sync go through.
    pub directory: File,
}

/// The filesystem that `path` is on.
///
/// # Errors
/// When the path cannot be opened or its mount not be found.
pub fn of(path: &Path) -> Result<Filesystem, Error> {
    let directory = open(path).map_err(|source| Error::Open { path: path.to_owned(), source })?;
    let mount = mount_of(path, &directory)?;
    let real = fs::read_link(format!("/proc/self/fd/{}", directory.as_raw_fd())).unwrap_or_else(|_| path.to_owned());
    let below = real.strip_prefix(&mount.mount_point).map(Path::to_owned).unwrap_or_default();
    Ok(Filesystem {
        path: path.to_owned(),
        device: Device(mount.majmin),
        kind: mount.fs_type,
        source: mount.mount_source.unwrap_or_default(),
        mount_point: mount.mount_point,
        inside: Path::new(&mount.root).join(below),
        directory,
    })
}

/// The UUID of a filesystem in hexadecimal, where the kernel tells it.
pub(crate) fn uuid(filesystem: &Filesystem) -> Option<String> {
    let uuid = stillpoint_sys::filesystem_uuid(&filesystem.directory)?;
    Some(uuid.iter().map(|byte| format!("{byte:02x}")).collect())
}

/// The filesystem of a device, opened: by a mount in this mount namespace, or else in that of another process.
pub(crate) fn of_device(device: &Device, kind: &str, uuid: Option<&str>) -> Option<Filesystem> {
    for (process, mounts) in tables() {
        let root = PathBuf::from(format!("/proc/{}/root", process.pid));
        for mount in mounts.into_iter().filter(|mount| mount.majmin == device.0 && mount.fs_type == kind) {
            let inside = mount.mount_point.strip_prefix("/").unwrap_or(&mount.mount_point);
            // a mount that another one covers opens as the other one
            let opened = of(&root.join(inside)).ok().filter(|found| found.device == *device);
            if let Some(found) = opened.filter(|found| self::uuid(found).as_deref() == uuid) {
                return Some(found);
            }
        }
    }
    None
}

/// Where the kernel says what it swaps to.
pub(crate) const SWAPS: &str = "/proc/swaps";

/// The paths in the first column of such a list, or of one of NFS exports: blanks in them are written as octal numbers.
pub(crate) fn first_paths(list: &str) -> impl Iterator<Item = PathBuf> {
    let words = list.lines().filter_map(|line| line.split_whitespace().next());
    words.map(|word| PathBuf::from(OsString::from_vec(unescape(word.as_bytes())))).filter(|path| path.is_absolute())
}

fn unescape(mut word: &[u8]) -> Vec<u8> {
    let octal = |digits: &[u8]| {
        let text = std::str::from_utf8(digits).ok()?;
        u8::from_str_radix(text, 8).ok()
    };
    let mut bytes = Vec::new();
    while let Some((&first, rest)) = word.split_first() {
        let escaped = if first == b'\\' { rest.get(..3).and_then(octal) } else { None };
        bytes.push(escaped.unwrap_or(first));
        word = if escaped.is_some() { &rest[3..] } else { rest };
    }
    bytes
}

/// Paths by which the folder `inside` of filesystems of a kind may be reached, through every mount namespace: for whoever
/// looks for a name in it that there is only once.
pub fn places(kind: &str, inside: &Path) -> impl Iterator<Item = PathBuf> {
    tables().flat_map(move |(process, mounts)| {
        let root = PathBuf::from(format!("/proc/{}/root", process.pid));
        let of_kind = mounts.into_iter().filter(move |mount| mount.fs_type == kind);
        of_kind.filter_map(move |mount| {
            let below = inside.strip_prefix(&mount.root).ok()?;
            Some(root.join(mount.mount_point.strip_prefix("/").unwrap_or(&mount.mount_point)).join(below))
        })
    })
}

/// Never blocks, on no kind of file: what is opened may be anything that somebody mounted.
fn open(path: &Path) -> io::Result<File> {
    let flags = i32::try_from((OFlags::NONBLOCK | OFlags::NOCTTY).bits()).unwrap_or_default();
    OpenOptions::new().read(true).custom_flags(flags).open(path)
}

fn mount_of(path: &Path, file: &File) -> Result<MountInfo, Error> {
    let unknown = || Error::Unknown(path.to_owned());
    let described = fs::read_to_string(format!("/proc/self/fdinfo/{}", file.as_raw_fd())).map_err(|_| unknown())?;
    let id = described.lines().find_map(|line| line.strip_prefix("mnt_id:")).ok_or_else(unknown)?;
    let id: i32 = id.trim().parse().map_err(|_| unknown())?;
    for pid in std::iter::once("self").chain(foreign_root(path)) {
        let read = |source| Error::Mounts { pid: pid.to_owned(), source };
        let process = Process::new_with_root(Path::new("/proc").join(pid)).map_err(read)?;
        let mounts = process.mountinfo().map_err(read)?;
        if let Some(mount) = mounts.0.into_iter().find(|mount| mount.mnt_id == id) {
            return Ok(mount);
        }
    }
    // opened through somebody's root and passed on as a descriptor: numbers of mounts are the whole host's
    let elsewhere = tables().find_map(|(_, mounts)| mounts.into_iter().find(|mount| mount.mnt_id == id));
    elsewhere.ok_or_else(unknown)
}

/// The mount table of each mount namespace, by one process that is in it; our own first.
fn tables() -> impl Iterator<Item = (Process, Vec<MountInfo>)> {
    let mut namespaces = BTreeSet::new();
    Process::myself().into_iter().chain(processes()).filter_map(move |process| {
        let namespace = fs::read_link(format!("/proc/{}/ns/mnt", process.pid)).ok()?;
        if namespaces.contains(&namespace) {
            return None;
        }
        // one that ends meanwhile must not stand for the others
        let mounts = process.mountinfo().ok()?.0;
        namespaces.insert(namespace);
        Some((process, mounts))
    })
}

/// All processes of this host, the oldest first: those that live long tell of their namespace.
pub(crate) fn processes() -> impl Iterator<Item = Process> {
    let all = procfs::process::all_processes().into_iter().flatten().filter_map(Result::ok);
    let mut all: Vec<_> = all.filter_map(|process| Some((process.stat().ok()?.starttime, process))).collect();
    all.sort_by_key(|(started, _)| *started);
    all.into_iter().map(|(_, process)| process)
}

/// The process whose mounts a path such as `/proc/123/root/data` or `/proc/123/fd/4` goes through.
fn foreign_root(path: &Path) -> Option<&str> {
    let rest = path.strip_prefix("/proc").ok()?;
    let mut parts = rest.iter().map(|part| part.to_str());
    let pid = parts.next()??;
    let through = ["root", "fd", "exe", "cwd"].contains(&parts.next()??);
    (through && pid.bytes().all(|byte| byte.is_ascii_digit())).then_some(pid)
}

#[cfg(test)]
mod tests {
    use stillpoint_test_support::require;

    use super::*;

    #[test]
    fn two_paths_of_one_filesystem_have_one_device() {
        assert_eq!(of(Path::new("/proc")).unwrap().device, of(Path::new("/proc/self")).unwrap().device);
        assert_ne!(of(Path::new("/proc")).unwrap().device, of(Path::new("/dev/shm")).unwrap().device);
    }

    #[test]
    fn a_path_through_another_process_is_on_the_same_filesystem() {
        let own = of(Path::new("/dev/shm")).unwrap();
        let through = of(&PathBuf::from(format!("/proc/{}/root/dev/shm", std::process::id()))).unwrap();
        assert_eq!((own.device, own.kind), (through.device, through.kind));
    }

    #[test]
    fn a_directory_of_another_mount_namespace_is_known_by_its_descriptor() {
        let Some(()) = require::root() else { return };
        let mut child = std::process::Command::new("unshare")
            .args(["--mount", "sh", "-c", "mount -t tmpfs -o size=1m hidden /mnt && echo ready && read line"])
            .stdin(std::process::Stdio::piped())
            .stdout(std::process::Stdio::piped())
            .spawn()
            .unwrap();
        let mut ready = [0; 6];
        std::io::Read::read_exact(child.stdout.as_mut().unwrap(), &mut ready).unwrap();
        let directory = File::open(format!("/proc/{}/root/mnt", child.id())).unwrap();
        let path = PathBuf::from(format!("/proc/{}/fd/{}", std::process::id(), directory.as_raw_fd()));
        let found = of(&path).unwrap();
        assert_eq!((found.kind.as_str(), found.source.as_str()), ("tmpfs", "hidden"));
        assert_eq!(found.inside, Path::new("/"));
        child.kill().unwrap();
        child.wait().unwrap();
    }

    #[test]
    fn paths_are_read_from_the_lists_of_swap_and_of_exports() {
        let paths = |list| first_paths(list).map(|path| path.display().to_string()).collect::<Vec<_>>();
        let swaps = "Filename\t\t\t\tType\t\tSize\t\tUsed\t\tPriority\n\
                     /dev/sda2                               partition\t8\t0\t-2\n\
                     /mnt/a\\040swap\\134file\\040(deleted)   file\t8\t0\t-3\n";
        assert_eq!(paths(swaps), ["/dev/sda2", "/mnt/a swap\\file (deleted)"]);
        let etab = "/srv/data\t*(rw,sync,wdelay,hide,nocrossmnt,secure)\n/srv/two\\040words\t10.0.0.0/8(ro)\n";
        assert_eq!(paths(etab), ["/srv/data", "/srv/two words"]);
        let nfsd = "# Version 1.1\n# Path Client(Flags) # IPs\n/srv/data\t10.0.0.1(rw,root_squash)\n";
        assert_eq!(paths(nfsd), ["/srv/data"]);
        assert_eq!(paths(""), Vec::<String>::new());
        assert_eq!(paths("/ends\\04"), ["/ends\\04"]);
    }

    #[test]
    fn a_device_is_found_by_its_number() {
        let own = of(Path::new("/dev/shm")).unwrap();
        let uuid = uuid(&own);
        assert!(of_device(&own.device, "tmpfs", uuid.as_deref()).is_some());
        assert!(of_device(&own.device, "ext4", uuid.as_deref()).is_none());
        assert!(of_device(&own.device, "tmpfs", Some("another")).is_none());
    }
}
