//! Which attributes an entry gets.

use std::io;
use std::sync::Arc;

use super::node::Node;
use super::{Found, Receiver};
use crate::fs::{self, Dir, MetadataChange, Target};
use crate::model::{AclTag, Acls, Entry, Kind, ListedEntry, Metadata, Timestamp, Xattrs};
use crate::plan::compare::{self, Decision};
use crate::plan::mode::{NewEntryDefaults, destination_mode};
use crate::wire::Content;

/// A change with what it points to.
#[derive(Debug, Default)]
pub(super) struct OwnedChange {
    uid: Option<u32>,
    gid: Option<u32>,
    mode: Option<u32>,
    pub(super) mtime: Option<Timestamp>,
    atime: Option<Timestamp>,
    acls: Option<Acls>,
    xattrs: Option<Xattrs>,
}

impl OwnedChange {
    pub(super) fn as_change(&self) -> MetadataChange<'_> {
        MetadataChange {
            uid: self.uid,
            gid: self.gid,
            mode: self.mode,
            mtime: self.mtime,
            atime: self.atime,
            acls: self.acls.as_ref(),
            xattrs: self.xattrs.as_ref(),
        }
    }

    /// Whether nothing is to be set.
    pub(super) fn is_empty(&self) -> bool {
        let OwnedChange { uid, gid, mode, mtime, atime, acls, xattrs } = self;
        uid.is_none()
            && gid.is_none()
            && mode.is_none()
            && mtime.is_none()
            && atime.is_none()
            && acls.is_none()
            && xattrs.is_none()
    }

    pub(super) fn only_mode(&mut self, mode: u32) {
        *self = OwnedChange { mode: Some(mode), ..OwnedChange::default() };
    }

    pub(super) fn only_times(&mut self, and_mode: bool) {
        let mode = self.mode.filter(|_| and_mode);
        *self = OwnedChange { mode, mtime: self.mtime, atime: self.atime, ..OwnedChange::default() };
    }
}

impl Receiver {
    /// What new entries of a directory get where permissions are not carried over: the umask's, or what the
    /// directory's default access control list says. `None`: the destination itself.
    fn defaults_in(&self, parent: Option<&Arc<Node>>) -> NewEntryDefaults {
        let preserve = &self.session.options.preserve;
        let by_umask = NewEntryDefaults::from_umask(self.root.umask);
        match parent {
            Some(node) if !preserve.perms && !preserve.acls && node.is_there() => {
                *node.new_entry_defaults.get_or_init(|| node.open().map_or(by_umask, |dir| inherited(&dir, by_umask)))
            }
            _ => by_umask,
        }
    }

    /// Compares an entry of `parent` with what is there.
    pub(super) fn compare(&self, parent: Option<&Arc<Node>>, entry: &Entry, found: Option<&Found>) -> Decision {
        let (uid, gid) = self.owners.wanted_for(&entry.metadata);
        let acls = entry.acls.as_ref().map(|acls| self.owners.map_acls(acls));
        let wanted = compare::Wanted { uid, gid, acls: acls.as_ref() };
        let existing = found.map(|found| compare::Existing {
            metadata: &found.metadata,
            link_target: found.link_target.as_deref(),
            acls: found.acls.as_ref(),
            xattrs: found.xattrs.as_deref(),
        });
        let place =
            compare::Place { defaults: self.defaults_in(parent), time_granularity_ns: self.root.granularity_ns };
        compare::compare(entry, &wanted, existing.as_ref(), &place, &self.session.options)
    }

    /// What is to be set on an entry, as the listing or the content says. `before_mode` is that of what has its name now:
    /// where permissions are not carried over, they stay.
    pub(super) fn change_for(
        &self,
        parent: Option<&Arc<Node>>,
        entry: &Entry,
        content: Option<&Content>,
        before_mode: Option<u32>,
    ) -> OwnedChange {
        let options = &self.session.options;
        let preserve = &options.preserve;
        let metadata = &entry.metadata;
        let kind = metadata.kind;
        let (mode, uid, gid, mtime) = match content {
            Some(content) => (content.mode, content.uid, content.gid, content.mtime),
            None => (metadata.mode, metadata.uid, metadata.gid, metadata.mtime),
        };
        let (uid, gid) = self.owners.wanted(uid, gid);
        let mode = destination_mode(mode, kind, before_mode, self.defaults_in(parent), options);
        OwnedChange {
            uid,
            gid,
            mode: Some(mode),
            mtime: compare::keeps_mtime(kind, preserve).then_some(mtime),
            atime: compare::keeps_atime(kind, preserve).then_some(metadata.atime),
            acls: entry.acls.as_ref().map(|acls| self.owners.map_acls(acls)),
            xattrs: entry.xattrs.clone(),
        }
    }

