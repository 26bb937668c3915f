//! Where paths that a user or a peer wrote begin: at the process's own root and working directory, or beneath a
//! directory that is held and never left.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::sync::{Arc, OnceLock};

use rustix::fs::{AtFlags, CWD, FileType, Mode, OFlags, ResolveFlags};
use rustix::io::Errno;

use super::beneath::{forget_openat2, openat2, without_openat2};
use super::dir::{Dir, OPEN_DIR, proc_path, stat_at};
use crate::model::{Kind, Metadata, Name, RelPath};

/// Whether a path from the top, and whether it is a directory, is one that does not exist for the session. Asked for
/// each directory on the way too.
pub type Hides = dyn Fn(&RelPath, bool) -> bool + Send + Sync;

/// Where paths begin.
#[derive(Debug, Clone, Default)]
pub enum Base {
    /// The process's working directory and root, links followed wherever they lead: the user's own command line, or
    /// their own far end.
    #[default]
    Process,
    /// A held directory. `/` is this directory; neither `..` nor a symbolic link leads out of it.
    Beneath(Arc<Top>),
}

/// A directory that nothing leaves.
pub struct Top {
    dir: Dir,
    links_lead_out: bool,
    hides: Option<Arc<Hides>>,
}

impl std::fmt::Debug for Top {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Top").field("dir", &self.dir).field("links_lead_out", &self.links_lead_out).finish()
    }
}

/// What keeps a directory beneath its top.
#[derive(Debug)]
pub(super) struct Scope {
    top: Arc<Top>,
    /// How the directory is reached from the top: what was written and opened, `..` and links included.
    at: Vec<u8>,
    /// Where it really is, once that was asked for.
    real: OnceLock<Option<RelPath>>,
}

impl Scope {
    fn new(top: Arc<Top>, at: Vec<u8>) -> Scope {
        Scope { top, at, real: OnceLock::new() }
    }

    /// That of something which is reached by `tail` from this one's directory.
    pub(super) fn below(&self, tail: &[u8]) -> Scope {
        Scope::new(Arc::clone(&self.top), self.join(tail))
    }

    fn join(&self, tail: &[u8]) -> Vec<u8> {
        [&self.at[..], tail].join(&b'/')
    }

    /// Opens what `name` in `dir`, this scope's directory, leads to.
    fn follow(&self, dir: &Dir, name: &Name, flags: OFlags) -> io::Result<OwnedFd> {
        if !self.top.links_lead_out {
            return self.top.open(&self.join(name.as_bytes()), flags);
        }
        let flags = flags | OFlags::CLOEXEC;
        let fd = rustix::io::retry_on_intr(|| rustix::fs::openat(dir, name.as_os_str(), flags, Mode::empty()))?;
        self.top.check(fd.as_fd())?;
        Ok(fd)
    }
}

/// A path or a link that leads where the session may not go.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
enum Confined {
    #[error("it leads out of the module")]
    LeadsOut,
    #[error("the module excludes it")]
    Hidden,
    #[error("symbolic links in a module cannot be followed safely by this kernel (openat2 is missing)")]
    LinksUnsafe,
}

impl From<Confined> for io::Error {
    fn from(confined: Confined) -> io::Error {
        io::Error::new(io::ErrorKind::PermissionDenied, confined)
    }
}

/// The answer to a name that does not exist for the session.
pub fn hidden() -> io::Error {
    Confined::Hidden.into()
}

/// Whether an error says that something lies where the session may not go, rather than that the system refused.
pub fn is_confined(error: &io::Error) -> bool {
    error.get_ref().is_some_and(|inner| inner.is::<Confined>())
}

impl Base {
    /// Beneath `root`. `links_lead_out`: symbolic links that the *contents* of the tree hold may be followed anywhere
    /// where following is asked for (`-L` and its kin); paths that a user wrote stay beneath all the same. What `hides`
    /// says yes to is neither opened nor followed to.
    pub fn beneath(root: Dir, links_lead_out: bool, hides: Option<Arc<Hides>>) -> Base {
        Base::Beneath(Arc::new(Top { dir: root, links_lead_out, hides }))
    }

    /// Opens the directory that a user named; empty is the base itself. Beneath a top, an absolute path begins there, and
    /// the directory remembers it: following a link from it, or from any directory opened by it, stays beneath too.
    pub fn open_dir(&self, path: &[u8]) -> io::Result<Dir> {
        match self {
            Base::Process => {
                use std::os::unix::ffi::OsStrExt;
                Dir::open(Path::new(std::ffi::OsStr::from_bytes(if path.is_empty() { b"." } else { path })))
            }
            Base::Beneath(top) => top.open_dir(path.to_vec()),
        }
    }

