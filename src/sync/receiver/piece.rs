//! One piece of a listing against what is there: both sorted by name, joined in one pass.

use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::hard_links::Membership;
use super::node::{Node, PieceWork, Place};
use super::{Extra, FileTask, Found, Receiver};
use crate::fs::{self, Dir, NameList, Target};
use crate::model::{Kind, ListedEntry, Name, Operation, display_bytes};
use crate::monitor::{Action as ItemAction, Changes};
use crate::plan::compare::{Action, SkipReason};
use crate::plan::options::ItemReport;
use crate::sync::sender::links::is_unsafe;

/// Whether a directory that has an entry's name may give way; says so where not.
fn node_lets(receiver: &Receiver, work: &Arc<PieceWork>, index: u16, found: Option<&Found>) -> bool {
    work.node.open().is_ok_and(|dir| receiver.may_replace(work, index, &dir, found))
}

impl Receiver {
    /// Works on all entries of a piece. What takes longer (contents) is handed on and settles its entry later.
    pub(super) fn work_on(self: &Arc<Receiver>, work: &Arc<PieceWork>) {
        let node = &work.node;
        let piece = work.piece();
        if piece.entries.iter().any(|listed| listed.entry.metadata.kind != Kind::Dir) {
            self.occupy(node);
        }
        let names = match node.is_skipped() {
            true => Err(None),
            false => node.names().map_err(Some),
        };
        match names {
            Ok(names) => {
                self.join(work, &names);
                self.supply.flush(self, piece.id);
            }
            Err(error) => {
                if let Some(error) = error {
                    self.problem(Operation::List, &node.path, &error);
                }
                self.skip_all(work);
            }
        }
        if work.end() {
            self.release(work);
        }
    }

    /// Settles a whole piece without doing anything; what is below is left out too.
    fn skip_all(self: &Arc<Receiver>, work: &Arc<PieceWork>) {
        for index in 0..work.piece().entries.len() as u16 {
            self.skip_child(work, index);
            self.settle(work);
        }
    }

    fn join(self: &Arc<Receiver>, work: &Arc<PieceWork>, names: &NameList) {
        let piece = work.piece();
        let node = &work.node;
        let has_others = node.is_there() && !node.created.load(Ordering::Relaxed);
        let mut position = match &piece.after {
            Some(after) => names.position_after(after.as_bytes()),
            None => 0,
        };
        for (index, listed) in piece.entries.iter().enumerate() {
            let name = work.name(index as u16).as_bytes();
            while position < names.len() && names.get(position).0 < name {
                if has_others {
                    self.extra(node, names.get(position), piece.whole);
                }
                position += 1;
            }
            let is_there = if self.root.rename.is_some() && node.parent.is_none() {
                names.find(name).is_some()
            } else {
                position < names.len() && names.get(position).0 == name
            };
            if is_there {
                position += 1;
            }
            if self.session.is_ending() {
                // Nothing new is begun; the entry stays unsettled, as the run ends without its conclusion.
                return;
            }
            self.entry(work, index as u16, listed, is_there);
        }
        if piece.last && has_others {
            for rest in position..names.len() {
                self.extra(node, names.get(rest), piece.whole);
            }
        }
    }

    /// A name that the source does not have: a leftover stage goes at once, anything else waits for the gates.
    fn extra(&self, node: &Arc<Node>, (name, kind): (&[u8], Option<Kind>), whole: bool) {
        let Ok(name) = Name::new(name) else { return };
        let options = &self.session.options;
        // A stage whose writer lives is locked by it.
        if fs::is_stage_name(name.as_bytes()) && kind != Some(Kind::Dir) {
            if options.dry_run {
                return;
            }
            // A failure is no one's loss; a directory after all is judged like any other.
            if let Ok(dir) = node.open()
                && let Ok(swept) = dir.sweep_stage(&name)
            {
                if swept {
                    node.touch();
                }
                return;
            }
        }
        if fs::is_stage_dir_name(name.as_bytes()) && kind.is_none_or(|kind| kind == Kind::Dir) {
            if options.dry_run {
                return;
            }
            match node.open().and_then(|dir| self.sweep_staged_directory(&dir, &name)) {
                Ok(true) => return node.touch(),
                Ok(false) => return,
                // A file after all, or someone else's, or it cannot go: judged like any other.
                Err(_) => {}
            }
        }
        if !whole {
            return;
        }
        if !options.deletion.enabled || self.is_partial(&name) {
            return;
        }
        let is_dir = match node.open().and_then(|dir| self.kind_of(&dir, &name, kind)) {
            Ok(kind) => kind == Kind::Dir,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return,
            Err(error) => return self.problem(Operation::Stat, &node.path.join(&name), &error),
        };
        if !self.hides(node, &name, is_dir) && !self.is_protected(node, &name, is_dir) {
            self.extras
                .lock()
                .unwrap_or_else(std::sync::PoisonError::into_inner)
                .push(Extra { node: Arc::clone(node), name });
        }
    }

