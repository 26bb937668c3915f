//! Metadata applied to an inode, in the order in which they do not undo each other.

use std::io;

use rustix::fs::{AtFlags, CWD, Gid, Timespec, Timestamps, UTIME_OMIT, Uid};
use rustix::io::Errno;

use super::dir::{metadata_of, mode_bits, proc_path};
use super::ids::am_root;
use super::xattr::{ACL_ACCESS, ACL_DEFAULT, Handle, Pinned, Target, is_carried};
use crate::model::{Acl, Acls, Kind, Operation, Timestamp, Xattrs};

const CAPABILITY: &[u8] = b"security.capability";

/// Labels and hashes that the kernel's security modules put on a file by themselves: set where the source has them,
/// as rsync does, but never removed.
const KERNEL_LABELS: [&[u8]; 4] = [b"security.selinux", b"security.ima", b"security.evm", b"security.apparmor"];

/// What is to be set; `None` leaves it as it is, and costs no call.
#[derive(Debug, Clone, Copy, Default)]
pub struct MetadataChange<'a> {
    /// Owner.
    pub uid: Option<u32>,
    /// Group.
    pub gid: Option<u32>,
    /// Permission bits, `0o7777`. A change of owner clears set-id bits, so give this with it. Not set on symbolic links.
    pub mode: Option<u32>,
    /// Time of the last change of content.
    pub mtime: Option<Timestamp>,
    /// Time of the last access.
    pub atime: Option<Timestamp>,
    /// Both access control lists: what is `None` in it is removed.
    pub acls: Option<&'a Acls>,
    /// Exactly these extended attributes; others are removed. Only those that this process may carry take part, as in
    /// [`super::read_xattrs`]: for users other than root, `user.` ones only.
    pub xattrs: Option<&'a Xattrs>,
}

impl MetadataChange<'_> {
    /// What is told of where nothing could be done; `None` where nothing is asked for.
    fn first_operation(&self) -> Option<Operation> {
        let asked = [
            (self.xattrs.is_some(), Operation::SetXattrs),
            (self.uid.is_some() || self.gid.is_some(), Operation::SetOwner),
            (self.acls.is_some(), Operation::SetAcl),
            (self.mode.is_some(), Operation::SetMode),
            (self.mtime.is_some() || self.atime.is_some(), Operation::SetTimes),
        ];
        asked.into_iter().find_map(|(is_asked, operation)| is_asked.then_some(operation))
    }
}

/// The answer where something else has a name than what was looked at before.
pub fn replaced() -> io::Error {
    io::Error::new(io::ErrorKind::ResourceBusy, "something else was put in its place meanwhile")
}

/// Sets what `change` asks for on a target of kind `kind`. Each failure is returned, and the rest is still done.
///
/// Order: extended attributes; owner, which clears set-id bits and capabilities; capabilities; access control lists;
/// mode; times.
///
/// Where the owner or group could not be set, set-id bits are left out of the mode: they would run the file as
/// someone it was never meant for. Where both were asked for and both together are refused, the group is tried alone.
///
/// What has a name in an open directory is pinned first: all is set on one inode, which is of kind `kind`, or nothing is.
pub fn apply(target: Target<'_>, kind: Kind, change: &MetadataChange<'_>) -> Vec<(Operation, io::Error)> {
    let Target::At(dir, name) = target else { return apply_to(target, kind, change) };
    let Some(first) = change.first_operation() else { return Vec::new() };
    match Pinned::open(dir, name) {
        Ok(pinned) if pinned.metadata().kind != kind => vec![(first, replaced())],
        Ok(pinned) => apply_to(Target::Pinned(&pinned), kind, change),
        Err(error) => vec![(first, error)],
    }
}