    /// Whether nothing leads out of it.
    pub fn is_confined(&self) -> bool {
        matches!(self, Base::Beneath(_))
    }

    /// The absolute path of a directory, as paths count in this base.
    pub fn path_of(&self, dir: &Dir) -> io::Result<Vec<u8>> {
        match self {
            Base::Process => dir.path(),
            Base::Beneath(top) => Ok([b"/", top.path_of(dir.as_fd())?.as_bytes()].concat()),
        }
    }
}

impl Top {
    fn open_dir(self: &Arc<Top>, at: Vec<u8>) -> io::Result<Dir> {
        let fd = self.open(&at, OPEN_DIR)?;
        Ok(Dir::scoped(fd, Arc::clone(&self.dir.learned), Some(Scope::new(Arc::clone(self), at))))
    }

    /// Opens what `path` leads to. The last component is followed, too.
    fn open(&self, path: &[u8], flags: OFlags) -> io::Result<OwnedFd> {
        let start = path.iter().position(|&byte| byte != b'/').unwrap_or(path.len());
        let path = if start == path.len() { &b"."[..] } else { &path[start..] };
        let fd = self.resolve(path, flags | OFlags::CLOEXEC)?;
        self.check(fd.as_fd())?;
        Ok(fd)
    }

    /// Refuses what is hidden, or lies below something hidden, by where it really is.
    fn check(&self, fd: BorrowedFd<'_>) -> io::Result<()> {
        let Some(hides) = &self.hides else { return Ok(()) };
        let real = match self.path_of(fd) {
            // Outside of the top its names mean nothing.
            Err(error) if self.links_lead_out && is_confined(&error) => return Ok(()),
            other => other?,
        };
        let is_dir = stat_at(fd, c"", AtFlags::EMPTY_PATH)?.kind == Kind::Dir;
        let depth = real.depth();
        let mut path = RelPath::root();
        for (index, name) in real.components().enumerate() {
            path = path.join(&name);
            if hides(&path, is_dir || index + 1 < depth) {
                return Err(Confined::Hidden.into());
            }
        }
        Ok(())
    }

    fn resolve(&self, path: &[u8], flags: OFlags) -> io::Result<OwnedFd> {
        if without_openat2() {
            return self.walk(path, flags);
        }
        match openat2(&self.dir, path, flags, ResolveFlags::BENEATH | ResolveFlags::NO_MAGICLINKS) {
            Err(Errno::XDEV) => Err(Confined::LeadsOut.into()),
            Err(Errno::NOSYS) => {
                forget_openat2();
                self.walk(path, flags)
            }
            // As in `Dir::open_beneath`: what older sandboxes answer.
            Err(Errno::PERM) => {
                let fd = self.walk(path, flags)?;
                forget_openat2();
                Ok(fd)
            }
            other => Ok(other?),
        }
    }

    /// Component by component, no link followed; `..` goes back to the directory that was come from.
    fn walk(&self, path: &[u8], flags: OFlags) -> io::Result<OwnedFd> {
        let on_the_way = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC | OFlags::NOFOLLOW;
        let mut reached: Vec<OwnedFd> = Vec::new();
        let components: Vec<&[u8]> = path.split(|&byte| byte == b'/').filter(|name| !name.is_empty()).collect();
        for (index, &component) in components.iter().enumerate() {
            let is_last = index + 1 == components.len();
            match component {
                b"." => continue,
                b".." => {
                    reached.pop().ok_or(Confined::LeadsOut)?;
                    continue;
                }
                _ => {}
            }
            let at = reached.last().map_or(self.dir.as_fd(), OwnedFd::as_fd);
            let flags = if is_last { flags | OFlags::NOFOLLOW } else { on_the_way };
            match rustix::fs::openat(at, component, flags, Mode::empty()) {
                Ok(fd) if is_link(fd.as_fd(), c"", AtFlags::EMPTY_PATH) => return Err(Confined::LinksUnsafe.into()),
                Ok(fd) => reached.push(fd),
                Err(Errno::LOOP | Errno::NOTDIR) if is_link(at, component, AtFlags::SYMLINK_NOFOLLOW) => {
                    return Err(Confined::LinksUnsafe.into());
                }
                Err(errno) => return Err(errno.into()),
            }
        }
        // What the last component did not open with the flags asked for: the top, or where a `..` led.
        match reached.pop() {
            Some(fd) if !matches!(components.last(), Some(&b"." | &b"..")) => Ok(fd),
            Some(fd) => Ok(rustix::fs::openat(&fd, c".", flags, Mode::empty())?),
            None => Ok(rustix::fs::openat(&self.dir, c".", flags, Mode::empty())?),
        }
    }

