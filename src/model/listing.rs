//! Listings: one directory's entries, sorted by raw bytes, in one or several pieces.

use super::{Entry, Name};

/// Number of a directory within a session. The root is 0; every listed directory that will be descended into gets the
/// next free number, in the order of its entries.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct DirId(pub u64);

impl DirId {
    /// The transfer's root.
    pub const ROOT: DirId = DirId(0);
}

/// Number of a piece within a session, from 0 on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PieceId(pub u64);

/// One name of a listing, with its role in the transfer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ListedEntry {
    /// The entry itself.
    pub entry: Entry,
    /// A directory whose own listing follows; it has a [`DirId`].
    pub descend: bool,
    /// A directory that only leads to something named below it (`-R`, `--files-from`): created when missing, but
    /// with `--no-implied-dirs` its attributes are left alone.
    pub implied: bool,
}

/// A run of a directory's entries.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Piece {
    /// The piece's number.
    pub id: PieceId,
    /// The directory it belongs to.
    pub dir: DirId,
    /// Number of the first entry that is descended into; the others follow in order.
    pub first_child: DirId,
    /// Last name of the piece before; `None` for the first. Names up to and including it belong to earlier pieces.
    pub after: Option<Name>,
    /// Whether the directory ends here.
    pub last: bool,
    /// Whether the whole directory is meant (it was read to its end, not picked by name): only then can names that
    /// are missing here be extraneous.
    pub whole: bool,
    /// Merge files with filter rules found in the directory: index of the dir-merge rule's file name, and content. Only
    /// in the first piece.
    pub merge_files: Vec<(Vec<u8>, Vec<u8>)>,
    /// The entries, sorted by name, strictly increasing, all after `after`.
    pub entries: Vec<ListedEntry>,
}

impl Piece {
    /// Whether names are in order, as every receiver requires.
    pub fn is_sorted(&self) -> bool {
        let first_is_after = match (&self.after, self.entries.first()) {
            (Some(after), Some(first)) => *after < first.entry.name,
            _ => true,
        };
        first_is_after && self.entries.windows(2).all(|pair| pair[0].entry.name < pair[1].entry.name)
    }

    /// Number of entries that are descended into.
    pub fn children(&self) -> u64 {
        self.entries.iter().filter(|listed| listed.descend).count() as u64
    }
}

/// What credit a piece costs: its entries, and one for itself, so that empty directories are bounded too.
pub fn piece_cost(entries: usize) -> u64 {
    entries as u64 + 1
}
