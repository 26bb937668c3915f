//! An open directory, and what is done by name beneath it. Files are opened in `files.rs`, whole paths resolved in
//! `beneath.rs`, links followed in `base.rs`, the file system's own properties read in `info.rs`.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use rustix::fs::{AtFlags, CWD, FileType, FlockOperation, Mode, OFlags, RenameFlags, Statx, StatxFlags};
use rustix::io::{Errno, retry_on_intr};

use super::base::Scope;
use super::listing::NameList;
use crate::model::{Kind, Metadata, Name, Timestamp};

/// How every directory is opened. `NOFOLLOW` is added where a link must not lead elsewhere.
pub(super) const OPEN_DIR: OFlags = OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::CLOEXEC);

/// What was learned about a tree's file system by trying. Shared by a directory and all that were opened beneath it.
/// A file system mounted within the tree may differ: then a wrong guess costs one failing call or a slower way.
#[derive(Debug, Default)]
pub(super) struct Learned {
    /// `O_TMPFILE` does not work here.
    pub(super) no_unnamed_files: AtomicBool,
}

/// An open directory. Closing it is dropping it; a lock taken with [`Dir::try_lock`] goes with it.
#[derive(Debug)]
pub struct Dir {
    fd: OwnedFd,
    /// Whether a list is being read by this description's own read position: see [`Dir::list`].
    listing: AtomicBool,
    /// `O_NOATIME` was refused for a file here: not ours.
    pub(super) no_noatime: AtomicBool,
    pub(super) learned: Arc<Learned>,
    /// What following a link from here must not leave.
    pub(super) scope: Option<Scope>,
}

impl AsFd for Dir {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

impl Dir {
    /// Opens the user's own path; symbolic links in it are followed. What a peer may have written is opened by
    /// [`super::Base::open_dir`].
    pub fn open(path: &Path) -> io::Result<Dir> {
        let fd = retry_on_intr(|| rustix::fs::openat(CWD, path, OPEN_DIR, Mode::empty()))?;
        Ok(Dir::scoped(fd, Arc::default(), None))
    }

    pub(super) fn scoped(fd: OwnedFd, learned: Arc<Learned>, scope: Option<Scope>) -> Dir {
        Dir { fd, listing: AtomicBool::new(false), no_noatime: AtomicBool::new(false), learned, scope }
    }

    /// A directory that is reached by `tail` from this one: whatever confines this one confines it too.
    pub(super) fn derived(&self, fd: OwnedFd, tail: &[u8]) -> Dir {
        Dir::scoped(fd, Arc::clone(&self.learned), self.scope.as_ref().map(|scope| scope.below(tail)))
    }

    /// The directory's absolute path, as the kernel names it.
    pub fn path(&self) -> io::Result<Vec<u8>> {
        let link = format!("/proc/self/fd/{}", self.as_fd().as_raw_fd());
        Ok(rustix::fs::readlink(link, Vec::new())?.into_bytes())
    }

    /// Opens the directory `name`. A symbolic link is refused (`ENOTDIR` or `ELOOP`).
    pub fn open_child(&self, name: &Name) -> io::Result<Dir> {
        self.open_dir(name.as_os_str(), OFlags::NOFOLLOW, name.as_bytes())
    }

    pub(super) fn open_dir(&self, name: impl rustix::path::Arg + Copy, extra: OFlags, tail: &[u8]) -> io::Result<Dir> {
        let fd = retry_on_intr(|| rustix::fs::openat(&self.fd, name, OPEN_DIR | extra, Mode::empty()))?;
        Ok(self.derived(fd, tail))
    }

    /// All names, sorted by raw bytes, without `.` and `..`.
    ///
    /// Concurrent calls do not disturb each other: one reads by the held description, those that come meanwhile open
    /// one of their own.
    pub fn list(&self) -> io::Result<NameList> {
        let is_ours = !self.listing.swap(true, Ordering::Acquire);
        if !is_ours {
            return NameList::read(self.reopen()?.as_fd());
        }
        // Before the first reading too: btrfs fixes at open, or at a rewind, how far a reading will go.
        let rewound = rustix::fs::seek(&self.fd, rustix::fs::SeekFrom::Start(0)).is_ok();
        let list = rewound.then(|| NameList::read(self.fd.as_fd()));
        self.listing.store(false, Ordering::Release);
        match list {
            Some(list) => list,
            None => NameList::read(self.reopen()?.as_fd()),
        }
    }

    /// A description of its own for this directory. `.` needs search permission; a directory with read permission
    /// only is reached through its descriptor's magic link.
    pub(super) fn reopen(&self) -> io::Result<OwnedFd> {
        match rustix::fs::openat(&self.fd, c".", OPEN_DIR, Mode::empty()) {
            Err(Errno::ACCESS) => Ok(rustix::fs::openat(CWD, proc_path(&self.fd), OPEN_DIR, Mode::empty())?),
            other => Ok(other?),
        }
    }

    /// This directory's own metadata.
    pub fn metadata(&self) -> io::Result<Metadata> {
        stat_at(self.fd.as_fd(), c"", AtFlags::EMPTY_PATH)
    }

