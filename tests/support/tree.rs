//! Seeded random trees of every kind of inode with every kind of metadata, and random edits of them.

use std::ffi::OsString;
use std::fs;
use std::io::{Seek, SeekFrom, Write};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::{MetadataExt, lchown, symlink};
use std::path::{Path, PathBuf};

use rustix::fs::FileType;

use super::disk::{chmod, mknod, set_mtime, set_xattr, there, walk};
use super::is_root;
use super::rng::Rng;

/// How much a tree holds.
#[derive(Debug, Clone, Copy)]
pub struct Size {
    /// Entries at most.
    pub entries: usize,
    /// Bytes of a file at most (now and then).
    pub file_bytes_max: usize,
    /// Names that look exactly like xfer's own stages.
    pub stage_names: bool,
    /// Cases in which rsync itself goes wrong: access control lists whose group entry equals the mask (it drops that
    /// entry's permissions), and block and character devices of equal numbers (it takes one for the other).
    pub beyond_rsync: bool,
}

impl Size {
    /// A few entries, small files.
    pub const TINY: Size = Size { entries: 12, file_bytes_max: 20_000, stage_names: true, beyond_rsync: true };
    /// Some dozens of entries, a file beyond one segment now and then.
    pub const SMALL: Size = Size { entries: 45, file_bytes_max: 700_000, stage_names: true, beyond_rsync: true };
}

/// Names that filters of [`super::options`] speak of, so that they bite.
pub const COMMON_NAMES: &[&str] = &["a", "b", "data", "cache", "x.log", "y.log", "c.tmp", "core", "lib", "note.txt"];

/// Fills `root` (made if need be) with the tree of `seed`.
pub fn random(root: &Path, seed: u64, size: Size) {
    let mut rng = Rng::new(seed);
    fs::create_dir_all(root).unwrap();
    let mut dirs = vec![PathBuf::new()];
    let mut others: Vec<PathBuf> = Vec::new();
    let count = rng.index(size.entries + 1);
    for _ in 0..count {
        add(root, &mut rng, size, &mut dirs, &mut others);
    }
    let mut all = walk(root);
    all.reverse();
    for relative in all {
        decorate(&root.join(relative), &mut rng, size);
    }
    decorate(root, &mut rng, size);
    settle(root, &mut rng);
}

/// Random edits of the tree in `root`: content, metadata, kinds, names, links; some entries go, some come.
pub fn mutate(root: &Path, seed: u64, size: Size) {
    let mut rng = Rng::new(seed ^ 0x6d75_7461_7465);
    let edits = 1 + rng.index(10);
    for _ in 0..edits {
        let all = walk(root);
        if all.is_empty() || rng.chance(25) {
            let mut dirs: Vec<PathBuf> = all.iter().filter(|path| is_dir(&root.join(path))).cloned().collect();
            dirs.push(PathBuf::new());
            let mut others: Vec<PathBuf> = all.iter().filter(|path| !is_dir(&root.join(path))).cloned().collect();
            let before = (dirs.len(), others.len());
            add(root, &mut rng, size, &mut dirs, &mut others);
            for new in dirs[before.0..].iter().chain(&others[before.1..]) {
                decorate(&root.join(new), &mut rng, size);
            }
            continue;
        }
        let relative = rng.pick(&all).clone();
        edit(root, &relative, &mut rng, size);
    }
    settle(root, &mut rng);
}

