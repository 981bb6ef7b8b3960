//! Turns what the system says of a file into a node of a tree.
//!
//! In one place for files, directories and all else, because restic's format fills each field by the same rules.

use std::{
    collections::HashMap,
    ffi::{CStr, OsStr},
    os::fd::{AsFd, AsRawFd},
    sync::Mutex,
};

use base64::prelude::{BASE64_STANDARD, Engine as _};
use jiff::Timestamp;
use nix::unistd::{Gid, Group, Uid, User};
use rustix::{
    fs::{self, AtFlags, FileType, Statx, StatxFlags, StatxTimestamp},
    io::Errno,
};
use stillpoint_repository::{ExtendedAttribute, Node, NodeKind, go_mode};

use crate::lock;

/// Attributes may change between the question for their size and the one for them.
const ATTEMPTS: usize = 5;

/// What the system says of an entry of a directory, a symbolic link itself and not what it leads to.
pub(super) fn stat(directory: impl AsFd, name: &OsStr) -> Result<Statx, Errno> {
    let flags = AtFlags::SYMLINK_NOFOLLOW | AtFlags::NO_AUTOMOUNT;
    fs::statx(directory, name, flags, StatxFlags::BASIC_STATS | StatxFlags::BTIME)
}

/// What the system says of an open file.
pub(super) fn stat_open(file: impl AsFd) -> Result<Statx, Errno> {
    fs::statx(file, "", AtFlags::EMPTY_PATH, StatxFlags::BASIC_STATS | StatxFlags::BTIME)
}

pub(super) fn kind(stat: &Statx) -> NodeKind {
    match FileType::from_raw_mode(stat.stx_mode.into()) {
        FileType::RegularFile => NodeKind::File,
        FileType::Directory => NodeKind::Dir,
        FileType::Symlink => NodeKind::Symlink,
        FileType::BlockDevice => NodeKind::Dev,
        FileType::CharacterDevice => NodeKind::CharDev,
        FileType::Fifo => NodeKind::Fifo,
        FileType::Socket => NodeKind::Socket,
        FileType::Unknown => NodeKind::Irregular,
    }
}

/// A time of a file; `None` where it lies beyond what the format can say, the years 0 to 9999.
pub(super) fn time(stamp: &StatxTimestamp) -> Option<Timestamp> {
    const YEAR_0: i64 = -62_167_219_200;
    let nanoseconds = i32::try_from(stamp.tv_nsec).ok()?;
    Timestamp::new(stamp.tv_sec, nanoseconds).ok().filter(|time| time.as_second() >= YEAR_0)
}

/// Names of users and groups, asked once each.
#[derive(Default)]
pub(super) struct Names {
    users: Mutex<HashMap<u32, String>>,
    groups: Mutex<HashMap<u32, String>>,
}

impl Names {
    fn user(&self, uid: u32) -> String {
        let ask = || User::from_uid(Uid::from_raw(uid)).ok().flatten().map(|user| user.name);
        remembered(&self.users, uid, ask)
    }

    fn group(&self, gid: u32) -> String {
        let ask = || Group::from_gid(Gid::from_raw(gid)).ok().flatten().map(|group| group.name);
        remembered(&self.groups, gid, ask)
    }

