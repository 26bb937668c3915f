//! Who may send what when: the sender's and the receiver's books of a session, without IO or threads.
//!
//! Two rules keep both directions moving. The sender lists only against credit, so the receiver's queue of listings
//! always has room; the receiver never has more than a bounded number of wants outstanding, so the sender's queue of
//! wants always has room. Hence neither side's reader ever waits for its own writer.

use std::collections::{BTreeMap, HashMap};

use super::directories::OpenDirectories;
use super::{DataRecord, FileKey, Want, WantMode};
use crate::limits;
use crate::model::{DirId, Kind, Piece, PieceId, piece_cost};

/// A peer that does not keep to the protocol.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FlowError {
    /// A number that was not given out, or is settled already.
    #[error("the far side speaks of {what} {number}, which is not open")]
    NotOpen {
        /// Kind of thing.
        what: &'static str,
        /// Its number.
        number: u64,
    },
    /// A number that is in use.
    #[error("the far side opens {what} {number} twice")]
    Twice {
        /// Kind of thing.
        what: &'static str,
        /// Its number.
        number: u64,
    },
    /// More than was allowed.
    #[error("the far side sends more {what} than was allowed")]
    Excess {
        /// Kind of thing.
        what: &'static str,
    },
    /// A message that does not fit what came before.
    #[error("unexpected {what} from the far side")]
    Unexpected {
        /// The message.
        what: &'static str,
    },
}

/// What may be outstanding: the same numbers on both sides, fixed by the protocol.
#[derive(Debug, Clone, Copy)]
pub(super) struct FlowLimits {
    /// Cost of the pieces that are listed and not released.
    pub(super) entries: u64,
    /// Wants without an answer.
    pub(super) wants: usize,
    /// Wants that may be open whatever their length.
    pub(super) large_wants: usize,
    /// Bytes that wants beyond these may add up to.
    pub(super) wanted_bytes: u64,
    /// Directories announced and not listed to their end.
    pub(super) directories: usize,
    /// Bytes of settling records that came before segments of their files.
    pub(super) early_end_bytes: u64,
}

impl FlowLimits {
    const PROTOCOL: FlowLimits = FlowLimits {
        entries: limits::LISTED_ENTRIES_OUTSTANDING_MAX,
        wants: limits::WANTS_OUTSTANDING_MAX,
        large_wants: limits::LARGE_WANTS_OUTSTANDING_MIN,
        wanted_bytes: limits::WANTED_BYTES_OUTSTANDING_MAX,
        directories: limits::DIRECTORIES_OUTSTANDING_MAX,
        early_end_bytes: limits::EARLY_END_BYTES_MAX,
    };
}

/// What the sender keeps of a piece until it is released.
#[derive(Debug)]
struct SentPiece {
    files: Vec<bool>,
    wanted: Vec<bool>,
    cost: u64,
}

/// The sender's book.
#[derive(Debug)]
pub struct SenderFlow {
    limits: FlowLimits,
    credit: u64,
    pieces: HashMap<PieceId, SentPiece>,
    next_piece: u64,
    next_dir: u64,
    /// Directories announced and not listed to their end, the root at first.
    directories: u64,
    outstanding_wants: usize,
    ended: bool,
}

impl Default for SenderFlow {
    fn default() -> SenderFlow {
        SenderFlow::new()
    }
}

impl SenderFlow {
    /// At the start of a session, with the initial credit.
    pub fn new() -> SenderFlow {
        SenderFlow::within(FlowLimits::PROTOCOL)
    }

    pub(super) fn within(limits: FlowLimits) -> SenderFlow {
        SenderFlow {
            limits,
            credit: limits.entries,
            pieces: HashMap::new(),
            next_piece: 0,
            next_dir: 1,
            directories: 1,
            outstanding_wants: 0,
            ended: false,
        }
    }

    /// Takes credit for a piece of `entries`; false when the piece has to wait.
    pub fn reserve(&mut self, entries: usize) -> bool {
        let cost = piece_cost(entries);
        if self.credit < cost {
            return false;
        }
        self.credit -= cost;
        true
    }

