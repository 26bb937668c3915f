//! Whole sessions without threads or time: both books, queues in between, and a seeded scheduler that picks which of
//! everything that could happen next does. Links take little at once and hold it back for as long as the scheduler
//! likes, so that one side's reader waiting for its own writer would show as a session in which nothing can happen.

use std::collections::{BTreeMap, HashMap, VecDeque};

use super::flow::listed;
use crate::limits;
use crate::model::{Digest, DirId, Kind, Name, Piece, PieceId, Timestamp, piece_cost};
use crate::wire::flow::FlowLimits;
use crate::wire::{
    Content, DataRecord, Encoding, Failure, FileKey, ListingEnd, Message, MessageKind, ReceiverFlow, RecordReader,
    SenderFlow, Want, WantMode, encode_listing,
};

const SEEDS: u64 = 2_000;

/// Frames that a link takes before its reader takes one.
const IN_FLIGHT_MAX: usize = 3;

/// Data frames that wait for the writer.
const WAITING_DATA_MAX: usize = 2;

/// SplitMix64.
struct Rng(u64);

impl Rng {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }

    fn one_in(&mut self, count: u64) -> bool {
        self.below(count) == 0
    }
}

type Frame = (MessageKind, Vec<u8>);

/// One direction of the link.
#[derive(Default)]
struct Link {
    control: VecDeque<Frame>,
    data: VecDeque<Frame>,
    in_flight: VecDeque<Frame>,
}

impl Link {
    fn say(&mut self, message: &Message) {
        self.control.push_back((message.kind(), message.encode()));
    }

    fn can_write(&self) -> bool {
        self.in_flight.len() < IN_FLIGHT_MAX && !(self.control.is_empty() && self.data.is_empty())
    }

    fn write(&mut self) {
        if let Some(frame) = self.control.pop_front().or_else(|| self.data.pop_front()) {
            self.in_flight.push_back(frame);
        }
    }

    fn is_empty(&self) -> bool {
        self.control.is_empty() && self.data.is_empty() && self.in_flight.is_empty()
    }
}

/// A directory that waits to be listed: its entries by kind and length.
struct Plan {
    id: DirId,
    entries: Vec<(Kind, u64)>,
    next: usize,
}

struct Sender {
    flow: SenderFlow,
    waiting: Vec<Plan>,
    /// Entries that directories not planned yet may have.
    entries_left: u64,
    ended: bool,
    sizes: HashMap<FileKey, u64>,
    jobs: Vec<(FileKey, WantMode)>,
    answering: Vec<(FileKey, VecDeque<Vec<u8>>)>,
    unreleased: BTreeMap<PieceId, u64>,
    wants_unanswered: usize,
}

/// A piece that is being worked on.
struct Work {
    piece: Piece,
    next: usize,
    unsettled: usize,
}

struct Receiver {
    flow: ReceiverFlow,
    works: BTreeMap<PieceId, Work>,
    wanted: BTreeMap<FileKey, (WantMode, u64, u32)>,
    settled_files: u64,
}

struct Session {
    rng: Rng,
    limits: FlowLimits,
    piece_entries_max: u64,
    sender: Sender,
    receiver: Receiver,
    down: Link,
    up: Link,
    trace: Vec<(u8, u64)>,
    files: u64,
}

#[derive(Clone, Copy, PartialEq)]
enum Step {
    List,
    Job,
    Answer,
    Work,
    WriteDown,
    WriteUp,
    ReadDown,
    ReadUp,
}

