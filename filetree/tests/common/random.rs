//! Random trees of every kind of node, and how they are made on disk.
//!
//! What is made is described in full by a value, so that a failing tree shrinks to a small one.

use std::{
    ffi::{CString, OsStr, OsString},
    fs::{self, File},
    os::unix::{
        ffi::{OsStrExt, OsStringExt},
        fs::FileExt,
    },
    path::{Path, PathBuf},
};

use proptest::{collection::vec, option, prelude::*, sample::Index};
use rustix::fs::{AtFlags, CWD, FileType, Gid, Mode, Timespec, Timestamps, Uid, XattrFlags};

/// One thing in a tree; where it is put depends on those before it.
#[derive(Debug, Clone)]
pub(crate) struct Item {
    directory: Index,
    name: Vec<u8>,
    what: What,
    meta: Meta,
}

#[derive(Debug, Clone)]
pub(crate) enum What {
    Directory,
    /// Directories inside each other.
    Nested(u8),
    File(Content),
    /// Another name of something that is there.
    Link(Index),
    Symlink(Vec<u8>),
    Pipe,
    Socket,
    Device {
        block: bool,
        major: u32,
        minor: u32,
    },
}

#[derive(Debug, Clone)]
pub(crate) enum Content {
    Empty,
    Text(Vec<u8>),
    /// Bytes that do not compress, in several blobs.
    Noise {
        seed: u64,
        length: u32,
    },
    /// Islands of data in a large hole.
    Sparse {
        length: u64,
        islands: Vec<(u64, u16)>,
    },
}

#[derive(Debug, Clone)]
pub(crate) struct Meta {
    mode: u32,
    owner: (u32, u32),
    accessed: (i64, i64),
    modified: (i64, i64),
    user: Option<Vec<u8>>,
    trusted: bool,
    capability: bool,
    list: bool,
    inherited: bool,
}

/// Trees for root, who may make everything, or for somebody else.
pub(crate) fn tree(root: bool) -> impl Strategy<Value = Vec<Item>> {
    vec(item(root), 1..40)
}

fn item(root: bool) -> impl Strategy<Value = Item> {
    let parts = (any::<Index>(), name(), what(root), meta(root));
    parts.prop_map(|(directory, name, what, meta)| Item { directory, name, what, meta })
}

fn name() -> impl Strategy<Value = Vec<u8>> {
    let odd = vec(any::<u8>().prop_filter("no name", |byte| !matches!(byte, 0 | b'/')), 1..20);
    let long = any::<u8>().prop_map(|byte| vec![if matches!(byte, 0 | b'/' | b'.') { b'x' } else { byte }; 255]);
    prop_oneof![
        4 => "[a-z]{1,8}".prop_map(String::into_bytes),
        1 => "[ \n\t\"'<>&\\\\ä日😀]{1,5}".prop_map(String::into_bytes),
        2 => odd,
        1 => long,
    ]
    .prop_filter("no name", |name| !matches!(&name[..], b"." | b".."))
}

fn what(root: bool) -> impl Strategy<Value = What> {
    let device = (any::<bool>(), 0..0xfffu32, 0..0xf_ffffu32);
    let device = device.prop_map(|(block, major, minor)| What::Device { block, major, minor });
    let target = prop_oneof![
        Just(b"../../..//etc/passwd".to_vec()),
        vec(any::<u8>().prop_filter("no target", |byte| *byte != 0), 1..60),
        Just(vec![b'x'; 4000]),
    ];
    prop_oneof![
        6 => Just(What::Directory),
        1 => (1..60u8).prop_map(What::Nested),
        8 => content().prop_map(What::File),
        3 => any::<Index>().prop_map(What::Link),
        2 => target.prop_map(What::Symlink),
        1 => Just(What::Pipe),
        1 => Just(What::Socket),
        u32::from(root) => device,
    ]
}

fn content() -> impl Strategy<Value = Content> {
    let islands = vec((0..64u64 << 20, 1..20_000u16), 0..6);
    prop_oneof![
        1 => Just(Content::Empty),
        4 => vec(any::<u8>(), 1..6000).prop_map(Content::Text),
        1 => (any::<u64>(), 1..4_000_000u32).prop_map(|(seed, length)| Content::Noise { seed, length }),
        1 => (1..80u64 << 20, islands).prop_map(|(length, islands)| Content::Sparse { length, islands }),
    ]
}

fn meta(root: bool) -> impl Strategy<Value = Meta> {
    // from 1906, since ext4 begins at 1901, to 2261, since restic 0.14 restores nanoseconds since 1970 in 64 bits
    let time = || (-2_000_000_000..9_200_000_000i64, 0..1_000_000_000i64);
    let owner = if root { (0..3u32, 0..3u32).boxed() } else { Just((0, 0)).boxed() };
    let owner = owner.prop_map(move |(uid, gid)| if root { (uid * 777, gid * 4_000_000) } else { own() });
    let mode = if root { (0..=0o7777u32).boxed() } else { (0..=0o777u32).prop_map(|mode| mode | 0o700).boxed() };
    let flags = (any::<bool>(), any::<bool>(), any::<bool>(), any::<bool>());
    (mode, owner, time(), time(), option::of(vec(any::<u8>(), 0..200)), flags).prop_map(
        move |(mode, owner, accessed, modified, user, (trusted, capability, list, inherited))| Meta {
            mode,
            owner,
            accessed,
            modified,
            user,
            trusted: root && trusted,
            capability: root && capability,
            list,
            inherited,
        },
    )
}

fn own() -> (u32, u32) {
    (rustix::process::geteuid().as_raw(), rustix::process::getegid().as_raw())
}

