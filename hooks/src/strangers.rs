//! Writers of a volume that a pause does not hold.
//!
//! A pause stands for a volume only while every writer of it is known. A freeze needs none of this: the kernel stops all.
//! A mount alone is no writer, and not every writer has a descriptor: a loop device and an overlay write on behalf of
//! others. Searched before and after the work, because a stranger may come and go.
//!
//! ```text
//! look at all of the host once ─┬─ strangers of volume a
//!                               └─ strangers of volume b …
//! ```
//! The look is what costs, on a node of many pods, while writers stand still: it serves any number of volumes.

mod changed;
mod writers;

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt, fs,
    path::{Path, PathBuf},
};

pub use changed::{changed_since, next_instant};
use procfs::process::MountInfo;

pub use self::writers::Writers;
use self::writers::{Place, Process};
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

impl Writers {
    /// Those that write to the volume in `folder` and are in none of `cgroups`.
    ///
    /// # Errors
    /// When the folder's filesystem cannot be told.
    pub fn strangers(&self, folder: &Path, cgroups: &[PathBuf]) -> Result<BTreeSet<Stranger>, mounts::Error> {
        let (volume, paused) = (Volume::of(folder)?, Members::of(cgroups));
        let processes = self.processes.iter().map(|process| (process, volume.written_by(process)));
        let foreign = processes.filter(|(process, found)| !found.is_empty() && !process.is_one_of(&paused));
        let found = foreign.flat_map(|(_, found)| found);
        let others = self.others.iter().filter(|other| other.places.iter().any(|place| volume.meets(place)));
        Ok(found.chain(others.map(|other| other.who.clone())).collect())
    }
}

impl Stranger {
    /// What it writes to, as whoever names it sees it.
    fn file(&self) -> &Path {
        match self {
            Self::Open { file, .. } | Self::Mapped { file, .. } | Self::Loop { file, .. } | Self::Swap { file } => file,
            Self::Overlay { upper } => upper,
            Self::Exported { folder } => folder,
        }
    }
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

    fn written_by(&self, process: &Process) -> Vec<Stranger> {
        let Process { pid, program, mounts, open, mapped, .. } = process;
        let open = open.iter().filter_map(|(mount, file)| {
            let mount = mounts.iter().find(|known| known.mnt_id == *mount)?;
            Some(Stranger::Open { pid: *pid, program: program.clone(), file: self.holds(mount, file)? })
        });
        let mapped = mapped.iter().filter(|(device, _)| *device == self.device.to_string()).filter_map(|(_, file)| {
            let file = mounts.iter().find_map(|mount| self.holds(mount, file))?;
            Some(Stranger::Mapped { pid: *pid, program: program.clone(), file })
        });
        open.chain(mapped).collect()
    }

    /// Whether a place lies in this volume, or this volume below it.
    fn meets(&self, place: &Place) -> bool {
        place.device == self.device
            && (place.inside.starts_with(&self.inside) || self.inside.starts_with(&place.inside))
    }
}