fn edit(root: &Path, relative: &Path, rng: &mut Rng, size: Size) {
    let path = root.join(relative);
    let metadata = fs::symlink_metadata(&path).unwrap();
    match rng.below(9) {
        0 | 1 => remove(&path),
        2 => {
            let target = path.with_file_name(name(rng, size));
            if !there(&target) {
                fs::rename(&path, target).unwrap();
            }
        }
        3 => {
            // Another kind under the same name.
            remove(&path);
            let mut dirs = vec![];
            let mut others = vec![];
            let kind = rng.below(10);
            make(root, relative, kind, rng, size, &mut dirs, &mut others);
            decorate(&path, rng, size);
        }
        4 => decorate(&path, rng, size),
        5 if !metadata.file_type().is_symlink() => {
            chmod(&path, random_mode(rng, metadata.is_dir()));
            set_random_mtime(&path, rng);
        }
        6 => set_random_mtime(&path, rng),
        _ if metadata.is_file() => {
            if metadata.nlink() > 1 && rng.chance(50) {
                // Breaks the link: a new inode under the old name.
                let content = fs::read(&path).unwrap_or_default();
                fs::remove_file(&path).unwrap();
                fs::write(&path, content).unwrap();
                decorate(&path, rng, size);
            }
            change_content(&path, rng, size);
        }
        _ if metadata.file_type().is_symlink() => {
            remove(&path);
            symlink(path_of(target(rng)), &path).unwrap();
            set_random_mtime(&path, rng);
        }
        _ => decorate(&path, rng, size),
    }
}

fn change_content(path: &Path, rng: &mut Rng, size: Size) {
    let file_mode = super::disk::mode(path);
    let mut content = fs::read(path).unwrap_or_default();
    match rng.below(4) {
        0 => content.truncate(rng.index(content.len() + 1)),
        1 => content.extend_from_slice(&random_content(rng, size)),
        2 if !content.is_empty() => {
            let at = rng.index(content.len());
            content[at] ^= 1 + rng.below(255) as u8;
        }
        _ => content = random_content(rng, size),
    }
    fs::write(path, content).unwrap_or_else(|error| panic!("write {path:?}: {error}"));
    if is_root() {
        chmod(path, file_mode);
    }
    set_random_mtime(path, rng);
}

fn remove(path: &Path) {
    if is_dir(path) {
        fs::remove_dir_all(path).unwrap();
    } else {
        fs::remove_file(path).unwrap();
    }
}

fn is_dir(path: &Path) -> bool {
    fs::symlink_metadata(path).is_ok_and(|metadata| metadata.is_dir())
}

fn add(root: &Path, rng: &mut Rng, size: Size, dirs: &mut Vec<PathBuf>, others: &mut Vec<PathBuf>) {
    let parent = rng.pick(dirs).clone();
    let relative = parent.join(name(rng, size));
    if there(root.join(&relative)) || relative.components().count() > 6 {
        return;
    }
    let kind = rng.below(14);
    make(root, &relative, kind, rng, size, dirs, others);
}

/// Makes one entry: 0 to 2 a directory, 3 a symbolic link, 4 special, 5 device, 6 hard link, else a file.
fn make(
    root: &Path,
    relative: &Path,
    kind: u64,
    rng: &mut Rng,
    size: Size,
    dirs: &mut Vec<PathBuf>,
    others: &mut Vec<PathBuf>,
) {
    let path = root.join(relative);
    match kind {
        0..=2 => {
            fs::create_dir(&path).unwrap_or_else(|error| panic!("mkdir {path:?}: {error}"));
            dirs.push(relative.to_path_buf());
            return;
        }
        3 => symlink(path_of(target(rng)), &path).unwrap(),
        4 => {
            let kind = if rng.chance(50) { FileType::Fifo } else { FileType::Socket };
            mknod(&path, kind, 0o600, 0, 0);
        }
        5 if is_root() => {
            let kind = if rng.chance(50) { FileType::CharacterDevice } else { FileType::BlockDevice };
            let (major, minor) = *rng.pick(&[(1, 3), (7, 200), (259, 70_000), (4094, 1_048_575), (0, 1)]);
            let major = if kind == FileType::BlockDevice && !size.beyond_rsync { major + 1 } else { major };
            // Character device 0:0 is overlayfs' whiteout; 0:1 is nothing.
            mknod(&path, kind, 0o600, major, minor);
        }
        6 if !others.is_empty() => {
            let old = root.join(rng.pick(others));
            if fs::hard_link(&old, &path).is_err() {
                return;
            }
        }
        _ => write_file(&path, rng, size),
    }
    others.push(relative.to_path_buf());
}

