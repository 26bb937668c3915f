//! The judge: whether two trees are the same, by looking at everything. Shares no code with what it judges.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs::{self, File};
use std::io::Read;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use crate::error::{Context, Result};

/// Bytes read at once.
const PIECE_BYTES: usize = 1 << 20;
/// Differences that are told by name.
const TOLD_MAX: usize = 10;

/// How much of a tree a peer promises to keep.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Fidelity {
    /// All that `rsync -a` keeps: names, kinds, bytes, link targets, modes, owners, mtimes in nanoseconds.
    Archive,
    /// Names and bytes of regular files.
    Contents,
}

/// One name beneath the root.
#[derive(Clone, PartialEq, Eq, Debug)]
struct Item {
    /// Type and permission bits.
    mode: u32,
    uid: u32,
    gid: u32,
    /// Seconds and nanoseconds.
    mtime: (i64, i64),
    /// Length of a regular file, device number of a device, else 0.
    size: u64,
    /// Target of a symbolic link.
    target: Option<PathBuf>,
    /// Digest of a regular file's bytes.
    digest: Option<[u8; 32]>,
}

impl Item {
    fn is_file(&self) -> bool {
        self.digest.is_some()
    }
}

/// Everything about a tree; the root itself under the empty path.
#[derive(PartialEq, Eq, Debug)]
pub(crate) struct Manifest {
    items: BTreeMap<PathBuf, Item>,
}

impl Manifest {
    /// Looks at everything beneath `root` and reads all files.
    pub(crate) fn of(root: &Path) -> Result<Manifest> {
        let mut items = BTreeMap::new();
        let mut open = vec![PathBuf::new()];
        items.insert(PathBuf::new(), item(root)?);
        while let Some(dir) = open.pop() {
            let path = root.join(&dir);
            let entries = fs::read_dir(&path).context(|| format!("list {}", path.display()))?;
            for entry in entries {
                let name: OsString = entry.context(|| format!("list {}", path.display()))?.file_name();
                let inner = dir.join(name);
                let found = item(&root.join(&inner))?;
                if found.mode & 0o170_000 == 0o040_000 {
                    open.push(inner.clone());
                }
                items.insert(inner, found);
            }
        }
        digest_files(root, &mut items)?;
        Ok(Manifest { items })
    }

    /// What is wrong with `other`, which should be as this one; empty if nothing is.
    pub(crate) fn differences(&self, other: &Manifest, fidelity: Fidelity) -> Vec<String> {
        let mut told = Vec::new();
        let mut count = 0;
        let mut tell = |path: &Path, what: String| {
            count += 1;
            if told.len() < TOLD_MAX {
                told.push(format!("{path:?}: {what}"));
            }
        };
        for (path, ours) in &self.items {
            if fidelity == Fidelity::Contents && !ours.is_file() {
                continue;
            }
            match other.items.get(path) {
                None => tell(path, "is missing".to_owned()),
                Some(theirs) => {
                    if let Some(what) = difference(ours, theirs, fidelity) {
                        tell(path, what);
                    }
                }
            }
        }
        for (path, theirs) in &other.items {
            if !self.items.contains_key(path) && (fidelity == Fidelity::Archive || theirs.is_file()) {
                tell(path, "should not be there".to_owned());
            }
        }
        if count > told.len() {
            let rest = count - told.len();
            told.push(format!("and {rest} more"));
        }
        told
    }

    /// Number of names, and bytes in regular files.
    pub(crate) fn totals(&self) -> (usize, u64) {
        (self.items.len(), self.items.values().filter(|item| item.is_file()).map(|item| item.size).sum())
    }
}

fn difference(ours: &Item, theirs: &Item, fidelity: Fidelity) -> Option<String> {
    if ours.digest != theirs.digest {
        return Some(format!("bytes differ ({} and {} bytes long)", ours.size, theirs.size));
    }
    if fidelity == Fidelity::Contents {
        return None;
    }
    if ours.mode != theirs.mode {
        return Some(format!("kind or mode {:o}, should be {:o}", theirs.mode, ours.mode));
    }
    if ours.target != theirs.target {
        return Some(format!("leads to {:?}, should lead to {:?}", theirs.target, ours.target));
    }
    if (ours.uid, ours.gid) != (theirs.uid, theirs.gid) {
        return Some(format!("owner {}:{}, should be {}:{}", theirs.uid, theirs.gid, ours.uid, ours.gid));
    }
    if ours.mtime != theirs.mtime {
        return Some(format!("mtime {:?}, should be {:?}", theirs.mtime, ours.mtime));
    }
    (ours.size != theirs.size).then(|| "another device".to_owned())
}

fn item(path: &Path) -> Result<Item> {
    let meta = fs::symlink_metadata(path).context(|| format!("look at {}", path.display()))?;
    let target = if meta.is_symlink() {
        Some(fs::read_link(path).context(|| format!("read the link {}", path.display()))?)
    } else {
        None
    };
    Ok(Item {
        mode: meta.mode(),
        uid: meta.uid(),
        gid: meta.gid(),
        mtime: (meta.mtime(), meta.mtime_nsec()),
        size: if meta.is_file() { meta.len() } else { meta.rdev() },
        target,
        digest: meta.is_file().then_some([0; 32]),
    })
}

