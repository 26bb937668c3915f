//! Names of one inode, over the whole transfer: the first that is dealt with leads, the others are linked to it.

use std::collections::HashMap;
use std::io;
use std::sync::{Arc, Mutex, PoisonError};

use super::node::{Node, PieceWork};
use super::{Account, Charge, Found, Receiver};
use crate::fs::stage_name;
use crate::model::{Kind, Name, Operation, PieceId, RelPath};
use crate::monitor::{Action, Changes};
use crate::plan::compare::{Action as CompareAction, SkipReason};

/// A name that waits for its group's leader.
#[derive(Debug)]
struct Waiting {
    work: Arc<PieceWork>,
    index: u16,
    found: Option<Found>,
}

#[derive(Debug)]
enum Group {
    /// The leader's content is on its way.
    Pending(Vec<Waiting>),
    /// The leader is there.
    There(Leader),
}

/// A name that others are linked to. By its directory, not by a path: that may still have a stage's name on the way.
#[derive(Debug, Clone)]
pub(super) struct Leader {
    node: Arc<Node>,
    name: Name,
}

impl Leader {
    fn path(&self) -> RelPath {
        self.node.path.join(&self.name)
    }
}

/// What an inode at the destination stands for: a group of the source, or a single entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Claim {
    Group(u64),
    Entry(PieceId, u16),
}

/// File system and inode number.
type Inode = ((u32, u32), u64);

/// All groups of the session that were met.
#[derive(Debug)]
pub(super) struct HardLinks {
    groups: Mutex<HashMap<u64, (Group, Charge)>>,
    account: Account,
    /// Inodes of the destination with several names, by whoever met them first.
    claims: Mutex<HashMap<Inode, Claim>>,
}

/// What became of a name that should be linked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Linked {
    /// It is a name of the leader's inode now.
    Made,
    /// It was before.
    Already,
    /// It waits for a directory to give way.
    Waits,
    /// The options leave it out, or a directory has its name.
    LeftOut,
}

/// A name's part in its group.
pub(super) enum Membership {
    /// It leads: it is dealt with like any other entry.
    First,
    /// It waits until the leader is there.
    Waits,
    /// The leader is there.
    Of(Leader),
}

/// What a group takes beside its leader's path.
const GROUP_BYTES: usize = 2 * size_of::<(u64, (Group, Charge))>();

impl HardLinks {
    /// With room for `max_bytes`.
    pub(super) fn within(max_bytes: usize) -> HardLinks {
        HardLinks { groups: Mutex::default(), account: Account::new(max_bytes), claims: Mutex::default() }
    }

    /// Whether there are more than may be.
    fn is_overdrawn(&self) -> bool {
        self.account.is_overdrawn()
    }

    pub(super) fn join(&self, group: u64, work: &Arc<PieceWork>, index: u16, found: Option<&Found>) -> Membership {
        let mut groups = self.groups.lock().unwrap_or_else(PoisonError::into_inner);
        match groups.get_mut(&group) {
            None => {
                groups.insert(group, (Group::Pending(Vec::new()), self.account.charge(GROUP_BYTES)));
                Membership::First
            }
            Some((Group::Pending(waiting), _)) => {
                waiting.push(Waiting { work: Arc::clone(work), index, found: found.cloned() });
                Membership::Waits
            }
            Some((Group::There(leader), _)) => Membership::Of(leader.clone()),
        }
    }

    /// The leader is there: those that waited. It serves all that come later.
    fn lead(&self, group: u64, leader: Leader) -> Vec<Waiting> {
        let mut groups = self.groups.lock().unwrap_or_else(PoisonError::into_inner);
        let charge = self.account.charge(GROUP_BYTES + leader.name.as_bytes().len());
        match groups.insert(group, (Group::There(leader), charge)) {
            Some((Group::Pending(waiting), _)) => waiting,
            _ => Vec::new(),
        }
    }

    /// The leader failed: another name leads, the next that waits or the next that comes.
    fn next_leader(&self, group: u64) -> Option<Waiting> {
        let mut groups = self.groups.lock().unwrap_or_else(PoisonError::into_inner);
        match groups.get_mut(&group) {
            Some((Group::Pending(waiting), _)) if !waiting.is_empty() => Some(waiting.remove(0)),
            _ => {
                groups.remove(&group);
                None
            }
        }
    }
}

impl Receiver {
    /// The leader of a group is done, or has failed.
    pub(super) fn lead(self: &Arc<Receiver>, group: u64, work: &Arc<PieceWork>, index: u16, is_there: bool) {
        if self.hard_links.is_overdrawn() {
            self.session.fail(crate::wire::FlowError::Excess { what: "files with several names" }.into());
        }
        if is_there {
            let leader = Leader { node: Arc::clone(&work.node), name: self.present_name(work, index) };
            for waiting in self.hard_links.lead(group, leader.clone()) {
                self.link_to(&waiting.work, waiting.index, waiting.found.as_ref(), &leader);
                self.settle(&waiting.work);
            }
        } else if let Some(next) = self.hard_links.next_leader(group) {
            self.item_of_its_own(&next.work, next.index, next.found);
            // Its piece may be done with otherwise: no one else would send its want.
            self.supply.flush(self, next.work.piece().id);
        }
    }

