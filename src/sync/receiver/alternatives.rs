//! `--compare-dest`, `--copy-dest`, `--link-dest`: other trees that may have the file already.

use std::io;
use std::sync::Arc;

use super::node::PieceWork;
use super::root::open_auxiliary;
use super::{FileTask, Found, Receiver};
use crate::fs::{self, Dir};
use crate::model::{Kind, Operation};
use crate::monitor::{Action as ItemAction, Changes};
use crate::plan::compare::Action;
use crate::plan::options::AltDestKind;
use crate::sync::receiver::commit::{Transferred, Written};

/// A file in an alternative tree.
#[derive(Debug)]
pub(super) struct Alternative {
    pub(super) dir: Arc<Dir>,
    found: Found,
    /// Attributes agree too, not only content.
    equal: bool,
    /// Whether the content is equal is still to be found out.
    unchecked: bool,
}

impl Receiver {
    /// Opens the trees once; one that is missing is told.
    pub(super) fn open_alternatives(&self) -> Vec<Arc<Dir>> {
        let Some(alternatives) = &self.session.options.alt_dests else { return Vec::new() };
        let mut dirs = Vec::new();
        for path in &alternatives.dirs {
            match open_auxiliary(&self.session.base, &self.root, path) {
                Ok(dir) => dirs.push(dir),
                Err(error) => {
                    self.session.notice(format!("{} is left out: {error}", crate::model::display_bytes(path)))
                }
            }
        }
        dirs
    }

    /// Serves an entry that the destination lacks from an alternative tree; true when it is settled by that.
    pub(super) fn take_alternative(self: &Arc<Receiver>, work: &Arc<PieceWork>, index: u16, changes: Changes) -> bool {
        if self.session.options.alt_dests.is_none() {
            return false;
        }
        let Some(alternative) = self.find_alternative(work, index) else { return false };
        if alternative.unchecked {
            let mut task = FileTask::new(Arc::clone(work), index, None, changes, true);
            task.alternative = Some(alternative);
            self.supply.fetch(self, task);
            return true;
        }
        self.use_alternative(work, index, &alternative, changes)
    }

    /// A dry run's answer where an alternative tree has the entry; true when it is settled by that.
    pub(super) fn pretend_alternative(self: &Arc<Receiver>, work: &Arc<PieceWork>, index: u16) -> bool {
        let Some(alternatives) = &self.session.options.alt_dests else { return false };
        if alternatives.kind == AltDestKind::Copy {
            return false;
        }
        if self.find_alternative(work, index).is_none_or(|found| !found.equal || found.unchecked) {
            return false;
        }
        let action =
            if alternatives.kind == AltDestKind::Link { ItemAction::HardLinked } else { ItemAction::Unchanged };
        self.tell(work, index, action, Changes::default(), 0, None);
        self.count_done(work, index);
        self.settled_here(work, index, alternatives.kind != AltDestKind::Compare);
        true
    }

    /// The content turned out to be that of the alternative tree's file.
    pub(super) fn checked_alternative(self: &Arc<Receiver>, task: &FileTask, alternative: &Alternative) {
        if self.session.options.dry_run {
            return self.pretend_content(task);
        }
        if !self.use_alternative(&task.work, task.index, alternative, task.changes) {
            let task = FileTask::new(Arc::clone(&task.work), task.index, None, task.changes, false);
            self.supply.fetch(self, task);
        }
    }

