//! The receiver of a simulated session: a thread for each data lane, some for the frames of the control lane, and those
//! that work on pieces.

use std::collections::{BTreeMap, VecDeque};

use super::{Lanes, Link, Rng, Seen};
use crate::model::{Digest, Kind, Piece, PieceId, piece_cost};
use crate::wire::flow::FlowLimits;
use crate::wire::{DataRecord, FileKey, Message, ReceiverFlow, RecordReader, Want, WantMode};

/// Data frames of the control lane that wait for a thread.
const WAITING_FRAMES_MAX: usize = 2;

/// Threads that take frames of the control lane.
const CONTROL_THREADS: usize = 2;

/// A piece that is being worked on.
struct Work {
    piece: Piece,
    next: usize,
    unsettled: usize,
}

/// A file that is wanted.
struct Wanted {
    bytes: u64,
    repairs: u32,
    /// Whether its settling record has content; none before it came.
    end: Option<bool>,
    newest_attempt: u8,
    /// Segments taken, and worked on, by the test's own count.
    taken: u64,
    done: u64,
}

/// A thread that takes data: what is left of its frame, and the file whose segment it is at.
#[derive(Default)]
struct Thread {
    records: VecDeque<Vec<u8>>,
    at: Option<FileKey>,
}

pub(super) struct Receiver {
    flow: ReceiverFlow,
    works: BTreeMap<PieceId, Work>,
    wanted: BTreeMap<FileKey, Wanted>,
    settled_files: u64,
    frames: VecDeque<Vec<u8>>,
    threads: Vec<Thread>,
    pub(super) seen: Seen,
}

/// A frame's records, each by itself.
fn split(payload: &[u8]) -> VecDeque<Vec<u8>> {
    let mut reader = RecordReader::new(payload);
    let mut records = VecDeque::new();
    while let Some((key, record)) = reader.next().unwrap() {
        let mut bytes = Vec::new();
        record.encode(key, &mut bytes);
        records.push_back(bytes);
    }
    records
}

impl Receiver {
    pub(super) fn new(limits: FlowLimits) -> Receiver {
        Receiver {
            flow: ReceiverFlow::within(limits),
            works: BTreeMap::new(),
            wanted: BTreeMap::new(),
            settled_files: 0,
            frames: VecDeque::new(),
            threads: (0..CONTROL_THREADS).map(|_| Thread::default()).collect(),
            seen: Seen::default(),
        }
    }

    pub(super) fn open_lane(&mut self) {
        self.threads.push(Thread::default());
    }

    pub(super) fn threads(&self) -> usize {
        self.threads.len()
    }

    pub(super) fn has_room_for_data(&self) -> bool {
        self.frames.len() < WAITING_FRAMES_MAX
    }

    pub(super) fn is_settled(&self) -> bool {
        self.flow.is_settled()
    }

    pub(super) fn check(&self, limits: &FlowLimits) {
        let wanted = &self.wanted;
        assert!(wanted.len() <= limits.wants);
        assert_eq!(wanted.len(), self.flow.outstanding_wants());
        let bytes: u64 = wanted.values().map(|wanted| wanted.bytes).sum();
        let count = wanted.len();
        assert!(bytes <= limits.wanted_bytes || count <= limits.large_wants, "{bytes} bytes wanted in {count} files");
        // The queue of pieces is unbounded as a queue.
        let cost: u64 = self.works.values().map(|work| piece_cost(work.piece.entries.len())).sum();
        assert!(cost <= limits.entries);
    }

    pub(super) fn check_end(&self, files: u64) {
        assert_eq!(self.settled_files, files);
        assert!(self.frames.is_empty() && self.threads.iter().all(|thread| thread.records.is_empty()));
    }

    /// The reader of the control lane.
    pub(super) fn read(&mut self, message: Message, up: &mut Link) {
        match message {
            Message::Listing(piece) => {
                self.flow.on_piece(&piece).unwrap();
                let work = Work { next: 0, unsettled: piece.entries.len(), piece: *piece };
                let id = work.piece.id;
                self.works.insert(id, work);
                self.release_if_settled(id, up);
            }
            Message::ListingEnd(_) => self.flow.on_listing_end().unwrap(),
            Message::Data(payload) => self.frames.push_back(payload),
            other => panic!("{other:?}"),
        }
    }

    /// Whether a thread that takes data has something to do.
    pub(super) fn can_go_on(&self, thread: usize, lanes: &Lanes) -> bool {
        let is_at_work = self.threads[thread].at.is_some() || !self.threads[thread].records.is_empty();
        is_at_work
            || match thread.checked_sub(CONTROL_THREADS) {
                None => !self.frames.is_empty(),
                Some(lane) => !lanes[lane].is_empty(),
            }
    }

