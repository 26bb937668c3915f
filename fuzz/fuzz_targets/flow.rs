//! Both books of a session, led by one sequence of messages. What the peer would say is checked by the book; what this
//! side would do (open a piece, want a file, release, answer) is done when the book allows it. A plain count beside
//! each book says what must be true of it.
#![no_main]

use std::collections::{HashMap, HashSet};

use libfuzzer_sys::fuzz_target;
use xfer::limits;
use xfer::model::{PieceId, piece_cost};
use xfer::wire::{DataRecord, FileKey, Message, ReceiverFlow, RecordReader, SenderFlow};
use xfer_fuzz::{Input, bounded};

/// What came of a want that is open.
#[derive(Default)]
struct Answer {
    taken: u64,
    done: u64,
    announced: Option<u64>,
}

impl Answer {
    fn is_whole(&self) -> bool {
        self.announced == Some(self.done)
    }
}

/// Messages of one input: kind, length in two bytes, payload.
fn messages(data: &[u8]) -> Vec<Message> {
    let mut input = Input::new(data);
    let mut messages = Vec::new();
    while !input.is_empty() {
        let kind = input.kind();
        if let Ok(message) = Message::decode(kind, input.part().to_vec()) {
            messages.push(message);
        }
    }
    messages
}

fn receive(messages: &[Message]) {
    let mut flow = ReceiverFlow::new();
    let mut pieces: HashMap<PieceId, u64> = HashMap::new();
    let mut wants: HashMap<FileKey, Answer> = HashMap::new();
    let mut unlisted_dirs = 1u64;
    let mut ended = false;
    for message in messages {
        let fine = match message {
            Message::Listing(piece) => flow.on_piece(piece).map(|()| {
                assert!(!ended, "a piece after the end");
                assert!(pieces.insert(piece.id, piece_cost(piece.entries.len())).is_none(), "a piece twice");
                unlisted_dirs += piece.children();
                unlisted_dirs -= u64::from(piece.last);
            }),
            Message::ListingEnd(_) => flow.on_listing_end().map(|()| {
                assert!(!ended && unlisted_dirs == 0, "an end with open directories");
                ended = true;
            }),
            Message::Data(payload) => {
                let mut reader = RecordReader::new(payload);
                let mut outcome = Ok(());
                while let Ok(Some((key, record))) = reader.next() {
                    match flow.on_record(key, &record) {
                        Ok(settled) => {
                            let answer = wants.get_mut(&key).expect("data for what nobody wants");
                            match record.settles() {
                                Some(segments) => answer.announced = Some(segments),
                                None => answer.taken += u64::from(!matches!(record, DataRecord::Begin { .. })),
                            }
                            assert!(answer.announced.is_none_or(|announced| answer.taken <= announced));
                            if settled {
                                assert!(answer.is_whole(), "settled before its time");
                                wants.remove(&key);
                            }
                        }
                        Err(error) => {
                            outcome = Err(error);
                            break;
                        }
                    }
                }
                outcome
            }
            Message::Wants { piece, wants: all } => {
                for want in all {
                    let key = FileKey { piece: *piece, index: want.index };
                    let bytes = u64::from(want.index) << 20;
                    if pieces.contains_key(piece) && !wants.contains_key(&key) && flow.may_want(bytes) {
                        flow.want(key, &want.mode, bytes);
                        wants.insert(key, Answer::default());
                    }
                }
                Ok(())
            }
            // A thread of this side has worked on a segment that came.
            Message::Signature { key, .. } => {
                if let Some(answer) = wants.get_mut(key)
                    && answer.done < answer.taken
                {
                    answer.done += 1;
                    let whole = answer.is_whole();
                    assert_eq!(flow.segment_done(*key), whole);
                    if whole {
                        wants.remove(key);
                    }
                }
                Ok(())
            }
            Message::Release { piece, .. } => {
                flow.release(*piece);
                pieces.remove(piece);
                Ok(())
            }
            _ => Ok(()),
        };
        if fine.is_err() {
            return;
        }
        assert!(pieces.values().sum::<u64>() <= limits::LISTED_ENTRIES_OUTSTANDING_MAX);
        assert_eq!(flow.outstanding_wants(), wants.len());
        assert!(wants.len() <= limits::WANTS_OUTSTANDING_MAX);
        assert_eq!(flow.is_settled(), ended && pieces.is_empty() && wants.is_empty());
    }
}

fn send(messages: &[Message]) {
    let mut flow = SenderFlow::new();
    let mut pieces: HashMap<PieceId, u64> = HashMap::new();
    let mut wants: HashSet<FileKey> = HashSet::new();
    let mut last = None;
    let mut ended = false;
    for message in messages {
        match message {
            Message::Listing(piece) => {
                let entries = piece.entries.len();
                let outstanding: u64 = pieces.values().sum();
                let fits = outstanding + piece_cost(entries) <= limits::LISTED_ENTRIES_OUTSTANDING_MAX;
                assert_eq!(flow.reserve(entries), fits);
                if fits {
                    let mut piece = piece.clone();
                    flow.open(&mut piece);
                    assert!(last.is_none_or(|last| last < piece.id));
                    last = Some(piece.id);
                    pieces.insert(piece.id, piece_cost(entries));
                }
            }
            Message::ListingEnd(_) => {
                flow.end();
                ended = true;
            }
            Message::Wants { piece, wants: all } => {
                if flow.on_wants(*piece, all).is_err() {
                    return;
                }
                assert!(pieces.contains_key(piece));
                for want in all {
                    assert!(wants.insert(FileKey { piece: *piece, index: want.index }), "a want twice");
                }
            }
            Message::Data(payload) => {
                let mut reader = RecordReader::new(payload);
                while let Ok(Some((key, record))) = reader.next() {
                    if record.settles().is_some() && wants.remove(&key) {
                        flow.answered(key);
                    }
                }
            }
            Message::Release { piece, .. } => {
                if flow.on_release(*piece).is_err() {
                    return;
                }
                assert!(pieces.remove(piece).is_some(), "credit for nothing");
            }
            _ => {}
        }
        assert!(wants.len() <= limits::WANTS_OUTSTANDING_MAX);
        assert_eq!(flow.is_settled(), ended && pieces.is_empty());
    }
}

fuzz_target!(|data: &[u8]| {
    let messages = messages(data);
    bounded(data.len(), || receive(&messages));
    bounded(data.len(), || send(&messages));
});
