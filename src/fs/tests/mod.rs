//! Tests on real file systems: the temporary directory's (mostly ext4) and `/dev/shm` (tmpfs).
//!
//! Much of this is about what only root may do, so it asks for root. What an ordinary user gets is tested in threads
//! that give up being root.

mod anywhere;
mod copies;
mod costs;
mod directories;
mod fallbacks;
mod metadata;
mod staging;

use std::path::PathBuf;
use std::process::Command;
use std::sync::Arc;

use tempfile::TempDir;

use super::*;
use crate::model::{Kind, Name, RelPath};

/// A directory on some file system, removed at the end.
struct Place {
    temporary: TempDir,
    dir: Arc<Dir>,
}

impl Place {
    fn path(&self, name: &str) -> PathBuf {
        self.temporary.path().join(name)
    }

    fn names(&self) -> Vec<String> {
        let list = self.dir.list().unwrap();
        list.iter().map(|(name, _)| String::from_utf8_lossy(name).into_owned()).collect()
    }
}

fn place_in(parent: impl AsRef<std::path::Path>) -> Place {
    let temporary = tempfile::tempdir_in(parent).unwrap();
    let dir = Arc::new(Dir::open(temporary.path()).unwrap());
    Place { temporary, dir }
}

/// One on disk, one in memory.
fn places() -> [Place; 2] {
    [place_in(std::env::temp_dir()), place_in("/dev/shm")]
}

fn name(text: &str) -> Name {
    Name::new(text.as_bytes()).unwrap()
}

fn rel(text: &str) -> RelPath {
    RelPath::new(text.as_bytes()).unwrap()
}

fn errno(error: &std::io::Error) -> rustix::io::Errno {
    rustix::io::Errno::from_io_error(error).unwrap_or_else(|| panic!("no errno in {error:?}"))
}

fn need_root() {
    assert!(am_root(), "this test sets owners and trusted attributes: run the tests as root");
}

/// What a program prints, for a second opinion.
fn output_of(program: &str, arguments: &[&str]) -> String {
    let output = Command::new(program)
        .args(arguments)
        .output()
        .unwrap_or_else(|error| panic!("{program}: {error}; install it: apt-get install acl attr strace"));
    assert!(output.status.success(), "{program} {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// Runs `act` on a thread that is an ordinary user: the raw calls change the calling thread only.
fn as_ordinary_user<T: Send>(uid: u32, act: impl FnOnce() -> T + Send) -> T {
    need_root();
    let act = || {
        rustix::thread::set_thread_groups(&[]).unwrap();
        let gid = rustix::fs::Gid::from_raw(uid);
        rustix::thread::set_thread_res_gid(gid, gid, gid).unwrap();
        let uid = rustix::fs::Uid::from_raw(uid);
        rustix::thread::set_thread_res_uid(uid, uid, uid).unwrap();
        act()
    };
    std::thread::scope(|scope| match scope.spawn(act).join() {
        Ok(value) => value,
        Err(panic) => std::panic::resume_unwind(panic),
    })
}