    /// Whether the receiver still takes the directories that a piece announces; false where it would end the session.
    ///
    /// To wait for room would not help: a walk that goes depth first makes room only by listing what it has announced,
    /// and each of these may announce more. So the tree cannot be walked in one session, and the user has to divide it.
    pub fn may_announce(&self, piece: &Piece) -> bool {
        self.directories_after(piece) <= self.limits.directories as u64
    }

    fn directories_after(&self, piece: &Piece) -> u64 {
        (self.directories + piece.children()).saturating_sub(u64::from(piece.last))
    }

    /// Numbers a piece for which credit was taken, and opens it.
    pub fn open(&mut self, piece: &mut Piece) {
        self.directories = self.directories_after(piece);
        piece.id = PieceId(self.next_piece);
        piece.first_child = DirId(self.next_dir);
        self.next_piece += 1;
        self.next_dir += piece.children();
        let files = piece.entries.iter().map(|listed| listed.entry.metadata.kind == Kind::File).collect();
        let wanted = vec![false; piece.entries.len()];
        self.pieces.insert(piece.id, SentPiece { files, wanted, cost: piece_cost(piece.entries.len()) });
    }

    /// No more pieces will be opened.
    pub fn end(&mut self) {
        self.ended = true;
    }

    /// Checks the receiver's wants: an open piece, regular files of it, each once.
    pub fn on_wants(&mut self, piece: PieceId, wants: &[Want]) -> Result<(), FlowError> {
        let sent = self.pieces.get_mut(&piece).ok_or(FlowError::NotOpen { what: "piece", number: piece.0 })?;
        for want in wants {
            let index = usize::from(want.index);
            if sent.files.get(index) != Some(&true) {
                return Err(FlowError::NotOpen { what: "file", number: u64::from(want.index) });
            }
            if std::mem::replace(&mut sent.wanted[index], true) {
                return Err(FlowError::Twice { what: "want", number: u64::from(want.index) });
            }
        }
        self.outstanding_wants += wants.len();
        if self.outstanding_wants > self.limits.wants {
            return Err(FlowError::Excess { what: "wants" });
        }
        Ok(())
    }

    /// A want was answered to its end. The file may be wanted again: what arrived can have failed its digest.
    pub fn answered(&mut self, key: FileKey) {
        self.outstanding_wants = self.outstanding_wants.saturating_sub(1);
        if let Some(wanted) =
            self.pieces.get_mut(&key.piece).and_then(|sent| sent.wanted.get_mut(usize::from(key.index)))
        {
            *wanted = false;
        }
    }

    /// The receiver settled a piece; its credit comes back with it.
    pub fn on_release(&mut self, piece: PieceId) -> Result<(), FlowError> {
        let sent = self.pieces.remove(&piece).ok_or(FlowError::NotOpen { what: "piece", number: piece.0 })?;
        self.credit += sent.cost;
        Ok(())
    }

    /// Whether everything that was listed is settled.
    pub fn is_settled(&self) -> bool {
        self.ended && self.pieces.is_empty()
    }
}

/// Progress of one outstanding want.
#[derive(Debug)]
struct OpenWant {
    bytes: u64,
    digest_only: bool,
    may_be_same: bool,
    may_patch: bool,
    /// Number of segments of each attempt that was begun.
    begun: [Option<u64>; limits::CHANGED_FILE_READS_MAX as usize],
    /// Segments that came, and those that were worked on: they differ while several threads are at it.
    taken: u64,
    done: u64,
    /// Segments that there are in all, once the settling record has come.
    announced: Option<u64>,
    /// Bytes of a settling record that is kept until they are there.
    early_end_bytes: u64,
}

/// The receiver's book.
#[derive(Debug)]
pub struct ReceiverFlow {
    limits: FlowLimits,
    dirs: OpenDirectories,
    pieces: BTreeMap<PieceId, u64>,
    next_piece: u64,
    entries_outstanding: u64,
    wants: HashMap<FileKey, OpenWant>,
    wanted_bytes: u64,
    early_end_bytes: u64,
    ended: bool,
}

impl Default for ReceiverFlow {
    fn default() -> ReceiverFlow {
        ReceiverFlow::new()
    }
}

