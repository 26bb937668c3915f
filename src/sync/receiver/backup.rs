//! `-b`: what is replaced or deleted is kept under another name, beside it or in a directory of its own.

use std::io;
use std::sync::{Arc, MutexGuard, PoisonError};

use super::Receiver;
use super::node::Node;
use super::root::open_auxiliary;
use crate::fs::{self, Dir, MetadataChange, Stage, Target};
use crate::model::{Kind, Name, RelPath};

fn with_suffix(name: &Name, suffix: &[u8]) -> io::Result<Name> {
    Name::new(&[name.as_bytes(), suffix].concat()).map_err(|error| io::Error::new(io::ErrorKind::InvalidInput, error))
}

impl Receiver {
    /// Keeps what has `name` in `dir`, which is at `parent`: by another link, so that the name is never gone; a rename or a copy otherwise.
    /// The caller holds what [`Receiver::keeps_backups_beside`] gave until its own name is committed.
    pub(super) fn back_up(
        &self,
        node: &Arc<Node>,
        parent: &RelPath,
        dir: &Arc<Dir>,
        name: &Name,
        kind: Kind,
    ) -> io::Result<()> {
        let Some(backup) = &self.session.options.backup else { return Ok(()) };
        let mut kept = with_suffix(name, &backup.suffix)?;
        while backup.dir.is_none() && !backup.suffix.is_empty() && node.has_committed(&kept) {
            kept = with_suffix(&kept, &backup.suffix)?;
        }
        self.keep_as(parent, dir, name, &kept, kind)
    }

    /// As [`Receiver::back_up`], for something that is deleted after the transfer.
    pub(super) fn back_up_deleted(&self, parent: &RelPath, dir: &Arc<Dir>, name: &Name, kind: Kind) -> io::Result<()> {
        let Some(backup) = &self.session.options.backup else { return Ok(()) };
        self.keep_as(parent, dir, name, &with_suffix(name, &backup.suffix)?, kind)
    }

    /// Where backups lie beside their files, a backup's name may be that of a file of the source, which must not be lost
    /// to it. Held from the backup to the commit, so that commits of one directory see each other's names.
    pub(super) fn keeps_backups_beside<'a>(&self, node: &'a Arc<Node>) -> Option<MutexGuard<'a, ()>> {
        let beside = self.session.options.backup.as_ref().is_some_and(|backup| backup.dir.is_none());
        beside.then(|| node.backing_up.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn keep_as(&self, parent: &RelPath, dir: &Arc<Dir>, name: &Name, kept: &Name, kind: Kind) -> io::Result<()> {
        let Some(backup) = &self.session.options.backup else { return Ok(()) };
        let to_dir = match &backup.dir {
            None => Arc::clone(dir),
            Some(base) => self.backup_directory(base, parent)?,
        };
        if to_dir.hides(kept, kind == Kind::Dir) {
            return Err(fs::hidden());
        }
        match to_dir.unlink(kept) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
        match dir.make_link(name, &to_dir, kept) {
            Ok(()) => return Ok(()),
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            Err(_) => {}
        }
        match dir.rename(name, &to_dir, kept) {
            Ok(()) => Ok(()),
            Err(error) if error.kind() == io::ErrorKind::CrossesDevices => {
                self.copy_away(dir, name, &to_dir, kept, kind)
            }
            Err(error) => Err(error),
        }
    }

    /// The directory below `--backup-dir` that stands for `path`; made with the attributes of its counterpart.
    fn backup_directory(&self, base: &[u8], path: &RelPath) -> io::Result<Arc<Dir>> {
        let mut dir = match open_auxiliary(&self.session.base, &self.root, base) {
            Ok(dir) => dir,
            Err(error) if error.kind() == io::ErrorKind::NotFound => self.make_auxiliary(base)?,
            Err(error) => return Err(error),
        };
        let mut here = RelPath::root();
        let preserve = &self.session.options.preserve;
        for name in path.components() {
            here = here.join(&name);
            if dir.hides(&name, true) {
                return Err(fs::hidden());
            }
            dir = match dir.open_child(&name) {
                Ok(child) => Arc::new(child),
                Err(error) if error.kind() == io::ErrorKind::NotFound => {
                    match dir.make_dir(&name, 0o700) {
                        Ok(()) => {}
                        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
                        Err(error) => return Err(error),
                    }
                    let child = Arc::new(dir.open_child(&name)?);
                    if let Ok(metadata) = self.root.dir.open_beneath(&here).and_then(|dir| dir.metadata()) {
                        let change = MetadataChange {
                            uid: (fs::am_root() && preserve.owner).then_some(metadata.uid),
                            gid: (fs::am_root() && preserve.group).then_some(metadata.gid),
                            // Without root's powers it has to let its owner in.
                            mode: Some(if fs::am_root() { metadata.mode } else { metadata.mode | 0o700 }),
                            ..MetadataChange::default()
                        };
                        // A backup with other owners is still a backup.
                        let _best_effort = fs::apply(Target::Dir(&child), Kind::Dir, &change);
                    }
                    child
                }
                Err(error) => return Err(error),
            };
        }
        Ok(dir)
    }

    /// Makes a directory that the user named, with all that is missing on the way.
    fn make_auxiliary(&self, path: &[u8]) -> io::Result<Arc<Dir>> {
        let trimmed = path.strip_suffix(b"/").unwrap_or(path);
        let (parent, name) = match trimmed.iter().rposition(|&byte| byte == b'/') {
            Some(0) => (&b"/"[..], &trimmed[1..]),
            Some(slash) => (&trimmed[..slash], &trimmed[slash + 1..]),
            None => (&b"."[..], trimmed),
        };
        let parent = match open_auxiliary(&self.session.base, &self.root, parent) {
            Ok(dir) => dir,
            Err(error) if error.kind() == io::ErrorKind::NotFound && parent != b"/" && parent != b"." => {
                self.make_auxiliary(parent)?
            }
            Err(error) => return Err(error),
        };
        let name = Name::new(name).map_err(|error| io::Error::new(io::ErrorKind::InvalidInput, error))?;
        if parent.hides(&name, true) {
            return Err(fs::hidden());
        }
        match parent.make_dir(&name, 0o777) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            Err(error) => return Err(error),
        }
        parent.open_child_following(&name).map(Arc::new)
    }

    /// A backup on another file system.
    fn copy_away(&self, dir: &Arc<Dir>, name: &Name, to_dir: &Arc<Dir>, kept: &Name, kind: Kind) -> io::Result<()> {
        match kind {
            Kind::File => {
                // One look at one inode: the copy must not give the content of one file the mode of another.
                let (source, metadata) = dir.open_file_with_metadata(name)?;
                let stage = Stage::create(to_dir, false, 0o600)?;
                fs::copy_file_data(&source, stage.file(), metadata.size, true, &mut |_| Ok(()))?;
                let change = MetadataChange {
                    uid: fs::am_root().then_some(metadata.uid),
                    gid: fs::am_root().then_some(metadata.gid),
                    mode: Some(metadata.mode),
                    mtime: Some(metadata.mtime),
                    ..MetadataChange::default()
                };
                if let Some((_, error)) = fs::apply(Target::File(stage.file()), kind, &change).into_iter().next() {
                    return Err(error);
                }
                stage.commit(kept)
            }
            Kind::Symlink => to_dir.make_symlink(&dir.read_link(name)?, kept),
            Kind::Dir => Err(io::ErrorKind::IsADirectory.into()),
            _ => {
                let metadata = dir.stat(name)?;
                to_dir.make_node(kept, metadata.kind, metadata.mode, metadata.rdev)
            }
        }
    }
}