fn apply_to(target: Target<'_>, kind: Kind, change: &MetadataChange<'_>) -> Vec<(Operation, io::Error)> {
    let mut failures = Vec::new();
    let is_link = kind == Kind::Symlink;
    let acls = change.acls.filter(|_| !is_link);
    let handle = if change.xattrs.is_some() || acls.is_some() {
        match Handle::new(target) {
            Ok(handle) => Some(handle),
            Err(error) => {
                let operation = if change.xattrs.is_some() { Operation::SetXattrs } else { Operation::SetAcl };
                failures.push((operation, error));
                None
            }
        }
    } else {
        None
    };
    if let (Some(handle), Some(wanted)) = (&handle, change.xattrs) {
        let mut result = set_xattrs(handle, wanted);
        if result.as_ref().is_err_and(|error| error.kind() == io::ErrorKind::PermissionDenied) && !am_root() {
            result = set_xattrs_of_read_only(target, handle, wanted);
        }
        failures.extend(result.err().map(|error| (Operation::SetXattrs, error)));
    }
    let mut owner_failed = false;
    if change.uid.is_some() || change.gid.is_some() {
        let result = set_owner(target, change.uid, change.gid);
        owner_failed = result.is_err();
        failures.extend(result.err().map(|error| (Operation::SetOwner, error)));
    }
    if let (Some(handle), Some(wanted)) = (&handle, change.xattrs) {
        failures.extend(set_capability(handle, wanted).err().map(|error| (Operation::SetXattrs, error)));
    }
    if let (Some(handle), Some(acls)) = (&handle, acls) {
        let mut result = set_acl(handle, ACL_ACCESS, acls.access.as_ref());
        if kind == Kind::Dir {
            result = result.and(set_acl(handle, ACL_DEFAULT, acls.default.as_ref()));
        }
        failures.extend(result.err().map(|error| (Operation::SetAcl, error)));
    }
    if let Some(mode) = change.mode.filter(|_| !is_link) {
        let mode = if owner_failed && kind != Kind::Dir { mode & !0o6000 } else { mode };
        failures.extend(set_mode(target, mode).err().map(|error| (Operation::SetMode, error)));
    }
    if change.mtime.is_some() || change.atime.is_some() {
        let result = set_times(target, change.mtime, change.atime);
        failures.extend(result.err().map(|error| (Operation::SetTimes, error)));
    }
    failures
}

/// All but the capability: sets what is missing or differs, removes what is extra. Goes on after a failure and returns
/// the first.
fn set_xattrs(handle: &Handle<'_>, wanted: &Xattrs) -> io::Result<()> {
    let as_root = am_root();
    let present: Vec<Vec<u8>> = handle.names()?;
    let mut result = Ok(());
    for name in present.iter().filter(|name| is_carried(name, as_root)) {
        let is_extra = !wanted.iter().any(|xattr| &*xattr.name == name.as_slice());
        if is_extra && !KERNEL_LABELS.contains(&name.as_slice()) {
            let removed = match handle.remove(name) {
                Err(Errno::NODATA) => Ok(()),
                other => other.map_err(io::Error::from),
            };
            result = result.and(removed);
        }
    }
    for xattr in wanted.iter().filter(|xattr| &*xattr.name != CAPABILITY && is_carried(&xattr.name, as_root)) {
        let is_equal = present.iter().any(|name| **name == *xattr.name)
            && handle.get(&xattr.name).is_ok_and(|value| value.as_deref() == Some(&xattr.value));
        if !is_equal {
            result = result.and(handle.set(&xattr.name, &xattr.value).map_err(io::Error::from));
        }
    }
    result
}

/// An owner who is not root may set attributes only where the mode lets them write. So it does for a moment.
fn set_xattrs_of_read_only(target: Target<'_>, handle: &Handle<'_>, wanted: &Xattrs) -> io::Result<()> {
    let mode = match target {
        Target::File(file) => metadata_of(file)?.mode,
        Target::Dir(dir) => dir.metadata()?.mode,
        Target::At(dir, name) => dir.stat(name)?.mode,
        Target::Pinned(pinned) => pinned.metadata().mode,
    };
    if mode & 0o200 != 0 {
        return set_xattrs(handle, wanted);
    }
    set_mode(target, mode | 0o200)?;
    let result = set_xattrs(handle, wanted);
    result.and(set_mode(target, mode))
}

fn set_capability(handle: &Handle<'_>, wanted: &Xattrs) -> io::Result<()> {
    let Some(capability) = wanted.iter().find(|xattr| &*xattr.name == CAPABILITY && am_root()) else { return Ok(()) };
    if handle.get(CAPABILITY)?.as_deref() == Some(&capability.value) {
        return Ok(());
    }
    Ok(handle.set(CAPABILITY, &capability.value)?)
}

