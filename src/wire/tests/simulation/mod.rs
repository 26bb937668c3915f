//! Whole sessions without threads or time: both books, queues in between, and a seeded scheduler that picks which of
//! everything that could happen next does. Links take little at once and hold it back for as long as the scheduler
//! likes, so that one side's reader waiting for its own writer would show as a session in which nothing can happen.
//! Each data lane keeps its own order and no other.

mod receiver;
mod sender;

use std::collections::VecDeque;

use self::receiver::Receiver;
use self::sender::Sender;
use super::flow::limited;

use crate::wire::flow::FlowLimits;
use crate::wire::{Message, MessageKind};

const SEEDS: u64 = 2_000;

/// Frames that a link takes before its reader takes one.
const IN_FLIGHT_MAX: usize = 3;

/// Data frames that wait for the writer of the control lane.
const WAITING_DATA_MAX: usize = 2;

/// Data lanes at most.
const LANES_MAX: u64 = 4;

/// SplitMix64.
pub(super) struct Rng(u64);

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

    /// One of `choices`, which is not empty.
    fn pick<T: Copy>(&mut self, choices: &[T]) -> T {
        choices[self.below(choices.len() as u64) as usize]
    }
}

type Frame = (MessageKind, Vec<u8>);

/// One direction of the control lane.
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

/// Data lanes: frames in flight in each.
type Lanes = Vec<VecDeque<Vec<u8>>>;

/// Who can take a data frame now: the control lane (`None`) or a lane.
fn ways(down: &Link, lanes: &Lanes) -> Vec<Option<usize>> {
    let control = (down.data.len() < WAITING_DATA_MAX).then_some(None);
    let open = lanes.iter().enumerate().filter(|(_, lane)| lane.len() < IN_FLIGHT_MAX).map(|(lane, _)| Some(lane));
    control.into_iter().chain(open).collect()
}

/// What the schedules have shown; a test of orders in which nothing is out of order shows nothing.
#[derive(Debug, Default, Clone, Copy, PartialEq)]
struct Seen {
    /// Settling records that came before segments of their file.
    early_ends: u64,
    /// Segments that came after one of a later attempt.
    late_segments: u64,
    /// Segments of one file that were worked on by two threads at once.
    side_by_side: u64,
}

struct Session {
    rng: Rng,
    limits: FlowLimits,
    lanes_max: usize,
    sender: Sender,
    receiver: Receiver,
    down: Link,
    up: Link,
    lanes: Lanes,
    trace: Vec<(u8, u64)>,
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
    OpenLane,
    Thread(usize),
}

impl Session {
    fn new(seed: u64) -> Session {
        let mut rng = Rng(seed);
        let piece_entries_max = 1 + rng.below(9);
        let entries = 1 + rng.below(150);
        let limits = FlowLimits {
            // As many as there can be entries, and the root.
            directories: entries as usize + 1,
            ..limited(
                piece_entries_max + 1 + rng.below(30),
                2 + rng.below(14) as usize,
                1 + rng.below(4) as usize,
                1 + rng.below(4 << 20),
            )
        };
        Session {
            limits,
            // A fourth of the sessions has the control lane only.
            lanes_max: if rng.one_in(4) { 0 } else { 1 + rng.below(LANES_MAX) as usize },
            sender: Sender::new(&mut rng, limits, piece_entries_max, entries),
            receiver: Receiver::new(limits),
            down: Link::default(),
            up: Link::default(),
            lanes: Lanes::new(),
            trace: Vec::new(),
            rng,
        }
    }

    /// Everything that could happen next.
    fn steps(&self) -> Vec<Step> {
        let next_is_data = matches!(self.down.in_flight.front(), Some((MessageKind::Data, _)));
        let possible = [
            (Step::List, !self.sender.has_ended()),
            (Step::Job, self.sender.has_jobs()),
            (Step::Answer, self.sender.is_answering() && !ways(&self.down, &self.lanes).is_empty()),
            (Step::Work, self.receiver.may_work()),
            (Step::WriteDown, self.down.can_write()),
            (Step::WriteUp, self.up.can_write()),
            // The reader waits for the disks, and for nothing else.
            (Step::ReadDown, !self.down.in_flight.is_empty() && (!next_is_data || self.receiver.has_room_for_data())),
            (Step::ReadUp, !self.up.in_flight.is_empty()),
            (Step::OpenLane, self.lanes.len() < self.lanes_max),
        ];
        let threads = (0..self.receiver.threads()).filter(|&thread| self.receiver.can_go_on(thread, &self.lanes));
        let threads = threads.map(Step::Thread);
        possible.into_iter().filter(|(_, possible)| *possible).map(|(step, _)| step).chain(threads).collect()
    }

