//! The receiver's directories while they are being worked on.

use std::collections::HashSet;
use std::io;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use super::Arrived;
use super::fresh::Fresh;
use super::waiting::{Account, Charge, heap_bytes};
use crate::fs::{Dir, NameList};
use crate::model::{ListedEntry, Name, Piece, RelPath};
use crate::monitor::Changes;
use crate::plan::filter::DirFilter;
use crate::plan::mode::NewEntryDefaults;
use crate::sync::held::HeldDir;

/// What became of a directory at the destination.
#[derive(Debug)]
pub(super) enum Place {
    /// Its parent's listing was not dealt with yet; pieces wait here.
    Unknown(Vec<Arc<PieceWork>>),
    /// It is there.
    There,
    /// It is not there, and will be made when something goes into it (`-m`), or never (a dry run).
    Absent,
    /// It is left out with everything below.
    Skipped,
}

/// One directory of the transfer.
#[derive(Debug)]
pub(super) struct Node {
    pub(super) path: RelPath,
    pub(super) parent: Option<Arc<Node>>,
    /// What the source says of it; `None` for a root without attributes of its own.
    pub(super) listed: Option<ListedEntry>,
    /// How to open it, once it is there.
    pub(super) dir: HeldDir,
    place: Mutex<Place>,
    names: Mutex<Option<Arc<NameList>>>,
    /// The receiver's view of the filter rules in this directory (deletion only).
    pub(super) filter: OnceLock<Option<DirFilter>>,
    /// Merge files that the source has in this directory, by name.
    pub(super) merge_files: OnceLock<Vec<(Vec<u8>, Vec<u8>)>>,
    /// Its permission bits before this run, where it was there.
    pub(super) before_mode: OnceLock<u32>,
    /// What will differ in its attributes.
    pub(super) changes: OnceLock<Changes>,
    /// Something was created, renamed or removed in it, which moved its mtime.
    pub(super) dirty: AtomicBool,
    /// Something other than a directory is, or will be, in it or below (`-m`).
    pub(super) occupied: AtomicBool,
    /// Its mode was widened for the time of the run, and has to be set again.
    pub(super) widened: AtomicBool,
    /// Made by this run.
    pub(super) created: AtomicBool,
    /// Held while something is backed up beside its file and replaced.
    pub(super) backing_up: Mutex<()>,
    /// Names that were committed in this run, where backups lie beside their files.
    committed: Mutex<HashSet<Name>>,
    /// Permissions that new entries in it get where they are not carried over.
    pub(super) new_entry_defaults: OnceLock<NewEntryDefaults>,
    /// Group that new files in it get.
    pub(super) new_files_group: OnceLock<u32>,
    /// Where it was made under a stage's name.
    pub(super) fresh: OnceLock<Fresh>,
    /// Permissions that a new file was asked to have here, and had; none yet: a value that no permissions are.
    pub(super) kept_mode: AtomicU32,
    /// Unfinished parts: the listing itself, pieces, child directories.
    pending: AtomicUsize,
    visited: AtomicBool,
    _charge: Charge,
    /// As `pending`, without child directories.
    own_pending: AtomicUsize,
}

impl Node {
    pub(super) fn new(
        path: RelPath,
        parent: Option<Arc<Node>>,
        listed: Option<ListedEntry>,
        dir: HeldDir,
        account: &Account,
    ) -> Arc<Node> {
        // The path is kept by the directory's handle too; the rest is what a map and a counted pointer add.
        let heap = 2 * path.as_bytes().len() + listed.as_ref().map_or(0, heap_bytes) + 96;
        Arc::new(Node {
            path,
            parent,
            listed,
            dir,
            place: Mutex::new(Place::Unknown(Vec::new())),
            names: Mutex::new(None),
            filter: OnceLock::new(),
            merge_files: OnceLock::new(),
            before_mode: OnceLock::new(),
            changes: OnceLock::new(),
            dirty: AtomicBool::new(false),
            occupied: AtomicBool::new(false),
            widened: AtomicBool::new(false),
            created: AtomicBool::new(false),
            backing_up: Mutex::new(()),
            committed: Mutex::default(),
            new_entry_defaults: OnceLock::new(),
            new_files_group: OnceLock::new(),
            fresh: OnceLock::new(),
            kept_mode: AtomicU32::new(u32::MAX),
            pending: AtomicUsize::new(1),
            visited: AtomicBool::new(false),
            _charge: account.charge(size_of::<Node>() + heap),
            own_pending: AtomicUsize::new(1),
        })
    }

    /// A piece of its listing has come.
    pub(super) fn visit(&self) {
        self.visited.store(true, Ordering::Relaxed);
    }

    /// Whether any of its listing has come.
    pub(super) fn is_visited(&self) -> bool {
        self.visited.load(Ordering::Relaxed)
    }

    pub(super) fn place(&self) -> MutexGuard<'_, Place> {
        self.place.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Says what became of the directory; the pieces that waited for it.
    pub(super) fn settle_place(&self, place: Place) -> Vec<Arc<PieceWork>> {
        match std::mem::replace(&mut *self.place(), place) {
            Place::Unknown(parked) => parked,
            _ => Vec::new(),
        }
    }

    pub(super) fn is_there(&self) -> bool {
        matches!(*self.place(), Place::There)
    }

