//! Small file systems of a test's own.

use std::path::{Path, PathBuf};
use std::process::Command;

/// A mounted tmpfs; unmounted at the end.
pub struct Mounted(PathBuf);

impl Mounted {
    /// Mounts a tmpfs with `options` (such as `size=1m`) on `path`, made if need be.
    pub fn tmpfs(path: &Path, options: &str) -> Mounted {
        super::need_root("mounts a tmpfs");
        super::need("mount", "mount");
        std::fs::create_dir_all(path).unwrap();
        let status =
            Command::new("mount").args(["-t", "tmpfs", "-o", options, "xfer-test"]).arg(path).status().unwrap();
        assert!(status.success(), "this test mounts a tmpfs: it needs CAP_SYS_ADMIN");
        Mounted(path.to_path_buf())
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(&self.0).status();
    }
}

impl Mounted {
    /// Makes an ext4 file system with the features of `options` (mke2fs) in an image beside `path`, and mounts it there.
    pub fn ext4(path: &Path, options: &[&str]) -> Mounted {
        super::need_root("mounts a file system");
        super::need("mkfs.ext4", "e2fsprogs");
        std::fs::create_dir_all(path).unwrap();
        let image = path.with_extension("image");
        std::fs::File::create(&image).unwrap().set_len(64 << 20).unwrap();
        let made = Command::new("/sbin/mkfs.ext4").args(["-q", "-F"]).args(options).arg(&image).status().unwrap();
        assert!(made.success(), "mkfs.ext4 failed");
        let status = Command::new("mount").args(["-o", "loop"]).arg(&image).arg(path).status().unwrap();
        assert!(status.success(), "this test mounts an image: it needs CAP_SYS_ADMIN and loop devices");
        Mounted(path.to_path_buf())
    }
}
