//! Extended attributes and access control lists, read. `meta.rs` sets them.

use std::fs::File;
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::sync::OnceLock;

use rustix::fs::{AtFlags, Mode, OFlags, XattrFlags};
use rustix::io::Errno;

use super::dir::{Dir, proc_path, stat_at};
use crate::limits;
use crate::model::{Acl, Acls, Kind, Metadata, Name, Xattr, Xattrs};

pub(super) const ACL_ACCESS: &[u8] = b"system.posix_acl_access";
pub(super) const ACL_DEFAULT: &[u8] = b"system.posix_acl_default";

/// Values up to this size take one call.
const FIRST_VALUE_BYTES: usize = 1024;

/// The kernel's bound of one value and of a file's list of names (`XATTR_SIZE_MAX`, `XATTR_LIST_MAX`).
const KERNEL_BYTES_MAX: usize = 64 << 10;

/// What metadata are read from or set on.
#[derive(Debug, Clone, Copy)]
pub enum Target<'a> {
    /// An open file.
    File(&'a File),
    /// An open directory.
    Dir(&'a Dir),
    /// A name in an open directory, not followed: for links, devices, and files that cannot be opened.
    At(&'a Dir, &'a Name),
    /// An inode that had a name when it was pinned.
    Pinned(&'a Pinned),
}

/// An inode that is held without being opened: what is done to it is done to what was looked at, whatever has its name
/// meanwhile.
#[derive(Debug)]
pub struct Pinned {
    fd: OwnedFd,
    metadata: Metadata,
}

impl Pinned {
    /// Pins what has a name in an open directory: a symbolic link itself, not what it leads to.
    pub fn open(dir: &Dir, name: &Name) -> io::Result<Pinned> {
        let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let fd = rustix::fs::openat(dir, name.as_os_str(), flags, Mode::empty())?;
        let metadata = stat_at(fd.as_fd(), c"", AtFlags::EMPTY_PATH)?;
        Ok(Pinned { fd, metadata })
    }

    /// As it was when it was pinned.
    pub fn metadata(&self) -> &Metadata {
        &self.metadata
    }
}

impl AsFd for Pinned {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

/// A target as the attribute calls take it.
pub(super) enum Handle<'a> {
    Fd(BorrowedFd<'a>),
    /// The directory's magic link and the name: there are no `…at` calls for attributes (before Linux 6.13). The last
    /// component is not followed.
    Path(Vec<u8>),
    /// The magic link of what is pinned, which is followed, and leads to the inode itself.
    Magic(String),
}

impl<'a> Handle<'a> {
    /// Fails where a path is needed and `/proc` is not mounted: or else each file would seem to have vanished.
    pub(super) fn new(target: Target<'a>) -> io::Result<Handle<'a>> {
        match target {
            Target::File(file) => Ok(Handle::Fd(file.as_fd())),
            Target::Dir(dir) => Ok(Handle::Fd(dir.as_fd())),
            Target::At(dir, name) => {
                if !proc_is_mounted() {
                    return Err(io::Error::new(io::ErrorKind::Unsupported, "/proc is not mounted"));
                }
                let mut path = format!("/proc/self/fd/{}/", dir.as_fd().as_raw_fd()).into_bytes();
                path.extend_from_slice(name.as_bytes());
                Ok(Handle::Path(path))
            }
            Target::Pinned(_) if !proc_is_mounted() => {
                Err(io::Error::new(io::ErrorKind::Unsupported, "/proc is not mounted"))
            }
            Target::Pinned(pinned) => Ok(Handle::Magic(proc_path(pinned))),
        }
    }

    pub(super) fn set(&self, name: &[u8], value: &[u8]) -> rustix::io::Result<()> {
        match self {
            Handle::Fd(fd) => rustix::fs::fsetxattr(fd, name, value, XattrFlags::empty()),
            Handle::Path(path) => rustix::fs::lsetxattr(path, name, value, XattrFlags::empty()),
            Handle::Magic(path) => rustix::fs::setxattr(path, name, value, XattrFlags::empty()),
        }
    }

    pub(super) fn remove(&self, name: &[u8]) -> rustix::io::Result<()> {
        match self {
            Handle::Fd(fd) => rustix::fs::fremovexattr(fd, name),
            Handle::Path(path) => rustix::fs::lremovexattr(path, name),
            Handle::Magic(path) => rustix::fs::removexattr(path, name),
        }
    }

    /// The value; `None` where there is no such attribute, or the file system has none of its kind.
    pub(super) fn get(&self, name: &[u8]) -> io::Result<Option<Vec<u8>>> {
        let value = with_growing_buffer(|buffer| match self {
            Handle::Fd(fd) => Ok(rustix::fs::fgetxattr(fd, name, buffer)?.0.to_vec()),
            Handle::Path(path) => Ok(rustix::fs::lgetxattr(path, name, buffer)?.0.to_vec()),
            Handle::Magic(path) => Ok(rustix::fs::getxattr(path, name, buffer)?.0.to_vec()),
        });
        match value {
            Ok(value) => Ok(Some(value)),
            Err(Errno::NODATA | Errno::NOTSUP) => Ok(None),
            Err(errno) => Err(errno.into()),
        }
    }

    /// All names, in the file system's order; none where it has no attributes.
    pub(super) fn names(&self) -> io::Result<Vec<Vec<u8>>> {
        let list = with_growing_buffer(|buffer| match self {
            Handle::Fd(fd) => Ok(rustix::fs::flistxattr(fd, buffer)?.0.to_vec()),
            Handle::Path(path) => Ok(rustix::fs::llistxattr(path, buffer)?.0.to_vec()),
            Handle::Magic(path) => Ok(rustix::fs::listxattr(path, buffer)?.0.to_vec()),
        });
        match list {
            Ok(list) => Ok(list.split(|&byte| byte == 0).filter(|name| !name.is_empty()).map(<[u8]>::to_vec).collect()),
            Err(Errno::NOTSUP) => Ok(Vec::new()),
            Err(errno) => Err(errno.into()),
        }
    }
}

fn with_growing_buffer(
    read: impl Fn(&mut [MaybeUninit<u8>]) -> rustix::io::Result<Vec<u8>>,
) -> rustix::io::Result<Vec<u8>> {
    match read(&mut [MaybeUninit::uninit(); FIRST_VALUE_BYTES]) {
        Err(Errno::RANGE) => read(Vec::with_capacity(KERNEL_BYTES_MAX).spare_capacity_mut()),
        other => other,
    }
}

pub(super) fn proc_is_mounted() -> bool {
    static MOUNTED: OnceLock<bool> = OnceLock::new();
    *MOUNTED.get_or_init(|| rustix::fs::stat("/proc/self/fd").is_ok())
}

/// Whether an attribute is carried over: all of `user.`, and for root `trusted.` and `security.` too, as rsync has it.
/// Not those in which a file system keeps its own affairs (`btrfs.`, `lustre.` …), nor the names under which XFS shows
/// root the access control lists once more: removing those would remove the lists.
pub(super) fn is_carried(name: &[u8], as_root: bool) -> bool {
    if name.starts_with(b"user.") {
        return true;
    }
    as_root
        && (name.starts_with(b"trusted.") || name.starts_with(b"security."))
        && !matches!(name, b"trusted.SGI_ACL_FILE" | b"trusted.SGI_ACL_DEFAULT")
}

/// Reads both access control lists; `None` where permission bits say it all, or the file system has none. A symbolic
/// link has none. `InvalidData` for a list that is not understood.
pub fn read_acls(target: Target<'_>, kind: Kind) -> io::Result<Acls> {
    if kind == Kind::Symlink {
        return Ok(Acls::default());
    }
    let handle = Handle::new(target)?;
    let access = read_acl(&handle, ACL_ACCESS)?.filter(|acl| !is_minimal(acl));
    let default = if kind == Kind::Dir { read_acl(&handle, ACL_DEFAULT)? } else { None };
    Ok(Acls { access, default })
}

fn read_acl(handle: &Handle<'_>, name: &[u8]) -> io::Result<Option<Acl>> {
    let Some(value) = handle.get(name)? else { return Ok(None) };
    let acl = Acl::from_xattr(&value).map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))?;
    Ok(Some(acl).filter(|acl| !acl.0.is_empty()))
}

/// Owner, group, others: what the mode says.
fn is_minimal(acl: &Acl) -> bool {
    use crate::model::AclTag::{GroupObject, Other, UserObject};
    acl.0.iter().all(|entry| matches!(entry.tag, UserObject | GroupObject | Other))
}

/// Reads the attributes that are carried over, sorted by name; those that hold access control lists are left out. An
/// attribute that vanishes meanwhile is left out. `InvalidData` beyond the bounds of [`limits`].
pub fn read_xattrs(target: Target<'_>, kind: Kind, as_root: bool) -> io::Result<Xattrs> {
    // The kernel allows `user.` attributes on files and directories only.
    if !as_root && !matches!(kind, Kind::File | Kind::Dir) {
        return Ok(Vec::new());
    }
    let handle = Handle::new(target)?;
    let mut xattrs = Vec::new();
    let mut bytes = 0;
    for name in handle.names()?.into_iter().filter(|name| is_carried(name, as_root)) {
        let Some(value) = handle.get(&name)? else { continue };
        bytes += name.len() + value.len();
        if xattrs.len() == limits::XATTRS_COUNT_MAX || bytes > limits::XATTRS_BYTES_MAX {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "too many or too large extended attributes"));
        }
        xattrs.push(Xattr { name: name.into(), value: value.into() });
    }
    xattrs.sort_unstable();
    Ok(xattrs)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_systems_own_affairs_are_not_carried() {
        for (name, by_root, by_others) in [
            (&b"user.x"[..], true, true),
            (b"user.rsync.%stat", true, true),
            (b"trusted.x", true, false),
            (b"security.capability", true, false),
            (b"trusted.SGI_ACL_FILE", false, false),
            (b"trusted.SGI_ACL_DEFAULT", false, false),
            (b"system.posix_acl_access", false, false),
            (b"btrfs.compression", false, false),
        ] {
            assert_eq!((is_carried(name, true), is_carried(name, false)), (by_root, by_others));
        }
    }
}
