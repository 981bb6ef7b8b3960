//! Writers of a volume that a pause does not hold.
//!
//! A pause stands for a volume only while every writer of it is known. A freeze needs none of this: the kernel stops all.
//! A mount alone is no writer, and not every writer has a descriptor: a loop device and an overlay write on behalf of
//! others. Searched before and after the work, because a stranger may come and go.

mod changed;

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt, fs,
    path::{Path, PathBuf},
};

pub use changed::{changed_since, next_instant};
use procfs::process::{MMPermissions, MMapPath, MountInfo, Process};

use crate::{
    members::{Members, members},
    mounts::{self, Device},
};

/// A writer that is not paused.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Stranger {
    /// A process has a file open for writing.
    Open {
        /// The process.
        pid: u32,
        /// Its program.
        program: String,
        /// The file, below the root of the filesystem.
        file: PathBuf,
    },
    /// A process has a file mapped for writing.
    Mapped {
        /// The process.
        pid: u32,
        /// Its program.
        program: String,
        /// The file, below the root of the filesystem.
        file: PathBuf,
    },
    /// A loop device lies in a file.
    Loop {
        /// The device.
        device: String,
        /// The file.
        file: PathBuf,
    },
    /// An overlay writes to a folder.
    Overlay {
        /// The folder.
        upper: PathBuf,
    },
    /// A folder is exported to other hosts.
    Exported {
        /// The folder.
        folder: PathBuf,
    },
    /// The kernel swaps to a file.
    Swap {
        /// The file.
        file: PathBuf,
    },
}

impl fmt::Display for Stranger {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Open { pid, program, file } => {
                write!(f, "{program} (process {pid}) has {} open for writing", file.display())
            }
            Self::Mapped { pid, program, file } => {
                write!(f, "{program} (process {pid}) has {} mapped for writing", file.display())
            }
            Self::Loop { device, file } => write!(f, "the loop device {device} lies in {}", file.display()),
            Self::Overlay { upper } => write!(f, "an overlay writes to {}", upper.display()),
            Self::Exported { folder } => write!(f, "{} is exported by NFS", folder.display()),
            Self::Swap { file } => write!(f, "the kernel swaps to {}", file.display()),
        }
    }
}

/// Every writer of the volume in `folder` that is in none of `cgroups`.
///
/// # Errors
/// When the folder's filesystem cannot be told.
pub fn search(folder: &Path, cgroups: &[PathBuf]) -> Result<BTreeSet<Stranger>, mounts::Error> {
    let volume = Volume::of(folder)?;
    let paused = Members::of(cgroups);
    let mut found = BTreeSet::new();
    let mut namespaces = BTreeSet::new();
    for process in procfs::process::all_processes().into_iter().flatten().filter_map(Result::ok) {
        let Ok(mounts) = process.mountinfo() else { continue };
        let mounts = mounts.0;
        let pid = process.pid.unsigned_abs();
        if !paused.hold(pid) && pid != std::process::id() {
            found.extend(volume.opened_by(&process, &mounts));
            found.extend(volume.mapped_by(&process, &mounts));
        }
        let namespace = fs::read_link(format!("/proc/{pid}/ns/mnt"));
        if namespace.is_ok_and(|namespace| namespaces.insert(namespace)) {
            found.extend(volume.overlays(pid, &mounts));
        }
    }
    found.extend(volume.loops());
    found.extend(volume.listed(mounts::SWAPS, |file| Stranger::Swap { file }));
    for exports in ["/var/lib/nfs/etab", "/proc/fs/nfsd/exports"] {
        found.extend(volume.listed(exports, |folder| Stranger::Exported { folder }));
    }
    Ok(found)
}

/// Processes of the cgroups that may have I/O in flight that a pause does not end.
#[must_use]
pub fn with_io_in_flight(cgroups: &[PathBuf]) -> BTreeMap<u32, &'static str> {
    let pids: BTreeSet<u32> = cgroups.iter().flat_map(|cgroup| members(cgroup)).collect();
    pids.into_iter().filter_map(|pid| Some((pid, io_in_flight(pid)?))).collect()
}

/// An AIO context is a mapping, an io_uring a descriptor; whether either is busy cannot be seen.
fn io_in_flight(pid: u32) -> Option<&'static str> {
    let maps = fs::read_to_string(format!("/proc/{pid}/maps")).unwrap_or_default();
    if maps.lines().any(|line| line.ends_with("/[aio] (deleted)") || line.ends_with("/[aio]")) {
        return Some("AIO");
    }
    let descriptors = fs::read_dir(format!("/proc/{pid}/fd")).into_iter().flatten().flatten();
    let mut links = descriptors.filter_map(|descriptor| fs::read_link(descriptor.path()).ok());
    links.any(|link| link == Path::new("anon_inode:[io_uring]")).then_some("io_uring")
}

