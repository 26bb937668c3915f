//! Whole relative paths, resolved so that they cannot lead out of the directory they start from.

use std::io;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

use rustix::fs::{Mode, OFlags, ResolveFlags};
use rustix::io::Errno;

use super::dir::{Dir, OPEN_DIR};
use crate::model::RelPath;

/// Longest path that one system call takes: `PATH_MAX` without the closing NUL.
const CALL_PATH_BYTES_MAX: usize = 4095;

/// Tries when the kernel cannot tell whether a `..` in a link left the tree because something was renamed meanwhile.
const RACED_LOOKUPS_MAX: u32 = 16;

/// The kernel lacks `openat2` (before 5.6), or a sandbox hides it.
static NO_OPENAT2: AtomicBool = AtomicBool::new(false);

impl Dir {
    /// Opens a directory beneath this one. No component may be a symbolic link (`ELOOP` or `ENOTDIR`); the root path
    /// opens this directory anew. Works for paths longer than `PATH_MAX`.
    pub fn open_beneath(&self, path: &RelPath) -> io::Result<Dir> {
        self.resolve(path, ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS)
    }

    /// Opens a directory beneath this one, following symbolic links as long as they stay beneath it (`EXDEV` where
    /// one leaves). Fails closed: without `openat2` no link is followed, and in a path longer than `PATH_MAX` a link
    /// must stay beneath the last directory that an earlier piece of the path led to.
    pub fn open_beneath_following(&self, path: &RelPath) -> io::Result<Dir> {
        self.resolve(path, ResolveFlags::BENEATH | ResolveFlags::NO_MAGICLINKS)
    }

    fn resolve(&self, path: &RelPath, rules: ResolveFlags) -> io::Result<Dir> {
        if without_openat2() {
            return self.walk(path);
        }
        let mut reached: Option<Dir> = None;
        for piece in pieces(path) {
            match reached.as_ref().unwrap_or(self).open_piece(piece, rules) {
                Ok(fd) => {
                    let from = reached.as_ref().unwrap_or(self);
                    reached = Some(from.derived(fd, piece.as_os_str().as_encoded_bytes()));
                }
                Err(Errno::NOSYS) => {
                    forget_openat2();
                    return self.walk(path);
                }
                // What older sandboxes answer for a call that they do not know. The walk gives the true answer.
                Err(Errno::PERM) => {
                    let dir = self.walk(path)?;
                    forget_openat2();
                    return Ok(dir);
                }
                Err(errno) => return Err(errno.into()),
            }
        }
        reached.ok_or_else(|| io::ErrorKind::InvalidInput.into())
    }

    fn open_piece(&self, piece: &Path, rules: ResolveFlags) -> rustix::io::Result<OwnedFd> {
        openat2(self, piece, OPEN_DIR, rules)
    }

    /// Component by component, no link followed: what every kernel can do.
    fn walk(&self, path: &RelPath) -> io::Result<Dir> {
        let mut reached: Option<Dir> = None;
        for name in path.components() {
            let next = reached.as_ref().unwrap_or(self).open_child(&name)?;
            reached = Some(next);
        }
        match reached {
            Some(dir) => Ok(dir),
            None => {
                let fd = rustix::fs::openat(self, c".", OPEN_DIR | OFlags::NOFOLLOW, Mode::empty())?;
                Ok(self.derived(fd, b"."))
            }
        }
    }
}

/// Whether `openat2` is known to be missing.
pub(super) fn without_openat2() -> bool {
    NO_OPENAT2.load(Ordering::Relaxed)
}

/// It is missing.
pub(super) fn forget_openat2() {
    NO_OPENAT2.store(true, Ordering::Relaxed);
}

/// `openat2`, tried again where the kernel could not tell or was interrupted.
pub(super) fn openat2(
    dir: &Dir,
    path: impl rustix::path::Arg + Copy,
    flags: OFlags,
    rules: ResolveFlags,
) -> rustix::io::Result<OwnedFd> {
    let mut tries = 0;
    loop {
        match rustix::fs::openat2(dir, path, flags, Mode::empty(), rules) {
            Err(Errno::AGAIN) if tries < RACED_LOOKUPS_MAX => tries += 1,
            Err(Errno::INTR) => {}
            other => return other,
        }
    }
}

/// The path cut at slashes into pieces that one system call takes; `.` for the root.
fn pieces(path: &RelPath) -> impl Iterator<Item = &Path> {
    use std::ffi::OsStr;
    use std::os::unix::ffi::OsStrExt;

    let mut rest = path.as_path().as_os_str().as_bytes();
    std::iter::from_fn(move || {
        if rest.is_empty() {
            return None;
        }
        let piece = match rest.get(..CALL_PATH_BYTES_MAX + 1).and_then(|head| head.iter().rposition(|&b| b == b'/')) {
            Some(slash) => {
                let piece = &rest[..slash];
                rest = &rest[slash + 1..];
                piece
            }
            None => std::mem::take(&mut rest),
        };
        Some(Path::new(OsStr::from_bytes(piece)))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_paths_are_cut_at_slashes() {
        assert_eq!(pieces(&RelPath::root()).collect::<Vec<_>>(), [Path::new(".")]);
        let short = RelPath::new(b"a/b").unwrap();
        assert_eq!(pieces(&short).collect::<Vec<_>>(), [Path::new("a/b")]);
        for component_bytes in [1, 2, 7, 254, 255] {
            let component = vec![b'x'; component_bytes];
            let long = vec![&component[..]; 12_000 / (component_bytes + 1)].join(&b'/');
            for cut in 0..3 {
                let long = &long[..long.len() - cut.min(component_bytes - 1)];
                let path = RelPath::new(long).unwrap_or_else(|_| RelPath::root());
                let cut: Vec<&Path> = pieces(&path).collect();
                assert!(cut.iter().all(|piece| piece.as_os_str().len() <= CALL_PATH_BYTES_MAX));
                let joined = cut.iter().map(|piece| piece.as_os_str().as_encoded_bytes()).collect::<Vec<_>>();
                assert_eq!(joined.join(&b'/'), path.as_path().as_os_str().as_encoded_bytes());
            }
        }
    }
}