    /// A node with all that `stat` says; content, subtree, target and attributes are still to come. The second value
    /// says whether a time had to be replaced by the nearest that can be said.
    pub(super) fn node(&self, name: &OsStr, stat: &Statx) -> (Node, bool) {
        let kind = kind(stat);
        let (mtime, ctime) = (time(&stat.stx_mtime), time(&stat.stx_ctime));
        // restic counts none of pipes and sockets, and so makes several of one; it takes the number where it stands
        let has_links = kind != NodeKind::Dir;
        let is_device = matches!(kind, NodeKind::Dev | NodeKind::CharDev);
        let node = Node {
            name: name.to_owned(),
            kind,
            mode: go_mode(stat.stx_mode.into()),
            mtime: mtime.unwrap_or_default(),
            // as restic does: the time of the last access changes with every backup and is seldom wanted
            atime: mtime.unwrap_or_default(),
            ctime: ctime.unwrap_or_default(),
            uid: stat.stx_uid,
            gid: stat.stx_gid,
            user: self.user(stat.stx_uid),
            group: self.group(stat.stx_gid),
            inode: stat.stx_ino,
            device_id: fs::makedev(stat.stx_dev_major, stat.stx_dev_minor),
            size: if kind == NodeKind::File { stat.stx_size } else { 0 },
            links: if has_links { stat.stx_nlink.into() } else { 0 },
            linktarget: String::new(),
            linktarget_raw: None,
            extended_attributes: Vec::new(),
            device: if is_device { fs::makedev(stat.stx_rdev_major, stat.stx_rdev_minor) } else { 0 },
            content: None,
            subtree: None,
        };
        (node, mtime.is_none())
    }
}

fn remembered(known: &Mutex<HashMap<u32, String>>, id: u32, ask: impl FnOnce() -> Option<String>) -> String {
    let mut known = lock(known);
    known.entry(id).or_insert_with(|| ask().unwrap_or_default()).clone()
}

/// Extended attributes of an open file; none where the file system has none.
pub(super) fn attributes(file: impl AsFd) -> Result<Vec<ExtendedAttribute>, Errno> {
    let file = file.as_fd();
    let list = grown(|| fs::flistxattr_query(file), |list| fs::flistxattr(file, list));
    named(list, |name| grown(|| fs::fgetxattr_query(file, name), |value| fs::fgetxattr(file, name, value)))
}

/// Extended attributes of what cannot be opened: a link, a device, a pipe or a socket.
pub(super) fn attributes_unopened(directory: impl AsFd, name: &OsStr) -> Result<Vec<ExtendedAttribute>, Errno> {
    use std::os::unix::ffi::OsStrExt;
    let mut path = format!("/proc/self/fd/{}/", directory.as_fd().as_raw_fd()).into_bytes();
    path.extend_from_slice(name.as_bytes());
    let path = OsStr::from_bytes(&path);
    let list = grown(|| fs::llistxattr_query(path), |list| fs::llistxattr(path, list));
    named(list, |name| grown(|| fs::lgetxattr_query(path, name), |value| fs::lgetxattr(path, name, value)))
}

fn named(
    list: Result<Vec<u8>, Errno>,
    value: impl Fn(&CStr) -> Result<Vec<u8>, Errno>,
) -> Result<Vec<ExtendedAttribute>, Errno> {
    let list = match list {
        Err(Errno::OPNOTSUPP | Errno::NOSYS) => return Ok(Vec::new()),
        other => other?,
    };
    let names = list.split_inclusive(|byte| *byte == 0).filter_map(|name| CStr::from_bytes_with_nul(name).ok());
    let mut attributes = Vec::new();
    for name in names {
        match value(name) {
            // gone since it was listed
            Err(Errno::NODATA) => {}
            other => attributes.push(ExtendedAttribute {
                // names are text by the kernel's own rule
                name: name.to_str().map_err(|_| Errno::ILSEQ)?.to_owned(),
                value: Some(BASE64_STANDARD.encode(other?)),
            }),
        }
    }
    attributes.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(attributes)
}

/// Asks for the size, then for what has it, until the size stays.
fn grown(
    size: impl Fn() -> Result<usize, Errno>,
    read: impl Fn(&mut [u8]) -> Result<usize, Errno>,
) -> Result<Vec<u8>, Errno> {
    for _ in 0..ATTEMPTS {
        let mut bytes = vec![0; size()?];
        if bytes.is_empty() {
            return Ok(bytes);
        }
        match read(&mut bytes) {
            Ok(read) => {
                bytes.truncate(read);
                return Ok(bytes);
            }
            Err(Errno::RANGE) => {}
            Err(error) => return Err(error),
        }
    }
    Err(Errno::RANGE)
}
