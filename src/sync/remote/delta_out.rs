//! A file against the receiver's basis: signatures come window by window, instructions leave segment by segment.

use std::sync::PoisonError;

use crossbeam_channel::Receiver as Inbox;

use super::answer::Unsent;
use super::feed::Feed;
use super::out_frame::{Attempt, OutFrame};
use crate::delta::{BasisIndex, Instruction, MatchState, Segment, WindowSignature, encode_instructions, match_segment};
use crate::fs;
use crate::limits;
use crate::model::{SegmentDigests, segment_digest};
use crate::monitor::Counters;
use crate::sync::sender::read::SourceFile;
use crate::wire::{DataRecord, FileKey};

/// The receiver's basis.
pub(super) struct Basis {
    pub(super) bytes: u64,
    pub(super) block_bytes: u32,
    pub(super) same_offset_only: bool,
}

impl Basis {
    fn windows(&self) -> u64 {
        self.bytes.div_ceil(limits::DELTA_WINDOW_BYTES)
    }
}

/// Makes room for the signatures of a file. Before its want is worked on, so that none can arrive too early.
pub(super) fn open(feed: &Feed, key: FileKey) {
    let (outbox, inbox) = crossbeam_channel::bounded(limits::DELTA_WINDOWS_AHEAD_MAX + 2);
    feed.deltas.lock().unwrap_or_else(PoisonError::into_inner).insert(key, outbox);
    feed.signatures.lock().unwrap_or_else(PoisonError::into_inner).insert(key, inbox);
}

/// What has arrived of the basis.
pub(super) struct Arriving {
    index: BasisIndex,
    inbox: Inbox<Vec<u8>>,
    received: u64,
    windows: u64,
}

impl Arriving {
    /// The signatures of a wanted file; `None` where they were taken before.
    pub(super) fn of(feed: &Feed, key: FileKey, basis: &Basis) -> Option<Arriving> {
        let inbox = feed.signatures.lock().unwrap_or_else(PoisonError::into_inner).remove(&key)?;
        let index = BasisIndex::new(basis.bytes, basis.block_bytes).ok()?;
        Some(Arriving { index, inbox, received: 0, windows: basis.windows() })
    }

    /// Whether [`Arriving::reach`] would not wait.
    fn has(&self, offset: u64) -> bool {
        let wanted = (offset / limits::DELTA_WINDOW_BYTES + 1).min(self.windows);
        self.received + self.inbox.len() as u64 >= wanted
    }

    /// Waits until the window with `offset` has arrived, as far as the basis has one.
    fn reach(&mut self, offset: u64, feed: &Feed) -> Result<(), Unsent> {
        let wanted = (offset / limits::DELTA_WINDOW_BYTES + 1).min(self.windows);
        loop {
            while let Ok(bytes) = self.inbox.try_recv() {
                self.take(&bytes)?;
            }
            if self.received >= wanted {
                return Ok(());
            }
            if feed.session.is_ending() {
                return Err(Unsent::Ending);
            }
            if let Ok(bytes) = self.inbox.recv_timeout(crate::sync::receiver::IDLE_LOOK) {
                self.take(&bytes)?;
            }
        }
    }

    fn take(&mut self, bytes: &[u8]) -> Result<(), Unsent> {
        // A signature that does not fit only costs matches: the digest decides about content.
        if let Ok(window) = WindowSignature::decode(bytes) {
            let _costs_matches_only = self.index.insert(window);
        }
        self.received += 1;
        Ok(())
    }
}

/// Sends a file as instructions; the digests of its segments.
pub(super) fn send(
    feed: &Feed,
    attempt: &Attempt,
    source: &SourceFile,
    basis: &Basis,
    mut arriving: Arriving,
    frame: &mut OutFrame<'_>,
) -> Result<SegmentDigests, Unsent> {
    let content = attempt.content;
    let number = attempt.number;
    let state = MatchState::new();
    let mut digests = SegmentDigests::new(content.size);
    let around = u64::from(basis.block_bytes);
    let mut buffer = Vec::new();
    let mut instructions = Vec::new();
    for index in 0..digests.count() {
        let start = index * limits::SEGMENT_BYTES;
        let length = (content.size - start).min(limits::SEGMENT_BYTES);
        // What is done must not wait here: the receiver signs on only as segments arrive.
        if !arriving.has((start + length).saturating_add(limits::DELTA_SEARCH_RADIUS_BYTES)) {
            frame.send();
        }
        arriving.reach((start + length).saturating_add(limits::DELTA_SEARCH_RADIUS_BYTES), feed)?;
        let shifted = (start + length).saturating_add_signed(state.shift());
        let ahead = start + (limits::DELTA_WINDOWS_AHEAD_MAX as u64 - 2) * limits::DELTA_WINDOW_BYTES;
        if !arriving.has(shifted.min(ahead)) {
            frame.send();
        }
        arriving.reach(shifted.min(ahead), feed)?;
        let behind = limits::DELTA_WINDOWS_AHEAD_MAX as u64 * limits::DELTA_WINDOW_BYTES;
        arriving.index.forget_before(start.saturating_sub(behind));
        let from = start.saturating_sub(around);
        let to = (start + length + around).min(content.size);
        buffer.resize((to - from) as usize, 0);
        let read = fs::read_exact_or_eof_at(&source.file, &mut buffer, from).map_err(|error| feed.read_error(error))?;
        if read < buffer.len() {
            if !feed.session.options.live {
                return Err(Unsent::Changed);
            }
            buffer[read..].fill(0);
        }
        let range = (start - from) as usize..(start - from + length) as usize;
        let bytes = &buffer[range.clone()];
        let mut found = match_segment(&Segment { data: &buffer, range, offset: start }, &arriving.index, &state);
        let digest = found.digest.unwrap_or_else(|| segment_digest(bytes));
        digests.set(index, digest);
        if basis.same_offset_only {
            keep_in_place(&mut found.instructions, start);
        }
        let literal_bytes: usize = found.instructions.iter().map(literal_bytes).sum();
        Counters::add(&feed.session.counters().bytes_transferred, literal_bytes as u64);
        match &found.instructions[..] {
            [Instruction::Zero { len }] if *len as u64 == length => {
                frame.push_of(attempt, &DataRecord::ZeroSegment { attempt: number, index });
            }
            _ if literal_bytes == bytes.len() => frame.push_segment(attempt, index, digest, bytes),
            _ => {
                instructions.clear();
                encode_instructions(&found.instructions, bytes, &mut instructions);
                frame.push_patch(attempt, index, digest, &instructions);
            }
        }
    }
    Ok(digests)
}

fn literal_bytes(instruction: &Instruction) -> usize {
    match instruction {
        Instruction::Literal { range } => range.len(),
        _ => 0,
    }
}

/// `--inplace` overwrites its basis: only what stays where it is can be taken from it.
fn keep_in_place(instructions: &mut [Instruction], offset: u64) {
    let mut at = 0;
    for instruction in instructions {
        let length = instruction.output_bytes();
        if matches!(instruction, Instruction::Copy { basis_offset, .. } if *basis_offset != offset + at as u64) {
            *instruction = Instruction::Literal { range: at..at + length };
        }
        at += length;
    }
}
