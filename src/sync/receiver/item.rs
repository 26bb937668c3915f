//! What is told of entries, and counted.

use std::sync::Arc;

use super::Receiver;
use super::node::PieceWork;
use crate::model::{Kind, RelPath};
use crate::monitor::{Action, Changes, Counters, Item};
use crate::plan::options::ItemReport;

impl Receiver {
    /// Tells of an entry that was dealt with.
    pub(super) fn tell(
        &self,
        work: &Arc<PieceWork>,
        index: u16,
        action: Action,
        changes: Changes,
        literal_bytes: u64,
        hard_link_to: Option<&RelPath>,
    ) {
        let report = self.session.options.item_report;
        let nothing_changed = !changes.any() && action == Action::Unchanged;
        if report == ItemReport::None || (report == ItemReport::Changed && nothing_changed) {
            return;
        }
        let entry = &work.listed(index).entry;
        // A renamed single file is told under the name that it has in the source, as rsync does.
        let path = work.node.path.join(&entry.name);
        self.session.item(Item {
            path: path.as_bytes().to_vec(),
            kind: entry.metadata.kind,
            action,
            changes,
            link_target: entry.link_target.as_ref().map(|target| target.to_vec()),
            hard_link_to: hard_link_to.map(|path| path.as_bytes().to_vec()),
            size: entry.metadata.size,
            mtime: entry.metadata.mtime,
            mode: entry.metadata.mode,
            uid: entry.metadata.uid,
            gid: entry.metadata.gid,
            literal_bytes,
            dry_run: self.session.options.dry_run,
        });
    }

    /// Tells of a directory that was made or changed.
    pub(super) fn tell_directory(&self, node: &super::node::Node, changes: Changes) {
        let report = self.session.options.item_report;
        if report == ItemReport::None || (report == ItemReport::Changed && !changes.any()) {
            return;
        }
        let Some(listed) = &node.listed else { return };
        let metadata = &listed.entry.metadata;
        self.session.item(Item {
            path: node.path.as_bytes().to_vec(),
            kind: Kind::Dir,
            action: if changes.created { Action::Changed } else { Action::Unchanged },
            changes,
            link_target: None,
            hard_link_to: None,
            size: metadata.size,
            mtime: metadata.mtime,
            mode: metadata.mode,
            uid: metadata.uid,
            gid: metadata.gid,
            literal_bytes: 0,
            dry_run: self.session.options.dry_run,
        });
    }

    /// Tells of something that was deleted.
    pub(super) fn tell_deleted(&self, path: &RelPath, kind: Kind) {
        Counters::add(&self.session.counters().deleted, 1);
        self.session.count(|stats| stats.deleted.add(kind));
        if self.session.options.item_report == ItemReport::None {
            return;
        }
        self.session.item(Item {
            path: path.as_bytes().to_vec(),
            kind,
            action: Action::Deleted,
            changes: Changes::default(),
            link_target: None,
            hard_link_to: None,
            size: 0,
            mtime: Default::default(),
            mode: 0,
            uid: 0,
            gid: 0,
            literal_bytes: 0,
            dry_run: self.session.options.dry_run,
        });
    }

    /// A regular file that needed no transfer.
    pub(super) fn count_done(&self, work: &Arc<PieceWork>, index: u16) {
        let metadata = &work.listed(index).entry.metadata;
        if metadata.kind == Kind::File {
            Counters::add(&self.session.counters().bytes_done, metadata.size);
        }
    }
}
