//! The verifying receiver: joins the source's listings with what the destination has, and changes nothing.
//!
//! Pieces arrive in any order that has parents before children, and each is joined by one thread. The contents that have
//! to be compared go through the same queue one by one, so that several files are read at once. The first rule of the
//! wire holds here too: whoever takes digests from the link never waits for anything.

use std::collections::HashMap;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Condvar, Mutex, PoisonError};

use crossbeam_channel::{Receiver as Inbox, Sender as Outbox};

use super::contents::{FileCheck, NoDigest, Side, digest_of};
use super::differences::{self, Found};
use super::fold::{LinkGroups, Slot, bare_head, node_digest, record_head, special_content, tree_digest};
use super::links::LinkBook;
use super::node::{Node, PieceWork, Place};
use super::target::Target;
use crate::fs::{self, NameList};
use crate::limits;
use crate::model::{Digest, DirId, Entry, Kind, ListedEntry, Name, Operation, PieceId, Problem, ProblemKind, RelPath};
use crate::monitor::Counters;
use crate::plan::compare;
use crate::plan::mode::{NewEntryDefaults, source_mode};
use crate::plan::options::{QuickCheck, SyncOptions};
use crate::sync::held::{HandleBudget, HeldDir, Reach};
use crate::sync::receiver::{Account, Arrived, IDLE_LOOK, Owners};
use crate::sync::sender::links::is_unsafe;
use crate::sync::session::Session;

/// The side that lists.
pub(in crate::sync) trait SourceSide: Send + Sync {
    /// The digest of a file's source is wanted. May wait while too many are.
    fn want(&self, check: &Arc<FileCheck>);
    /// All digests of a piece were asked for.
    fn flush(&self, piece: PieceId);
    /// The piece is settled.
    fn release(&self, arrived: &Arrived);
}

enum Work {
    Piece(Arc<PieceWork>),
    Check(Arc<FileCheck>),
}

/// The comparison of one session.
pub(in crate::sync) struct Verifier {
    pub(super) session: Arc<Session>,
    /// As `plan::compare` is asked: content is compared here, so length alone decides there.
    options: SyncOptions,
    /// `None`: only the source's digest is wanted.
    pub(super) target: Option<Target>,
    /// What the source's root is, where its contents are named.
    root_entry: Option<Entry>,
    pub(in crate::sync) owners: Owners,
    source: Arc<dyn SourceSide>,
    /// The source names entries of the root, not its contents.
    pub(super) root_is_above: bool,
    /// The source is one item, which is the top of the tree.
    top_is_below: bool,
    links: LinkBook,
    groups: LinkGroups,
    nodes: Mutex<HashMap<DirId, Arc<Node>>>,
    account: Account,
    /// Closed when everything is settled, which ends the workers.
    queue: Mutex<Option<Outbox<Work>>>,
    inbox: Inbox<Work>,
    finished: Mutex<bool>,
    wake: Condvar,
}

impl Verifier {
    pub(in crate::sync) fn new(
        session: Arc<Session>,
        target: Option<Target>,
        root_entry: Option<ListedEntry>,
        source: Arc<dyn SourceSide>,
        owners: Owners,
        budget: &Arc<HandleBudget>,
    ) -> Arc<Verifier> {
        // Unbounded in name only: pieces arrive against credit.
        let (queue, inbox) = crossbeam_channel::unbounded();
        let options = SyncOptions {
            quick_check: QuickCheck::SizeOnly,
            update: false,
            existing_only: false,
            ignore_existing: false,
            append_verify: false,
            ..session.options.clone()
        };
        let account = Account::new(limits::UNFINISHED_COMPARED_BYTES_MAX);
        let root_is_above = root_entry.is_none();
        let head =
            root_entry.as_ref().map_or_else(bare_head, |listed| record_head(&listed.entry, &session.options.preserve));
        let dir = target.as_ref().map(|target| HeldDir::at_root(Arc::clone(&target.dir), Arc::clone(budget)));
        let root = Node::new(RelPath::root(), None, None, dir, head, &account);
        if target.is_some() {
            root.settle_place(Place::There);
        }
        let top_is_below = root_is_above && !session.options.relative && session.options.files_from.is_none();
        Arc::new(Verifier {
            session,
            options,
            target,
            root_entry: root_entry.map(|listed| listed.entry),
            owners,
            source,
            root_is_above,
            top_is_below,
            links: LinkBook::default(),
            groups: LinkGroups::default(),
            nodes: Mutex::new(HashMap::from([(DirId::ROOT, root)])),
            account,
            queue: Mutex::new(Some(queue)),
            inbox,
            finished: Mutex::new(false),
            wake: Condvar::new(),
        })
    }

