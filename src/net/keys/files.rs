//! The directories of key files, and how those are read and written: never trusted when others could have written
//! them, never seen half written.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::FlockOperation;
use zeroize::Zeroizing;

use super::KeyError;
use crate::limits;

/// Where keys of the whole machine are.
const SYSTEM_DIR: &str = "/etc/xfer";

/// Who may have touched a file before it is used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Secrecy {
    /// Nobody else may read it.
    Private,
    /// Nobody else may write it.
    Public,
}

/// The directories that hold key files: the user's, then the machine's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeyDirs {
    user: Option<PathBuf>,
    system: PathBuf,
}

impl KeyDirs {
    /// `explicit` alone, where it is given; otherwise `$XDG_CONFIG_HOME/xfer` or `~/.config/xfer`, then `/etc/xfer`.
    /// The environment is read here and nowhere else.
    pub fn new(explicit: Option<&Path>) -> KeyDirs {
        if let Some(dir) = explicit {
            return KeyDirs { user: Some(dir.to_owned()), system: dir.to_owned() };
        }
        // Paths that are not absolute are to be ignored (XDG base directory specification).
        let absolute = |name: &str| std::env::var_os(name).map(PathBuf::from).filter(|path| path.is_absolute());
        let home = || {
            let of_account = || nix::unistd::User::from_uid(nix::unistd::geteuid()).ok().flatten().map(|user| user.dir);
            absolute("HOME").or_else(of_account).map(|home| home.join(".config"))
        };
        let user = absolute("XDG_CONFIG_HOME").or_else(home).map(|dir| dir.join("xfer"));
        KeyDirs { user, system: SYSTEM_DIR.into() }
    }

    /// In the order in which they are looked through.
    pub(super) fn in_order(&self) -> Vec<&Path> {
        let mut dirs: Vec<&Path> = self.user.as_deref().into_iter().collect();
        if !dirs.contains(&self.system.as_path()) {
            dirs.push(&self.system);
        }
        dirs
    }

    /// Whether files in `dir` are for all users of the machine.
    pub(super) fn is_shared(&self, dir: &Path) -> bool {
        self.user.as_deref() != Some(dir)
    }

    /// Where new files go: the user's directory, or the machine's.
    pub fn to_write(&self, system: bool) -> Result<&Path, KeyError> {
        if system { Ok(&self.system) } else { self.user.as_deref().ok_or(KeyError::NoHome) }
    }
}

fn failed(operation: &'static str, path: &Path) -> impl FnOnce(io::Error) -> KeyError {
    let path = path.to_owned();
    move |source| KeyError::Io { operation, path, source }
}

/// Reads a file that may be missing. Whether it can be trusted is asked of the open file, not of its name.
pub(super) fn read(path: &Path, secrecy: Secrecy) -> Result<Option<Zeroizing<String>>, KeyError> {
    // A pipe under this name must not make us wait.
    let flags = rustix::fs::OFlags::NONBLOCK.bits() as i32;
    let file = match OpenOptions::new().read(true).custom_flags(flags).open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(failed("open", path)(error)),
    };
    let metadata = file.metadata().map_err(failed("look at", path))?;
    if !metadata.is_file() {
        return Err(failed("read", path)(io::Error::other("not a regular file")));
    }
    check_owner_and_mode(path, &metadata, secrecy)?;
    if let Some(dir) = path.parent() {
        // Whoever can write in the directory can put another file there.
        let metadata = std::fs::metadata(dir).map_err(failed("look at", dir))?;
        check_owner_and_mode(dir, &metadata, Secrecy::Public)?;
    }
    let max = limits::KEY_FILE_BYTES_MAX;
    let too_large = || KeyError::TooLarge { path: path.to_owned() };
    let size = usize::try_from(metadata.len().min(max)).map_err(|_| too_large())?;
    // Allocated once, so that no copy of a secret stays behind where the buffer grew.
    let mut bytes = Zeroizing::new(Vec::with_capacity(size + 1));
    file.take(max + 1).read_to_end(&mut bytes).map_err(failed("read", path))?;
    if bytes.len() as u64 > max {
        return Err(too_large());
    }
    let text = std::str::from_utf8(&bytes).map_err(|_| KeyError::NotText { path: path.to_owned() })?;
    Ok(Some(Zeroizing::new(text.to_owned())))
}

fn check_owner_and_mode(path: &Path, metadata: &std::fs::Metadata, secrecy: Secrecy) -> Result<(), KeyError> {
    let us = rustix::process::geteuid().as_raw();
    if metadata.uid() != us && metadata.uid() != 0 {
        return Err(KeyError::Owner { path: path.to_owned(), uid: metadata.uid() });
    }
    let (forbidden, others, fix) = match secrecy {
        Secrecy::Private => (0o077, "read or write it", "chmod 600"),
        Secrecy::Public => (0o022, "write to it", "chmod go-w"),
    };
    if metadata.mode() & forbidden != 0 {
        return Err(KeyError::Open { path: path.to_owned(), mode: metadata.mode() & 0o7777, others, fix });
    }
    Ok(())
}

/// Holds the lock of a directory; released when dropped, or by the kernel.
#[derive(Debug)]
pub(super) struct DirLock {
    _file: File,
}

/// Makes the directory where it is missing and waits for its lock: whoever changes a file reads, changes and writes
/// it under this lock, so that no line of another process is lost.
pub(super) fn lock(dir: &Path, shared: bool) -> Result<DirLock, KeyError> {
    let mode = if shared { 0o755 } else { 0o700 };
    std::fs::DirBuilder::new().recursive(true).mode(mode).create(dir).map_err(failed("make", dir))?;
    let path = dir.join(".lock");
    let file = OpenOptions::new()
        .create(true)
        .truncate(false)
        .write(true)
        .mode(0o600)
        .open(&path)
        .map_err(failed("open", &path))?;
    loop {
        match rustix::fs::flock(&file, FlockOperation::LockExclusive) {
            Ok(()) => return Ok(DirLock { _file: file }),
            Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(failed("lock", &path)(error.into())),
        }
    }
}

/// Replaces a file in one step, synced: either the old or the new one is there. A link is followed, so that files kept
/// elsewhere stay there. The caller holds the lock.
pub(super) fn replace(path: &Path, bytes: &[u8], mode: u32, _held: &DirLock) -> Result<(), KeyError> {
    let target = match std::fs::canonicalize(path) {
        Ok(target) => target,
        Err(error) if error.kind() == io::ErrorKind::NotFound => path.to_owned(),
        Err(error) => return Err(failed("look at", path)(error)),
    };
    let mut name = target.file_name().unwrap_or_default().to_owned();
    name.push(format!(".{}.new", std::process::id()));
    let new = target.with_file_name(name);
    let written = write_new(&new, bytes, mode).and_then(|()| std::fs::rename(&new, &target));
    if let Err(error) = written {
        let _ = std::fs::remove_file(&new);
        return Err(failed("write", path)(error));
    }
    let dir = target.parent().unwrap_or(Path::new("/"));
    File::open(dir).and_then(|dir| dir.sync_all()).map_err(failed("sync", dir))
}

fn write_new(path: &Path, bytes: &[u8], mode: u32) -> io::Result<()> {
    // What a killed process of the same number left behind.
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let mut file = OpenOptions::new().write(true).create_new(true).mode(mode).open(path)?;
    file.write_all(bytes)?;
    file.sync_all()
}
