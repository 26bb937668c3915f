//! Directories: made when their parent's listing is worked on, finished when everything in them is.

use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::node::{Node, PieceWork, Place};
use super::{Extra, Receiver};
use crate::fs::{self, Dir, MetadataChange, Target};
use crate::model::{Kind, ListedEntry, Metadata, Operation, Problem, ProblemKind};
use crate::monitor::Changes;

impl Receiver {
    /// An entry that is a directory in the source.
    pub(super) fn directory(
        self: &Arc<Receiver>,
        work: &Arc<PieceWork>,
        index: u16,
        listed: &ListedEntry,
        is_there: bool,
    ) {
        let child = work.child(index);
        let result = match is_there {
            true => self.directory_over(work, index, listed),
            false if self.session.options.existing_only => Ok(Place::Skipped),
            false => self.new_directory(work, index, listed),
        };
        match result {
            Ok(place) => {
                if let Some(child) = child {
                    self.settle_place(child, place);
                }
            }
            Err((operation, error)) => {
                self.problem(operation, &work.path(index), &error);
                self.skip_child(work, index);
            }
        }
    }

    /// Nothing has the name yet.
    fn new_directory(
        self: &Arc<Receiver>,
        work: &Arc<PieceWork>,
        index: u16,
        listed: &ListedEntry,
    ) -> Result<Place, (Operation, io::Error)> {
        let options = &self.session.options;
        let created = Changes { created: true, ..Changes::default() };
        let child = work.child(index);
        if options.dry_run || options.prune_empty_dirs {
            // With -m it is made when something goes into it; without anything below it never is.
            if options.dry_run && !options.prune_empty_dirs {
                self.session.count(|stats| stats.created.add(Kind::Dir));
                self.tell_new_directory(work, index, created);
            }
            return Ok(Place::Absent);
        }
        let dir = self.ensure(&work.node).map_err(|error| (Operation::Create, error))?;
        let name = work.name(index);
        let staged = match child {
            Some(child) => self.stage_directory(child, &dir, listed).map_err(|error| (Operation::Create, error))?,
            None => false,
        };
        if !staged {
            dir.make_dir(name, 0o700).map_err(|error| (Operation::Create, error))?;
            self.disinherit(&dir, name, listed);
        }
        work.node.touch();
        self.session.count(|stats| stats.created.add(Kind::Dir));
        self.tell_new_directory(work, index, created);
        match child {
            Some(child) => {
                child.created.store(true, Ordering::Relaxed);
                let _set_once = child.changes.set(created);
            }
            None => self.finish_leaf(work, index, listed, None, &dir),
        }
        Ok(Place::There)
    }

    /// A set-group-ID directory hands its bit and its group on. Where the source has no such bit and groups are not
    /// carried over, what is made inside must not get the group by it.
    pub(super) fn disinherit(&self, dir: &Arc<Dir>, name: &crate::model::Name, listed: &ListedEntry) {
        let preserve = &self.session.options.preserve;
        if preserve.group || !preserve.perms || listed.entry.metadata.mode & 0o2000 != 0 {
            return;
        }
        if dir.metadata().is_ok_and(|metadata| metadata.mode & 0o2000 != 0) {
            let change = MetadataChange { mode: Some(0o700), ..MetadataChange::default() };
            // A failure shows again when the final mode is set.
            let _shows_later = fs::apply(Target::At(dir, name), Kind::Dir, &change);
        }
    }

    fn tell_new_directory(&self, work: &Arc<PieceWork>, index: u16, changes: Changes) {
        self.tell(work, index, crate::monitor::Action::Changed, changes, 0, None);
    }