    /// Where something open is, from the top on. Refused where it has left the top meanwhile.
    fn path_of(&self, fd: BorrowedFd<'_>) -> io::Result<RelPath> {
        let top = self.dir.path()?;
        let path = rustix::fs::readlink(proc_path(fd), Vec::new())?.into_bytes();
        let below = match &top[..] {
            b"/" => path.strip_prefix(b"/"),
            top => match path.strip_prefix(top) {
                Some(b"") => Some(&b""[..]),
                Some(rest) => rest.strip_prefix(b"/"),
                None => None,
            },
        };
        RelPath::new(below.ok_or(Confined::LeadsOut)?)
            .map_err(|error| io::Error::new(io::ErrorKind::InvalidInput, error))
    }
}

fn is_link(fd: BorrowedFd<'_>, path: impl rustix::path::Arg, flags: AtFlags) -> bool {
    rustix::fs::statat(fd, path, flags).is_ok_and(|stat| FileType::from_raw_mode(stat.st_mode).is_symlink())
}

impl Dir {
    /// Whether this directory, or one above it, does not exist for the session. What cannot be told is hidden.
    pub fn is_hidden(&self) -> bool {
        self.scope.as_ref().is_some_and(|scope| scope.top.check(self.as_fd()).is_err())
    }

    /// Whether a name in this directory does not exist for the session. What cannot be told is hidden.
    pub fn hides(&self, name: &Name, is_dir: bool) -> bool {
        self.hides_below(&RelPath::root().join(name), is_dir)
    }

    /// As [`Dir::hides`], for a path below this directory that need not be there.
    pub fn hides_below(&self, path: &RelPath, is_dir: bool) -> bool {
        let Some(scope) = &self.scope else { return false };
        let Some(hides) = &scope.top.hides else { return false };
        match scope.real.get_or_init(|| scope.top.path_of(self.as_fd()).ok()) {
            Some(real) => hides(&real.join_path(path), is_dir),
            // Outside of the top its names mean nothing; links are allowed to lead there.
            None => !scope.top.links_lead_out,
        }
    }

    /// The directory that holds this one.
    pub fn open_parent(&self) -> io::Result<Dir> {
        match &self.scope {
            Some(scope) => scope.top.open_dir(scope.join(b"..")),
            None => self.open_dir(c"..", OFlags::empty(), b".."),
        }
    }

    /// Opens the directory `name`, or the one that a symbolic link `name` leads to: wherever that is, or beneath the
    /// top of a confined base.
    pub fn open_child_following(&self, name: &Name) -> io::Result<Dir> {
        let Some(scope) = &self.scope else {
            return self.open_dir(name.as_os_str(), OFlags::empty(), name.as_bytes());
        };
        match self.open_child(name) {
            Err(error) if matches!(Errno::from_io_error(&error), Some(Errno::LOOP | Errno::NOTDIR)) => {
                Ok(self.derived(scope.follow(self, name, OPEN_DIR)?, name.as_bytes()))
            }
            other => other,
        }
    }

    /// Metadata of what `name` leads to: wherever that is, or beneath the top of a confined base.
    pub fn stat_following(&self, name: &Name) -> io::Result<Metadata> {
        let Some(scope) = &self.scope else {
            return stat_at(self.as_fd(), name.as_os_str(), AtFlags::empty());
        };
        let pinned = scope.follow(self, name, OFlags::PATH)?;
        stat_at(pinned.as_fd(), c"", AtFlags::EMPTY_PATH)
    }

    /// What `name` leads to, pinned, in a confined base; `None` in others.
    pub(super) fn pin_following(&self, name: &Name) -> Option<io::Result<File>> {
        let scope = self.scope.as_ref()?;
        Some(scope.follow(self, name, OFlags::PATH).map(File::from))
    }
}

/// A description of its own for something pinned: the inode is the one that was looked at, whatever its name is now.
pub(super) fn open_pinned(pinned: &File, flags: OFlags) -> rustix::io::Result<OwnedFd> {
    rustix::io::retry_on_intr(|| rustix::fs::openat(CWD, proc_path(pinned), flags | OFlags::CLOEXEC, Mode::empty()))
}