    /// The permissions that an entry gets; see [`Receiver::change_for`].
    pub(super) fn mode_for(&self, parent: Option<&Arc<Node>>, mode: u32, kind: Kind, before: Option<&Metadata>) -> u32 {
        let existing = before.map(|before| before.mode);
        destination_mode(mode, kind, existing, self.defaults_in(parent), &self.session.options)
    }

    /// Leaves out the owner and group that a new file in the directory has anyway.
    pub(super) fn fit_to_stage(&self, change: &mut OwnedChange, node: &Arc<Node>) {
        let process = self.process;
        let group = node.new_files_group.get_or_init(|| {
            // In a set-group-ID directory new files get its group.
            let metadata = node.open().and_then(|dir| dir.metadata());
            metadata.ok().filter(|metadata| metadata.mode & 0o2000 != 0).map_or(process.1, |metadata| metadata.gid)
        });
        change.uid = change.uid.filter(|&uid| uid != process.0);
        change.gid = change.gid.filter(|gid| gid != group);
    }
}

impl OwnedChange {
    /// Leaves out the permissions that a new file was made with. They have no bits that a change of owner clears.
    pub(super) fn less_mode(&mut self, made_with: Option<u32>) {
        self.mode = self.mode.filter(|&mode| made_with != Some(mode));
    }

    /// Leaves out what is right already on `existing`, the very inode that is changed.
    pub(super) fn less(mut self, existing: &Metadata) -> OwnedChange {
        self.uid = self.uid.filter(|&uid| uid != existing.uid);
        self.gid = self.gid.filter(|&gid| gid != existing.gid);
        // A change of owner clears set-id bits: the mode is set again then.
        let owner_changes = self.uid.is_some() || self.gid.is_some();
        self.mode = self.mode.filter(|&mode| owner_changes || self.acls.is_some() || mode != existing.mode);
        self.mtime = self.mtime.filter(|&mtime| mtime != existing.mtime);
        self
    }
}

/// What a directory hands on to new entries.
fn inherited(dir: &Dir, by_umask: NewEntryDefaults) -> NewEntryDefaults {
    let default = fs::read_acls(Target::Dir(dir), Kind::Dir).ok().and_then(|acls| acls.default);
    let permissions = default.map_or(by_umask.permissions, |acl| {
        let of = |tag: AclTag| acl.0.iter().find(|entry| entry.tag == tag).map(|entry| u32::from(entry.permissions));
        let group = of(AclTag::Mask).or(of(AclTag::GroupObject)).unwrap_or(0);
        of(AclTag::UserObject).unwrap_or(0) << 6 | group << 3 | of(AclTag::Other).unwrap_or(0)
    });
    let parent_set_group_id = dir.metadata().is_ok_and(|metadata| metadata.mode & 0o2000 != 0);
    NewEntryDefaults { permissions, parent_set_group_id }
}

impl Node {
    /// What an existing directory has, with the attributes that are compared.
    pub(super) fn dir_attributes(
        &self,
        metadata: Metadata,
        listed: &ListedEntry,
        root: &Arc<Dir>,
    ) -> io::Result<Found> {
        let mut found = Found::bare(metadata);
        if listed.entry.acls.is_none() && listed.entry.xattrs.is_none() {
            return Ok(found);
        }
        let dir = if self.parent.is_none() { Arc::clone(root) } else { self.dir.get()? };
        if listed.entry.acls.is_some() {
            found.acls = Some(fs::read_acls(Target::Dir(&dir), Kind::Dir)?);
        }
        if listed.entry.xattrs.is_some() {
            found.xattrs = Some(fs::read_xattrs(Target::Dir(&dir), Kind::Dir, fs::am_root())?);
        }
        Ok(found)
    }
}
