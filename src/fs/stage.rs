//! Files that are not there yet: written beside their final name, and put there in one step.

use std::fs::File;
use std::io;
use std::os::fd::AsFd;
use std::sync::Arc;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use rustix::fs::{AtFlags, CWD, FlockOperation, Mode, OFlags};
use rustix::io::Errno;

use super::dir::{Dir, metadata_of, mode_bits, proc_path};
use super::xattr::proc_is_mounted;
use crate::model::{Kind, Name};

const PREFIX: &[u8] = b".xfer-stage.";

/// What stands before the counter in the name of a directory that is staged whole.
const DIR_MARK: &[u8] = b"dir.";

/// Hexadecimal digits of the number that is drawn once a process.
const RUN_DIGITS: usize = 16;

/// Tries when a fresh name is taken: only by a process that draws the same number.
const NAMES_TRIED_MAX: u32 = 100;

/// A name that no other stage of this or another process has: `.xfer-stage.`, 16 hexadecimal digits drawn once a
/// process, a dot, a counter in hexadecimal.
pub fn stage_name() -> Name {
    fresh_name("")
}

/// As [`stage_name`], for a directory that is staged whole: `dir.` stands before the counter, so that no sweep takes
/// the one for the other.
pub fn stage_dir_name() -> Name {
    fresh_name("dir.")
}

fn fresh_name(mark: &str) -> Name {
    static RUN: OnceLock<u64> = OnceLock::new();
    static COUNTER: AtomicU64 = AtomicU64::new(0);
    let run = *RUN.get_or_init(|| {
        // Without the kernel's randomness the standard library's hash keys serve: a clash costs one more try.
        getrandom::u64().unwrap_or_else(|_| {
            use std::hash::BuildHasher;
            std::hash::RandomState::new().hash_one(std::process::id())
        })
    });
    let counter = COUNTER.fetch_add(1, Ordering::Relaxed);
    let text = format!(".xfer-stage.{run:016x}.{mark}{counter:x}");
    match Name::new(text.as_bytes()) {
        Ok(name) => name,
        Err(_) => unreachable!("at most 49 bytes without slashes"),
    }
}

/// Whether a name is one of [`stage_name`]'s, of any process.
pub fn is_stage_name(name: &[u8]) -> bool {
    after_run(name).is_some_and(is_counter)
}

/// Whether a name is one of [`stage_dir_name`]'s, of any process.
pub fn is_stage_dir_name(name: &[u8]) -> bool {
    after_run(name).and_then(|rest| rest.strip_prefix(DIR_MARK)).is_some_and(is_counter)
}

fn is_hex(bytes: &[u8]) -> bool {
    bytes.iter().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
}

fn is_counter(bytes: &[u8]) -> bool {
    is_hex(bytes) && (1..=16).contains(&bytes.len())
}

/// What stands behind the number of the run.
fn after_run(name: &[u8]) -> Option<&[u8]> {
    let (run, rest) = name.strip_prefix(PREFIX)?.split_at_checked(RUN_DIGITS)?;
    rest.strip_prefix(b".").filter(|_| is_hex(run))
}

impl Dir {
    /// Removes a stage that a dead run has left; false where it stays, because its writer lives or it is a directory.
    pub fn sweep_stage(&self, name: &Name) -> io::Result<bool> {
        let metadata = self.stat(name)?;
        match metadata.kind {
            Kind::Dir => return Ok(false),
            Kind::File => {
                let file = self.open_file(name)?;
                if rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive) == Err(Errno::WOULDBLOCK) {
                    return Ok(false);
                }
            }
            _ => {}
        }
        self.unlink(name)?;
        Ok(true)
    }
}

/// A file that is not there yet. Dropped without [`Stage::commit`] or [`Stage::keep_as`], it leaves nothing behind.
#[derive(Debug)]
pub struct Stage {
    file: File,
    dir: Arc<Dir>,
    /// Its name for now; `None`: it has none, and vanishes with its descriptor.
    temporary: Option<Name>,
    /// Taken over from an earlier run, so that the final name may be another name of the same inode.
    adopted: bool,
}

/// The kernel lets this process link a descriptor without a path (`AT_EMPTY_PATH`): root, or the opener from Linux
/// 6.10 on. Otherwise `/proc` serves.
static LINK_NEEDS_PROC: AtomicBool = AtomicBool::new(false);

