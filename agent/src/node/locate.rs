//! Finds a pod's volume on this node.
//!
//! The wire names a pod's uid, its container and the path inside it; what is opened is looked up in that container's
//! own mount table, through its own root, so that a request can lead to nothing but what Kubernetes mounted there.

use std::{
    collections::BTreeSet,
    os::fd::{AsRawFd, OwnedFd},
    path::{Path, PathBuf},
};

use procfs::process::{MountInfo, Process};
use rustix::fs::{self, AtFlags, CWD, Mode, OFlags, ResolveFlags, StatxFlags};
use stillpoint_hooks::{
    mounts::{self, Device, Filesystem},
    pods,
};

use super::wire;

/// A volume of this node, found and opened.
#[derive(Debug)]
pub(crate) struct Located {
    /// Its root.
    pub(crate) directory: OwnedFd,
    /// The path by which another process of this host reaches the same directory while this one keeps it open.
    pub(crate) path: PathBuf,
    /// What it lies on.
    pub(crate) device: Device,
    /// The filesystem's kind, such as `ext4`.
    pub(crate) kind: String,
    /// The cgroups of the pods that mount it.
    pub(crate) cgroups: Vec<PathBuf>,
}

/// Why a volume cannot be reached.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// The pod does not run here, or not any more.
    #[error("no container of pod {pod} that mounts it runs on this node")]
    NotRunning { pod: String },
    /// The container has nothing mounted there.
    #[error("the container of pod {pod} has no mount at {path}")]
    NoMount { pod: String, path: String },
    /// What is mounted there is no directory.
    #[error("{path} in pod {pod} is a {what}, not a directory: {advice}")]
    NotADirectory { pod: String, path: String, what: &'static str, advice: &'static str },
    /// Only a part of it is mounted.
    #[error("pod {pod} mounts only a part of it (subPath), and the whole is not below kubelet's folder of the pod")]
    Part { pod: String },
    /// It cannot be opened.
    #[error("cannot open {path} of pod {pod}: {source}")]
    Open { pod: String, path: String, source: std::io::Error },
    /// The filesystem is unknown.
    #[error(transparent)]
    Mounts(#[from] mounts::Error),
}

/// Where things are on this host.
#[derive(Debug, Clone)]
pub(crate) struct Host {
    /// Kubelet's folder, as the host sees it.
    pub(crate) kubelet: PathBuf,
    /// Where the host's cgroup hierarchies are mounted.
    pub(crate) cgroups: PathBuf,
}

/// Finds a volume by the first of its mounts that leads to all of it. Blocks.
pub(crate) fn locate(volume: &wire::Volume, host: &Host) -> Result<Located, Error> {
    let mut why = Error::NotRunning { pod: "(none)".to_owned() };
    for mount in &volume.mounts {
        let found = if mount.part { whole_of(volume, mount, host) } else { mounted(mount) };
        match found {
            Ok(directory) => return describe(volume, directory, host),
            Err(error) => why = error,
        }
    }
    Err(why)
}

/// The directory that a container has mounted, opened through the container's root.
fn mounted(mount: &wire::Mount) -> Result<OwnedFd, Error> {
    let pod = || mount.pod.clone();
    let path = Path::new(&mount.mount_path);
    for process in processes(mount) {
        let Ok(table) = process.mountinfo() else { continue };
        // a later mount covers an earlier one
        let Some(entry) = table.0.into_iter().rfind(|entry| entry.mount_point == path) else {
            return Err(Error::NoMount { pod: pod(), path: mount.mount_path.clone() });
        };
        let root = PathBuf::from(format!("/proc/{}/root", process.pid));
        match open_mount(&root, path, &entry) {
            Ok(directory) => return Ok(directory),
            // it ended between our two looks
            Err(source) if source.kind() == std::io::ErrorKind::NotFound && !process.is_alive() => {}
            Err(source) if source.kind() == std::io::ErrorKind::NotADirectory => {
                let what = "file or device";
                let advice = "block volumes and single files need a CSI snapshot";
                return Err(Error::NotADirectory { pod: pod(), path: mount.mount_path.clone(), what, advice });
            }
            Err(source) => return Err(Error::Open { pod: pod(), path: mount.mount_path.clone(), source }),
        }
    }
    Err(Error::NotRunning { pod: pod() })
}

