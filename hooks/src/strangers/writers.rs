//! Looks at what processes and the kernel write to, anywhere on this host.
//!
//! Apart from the question whose volume that is, because many volumes ask at the same time and /proc is slow: mounts are
//! read once for all processes that see the same ones.

use std::{
    collections::HashMap,
    fs,
    path::{Path, PathBuf},
    sync::Arc,
};

use procfs::process::{self, MMPermissions, MMapPath, MountInfo};

use super::Stranger;
use crate::{
    members::{self, Members},
    mounts::{self, Device},
};

/// Everything on this host that writes to files.
#[derive(Debug)]
pub struct Writers {
    pub(super) processes: Vec<Process>,
    pub(super) others: Vec<Other>,
}

/// What writes, or has the kernel write, without a descriptor.
#[derive(Debug)]
pub(super) struct Other {
    pub(super) who: Stranger,
    /// The same place, as this process sees it and as another may.
    pub(super) places: Vec<Place>,
}

/// Where a file or folder is.
#[derive(Debug)]
pub(super) struct Place {
    pub(super) device: Device,
    /// Below the root of the filesystem.
    pub(super) inside: PathBuf,
}

/// A process that has files open or mapped for writing.
#[derive(Debug)]
pub(super) struct Process {
    pub(super) pid: u32,
    pub(super) program: String,
    /// The cgroups that it is in; none if it ends.
    place: Option<String>,
    pub(super) mounts: Arc<Vec<MountInfo>>,
    /// By the mount's id, as the process sees them.
    pub(super) open: Vec<(i32, PathBuf)>,
    /// By the device.
    pub(super) mapped: Vec<(String, PathBuf)>,
}

impl Writers {
    /// Looks at all of this host, apart from this process. Blocks.
    #[must_use]
    pub fn look() -> Self {
        let mut seen = Mounts::default();
        let all = mounts::processes();
        let processes = all.filter_map(|process| Process::look(&process, seen.of(&process)?)).collect();
        let listed =
            |list: &str| mounts::first_paths(&fs::read_to_string(list).unwrap_or_default()).collect::<Vec<_>>();
        let swaps = listed(mounts::SWAPS).into_iter().map(|file| Other::at(Stranger::Swap { file }));
        let exports = ["/var/lib/nfs/etab", "/proc/fs/nfsd/exports"].map(listed).concat();
        let exports = exports.into_iter().map(|folder| Other::at(Stranger::Exported { folder }));
        let others = seen.overlays.into_iter().chain(loops()).chain(swaps).chain(exports).collect();
        Self { processes, others }
    }
}

impl Other {
    /// What writes to a place that this process sees.
    fn at(who: Stranger) -> Self {
        let places = Place::of(who.file()).into_iter().collect();
        Self { who, places }
    }

    /// An overlay that another process sees.
    fn overlay(pid: u32, upper: &str) -> Self {
        let through = format!("/proc/{pid}/root{upper}");
        let places = [Path::new(&through), Path::new(upper)].into_iter().filter_map(Place::of).collect();
        Self { who: Stranger::Overlay { upper: upper.into() }, places }
    }
}

impl Place {
    fn of(path: &Path) -> Option<Self> {
        let mounts::Filesystem { device, inside, .. } = mounts::of(path).ok()?;
        Some(Self { device, inside })
    }
}

impl Process {
    fn look(process: &process::Process, mounts: Arc<Vec<MountInfo>>) -> Option<Self> {
        let pid = Some(process.pid.unsigned_abs()).filter(|pid| *pid != std::process::id())?;
        let (open, mapped) = (open(pid), mapped(process));
        if open.is_empty() && mapped.is_empty() {
            return None;
        }
        let stat = process.stat().ok()?;
        let place = if members::is_ending(&stat) { None } else { members::place(pid) };
        Some(Self { pid, program: stat.comm, place, mounts, open, mapped })
    }

    /// Whether it is one of these, or ends and does nothing any more.
    pub(super) fn is_one_of(&self, members: &Members) -> bool {
        members.hold_at(self.pid, self.place.as_deref())
    }
}

/// The mounts that processes see, by mount namespace and root.
#[derive(Default)]
struct Mounts {
    known: HashMap<(PathBuf, PathBuf), Arc<Vec<MountInfo>>>,
    overlays: Vec<Other>,
}

impl Mounts {
    fn of(&mut self, process: &process::Process) -> Option<Arc<Vec<MountInfo>>> {
        let pid = process.pid.unsigned_abs();
        let link = |name: &str| fs::read_link(format!("/proc/{pid}/{name}")).ok();
        let key = (link("ns/mnt")?, link("root")?);
        if let Some(known) = self.known.get(&key) {
            return Some(known.clone());
        }
        let mounts = Arc::new(process.mountinfo().ok()?.0);
        let overlays = mounts.iter().filter(|mount| mount.fs_type == "overlay");
        let uppers = overlays.filter_map(|mount| mount.super_options.get("upperdir")?.as_deref());
        self.overlays.extend(uppers.map(|upper| Other::overlay(pid, upper)));
        self.known.insert(key, mounts.clone());
        Some(mounts)
    }
}

/// The files that a process has open for writing, with the ids of their mounts.
fn open(pid: u32) -> Vec<(i32, PathBuf)> {
    let descriptors = fs::read_dir(format!("/proc/{pid}/fd")).into_iter().flatten().flatten();
    let open = descriptors.filter_map(|descriptor| {
        // what is no file has no path
        let file = fs::read_link(descriptor.path()).ok().filter(|file| file.is_absolute())?;
        let about = fs::read_to_string(format!("/proc/{pid}/fdinfo/{}", descriptor.file_name().display())).ok()?;
        let (writes, mount) = parse(&about)?;
        writes.then_some((mount, file))
    });
    open.collect()
}

/// The files that a process has mapped for writing, with their devices.
fn mapped(process: &process::Process) -> Vec<(String, PathBuf)> {
    let shared = MMPermissions::WRITE | MMPermissions::SHARED;
    let maps = process.maps().into_iter().flatten().filter(|map| map.perms.contains(shared));
    let mapped = maps.filter_map(|map| match map.pathname {
        MMapPath::Path(file) => Some((format!("{}:{}", map.dev.0, map.dev.1), file)),
        _ => None,
    });
    mapped.collect()
}

fn loops() -> impl Iterator<Item = Other> {
    let devices = fs::read_dir("/sys/class/block").into_iter().flatten().flatten();
    devices.filter_map(|device| {
        let file = fs::read_to_string(device.path().join("loop/backing_file")).ok()?;
        let (device, file) = (device.file_name().to_string_lossy().into_owned(), file.trim_end_matches('\n').into());
        Some(Other::at(Stranger::Loop { device, file }))
    })
}

/// Whether a descriptor is open for writing, and the id of its mount.
fn parse(about: &str) -> Option<(bool, i32)> {
    let value = |name: &str| about.lines().find_map(|line| line.strip_prefix(name)).map(str::trim);
    let flags = u32::from_str_radix(value("flags:")?, 8).ok()?;
    Some((flags & 0o3 != 0, value("mnt_id:")?.parse().ok()?))
}
