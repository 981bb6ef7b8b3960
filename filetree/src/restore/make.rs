//! Makes everything that needs no content: directories, links, devices, pipes, sockets, and empty files.
//!
//! Directories stay closed to others until the end, so nobody sees a file before its permissions. Large files are made
//! here at their full size, all holes, so that any thread may fill in any part of them.

use std::{
    ffi::OsStr,
    io,
    os::fd::{AsFd, OwnedFd},
    sync::Arc,
};

use rustix::{
    fs::{AtFlags, FileType, Mode, OFlags, linkat, mkdirat, mknodat, openat, symlinkat, unlinkat},
    io::Errno,
};

use super::{
    Error,
    attributes::{self, File},
    entries::{Content, Entry, Kind, Number, ROOT},
    job::Job,
    plan::RootAttributes,
    target::Start,
};

/// Permissions of what is not complete.
const PRIVATE_DIRECTORY: Mode = Mode::RWXU;
const PRIVATE: Mode = Mode::RUSR.union(Mode::WUSR);

impl Job {
    /// Makes all but the contents and what refers to them.
    pub(super) fn make(&self) -> Result<(), Error> {
        if self.root == RootAttributes::Restored {
            let made = self.close_directory(self.directories.root());
            made.map_err(|source| Error::Target { action: "change", target: self.target.clone(), source })?;
        }
        for (number, entry) in self.entries.iter().skip(1) {
            self.goes_on()?;
            match &entry.kind {
                Kind::Directory => {
                    self.made(number, self.make_directory(number, entry))?;
                }
                Kind::File(content) => self.make_file(number, content)?,
                Kind::Link(_) => {}
                Kind::Symlink(_) | Kind::BlockDevice(_) | Kind::CharDevice(_) | Kind::Fifo | Kind::Socket => {
                    self.made(number, self.make_node(number, entry))?;
                }
            }
        }
        Ok(())
    }

    fn make_directory(&self, number: Number, entry: &Entry) -> io::Result<()> {
        let parent = self.parent(entry)?;
        match mkdirat(&*parent, self.entries.name(entry), PRIVATE_DIRECTORY) {
            Ok(()) => Ok(()),
            // opening it fails for anything but a directory
            Err(Errno::EXIST) if self.start == Start::Resumed || entry.parent == ROOT => {
                self.close_directory(&*self.directories.open(&self.entries, number)?)
            }
            Err(error) => Err(error.into()),
        }
    }

    /// Makes a directory that was there as private and plain as a new one.
    fn close_directory(&self, directory: &OwnedFd) -> io::Result<()> {
        rustix::fs::fchmod(directory, PRIVATE_DIRECTORY)?;
        attributes::remove_lists(directory.as_fd())
    }

    fn make_file(&self, number: Number, content: &Content) -> Result<(), Error> {
        let pieces = content.pieces().len();
        if self.todo.complete[number as usize] || pieces == 1 {
            return Ok(());
        }
        let made = self.create(number).and_then(|file| {
            rustix::fs::ftruncate(&file, content.size)?;
            Ok(file)
        });
        if let Some(file) = self.made(number, made)?
            && pieces == 0
        {
            self.complete(number, &file, true);
        }
        Ok(())
    }

    /// Makes a file that nobody else can open.
    pub(super) fn create(&self, number: Number) -> io::Result<OwnedFd> {
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let entry = self.entries.get(number);
        self.anew(&*self.parent(entry)?, self.entries.name(entry), |parent, name| openat(parent, name, flags, PRIVATE))
    }

    /// Sets a file's attributes, the time of change only if its content is right.
    pub(super) fn complete(&self, number: Number, file: &OwnedFd, sound: bool) {
        let attributes = &self.entries.get(number).attributes;
        let modified = sound.then_some(attributes.modified);
        self.unset(number, attributes::set(File::Open(file.as_fd()), attributes, modified));
        self.files.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
    }