fn write_file(path: &Path, rng: &mut Rng, size: Size) {
    if rng.chance(15) {
        // Sparse: data between holes, a hole at the end.
        let mut file = fs::File::create_new(path).unwrap();
        let mut offset = rng.below(3) * 65_536;
        for _ in 0..rng.below(4) {
            file.seek(SeekFrom::Start(offset)).unwrap();
            file.write_all(&rng.clone().bytes(5000)).unwrap();
            offset += 5000 + rng.below(4) * 50_000;
        }
        file.set_len(offset + rng.below(2) * 100_000).unwrap();
        return;
    }
    fs::write(path, random_content(rng, size)).unwrap_or_else(|error| panic!("write {path:?}: {error}"));
}

fn random_content(rng: &mut Rng, size: Size) -> Vec<u8> {
    let length = match rng.below(10) {
        0 => 0,
        1..=6 => rng.index(3000),
        7 | 8 => rng.index(size.file_bytes_max.min(40_000)),
        // Around a segment and beyond, where lengths are cut.
        _ => match rng.below(4) {
            0 => size.file_bytes_max.min(524_288),
            1 => size.file_bytes_max.min(524_289),
            _ => rng.index(size.file_bytes_max),
        },
    };
    if rng.chance(30) {
        let line = format!("line {} of a text that compresses\n", rng.below(1000));
        return line.bytes().cycle().take(length).collect();
    }
    let mut content = rng.bytes(length);
    if length > 20_000 && rng.chance(30) {
        content[4096..16_384].fill(0);
    }
    content
}

/// A name of any bytes.
fn name(rng: &mut Rng, size: Size) -> OsString {
    let bytes: Vec<u8> = match rng.below(12) {
        0..=4 => rng.pick(COMMON_NAMES).as_bytes().to_vec(),
        5 => format!("file {}", rng.below(50)).into_bytes(),
        6 => {
            let odd: [&[u8]; 16] = [
                b"-rf",
                b"--delete",
                b"*",
                b"[a]",
                b"a b",
                b"q'uo\"te",
                b"new\nline",
                b"\xff\xfe",
                b"\\",
                b"~",
                b"$HOME",
                b"...",
                b" ",
                b"caf\xc3\xa9",
                b"#x~",
                b"a:b",
            ];
            rng.pick(&odd).to_vec()
        }
        7 => vec![b'l'; 255],
        8 if size.stage_names => match rng.below(3) {
            0 => b".xfer-stage.0123456789abcdef.1f".to_vec(),
            1 => b".xfer-stage.note".to_vec(),
            _ => b".xfer-partial".to_vec(),
        },
        _ => {
            let length = 1 + rng.index(20);
            rng.bytes(length).into_iter().map(|byte| if byte == 0 || byte == b'/' { b'_' } else { byte }).collect()
        }
    };
    if bytes == b"." || bytes == b".." { OsString::from("dots") } else { OsString::from_vec(bytes) }
}

fn target(rng: &mut Rng) -> Vec<u8> {
    match rng.below(6) {
        0 => b"nowhere".to_vec(),
        1 => b"/etc/hostname".to_vec(),
        2 => format!("../{}", rng.pick(COMMON_NAMES)).into_bytes(),
        3 => b"a/../../../b".to_vec(),
        4 => vec![b't'; 1 + rng.index(1000)],
        _ => rng.pick(COMMON_NAMES).as_bytes().to_vec(),
    }
}

fn path_of(bytes: Vec<u8>) -> PathBuf {
    PathBuf::from(OsString::from_vec(bytes))
}

fn random_mode(rng: &mut Rng, is_dir: bool) -> u32 {
    let mode = match rng.below(6) {
        0 => 0,
        1 => rng.below(0o10000) as u32,
        2 => 0o4755,
        3 => 0o600,
        _ => 0o644 + if is_dir { 0o111 } else { 0 },
    };
    match (is_root(), is_dir) {
        (true, _) => mode,
        (false, true) => mode | 0o700,
        (false, false) => mode | 0o600,
    }
}

