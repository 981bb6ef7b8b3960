//! Sets what a file has beside its content: owner, extended attributes, permissions, times, in this order.
//!
//! The order is the kernel's: a change of owner clears set-uid and capabilities, so they come after it; a mode may forbid
//! what comes before it; and the time of change says at the very end that a file is complete, which a resumed restore
//! relies on.

use std::{io, os::fd::BorrowedFd};

use jiff::Timestamp;
use rustix::{
    fs::{Gid, Mode, Timespec, Timestamps, Uid, XattrFlags},
    io::Errno,
};

use super::{entries::Attributes, problem::ProblemKind};

/// What could not be set.
pub(super) type Unset = Vec<(ProblemKind, String)>;

/// Set-uid and set-gid: they mean nothing good on a file of another owner.
const SET_IDS: u32 = 0o6000;

/// A file whose attributes are set.
#[derive(Clone, Copy)]
pub(super) enum File<'a> {
    /// Opened for reading or writing.
    Open(BorrowedFd<'a>),
    /// Opened as a mere place (`O_PATH`): a link, a device, a pipe or a socket, which must not be opened really.
    Place(BorrowedFd<'a>),
    /// A place that has no permissions of its own: a symbolic link.
    Link(BorrowedFd<'a>),
}

/// Sets everything, the times last; `None` for a time of change that is not to be set.
pub(super) fn set(file: File<'_>, attributes: &Attributes, modified: Option<Timestamp>) -> Unset {
    let mut unset = Unset::new();
    let owned = owner(file, attributes, &mut unset);
    extended(file, attributes, &mut unset);
    if !matches!(file, File::Link(_)) {
        let mode = if owned { attributes.mode } else { attributes.mode & !SET_IDS };
        if let Err(error) = file.set_mode(mode) {
            unset.push((ProblemKind::Mode, format!("{mode:04o}: {error}")));
        }
        if mode != attributes.mode {
            unset.push((ProblemKind::Mode, "set-uid and set-gid are left out for another owner".into()));
        }
    }
    if let Some(modified) = modified
        && let Err(error) = file.set_times(attributes.accessed, modified)
    {
        unset.push((ProblemKind::Times, error.to_string()));
    }
    unset
}

/// Sets the owner, or at least the group; whether both are right.
fn owner(file: File<'_>, attributes: &Attributes, unset: &mut Unset) -> bool {
    let Attributes { uid, gid, .. } = *attributes;
    if rustix::fs::fstat(file.fd()).is_ok_and(|stat| (stat.st_uid, stat.st_gid) == (uid, gid)) {
        return true;
    }
    let Err(error) = file.set_owner(Some(uid), Some(gid)) else { return true };
    unset.push((ProblemKind::Owner, format!("{uid}:{gid}: {error}")));
    // the group alone may be allowed; what matters is named already
    let _ = file.set_owner(None, Some(gid));
    false
}

fn extended(file: File<'_>, attributes: &Attributes, unset: &mut Unset) {
    for attribute in &attributes.extended {
        if let Err(error) = file.set_extended(&attribute.name, &attribute.value) {
            unset.push((ProblemKind::Attribute, format!("{}: {error}", attribute.name)));
        }
    }
}

impl File<'_> {
    fn fd(&self) -> BorrowedFd<'_> {
        match *self {
            Self::Open(fd) | Self::Place(fd) | Self::Link(fd) => fd,
        }
    }

    fn set_owner(&self, uid: Option<u32>, gid: Option<u32>) -> io::Result<()> {
        let (uid, gid) = (uid.map(Uid::from_raw), gid.map(Gid::from_raw));
        Ok(match self {
            Self::Open(fd) => rustix::fs::fchown(fd, uid, gid),
            Self::Place(fd) | Self::Link(fd) => rustix::fs::chownat(fd, c"", uid, gid, rustix::fs::AtFlags::EMPTY_PATH),
        }?)
    }

    fn set_extended(&self, name: &str, value: &[u8]) -> io::Result<()> {
        Ok(match self {
            Self::Open(fd) => rustix::fs::fsetxattr(fd, name, value, XattrFlags::empty()),
            Self::Place(fd) | Self::Link(fd) => rustix::fs::setxattr(proc_path(*fd), name, value, XattrFlags::empty()),
        }?)
    }

    fn set_mode(&self, mode: u32) -> io::Result<()> {
        let mode = Mode::from_bits_truncate(mode);
        Ok(match self {
            Self::Open(fd) => rustix::fs::fchmod(fd, mode),
            Self::Place(fd) | Self::Link(fd) => rustix::fs::chmod(proc_path(*fd), mode),
        }?)
    }

    fn set_times(&self, accessed: Timestamp, modified: Timestamp) -> io::Result<()> {
        let times = Timestamps { last_access: timespec(accessed), last_modification: timespec(modified) };
        Ok(match self {
            Self::Open(fd) => rustix::fs::futimens(fd, &times),
            Self::Place(fd) | Self::Link(fd) => {
                rustix::fs::utimensat(rustix::fs::CWD, proc_path(*fd), &times, rustix::fs::AtFlags::empty())
            }
        }?)
    }
}

/// The kernel's name for a place that is held open: it leads to exactly that file, a symbolic link too.
fn proc_path(fd: BorrowedFd<'_>) -> String {
    format!("/proc/self/fd/{}", std::os::fd::AsRawFd::as_raw_fd(&fd))
}

/// Sets nothing but the times, of a directory that was changed after its attributes were set.
pub(super) fn set_times(file: File<'_>, attributes: &Attributes) -> Unset {
    let times = file.set_times(attributes.accessed, attributes.modified);
    times.err().map(|error| (ProblemKind::Times, error.to_string())).into_iter().collect()
}

/// Sets nothing but the permissions.
pub(super) fn set_mode(file: File<'_>, mode: u32) -> io::Result<()> {
    file.set_mode(mode)
}

/// Takes access control lists away that a directory would hand down to what is made in it.
pub(super) fn remove_lists(directory: BorrowedFd<'_>) -> io::Result<()> {
    for name in ["system.posix_acl_default", "system.posix_acl_access"] {
        match rustix::fs::fremovexattr(directory, name) {
            Ok(()) | Err(Errno::NODATA | Errno::OPNOTSUPP) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}

/// A time as the system takes it: whole seconds rounded down, and nanoseconds that are never negative.
pub(super) fn timespec(time: Timestamp) -> Timespec {
    const SECOND: i128 = 1_000_000_000;
    let nanoseconds = time.as_nanosecond();
    // a timestamp ends at the year 9999
    Timespec {
        tv_sec: i64::try_from(nanoseconds.div_euclid(SECOND)).unwrap_or(i64::MAX),
        tv_nsec: i64::try_from(nanoseconds.rem_euclid(SECOND)).unwrap_or(0),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_before_1970_round_down_to_the_second() {
        let at = |text: &str| {
            let Timespec { tv_sec, tv_nsec } = timespec(text.parse().unwrap());
            (tv_sec, tv_nsec)
        };
        assert_eq!(at("1970-01-01T00:00:01.5Z"), (1, 500_000_000));
        assert_eq!(at("1969-12-31T23:59:58.25Z"), (-2, 250_000_000));
        assert_eq!(at("1969-12-31T23:59:58Z"), (-2, 0));
        assert_eq!(at("2200-01-01T00:00:00.000000001Z"), (7_258_118_400, 1));
    }
}