    /// Makes an entry another name of `leader`.
    pub(super) fn link_to(
        self: &Arc<Receiver>,
        work: &Arc<PieceWork>,
        index: u16,
        found: Option<&Found>,
        leader: &Leader,
    ) {
        match self.try_link_to(work, index, found, leader) {
            Ok(linked) => {
                let changed = matches!(linked, Linked::Made | Linked::Waits);
                let entry = &work.listed(index).entry;
                let changes = Changes { created: changed && found.is_none(), ..Changes::default() };
                if changed && found.is_none() {
                    self.session.count(|stats| stats.created.add(entry.metadata.kind));
                }
                let action = if changed { Action::HardLinked } else { Action::Unchanged };
                self.tell(work, index, action, changes, 0, changed.then(|| leader.path()).as_ref());
                let is_there = matches!(linked, Linked::Made | Linked::Already);
                if is_there && !self.is_source_itself(work, index, found) {
                    work.mark_safe(index);
                }
            }
            Err((operation, error)) => self.problem(operation, &work.path(index), &error),
        }
        self.count_done(work, index);
    }

    fn try_link_to(
        self: &Arc<Receiver>,
        work: &Arc<PieceWork>,
        index: u16,
        found: Option<&Found>,
        leader: &Leader,
    ) -> Result<Linked, (Operation, io::Error)> {
        let options = &self.session.options;
        if options.dry_run {
            let already = found.is_some_and(|found| self.is_name_of(found, leader));
            return Ok(if already { Linked::Already } else { Linked::Made });
        }
        if (options.existing_only && found.is_none()) || (options.ignore_existing && found.is_some()) {
            return Ok(Linked::LeftOut);
        }
        let link = |error| (Operation::Link, error);
        let leader_name = &leader.name;
        let leader_dir = leader.node.open_briefly().map_err(link)?;
        if let Some(found) = found {
            let led = leader_dir.stat(leader_name).map_err(link)?;
            if (led.dev, led.ino) == (found.metadata.dev, found.metadata.ino) {
                return Ok(Linked::Already);
            }
        }
        let dir = self.ensure(&work.node).map_err(|error| (Operation::Create, error))?;
        if !self.may_replace(work, index, &dir, found) {
            return Ok(Linked::LeftOut);
        }
        let name = work.name(index);
        work.node.touch();
        let Some(found) = found else {
            match leader_dir.make_link(leader_name, &dir, name) {
                Ok(()) => return Ok(Linked::Made),
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
                Err(error) => return Err(link(error)),
            }
            return Err(link(io::ErrorKind::AlreadyExists.into()));
        };
        let beside = self.keeps_backups_beside(&work.node);
        let staged = stage_name();
        leader_dir.make_link(leader_name, &dir, &staged).map_err(link)?;
        if found.metadata.kind == Kind::Dir && !self.makes_way_at_once(&dir, name) {
            self.defer(&work.node, name, dir, Some(staged));
            return Ok(Linked::Waits);
        }
        if options.backup.is_some()
            && found.metadata.kind != Kind::Dir
            && let Err(error) = self.back_up(&work.node, &work.node.path, &dir, name, found.metadata.kind)
        {
            let _leaves_a_stage_for_the_next_run = dir.unlink(&staged);
            return Err((Operation::Backup, error));
        }
        if let Err(error) = dir.rename(&staged, &dir, name) {
            let _leaves_a_stage_for_the_next_run = dir.unlink(&staged);
            return Err((Operation::Rename, error));
        }
        work.node.note_committed(name, beside);
        Ok(Linked::Made)
    }

    /// Whether a file at the destination is the same inode as one that stands for something else in the source. What
    /// is set on it would be set on both, so it gets an inode of its own; without `-H` only where something is set.
    pub(super) fn shares_inode(
        &self,
        work: &Arc<PieceWork>,
        index: u16,
        found: Option<&Found>,
        action: &CompareAction,
    ) -> bool {
        let keeps_inode = match action {
            // An update keeps the inode where the contents turn out to be equal.
            CompareAction::SetMetadata | CompareAction::Update => true,
            CompareAction::Skip(SkipReason::UpToDate) | CompareAction::CheckContent => {
                self.session.options.preserve.hard_links
            }
            _ => false,
        };
        let Some(found) = found.filter(|found| keeps_inode && found.metadata.nlink > 1) else { return false };
        if found.metadata.kind != Kind::File {
            return false;
        }
        let claim = match work.listed(index).entry.hard_link {
            Some(link) => Claim::Group(link.group),
            None => Claim::Entry(work.piece().id, index),
        };
        let inode = (found.metadata.dev, found.metadata.ino);
        let mut claims = self.hard_links.claims.lock().unwrap_or_else(PoisonError::into_inner);
        *claims.entry(inode).or_insert(claim) != claim
    }

    fn is_name_of(&self, found: &Found, leader: &Leader) -> bool {
        let led = leader.node.open_briefly().and_then(|dir| dir.stat(&leader.name));
        led.is_ok_and(|led| (led.dev, led.ino) == (found.metadata.dev, found.metadata.ino))
    }
}
