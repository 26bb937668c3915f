//! Thin wrappers of system calls that the standard library has not.

use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, CWD, FileType, Mode, Timespec, Timestamps, XattrFlags};

/// Bytes as a path.
pub fn path(bytes: &[u8]) -> &Path {
    Path::new(OsStr::from_bytes(bytes))
}

/// Sets atime and mtime, of a link itself where it is one.
pub fn set_mtime(path: &Path, seconds: i64, nanoseconds: i64) {
    let time = Timespec { tv_sec: seconds, tv_nsec: nanoseconds };
    let times = Timestamps { last_access: time, last_modification: time };
    rustix::fs::utimensat(CWD, path, &times, AtFlags::SYMLINK_NOFOLLOW)
        .unwrap_or_else(|error| panic!("times of {path:?}: {error}"));
}

/// mtime as seconds and nanoseconds, not following.
pub fn mtime(path: &Path) -> (i64, i64) {
    let metadata = fs::symlink_metadata(path).unwrap_or_else(|error| panic!("stat {path:?}: {error}"));
    (metadata.mtime(), metadata.mtime_nsec())
}

/// Sets permission bits.
pub fn chmod(path: &Path, mode: u32) {
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
}

/// Permission bits.
pub fn mode(path: &Path) -> u32 {
    fs::symlink_metadata(path).unwrap().mode() & 0o7777
}

/// Makes a fifo, socket or device.
pub fn mknod(path: &Path, kind: FileType, mode: u32, major: u32, minor: u32) {
    rustix::fs::mknodat(CWD, path, kind, Mode::from_raw_mode(mode), rustix::fs::makedev(major, minor))
        .unwrap_or_else(|error| panic!("mknod {path:?} (devices need CAP_MKNOD): {error}"));
}

/// All extended attributes, ACLs among them, sorted by name; not following.
pub fn xattrs(path: &Path) -> std::io::Result<Vec<(Vec<u8>, Vec<u8>)>> {
    let mut list = vec![0u8; 64 << 10];
    let length = match rustix::fs::llistxattr(path, &mut list[..]) {
        Ok(length) => length,
        Err(rustix::io::Errno::OPNOTSUPP) => 0,
        Err(error) => return Err(error.into()),
    };
    let mut found = Vec::new();
    for name in list[..length].split(|&byte| byte == 0).filter(|name| !name.is_empty()) {
        let mut value = vec![0u8; 64 << 10];
        match rustix::fs::lgetxattr(path, OsStr::from_bytes(name), &mut value[..]) {
            Ok(length) => {
                value.truncate(length);
                found.push((name.to_vec(), value));
            }
            Err(rustix::io::Errno::NODATA) => {}
            Err(error) => return Err(error.into()),
        }
    }
    found.sort();
    Ok(found)
}

/// Sets one extended attribute. False where the file system has no room or the kind cannot hold it.
pub fn set_xattr(path: &Path, name: &str, value: &[u8]) -> bool {
    rustix::fs::lsetxattr(path, name, value, XattrFlags::empty()).is_ok()
}

/// Every path beneath `root` (relative, sorted by bytes), directories before what they hold; links not followed.
pub fn walk(root: &Path) -> Vec<PathBuf> {
    fn go(root: &Path, relative: &Path, all: &mut Vec<PathBuf>) {
        let Ok(entries) = fs::read_dir(root.join(relative)) else { return };
        let mut names: Vec<_> = entries.map(|entry| entry.unwrap().file_name()).collect();
        names.sort_by(|a, b| a.as_bytes().cmp(b.as_bytes()));
        for name in names {
            let child = relative.join(name);
            let is_dir = fs::symlink_metadata(root.join(&child)).is_ok_and(|metadata| metadata.is_dir());
            all.push(child.clone());
            if is_dir {
                go(root, &child, all);
            }
        }
    }
    let mut all = Vec::new();
    go(root, Path::new(""), &mut all);
    all
}

/// Paths beneath `root` that look like something left behind by a run: stages, parts, temporary files.
pub fn leftovers(root: &Path) -> Vec<PathBuf> {
    walk(root)
        .into_iter()
        .filter(|path| {
            let name = path.file_name().unwrap().as_bytes();
            name.windows(5).any(|part| part == b".xfer") || (name.starts_with(b".") && name.contains(&b'~'))
        })
        .collect()
}

/// Writes `content` with a fixed mtime.
pub fn put(path: impl AsRef<Path>, content: impl AsRef<[u8]>, seconds: i64) {
    let path = path.as_ref();
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, content).unwrap_or_else(|error| panic!("write {path:?}: {error}"));
    set_mtime(path, seconds, 123_456_789);
}

/// Reads a whole file.
pub fn get(path: impl AsRef<Path>) -> Vec<u8> {
    let path = path.as_ref();
    fs::read(path).unwrap_or_else(|error| panic!("read {path:?}: {error}"))
}

/// Whether anything, a dangling link included, has this name.
pub fn there(path: impl AsRef<Path>) -> bool {
    fs::symlink_metadata(path).is_ok()
}