    /// A piece arrived. Never waits.
    pub(in crate::sync) fn arrive(&self, arrived: Arrived) {
        let piece = arrived.piece();
        let (mut slots, mut children) = (Vec::new(), Vec::new());
        let node = {
            let mut nodes = self.nodes.lock().unwrap_or_else(PoisonError::into_inner);
            let node = if piece.last { nodes.remove(&piece.dir) } else { nodes.get(&piece.dir).cloned() };
            // The session's book has checked the number.
            let Some(node) = node else { return };
            let mut number = piece.first_child.0;
            for listed in &piece.entries {
                let is_dir = listed.entry.metadata.kind == Kind::Dir;
                let counts = is_dir || self.is_carried(&node, listed);
                let slot = if counts { node.fold.push(is_dir) } else { Slot::None };
                slots.push(slot);
                children.push(listed.descend.then(|| {
                    let child = self.child_node(&node, listed, slot);
                    nodes.insert(DirId(number), Arc::clone(&child));
                    number += 1;
                    child
                }));
            }
            node
        };
        let excess = |what| Err(crate::wire::FlowError::Excess { what });
        let within = match self.account.is_overdrawn() {
            true => excess("directories that stay unfinished"),
            false => self.owners.check(),
        };
        if let Err(error) = within {
            self.session.fail(error.into());
        }
        if piece.after.is_none() && !piece.merge_files.is_empty() {
            let _first_piece_only = node.merge_files.set(piece.merge_files.clone());
        }
        node.begin();
        if piece.last {
            // The listing itself has ended; the piece still holds the node.
            node.end();
        }
        let rename = self.target.as_ref().and_then(|target| target.rename.clone()).filter(|_| node.parent.is_none());
        let work = PieceWork::new(arrived, Arc::clone(&node), slots, children, rename);
        let mut place = node.place();
        if let Place::Unknown(parked) = &mut *place {
            parked.push(work);
            return;
        }
        drop(place);
        self.enqueue(Work::Piece(work));
    }

    fn enqueue(&self, work: Work) {
        if let Some(queue) = &*self.queue.lock().unwrap_or_else(PoisonError::into_inner) {
            // Fails only when every worker is gone, which is the end of the run.
            let _run_is_over = queue.send(work);
        }
    }

    fn child_node(&self, parent: &Arc<Node>, listed: &ListedEntry, slot: Slot) -> Arc<Node> {
        parent.begin();
        let name = &listed.entry.name;
        let dir = parent.dir.as_ref().map(|dir| dir.child(name, Reach::Strict));
        let head = record_head(&listed.entry, &self.session.options.preserve);
        Node::new(
            parent.path.join(name),
            Some(Arc::clone(parent)),
            Some((name.clone(), slot)),
            dir,
            head,
            &self.account,
        )
    }

    /// Compares until everything is settled or the run ends.
    pub(in crate::sync) fn work(self: &Arc<Verifier>) {
        loop {
            if self.is_over() {
                return;
            }
            match self.inbox.recv_timeout(IDLE_LOOK) {
                Ok(Work::Piece(work)) => self.join(&work),
                Ok(Work::Check(check)) => self.read(&check),
                Err(error) if error.is_disconnected() => return,
                Err(_) => {}
            }
        }
    }

    fn is_over(&self) -> bool {
        self.session.is_ending()
    }

    /// Joins a piece with the destination's names; what takes longer (contents) is queued.
    fn join(self: &Arc<Verifier>, work: &Arc<PieceWork>) {
        let node = &work.node;
        let piece = work.piece();
        if piece.entries.iter().any(|listed| listed.entry.metadata.kind != Kind::Dir) {
            node.occupy();
        }
        let place = node.place();
        let (is_there, is_alone) = (matches!(*place, Place::There), matches!(*place, Place::Alone));
        drop(place);
        let names = if is_there { self.names(node) } else { None };
        match names {
            Some(names) => self.join_names(work, &names),
            None => {
                for (index, listed) in piece.entries.iter().enumerate() {
                    if is_alone {
                        self.alone(work, index, &listed.entry);
                    } else {
                        self.settle_child(work, index, Place::Absent);
                        self.settle(work, index);
                    }
                }
            }
        }
        self.source.flush(piece.id);
        if work.end() {
            self.release(work);
        }
    }

