//! Deletion: after the transfer, only what the receiver itself found extraneous, only when the gates are open.

use std::io;
use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError};

use super::commit::Deferred;
use super::node::Node;
use super::{Extra, Receiver};
use crate::fs::{self, Dir, MetadataChange, Target};
use crate::limits;
use crate::model::{Kind, Name, Operation, RelPath};
use crate::monitor::Phase;
use crate::plan::filter::{DirFilter, FilterError, MergeDir, Side};
use crate::plan::gate::{ClosedReason, DeleteBudget, Gate, RunFacts, SourceRoot, deletion_gate};
use crate::sync::SyncError;
use crate::sync::filters;
use crate::wire::ListingEnd;

impl Receiver {
    /// Whether the rules keep something from deletion.
    pub(super) fn is_protected(&self, node: &Arc<Node>, name: &Name, is_dir: bool) -> bool {
        match self.filter_of(node) {
            Some(filter) => filter.verdict(&node.path.join(name), is_dir).is_excluded(),
            // Rules that cannot be read protect everything.
            None => true,
        }
    }

    /// The receiver's rules in a directory: the source's merge files as they are after the transfer, and else the
    /// destination's own. `None` where they could not be read.
    fn filter_of(&self, node: &Arc<Node>) -> Option<DirFilter> {
        node.filter
            .get_or_init(|| {
                let mut reader = |dir: MergeDir<'_>, name: &[u8]| self.merge_file(node, dir, name);
                let above = match &node.parent {
                    Some(parent) => Ok(self.filter_of(parent)?),
                    None => {
                        let root = self.root.is_there.then_some(&*self.root.dir);
                        let place = filters::place(Side::Receiver, &self.session, root, self.root_is_above);
                        DirFilter::root(&self.session.options.filters, &place, &mut reader)
                    }
                };
                let stays_above = node.parent.is_none() && self.root_is_above;
                let filter =
                    above.and_then(|above| if stays_above { Ok(above) } else { above.enter(&node.path, &mut reader) });
                filter.map_err(|error| self.refuse(Operation::Filter, &node.path, &error.to_string())).ok()
            })
            .clone()
    }

    fn merge_file(&self, node: &Arc<Node>, dir: MergeDir<'_>, name: &[u8]) -> Result<Option<Vec<u8>>, FilterError> {
        if let MergeDir::Above(path) = dir {
            return filters::read_above(&self.session.base, path, name);
        }
        let sent = node.merge_files.get().into_iter().flatten().find(|(sent, _)| sent == name);
        // With --existing a file that is not here will not be here after the transfer either.
        let stays_away =
            self.session.options.existing_only && node.names().is_ok_and(|names| names.find(name).is_none());
        if stays_away {
            return Ok(None);
        }
        if let Some((_, content)) = sent {
            return Ok(Some(content.clone()));
        }
        match node.open() {
            Ok(dir) if node.is_there() => filters::read_in(&dir, name),
            _ => Ok(None),
        }
    }

    /// Everything that waited for the end of the transfer.
    pub(super) fn delete_extras(self: &Arc<Receiver>, end: &ListingEnd) -> Result<(), SyncError> {
        let options = &self.session.options;
        let mut extras = std::mem::take(&mut *self.extras.lock().unwrap_or_else(PoisonError::into_inner));
        let deferred = std::mem::take(&mut *self.deferred.lock().unwrap_or_else(PoisonError::into_inner));
        if extras.is_empty() && deferred.is_empty() {
            return Ok(());
        }
        self.session.phase(Phase::Deleting);
        let source_root = match end.empty_sources.is_empty() {
            true => SourceRoot::Present,
            false if end.source_missing => SourceRoot::Missing,
            false => SourceRoot::Empty,
        };
        let facts = RunFacts {
            source_problems: u64::from(end.source_problems || !self.session.source_is_whole()),
            source_root,
            listing_complete: true,
            session_broken: self.session.is_ending(),
        };
        let mut budget = DeleteBudget::new(options.deletion.max);
        if let Gate::Closed(reason) = deletion_gate(&facts, options) {
            for waiting in deferred {
                if options.deletion.force {
                    self.commit_deferred(waiting, &mut budget);
                } else {
                    let path = waiting.node.path.join(&waiting.name);
                    self.drop_deferred(&waiting);
                    self.refuse(
                        Operation::Create,
                        &path,
                        "a directory has this name, and nothing is deleted in this run",
                    );
                }
            }
            if extras.is_empty() {
                return Ok(());
            }
            self.session.count(|stats| stats.deletions_withheld += extras.len() as u64);
            if source_root != SourceRoot::Present && reason != ClosedReason::SourceProblems {
                return Err(SyncError::EmptySource {
                    path: end.empty_sources.first().cloned().unwrap_or_default(),
                    extras: extras.len() as u64,
                });
            }
            self.session.notice(format!("nothing was deleted: {reason}"));
            return Ok(());
        }
        for waiting in deferred {
            self.commit_deferred(waiting, &mut budget);
        }
        // Deepest and last first, so that the order is the same in every run.
        extras.sort_by(|a, b| (&b.node.path, &b.name).cmp(&(&a.node.path, &a.name)));
        let mut index = 0;
        while index < extras.len() {
            let node = Arc::clone(&extras[index].node);
            let next = extras[index..].iter().position(|extra| extra.node.path != node.path);
            let run = &extras[index..next.map_or(extras.len(), |offset| index + offset)];
            if self.session.is_ending() {
                break;
            }
            self.delete_in(&node, run, &mut budget);
            index += run.len();
        }
        let withheld = budget.withheld();
        if withheld > 0 {
            self.session.count(|stats| {
                stats.deletions_withheld += withheld;
                stats.max_delete_reached = true;
            });
            self.session.notice(format!("--max-delete stopped the deletion: {withheld} left in place"));
        }
        Ok(())
    }