    /// Metadata of `name` itself: a symbolic link is not followed.
    pub fn stat(&self, name: &Name) -> io::Result<Metadata> {
        stat_at(self.fd.as_fd(), name.as_os_str(), AtFlags::SYMLINK_NOFOLLOW)
    }

    /// Target of the symbolic link `name`; `EINVAL` where it is none.
    pub fn read_link(&self, name: &Name) -> io::Result<Vec<u8>> {
        Ok(rustix::fs::readlinkat(&self.fd, name.as_os_str(), Vec::new())?.into_bytes())
    }

    /// Makes a directory; `mode` goes through the process's umask, or the parent's default access control list.
    pub fn make_dir(&self, name: &Name, mode: u32) -> io::Result<()> {
        Ok(rustix::fs::mkdirat(&self.fd, name.as_os_str(), mode_bits(mode))?)
    }

    /// Makes a symbolic link `name` to `target`, any bytes.
    pub fn make_symlink(&self, target: &[u8], name: &Name) -> io::Result<()> {
        Ok(rustix::fs::symlinkat(target, &self.fd, name.as_os_str())?)
    }

    /// Makes a device, named pipe or socket; `mode` goes through the umask, `rdev` is major and minor number.
    /// Other kinds are refused (`InvalidInput`).
    pub fn make_node(&self, name: &Name, kind: Kind, mode: u32, rdev: (u32, u32)) -> io::Result<()> {
        let (file_type, device) = match kind {
            Kind::Block => (FileType::BlockDevice, rustix::fs::makedev(rdev.0, rdev.1)),
            Kind::Char => (FileType::CharacterDevice, rustix::fs::makedev(rdev.0, rdev.1)),
            Kind::Fifo => (FileType::Fifo, 0),
            Kind::Socket => (FileType::Socket, 0),
            Kind::File | Kind::Dir | Kind::Symlink => return Err(io::ErrorKind::InvalidInput.into()),
        };
        Ok(rustix::fs::mknodat(&self.fd, name.as_os_str(), file_type, mode_bits(mode), device)?)
    }

    /// Gives the inode `old` here (a symbolic link is not followed) one more name; `EEXIST` where `new` is taken.
    pub fn make_link(&self, old: &Name, new_dir: &Dir, new: &Name) -> io::Result<()> {
        Ok(rustix::fs::linkat(&self.fd, old.as_os_str(), new_dir, new.as_os_str(), AtFlags::empty())?)
    }

    /// Renames, replacing what is there as rename(2) does. Where both are names of one inode nothing happens and both
    /// stay.
    pub fn rename(&self, from: &Name, to_dir: &Dir, to: &Name) -> io::Result<()> {
        Ok(rustix::fs::renameat(&self.fd, from.as_os_str(), to_dir, to.as_os_str())?)
    }

    /// Renames; `EEXIST` where `to` is taken, whatever it is.
    ///
    /// File systems without `RENAME_NOREPLACE` (NFS, many by FUSE): other than directories are linked and unlinked.
    /// For directories `to` is looked up first.
    /// RACE: an empty directory that appears at `to` between the look and the rename is replaced; nothing else can
    /// be, rename(2) refuses it.
    pub fn rename_noreplace(&self, from: &Name, to_dir: &Dir, to: &Name) -> io::Result<()> {
        match rustix::fs::renameat_with(&self.fd, from.as_os_str(), to_dir, to.as_os_str(), RenameFlags::NOREPLACE) {
            Err(Errno::NOSYS | Errno::INVAL | Errno::OPNOTSUPP) => {}
            other => return Ok(other?),
        }
        if self.stat(from)?.kind != Kind::Dir {
            self.make_link(from, to_dir, to)?;
            return self.unlink(from);
        }
        match to_dir.stat(to) {
            Ok(_) => Err(Errno::EXIST.into()),
            Err(error) if error.kind() == io::ErrorKind::NotFound => match self.rename(from, to_dir, to) {
                Err(error) if is_taken(&error) => Err(Errno::EXIST.into()),
                other => other,
            },
            Err(error) => Err(error),
        }
    }

    /// Removes a name that is no directory.
    pub fn unlink(&self, name: &Name) -> io::Result<()> {
        Ok(rustix::fs::unlinkat(&self.fd, name.as_os_str(), AtFlags::empty())?)
    }

    /// Removes an empty directory.
    pub fn remove_dir(&self, name: &Name) -> io::Result<()> {
        Ok(rustix::fs::unlinkat(&self.fd, name.as_os_str(), AtFlags::REMOVEDIR)?)
    }

    /// Takes the exclusive lock of this directory without waiting; false when another description holds it. Released
    /// when this value is dropped, or the process ends. NFS cannot lock what is open for reading only (`EBADF`).
    pub fn try_lock(&self) -> io::Result<bool> {
        match rustix::fs::flock(&self.fd, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => Ok(true),
            Err(Errno::WOULDBLOCK) => Ok(false),
            Err(errno) => Err(errno.into()),
        }
    }