fn plan(rng: &mut Rng, id: DirId, entries_left: &mut u64, wanted_bytes: u64) -> Plan {
    let count = match rng.below(4) {
        0 => rng.below(3),
        1 => rng.below(40),
        _ => rng.below(12),
    };
    let count = count.min(*entries_left);
    *entries_left -= count;
    let entry = |rng: &mut Rng| match rng.below(8) {
        0 | 1 => (Kind::Dir, 0),
        2 => (Kind::Symlink, 5),
        _ => (
            Kind::File,
            match rng.below(6) {
                0 => 0,
                1 => rng.below(5 * limits::SEGMENT_BYTES),
                2 => wanted_bytes + rng.below(1 << 20),
                _ => rng.below(100_000),
            },
        ),
    };
    Plan { id, entries: (0..count).map(|_| entry(rng)).collect(), next: 0 }
}

fn name(index: usize) -> Name {
    Name::new(format!("{index:05}").as_bytes()).unwrap()
}

impl Session {
    fn new(seed: u64) -> Session {
        let mut rng = Rng(seed);
        let piece_entries_max = 1 + rng.below(9);
        let limits = FlowLimits {
            entries: piece_entries_max + 1 + rng.below(30),
            wants: 2 + rng.below(14) as usize,
            large_wants: 1 + rng.below(4) as usize,
            wanted_bytes: 1 + rng.below(4 << 20),
        };
        let mut entries_left = 1 + rng.below(150);
        let root = plan(&mut rng, DirId::ROOT, &mut entries_left, limits.wanted_bytes);
        Session {
            rng,
            limits,
            piece_entries_max,
            sender: Sender {
                flow: SenderFlow::within(limits),
                waiting: vec![root],
                entries_left,
                ended: false,
                sizes: HashMap::new(),
                jobs: Vec::new(),
                answering: Vec::new(),
                unreleased: BTreeMap::new(),
                wants_unanswered: 0,
            },
            receiver: Receiver {
                flow: ReceiverFlow::within(limits),
                works: BTreeMap::new(),
                wanted: BTreeMap::new(),
                settled_files: 0,
            },
            down: Link::default(),
            up: Link::default(),
            trace: Vec::new(),
            files: 0,
        }
    }

    /// Everything that could happen next.
    fn steps(&self) -> Vec<Step> {
        let receiver = &self.receiver;
        let may_work = receiver.works.values().any(|work| {
            work.piece.entries.get(work.next).is_some_and(|listed| receiver.flow.may_want(listed.entry.metadata.size))
        });
        let possible = [
            (Step::List, !self.sender.ended),
            (Step::Job, !self.sender.jobs.is_empty()),
            (Step::Answer, !self.sender.answering.is_empty() && self.down.data.len() < WAITING_DATA_MAX),
            (Step::Work, may_work),
            (Step::WriteDown, self.down.can_write()),
            (Step::WriteUp, self.up.can_write()),
            (Step::ReadDown, !self.down.in_flight.is_empty()),
            (Step::ReadUp, !self.up.in_flight.is_empty()),
        ];
        possible.into_iter().filter(|(_, possible)| *possible).map(|(step, _)| step).collect()
    }

    /// Runs to the end; what happened.
    fn run(mut self) -> Vec<(u8, u64)> {
        let mut blocked = 0;
        while !(self.sender.flow.is_settled() && self.receiver.flow.is_settled()) {
            let mut steps = self.steps();
            // A listing that found no credit is no progress: without another step it never would be.
            if blocked > 0 {
                steps.retain(|step| *step != Step::List);
            }
            assert!(!steps.is_empty(), "nothing can happen and not all is settled, after {} steps", self.trace.len());
            let step = steps[self.rng.below(steps.len() as u64) as usize];
            let progress = self.step(step);
            blocked = if progress { 0 } else { blocked + 1 };
            self.check();
            assert!(self.trace.len() < 200_000, "no end");
        }
        assert_eq!(self.receiver.settled_files, self.files);
        assert!(self.sender.jobs.is_empty() && self.sender.answering.is_empty());
        assert!(self.down.is_empty() && self.up.is_empty(), "something was said after all was settled");
        self.trace
    }

