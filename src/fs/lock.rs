//! Locks on destinations: the kernel's own, released with the process, with no file left in the user's tree.

use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixListener, UnixStream};

use super::Dir;
use crate::model::Name;

/// A lock that is held until it is dropped.
#[derive(Debug)]
pub struct DestinationLock {
    _held: Held,
}

#[derive(Debug)]
#[allow(dead_code, reason = "held for its drop")]
enum Held {
    /// `flock` on the directory's description.
    Directory(OwnedFd),
    /// A bound name in the abstract socket space: a file's lock would stay in the tree, or go with its replacement.
    Name(UnixListener),
}

/// Why there is no lock.
#[derive(Debug)]
pub enum LockError {
    /// Someone holds it: the process, where the kernel tells.
    Busy(Option<u32>),
    /// Locks do not work here.
    Io(io::Error),
}

impl Dir {
    /// Locks the directory as a whole, at once or not at all.
    pub fn lock(&self) -> Result<DestinationLock, LockError> {
        match self.try_lock() {
            Ok(true) => {
                let held = rustix::io::fcntl_dupfd_cloexec(self, 0).map_err(|error| LockError::Io(error.into()))?;
                Ok(DestinationLock { _held: Held::Directory(held) })
            }
            Ok(false) => Err(LockError::Busy(self.flock_holder())),
            Err(error) => Err(LockError::Io(error)),
        }
    }

    /// Locks one name in the directory, at once or not at all. Other names, and the whole, are not locked by it.
    pub fn lock_name(&self, name: &Name) -> Result<DestinationLock, LockError> {
        let metadata = self.metadata().map_err(LockError::Io)?;
        let digest = blake3::hash(name.as_bytes());
        let text = format!("xfer-lock-{}:{}-{}-{}", metadata.dev.0, metadata.dev.1, metadata.ino, digest.to_hex());
        let address = SocketAddr::from_abstract_name(text).map_err(LockError::Io)?;
        match UnixListener::bind_addr(&address) {
            Ok(listener) => Ok(DestinationLock { _held: Held::Name(listener) }),
            Err(error) if error.kind() == io::ErrorKind::AddrInUse => {
                let holder = UnixStream::connect_addr(&address)
                    .ok()
                    .and_then(|stream| rustix::net::sockopt::socket_peercred(&stream).ok())
                    .map(|credentials| credentials.pid.as_raw_nonzero().get() as u32);
                Err(LockError::Busy(holder))
            }
            Err(error) => Err(LockError::Io(error)),
        }
    }

    /// Who holds the directory's `flock`, from `/proc/locks`: `N: FLOCK ADVISORY WRITE PID MAJOR:MINOR:INODE 0 EOF`,
    /// device numbers in hexadecimal.
    fn flock_holder(&self) -> Option<u32> {
        let metadata = self.metadata().ok()?;
        let wanted = format!("{:02x}:{:02x}:{}", metadata.dev.0, metadata.dev.1, metadata.ino);
        let locks = std::fs::read_to_string("/proc/locks").ok()?;
        locks.lines().find_map(|line| {
            let fields: Vec<&str> = line.split_whitespace().collect();
            match fields[..] {
                [_, "FLOCK", _, _, pid, inode, ..] if inode == wanted => pid.parse().ok().filter(|&pid| pid > 0),
                _ => None,
            }
        })
    }
}

/// The running kernel's own name, new at every boot; empty where it cannot be told. Remembered, so that a process which
/// will not be able to read it any more can ask before.
pub fn boot_id() -> String {
    static ID: std::sync::OnceLock<String> = std::sync::OnceLock::new();
    let read = || std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default().trim().to_owned();
    ID.get_or_init(read).clone()
}

/// What a process was started as, for messages; empty where it cannot be told.
pub fn process_command(pid: u32) -> Vec<u8> {
    let mut command = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    while command.last() == Some(&0) {
        command.pop();
    }
    command.iter_mut().filter(|byte| **byte == 0).for_each(|byte| *byte = b' ');
    command.truncate(512);
    command
}

impl DestinationLock {
    /// Number of the descriptor that holds the lock.
    pub fn raw_fd(&self) -> i32 {
        match &self._held {
            Held::Directory(fd) => fd.as_raw_fd(),
            Held::Name(listener) => listener.as_raw_fd(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_lock_is_refused_and_names_the_holder() {
        let temp = tempfile::tempdir().unwrap();
        let first = Dir::open(temp.path()).unwrap();
        let second = Dir::open(temp.path()).unwrap();
        let held = first.lock().unwrap();
        match second.lock() {
            Err(LockError::Busy(holder)) => assert!(holder.is_none() || holder == Some(std::process::id())),
            other => panic!("{other:?}"),
        }
        drop((held, first));
        second.lock().unwrap();
    }

    #[test]
    fn names_are_locked_one_by_one() {
        let temp = tempfile::tempdir().unwrap();
        let dir = Dir::open(temp.path()).unwrap();
        let (a, b) = (Name::new(b"a").unwrap(), Name::new(b"b").unwrap());
        let held = dir.lock_name(&a).unwrap();
        assert!(matches!(dir.lock_name(&a), Err(LockError::Busy(Some(pid))) if pid == std::process::id()));
        dir.lock_name(&b).unwrap();
        drop(held);
        dir.lock_name(&a).unwrap();
        assert!(dir.list().unwrap().is_empty());
    }
}