/// Opens below a container's root what its mount table says, wherever links in the container lead.
fn open_mount(root: &Path, path: &Path, entry: &MountInfo) -> std::io::Result<OwnedFd> {
    let root = fs::openat(CWD, root, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
    let directory = fs::openat2(&root, path, flags, Mode::empty(), resolve)?;
    let stat = fs::statx(&directory, "", AtFlags::EMPTY_PATH, StatxFlags::MNT_ID)?;
    if i64::try_from(stat.stx_mnt_id) == Ok(i64::from(entry.mnt_id)) {
        Ok(directory)
    } else {
        Err(std::io::Error::other("a link in the container leads elsewhere"))
    }
}

/// The whole volume, of which the container sees a part: kubelet has it in its folder of the pod.
fn whole_of(volume: &wire::Volume, mount: &wire::Mount, host: &Host) -> Result<OwnedFd, Error> {
    let part = || Error::Part { pod: mount.pod.clone() };
    if !is_name(&mount.pod_uid) || !is_name(&volume.volume_name) {
        return Err(part());
    }
    let folder = host.kubelet.join("pods").join(&mount.pod_uid).join("volumes");
    let plugins = std::fs::read_dir(below(Path::new("/proc/1/root"), &folder)).map_err(|_| part())?;
    for plugin in plugins.flatten() {
        let base = plugin.path().join(&volume.volume_name);
        for place in [base.join("mount"), base] {
            let stat = fs::statx(CWD, &place, AtFlags::SYMLINK_NOFOLLOW, StatxFlags::TYPE);
            // kubelet's own folder is no volume
            if stat.is_ok_and(|stat| stat.stx_attributes.contains(fs::StatxAttributes::MOUNT_ROOT)) {
                let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
                let open = |source: rustix::io::Errno| Error::Open {
                    pod: mount.pod.clone(),
                    path: place.display().to_string(),
                    source: source.into(),
                };
                return fs::openat(CWD, &place, flags, Mode::empty()).map_err(open);
            }
        }
    }
    Err(part())
}

fn below(root: &Path, path: &Path) -> PathBuf {
    root.join(path.strip_prefix("/").unwrap_or(path))
}

/// Whether a name is one folder's and leads nowhere else.
fn is_name(name: &str) -> bool {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_');
    !name.is_empty() && !name.starts_with('.') && name.bytes().all(allowed)
}

fn describe(volume: &wire::Volume, directory: OwnedFd, host: &Host) -> Result<Located, Error> {
    let path = PathBuf::from(format!("/proc/{}/fd/{}", std::process::id(), directory.as_raw_fd()));
    let Filesystem { device, kind, .. } = mounts::of(&path)?;
    let uids: BTreeSet<_> = volume.mounts.iter().map(|mount| mount.pod_uid.as_str()).collect();
    let found = uids.into_iter().map(|uid| pods::cgroups(&host.cgroups, uid)).collect::<Result<Vec<_>, _>>();
    // without all of them a pause would stand for nothing; a freeze needs none
    let cgroups = found.map(|found| found.concat()).unwrap_or_else(|error| {
        tracing::info!(volume = volume.id, %error, "its pods cannot be paused");
        Vec::new()
    });
    Ok(Located { directory, path, device, kind, cgroups })
}

/// The processes of the container, the oldest first.
fn processes(mount: &wire::Mount) -> Vec<Process> {
    // the runtime's name stands before it, as in `containerd://…`
    let id = mount.container_id.rsplit('/').next().unwrap_or_default();
    if !is_name(id) {
        return Vec::new();
    }
    let all = procfs::process::all_processes().into_iter().flatten().filter_map(Result::ok);
    let is_in = |process: &Process| {
        let cgroups = process.cgroups().map(|cgroups| cgroups.0).unwrap_or_default();
        cgroups.iter().any(|cgroup| cgroup.pathname.contains(id))
    };
    let mut found: Vec<_> = all.filter(is_in).collect();
    found.sort_by_key(|process| process.stat().map_or(u64::MAX, |stat| stat.starttime));
    found
}