    /// Never more than the limits, by books of the test's own.
    fn check(&self) {
        let listed: u64 = self.sender.unreleased.values().sum();
        assert!(listed <= self.limits.entries, "{listed} listed");
        assert!(self.sender.wants_unanswered <= self.limits.wants, "{} wants", self.sender.wants_unanswered);
        let wanted = &self.receiver.wanted;
        assert!(wanted.len() <= self.limits.wants);
        assert_eq!(wanted.len(), self.receiver.flow.outstanding_wants());
        let bytes: u64 = wanted.values().map(|(_, bytes, _)| bytes).sum();
        let count = wanted.len();
        assert!(
            bytes <= self.limits.wanted_bytes || count <= self.limits.large_wants,
            "{bytes} bytes wanted in {count} files"
        );
        // The receiver's queue of pieces and the sender's of wants, which are unbounded as queues.
        assert!(
            self.receiver.works.values().map(|work| piece_cost(work.piece.entries.len())).sum::<u64>()
                <= self.limits.entries
        );
        assert!(self.sender.jobs.len() + self.sender.answering.len() <= self.limits.wants);
    }

    fn note(&mut self, step: u8, number: u64) {
        self.trace.push((step, number));
    }

    fn step(&mut self, step: Step) -> bool {
        match step {
            Step::List => return self.list(),
            Step::Job => self.begin_answer(),
            Step::Answer => self.answer(),
            Step::Work => self.work(),
            Step::WriteDown => {
                self.down.write();
                self.note(1, 0);
            }
            Step::WriteUp => {
                self.up.write();
                self.note(2, 0);
            }
            Step::ReadDown => {
                let (kind, payload) = self.down.in_flight.pop_front().unwrap();
                self.note(3, kind as u64);
                self.receiver_reads(Message::decode(kind, payload).unwrap());
            }
            Step::ReadUp => {
                let (kind, payload) = self.up.in_flight.pop_front().unwrap();
                self.note(4, kind as u64);
                self.sender_reads(Message::decode(kind, payload).unwrap());
            }
        }
        true
    }

    /// The sender lists one piece, or ends; false where it has to wait for credit.
    fn list(&mut self) -> bool {
        let sender = &mut self.sender;
        let Some(dir) = sender.waiting.last_mut() else {
            sender.flow.end();
            sender.ended = true;
            self.down.say(&Message::ListingEnd(ListingEnd::default()));
            self.note(5, 0);
            return true;
        };
        let left = dir.entries.len() - dir.next;
        let count = left.min(1 + self.rng.below(self.piece_entries_max) as usize);
        if !sender.flow.reserve(count) {
            return false;
        }
        let range = dir.next..dir.next + count;
        let entries =
            range.clone().map(|index| listed(name(index).as_bytes(), dir.entries[index].0, dir.entries[index].1));
        let mut piece = Piece {
            id: PieceId(u64::MAX),
            dir: dir.id,
            first_child: DirId(u64::MAX),
            after: range.start.checked_sub(1).map(name),
            last: range.end == dir.entries.len(),
            whole: true,
            merge_files: Vec::new(),
            entries: entries.collect(),
        };
        dir.next = range.end;
        sender.flow.open(&mut piece);
        if piece.last {
            sender.waiting.pop();
        }
        for offset in (0..piece.children()).rev() {
            let id = DirId(piece.first_child.0 + offset);
            let child = plan(&mut self.rng, id, &mut sender.entries_left, self.limits.wanted_bytes);
            // Some go to the front: the order of directories is the sender's own affair.
            let place = if self.rng.one_in(3) { 0 } else { sender.waiting.len() };
            sender.waiting.insert(place, child);
        }
        for (index, entry) in piece.entries.iter().enumerate() {
            if entry.entry.metadata.kind == Kind::File {
                let key = FileKey { piece: piece.id, index: index as u16 };
                sender.sizes.insert(key, entry.entry.metadata.size);
                self.files += 1;
            }
        }
        sender.unreleased.insert(piece.id, piece_cost(count));
        self.down.control.push_back((MessageKind::Listing, encode_listing(&piece)));
        self.note(6, piece.id.0);
        true
    }