    /// Deletes some names of one directory, and puts back the mtime that this moves.
    fn delete_in(self: &Arc<Receiver>, node: &Arc<Node>, extras: &[Extra], budget: &mut DeleteBudget) {
        let dir = match node.open() {
            Ok(dir) => dir,
            Err(error) => return self.problem(Operation::Open, &node.path, &error),
        };
        let before = self.keep_times(node, &dir);
        let filter = self.filter_of(node);
        for extra in extras {
            let path = node.path.join(&extra.name);
            match dir.stat(&extra.name) {
                Ok(metadata) => {
                    self.delete(&dir, &extra.name, &path, metadata.kind, filter.as_ref(), budget);
                }
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => self.problem(Operation::Stat, &path, &error),
            }
        }
        self.put_back_times(node, &dir, before);
        if self.session.options.fsync && !self.session.options.dry_run {
            node.touch();
            self.sync_directory(node);
        }
        node.dir.close();
    }

    fn keep_times(&self, node: &Arc<Node>, dir: &Arc<Dir>) -> Option<MetadataChange<'static>> {
        let preserve = &self.session.options.preserve;
        if self.session.options.dry_run {
            return None;
        }
        let metadata = dir.metadata().ok()?;
        let keeps_mtime = node.listed.is_some() && preserve.times && !preserve.omit_dir_times;
        let mut change = MetadataChange { mtime: keeps_mtime.then_some(metadata.mtime), ..MetadataChange::default() };
        if !fs::am_root() && metadata.mode & 0o700 != 0o700 {
            change.mode = Some(metadata.mode);
            self.let_owner_write(dir);
        }
        Some(change)
    }

    fn put_back_times(&self, node: &Arc<Node>, dir: &Arc<Dir>, change: Option<MetadataChange<'static>>) {
        if let Some(change) = change {
            for (operation, error) in fs::apply(Target::Dir(dir), Kind::Dir, &change) {
                self.problem(operation, &node.path, &error);
            }
        }
    }

    /// Deletes one name, and what is below it. False when something stays.
    #[allow(clippy::too_many_arguments, reason = "one name's whole context")]
    fn delete(
        self: &Arc<Receiver>,
        dir: &Arc<Dir>,
        name: &Name,
        path: &RelPath,
        kind: Kind,
        filter: Option<&DirFilter>,
        budget: &mut DeleteBudget,
    ) -> bool {
        let options = &self.session.options;
        if self.session.is_ending() {
            return false;
        }
        if kind == Kind::Dir {
            if options.one_file_system > 0 && self.is_mount_point(dir, name) {
                self.session.detail(|| format!("cannot delete mount point: {path}"));
                return false;
            }
            if !self.delete_below(dir, name, path, filter, budget) {
                return false;
            }
        }
        if !budget.take() {
            return false;
        }
        if options.dry_run {
            self.tell_deleted(path, kind);
            return true;
        }
        if kind != Kind::Dir
            && options.backup.is_some()
            && !self.is_backup(name)
            && let Some((parent, _)) = path.split_last()
            && let Err(error) = self.back_up_deleted(&parent, dir, name, kind)
        {
            self.problem(Operation::Backup, path, &error);
            budget.give_back();
            return false;
        }
        let result = if kind == Kind::Dir { dir.remove_dir(name) } else { dir.unlink(name) };
        match result {
            Ok(()) => {}
            // The backup took the name with it, or someone else was faster.
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            // A backup stays in it, or something came meanwhile.
            Err(error) if error.kind() == io::ErrorKind::DirectoryNotEmpty => {
                self.session.detail(|| format!("cannot delete non-empty directory: {path}"));
                budget.give_back();
                return false;
            }
            Err(error) => {
                self.problem(Operation::Delete, path, &error);
                budget.give_back();
                return false;
            }
        }
        self.tell_deleted(path, kind);
        true
    }

    /// `-x` holds for deletion too: another file system's root stays, with all it holds.
    fn is_mount_point(&self, dir: &Arc<Dir>, name: &Name) -> bool {
        match (dir.metadata(), dir.stat(name)) {
            (Ok(above), Ok(below)) => above.dev != below.dev,
            // What cannot be looked at is not deleted under -x.
            _ => true,
        }
    }

    /// Without root's powers a directory has to let its owner write before something in it can be deleted.
    pub(super) fn let_owner_write(&self, dir: &Dir) {
        if fs::am_root() || self.session.options.dry_run {
            return;
        }
        if let Ok(metadata) = dir.metadata()
            && metadata.mode & 0o700 != 0o700
        {
            let change = MetadataChange { mode: Some(metadata.mode | 0o700), ..MetadataChange::default() };
            // A failure shows when something is deleted.
            let _shows_later = fs::apply(Target::Dir(dir), Kind::Dir, &change);
        }
    }

    /// Deletes what is in an extraneous directory. False when something in it is protected or could not be deleted.
    fn delete_below(
        self: &Arc<Receiver>,
        dir: &Arc<Dir>,
        name: &Name,
        path: &RelPath,
        filter: Option<&DirFilter>,
        budget: &mut DeleteBudget,
    ) -> bool {
        if path.depth() > limits::DIRECTORY_DEPTH_MAX {
            self.refuse(Operation::Delete, path, "the tree is too deep");
            return false;
        }
        let listed = dir.open_child(name).and_then(|child| {
            self.let_owner_write(&child);
            child.list().map(|names| (Arc::new(child), names))
        });
        let (child, names) = match listed {
            Ok(listed) => listed,
            Err(error) => {
                self.problem(Operation::List, path, &error);
                return false;
            }
        };
        let mut reader = |dir: MergeDir<'_>, merge: &[u8]| match dir {
            MergeDir::Inside(_) => filters::read_in(&child, merge),
            MergeDir::Above(path) => filters::read_above(&self.session.base, path, merge),
        };
        // Rules that cannot be read protect everything below.
        let filter = filter.and_then(|filter| filter.enter(path, &mut reader).ok());
        let mut all_gone = true;
        for (name, known) in names.iter().collect::<Vec<_>>().into_iter().rev() {
            let Ok(name) = Name::new(name) else {
                all_gone = false;
                continue;
            };
            let kind = match self.kind_of(&child, &name, known) {
                Ok(kind) => kind,
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                Err(error) => {
                    self.problem(Operation::Stat, &path.join(&name), &error);
                    all_gone = false;
                    continue;
                }
            };
            let below = path.join(&name);
            let protected = child.hides(&name, kind == Kind::Dir)
                || filter
                    .as_ref()
                    .is_none_or(|filter| filter.verdict_in_deleted(&below, kind == Kind::Dir).is_excluded());
            all_gone &= !protected && self.delete(&child, &name, &below, kind, filter.as_ref(), budget);
        }
        if !all_gone && !self.session.is_ending() {
            self.session.detail(|| format!("cannot delete non-empty directory: {path}"));
        }
        all_gone
    }

    /// Whether a name is a backup made beside its file: deleting it would need a backup of the backup.
    fn is_backup(&self, name: &Name) -> bool {
        let backup = self.session.options.backup.as_ref();
        backup.is_some_and(|backup| backup.dir.is_none() && name.as_bytes().ends_with(&backup.suffix))
    }

    /// The directory that has the name of something complete goes, and that takes its place.
    fn commit_deferred(self: &Arc<Receiver>, waiting: Deferred, budget: &mut DeleteBudget) {
        let path = waiting.node.path.join(&waiting.name);
        let dir = match waiting.node.open() {
            Ok(dir) => dir,
            Err(error) => {
                self.drop_deferred(&waiting);
                return self.problem(Operation::Open, &path, &error);
            }
        };
        let before = self.keep_times(&waiting.node, &dir);
        let filter = self.filter_of(&waiting.node);
        let gone = match dir.stat(&waiting.name) {
            Ok(metadata) => self.delete(&dir, &waiting.name, &path, metadata.kind, filter.as_ref(), budget),
            Err(error) => error.kind() == io::ErrorKind::NotFound,
        };
        if !gone {
            self.drop_deferred(&waiting);
            self.refuse(Operation::Create, &path, "the directory that has this name could not be removed");
            return self.put_back_times(&waiting.node, &dir, before);
        }
        if let Some(staged) = &waiting.staged
            && let Err(error) = waiting.dir.rename(staged, &dir, &waiting.name)
        {
            self.problem(Operation::Rename, &path, &error);
        }
        self.put_back_times(&waiting.node, &dir, before);
    }

    /// Drops everything that waited.
    pub(super) fn drop_all_deferred(&self) {
        for waiting in std::mem::take(&mut *self.deferred.lock().unwrap_or_else(PoisonError::into_inner)) {
            self.drop_deferred(&waiting);
        }
    }

    fn drop_deferred(&self, waiting: &Deferred) {
        if let Some(staged) = &waiting.staged {
            // What stays is a stage, which the next run sweeps.
            let _swept_later = waiting.dir.unlink(staged);
        }
        waiting.node.dirty.store(true, Ordering::Release);
    }
}