    /// The destination's names in a directory; `None`, and told, where they cannot be listed.
    fn names(&self, node: &Arc<Node>) -> Option<Arc<NameList>> {
        let list = || match node.dir.as_ref()?.get().and_then(|dir| dir.list()) {
            Ok(names) => Some(Arc::new(names)),
            Err(error) => {
                self.destination_problem(Operation::List, &node.path, &error);
                None
            }
        };
        node.names.get_or_init(list).clone()
    }

    fn join_names(self: &Arc<Verifier>, work: &Arc<PieceWork>, names: &NameList) {
        let piece = work.piece();
        let node = &work.node;
        let is_renamed = work.rename.is_some();
        let mut position = match &piece.after {
            Some(after) => names.position_after(after.as_bytes()),
            None => 0,
        };
        for index in 0..piece.entries.len() {
            let name = work.name(index).as_bytes();
            while !is_renamed && position < names.len() && names.get(position).0 < name {
                if piece.whole {
                    self.extra(node, names.get(position));
                }
                position += 1;
            }
            let is_there = match is_renamed {
                true => names.find(name).is_some(),
                false => position < names.len() && names.get(position).0 == name,
            };
            position += usize::from(is_there);
            if self.is_over() {
                // The entry stays unsettled, as the run ends without a verdict.
                return;
            }
            self.entry(work, index, is_there);
        }
        if piece.last && piece.whole {
            for rest in position..names.len() {
                self.extra(node, names.get(rest));
            }
        }
    }

    /// A name that the source does not have.
    fn extra(&self, node: &Arc<Node>, (bytes, kind): (&[u8], Option<Kind>)) {
        let differs = |reason: &str| {
            let mut path = node.path.as_bytes().to_vec();
            if !path.is_empty() {
                path.push(b'/');
            }
            path.extend_from_slice(bytes);
            self.session.problem(Problem::new(ProblemKind::Differs, Operation::Digest, path, reason));
        };
        let Ok(name) = Name::new(bytes) else { return differs("only in the destination") };
        let kind = match (kind, &node.dir) {
            (Some(kind), _) => kind,
            (None, Some(dir)) => match dir.get().and_then(|dir| dir.stat(&name)) {
                Ok(metadata) => metadata.kind,
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => return,
                Err(error) => return self.destination_problem(Operation::Stat, &node.path.join(&name), &error),
            },
            (None, None) => return,
        };
        let is_dir = kind == Kind::Dir;
        if self.is_hidden(node, &name, is_dir) || hides(node, &name, is_dir) {
            return;
        }
        differs(match fs::is_stage_name(bytes) || fs::is_stage_dir_name(bytes) {
            true => "only in the destination: an interrupted run left it, the next sync takes it away",
            false => "only in the destination",
        });
    }