impl Stage {
    /// A new file in `dir`, open for reading and writing. `mode` goes through the umask; give no more than the final
    /// owner may have, as the file is visible to root and, with a name, to whoever may list the directory.
    ///
    /// Say whether the final name is taken (`replacing`): a file with a name is cheaper to put over another, one
    /// without (`O_TMPFILE`, where the file system has it) to put where nothing is. Either works for both. What cannot
    /// be without a name gets only the owner's bits of `mode`.
    pub fn create(dir: &Arc<Dir>, replacing: bool, mode: u32) -> io::Result<Stage> {
        if !replacing && let Some(file) = create_unnamed(dir, mode)? {
            return Ok(Stage { file, dir: Arc::clone(dir), temporary: None, adopted: false });
        }
        let (file, name) = create_named(dir, if replacing { mode } else { mode & 0o700 })?;
        Ok(Stage { file, dir: Arc::clone(dir), temporary: Some(name), adopted: false })
    }

    /// A new file under its final name, for directories that are themselves staged: nobody sees it there before it is
    /// complete. `EEXIST` where the name is taken. `mode` goes through the umask.
    pub fn create_final(dir: &Arc<Dir>, name: &Name, mode: u32) -> io::Result<Stage> {
        let file = dir.create_file(name, mode)?;
        Ok(Stage { file, dir: Arc::clone(dir), temporary: Some(name.clone()), adopted: false })
    }

    /// Takes over a partial file or a stage that an earlier run has left in `dir`, under a fresh name. Refused
    /// (`PermissionDenied`, and nothing changes) unless it is a regular file with one name that belongs to the
    /// effective user: writing into it would otherwise write into someone else's file.
    pub fn adopt(dir: &Arc<Dir>, name: &Name) -> io::Result<Stage> {
        let file = dir.open_file_write(name)?;
        let metadata = metadata_of(&file)?;
        if metadata.nlink != 1 || metadata.uid != rustix::process::geteuid().as_raw() {
            return Err(io::Error::new(io::ErrorKind::PermissionDenied, "not a file of ours alone"));
        }
        let temporary = stage_name();
        dir.rename(name, dir, &temporary)?;
        let moved = dir.stat(&temporary)?;
        if (moved.kind, moved.dev, moved.ino) != (Kind::File, metadata.dev, metadata.ino) {
            // Something else was put there meanwhile. Back with it; should the name be taken again, it stays as a
            // stage for the next sweep to judge.
            dir.rename_noreplace(&temporary, dir, name)?;
            return Err(io::Error::new(io::ErrorKind::PermissionDenied, "replaced while it was taken over"));
        }
        Ok(Stage { file, dir: Arc::clone(dir), temporary: Some(temporary), adopted: true })
    }

    /// The file.
    pub fn file(&self) -> &File {
        &self.file
    }

    /// Whether it has a name, for now or already the final one.
    pub fn has_name(&self) -> bool {
        self.temporary.is_some()
    }

    /// The directory it will appear in.
    pub fn dir(&self) -> &Arc<Dir> {
        &self.dir
    }

    /// Gives the file its final name, in one step, in place of what had it before (a directory is not replaced:
    /// `EISDIR`). On an error nothing appears and nothing is left.
    pub fn commit(self, name: &Name) -> io::Result<()> {
        let dir = Arc::clone(&self.dir);
        self.place(&dir, name)
    }

    /// Puts an unfinished file aside as `name` in `dir` on the same file system, in place of what had that name.
    pub fn keep_as(self, dir: &Dir, name: &Name) -> io::Result<()> {
        self.place(dir, name)
    }

    /// Drops the file.
    pub fn discard(self) {}

    fn place(mut self, to_dir: &Dir, name: &Name) -> io::Result<()> {
        if self.temporary.is_none() {
            match self.link(to_dir, name) {
                Err(error) if Errno::from_io_error(&error) == Some(Errno::EXIST) => {
                    // Linking never replaces: a name for the time being, then as below.
                    let temporary = stage_name();
                    self.link(&self.dir, &temporary)?;
                    self.temporary = Some(temporary);
                }
                other => return other,
            }
        }
        let Some(temporary) = &self.temporary else { return Ok(()) };
        if temporary == name && std::ptr::eq(Arc::as_ptr(&self.dir), to_dir) {
            self.temporary = None;
            return Ok(());
        }
        self.dir.rename(temporary, to_dir, name)?;
        if self.adopted {
            // Renaming between two names of one inode does nothing: the final name is right, this one is extra.
            match self.dir.unlink(temporary) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
        }
        self.temporary = None;
        Ok(())
    }

