//! The sender of a simulated session: threads that walk, threads that answer.

use std::collections::{BTreeMap, HashMap, VecDeque};

use super::super::flow::listed;
use super::{Link, Rng};
use crate::limits;
use crate::model::{Digest, DirId, Kind, Name, Piece, PieceId, Timestamp, piece_cost};
use crate::wire::flow::FlowLimits;
use crate::wire::{
    Content, DataRecord, Encoding, Failure, FileKey, ListingEnd, Message, MessageKind, SenderFlow, WantMode,
    encode_listing,
};

/// A directory that waits to be listed: its entries by kind and length.
struct Plan {
    id: DirId,
    entries: Vec<(Kind, u64)>,
    next: usize,
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

/// What is left to be sent of an answer: parts of frames. All but the last may take any lane in any order; the last
/// leaves when the others have left.
struct Answering {
    key: FileKey,
    parts: VecDeque<Vec<u8>>,
}

pub(super) struct Sender {
    flow: SenderFlow,
    wanted_bytes: u64,
    piece_entries_max: u64,
    waiting: Vec<Plan>,
    /// Directories that threads are listing.
    walking: Vec<Option<Plan>>,
    /// Entries that directories not planned yet may have.
    entries_left: u64,
    directories: u64,
    ended: bool,
    sizes: HashMap<FileKey, u64>,
    jobs: Vec<(FileKey, WantMode)>,
    answering: Vec<Answering>,
    unreleased: BTreeMap<PieceId, u64>,
    wants_unanswered: usize,
    files: u64,
}

impl Sender {
    pub(super) fn new(rng: &mut Rng, limits: FlowLimits, piece_entries_max: u64, entries: u64) -> Sender {
        let mut entries_left = entries;
        let root = plan(rng, DirId::ROOT, &mut entries_left, limits.wanted_bytes);
        Sender {
            flow: SenderFlow::within(limits),
            wanted_bytes: limits.wanted_bytes,
            piece_entries_max,
            waiting: vec![root],
            walking: (0..1 + rng.below(4)).map(|_| None).collect(),
            entries_left,
            directories: 1,
            ended: false,
            sizes: HashMap::new(),
            jobs: Vec::new(),
            answering: Vec::new(),
            unreleased: BTreeMap::new(),
            wants_unanswered: 0,
            files: 0,
        }
    }

    pub(super) fn has_ended(&self) -> bool {
        self.ended
    }

    pub(super) fn has_jobs(&self) -> bool {
        !self.jobs.is_empty()
    }

    pub(super) fn is_answering(&self) -> bool {
        !self.answering.is_empty()
    }

    pub(super) fn is_settled(&self) -> bool {
        self.flow.is_settled()
    }

    pub(super) fn files(&self) -> u64 {
        self.files
    }

    pub(super) fn check(&self, limits: &FlowLimits) {
        let listed: u64 = self.unreleased.values().sum();
        assert!(listed <= limits.entries, "{listed} listed");
        assert!(self.wants_unanswered <= limits.wants, "{} wants", self.wants_unanswered);
        // The queue of wants is unbounded as a queue.
        assert!(self.jobs.len() + self.answering.len() <= limits.wants);
        assert!(self.directories <= limits.directories as u64, "{} directories", self.directories);
    }