    /// One entry of the source, where the destination's directory is there.
    fn entry(self: &Arc<Verifier>, work: &Arc<PieceWork>, index: usize, is_there: bool) {
        let listed = work.listed(index);
        let entry = &listed.entry;
        self.session.counters().set_current(entry.name.as_bytes());
        if work.slots[index] == Slot::None {
            return self.settle(work, index);
        }
        let found = match (is_there, &work.node.dir) {
            (true, Some(_)) if hides(&work.node, work.name(index), entry.metadata.kind == Kind::Dir) => Ok(None),
            (true, Some(dir)) => dir.get().and_then(|dir| Found::at(&dir, work.name(index), entry)),
            _ => Ok(None),
        };
        let found = match found {
            Ok(Some(found)) => found,
            Ok(None) => {
                match &work.children[index] {
                    // Whether it counts is known when all below is listed.
                    Some(child) if self.options.prune_empty_dirs => child.is_missing.store(true, Ordering::Relaxed),
                    None if self.options.prune_empty_dirs && entry.metadata.kind == Kind::Dir => {
                        work.node.fold.prune(work.slots[index]);
                    }
                    _ => self.differs(&work.path(index), "only in the source"),
                }
                self.settle_child(work, index, Place::Absent);
                return self.settle(work, index);
            }
            Err(error) => {
                self.destination_problem(Operation::Stat, &work.path(index), &error);
                self.settle_child(work, index, Place::Absent);
                return self.settle(work, index);
            }
        };
        if found.metadata.kind != entry.metadata.kind {
            self.differs(&work.path(index), &differences::kinds(found.metadata.kind, entry.metadata.kind));
            self.settle_child(work, index, Place::Absent);
            return self.settle(work, index);
        }
        let leaves_attributes = listed.implied && !self.options.implied_dirs;
        let (size_differs, mut reasons) =
            if leaves_attributes { (false, Vec::new()) } else { self.compare(entry, &found) };
        if self.options.preserve.hard_links && entry.metadata.kind != Kind::Dir {
            reasons.extend(self.links.check(entry.hard_link, &found.metadata, &work.path(index)));
            self.count_link(work, index);
        }
        match entry.metadata.kind {
            Kind::File if !size_differs => self.queue_check(FileCheck::new(Arc::clone(work), index, reasons, true)),
            kind => {
                self.tell(work, index, &reasons);
                match kind {
                    Kind::File => {}
                    Kind::Dir => self.settle_child(work, index, Place::There),
                    _ => self.fold_entry(work, index, &special_content(entry)),
                }
                if kind == Kind::Dir && !listed.descend {
                    self.fold_empty_dir(work, index);
                }
                self.settle(work, index);
            }
        }
    }

    /// One entry of the source, where only its digest is wanted.
    fn alone(self: &Arc<Verifier>, work: &Arc<PieceWork>, index: usize, entry: &Entry) {
        let slot = work.slots[index];
        if slot != Slot::None && self.options.preserve.hard_links {
            self.count_link(work, index);
        }
        match entry.metadata.kind {
            Kind::File if slot != Slot::None => {
                return self.queue_check(FileCheck::new(Arc::clone(work), index, Vec::new(), false));
            }
            Kind::Dir if !work.listed(index).descend => self.fold_empty_dir(work, index),
            Kind::Dir => {}
            _ if slot == Slot::None => {}
            _ => self.fold_entry(work, index, &special_content(entry)),
        }
        self.settle(work, index);
    }

    fn queue_check(&self, check: Arc<FileCheck>) {
        self.source.want(&check);
        self.enqueue(Work::Check(check));
    }

    /// What differs beside a file's bytes, and whether its length does.
    fn compare(&self, entry: &Entry, found: &Found) -> (bool, Vec<String>) {
        let (uid, gid) = self.owners.expected(&entry.metadata);
        let acls = entry.acls.as_ref().map(|acls| self.owners.map_acls(acls));
        let wanted = compare::Wanted { uid, gid, acls: acls.as_ref() };
        let existing = compare::Existing {
            metadata: &found.metadata,
            link_target: found.link_target.as_deref(),
            acls: found.acls.as_ref(),
            xattrs: found.xattrs.as_deref(),
        };
        let place = compare::Place {
            defaults: NewEntryDefaults::from_umask(0),
            time_granularity_ns: self.target.as_ref().map_or(1, |target| target.granularity_ns),
        };
        let changes = compare::compare(entry, &wanted, Some(&existing), &place, &self.options).changes;
        let mode = source_mode(entry.metadata.mode, entry.metadata.kind, &self.options);
        (changes.size, differences::describe(entry, &wanted, mode, found, &changes))
    }

    /// The roots' own attributes. Last of all: only then are all names of owners known.
    fn compare_root(&self) {
        let (Some(target), Some(entry)) = (&self.target, &self.root_entry) else { return };
        let found = target
            .dir
            .metadata()
            .and_then(|metadata| Found::read(metadata, entry, || Ok(Vec::new()), fs::Target::Dir(&target.dir)));
        match found {
            Ok(found) => {
                let (_, reasons) = self.compare(entry, &found);
                if !reasons.is_empty() {
                    self.differs(&RelPath::root(), &reasons.join("; "));
                }
            }
            Err(error) => self.destination_problem(Operation::Stat, &RelPath::root(), &error),
        }
    }