/// Fills in the digests, on all cores.
fn digest_files(root: &Path, items: &mut BTreeMap<PathBuf, Item>) -> Result<()> {
    let files: Vec<(&PathBuf, &mut Item)> = items.iter_mut().filter(|(_, item)| item.is_file()).collect();
    let files: Vec<Mutex<(&PathBuf, &mut Item)>> = files.into_iter().map(Mutex::new).collect();
    let next = AtomicUsize::new(0);
    let threads = thread::available_parallelism().map_or(1, usize::from);
    let work = || -> Result<()> {
        let mut piece = vec![0; PIECE_BYTES];
        while let Some(file) = files.get(next.fetch_add(1, Ordering::Relaxed)) {
            // Each is taken by one thread alone, so the lock only proves it to the compiler.
            let mut file = file.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
            let digest = digest(&root.join(file.0), &mut piece)?;
            file.1.digest = Some(digest);
        }
        Ok(())
    };
    thread::scope(|scope| {
        let workers: Vec<_> = (0..threads).map(|_| scope.spawn(work)).collect();
        workers.into_iter().try_for_each(|worker| match worker.join() {
            Ok(result) => result,
            Err(panic) => std::panic::resume_unwind(panic),
        })
    })
}

fn digest(path: &Path, piece: &mut [u8]) -> Result<[u8; 32]> {
    let mut file = File::open(path).context(|| format!("open {}", path.display()))?;
    let mut hasher = blake3::Hasher::new();
    loop {
        let length = file.read(piece).context(|| format!("read {}", path.display()))?;
        if length == 0 {
            return Ok(*hasher.finalize().as_bytes());
        }
        hasher.update(&piece[..length]);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::workload::{Size, Trees, Workload};
    use std::os::unix::fs::{PermissionsExt, symlink};
    use std::process::Command;

    /// Two equal trees of every kind.
    fn twins() -> (tempfile::TempDir, PathBuf, PathBuf) {
        let dir = tempfile::tempdir().unwrap();
        let trees = Trees::beneath(dir.path());
        Workload::named("mixed").unwrap().make(Size::Small, &trees).unwrap();
        let other = dir.path().join("other");
        assert!(Command::new("cp").arg("-aT").args([&trees.source, &other]).status().unwrap().success());
        (dir, trees.source, other)
    }

    fn wrong(one: &Path, other: &Path, fidelity: Fidelity) -> Vec<String> {
        Manifest::of(one).unwrap().differences(&Manifest::of(other).unwrap(), fidelity)
    }

    #[test]
    fn equal_trees_are_equal() {
        let (_dir, one, other) = twins();
        assert_eq!(wrong(&one, &other, Fidelity::Archive), [""; 0]);
        assert!(Manifest::of(&one).unwrap().totals().0 > 10);
    }

    #[test]
    fn every_single_difference_is_found() {
        type Damage = fn(&Path);
        let damages: &[(&str, Damage)] = &[
            ("byte", |root| {
                let path = root.join("program");
                let time = fs::metadata(&path).unwrap().modified().unwrap();
                let mut bytes = fs::read(&path).unwrap();
                bytes[69_999] ^= 1;
                fs::write(&path, bytes).unwrap();
                File::open(&path).unwrap().set_modified(time).unwrap();
            }),
            ("nanosecond", |root| {
                let file = File::open(root.join("program")).unwrap();
                let time = file.metadata().unwrap().modified().unwrap();
                file.set_modified(time + std::time::Duration::from_nanos(1)).unwrap();
            }),
            ("mode", |root| {
                fs::set_permissions(root.join("program"), fs::Permissions::from_mode(0o754)).unwrap();
            }),
            ("missing directory", |root| fs::remove_dir(root.join("empty directory/empty too")).unwrap()),
            ("extra", |root| fs::write(root.join("extra"), "").unwrap()),
            ("target", |root| {
                fs::remove_file(root.join("link")).unwrap();
                symlink("empty", root.join("link")).unwrap();
            }),
        ];
        for (name, damage) in damages {
            let (_dir, one, other) = twins();
            damage(&other);
            assert_ne!(wrong(&one, &other, Fidelity::Archive), [""; 0], "{name}");
        }
    }

    #[test]
    fn contents_alone_ignore_modes_and_links_but_no_byte() {
        let (_dir, one, other) = twins();
        fs::set_permissions(other.join("program"), fs::Permissions::from_mode(0o700)).unwrap();
        fs::remove_file(other.join("link")).unwrap();
        assert_eq!(wrong(&one, &other, Fidelity::Contents), [""; 0]);
        fs::write(other.join("empty"), "x").unwrap();
        assert_eq!(wrong(&one, &other, Fidelity::Contents).len(), 1);
    }
}