    /// Gives back the lock of [`Dir::try_lock`].
    pub fn unlock(&self) -> io::Result<()> {
        Ok(rustix::fs::flock(&self.fd, FlockOperation::Unlock)?)
    }

    /// Brings this directory's names to disk. File systems that cannot (`EINVAL`) have nothing to bring.
    pub fn sync(&self) -> io::Result<()> {
        match rustix::fs::fsync(&self.fd) {
            Err(Errno::INVAL) => Ok(()),
            other => Ok(other?),
        }
    }

    /// Brings the whole file system to disk. Write errors since this directory was opened are reported from Linux 5.8
    /// on: open the directory before the writes that are to be vouched for.
    pub fn sync_file_system(&self) -> io::Result<()> {
        Ok(rustix::fs::syncfs(&self.fd)?)
    }
}

fn is_taken(error: &io::Error) -> bool {
    let errno = Errno::from_io_error(error);
    matches!(errno, Some(Errno::NOTEMPTY | Errno::EXIST | Errno::NOTDIR))
}

pub(super) fn mode_bits(mode: u32) -> Mode {
    Mode::from_raw_mode(mode & 0o7777)
}

/// The magic link of a descriptor: leads to its inode without a lookup by name.
pub(super) fn proc_path(fd: impl AsFd) -> String {
    use std::os::fd::AsRawFd;
    format!("/proc/self/fd/{}", fd.as_fd().as_raw_fd())
}

/// Metadata of an open file.
pub fn metadata_of(file: &File) -> io::Result<Metadata> {
    stat_at(file.as_fd(), c"", AtFlags::EMPTY_PATH)
}

/// `statx`, or `fstatat` where the kernel or a sandbox lacks it (rustix turns every such refusal into `ENOSYS`).
pub(super) fn stat_at(fd: BorrowedFd<'_>, path: impl rustix::path::Arg + Copy, flags: AtFlags) -> io::Result<Metadata> {
    let flags = flags | AtFlags::NO_AUTOMOUNT;
    match rustix::fs::statx(fd, path, flags, StatxFlags::BASIC_STATS) {
        Ok(raw) => from_statx(&raw),
        Err(Errno::NOSYS) => from_stat(&rustix::fs::statat(fd, path, flags)?),
        Err(errno) => Err(errno.into()),
    }
}

fn from_statx(raw: &Statx) -> io::Result<Metadata> {
    let time = |time: &rustix::fs::StatxTimestamp| Timestamp::new(time.tv_sec, time.tv_nsec);
    Ok(Metadata {
        kind: kind_of(FileType::from_raw_mode(u32::from(raw.stx_mode)))?,
        mode: u32::from(raw.stx_mode) & 0o7777,
        uid: raw.stx_uid,
        gid: raw.stx_gid,
        size: raw.stx_size,
        blocks: raw.stx_blocks,
        mtime: time(&raw.stx_mtime),
        atime: time(&raw.stx_atime),
        ctime: time(&raw.stx_ctime),
        rdev: (raw.stx_rdev_major, raw.stx_rdev_minor),
        dev: (raw.stx_dev_major, raw.stx_dev_minor),
        ino: raw.stx_ino,
        nlink: raw.stx_nlink,
    })
}

#[allow(clippy::unnecessary_cast, reason = "widths of these fields differ between architectures")]
fn from_stat(raw: &rustix::fs::Stat) -> io::Result<Metadata> {
    let time = |seconds: i64, nanoseconds: i64| Timestamp::new(seconds, nanoseconds as u32);
    let device = |device: u64| (rustix::fs::major(device), rustix::fs::minor(device));
    Ok(Metadata {
        kind: kind_of(FileType::from_raw_mode(raw.st_mode))?,
        mode: raw.st_mode & 0o7777,
        uid: raw.st_uid,
        gid: raw.st_gid,
        size: raw.st_size as u64,
        blocks: raw.st_blocks as u64,
        mtime: time(raw.st_mtime as i64, raw.st_mtime_nsec as i64),
        atime: time(raw.st_atime as i64, raw.st_atime_nsec as i64),
        ctime: time(raw.st_ctime as i64, raw.st_ctime_nsec as i64),
        rdev: device(raw.st_rdev as u64),
        dev: device(raw.st_dev as u64),
        ino: raw.st_ino as u64,
        nlink: raw.st_nlink as u32,
    })
}

/// The kind of an inode, or `InvalidData` for one that Linux does not know.
fn kind_of(file_type: FileType) -> io::Result<Kind> {
    known_kind(file_type).ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "unknown kind of inode"))
}

pub(super) fn known_kind(file_type: FileType) -> Option<Kind> {
    match file_type {
        FileType::RegularFile => Some(Kind::File),
        FileType::Directory => Some(Kind::Dir),
        FileType::Symlink => Some(Kind::Symlink),
        FileType::BlockDevice => Some(Kind::Block),
        FileType::CharacterDevice => Some(Kind::Char),
        FileType::Fifo => Some(Kind::Fifo),
        FileType::Socket => Some(Kind::Socket),
        _ => None,
    }
}
