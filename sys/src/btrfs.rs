//! Snapshots of btrfs subvolumes.
//!
//! The bare calls: nothing here removes a snapshot by itself.

use std::{
    ffi::OsStr,
    io,
    mem::size_of,
    os::{
        fd::{AsFd, AsRawFd},
        unix::ffi::OsStrExt,
    },
};

use rustix::ioctl::{self, Setter, Updater, opcode};

// linux/btrfs.h
const BTRFS: u8 = 0x94;
const SNAP_DESTROY: ioctl::Opcode = opcode::write::<VolArgs>(BTRFS, 15);
const SNAP_CREATE_V2: ioctl::Opcode = opcode::write::<VolArgsV2>(BTRFS, 23);
const GET_SUBVOL_ROOTREF: ioctl::Opcode = opcode::read_write::<RootRefs>(BTRFS, 61);
const READ_ONLY: u64 = 1 << 1;

/// `struct btrfs_ioctl_vol_args`.
#[repr(C)]
struct VolArgs {
    fd: i64,
    name: [u8; 4088],
}

/// `struct btrfs_ioctl_vol_args_v2`.
#[repr(C)]
struct VolArgsV2 {
    fd: i64,
    transid: u64,
    flags: u64,
    unused: [u64; 4],
    name: [u8; 4040],
}

/// `struct btrfs_ioctl_get_subvol_rootref_args`.
#[repr(C)]
struct RootRefs {
    min_treeid: u64,
    refs: [[u64; 2]; 255],
    count: u8,
    align: [u8; 7],
}

// what the kernel copies is the size of its own structures
const _: () = assert!(size_of::<VolArgs>() == 4096 && size_of::<VolArgsV2>() == 4096 && size_of::<RootRefs>() == 4096);

/// Makes a read-only snapshot called `name` in `folder` of the subvolume that `subvolume` is the root of.
///
/// # Errors
/// `EINVAL` or `ENOTTY` when it is no subvolume, `EXDEV` when both lie on different filesystems, `ENOSPC`, `EROFS`, and
/// `ENAMETOOLONG` for a name of more than 255 bytes.
pub fn snapshot(subvolume: impl AsFd, folder: impl AsFd, name: &OsStr) -> io::Result<()> {
    let fd = subvolume.as_fd().as_raw_fd().into();
    let arguments = VolArgsV2 { fd, transid: 0, flags: READ_ONLY, unused: [0; 4], name: terminated(name)? };
    // SAFETY: SNAP_CREATE_V2 reads one `struct btrfs_ioctl_vol_args_v2`, which `VolArgsV2` is field by field (its size is
    // checked above), with a name that ends in a zero, and writes nothing that we read; the descriptor in it is open for
    // as long as the call takes.
    unsafe { ioctl::ioctl(folder, Setter::<SNAP_CREATE_V2, VolArgsV2>::new(arguments)) }.map_err(Into::into)
}

/// Removes the snapshot, or subvolume, called `name` in `folder`, with all that is in it.
///
/// # Errors
/// `ENOENT` when there is none; `EPERM` without `CAP_SYS_ADMIN`.
pub fn remove_snapshot(folder: impl AsFd, name: &OsStr) -> io::Result<()> {
    let arguments = VolArgs { fd: 0, name: terminated(name)? };
    // SAFETY: SNAP_DESTROY reads one `struct btrfs_ioctl_vol_args`, which `VolArgs` is field by field (its size is checked
    // above), with a name that ends in a zero.
    unsafe { ioctl::ioctl(folder, Setter::<SNAP_DESTROY, VolArgs>::new(arguments)) }.map_err(Into::into)
}

/// How many subvolumes lie right inside the one that `subvolume` is on, which a snapshot of it does not hold; at most 255
/// are counted.
///
/// # Errors
/// `ENOTTY` when it is not on btrfs.
pub fn nested_subvolumes(subvolume: impl AsFd) -> io::Result<usize> {
    let mut found = RootRefs { min_treeid: 0, refs: [[0; 2]; 255], count: 0, align: [0; 7] };
    // SAFETY: GET_SUBVOL_ROOTREF reads and writes one `struct btrfs_ioctl_get_subvol_rootref_args`, which `RootRefs` is
    // field by field (its size is checked above); every bit pattern is one.
    match unsafe { ioctl::ioctl(subvolume, Updater::<GET_SUBVOL_ROOTREF, RootRefs>::new(&mut found)) } {
        Ok(()) | Err(rustix::io::Errno::OVERFLOW) => Ok(found.count.into()),
        Err(error) => Err(error.into()),
    }
}

fn terminated<const N: usize>(name: &OsStr) -> io::Result<[u8; N]> {
    let name = name.as_bytes();
    if name.len() > 255 || name.contains(&0) {
        return Err(rustix::io::Errno::NAMETOOLONG.into());
    }
    let mut bytes = [0; N];
    bytes[..name.len()].copy_from_slice(name);
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use std::fs::{self, File};

    use stillpoint_test_support::{loop_mount::LoopMount, require};

    use super::*;

    #[test]
    fn a_snapshot_keeps_what_was_and_is_removed_with_all_that_is_in_it() {
        let Some(kind) = require::loop_device("btrfs") else { return };
        let mount = LoopMount::new(kind);
        let (file, name) = (mount.path().join("file"), OsStr::new(".now"));
        fs::write(&file, "before").unwrap();
        let directory = File::open(mount.path()).unwrap();
        assert_eq!(nested_subvolumes(&directory).unwrap(), 0);
        snapshot(&directory, &directory, name).unwrap();
        fs::write(&file, "after").unwrap();
        assert_eq!(fs::read_to_string(mount.path().join(".now/file")).unwrap(), "before");
        assert!(fs::write(mount.path().join(".now/file"), "").is_err(), "it is not read-only");
        assert_eq!(nested_subvolumes(&directory).unwrap(), 1);
        remove_snapshot(&directory, name).unwrap();
        assert!(!mount.path().join(".now").exists());
        assert_eq!(remove_snapshot(&directory, name).unwrap_err().kind(), io::ErrorKind::NotFound);
        assert_eq!(
            snapshot(&directory, &directory, OsStr::from_bytes(&[b'x'; 256])).unwrap_err().raw_os_error(),
            Some(36)
        );
    }
}