    /// Whether entries of this kind, or this entry, are part of the trees at all.
    fn is_carried(&self, node: &Arc<Node>, listed: &ListedEntry) -> bool {
        let entry = &listed.entry;
        let kind = entry.metadata.kind;
        if !compare::is_kind_copied(kind, &self.options)
            || compare::size_skip(kind, entry.metadata.size, &self.options).is_some()
        {
            return false;
        }
        match &entry.link_target {
            Some(target) if self.options.links.skip_unsafe => {
                !is_unsafe(target, node.path.join(&entry.name).as_bytes())
            }
            target => kind != Kind::Symlink || target.is_some(),
        }
    }

    /// Reads a file here: the destination's, and the source's where that is here too.
    fn read(self: &Arc<Verifier>, check: &Arc<FileCheck>) {
        let work = &check.work;
        let stop = &self.session.stop;
        self.session.counters().set_current(work.listed(check.index).entry.name.as_bytes());
        if let Arrived::Local(sent) = &work.arrived {
            let digest = match sent.dir(check.index) {
                Ok(dir) => digest_of(&dir, &work.listed(check.index).entry.name, sent.followed(check.index), stop),
                Err(error) => Err(NoDigest::Open(error)),
            };
            if self.session.is_ending() {
                return;
            }
            let side = match digest {
                Ok(digest) => Side::Is(digest),
                Err(reason) => {
                    self.no_digest(ProblemKind::Source, sent.shown(check.index), reason);
                    Side::Failed
                }
            };
            self.know(check, Some(side), None);
        }
        let Some(dir) = work.node.dir.as_ref().filter(|_| check.compares) else { return };
        let digest = match dir.get() {
            Ok(dir) => digest_of(&dir, work.name(check.index), false, stop),
            Err(error) => Err(NoDigest::Open(error)),
        };
        if self.session.is_ending() {
            return;
        }
        let side = match digest {
            Ok(digest) => Side::Is(digest),
            Err(reason) => {
                self.no_digest(ProblemKind::Destination, self.shown(&work.path(check.index)), reason);
                Side::Failed
            }
        };
        self.know(check, None, Some(side));
    }

    fn no_digest(&self, kind: ProblemKind, shown: Vec<u8>, reason: NoDigest) {
        match reason {
            NoDigest::Changed => {
                let text = "it kept changing, so it was not compared";
                self.session.problem(Problem::new(ProblemKind::Changed, Operation::Read, shown, text));
            }
            NoDigest::Open(error) if error.kind() == std::io::ErrorKind::NotFound && kind == ProblemKind::Source => {
                self.session.io_problem(ProblemKind::Vanished, Operation::Open, shown, &error);
            }
            NoDigest::Open(error) => self.session.io_problem(kind, Operation::Open, shown, &error),
            NoDigest::Read(error) => self.session.io_problem(kind, Operation::Read, shown, &error),
        }
    }

    /// The far side's answer; `None` where it has none, which it tells itself.
    pub(in crate::sync) fn source_digest(self: &Arc<Verifier>, check: &Arc<FileCheck>, digest: Option<Digest>) {
        self.know(check, Some(digest.map_or(Side::Failed, Side::Is)), None);
    }

    fn know(self: &Arc<Verifier>, check: &Arc<FileCheck>, source: Option<Side>, there: Option<Side>) {
        let Some(compared) = check.know(source, there) else { return };
        let mut reasons = check.reasons.clone();
        if compared.differs {
            reasons.insert(0, "content differs".to_owned());
        }
        self.tell(&check.work, check.index, &reasons);
        if let (Some(digest), true) = (compared.source, compared.is_proven) {
            self.fold_entry(&check.work, check.index, &digest.0);
        }
        self.settle(&check.work, check.index);
    }

    fn count_link(&self, work: &Arc<PieceWork>, index: usize) {
        let listed = work.listed(index);
        let Some(link) = listed.entry.hard_link else { return };
        let path = work.node.path.join(&listed.entry.name);
        let path = match self.top_is_below {
            false => path,
            // Paths from the top, which is one level below.
            true => path.components().skip(1).fold(RelPath::root(), |path, name| path.join(&name)),
        };
        self.groups.add(link.group, &path);
    }

    fn fold_entry(&self, work: &Arc<PieceWork>, index: usize, content: &[u8]) {
        let head = record_head(&work.listed(index).entry, &self.session.options.preserve);
        work.fold(index, node_digest(&head, content));
    }

