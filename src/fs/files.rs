//! Regular files opened by name.

use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::sync::atomic::Ordering;

use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;

use super::base::open_pinned;
use super::dir::{Dir, metadata_of, mode_bits};
use crate::model::{Kind, Metadata, Name};

/// `NONBLOCK`: opening a pipe that was put in a file's place must not wait for a writer.
const OPEN_FILE: OFlags = OFlags::CLOEXEC.union(OFlags::NONBLOCK);

impl Dir {
    /// Opens the regular file `name` for reading. Anything else, and a symbolic link, is refused (`InvalidInput`,
    /// `ELOOP`). The access time is left alone where that is allowed.
    pub fn open_file(&self, name: &Name) -> io::Result<File> {
        self.open_file_with_metadata(name).map(|(file, _)| file)
    }

    /// As [`Dir::open_file`], with the metadata that the check has read anyway.
    pub fn open_file_with_metadata(&self, name: &Name) -> io::Result<(File, Metadata)> {
        self.open_to_read(name, OFlags::NOFOLLOW)
    }

    /// As [`Dir::open_file`], and a symbolic link is followed: wherever it leads, or beneath the top of a confined base.
    pub fn open_file_following(&self, name: &Name) -> io::Result<File> {
        self.open_file_following_with_metadata(name).map(|(file, _)| file)
    }

    /// As [`Dir::open_file_following`], with the metadata that the check has read anyway.
    pub fn open_file_following_with_metadata(&self, name: &Name) -> io::Result<(File, Metadata)> {
        let Some(pinned) = self.pin_following(name) else {
            return self.open_to_read(name, OFlags::empty());
        };
        let pinned = pinned?;
        let metadata = metadata_of(&pinned)?;
        if metadata.kind != Kind::File {
            return Err(not_regular());
        }
        // The pinned inode is what is opened, so its metadata are the file's.
        match open_pinned(&pinned, OFlags::RDONLY | OFlags::NOATIME) {
            Err(Errno::PERM) => Ok((File::from(open_pinned(&pinned, OFlags::RDONLY)?), metadata)),
            other => Ok((File::from(other?), metadata)),
        }
    }

    /// Opens the regular file `name` for reading and writing in place, as it is. Anything else, and a symbolic link,
    /// is refused.
    pub fn open_file_write(&self, name: &Name) -> io::Result<File> {
        self.open_regular(name, OFlags::RDWR | OFlags::NOFOLLOW).map(|(file, _)| file)
    }

    /// Makes the regular file `name`, open for reading and writing; `EEXIST` where the name is taken, by whatever.
    /// `mode` goes through the umask. For directories that are themselves staged: elsewhere a file appears by
    /// [`super::Stage`].
    pub fn create_file(&self, name: &Name, mode: u32) -> io::Result<File> {
        let flags = OFlags::RDWR | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let open = || rustix::fs::openat(self, name.as_os_str(), flags, mode_bits(mode));
        Ok(File::from(rustix::io::retry_on_intr(open)?))
    }

    fn open_to_read(&self, name: &Name, extra: OFlags) -> io::Result<(File, Metadata)> {
        let flags = OFlags::RDONLY | extra;
        if self.no_noatime.load(Ordering::Relaxed) {
            return self.open_regular(name, flags);
        }
        match self.open_regular(name, flags | OFlags::NOATIME) {
            Err(error) if Errno::from_io_error(&error) == Some(Errno::PERM) => {
                let opened = self.open_regular(name, flags)?;
                // Root is refused where a file system does not know it as such; others are refused for what they do
                // not own. Either way the next file here will likely be the same: no second failing call for it.
                self.no_noatime.store(true, Ordering::Relaxed);
                Ok(opened)
            }
            other => other,
        }
    }

    fn open_regular(&self, name: &Name, flags: OFlags) -> io::Result<(File, Metadata)> {
        let fd = loop {
            match rustix::fs::openat(self, name.as_os_str(), OPEN_FILE | flags, Mode::empty()) {
                Ok(fd) => break fd,
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => break self.open_leased(name, flags)?,
                // What open says to a socket, or to a device without driver.
                Err(Errno::NXIO | Errno::NODEV) => return Err(not_regular()),
                Err(errno) => return Err(errno.into()),
            }
        };
        let file = File::from(fd);
        let metadata = metadata_of(&file)?;
        if metadata.kind != Kind::File {
            return Err(not_regular());
        }
        Ok((file, metadata))
    }

    /// A file server holds a lease on the file: the kernel asks for it back and lets a waiting open through then.
    /// The inode is pinned and its kind known before the open that waits, so that no pipe can be waited for.
    fn open_leased(&self, name: &Name, flags: OFlags) -> io::Result<OwnedFd> {
        let pinned_flags = OFlags::PATH | OFlags::CLOEXEC | (flags & OFlags::NOFOLLOW);
        let pinned = File::from(rustix::fs::openat(self, name.as_os_str(), pinned_flags, Mode::empty())?);
        if metadata_of(&pinned)?.kind != Kind::File {
            return Err(not_regular());
        }
        Ok(open_pinned(&pinned, flags - OFlags::NOFOLLOW)?)
    }
}

fn not_regular() -> io::Error {
    io::Error::new(io::ErrorKind::InvalidInput, "not a regular file")
}
