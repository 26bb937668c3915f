//! The sender's side: what of one segment of the new file the basis holds.

use std::ops::Range;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};

use super::search::{SearchIndex, Searcher};
use super::sums::SegmentSums;
use super::{BasisIndex, Instruction, is_all_zero};
use crate::limits;
use crate::model::Digest;

/// What earlier segments of a file taught. Shared by all threads that match segments of the file; the order in which
/// they do changes what is found, never whether it is right.
#[derive(Debug, Default)]
pub struct MatchState {
    /// Basis offset minus file offset of the last copy found; 0 at first.
    shift: AtomicI64,
    /// Bytes searched in vain since the search last found anything.
    fruitless_bytes: AtomicU64,
    /// Segments that would have been searched, since the search was given up.
    passed_over: AtomicU64,
}

impl MatchState {
    /// Nothing learnt yet.
    pub fn new() -> MatchState {
        MatchState::default()
    }

    /// The last shift found (basis offset minus file offset): where the caller should hold windows besides the
    /// segment's own place.
    pub fn shift(&self) -> i64 {
        self.shift.load(Ordering::Relaxed)
    }

    /// How to search the next segment that has something to search for. Given up once too much was searched in vain,
    /// save a wide look now and then: a file may begin with what is new and go on with what has only moved, or has
    /// moved far.
    fn reach(&self) -> Reach {
        if self.fruitless_bytes.load(Ordering::Relaxed) < limits::DELTA_FRUITLESS_BYTES_MAX {
            return Reach::Near;
        }
        let turn = self.passed_over.fetch_add(1, Ordering::Relaxed) % limits::DELTA_PROBE_INTERVAL;
        if turn == limits::DELTA_PROBE_INTERVAL - 1 { Reach::Everywhere } else { Reach::Nowhere }
    }
}

/// Where a search looks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Reach {
    Nowhere,
    /// Around the segment's own place and where the last shift puts it.
    Near,
    /// In all windows that are held.
    Everywhere,
}

/// One segment of the new file with some of its surroundings. A block that reaches over the segment's edge can only be
/// found when its bytes are seen; a block's length on each side is enough. Without surroundings a shifted file costs
/// up to one block of literals for each segment.
#[derive(Debug, Clone)]
pub struct Segment<'a> {
    /// The segment, with what lies before and behind it in the file.
    pub data: &'a [u8],
    /// Where in `data` the segment is.
    pub range: Range<usize>,
    /// Offset of the segment in the file.
    pub offset: u64,
}

/// One segment's search.
struct Scan<'a> {
    searcher: Searcher<'a>,
    false_matches: u32,
    found: bool,
}

impl Scan<'_> {
    /// Whether too many weak sums have matched in vain. Data that provokes them would make the search hash every byte
    /// many times over.
    fn is_exhausted(&self) -> bool {
        self.false_matches > limits::DELTA_FALSE_MATCHES_MAX
    }
}

/// What was found, and at what cost.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SegmentMatch {
    /// How to rebuild the segment; literals are ranges of the segment (not of its surroundings).
    pub instructions: Vec<Instruction>,
    /// Bytes of all literals.
    pub literal_bytes: u64,
    /// Bytes that were hashed.
    pub hashed_bytes: u64,
    /// Bytes that the rolling search went over.
    pub searched_bytes: u64,
    /// The segment's digest, where it starts at a multiple of `limits::SEGMENT_BYTES`: its blocks are hashed anyway.
    pub digest: Option<Digest>,
}

/// Part of `Segment::data` whose content is known to be had without sending it.
#[derive(Debug, Clone, Copy)]
struct Claim {
    start: usize,
    end: usize,
    /// Offset in the basis of `start`; `None` for zeros.
    basis_offset: Option<u64>,
}

/// Matches one segment against the windows of the basis that `basis` holds. Any segment and any basis will do: what is
/// not held is not found. The work is bounded by a small multiple of the segment's bytes.
///
/// # Panics
/// When `segment.range` does not lie in `segment.data`, or begins farther into it than the segment into the file.
pub fn match_segment(segment: &Segment<'_>, basis: &BasisIndex, state: &MatchState) -> SegmentMatch {
    assert!(segment.range.start <= segment.range.end && segment.range.end <= segment.data.len(), "segment's range");
    assert!(segment.range.start as u64 <= segment.offset, "segment's offset");
    let mut matching = Matching {
        segment,
        block_bytes: basis.block_bytes() as usize,
        basis,
        claims: Vec::new(),
        hashed_bytes: 0,
        searched_bytes: 0,
        sums: SegmentSums::default(),
        digest: None,
    };
    matching.sum();
    matching.claim_zeros();
    let shift = state.shift();
    matching.claim_at_shift(shift);
    if shift != 0 {
        matching.claim_at_shift(0);
    }
    matching.search(state);
    matching.finish(state)
}

struct Matching<'a> {
    segment: &'a Segment<'a>,
    basis: &'a BasisIndex,
    block_bytes: usize,
    /// In any order; they may overlap, since each is right by itself.
    claims: Vec<Claim>,
    hashed_bytes: u64,
    searched_bytes: u64,
    /// Of the segment's aligned blocks; empty where the segment is not one of the file's.
    sums: SegmentSums,
    digest: Option<Digest>,
}

