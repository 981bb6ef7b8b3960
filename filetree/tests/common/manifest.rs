//! Describes a tree in every detail that a restore must keep, so that two can be compared.
//!
//! Status first, content after: reading a file changes its time of access.

use std::{
    collections::BTreeMap,
    ffi::OsStr,
    fs,
    os::unix::{
        ffi::OsStrExt,
        fs::{FileTypeExt, MetadataExt},
    },
    path::{Path, PathBuf},
};

use rustix::buffer::spare_capacity;
use stillpoint_repository::Id;

/// A tree, by path from its top.
pub(crate) type Manifest = BTreeMap<PathBuf, Entry>;

/// One name of a tree.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Entry {
    pub(crate) kind: &'static str,
    pub(crate) mode: u32,
    pub(crate) owner: (u32, u32),
    pub(crate) modified: (i64, i64),
    pub(crate) accessed: Option<(i64, i64)>,
    pub(crate) device: u64,
    pub(crate) size: u64,
    pub(crate) content: Option<Id>,
    pub(crate) target: Option<PathBuf>,
    /// The first name of the same file, and how many it has.
    pub(crate) linked: Option<(PathBuf, u64)>,
    pub(crate) extended: BTreeMap<String, Vec<u8>>,
    /// Bytes that it takes on the disk.
    pub(crate) stored: Option<u64>,
}

/// Describes everything below and including a directory.
pub(crate) fn manifest(top: &Path) -> Manifest {
    let mut manifest = Manifest::new();
    let mut first_names = BTreeMap::new();
    let mut pending = vec![PathBuf::new()];
    while let Some(path) = pending.pop() {
        let full = top.join(&path);
        let entry = describe(&full, &path, &mut first_names);
        if entry.kind == "directory" {
            let mut names: Vec<_> = fs::read_dir(&full).unwrap().map(|entry| entry.unwrap().file_name()).collect();
            names.sort_by(|a, b| b.cmp(a));
            pending.extend(names.into_iter().map(|name| path.join(name)));
        }
        manifest.insert(path, entry);
    }
    // a file of several names has one time of access: contents come when all of them are described
    for (path, entry) in &mut manifest {
        let full = top.join(path);
        match entry.kind {
            "file" => entry.content = Some(Id::of(&fs::read(full).unwrap())),
            "link" => entry.target = Some(fs::read_link(full).unwrap()),
            _ => {}
        }
    }
    manifest
}

fn describe(full: &Path, path: &Path, first_names: &mut BTreeMap<(u64, u64), PathBuf>) -> Entry {
    let stat = fs::symlink_metadata(full).unwrap();
    let kind = kind(stat.file_type());
    let linked = (kind != "directory" && stat.nlink() > 1).then(|| {
        let first = first_names.entry((stat.dev(), stat.ino())).or_insert_with(|| path.to_owned());
        (first.clone(), stat.nlink())
    });
    let is_file = kind == "file";
    Entry {
        kind,
        mode: stat.mode(),
        owner: (stat.uid(), stat.gid()),
        modified: (stat.mtime(), stat.mtime_nsec()),
        accessed: Some((stat.atime(), stat.atime_nsec())),
        device: if kind.ends_with("device") { stat.rdev() } else { 0 },
        size: if is_file { stat.len() } else { 0 },
        content: None,
        target: None,
        linked,
        extended: extended(full),
        stored: is_file.then(|| stat.blocks() * 512),
    }
}

fn kind(kind: fs::FileType) -> &'static str {
    match kind {
        kind if kind.is_dir() => "directory",
        kind if kind.is_file() => "file",
        kind if kind.is_symlink() => "link",
        kind if kind.is_fifo() => "pipe",
        kind if kind.is_socket() => "socket",
        kind if kind.is_block_device() => "block device",
        kind if kind.is_char_device() => "character device",
        other => panic!("{other:?}"),
    }
}

fn extended(path: &Path) -> BTreeMap<String, Vec<u8>> {
    let mut names = Vec::with_capacity(64 << 10);
    rustix::fs::llistxattr(path, spare_capacity(&mut names)).unwrap();
    let names = names.split(|byte| *byte == 0).filter(|name| !name.is_empty());
    let value = |name: &[u8]| {
        let mut value = Vec::with_capacity(64 << 10);
        rustix::fs::lgetxattr(path, OsStr::from_bytes(name), spare_capacity(&mut value)).unwrap();
        (String::from_utf8(name.to_vec()).unwrap(), value)
    };
    names.map(value).collect()
}

/// Fails with what differs, in words.
pub(crate) fn assert_equal(found: &Manifest, expected: &Manifest, what: &str) {
    let mut differences = Vec::new();
    for path in found.keys().chain(expected.keys()).collect::<std::collections::BTreeSet<_>>() {
        match (found.get(path), expected.get(path)) {
            (Some(found), Some(expected)) if found == expected => {}
            (found, expected) => differences.push(format!("{path:?}\n  is        {found:?}\n  should be {expected:?}")),
        }
    }
    assert!(differences.is_empty(), "{what}:\n{}", differences.join("\n"));
}