    /// Something has the name.
    fn directory_over(
        self: &Arc<Receiver>,
        work: &Arc<PieceWork>,
        index: u16,
        listed: &ListedEntry,
    ) -> Result<Place, (Operation, io::Error)> {
        let options = &self.session.options;
        let name = work.name(index);
        let dir = work.node.open().map_err(|error| (Operation::Open, error))?;
        let mut metadata = match dir.stat(name) {
            Ok(metadata) => metadata,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return self.new_directory(work, index, listed),
            Err(error) => return Err((Operation::Stat, error)),
        };
        if metadata.kind == Kind::Symlink && options.links.keep_dir_links {
            let child_dir = self.root.dir.open_beneath_following(&work.path(index));
            if let Ok(target) = child_dir.and_then(|dir| dir.metadata()) {
                metadata = target;
            }
        }
        if metadata.kind != Kind::Dir {
            if options.ignore_existing {
                return Ok(Place::Skipped);
            }
            if options.dry_run {
                self.tell_new_directory(work, index, Changes { created: true, ..Changes::default() });
                return Ok(Place::Absent);
            }
            self.make_way(work, index, &dir, &metadata)?;
            return self.new_directory(work, index, listed);
        }
        match work.child(index) {
            Some(child) => {
                self.note_existing_directory(child, listed, metadata);
                if !options.prune_empty_dirs {
                    self.tell_directory(child, child.changes.get().copied().unwrap_or_default());
                }
                self.let_owner_in(child, &dir, name, &metadata);
            }
            None => self.finish_leaf(work, index, listed, Some(metadata), &dir),
        }
        Ok(Place::There)
    }

    /// Remembers what a directory was, and what will be changed.
    pub(super) fn note_existing_directory(&self, node: &Arc<Node>, listed: &ListedEntry, metadata: Metadata) {
        let found = node.dir_attributes(metadata, listed, &self.root.dir);
        let changes = match found {
            Ok(found) => self.compare(node.parent.as_ref(), &listed.entry, Some(&found)).changes,
            Err(_) => self.compare(node.parent.as_ref(), &listed.entry, Some(&super::Found::bare(metadata))).changes,
        };
        let _set_once = node.before_mode.set(metadata.mode);
        let _set_once = node.changes.set(if self.sets_attributes(listed) { changes } else { Changes::default() });
        if node.parent.is_none() {
            self.tell_directory(node, node.changes.get().copied().unwrap_or_default());
        }
    }

    fn sets_attributes(&self, listed: &ListedEntry) -> bool {
        !listed.implied || self.session.options.implied_dirs
    }

    /// Without root's powers a directory must let its owner in while it is worked on; its final mode is set last.
    fn let_owner_in(&self, node: &Arc<Node>, dir: &Arc<Dir>, name: &crate::model::Name, metadata: &Metadata) {
        if fs::am_root() || metadata.mode & 0o700 == 0o700 || self.session.options.dry_run {
            return;
        }
        let change = MetadataChange { mode: Some(metadata.mode | 0o700), ..MetadataChange::default() };
        // A failure shows when something is done inside.
        let _shows_later = fs::apply(Target::At(dir, name), Kind::Dir, &change);
        node.widened.store(true, Ordering::Relaxed);
    }

    /// A directory that is not descended into has its attributes at once.
    fn finish_leaf(
        &self,
        work: &Arc<PieceWork>,
        index: u16,
        listed: &ListedEntry,
        before: Option<Metadata>,
        dir: &Arc<Dir>,
    ) {
        let found = before.map(super::Found::bare);
        let changes = self.compare(Some(&work.node), &listed.entry, found.as_ref()).changes;
        if before.is_some() && (!self.sets_attributes(listed) || !changes.any()) {
            self.tell(work, index, crate::monitor::Action::Unchanged, Changes::default(), 0, None);
            return;
        }
        if before.is_some() {
            self.tell(work, index, crate::monitor::Action::Unchanged, changes, 0, None);
        }
        if self.session.options.dry_run {
            return;
        }
        let mut change = self.change_for(Some(&work.node), &listed.entry, None, before.map(|before| before.mode));
        if let Some(before) = &before {
            change = change.less(before);
        }
        for (operation, error) in fs::apply(Target::At(dir, work.name(index)), Kind::Dir, &change.as_change()) {
            self.problem(operation, &work.path(index), &error);
        }
    }

    /// The directory at the destination, made now if `-m` has put that off.
    pub(super) fn ensure(self: &Arc<Receiver>, node: &Arc<Node>) -> io::Result<Arc<Dir>> {
        let mut place = node.place();
        if matches!(*place, Place::Absent)
            && let (Some(parent), Some(name)) = (&node.parent, node.path.file_name())
        {
            let parent_dir = self.ensure(parent)?;
            match parent_dir.make_dir(&name, 0o700) {
                Ok(()) => {
                    parent.touch();
                    node.created.store(true, Ordering::Relaxed);
                    let created = Changes { created: true, ..Changes::default() };
                    let _set_once = node.changes.set(created);
                    self.session.count(|stats| stats.created.add(Kind::Dir));
                    self.tell_directory(node, created);
                }
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
                Err(error) => return Err(error),
            }
            *place = Place::There;
        }
        drop(place);
        node.open()
    }

