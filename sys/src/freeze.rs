//! Freezing and thawing a filesystem, and asking for its UUID.
//!
//! The bare calls: nothing here thaws by itself. Only the guard may freeze, because a freeze outlives whoever made it.

use std::{io, os::fd::AsFd};

use rustix::ioctl::{self, Getter, NoArg, opcode};

// linux/fs.h declares both as _IOWR('X', …, int), though the kernel reads and writes nothing.
const FIFREEZE: ioctl::Opcode = opcode::read_write::<i32>(b'X', 119);
const FITHAW: ioctl::Opcode = opcode::read_write::<i32>(b'X', 120);
const FS_IOC_GETFSUUID: ioctl::Opcode = opcode::read::<FsUuid>(0x15, 0);

/// `struct fsuuid2` of linux/fs.h.
#[repr(C)]
struct FsUuid {
    length: u8,
    uuid: [u8; 16],
}

/// Freezes the filesystem that `directory` is on, and returns when every write in flight has ended.
///
/// # Caveats
/// The call cannot be called off, not even by SIGKILL, and the freeze outlives the caller: only [`thaw`] ends it.
///
/// # Errors
/// `EBUSY` when it is frozen already, `EOPNOTSUPP` when this kind of filesystem cannot freeze, `EPERM` without
/// `CAP_SYS_ADMIN`.
pub fn freeze(directory: impl AsFd) -> io::Result<()> {
    // SAFETY: FIFREEZE ignores its argument: the kernel neither reads nor writes through it, so that no memory of ours
    // is at stake whatever the descriptor is.
    unsafe { ioctl::ioctl(directory, NoArg::<FIFREEZE>::new()) }.map_err(Into::into)
}

/// Thaws the filesystem that `directory` is on.
///
/// # Errors
/// `EINVAL` when it is not frozen, which is also said while a freeze is still under way; `EPERM` without
/// `CAP_SYS_ADMIN`.
pub fn thaw(directory: impl AsFd) -> io::Result<()> {
    // SAFETY: FITHAW ignores its argument, as FIFREEZE does.
    unsafe { ioctl::ioctl(directory, NoArg::<FITHAW>::new()) }.map_err(Into::into)
}

/// The UUID of the filesystem that `directory` is on; `None` where it has none, or the kernel (before 6.9) or the kind
/// of filesystem does not tell.
#[must_use]
pub fn filesystem_uuid(directory: impl AsFd) -> Option<[u8; 16]> {
    // SAFETY: FS_IOC_GETFSUUID writes one `struct fsuuid2`, which `FsUuid` is field by field; every bit pattern is one.
    let told = unsafe { ioctl::ioctl(directory, Getter::<FS_IOC_GETFSUUID, FsUuid>::new()) }.ok()?;
    (usize::from(told.length) == told.uuid.len()).then_some(told.uuid)
}

#[cfg(test)]
mod tests {
    use std::fs::{self, File};

    use nix::errno::Errno;
    use stillpoint_test_support::{loop_mount::LoopMount, require};

    use super::*;

    fn freezes_and_thaws(kind: &str) {
        let Some(kind) = require::loop_device(kind) else { return };
        let mount = LoopMount::new(kind);
        let directory = File::open(mount.path()).unwrap();
        let errno = |result: io::Result<()>| result.unwrap_err().raw_os_error();
        assert_eq!(errno(thaw(&directory)), Some(Errno::EINVAL as i32));
        freeze(&directory).unwrap();
        assert_eq!(errno(freeze(&directory)), Some(Errno::EBUSY as i32));
        thaw(&directory).unwrap();
        assert_eq!(errno(thaw(&directory)), Some(Errno::EINVAL as i32));
        fs::write(mount.path().join("file"), "written after the thaw").unwrap();
    }

    #[test]
    fn ext4_freezes_and_thaws() {
        freezes_and_thaws("ext4");
    }

    #[test]
    fn xfs_freezes_and_thaws() {
        freezes_and_thaws("xfs");
    }

    #[test]
    fn btrfs_freezes_and_thaws() {
        freezes_and_thaws("btrfs");
    }

    #[test]
    fn what_cannot_freeze_says_so() {
        let Some(()) = require::root() else { return };
        let error = freeze(File::open("/proc").unwrap()).unwrap_err();
        assert_eq!(error.raw_os_error(), Some(Errno::EOPNOTSUPP as i32));
    }

    #[test]
    fn a_filesystem_tells_the_uuid_that_it_was_made_with() {
        let Some(kind) = require::loop_device("ext4") else { return };
        let mount = LoopMount::new(kind);
        let directory = File::open(mount.path()).unwrap();
        let Some(uuid) = filesystem_uuid(&directory) else { return };
        let mut blkid = std::process::Command::new("blkid");
        let told = blkid.args(["-s", "UUID", "-o", "value"]).arg(mount.device()).output().unwrap().stdout;
        let hex: String = uuid.iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(String::from_utf8(told).unwrap().trim().replace('-', ""), hex);
    }
}