    /// Runs to the end; what happened.
    fn run(mut self) -> (Vec<(u8, u64)>, Seen) {
        let mut blocked = 0;
        while !(self.sender.is_settled() && self.receiver.is_settled()) {
            let mut steps = self.steps();
            // A listing that found no credit is no progress, and neither is another lane: without a further step there
            // never would be any credit.
            if blocked > 0 {
                steps.retain(|step| *step != Step::List);
            }
            let can_happen = steps.iter().any(|step| *step != Step::OpenLane);
            assert!(can_happen, "nothing can happen and not all is settled, after {} steps", self.trace.len());
            let step = self.rng.pick(&steps);
            let progress = self.step(step);
            if step != Step::OpenLane {
                blocked = if progress { 0 } else { blocked + 1 };
            }
            self.check();
            assert!(self.trace.len() < 200_000, "no end");
        }
        self.receiver.check_end(self.sender.files());
        assert!(!self.sender.has_jobs() && !self.sender.is_answering());
        let is_empty = self.down.is_empty() && self.up.is_empty() && self.lanes.iter().all(VecDeque::is_empty);
        assert!(is_empty, "something was said after all was settled");
        (self.trace, self.receiver.seen)
    }

    /// Never more than the limits, by books of the test's own.
    fn check(&self) {
        self.sender.check(&self.limits);
        self.receiver.check(&self.limits);
    }

    fn note(&mut self, step: u8, number: u64) {
        self.trace.push((step, number));
    }

    fn step(&mut self, step: Step) -> bool {
        let number = match step {
            Step::List => {
                let Some(piece) = self.sender.list(&mut self.rng, &mut self.down) else { return false };
                piece
            }
            Step::Job => self.sender.begin_answer(&mut self.rng),
            Step::Answer => {
                let ways = ways(&self.down, &self.lanes);
                let way = self.rng.pick(&ways);
                let payload = self.sender.answer(&mut self.rng);
                match way {
                    None => self.down.data.push_back((MessageKind::Data, payload)),
                    Some(lane) => self.lanes[lane].push_back(payload),
                }
                way.map_or(0, |lane| lane as u64 + 1)
            }
            Step::Work => self.receiver.work(&mut self.rng, &mut self.up),
            Step::WriteDown => {
                self.down.write();
                0
            }
            Step::WriteUp => {
                self.up.write();
                0
            }
            Step::ReadDown => {
                let (kind, payload) = self.down.in_flight.pop_front().unwrap();
                self.receiver.read(Message::decode(kind, payload).unwrap(), &mut self.up);
                kind as u64
            }
            Step::ReadUp => {
                let (kind, payload) = self.up.in_flight.pop_front().unwrap();
                self.sender.read(Message::decode(kind, payload).unwrap());
                kind as u64
            }
            Step::OpenLane => {
                self.lanes.push(VecDeque::new());
                self.receiver.open_lane();
                0
            }
            Step::Thread(thread) => {
                self.receiver.go_on(thread, &mut self.rng, &mut self.lanes, &mut self.up);
                thread as u64
            }
        };
        let code = match step {
            Step::List => 1,
            Step::Job => 2,
            Step::Answer => 3,
            Step::Work => 4,
            Step::WriteDown => 5,
            Step::WriteUp => 6,
            Step::ReadDown => 7,
            Step::ReadUp => 8,
            Step::OpenLane => 9,
            Step::Thread(_) => 10,
        };
        self.note(code, number);
        true
    }
}

/// Every session settles, within the limits, and the same seed does the same.
#[test]
fn sessions_settle_under_any_schedule() {
    let mut longest = 0;
    let mut seen = Seen::default();
    for seed in 0..SEEDS {
        let run = || std::panic::catch_unwind(|| Session::new(seed).run());
        let (Ok(first), Ok(second)) = (run(), run()) else { panic!("seed {seed}") };
        assert!(first == second, "seed {seed}: the same seed took another way");
        longest = longest.max(first.0.len());
        seen.early_ends += first.1.early_ends;
        seen.late_segments += first.1.late_segments;
        seen.side_by_side += first.1.side_by_side;
    }
    assert!(longest > 1_000, "the trees are too small to show anything: {longest} steps at most");
    let least = seen.early_ends.min(seen.late_segments).min(seen.side_by_side);
    assert!(least > SEEDS / 2, "the lanes kept too much order to show anything: {seen:?}");
}