    fn entry(self: &Arc<Receiver>, work: &Arc<PieceWork>, index: u16, listed: &ListedEntry, is_there: bool) {
        self.session.counters().set_current(work.listed(index).entry.name.as_bytes());
        let kind = listed.entry.metadata.kind;
        if self.hides(&work.node, work.name(index), kind == Kind::Dir) {
            self.problem(Operation::Create, &work.path(index), &fs::hidden());
            self.skip_child(work, index);
            self.settle(work);
            return;
        }
        if kind == Kind::Dir {
            self.directory(work, index, listed, is_there);
            self.settle(work);
            return;
        }
        if !self.is_carried(work, index, listed) {
            self.settle(work);
            return;
        }
        let found = match is_there {
            true => match self.look(work, index) {
                Ok(found) => found,
                Err(error) => {
                    self.problem(Operation::Stat, &work.path(index), &error);
                    self.settle(work);
                    return;
                }
            },
            false => None,
        };
        if let Some(link) = listed.entry.hard_link {
            match self.hard_links.join(link.group, work, index, found.as_ref()) {
                Membership::First => {}
                Membership::Waits => return,
                Membership::Of(leader) => {
                    self.link_to(work, index, found.as_ref(), &leader);
                    self.settle(work);
                    return;
                }
            }
        }
        self.item_of_its_own(work, index, found);
    }

    /// An entry that is not another name of something that is there already.
    pub(super) fn item_of_its_own(self: &Arc<Receiver>, work: &Arc<PieceWork>, index: u16, found: Option<Found>) {
        let listed = work.listed(index);
        let entry = &listed.entry;
        let kind = entry.metadata.kind;
        let mut decision = self.compare(Some(&work.node), entry, found.as_ref());
        let apart = self.shares_inode(work, index, found.as_ref(), &decision.action);
        if apart {
            decision.action = Action::Update;
        }
        let replaces_directory = found.as_ref().is_some_and(|found| found.metadata.kind == Kind::Dir)
            && !matches!(decision.action, Action::Skip(_));
        if replaces_directory && !node_lets(self, work, index, found.as_ref()) {
            self.count_done(work, index);
            self.settled_here(work, index, false);
            return;
        }
        if self.session.options.dry_run {
            let deletion = &self.session.options.deletion;
            if replaces_directory
                && (deletion.enabled || deletion.force)
                && let Ok(dir) = work.node.open()
            {
                // What is in the directory would be deleted with it.
                self.defer(&work.node, work.name(index), dir, None);
            }
            if decision.action == Action::Create && self.pretend_alternative(work, index) {
                return;
            }
            self.pretend(work, index, found.as_ref(), &decision.action, decision.changes);
            return;
        }
        let changes = decision.changes;
        match decision.action {
            Action::Skip(reason) => {
                self.skipped(work, index, &reason);
                self.tell(work, index, ItemAction::Unchanged, Changes::default(), 0, None);
                if reason == SkipReason::UpToDate && !self.is_source_itself(work, index, found.as_ref()) {
                    work.mark_safe(index);
                }
                self.count_done(work, index);
                self.settled_here(work, index, reason == SkipReason::UpToDate);
            }
            Action::SetMetadata => {
                let done = self.set_metadata(work, index, found.as_ref());
                self.tell(work, index, ItemAction::Unchanged, changes, 0, None);
                self.count_done(work, index);
                if done && !self.is_source_itself(work, index, found.as_ref()) {
                    work.mark_safe(index);
                }
                self.settled_here(work, index, done);
            }
            action => {
                if action == Action::Create && self.take_alternative(work, index, changes) {
                    return;
                }
                if kind == Kind::File {
                    let check = action == Action::CheckContent;
                    let mut task = FileTask::new(Arc::clone(work), index, found, changes, check);
                    task.apart = apart;
                    self.supply.fetch(self, task);
                } else {
                    let done = self.make_special(work, index, found.as_ref(), changes);
                    self.settled_here(work, index, done);
                }
            }
        }
    }

    /// `--remove-source-files` with both ends in one place: what is there is the source's own file, or another name of
    /// it, and is not removed.
    pub(super) fn is_source_itself(&self, work: &Arc<PieceWork>, index: u16, found: Option<&Found>) -> bool {
        let source = &work.listed(index).entry.metadata;
        let same = self.session.options.remove_source_files
            && matches!(work.arrived, super::Arrived::Local(_))
            && found.is_some_and(|found| (found.metadata.dev, found.metadata.ino) == (source.dev, source.ino));
        if same {
            self.refuse(Operation::RemoveSource, &work.path(index), "it is the destination's file too");
        }
        same
    }

    /// An entry is done: its group's other names are linked to it, and it is settled.
    pub(super) fn settled_here(self: &Arc<Receiver>, work: &Arc<PieceWork>, index: u16, is_there: bool) {
        if let Some(link) = work.listed(index).entry.hard_link {
            self.lead(link.group, work, index, is_there);
        }
        self.settle(work);
    }