/// Makes a tree below `top`, which must not exist. A thing whose place is taken is left out.
pub(crate) fn make(top: &Path, items: &[Item]) {
    fs::create_dir(top).unwrap();
    let (mut directories, mut others, mut metas) = (vec![top.to_owned()], Vec::<PathBuf>::new(), Vec::new());
    for Item { directory, name, what, meta } in items {
        let path = directories[directory.index(directories.len())].join(OsStr::from_bytes(name));
        if fs::symlink_metadata(&path).is_ok() {
            continue;
        }
        match what {
            What::Directory => {
                fs::create_dir(&path).unwrap();
                directories.push(path.clone());
            }
            What::Nested(depth) => {
                let deepest = (0..*depth).fold(path.clone(), |path, _| path.join("d"));
                fs::create_dir_all(&deepest).unwrap();
                directories.push(deepest);
            }
            What::Link(_) if others.is_empty() => continue,
            What::Link(to) => {
                rustix::fs::linkat(CWD, &others[to.index(others.len())], CWD, &path, AtFlags::empty()).unwrap();
                continue;
            }
            other => {
                make_one(&path, other);
                others.push(path.clone());
            }
        }
        metas.push((path, meta));
    }
    // the deepest last made first: a change inside changes a directory's time
    metas.iter().rev().for_each(|(path, meta)| set(path, meta));
}

fn make_one(path: &Path, what: &What) {
    let node = |kind, device| rustix::fs::mknodat(CWD, path, kind, Mode::RUSR, device).unwrap();
    match what {
        What::File(content) => write(&File::create(path).unwrap(), content),
        What::Symlink(target) => {
            std::os::unix::fs::symlink(OsString::from_vec(target.clone()), path).unwrap();
        }
        What::Pipe => node(FileType::Fifo, 0),
        What::Socket => node(FileType::Socket, 0),
        What::Device { block, major, minor } => {
            let kind = if *block { FileType::BlockDevice } else { FileType::CharacterDevice };
            node(kind, rustix::fs::makedev(*major, *minor));
        }
        What::Directory | What::Nested(_) | What::Link(_) => unreachable!(),
    }
}

fn write(file: &File, content: &Content) {
    match content {
        Content::Empty => {}
        Content::Text(bytes) => file.write_all_at(bytes, 0).unwrap(),
        Content::Noise { seed, length } => file.write_all_at(&noise(*seed, *length as usize), 0).unwrap(),
        Content::Sparse { length, islands } => {
            file.set_len(*length).unwrap();
            for (at, size) in islands.iter().filter(|(at, size)| at + u64::from(*size) <= *length) {
                file.write_all_at(&noise(*at, usize::from(*size)), *at).unwrap();
            }
        }
    }
}

/// Bytes that do not compress.
pub(crate) fn noise(seed: u64, length: usize) -> Vec<u8> {
    let mut state = seed.wrapping_mul(2).wrapping_add(0x9e37_79b9_7f4a_7c15) | 1;
    let mut bytes = Vec::with_capacity(length + 8);
    while bytes.len() < length {
        // xorshift64*
        state ^= state >> 12;
        state ^= state << 25;
        state ^= state >> 27;
        bytes.extend_from_slice(&state.wrapping_mul(0x2545_f491_4f6c_dd1d).to_le_bytes());
    }
    bytes.truncate(length);
    bytes
}

fn set(path: &Path, meta: &Meta) {
    let kind = fs::symlink_metadata(path).unwrap().file_type();
    let (uid, gid) = (Uid::from_raw(meta.owner.0), Gid::from_raw(meta.owner.1));
    rustix::fs::chownat(CWD, path, Some(uid), Some(gid), AtFlags::SYMLINK_NOFOLLOW).unwrap();
    let attribute = |name: &str, value: &[u8]| {
        let name = CString::new(name).unwrap();
        rustix::fs::lsetxattr(path, name, value, XattrFlags::empty()).unwrap();
    };
    if let Some(value) = &meta.user
        && (kind.is_file() || kind.is_dir())
    {
        attribute("user.stillpoint", value);
    }
    if meta.trusted && !kind.is_symlink() {
        attribute("trusted.stillpoint", b"1");
    }
    if meta.capability && kind.is_file() {
        attribute("security.capability", CAP_NET_RAW);
    }
    if meta.list && (kind.is_file() || kind.is_dir()) {
        attribute("system.posix_acl_access", LIST);
    }
    if meta.inherited && kind.is_dir() {
        attribute("system.posix_acl_default", LIST);
    }
    if !kind.is_symlink() {
        rustix::fs::chmod(path, Mode::from_bits_truncate(meta.mode)).unwrap();
    }
    let time = |(tv_sec, tv_nsec)| Timespec { tv_sec, tv_nsec };
    let times = Timestamps { last_access: time(meta.accessed), last_modification: time(meta.modified) };
    rustix::fs::utimensat(CWD, path, &times, AtFlags::SYMLINK_NOFOLLOW).unwrap();
}

/// A capability as the kernel stores it: version 2, effective, CAP_NET_RAW permitted.
const CAP_NET_RAW: &[u8] = &[1, 0, 0, 2, 0, 0x20, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];

/// An access control list as the kernel stores it: version 2; owner, user 777, group, mask, others.
const LIST: &[u8] = &[
    2, 0, 0, 0, 1, 0, 7, 0, 255, 255, 255, 255, 2, 0, 5, 0, 9, 3, 0, 0, 4, 0, 5, 0, 255, 255, 255, 255, 16, 0, 7, 0,
    255, 255, 255, 255, 32, 0, 1, 0, 255, 255, 255, 255,
];