/// Owner, mode, extended attributes, ACLs and times of one entry.
fn decorate(path: &Path, rng: &mut Rng, size: Size) {
    let metadata = fs::symlink_metadata(path).unwrap();
    let is_link = metadata.file_type().is_symlink();
    if is_root() && rng.chance(30) {
        let ids = [0, 1, 1000, 65_534, 99_999];
        lchown(path, Some(*rng.pick(&ids)), Some(*rng.pick(&ids))).unwrap();
    }
    if !is_link {
        chmod(path, random_mode(rng, metadata.is_dir()));
    }
    let plain = metadata.is_file() || metadata.is_dir();
    if rng.chance(20) {
        for _ in 0..1 + rng.below(3) {
            let number = rng.below(4);
            let length = rng.index(200);
            let value = rng.bytes(length);
            if plain {
                set_xattr(path, &format!("user.test{number}"), &value);
            }
            if is_root() && rng.chance(30) {
                set_xattr(path, "trusted.test", &value);
            }
        }
    }
    if is_root() && metadata.is_file() && rng.chance(4) {
        // Version 2 file capabilities with cap_net_bind_service permitted and effective.
        let mut value = vec![1, 0, 0, 2, 0, 4, 0, 0];
        value.resize(20, 0);
        set_xattr(path, "security.capability", &value);
    }
    if plain && rng.chance(15) {
        set_xattr(path, "system.posix_acl_access", &random_acl(rng, size));
    }
    if metadata.is_dir() && rng.chance(8) {
        set_xattr(path, "system.posix_acl_default", &random_acl(rng, size));
    }
    set_random_mtime(path, rng);
}

/// An ACL as the kernel's attribute holds it: version 2, then tag, permissions and id of each entry.
fn random_acl(rng: &mut Rng, size: Size) -> Vec<u8> {
    let mut value = 2u32.to_le_bytes().to_vec();
    let mut entry = |tag: u16, permissions: u64, id: u32| {
        value.extend_from_slice(&tag.to_le_bytes());
        value.extend_from_slice(&(permissions as u16).to_le_bytes());
        value.extend_from_slice(&id.to_le_bytes());
    };
    let none = u32::MAX;
    entry(1, 6 + rng.below(2), none);
    entry(2, rng.below(8), 1000 + rng.below(3) as u32);
    let group = rng.below(8);
    entry(4, group, none);
    if rng.chance(50) {
        entry(8, rng.below(8), 1000 + rng.below(3) as u32);
    }
    let mask = rng.below(8);
    entry(0x10, if mask == group && !size.beyond_rsync { mask ^ 1 } else { mask }, none);
    entry(0x20, rng.below(8), none);
    value
}

fn set_random_mtime(path: &Path, rng: &mut Rng) {
    let seconds = match rng.below(8) {
        0 => -1 - rng.below(2_000_000_000) as i64,
        1 => 4_000_000_000 + rng.below(5_000_000_000) as i64,
        2 => 0,
        _ => 1_500_000_000 + rng.below(200_000_000) as i64,
    };
    // Never twice the same time for different content: no quick check could tell them apart.
    let nanoseconds = if seconds != 0 && rng.chance(20) { 0 } else { rng.below(1_000_000_000) as i64 };
    set_mtime(path, seconds, nanoseconds);
}

/// Gives every directory whose time became "now" a time of the seed, so that a seed says everything.
fn settle(root: &Path, rng: &mut Rng) {
    let mut all = walk(root);
    all.push(PathBuf::new());
    all.sort_by(|a, b| b.as_os_str().as_bytes().cmp(a.as_os_str().as_bytes()));
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs() as i64;
    for relative in all {
        let path = root.join(relative);
        let (seconds, _) = super::disk::mtime(&path);
        if is_dir(&path) && (now - 3600..now + 3600).contains(&seconds) {
            set_random_mtime(&path, rng);
        }
    }
}