    /// Everything in the directory and below is settled: its attributes, last of all.
    pub(super) fn finish_directory(self: &Arc<Receiver>, node: &Arc<Node>) {
        node.forget_names();
        let options = &self.session.options;
        if options.prune_empty_dirs && !node.occupied.load(Ordering::Relaxed) && node.parent.is_some() {
            // An empty directory counts as one that the source does not have.
            if let (Some(parent), Some(name), true) = (&node.parent, node.path.file_name(), node.is_there())
                && options.deletion.enabled
                && !self.is_protected(parent, &name, true)
            {
                let extra = Extra { node: Arc::clone(parent), name };
                self.extras.lock().unwrap_or_else(std::sync::PoisonError::into_inner).push(extra);
            }
            node.dir.close();
            return;
        }
        if let Some(listed) = &node.listed
            && node.is_there()
            && !options.dry_run
        {
            if options.prune_empty_dirs && !node.created.load(Ordering::Relaxed) && node.parent.is_some() {
                self.tell_directory(node, node.changes.get().copied().unwrap_or_default());
            }
            self.finish_attributes(node, listed);
        }
        if options.fsync && !options.dry_run && node.is_there() {
            self.sync_directory(node);
        }
        node.dir.close();
    }

    /// `--fsync`: the names in a directory are as durable as the contents, which were synced before they got them.
    pub(super) fn sync_directory(&self, node: &Arc<Node>) {
        if !node.dirty.load(Ordering::Acquire) && !node.created.load(Ordering::Relaxed) {
            return;
        }
        let synced = node.open().and_then(|dir| {
            dir.sync()?;
            if node.parent.is_none() && self.root.created { dir.open_parent()?.sync() } else { Ok(()) }
        });
        if let Err(error) = synced {
            self.problem(Operation::Sync, &node.path, &error);
        }
    }

    fn finish_attributes(&self, node: &Arc<Node>, listed: &ListedEntry) {
        let created = node.created.load(Ordering::Relaxed);
        let changes = node.changes.get().copied().unwrap_or_default();
        let dirty = node.dirty.load(Ordering::Acquire);
        let widened = node.widened.load(Ordering::Relaxed);
        if !created && !changes.any() && !dirty && !widened {
            return;
        }
        let before_mode = node.before_mode.get().copied().filter(|_| !created);
        let mut change = self.change_for(node.parent.as_ref(), &listed.entry, None, before_mode);
        if !self.sets_attributes(listed) {
            match (created, before_mode) {
                (true, _) => change.only_mode(0o777 & !self.root.umask),
                (false, Some(before_mode)) if widened => change.only_mode(before_mode),
                _ => return,
            }
        } else if !created && !changes.any() {
            // Only the mtime was moved, by what was done inside.
            change.only_times(widened);
        }
        let dir = match node.open() {
            Ok(dir) => dir,
            Err(error) => return self.problem(Operation::Open, &node.path, &error),
        };
        for (operation, error) in fs::apply(Target::Dir(&dir), Kind::Dir, &change.as_change()) {
            self.problem(operation, &node.path, &error);
        }
    }

    /// Something of another kind has a directory's name: it goes, into the backup where one is kept.
    fn make_way(
        self: &Arc<Receiver>,
        work: &Arc<PieceWork>,
        index: u16,
        dir: &Arc<Dir>,
        metadata: &Metadata,
    ) -> Result<(), (Operation, io::Error)> {
        let name = work.name(index);
        debug_assert_ne!(metadata.kind, Kind::Dir);
        if self.session.options.backup.is_some() {
            self.back_up(&work.node, &work.node.path, dir, name, metadata.kind)
                .map_err(|error| (Operation::Backup, error))?;
        }
        work.node.touch();
        match dir.unlink(name) {
            Ok(()) => Ok(()),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            Err(error) => Err((Operation::Delete, error)),
        }
    }

    /// A problem that only words can tell.
    pub(super) fn refuse(&self, operation: Operation, path: &crate::model::RelPath, reason: &str) {
        self.session.problem(Problem::new(ProblemKind::Destination, operation, path.as_bytes(), reason));
    }
}