    /// A directory that is not descended into counts as an empty one.
    fn fold_empty_dir(&self, work: &Arc<PieceWork>, index: usize) {
        if self.options.prune_empty_dirs {
            return work.node.fold.prune(work.slots[index]);
        }
        let head = record_head(&work.listed(index).entry, &self.session.options.preserve);
        if let Some(node) = super::fold::DirFold::new(head).finish() {
            work.fold(index, node);
        }
    }

    fn settle_child(&self, work: &Arc<PieceWork>, index: usize, place: Place) {
        if let Some(child) = &work.children[index] {
            for parked in child.settle_place(place) {
                self.enqueue(Work::Piece(parked));
            }
        }
    }

    fn settle(self: &Arc<Verifier>, work: &Arc<PieceWork>, index: usize) {
        let counters = self.session.counters();
        let metadata = &work.listed(index).entry.metadata;
        Counters::add(&counters.entries_done, 1);
        if metadata.kind == Kind::File {
            Counters::add(&counters.bytes_done, metadata.size);
        }
        if work.end() {
            self.release(work);
        }
    }

    fn release(self: &Arc<Verifier>, work: &Arc<PieceWork>) {
        self.source.release(&work.arrived);
        let mut current = Arc::clone(&work.node);
        while current.end() {
            self.finish_directory(&current);
            match &current.parent {
                Some(parent) => current = Arc::clone(parent),
                None => {
                    *self.finished.lock().unwrap_or_else(PoisonError::into_inner) = true;
                    self.queue.lock().unwrap_or_else(PoisonError::into_inner).take();
                    self.wake.notify_all();
                    return;
                }
            }
        }
    }

    /// Everything in a directory and below is settled.
    fn finish_directory(&self, node: &Arc<Node>) {
        if let Some(dir) = &node.dir {
            dir.close();
        }
        let Some((parent, (name, slot))) = node.parent.as_ref().zip(node.name.as_ref()) else {
            self.compare_root();
            let top = if self.top_is_below { node.fold.only_node() } else { node.fold.finish() };
            if let Some(top) = top {
                let links = self.options.preserve.hard_links.then_some(&self.groups);
                let _set_once = self.session.tree_digest.set(tree_digest(top, links));
            }
            return;
        };
        if self.options.prune_empty_dirs && !node.occupied.load(Ordering::Relaxed) {
            return parent.fold.prune(*slot);
        }
        if node.is_missing.load(Ordering::Relaxed) {
            self.differs(&node.path, "only in the source");
        } else if let Some(digest) = node.fold.finish() {
            parent.fold.set(*slot, name, digest);
        }
    }

    fn tell(&self, work: &Arc<PieceWork>, index: usize, reasons: &[String]) {
        if !reasons.is_empty() {
            self.differs(&work.path(index), &reasons.join("; "));
        }
    }

    fn differs(&self, path: &RelPath, reason: &str) {
        self.session.problem(Problem::new(ProblemKind::Differs, Operation::Digest, path.as_bytes(), reason));
    }

    /// How the user would name something at the destination.
    pub(super) fn shown(&self, path: &RelPath) -> Vec<u8> {
        let Some(target) = &self.target else { return path.as_bytes().to_vec() };
        let mut shown = target.shown.clone();
        if target.rename.is_none() && !path.is_root() {
            if !shown.is_empty() && shown.last() != Some(&b'/') {
                shown.push(b'/');
            }
            shown.extend_from_slice(path.as_bytes());
        }
        shown
    }

    fn destination_problem(&self, operation: Operation, path: &RelPath, error: &std::io::Error) {
        self.session.io_problem(ProblemKind::Destination, operation, self.shown(path), error);
    }

    /// Waits until everything that was listed is settled, or the run ends early.
    pub(in crate::sync) fn wait_until_finished(&self) {
        let mut finished = self.finished.lock().unwrap_or_else(PoisonError::into_inner);
        while !*finished && !self.session.is_ending() {
            finished = self
                .wake
                .wait_timeout(finished, IDLE_LOOK)
                .map(|(finished, _)| finished)
                .unwrap_or_else(|poisoned| poisoned.into_inner().0);
        }
    }
}

/// Whether a name of the destination does not exist for the session, by the rules of a module.
fn hides(node: &Node, name: &Name, is_dir: bool) -> bool {
    node.dir.as_ref().is_some_and(|dir| dir.get().is_ok_and(|dir| dir.hides(name, is_dir)))
}