impl ReceiverFlow {
    /// At the start of a session: only the root may be listed.
    pub fn new() -> ReceiverFlow {
        ReceiverFlow::within(FlowLimits::PROTOCOL)
    }

    pub(super) fn within(limits: FlowLimits) -> ReceiverFlow {
        ReceiverFlow {
            limits,
            dirs: OpenDirectories::new(limits.directories, limits::DIRECTORIES_BEGUN_MAX),
            pieces: BTreeMap::new(),
            next_piece: 0,
            entries_outstanding: 0,
            wants: HashMap::new(),
            wanted_bytes: 0,
            early_end_bytes: 0,
            ended: false,
        }
    }

    /// Checks a piece: numbers in order, a directory that is open, names after those before, within the credit.
    pub fn on_piece(&mut self, piece: &Piece) -> Result<(), FlowError> {
        if self.ended || piece.id.0 != self.next_piece {
            return Err(FlowError::NotOpen { what: "piece", number: piece.id.0 });
        }
        let dir = self.dirs.get(piece.dir).ok_or(FlowError::NotOpen { what: "directory", number: piece.dir.0 })?;
        if dir.last_name != piece.after.as_ref() || !piece.is_sorted() {
            return Err(FlowError::Unexpected { what: "order of names" });
        }
        if piece.children() > 0 && piece.first_child != self.dirs.next() {
            return Err(FlowError::Unexpected { what: "directory number" });
        }
        if piece.after.is_some() && !piece.merge_files.is_empty() {
            return Err(FlowError::Unexpected { what: "merge files" });
        }
        if piece.entries.is_empty() && !piece.last {
            return Err(FlowError::Unexpected { what: "empty piece" });
        }
        let depth = dir.depth + 1;
        if depth > limits::DIRECTORY_DEPTH_MAX && piece.children() > 0 {
            return Err(FlowError::Excess { what: "depth" });
        }
        let last_name = piece.entries.last().filter(|_| !piece.last).map(|last| last.entry.name.clone());
        self.dirs.advance(piece.dir, last_name)?;
        let cost = piece_cost(piece.entries.len());
        self.entries_outstanding += cost;
        if self.entries_outstanding > self.limits.entries {
            return Err(FlowError::Excess { what: "listings" });
        }
        self.dirs.announce(piece.children(), depth)?;
        self.pieces.insert(piece.id, cost);
        self.next_piece += 1;
        Ok(())
    }

    /// The listings ended: every directory that was announced must have been listed.
    pub fn on_listing_end(&mut self) -> Result<(), FlowError> {
        if self.ended || !self.dirs.is_empty() {
            return Err(FlowError::Unexpected { what: "end of listings" });
        }
        self.ended = true;
        Ok(())
    }

    /// A piece is settled here; the sender is told and has its credit back.
    pub fn release(&mut self, piece: PieceId) {
        if let Some(cost) = self.pieces.remove(&piece) {
            self.entries_outstanding -= cost;
        }
    }

    /// Whether a file of `bytes` may be wanted now. A few may be outstanding whatever their length.
    pub fn may_want(&self, bytes: u64) -> bool {
        // Half, so that what must be wanted at once (another name of a failed hard link, a repair) always may.
        self.wants.len() < self.limits.wants / 2
            && (self.wants.len() < self.limits.large_wants
                || self.wanted_bytes.saturating_add(bytes) <= self.limits.wanted_bytes)
    }

    /// Whether there is room for many wants: when to wake those that wait to ask for more.
    pub fn has_ample_room(&self) -> bool {
        self.wants.len() < self.limits.large_wants
            || (self.wants.len() < self.limits.wants / 4 && self.wanted_bytes <= self.limits.wanted_bytes / 2)
    }

    /// A file is wanted.
    pub fn want(&mut self, key: FileKey, mode: &WantMode, bytes: u64) {
        self.wanted_bytes = self.wanted_bytes.saturating_add(bytes);
        let (digest_only, may_be_same, may_patch) = match mode {
            WantMode::Whole => (false, false, false),
            WantMode::IfDiffers(_) => (false, true, false),
            WantMode::Digest => (true, false, false),
            WantMode::Delta { digest, .. } => (false, digest.is_some(), true),
        };
        let want = OpenWant {
            bytes,
            digest_only,
            may_be_same,
            may_patch,
            begun: [None; limits::CHANGED_FILE_READS_MAX as usize],
            taken: 0,
            done: 0,
            announced: None,
            early_end_bytes: 0,
        };
        self.wants.insert(key, want);
    }