    /// A thread lists one piece more, or the listings end; `None` where it has to wait for credit.
    pub(super) fn list(&mut self, rng: &mut Rng, down: &mut Link) -> Option<u64> {
        let walker = rng.below(self.walking.len() as u64) as usize;
        if self.walking.iter().all(Option::is_none) && self.waiting.is_empty() {
            self.flow.end();
            self.ended = true;
            down.say(&Message::ListingEnd(ListingEnd::default()));
            return Some(u64::MAX);
        }
        let busy: Vec<usize> = (0..self.walking.len()).filter(|&index| self.walking[index].is_some()).collect();
        let walker = match (&self.walking[walker], self.waiting.pop()) {
            (None, Some(next)) => {
                self.walking[walker] = Some(next);
                walker
            }
            (Some(_), next) => {
                self.waiting.extend(next);
                walker
            }
            (None, None) => rng.pick(&busy),
        };
        let dir = self.walking[walker].as_mut()?;
        let left = dir.entries.len() - dir.next;
        let count = left.min(1 + rng.below(self.piece_entries_max) as usize);
        if !self.flow.reserve(count) {
            return None;
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
        assert!(self.flow.may_announce(&piece));
        self.flow.open(&mut piece);
        self.directories = self.directories + piece.children() - u64::from(piece.last);
        if piece.last {
            self.walking[walker] = None;
        }
        for offset in (0..piece.children()).rev() {
            let id = DirId(piece.first_child.0 + offset);
            let child = plan(rng, id, &mut self.entries_left, self.wanted_bytes);
            // Some go to the front: the order of directories is the sender's own affair.
            let place = if rng.one_in(3) { 0 } else { self.waiting.len() };
            self.waiting.insert(place, child);
        }
        for (index, entry) in piece.entries.iter().enumerate() {
            if entry.entry.metadata.kind == Kind::File {
                let key = FileKey { piece: piece.id, index: index as u16 };
                self.sizes.insert(key, entry.entry.metadata.size);
                self.files += 1;
            }
        }
        self.unreleased.insert(piece.id, piece_cost(count));
        down.control.push_back((MessageKind::Listing, encode_listing(&piece)));
        Some(piece.id.0)
    }

    pub(super) fn read(&mut self, message: Message) {
        match message {
            Message::Wants { piece, wants } => {
                self.flow.on_wants(piece, &wants).unwrap();
                self.wants_unanswered += wants.len();
                for want in wants {
                    self.jobs.push((FileKey { piece, index: want.index }, want.mode));
                }
            }
            Message::Release { piece, .. } => {
                self.flow.on_release(piece).unwrap();
                self.unreleased.remove(&piece).unwrap();
            }
            other => panic!("{other:?}"),
        }
    }

    /// A thread takes a want, and knows what it will answer.
    pub(super) fn begin_answer(&mut self, rng: &mut Rng) -> u64 {
        let job = rng.below(self.jobs.len() as u64) as usize;
        let (key, mode) = self.jobs.swap_remove(job);
        let parts = answer_parts(rng, key, &mode, self.sizes[&key]);
        self.answering.push(Answering { key, parts });
        key.piece.0
    }

    /// A thread fills a frame: what comes next of one answer, or of several.
    pub(super) fn answer(&mut self, rng: &mut Rng) -> Vec<u8> {
        let mut frame = Vec::new();
        for _ in 0..1 + rng.below(3) {
            if self.answering.is_empty() {
                break;
            }
            let chosen = rng.below(self.answering.len() as u64) as usize;
            let Answering { key, parts } = &mut self.answering[chosen];
            let key = *key;
            frame.extend(parts.pop_front().unwrap_or_default());
            if parts.is_empty() {
                self.answering.swap_remove(chosen);
                // Before it leaves: what arrives wrong is wanted again at once.
                self.flow.answered(key);
                self.wants_unanswered -= 1;
            }
        }
        frame
    }
}

/// Parts of frames that answer a want, the settling record in the last.
fn answer_parts(rng: &mut Rng, key: FileKey, mode: &WantMode, size: u64) -> VecDeque<Vec<u8>> {
    let is_delta = matches!(mode, WantMode::Delta { .. });
    let content = |size| Content { size, mtime: Timestamp::default(), mode: 0o644, uid: 0, gid: 0 };
    let digest = Digest([1; 32]);
    let encode = |records: &[DataRecord<'_>]| {
        let mut bytes = Vec::new();
        records.iter().for_each(|record| record.encode(key, &mut bytes));
        bytes
    };
    let failed = |segments| DataRecord::Failed { segments, failure: Failure::Vanished, errno: 2, text: b"gone" };
    let small = |size, segments| DataRecord::Small {
        content: content(size),
        digest,
        live: false,
        segments,
        encoding: Encoding::Raw,
        bytes: b"small",
    };
    if *mode == WantMode::Digest {
        let record = if rng.one_in(12) { failed(0) } else { DataRecord::Digest { digest } };
        return VecDeque::from([encode(&[record])]);
    }
    let may_be_same = matches!(mode, WantMode::IfDiffers(_) | WantMode::Delta { digest: Some(_), .. });
    let mut parts = VecDeque::new();
    let mut segments = 0;
    for attempt in 0..limits::CHANGED_FILE_READS_MAX as u8 {
        // It is another length whenever it is read again.
        let size = if attempt == 0 { size } else { rng.below(3 * limits::SEGMENT_BYTES) };
        if rng.one_in(12) {
            parts.push_back(encode(&[failed(segments)]));
            return parts;
        }
        if may_be_same && rng.one_in(2) {
            parts.push_back(encode(&[DataRecord::Same { content: content(size), segments }]));
            return parts;
        }
        if size <= limits::SMALL_FILE_BYTES_MAX && !is_delta {
            parts.push_back(encode(&[small(size, segments)]));
            return parts;
        }
        let begin = DataRecord::Begin { attempt, content: content(size) };
        let count = size.div_ceil(limits::SEGMENT_BYTES);
        let mut order: Vec<u64> = (0..count).collect();
        // Whoever has a lane takes the next one, and threads take their time.
        for index in 1..order.len() {
            order.swap(index, index - rng.below(3.min(index as u64 + 1)) as usize);
        }
        // It is found to have changed at any segment, or after the last.
        let changed = !rng.one_in(3) && attempt + 1 < limits::CHANGED_FILE_READS_MAX as u8 && rng.one_in(2);
        if changed {
            order.truncate(rng.below(count + 1) as usize);
        }
        for group in order.chunks(1 + rng.below(3) as usize) {
            let mut records = vec![begin.clone()];
            records.extend(group.iter().map(|&index| match rng.below(3) {
                0 => DataRecord::ZeroSegment { attempt, index },
                1 if is_delta => DataRecord::Patch {
                    attempt,
                    index,
                    digest,
                    encoding: Encoding::Raw,
                    decoded_bytes: 5,
                    bytes: b"piece",
                },
                _ => DataRecord::Segment { attempt, index, digest, encoding: Encoding::Lz4, bytes: b"piece" },
            }));
            parts.push_back(encode(&records));
        }
        segments += order.len() as u64;
        if !changed {
            parts.push_back(encode(&[begin, DataRecord::End { attempt, digest, live: false, segments }]));
            return parts;
        }
    }
    parts.push_back(encode(&[failed(segments)]));
    parts
}
