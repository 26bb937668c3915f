//! The receiver: compares listings with what is there, gets what is missing, and makes the destination equal.
//!
//! Pieces of listings arrive in any order that has parents before children. Each is worked on as a whole by one thread;
//! file contents come through a [`Supply`], which is the source itself on one machine and the wire otherwise. A directory
//! is finished, attributes last, when its listing has ended and everything in it and below is settled.

mod alternatives;
mod attributes;
mod backup;
mod commit;
mod delete;
mod directory;
mod fresh;
mod hard_links;
mod item;
mod node;
mod owners;
mod partial;
mod piece;
pub(super) mod root;
mod waiting;

use std::collections::HashMap;
use std::sync::{Arc, Condvar, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use crossbeam_channel::{Receiver as Inbox, Sender as Outbox};

pub(super) use self::commit::{FileTask, Found, Transferred, Written};
use self::hard_links::HardLinks;
use self::node::{Node, PieceWork, Place};
pub(super) use self::owners::Owners;
pub(super) use self::root::DestinationRoot;
pub(super) use self::waiting::{Account, Charge};
use self::waiting::{Unlisted, Woken};
use super::SyncError;
use super::held::{HandleBudget, HeldDir, Reach};
use super::sender::walk::SentPiece;
use super::session::Session;
use crate::fs::Dir;
use crate::limits;
use crate::model::{DirId, ListedEntry, Name, Piece, PieceId, RelPath};
use crate::wire::ListingEnd;

/// How often a thread without work looks whether the run is over: an end by signal has no other way to reach it.
pub(super) const IDLE_LOOK: Duration = Duration::from_millis(50);

/// A piece, from this process or from the wire.
#[derive(Debug)]
pub(super) enum Arrived {
    /// With the sender's handles.
    Local(Arc<SentPiece>),
    /// As the far side sent it.
    Remote(Piece),
}

impl Arrived {
    pub(super) fn piece(&self) -> &Piece {
        match self {
            Arrived::Local(sent) => &sent.piece,
            Arrived::Remote(piece) => piece,
        }
    }
}

/// Where file contents come from.
pub(super) trait Supply: Send + Sync {
    /// Gets the content of a file and commits it, now or later; settles the entry in the end. May block while too much
    /// is under way.
    fn fetch(&self, receiver: &Arc<Receiver>, task: FileTask);
    /// All fetches of a piece were asked for.
    fn flush(&self, receiver: &Arc<Receiver>, piece: PieceId);
    /// The piece is settled; `safe` lists its entries that the sender may remove.
    fn release(&self, arrived: &Arrived, safe: Vec<u16>);
}

/// Something that the source does not have.
#[derive(Debug)]
struct Extra {
    node: Arc<Node>,
    name: Name,
}

/// The receiver of one session.
pub(super) struct Receiver {
    pub(super) session: Arc<Session>,
    pub(super) root: DestinationRoot,
    pub(super) supply: Arc<dyn Supply>,
    pub(super) owners: Owners,
    hard_links: HardLinks,
    /// The transfer names entries of the root, not its contents.
    root_is_above: bool,
    alternatives: OnceLock<Vec<Arc<Dir>>>,
    unlisted: Mutex<Unlisted>,
    account: Account,
    extras: Mutex<Vec<Extra>>,
    deferred: Mutex<Vec<commit::Deferred>>,
    /// Directories that have a stage's name now, by it.
    staged_directories: Mutex<HashMap<Name, Arc<Node>>>,
    /// Held while one of them gets its name.
    publishing: Mutex<()>,
    /// Effective user and group of this process.
    process: (u32, u32),
    /// Closed when everything is settled, which ends the workers.
    work: Mutex<Option<Outbox<Arc<PieceWork>>>>,
    inbox: Inbox<Arc<PieceWork>>,
    finished: Mutex<bool>,
    wake: Condvar,
}

impl Receiver {
    pub(super) fn new(
        session: Arc<Session>,
        root: DestinationRoot,
        root_entry: Option<ListedEntry>,
        supply: Arc<dyn Supply>,
        owners: Owners,
        budget: &Arc<HandleBudget>,
    ) -> Arc<Receiver> {
        // Unbounded in name only: pieces arrive against credit.
        let (work, inbox) = crossbeam_channel::unbounded();
        let root_is_above = root_entry.is_none();
        let account = Account::default();
        let is_own = !session.base.is_confined();
        let hard_links = HardLinks::within(if is_own { usize::MAX } else { limits::HARD_LINKS_BYTES_MAX });
        let root_dir = HeldDir::at_root(Arc::clone(&root.dir), Arc::clone(budget));
        let node = Node::new(RelPath::root(), None, root_entry, root_dir, &account);
        let place = if root.is_there { Place::There } else { Place::Absent };
        node.settle_place(place);
        let receiver = Arc::new(Receiver {
            session,
            root,
            supply,
            owners,
            hard_links,
            root_is_above,
            alternatives: OnceLock::new(),
            unlisted: Mutex::new(Unlisted::new(Arc::clone(&node))),
            account,
            extras: Mutex::default(),
            deferred: Mutex::default(),
            staged_directories: Mutex::default(),
            publishing: Mutex::default(),
            process: (rustix::process::geteuid().as_raw(), rustix::process::getegid().as_raw()),
            work: Mutex::new(Some(work)),
            inbox,
            finished: Mutex::new(false),
            wake: Condvar::new(),
        });
        receiver.compare_root(&node);
        receiver
    }

    /// A piece arrived. Its directories get their nodes here, so that later pieces find them. Never blocks.
    pub(super) fn arrive(&self, arrived: Arrived) {
        let piece = arrived.piece();
        let mut children = Vec::new();
        let node = {
            let mut unlisted = self.unlisted.lock().unwrap_or_else(PoisonError::into_inner);
            let node = unlisted.get(piece.dir, piece.last).or_else(|| {
                let node = self.woken_node(unlisted.wake(piece.dir)?);
                if !piece.last {
                    unlisted.insert(piece.dir, Arc::clone(&node));
                }
                Some(node)
            });
            // The session's book has checked the number.
            let Some(node) = node else { return };
            node.visit();
            for (number, listed) in (piece.first_child.0..).zip(piece.entries.iter().filter(|listed| listed.descend)) {
                let child = self.child_node(&node, listed);
                unlisted.insert(DirId(number), Arc::clone(&child));
                children.push(child);
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
        node.begin_own();
        if piece.last {
            // The listing itself has ended; the piece still holds the node.
            node.end_own();
            node.end();
        }
        let rename = self.root.rename.clone().filter(|_| node.parent.is_none());
        let work = PieceWork::new(arrived, Arc::clone(&node), children, rename);
        let mut place = node.place();
        if let Place::Unknown(parked) = &mut *place {
            parked.push(work);
            return;
        }
        drop(place);
        self.enqueue(work);
    }

    /// Whether a name of the destination does not exist for the session, by the rules of a module.
    fn hides(&self, node: &Arc<Node>, name: &Name, is_dir: bool) -> bool {
        if !self.session.base.is_confined() {
            return false;
        }
        let (mut node, mut path) = (node, RelPath::root().join(name));
        while !node.is_there() {
            // In a dry run, or with -m, the directory may be yet to come.
            let (Some(parent), Some(name)) = (&node.parent, node.path.file_name()) else { return false };
            path = RelPath::root().join(&name).join_path(&path);
            node = parent;
        }
        node.open().map_or(true, |dir| dir.hides_below(&path, is_dir))
    }

    fn enqueue(&self, work: Arc<PieceWork>) {
        if let Some(queue) = &*self.work.lock().unwrap_or_else(PoisonError::into_inner) {
            // Fails only when every worker is gone, which is the end of the run.
            let _run_is_over = queue.send(work);
        }
    }

    /// What became of a directory is known: its pieces can be worked on.
    fn settle_place(&self, node: &Arc<Node>, place: Place) {
        for work in node.settle_place(place) {
            self.enqueue(work);
        }
    }

    fn child_node(&self, parent: &Arc<Node>, listed: &ListedEntry) -> Arc<Node> {
        parent.begin();
        self.node_in(Arc::clone(parent), listed.clone())
    }

    /// The node of a directory that waited to be listed. It has been one of its parent's unfinished parts all the time.
    fn woken_node(&self, woken: Woken) -> Arc<Node> {
        let node = self.node_in(Arc::clone(&woken.parent), woken.listed.clone());
        woken.restore(&node);
        node
    }

    fn node_in(&self, parent: Arc<Node>, listed: ListedEntry) -> Arc<Node> {
        let reach = if self.session.options.links.keep_dir_links { Reach::Beneath } else { Reach::Strict };
        let name = &listed.entry.name;
        let dir = parent.dir.child(name, reach);
        Node::new(parent.path.join(name), Some(parent), Some(listed), dir, &self.account)
    }

    /// Works on pieces until the transfer is done or the run ends.
    pub(super) fn work(self: &Arc<Receiver>) {
        while let Some(work) = self.next_piece() {
            self.work_on(&work);
        }
    }

    fn next_piece(&self) -> Option<Arc<PieceWork>> {
        loop {
            if self.session.is_ending() {
                return None;
            }
            match self.inbox.recv_timeout(IDLE_LOOK) {
                Ok(work) => return Some(work),
                Err(error) if error.is_disconnected() => return None,
                Err(_) => {}
            }
        }
    }

    /// One entry of a piece is settled.
    fn settle(self: &Arc<Receiver>, work: &Arc<PieceWork>) {
        crate::monitor::Counters::add(&self.session.counters().entries_done, 1);
        if work.end() {
            self.release(work);
        }
    }

    /// A piece is settled: the sender may forget it, and its directory waits for one part less.
    fn release(self: &Arc<Receiver>, work: &Arc<PieceWork>) {
        self.unlisted.lock().unwrap_or_else(PoisonError::into_inner).fall_asleep(work, &self.account);
        self.supply.release(&work.arrived, work.take_safe());
        if work.node.end_own() {
            self.close_fresh(&work.node);
        }
        self.end_part(&work.node);
    }

    /// One part of a directory is done; finishes it, and those above, when it was the last.
    fn end_part(self: &Arc<Receiver>, node: &Arc<Node>) {
        let mut current = Arc::clone(node);
        while current.end() {
            self.finish_directory(&current);
            match &current.parent {
                Some(parent) => current = Arc::clone(parent),
                None => {
                    *self.finished.lock().unwrap_or_else(PoisonError::into_inner) = true;
                    self.work.lock().unwrap_or_else(PoisonError::into_inner).take();
                    self.wake.notify_all();
                    return;
                }
            }
        }
    }

    /// Whether everything that was listed is settled.
    pub(super) fn is_finished(&self) -> bool {
        *self.finished.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until everything that was listed is settled, or the run ends early.
    pub(super) fn wait_until_finished(&self) {
        let mut finished = self.finished.lock().unwrap_or_else(PoisonError::into_inner);
        while !*finished && !self.session.is_ending() {
            finished = self
                .wake
                .wait_timeout(finished, IDLE_LOOK)
                .map(|(finished, _)| finished)
                .unwrap_or_else(|poisoned| poisoned.into_inner().0);
        }
    }

    /// The run ends early: what waited for its end is dropped, so that no stage stays; what is complete is kept.
    pub(super) fn abandon(&self) {
        self.drop_all_deferred();
        self.publish_all();
    }

    /// What follows the transfer: what had to wait, and deletion.
    pub(super) fn conclude(self: &Arc<Receiver>, end: &ListingEnd) -> Result<(), SyncError> {
        self.delete_extras(end)
    }
}