impl Matching<'_> {
    /// Hashes the segment's aligned blocks, and with that the segment.
    fn sum(&mut self) {
        let bytes = &self.segment.data[self.segment.range.clone()];
        if self.segment.offset.is_multiple_of(limits::SEGMENT_BYTES) && bytes.len() as u64 <= limits::SEGMENT_BYTES {
            self.digest = Some(self.sums.take(bytes, self.block_bytes));
        }
    }

    /// The sum of the bytes in `start..end` of the data, where it is known as that of an aligned block.
    fn known_sum(&self, start: usize, end: usize) -> Option<&[u8; 32]> {
        let at = start.checked_sub(self.segment.range.start)?;
        let block_end = (start + self.block_bytes).min(self.segment.range.end);
        if !at.is_multiple_of(self.block_bytes) || end != block_end {
            return None;
        }
        self.sums.of_block(at / self.block_bytes)
    }

    /// Claims the aligned blocks of zeros.
    fn claim_zeros(&mut self) {
        let range = self.segment.range.clone();
        for start in range.clone().step_by(self.block_bytes) {
            let end = (start + self.block_bytes).min(range.end);
            if is_all_zero(&self.segment.data[start..end]) {
                self.claims.push(Claim { start, end, basis_offset: None });
            }
        }
    }

    /// The parts of the segment that nothing claims.
    fn open_ranges(&mut self) -> Vec<Range<usize>> {
        self.claims.sort_unstable_by_key(|claim| claim.start);
        let mut open = Vec::new();
        let mut at = self.segment.range.start;
        for claim in &self.claims {
            if claim.start > at {
                open.push(at..claim.start.min(self.segment.range.end));
            }
            at = at.max(claim.end);
        }
        if at < self.segment.range.end {
            open.push(at..self.segment.range.end);
        }
        open
    }

    /// Claims every block of the basis that, moved by `shift`, lies over an open part and has its content.
    fn claim_at_shift(&mut self, shift: i64) {
        for open in self.open_ranges() {
            // Blocks are aligned in the basis: begin with the one that holds the first open byte, or with the next
            // where the data does not reach back so far. It may lie before the start of the basis.
            let place = i128::from(self.file_offset(open.start)) + i128::from(shift);
            let into_block = place.rem_euclid(self.block_bytes as i128) as usize;
            let mut start = open.start.checked_sub(into_block).unwrap_or(open.start + self.block_bytes - into_block);
            while start < open.end {
                if let Some(offset) = self.file_offset(start).checked_add_signed(shift) {
                    self.claim_block(start, offset);
                }
                start += self.block_bytes;
            }
        }
    }

    /// Offset in the file of the byte at `at` of the data.
    fn file_offset(&self, at: usize) -> u64 {
        self.segment.offset - self.segment.range.start as u64 + at as u64
    }

    /// Claims the block of the basis at `basis_offset` for the data at `start`, if its digest says so; returns its
    /// length then.
    fn claim_block(&mut self, start: usize, basis_offset: u64) -> Option<usize> {
        let (block, length) = self.basis.block_at(basis_offset)?;
        let end = start.checked_add(length)?;
        let bytes = self.segment.data.get(start..end)?;
        self.hashed_bytes += length as u64;
        let sum = if basis_offset == self.file_offset(start) { self.known_sum(start, end) } else { None };
        let matches = match sum {
            Some(sum) if !block.is_zero() => block.has_sum(sum),
            _ => block.matches(bytes, basis_offset),
        };
        if !matches {
            return None;
        }
        let basis_offset = if block.is_zero() { None } else { Some(basis_offset) };
        self.claims.push(Claim { start, end, basis_offset });
        Some(length)
    }

    /// Searches what is still open.
    fn search(&mut self, state: &MatchState) {
        let ranges: Vec<_> = self.open_ranges().into_iter().filter_map(|open| self.searchable(&open)).collect();
        if ranges.is_empty() {
            return;
        }
        let here = self.segment.offset;
        let blocks = match state.reach() {
            Reach::Nowhere => return,
            Reach::Near => {
                let mut places = vec![here];
                places.extend(here.checked_add_signed(state.shift()));
                self.basis.blocks_near(&places, limits::DELTA_SEARCH_RADIUS_BYTES)
            }
            Reach::Everywhere => self.basis.blocks_near(&[here], u64::MAX),
        };
        let Some(index) = SearchIndex::new(self.basis.block_bytes(), &blocks) else { return };
        let mut scan = Scan { searcher: index.searcher(), false_matches: 0, found: false };
        for range in ranges {
            let mut at = range.start;
            while range.end.saturating_sub(at) >= self.block_bytes && !scan.is_exhausted() {
                let piece_end = (at + limits::DELTA_SEARCH_PIECE_BYTES).min(range.end);
                let matched_end = self.search_piece(&mut scan, at..piece_end, range.end);
                // The last places of a piece have not been looked at with a whole block behind them.
                at = matched_end.max(piece_end - self.block_bytes + 1);
            }
        }
        if scan.found {
            state.fruitless_bytes.store(0, Ordering::Relaxed);
            state.passed_over.store(0, Ordering::Relaxed);
        } else {
            state.fruitless_bytes.fetch_add(self.searched_bytes, Ordering::Relaxed);
        }
    }

    /// Searches one piece of the data, following what is found up to `end`; returns where the last match ended, or the
    /// piece's start.
    fn search_piece(&mut self, scan: &mut Scan<'_>, piece: Range<usize>, end: usize) -> usize {
        self.searched_bytes += piece.len() as u64;
        let mut at = piece.start;
        let mut unseen = Vec::new();
        for candidate in scan.searcher.candidates(&self.segment.data[piece.clone()]) {
            let start = piece.start + candidate.at;
            if start < at {
                // Inside a run that an earlier candidate began.
                continue;
            }
            if self.claim_block(start, candidate.basis_offset).is_some() {
                scan.found = true;
                at = self.follow(start, candidate.basis_offset, end);
            } else {
                scan.false_matches += 1;
                // The search took it for a match and went on behind it.
                unseen.push(start + 1..(start + 2 * self.block_bytes - 1).min(piece.end));
            }
            if scan.is_exhausted() {
                return at;
            }
        }
        for place in unseen {
            at = at.max(self.search_piece(scan, place, end));
        }
        at
    }

    /// What to search for one open range: beyond the segment's edges its surroundings too. Nothing where less than two
    /// blocks are left: that is a page that was changed in place, and making an index costs more than such a page.
    fn searchable(&self, open: &Range<usize>) -> Option<Range<usize>> {
        let reach = self.block_bytes.saturating_sub(1);
        let start = if open.start == self.segment.range.start { open.start.saturating_sub(reach) } else { open.start };
        let end =
            if open.end == self.segment.range.end { (open.end + reach).min(self.segment.data.len()) } else { open.end };
        (open.len() >= 2 * self.block_bytes && end - start >= self.block_bytes).then_some(start..end)
    }

    /// After a match: checks the blocks that follow it in the basis by digest alone, over changed ones too as long as
    /// most agree. Returns the end of the last that agrees.
    fn follow(&mut self, start: usize, basis_offset: u64, end: usize) -> usize {
        let mut followed = start + self.block_bytes;
        let mut distance = self.block_bytes;
        let mut matches = 1_u32;
        let mut misses = 0_u32;
        while start + distance < end && misses <= matches {
            match self.claim_block(start + distance, basis_offset.saturating_add(distance as u64)) {
                Some(length) => {
                    matches += 1;
                    followed = start + distance + length;
                }
                None => misses += 1,
            }
            distance += self.block_bytes;
        }
        // Blocks passed over in between are changed blocks: their neighbours on both sides are in place.
        followed
    }

    /// Joins claims and what is left into instructions.
    fn finish(mut self, state: &MatchState) -> SegmentMatch {
        self.claims.sort_unstable_by_key(|claim| claim.start);
        let segment = &self.segment.range;
        let mut instructions = Instructions::default();
        let mut at = segment.start;
        for claim in &self.claims {
            let (start, end) = (claim.start.max(at), claim.end.min(segment.end));
            if start >= end {
                continue;
            }
            instructions.literal(at - segment.start..start - segment.start);
            match claim.basis_offset {
                Some(offset) => {
                    let basis_offset = offset + (start - claim.start) as u64;
                    instructions.copy(basis_offset, end - start);
                    let shift = basis_offset.wrapping_sub(self.file_offset(start)) as i64;
                    state.shift.store(shift, Ordering::Relaxed);
                }
                None => instructions.zero(end - start),
            }
            at = end;
        }
        instructions.literal(at - segment.start..segment.len());
        let mut list = instructions.list;
        if list.len() > limits::DELTA_INSTRUCTIONS_MAX {
            list = vec![Instruction::Literal { range: 0..segment.len() }];
        }
        let literal = |instruction: &Instruction| match instruction {
            Instruction::Literal { range } => range.len() as u64,
            _ => 0,
        };
        SegmentMatch {
            literal_bytes: list.iter().map(literal).sum(),
            instructions: list,
            hashed_bytes: self.hashed_bytes,
            searched_bytes: self.searched_bytes,
            digest: self.digest,
        }
    }
}

/// A list in the making, neighbours merged.
#[derive(Default)]
struct Instructions {
    list: Vec<Instruction>,
}

impl Instructions {
    fn literal(&mut self, range: Range<usize>) {
        if !range.is_empty() {
            self.list.push(Instruction::Literal { range });
        }
    }

    fn copy(&mut self, basis_offset: u64, length: usize) {
        if let Some(Instruction::Copy { basis_offset: before, len }) = self.list.last_mut()
            && *before + *len as u64 == basis_offset
        {
            *len += length;
        } else {
            self.list.push(Instruction::Copy { basis_offset, len: length });
        }
    }

    fn zero(&mut self, length: usize) {
        if let Some(Instruction::Zero { len }) = self.list.last_mut() {
            *len += length;
        } else {
            self.list.push(Instruction::Zero { len: length });
        }
    }
}