    /// Checks a record against what was wanted. True: the want is settled, and nothing of it is worked on any more. A
    /// settling record may come before segments that take another lane; then [`ReceiverFlow::segment_done`] tells it.
    pub fn on_record(&mut self, key: FileKey, record: &DataRecord<'_>) -> Result<bool, FlowError> {
        let want = self.wants.get_mut(&key).ok_or(FlowError::NotOpen { what: "file", number: u64::from(key.index) })?;
        let begun = |attempt: &u8| want.begun.get(usize::from(*attempt)).copied().flatten();
        let fits = match record {
            DataRecord::Failed { .. } => true,
            DataRecord::Digest { .. } => want.digest_only,
            _ if want.digest_only => false,
            DataRecord::Small { content, .. } => content.size <= limits::SMALL_FILE_BYTES_MAX,
            DataRecord::Begin { attempt, content } => {
                let count = content.size.div_ceil(limits::SEGMENT_BYTES);
                begun(attempt).is_none_or(|before| before == count)
            }
            DataRecord::Segment { attempt, index, .. } | DataRecord::ZeroSegment { attempt, index } => {
                begun(attempt).is_some_and(|count| *index < count)
            }
            DataRecord::Patch { attempt, index, .. } => {
                want.may_patch && begun(attempt).is_some_and(|count| *index < count)
            }
            DataRecord::End { attempt, .. } => begun(attempt).is_some(),
            DataRecord::Same { .. } => want.may_be_same,
        };
        if !fits {
            return Err(FlowError::Unexpected { what: "record" });
        }
        if let DataRecord::Begin { attempt, content } = record {
            want.begun[usize::from(*attempt)] = Some(content.size.div_ceil(limits::SEGMENT_BYTES));
            return Ok(false);
        }
        let Some(segments) = record.settles() else {
            want.taken += 1;
            // Each comes once an attempt, and none beyond what the end said.
            let begun = want.begun.iter().flatten().fold(0, |sum: u64, count| sum.saturating_add(*count));
            if want.taken > want.announced.map_or(begun, |segments| segments.min(begun)) {
                return Err(FlowError::Unexpected { what: "segment" });
            }
            return Ok(false);
        };
        if want.announced.is_some() || want.taken > segments {
            return Err(FlowError::Unexpected { what: "end of a file" });
        }
        want.announced = Some(segments);
        if want.done == segments {
            return Ok(self.settle(key));
        }
        want.early_end_bytes = record.payload_bytes();
        self.early_end_bytes = self.early_end_bytes.saturating_add(want.early_end_bytes);
        if self.early_end_bytes > self.limits.early_end_bytes {
            return Err(FlowError::Excess { what: "ends of files before their segments" });
        }
        Ok(false)
    }

    /// A segment that [`ReceiverFlow::on_record`] took was worked on. True: it was the last, and the want is settled.
    pub fn segment_done(&mut self, key: FileKey) -> bool {
        if let Some(want) = self.wants.get_mut(&key) {
            want.done += 1;
        }
        self.settle(key)
    }

    /// Settles a want if all of its answer is there and worked on.
    fn settle(&mut self, key: FileKey) -> bool {
        let Some(want) = self.wants.get(&key).filter(|want| want.announced == Some(want.done)) else { return false };
        self.wanted_bytes = self.wanted_bytes.saturating_sub(want.bytes);
        self.early_end_bytes = self.early_end_bytes.saturating_sub(want.early_end_bytes);
        self.wants.remove(&key);
        true
    }

    /// Wants without an answer.
    pub fn outstanding_wants(&self) -> usize {
        self.wants.len()
    }

    /// Whether everything that was listed is settled.
    pub fn is_settled(&self) -> bool {
        self.ended && self.pieces.is_empty() && self.wants.is_empty()
    }
}