    fn use_alternative(
        self: &Arc<Receiver>,
        work: &Arc<PieceWork>,
        index: u16,
        alternative: &Alternative,
        changes: Changes,
    ) -> bool {
        let Some(alternatives) = &self.session.options.alt_dests else { return false };
        let kind = work.listed(index).entry.metadata.kind;
        let done = match alternatives.kind {
            AltDestKind::Compare if alternative.equal => {
                self.tell(work, index, ItemAction::Unchanged, Changes::default(), 0, None);
                Ok(true)
            }
            AltDestKind::Link if alternative.equal => self.link_alternative(work, index, alternative),
            AltDestKind::Copy | AltDestKind::Link if kind == Kind::File => {
                return self.copy_alternative(work, index, alternative, changes);
            }
            _ => return false,
        };
        match done {
            Ok(true) => {
                work.mark_safe(index);
                self.count_done(work, index);
                // With --compare-dest nothing is here that other names could be linked to.
                self.settled_here(work, index, alternatives.kind != AltDestKind::Compare);
                true
            }
            // Another file system, or too many links: it is made like any other.
            Ok(false) | Err(_) => false,
        }
    }

    fn find_alternative(&self, work: &Arc<PieceWork>, index: u16) -> Option<Alternative> {
        let entry = &work.listed(index).entry;
        let mut best: Option<Alternative> = None;
        for root in self.alternatives.get_or_init(|| self.open_alternatives()) {
            let Ok(dir) = root.open_beneath(&work.node.path) else { continue };
            let Ok(metadata) = dir.stat(work.name(index)) else { continue };
            if metadata.kind != entry.metadata.kind || dir.hides(work.name(index), false) || dir.is_hidden() {
                continue;
            }
            let Ok(found) = self.attributes_of(&dir, work.name(index), metadata, entry) else { continue };
            let decision = self.compare(Some(&work.node), entry, Some(&found));
            let (content_equal, equal, unchecked) = match decision.action {
                Action::Skip(_) => (true, true, false),
                Action::SetMetadata => (true, false, false),
                Action::CheckContent => {
                    let changes = decision.changes;
                    (true, Changes { content: false, ..changes } == Changes::default(), true)
                }
                _ => (false, false, false),
            };
            if content_equal && best.as_ref().is_none_or(|best| equal && !best.equal) {
                best = Some(Alternative { dir: Arc::new(dir), found, equal, unchecked });
            }
            if equal {
                break;
            }
        }
        best
    }

    fn link_alternative(
        self: &Arc<Receiver>,
        work: &Arc<PieceWork>,
        index: u16,
        from: &Alternative,
    ) -> io::Result<bool> {
        let dir = self.ensure(&work.node)?;
        let name = work.name(index);
        from.dir.make_link(name, &dir, name)?;
        work.node.touch();
        let (linked, compared) = (dir.stat(name)?, &from.found.metadata);
        if (linked.dev, linked.ino) != (compared.dev, compared.ino) {
            // Something else was put there after it was compared.
            dir.unlink(name)?;
            return Ok(false);
        }
        self.tell(work, index, ItemAction::HardLinked, Changes::default(), 0, None);
        Ok(true)
    }

    /// Copies content from an alternative tree; the commit settles the entry.
    fn copy_alternative(
        self: &Arc<Receiver>,
        work: &Arc<PieceWork>,
        index: u16,
        from: &Alternative,
        changes: Changes,
    ) -> bool {
        let name = work.name(index);
        let size = from.found.metadata.size;
        let task = FileTask::new(Arc::clone(work), index, None, changes, false);
        let copied = from.dir.open_file(name).and_then(|source| {
            let dir = self.ensure(&work.node)?;
            let stage = self.stage_file(&task, &dir)?;
            let copied = fs::copy_file_data(&source, stage.file(), size, self.session.options.sparse, &mut |_| Ok(()))?;
            Ok((stage, copied))
        });
        match copied {
            Ok((stage, copied)) if copied == size => {
                let content = task.listed_content();
                let transferred = Transferred { matched_bytes: size, ..Transferred::default() };
                self.commit(&task, Written::Staged(stage), &content, transferred);
                true
            }
            // It shrank meanwhile: not what it was compared as.
            Ok(_) => false,
            Err(error) if error.kind() == io::ErrorKind::StorageFull => {
                self.fail_file(&task, Operation::Write, &error);
                true
            }
            Err(_) => false,
        }
    }
}