    /// Gives a file without a name one.
    fn link(&self, to_dir: &Dir, name: &Name) -> io::Result<()> {
        if !LINK_NEEDS_PROC.load(Ordering::Relaxed) {
            match rustix::fs::linkat(&self.file, c"", to_dir, name.as_os_str(), AtFlags::EMPTY_PATH) {
                Err(Errno::NOENT | Errno::PERM | Errno::ACCESS | Errno::INVAL) => {}
                other => return Ok(other?),
            }
        }
        let path = proc_path(self.file.as_fd());
        match rustix::fs::linkat(CWD, path, to_dir, name.as_os_str(), AtFlags::SYMLINK_FOLLOW) {
            Ok(()) => {
                LINK_NEEDS_PROC.store(true, Ordering::Relaxed);
                Ok(())
            }
            Err(Errno::EXIST) => Err(Errno::EXIST.into()),
            Err(errno) => {
                // A file system that makes such files and cannot name them: the next stage here gets a name at once.
                if errno != Errno::NOSPC && errno != Errno::DQUOT {
                    self.dir.learned.no_unnamed_files.store(true, Ordering::Relaxed);
                }
                Err(errno.into())
            }
        }
    }
}

impl Drop for Stage {
    fn drop(&mut self) {
        if let Some(temporary) = self.temporary.take() {
            // Nobody to tell; a stage that stays is swept by the next run.
            let _ = self.dir.unlink(&temporary);
        }
    }
}

const OPEN_NEW: OFlags = OFlags::RDWR.union(OFlags::CLOEXEC);

/// A file without a name; `None` where the file system has none.
pub(super) fn create_unnamed(dir: &Dir, mode: u32) -> io::Result<Option<File>> {
    if dir.learned.no_unnamed_files.load(Ordering::Relaxed) || !proc_is_mounted() {
        return Ok(None);
    }
    match rustix::fs::openat(dir, c".", OPEN_NEW | OFlags::TMPFILE, mode_bits(mode)) {
        Ok(fd) => Ok(Some(File::from(fd))),
        Err(Errno::OPNOTSUPP | Errno::ISDIR | Errno::INVAL | Errno::NOSYS) => {
            dir.learned.no_unnamed_files.store(true, Ordering::Relaxed);
            Ok(None)
        }
        // Also what some file systems answer that do not know it: the other way gives the true answer.
        Err(Errno::NOENT) => Ok(None),
        Err(errno) => Err(errno.into()),
    }
}

/// A file under a fresh name.
pub(super) fn create_named(dir: &Dir, mode: u32) -> io::Result<(File, Name)> {
    let flags = OPEN_NEW | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW;
    let mode: Mode = mode_bits(mode);
    let mut tries = 0;
    loop {
        let name = stage_name();
        match rustix::fs::openat(dir, name.as_os_str(), flags, mode) {
            Ok(fd) => {
                // Shows sweepers that someone lives who writes it; a file system without locks has no such sign.
                let _unlocked_where_impossible = rustix::fs::flock(&fd, FlockOperation::NonBlockingLockExclusive);
                return Ok((File::from(fd), name));
            }
            Err(Errno::EXIST) if tries < NAMES_TRIED_MAX => tries += 1,
            Err(Errno::INTR) => {}
            Err(errno) => return Err(errno.into()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stage_names_are_told_from_others() {
        let (first, second) = (stage_name(), stage_name());
        assert_ne!(first, second);
        assert!(is_stage_name(first.as_bytes()), "{first:?}");
        assert!(is_stage_name(b".xfer-stage.0123456789abcdef.ffffffffffffffff"));
        for other in [
            &b".xfer-stage."[..],
            b".xfer-stage.0123456789abcdef",
            b".xfer-stage.0123456789abcdef.",
            b".xfer-stage.0123456789abcdef.g",
            b".xfer-stage.0123456789ABCDEF.1",
            b".xfer-stage.0123456789abcde.1",
            b".xfer-stage.0123456789abcdef.10000000000000000",
            b"xfer-stage.0123456789abcdef.1",
            b".xfer-stage.0123456789abcdef.1.bak",
        ] {
            assert!(!is_stage_name(other));
        }
    }

    #[test]
    fn stages_of_directories_are_told_from_those_of_files() {
        let staged = stage_dir_name();
        assert!(is_stage_dir_name(staged.as_bytes()), "{staged:?}");
        assert!(!is_stage_name(staged.as_bytes()));
        assert!(!is_stage_dir_name(stage_name().as_bytes()));
        for other in [
            &b".xfer-stage.0123456789abcdef.dir."[..],
            b".xfer-stage.0123456789abcdef.dir.g",
            b".xfer-stage.0123456789abcdef.dir",
            b".xfer-stage.0123456789abcdef.dir.1.2",
            b".xfer-stage.dir.1",
        ] {
            assert!(!is_stage_dir_name(other));
        }
    }
}
