//! Small fixed trees for tests that name what they look at.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;

use super::disk::{chmod, put, set_mtime};

/// A time in the past that no test run can produce by itself.
pub const OLD: i64 = 1_500_000_000;

/// `src` with files, directories, a link and a hard link:
/// `a`, `b.log`, `dir/c`, `dir/sub/d`, `empty/`, `link -> a`, `hard` (= `dir/c`).
pub fn source(dir: &Path) {
    let src = dir.join("src");
    put(src.join("a"), "content of a", OLD);
    put(src.join("b.log"), "log", OLD + 1);
    put(src.join("dir/c"), "c".repeat(5000), OLD + 2);
    put(src.join("dir/sub/d"), "d", OLD + 3);
    fs::create_dir(src.join("empty")).unwrap();
    symlink("a", src.join("link")).unwrap();
    fs::hard_link(src.join("dir/c"), src.join("hard")).unwrap();
    chmod(&src.join("a"), 0o640);
    chmod(&src.join("dir/sub"), 0o750);
    set_mtime(&src.join("link"), OLD + 4, 4);
    for (number, name) in ["dir/sub", "dir", "empty", ""].into_iter().enumerate() {
        set_mtime(&src.join(name), OLD + 10 + number as i64, 7);
    }
}

/// [`source`], and a `dst` that has an older `a`, an unknown `extra`, `gone/x`, and a `dir` that is a file.
pub fn both(dir: &Path) {
    source(dir);
    let dst = dir.join("dst");
    put(dst.join("a"), "older", OLD - 100);
    put(dst.join("extra"), "only here", OLD - 100);
    put(dst.join("gone/x"), "x", OLD - 100);
    put(dst.join("dir"), "a file here", OLD - 100);
    for name in ["gone", ""] {
        set_mtime(&dst.join(name), OLD - 50, 0);
    }
}

/// [`source`] and an empty `dst`.
pub fn with_empty_destination(dir: &Path) {
    source(dir);
    fs::create_dir(dir.join("dst")).unwrap();
}

/// `count` small files in directories of 1000.
pub fn many_files(root: &Path, count: usize) {
    for number in 0..count {
        let dir = root.join(format!("d{:05}", number / 1000));
        if number % 1000 == 0 {
            fs::create_dir_all(&dir).unwrap();
        }
        fs::write(dir.join(format!("f{number:07}")), format!("{number}")).unwrap();
    }
}

/// A file of `length` bytes that do not compress.
pub fn big_file(path: &Path, length: usize, seed: u64) {
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, super::rng::Rng::new(seed).bytes(length)).unwrap();
}