    /// A thread ends the segment that it is at, or takes the next record, or the next frame.
    pub(super) fn go_on(&mut self, thread: usize, rng: &mut Rng, lanes: &mut Lanes, up: &mut Link) {
        if let Some(key) = self.threads[thread].at.take() {
            self.wanted.get_mut(&key).unwrap().done += 1;
            if self.flow.segment_done(key) {
                self.settled(key, rng, up);
            }
        } else if let Some(bytes) = self.threads[thread].records.pop_front() {
            let (key, record) = RecordReader::new(&bytes).next().unwrap().unwrap();
            self.take(thread, key, &record, rng, up);
        } else {
            let frame = match thread.checked_sub(CONTROL_THREADS) {
                None => self.frames.pop_front(),
                Some(lane) => lanes[lane].pop_front(),
            };
            self.threads[thread].records = split(&frame.unwrap());
        }
    }

    fn take(&mut self, thread: usize, key: FileKey, record: &DataRecord<'_>, rng: &mut Rng, up: &mut Link) {
        let wanted = self.wanted.get_mut(&key).unwrap();
        match record {
            DataRecord::Begin { attempt, .. } => wanted.newest_attempt = wanted.newest_attempt.max(*attempt),
            DataRecord::Segment { attempt, .. }
            | DataRecord::ZeroSegment { attempt, .. }
            | DataRecord::Patch { attempt, .. } => {
                wanted.taken += 1;
                self.seen.late_segments += u64::from(*attempt < wanted.newest_attempt);
                self.seen.side_by_side += u64::from(self.threads.iter().any(|other| other.at == Some(key)));
                self.threads[thread].at = Some(key);
            }
            settling => {
                // Kept before it counts, as any thread may be the one that ends the last segment.
                let has_content = matches!(settling, DataRecord::Small { .. } | DataRecord::End { .. });
                assert!(wanted.end.replace(has_content).is_none());
                self.seen.early_ends += u64::from(settling.settles() > Some(wanted.taken));
            }
        }
        if self.flow.on_record(key, record).unwrap() {
            self.settled(key, rng, up);
        }
    }

    /// A want is settled; now and then what came is spoilt, and wanted again at once.
    fn settled(&mut self, key: FileKey, rng: &mut Rng, up: &mut Link) {
        let wanted = self.wanted.remove(&key).unwrap();
        assert_eq!(wanted.taken, wanted.done, "settled while segments of it are worked on");
        assert!(self.threads.iter().all(|thread| thread.at != Some(key)));
        let has_content = wanted.end.expect("settled before its end");
        if has_content && wanted.repairs < 2 && rng.one_in(8) {
            self.want(key, WantMode::Whole, wanted.bytes, wanted.repairs + 1, up);
            return;
        }
        self.settled_files += 1;
        self.settle(key.piece, up);
    }

    fn want(&mut self, key: FileKey, mode: WantMode, bytes: u64, repairs: u32, up: &mut Link) {
        self.flow.want(key, &mode, bytes);
        let wanted = Wanted { bytes, repairs, end: None, newest_attempt: 0, taken: 0, done: 0 };
        self.wanted.insert(key, wanted);
        up.say(&Message::Wants { piece: key.piece, wants: vec![Want { index: key.index, mode }] });
    }

    fn settle(&mut self, piece: PieceId, up: &mut Link) {
        self.works.get_mut(&piece).unwrap().unsettled -= 1;
        self.release_if_settled(piece, up);
    }

    fn release_if_settled(&mut self, piece: PieceId, up: &mut Link) {
        if self.works[&piece].unsettled == 0 {
            self.works.remove(&piece);
            self.flow.release(piece);
            up.say(&Message::Release { piece, safe: Vec::new() });
        }
    }

    fn can_work(&self, work: &Work) -> bool {
        let next = work.piece.entries.get(work.next);
        next.is_some_and(|listed| self.flow.may_want(listed.entry.metadata.size))
    }

    pub(super) fn may_work(&self) -> bool {
        self.works.values().any(|work| self.can_work(work))
    }

    /// A thread goes on with a piece: one entry more.
    pub(super) fn work(&mut self, rng: &mut Rng, up: &mut Link) -> u64 {
        let open: Vec<PieceId> = self.works.iter().filter(|(_, work)| self.can_work(work)).map(|(id, _)| *id).collect();
        let id = rng.pick(&open);
        let work = self.works.get_mut(&id).unwrap();
        let index = work.next;
        work.next += 1;
        let metadata = work.piece.entries[index].entry.metadata;
        if metadata.kind != Kind::File {
            self.settle(id, up);
        } else if rng.one_in(4) {
            // Up to date.
            self.settled_files += 1;
            self.settle(id, up);
        } else {
            let digest = Digest([2; 32]);
            let mode = match rng.below(5) {
                0 => WantMode::IfDiffers(digest),
                1 => WantMode::Digest,
                2 => WantMode::Delta {
                    basis_bytes: metadata.size,
                    block_bytes: 4096,
                    digest: rng.one_in(2).then_some(digest),
                    same_offset_only: false,
                },
                _ => WantMode::Whole,
            };
            self.want(FileKey { piece: id, index: index as u16 }, mode, metadata.size, 0, up);
        }
        index as u64
    }
}