    fn sender_reads(&mut self, message: Message) {
        let sender = &mut self.sender;
        match message {
            Message::Wants { piece, wants } => {
                sender.flow.on_wants(piece, &wants).unwrap();
                sender.wants_unanswered += wants.len();
                for want in wants {
                    sender.jobs.push((FileKey { piece, index: want.index }, want.mode));
                }
            }
            Message::Release { piece, .. } => {
                sender.flow.on_release(piece).unwrap();
                sender.unreleased.remove(&piece).unwrap();
            }
            other => panic!("{other:?}"),
        }
    }

    /// A thread takes a want, and knows what it will answer.
    fn begin_answer(&mut self) {
        let rng = &mut self.rng;
        let job = rng.below(self.sender.jobs.len() as u64) as usize;
        let (key, mode) = self.sender.jobs.swap_remove(job);
        let size = self.sender.sizes[&key];
        let content = Content { size, mtime: Timestamp::default(), mode: 0o644, uid: 0, gid: 0 };
        let digest = Digest([1; 32]);
        let mut records: Vec<DataRecord<'static>> = Vec::new();
        let may_be_same = matches!(mode, WantMode::IfDiffers(_) | WantMode::Delta { digest: Some(_), .. });
        if rng.one_in(12) {
            records.push(DataRecord::Failed { failure: Failure::Vanished, errno: 2, text: b"gone" });
        } else if mode == WantMode::Digest {
            records.push(DataRecord::Digest { digest });
        } else if may_be_same && rng.one_in(2) {
            records.push(DataRecord::Same { content });
        } else if size <= limits::SMALL_FILE_BYTES_MAX && !matches!(mode, WantMode::Delta { .. }) {
            records.push(DataRecord::Small { content, digest, live: false, encoding: Encoding::Raw, bytes: b"small" });
        } else {
            // Read again now and then.
            for _ in 0..=u64::from(rng.one_in(5)) {
                records.push(DataRecord::Begin { content });
                for index in 0..size.div_ceil(limits::SEGMENT_BYTES) {
                    let bytes = &b"piece"[..];
                    records.push(match rng.below(3) {
                        0 => DataRecord::ZeroSegment { index },
                        1 if matches!(mode, WantMode::Delta { .. }) => {
                            DataRecord::Patch { index, digest, encoding: Encoding::Raw, decoded_bytes: 5, bytes }
                        }
                        _ => DataRecord::Segment { index, digest, encoding: Encoding::Lz4, bytes },
                    });
                }
            }
            records.push(DataRecord::End { digest, live: false });
        }
        let encoded = records.iter().map(|record| {
            let mut bytes = Vec::new();
            record.encode(key, &mut bytes);
            bytes
        });
        self.sender.answering.push((key, encoded.collect()));
        self.note(7, key.piece.0);
    }

    /// A thread puts its next record, or several, into a frame.
    fn answer(&mut self) {
        let answering = self.rng.below(self.sender.answering.len() as u64) as usize;
        let (key, records) = &mut self.sender.answering[answering];
        let key = *key;
        let mut frame = Vec::new();
        for _ in 0..1 + self.rng.below(3) {
            frame.extend(records.pop_front().unwrap_or_default());
        }
        if records.is_empty() {
            self.sender.answering.swap_remove(answering);
            self.sender.flow.answered(key);
            self.sender.wants_unanswered -= 1;
        }
        self.down.data.push_back((MessageKind::Data, frame));
        self.note(8, u64::from(key.index));
    }