    /// Whether entries of this kind are carried over at all; says so where not.
    fn is_carried(&self, work: &Arc<PieceWork>, index: u16, listed: &ListedEntry) -> bool {
        let options = &self.session.options;
        let entry = &listed.entry;
        let shown = || display_bytes(work.path(index).as_bytes());
        let carried = match entry.metadata.kind {
            Kind::File | Kind::Dir => true,
            Kind::Symlink => match &entry.link_target {
                None => false,
                Some(target) if options.links.skip_unsafe && is_unsafe(target, work.path(index).as_bytes()) => {
                    self.session
                        .detail(|| format!("ignoring unsafe symlink \"{}\" -> \"{}\"", shown(), display_bytes(target)));
                    return false;
                }
                Some(_) => options.links.copy_as_links,
            },
            kind if kind.is_device() => options.preserve.devices && fs::am_root(),
            _ => options.preserve.specials,
        };
        if !carried {
            self.session.detail(|| format!("skipping non-regular file \"{}\"", shown()));
        }
        carried
    }

    fn skipped(&self, work: &Arc<PieceWork>, index: u16, reason: &SkipReason) {
        let text = match reason {
            SkipReason::TooLarge => "is over max-size",
            SkipReason::TooSmall => "is under min-size",
            SkipReason::Newer => "is newer",
            SkipReason::Existing => "exists",
            SkipReason::NotExisting => "does not exist at the destination",
            SkipReason::NotShorter => "is not shorter",
            SkipReason::UpToDate | SkipReason::KindNotCopied => return,
        };
        if self.session.options.item_report == ItemReport::All {
            self.session.detail(|| format!("{} {text}", display_bytes(work.path(index).as_bytes())));
        }
    }

    /// What is there under an entry's name; `None` when it went meanwhile.
    fn look(&self, work: &Arc<PieceWork>, index: u16) -> io::Result<Option<Found>> {
        let dir = work.node.open()?;
        let name = work.name(index);
        let metadata = match dir.stat(name) {
            Ok(metadata) => metadata,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error),
        };
        self.attributes_of(&dir, name, metadata, &work.listed(index).entry).map(Some)
    }

    /// What is there, with the attributes that the options compare.
    pub(super) fn attributes_of(
        &self,
        dir: &Dir,
        name: &Name,
        metadata: crate::model::Metadata,
        entry: &crate::model::Entry,
    ) -> io::Result<Found> {
        let mut found = Found { metadata, link_target: None, acls: None, xattrs: None };
        if metadata.kind == entry.metadata.kind {
            if metadata.kind == Kind::Symlink {
                found.link_target = Some(dir.read_link(name)?);
            }
            if entry.acls.is_some() {
                found.acls = Some(fs::read_acls(Target::At(dir, name), metadata.kind)?);
            }
            if entry.xattrs.is_some() {
                found.xattrs = Some(fs::read_xattrs(Target::At(dir, name), metadata.kind, fs::am_root())?);
            }
        }
        Ok(found)
    }

    /// A dry run says what would be done, and counts it.
    fn pretend(
        self: &Arc<Receiver>,
        work: &Arc<PieceWork>,
        index: u16,
        found: Option<&Found>,
        action: &Action,
        changes: Changes,
    ) {
        let entry = &work.listed(index).entry;
        let kind = entry.metadata.kind;
        match action {
            Action::Skip(reason) => {
                self.skipped(work, index, reason);
                self.tell(work, index, ItemAction::Unchanged, Changes::default(), 0, None);
            }
            Action::SetMetadata => self.tell(work, index, ItemAction::Unchanged, changes, 0, None),
            Action::CheckContent => {
                // Whether it would be transferred, only the contents tell.
                let task = FileTask::new(Arc::clone(work), index, found.cloned(), changes, true);
                self.supply.fetch(self, task);
                return;
            }
            _ => {
                if found.is_none() {
                    self.session.count(|stats| stats.created.add(kind));
                }
                self.pretend_transfer(work, index, changes);
            }
        }
        self.count_done(work, index);
        self.settled_here(work, index, true);
    }

    /// A dry run's line for something that would be transferred or made.
    pub(super) fn pretend_transfer(&self, work: &Arc<PieceWork>, index: u16, changes: Changes) {
        let entry = &work.listed(index).entry;
        let action = match entry.metadata.kind {
            Kind::File => {
                self.session.count(|stats| {
                    stats.transferred_files += 1;
                    stats.transferred_bytes += entry.metadata.size;
                });
                ItemAction::Received
            }
            _ => ItemAction::Changed,
        };
        self.tell(work, index, action, changes, 0, None);
    }

    /// The node of entry `index`, a directory that is descended into, is left out with all that is below.
    pub(super) fn skip_child(&self, work: &Arc<PieceWork>, index: u16) {
        if let Some(child) = work.child(index) {
            self.settle_place(child, Place::Skipped);
        }
    }

    /// Something other than a directory is in `node` (`-m`).
    fn occupy(&self, node: &Arc<Node>) {
        let mut current = Some(node);
        while let Some(node) = current {
            if node.occupied.swap(true, Ordering::Relaxed) {
                return;
            }
            current = node.parent.as_ref();
        }
    }
}