    fn make_node(&self, number: Number, entry: &Entry) -> io::Result<()> {
        let parent = self.parent(entry)?;
        self.anew(&parent, self.entries.name(entry), |parent, name| match &entry.kind {
            Kind::Symlink(target) => symlinkat(&**target, parent, name),
            Kind::BlockDevice(device) => mknodat(parent, name, FileType::BlockDevice, PRIVATE, *device),
            Kind::CharDevice(device) => mknodat(parent, name, FileType::CharacterDevice, PRIVATE, *device),
            Kind::Fifo => mknodat(parent, name, FileType::Fifo, PRIVATE, 0),
            Kind::Socket => mknodat(parent, name, FileType::Socket, PRIVATE, 0),
            Kind::Directory | Kind::File(_) | Kind::Link(_) => Ok(()),
        })?;
        let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let place = openat(&*parent, self.entries.name(entry), flags, Mode::empty())?;
        let place = place.as_fd();
        let file = if matches!(entry.kind, Kind::Symlink(_)) { File::Link(place) } else { File::Place(place) };
        self.unset(number, attributes::set(file, &entry.attributes, Some(entry.attributes.modified)));
        Ok(())
    }

    /// Makes a name; in a restore that goes on, in place of what an earlier run left.
    fn anew<T>(
        &self,
        parent: &OwnedFd,
        name: &OsStr,
        make: impl Fn(&OwnedFd, &OsStr) -> rustix::io::Result<T>,
    ) -> io::Result<T> {
        match make(parent, name) {
            Err(Errno::EXIST) if self.start == Start::Resumed => {
                unlinkat(parent, name, AtFlags::empty())?;
                Ok(make(parent, name)?)
            }
            other => Ok(other?),
        }
    }

    /// Gives files their further names.
    pub(super) fn make_links(&self) -> Result<(), Error> {
        for (number, entry) in self.entries.iter() {
            let Kind::Link(first) = entry.kind else { continue };
            self.goes_on()?;
            self.made(number, self.make_link(first, entry))?;
        }
        Ok(())
    }

    fn make_link(&self, first: Number, entry: &Entry) -> io::Result<()> {
        let first = self.entries.get(first);
        let (from, to) = (self.parent(first)?, self.parent(entry)?);
        self.anew(&to, self.entries.name(entry), |to, name| {
            linkat(&*from, self.entries.name(first), to, name, AtFlags::empty())
        })
    }

    /// Opens the directory that holds an entry.
    pub(super) fn parent(&self, entry: &Entry) -> io::Result<Arc<OwnedFd>> {
        self.directories.open(&self.entries, entry.parent)
    }

    /// Sets the attributes of all directories, the deepest first: a change inside changes a directory's time, and its
    /// permissions may forbid the way to those below.
    pub(super) fn complete_directories(&self) -> Result<(), Error> {
        for (number, entry) in self.entries.iter().rev() {
            if !matches!(entry.kind, Kind::Directory) || number == ROOT {
                continue;
            }
            self.goes_on()?;
            // one that could not be made is named already
            let Ok(directory) = self.directories.open(&self.entries, number) else { continue };
            let file = File::Open(directory.as_fd());
            self.unset(number, attributes::set(file, &entry.attributes, Some(entry.attributes.modified)));
        }
        Ok(())
    }

    /// Sets the attributes of the target, around `remove`, which takes the marker out of it.
    pub(super) fn complete_root(&self, remove: impl FnOnce() -> Result<(), Error>) -> Result<(), Error> {
        if self.root == RootAttributes::Kept {
            return remove();
        }
        let (root, attributes) = (File::Open(self.directories.root().as_fd()), &self.entries.get(ROOT).attributes);
        self.unset(ROOT, attributes::set(root, attributes, None));
        let failed = |source| Error::Target { action: "change", target: self.target.clone(), source };
        let mode = rustix::fs::fstat(self.directories.root()).map_err(|error| failed(error.into()))?.st_mode & 0o7777;
        attributes::set_mode(root, mode | PRIVATE_DIRECTORY.as_raw_mode()).map_err(failed)?;
        remove()?;
        attributes::set_mode(root, mode).map_err(failed)?;
        self.unset(ROOT, attributes::set_times(root, attributes));
        Ok(())
    }

    /// Brings everything to stable storage, at once instead of file by file.
    pub(super) fn sync(&self) -> Result<(), Error> {
        let synced = rustix::fs::syncfs(self.directories.root());
        synced.map_err(|error| Error::Target { action: "sync", target: self.target.clone(), source: error.into() })
    }
}