    fn receiver_reads(&mut self, message: Message) {
        match message {
            Message::Listing(piece) => {
                self.receiver.flow.on_piece(&piece).unwrap();
                let work = Work { next: 0, unsettled: piece.entries.len(), piece: *piece };
                let id = work.piece.id;
                self.receiver.works.insert(id, work);
                self.release_if_settled(id);
            }
            Message::ListingEnd(_) => self.receiver.flow.on_listing_end().unwrap(),
            Message::Data(payload) => {
                let mut reader = RecordReader::new(&payload);
                while let Some((key, record)) = reader.next().unwrap() {
                    if self.receiver.flow.on_record(key, &record).unwrap() {
                        self.answered(key, &record);
                    }
                }
            }
            other => panic!("{other:?}"),
        }
    }

    /// A want is settled; now and then what came is spoilt, and wanted again at once.
    fn answered(&mut self, key: FileKey, record: &DataRecord<'_>) {
        let (_, bytes, repairs) = self.receiver.wanted.remove(&key).unwrap();
        let has_content = matches!(record, DataRecord::Small { .. } | DataRecord::End { .. });
        if has_content && repairs < 2 && self.rng.one_in(8) {
            self.want(key, WantMode::Whole, bytes, repairs + 1);
            return;
        }
        self.receiver.settled_files += 1;
        self.settle(key.piece);
    }

    fn want(&mut self, key: FileKey, mode: WantMode, bytes: u64, repairs: u32) {
        self.receiver.flow.want(key, &mode, bytes);
        self.receiver.wanted.insert(key, (mode.clone(), bytes, repairs));
        self.up.say(&Message::Wants { piece: key.piece, wants: vec![Want { index: key.index, mode }] });
    }

    fn settle(&mut self, piece: PieceId) {
        self.receiver.works.get_mut(&piece).unwrap().unsettled -= 1;
        self.release_if_settled(piece);
    }

    fn release_if_settled(&mut self, piece: PieceId) {
        if self.receiver.works[&piece].unsettled == 0 {
            self.receiver.works.remove(&piece);
            self.receiver.flow.release(piece);
            self.up.say(&Message::Release { piece, safe: Vec::new() });
        }
    }

    /// A thread goes on with a piece: one entry more.
    fn work(&mut self) {
        let receiver = &mut self.receiver;
        let open: Vec<PieceId> = receiver
            .works
            .iter()
            .filter(|(_, work)| {
                work.piece
                    .entries
                    .get(work.next)
                    .is_some_and(|listed| receiver.flow.may_want(listed.entry.metadata.size))
            })
            .map(|(id, _)| *id)
            .collect();
        let id = open[self.rng.below(open.len() as u64) as usize];
        let work = receiver.works.get_mut(&id).unwrap();
        let index = work.next;
        work.next += 1;
        let metadata = work.piece.entries[index].entry.metadata;
        self.note(9, index as u64);
        if metadata.kind != Kind::File {
            return self.settle(id);
        }
        if self.rng.one_in(4) {
            // Up to date.
            self.receiver.settled_files += 1;
            return self.settle(id);
        }
        let digest = Digest([2; 32]);
        let mode = match self.rng.below(5) {
            0 => WantMode::IfDiffers(digest),
            1 => WantMode::Digest,
            2 => WantMode::Delta {
                basis_bytes: metadata.size,
                block_bytes: 4096,
                digest: self.rng.one_in(2).then_some(digest),
                same_offset_only: false,
            },
            _ => WantMode::Whole,
        };
        self.want(FileKey { piece: id, index: index as u16 }, mode, metadata.size, 0);
    }
}

/// Every session settles, within the limits, and the same seed does the same.
#[test]
fn sessions_settle_under_any_schedule() {
    let mut longest = 0;
    for seed in 0..SEEDS {
        let run = || std::panic::catch_unwind(|| Session::new(seed).run());
        let (Ok(first), Ok(second)) = (run(), run()) else { panic!("seed {seed}") };
        assert!(first == second, "seed {seed}: the same seed took another way");
        longest = longest.max(first.len());
    }
    assert!(longest > 1_000, "the trees are too small to show anything: {longest} steps at most");
}
