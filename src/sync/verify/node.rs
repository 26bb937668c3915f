//! Directories and pieces while they are being compared.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use super::fold::{DirFold, Slot};
use crate::fs::NameList;
use crate::model::{Digest, ListedEntry, Name, Piece, RelPath};
use crate::plan::filter::DirFilter;
use crate::sync::held::HeldDir;
use crate::sync::receiver::{Account, Arrived, Charge};

/// What the destination has for a directory of the source.
#[derive(Debug)]
pub(super) enum Place {
    /// Its parent's listing was not dealt with yet; pieces wait here.
    Unknown(Vec<Arc<PieceWork>>),
    /// The directory.
    There,
    /// Nothing, or something else, which was told: nothing below is compared.
    Absent,
    /// There is no destination: only the source's digest is wanted.
    Alone,
}

/// One directory of the source.
#[derive(Debug)]
pub(super) struct Node {
    pub(super) path: RelPath,
    pub(super) parent: Option<Arc<Node>>,
    /// Its name, and its place in its parent's sequences; none of the root.
    pub(super) name: Option<(Name, Slot)>,
    /// How to open it at the destination.
    pub(super) dir: Option<HeldDir>,
    place: Mutex<Place>,
    /// The destination's names; `None` inside where they could not be listed.
    pub(super) names: OnceLock<Option<Arc<NameList>>>,
    /// What hides names of the destination; `None` inside where the rules could not be read.
    pub(super) hidden: OnceLock<Option<[DirFilter; 2]>>,
    /// Merge files that the source has in this directory, by name.
    pub(super) merge_files: OnceLock<Vec<(Vec<u8>, Vec<u8>)>>,
    pub(super) fold: DirFold,
    /// Something other than a directory is in it or below (`-m`).
    pub(super) occupied: AtomicBool,
    /// Not at the destination, which counts unless `-m` leaves it out.
    pub(super) is_missing: AtomicBool,
    /// Unfinished parts: the listing itself, pieces, child directories.
    pending: AtomicUsize,
    _charge: Charge,
}

impl Node {
    pub(super) fn new(
        path: RelPath,
        parent: Option<Arc<Node>>,
        name: Option<(Name, Slot)>,
        dir: Option<HeldDir>,
        head: Vec<u8>,
        account: &Account,
    ) -> Arc<Node> {
        // The path is kept by the directory's handle too, the name twice; the rest is what maps and sequences add.
        let heap = 3 * path.as_bytes().len() + head.len() + 160;
        let place = if dir.is_some() { Place::Unknown(Vec::new()) } else { Place::Alone };
        Arc::new(Node {
            path,
            parent,
            name,
            dir,
            place: Mutex::new(place),
            names: OnceLock::new(),
            hidden: OnceLock::new(),
            merge_files: OnceLock::new(),
            fold: DirFold::new(head),
            occupied: AtomicBool::new(false),
            is_missing: AtomicBool::new(false),
            pending: AtomicUsize::new(1),
            _charge: account.charge(size_of::<Node>() + heap),
        })
    }

    pub(super) fn place(&self) -> MutexGuard<'_, Place> {
        self.place.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Says what the destination has; the pieces that waited for it.
    pub(super) fn settle_place(&self, place: Place) -> Vec<Arc<PieceWork>> {
        match std::mem::replace(&mut *self.place(), place) {
            Place::Unknown(parked) => parked,
            _ => Vec::new(),
        }
    }

    /// Something other than a directory is in this one.
    pub(super) fn occupy(&self) {
        let mut current = Some(self);
        while let Some(node) = current {
            if node.occupied.swap(true, Ordering::Relaxed) {
                return;
            }
            current = node.parent.as_deref();
        }
    }

    /// One more unfinished part.
    pub(super) fn begin(&self) {
        self.pending.fetch_add(1, Ordering::AcqRel);
    }

    /// One part less; true when it was the last.
    pub(super) fn end(&self) -> bool {
        self.pending.fetch_sub(1, Ordering::AcqRel) == 1
    }
}

/// A piece while its entries are being settled.
#[derive(Debug)]
pub(in crate::sync) struct PieceWork {
    pub(in crate::sync) arrived: Arrived,
    pub(super) node: Arc<Node>,
    /// Places of the entries in the directory's sequences.
    pub(super) slots: Vec<Slot>,
    /// Nodes of the entries that are descended into.
    pub(super) children: Vec<Option<Arc<Node>>>,
    /// The one file of the source has another name at the destination.
    pub(super) rename: Option<Name>,
    pending: AtomicUsize,
}

impl PieceWork {
    /// All entries, and the pass over them, are unfinished.
    pub(super) fn new(
        arrived: Arrived,
        node: Arc<Node>,
        slots: Vec<Slot>,
        children: Vec<Option<Arc<Node>>>,
        rename: Option<Name>,
    ) -> Arc<PieceWork> {
        let pending = AtomicUsize::new(arrived.piece().entries.len() + 1);
        Arc::new(PieceWork { arrived, node, slots, children, rename, pending })
    }

    pub(super) fn piece(&self) -> &Piece {
        self.arrived.piece()
    }

    pub(super) fn listed(&self, index: usize) -> &ListedEntry {
        &self.arrived.piece().entries[index]
    }

    /// The name of entry `index` at the destination.
    pub(super) fn name(&self, index: usize) -> &Name {
        self.rename.as_ref().unwrap_or(&self.listed(index).entry.name)
    }

    /// The path of entry `index` from the tree's root.
    pub(super) fn path(&self, index: usize) -> RelPath {
        self.node.path.join(self.name(index))
    }

    /// The node of entry `index` is known.
    pub(super) fn fold(&self, index: usize, node: Digest) {
        self.node.fold.set(self.slots[index], &self.listed(index).entry.name, node);
    }

    /// One entry is settled, or the pass over them ended; true for the last.
    pub(super) fn end(&self) -> bool {
        self.pending.fetch_sub(1, Ordering::AcqRel) == 1
    }
}