/// Sets a list, or removes it. Where there is none to remove, or the file system has no lists at all, that is done.
fn set_acl(handle: &Handle<'_>, name: &[u8], acl: Option<&Acl>) -> io::Result<()> {
    match acl {
        Some(acl) => Ok(handle.set(name, &acl.to_xattr())?),
        None => match handle.remove(name) {
            Err(Errno::NODATA | Errno::NOTSUP) => Ok(()),
            other => Ok(other?),
        },
    }
}

fn set_owner(target: Target<'_>, uid: Option<u32>, gid: Option<u32>) -> io::Result<()> {
    match change_owner(target, uid, gid) {
        Err(Errno::PERM) if uid.is_some() && gid.is_some() => {
            // The refusal of the user stays the answer, whatever became of the group.
            let _ = change_owner(target, None, gid);
            Err(Errno::PERM.into())
        }
        other => Ok(other?),
    }
}

fn change_owner(target: Target<'_>, uid: Option<u32>, gid: Option<u32>) -> rustix::io::Result<()> {
    // All bits set means "leave as it is" to the kernel: such an id cannot be set.
    if uid == Some(u32::MAX) || gid == Some(u32::MAX) {
        return Err(Errno::INVAL);
    }
    let (uid, gid) = (uid.map(Uid::from_raw), gid.map(Gid::from_raw));
    match target {
        Target::File(file) => rustix::fs::fchown(file, uid, gid),
        Target::Dir(dir) => rustix::fs::fchown(dir, uid, gid),
        Target::At(dir, name) => rustix::fs::chownat(dir, name.as_os_str(), uid, gid, AtFlags::SYMLINK_NOFOLLOW),
        Target::Pinned(pinned) => rustix::fs::chownat(pinned, c"", uid, gid, AtFlags::EMPTY_PATH),
    }
}

fn set_mode(target: Target<'_>, mode: u32) -> io::Result<()> {
    let mode = mode_bits(mode);
    match target {
        Target::File(file) => Ok(rustix::fs::fchmod(file, mode)?),
        Target::Dir(dir) => Ok(rustix::fs::fchmod(dir, mode)?),
        // Not by name: chmod would follow a link that was put there meanwhile.
        Target::At(dir, name) => set_mode(Target::Pinned(&Pinned::open(dir, name)?), mode.as_raw_mode()),
        Target::Pinned(pinned) if pinned.metadata().kind == Kind::Symlink => Err(Errno::LOOP.into()),
        Target::Pinned(pinned) => match rustix::fs::chmodat(CWD, proc_path(pinned), mode, AtFlags::empty()) {
            Err(Errno::NOENT) => Err(io::Error::new(io::ErrorKind::Unsupported, "/proc is not mounted")),
            other => Ok(other?),
        },
    }
}

fn set_times(target: Target<'_>, mtime: Option<Timestamp>, atime: Option<Timestamp>) -> io::Result<()> {
    let spec = |time: Option<Timestamp>| match time {
        Some(time) => Timespec { tv_sec: time.seconds, tv_nsec: time.nanoseconds.into() },
        None => Timespec { tv_sec: 0, tv_nsec: UTIME_OMIT },
    };
    // UTIME_OMIT and UTIME_NOW lie beyond a second's nanoseconds: a value from outside must not mean either.
    if [mtime, atime].into_iter().flatten().any(|time| time.nanoseconds >= 1_000_000_000) {
        return Err(Errno::INVAL.into());
    }
    let times = Timestamps { last_access: spec(atime), last_modification: spec(mtime) };
    match target {
        Target::File(file) => Ok(rustix::fs::futimens(file, &times)?),
        Target::Dir(dir) => Ok(rustix::fs::futimens(dir, &times)?),
        Target::At(dir, name) => Ok(rustix::fs::utimensat(dir, name.as_os_str(), &times, AtFlags::SYMLINK_NOFOLLOW)?),
        Target::Pinned(pinned) => match rustix::fs::utimensat(pinned, c"", &times, AtFlags::EMPTY_PATH) {
            // Before Linux 5.8. The magic link leads to the inode itself, a symbolic link's too.
            Err(Errno::INVAL | Errno::NOENT) => {
                Ok(rustix::fs::utimensat(CWD, proc_path(pinned), &times, AtFlags::empty())?)
            }
            other => Ok(other?),
        },
    }
}