/// A folder of a filesystem, as its files are seen from anywhere: by device, and by path below the filesystem's root.
struct Volume {
    device: Device,
    inside: PathBuf,
}

impl Volume {
    fn of(folder: &Path) -> Result<Self, mounts::Error> {
        let filesystem = mounts::of(folder)?;
        let inside = filesystem.inside.clone();
        Ok(Self { device: filesystem.device, inside })
    }

    /// Where a file of this volume is, below the filesystem's root.
    fn holds(&self, mount: &MountInfo, file: &Path) -> Option<PathBuf> {
        if mount.majmin != self.device.to_string() {
            return None;
        }
        let below = file.strip_prefix(&mount.mount_point).ok()?;
        let inside = Path::new(&mount.root).join(below);
        inside.starts_with(&self.inside).then_some(inside)
    }

    fn opened_by(&self, process: &Process, mounts: &[MountInfo]) -> Vec<Stranger> {
        let pid = process.pid.unsigned_abs();
        let mut found = Vec::new();
        for descriptor in fs::read_dir(format!("/proc/{pid}/fd")).into_iter().flatten().flatten() {
            let about = fs::read_to_string(format!("/proc/{pid}/fdinfo/{}", descriptor.file_name().display()));
            let Some((writes, mount)) = about.ok().and_then(|about| parse(&about)) else { continue };
            let Some(mount) = mounts.iter().find(|known| writes && known.mnt_id == mount) else { continue };
            let Ok(link) = fs::read_link(descriptor.path()) else { continue };
            if let Some(file) = self.holds(mount, &link) {
                found.push(Stranger::Open { pid, program: program(process), file });
            }
        }
        found
    }

    fn mapped_by(&self, process: &Process, mounts: &[MountInfo]) -> Vec<Stranger> {
        let pid = process.pid.unsigned_abs();
        let mut found = Vec::new();
        for map in process.maps().into_iter().flatten() {
            let shared = MMPermissions::WRITE | MMPermissions::SHARED;
            let MMapPath::Path(path) = &map.pathname else { continue };
            if map.perms.contains(shared) && format!("{}:{}", map.dev.0, map.dev.1) == self.device.to_string() {
                let file = mounts.iter().find_map(|mount| self.holds(mount, path));
                found.extend(file.map(|file| Stranger::Mapped { pid, program: program(process), file }));
            }
        }
        found
    }

    fn overlays(&self, pid: u32, mounts: &[MountInfo]) -> Vec<Stranger> {
        let overlays = mounts.iter().filter(|mount| mount.fs_type == "overlay");
        let uppers = overlays.filter_map(|mount| mount.super_options.get("upperdir")?.as_deref());
        let through = |upper: &str| format!("/proc/{pid}/root{upper}");
        uppers
            .filter(|upper| self.holds_path(Path::new(&through(upper))) || self.holds_path(Path::new(upper)))
            .map(|upper| Stranger::Overlay { upper: upper.into() })
            .collect()
    }

    fn loops(&self) -> Vec<Stranger> {
        let devices = fs::read_dir("/sys/class/block").into_iter().flatten().flatten();
        let found = devices.filter_map(|device| {
            let file = fs::read_to_string(device.path().join("loop/backing_file")).ok()?;
            let file = PathBuf::from(file.trim_end_matches('\n'));
            let device = device.file_name().to_string_lossy().into_owned();
            self.holds_path(&file).then_some(Stranger::Loop { device, file })
        });
        found.collect()
    }

    /// What a file of the kernel's, or of a daemon's, names on this volume.
    fn listed(&self, list: &str, stranger: impl Fn(PathBuf) -> Stranger) -> Vec<Stranger> {
        let text = fs::read_to_string(list).unwrap_or_default();
        mounts::first_paths(&text).filter(|path| self.holds_path(path)).map(stranger).collect()
    }

    /// Whether a path lies in this volume, or this volume below it.
    fn holds_path(&self, path: &Path) -> bool {
        mounts::of(path).is_ok_and(|found| {
            found.device == self.device
                && (found.inside.starts_with(&self.inside) || self.inside.starts_with(&found.inside))
        })
    }
}

/// Whether a descriptor is open for writing, and the id of its mount.
fn parse(about: &str) -> Option<(bool, i32)> {
    let value = |name: &str| about.lines().find_map(|line| line.strip_prefix(name)).map(str::trim);
    let flags = u32::from_str_radix(value("flags:")?, 8).ok()?;
    Some((flags & 0o3 != 0, value("mnt_id:")?.parse().ok()?))
}

fn program(process: &Process) -> String {
    process.stat().map(|stat| stat.comm).unwrap_or_default()
}