    pub(super) fn is_skipped(&self) -> bool {
        matches!(*self.place(), Place::Skipped)
    }

    /// The destination's names, listed once; empty where the directory is not there.
    pub(super) fn names(&self) -> io::Result<Arc<NameList>> {
        let mut slot = self.names.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(names) = &*slot {
            return Ok(Arc::clone(names));
        }
        let names = if self.is_there() && !self.created.load(Ordering::Relaxed) {
            Arc::new(self.dir.get()?.list()?)
        } else {
            Arc::new(NameList::default())
        };
        *slot = Some(Arc::clone(&names));
        Ok(names)
    }

    /// The directory is finished: extraneous items keep it in memory, but not all its names.
    pub(super) fn forget_names(&self) {
        self.names.lock().unwrap_or_else(PoisonError::into_inner).take();
    }

    pub(super) fn open(&self) -> io::Result<Arc<Dir>> {
        match self.created.load(Ordering::Relaxed) {
            true => self.open_created(true),
            false => self.dir.get(),
        }
    }

    /// As [`Node::open`], for one use long after: the budget is for those that are worked on.
    pub(super) fn open_briefly(&self) -> io::Result<Arc<Dir>> {
        match self.created.load(Ordering::Relaxed) {
            true => self.open_created(false),
            false => self.dir.get_briefly(),
        }
    }

    /// A name is the source's now; `beside` is what [`super::Receiver::keeps_backups_beside`] gave.
    pub(super) fn note_committed(&self, name: &Name, beside: Option<MutexGuard<'_, ()>>) {
        if beside.is_some() {
            self.committed.lock().unwrap_or_else(PoisonError::into_inner).insert(name.clone());
        }
    }

    /// Whether a name was committed in this run.
    pub(super) fn has_committed(&self, name: &Name) -> bool {
        self.committed.lock().unwrap_or_else(PoisonError::into_inner).contains(name)
    }

    /// One more unfinished part.
    pub(super) fn begin(&self) {
        self.pending.fetch_add(1, Ordering::AcqRel);
    }

    /// One part less; true when it was the last.
    pub(super) fn end(&self) -> bool {
        self.pending.fetch_sub(1, Ordering::AcqRel) == 1
    }

    /// One more of its own parts.
    pub(super) fn begin_own(&self) {
        self.own_pending.fetch_add(1, Ordering::AcqRel);
        self.begin();
    }

    /// One of its own parts less, which [`Node::end`] follows; true when it was the last.
    pub(super) fn end_own(&self) -> bool {
        self.own_pending.fetch_sub(1, Ordering::AcqRel) == 1
    }

    pub(super) fn touch(&self) {
        self.dirty.store(true, Ordering::Release);
    }
}

/// A piece while its entries are being settled.
#[derive(Debug)]
pub(super) struct PieceWork {
    pub(super) arrived: Arrived,
    pub(super) node: Arc<Node>,
    /// Nodes of the entries that are descended into, in their order.
    children: Vec<Arc<Node>>,
    /// The one file of the transfer gets another name.
    rename: Option<Name>,
    pending: AtomicUsize,
    safe: Mutex<Vec<u16>>,
}

impl PieceWork {
    /// All entries, and the pass over them, are unfinished.
    pub(super) fn new(
        arrived: Arrived,
        node: Arc<Node>,
        children: Vec<Arc<Node>>,
        rename: Option<Name>,
    ) -> Arc<PieceWork> {
        let pending = AtomicUsize::new(arrived.piece().entries.len() + 1);
        Arc::new(PieceWork { arrived, node, children, rename, pending, safe: Mutex::default() })
    }

    pub(super) fn piece(&self) -> &Piece {
        self.arrived.piece()
    }

    pub(super) fn listed(&self, index: u16) -> &ListedEntry {
        &self.arrived.piece().entries[usize::from(index)]
    }

    /// The name of entry `index` at the destination.
    pub(super) fn name(&self, index: u16) -> &Name {
        self.rename.as_ref().unwrap_or(&self.listed(index).entry.name)
    }

    /// Nodes of the entries that are descended into, in their order.
    pub(super) fn children(&self) -> &[Arc<Node>] {
        &self.children
    }

    /// The node of entry `index`, where it is descended into.
    pub(super) fn child(&self, index: u16) -> Option<&Arc<Node>> {
        let before = &self.piece().entries[..usize::from(index)];
        let position = before.iter().filter(|listed| listed.descend).count();
        self.listed(index).descend.then(|| self.children.get(position)).flatten()
    }

    /// The path of entry `index` from the destination's root.
    pub(super) fn path(&self, index: u16) -> RelPath {
        self.node.path.join(self.name(index))
    }

    /// Entry `index` is now safe at the destination: the sender may remove it.
    pub(super) fn mark_safe(&self, index: u16) {
        self.safe.lock().unwrap_or_else(PoisonError::into_inner).push(index);
    }

    pub(super) fn take_safe(&self) -> Vec<u16> {
        let mut safe = std::mem::take(&mut *self.safe.lock().unwrap_or_else(PoisonError::into_inner));
        safe.sort_unstable();
        safe.dedup();
        safe
    }

    /// One entry is settled, or the pass over them ended; true for the last.
    pub(super) fn end(&self) -> bool {
        self.pending.fetch_sub(1, Ordering::AcqRel) == 1
    }
}
