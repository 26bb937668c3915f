//! One big file over several lanes: whoever has a lane takes the next segment.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError};

use super::answer::Unsent;
use super::feed::Feed;
use super::out_frame::{Attempt, OutFrame};
use crate::fs;
use crate::limits;
use crate::model::{Digest, SegmentDigests, ZERO_SEGMENT_DIGEST_BYTES, segment_digest};
use crate::monitor::Counters;
use crate::sync::content::DataMap;
use crate::sync::receiver::IDLE_LOOK;
use crate::sync::sender::read::SourceFile;

/// Segments that a file has at least before other lanes are asked for help: below, one lane is as fast.
pub(super) const SPREAD_SEGMENTS_MIN: u64 = 8;

/// A read of a file whose segments are sent by everyone who helps.
pub(super) struct Spread {
    pub(super) attempt: Attempt,
    source: Arc<SourceFile>,
    count: u64,
    next: AtomicU64,
    state: Mutex<State>,
    changed: Condvar,
}

struct State {
    digests: SegmentDigests,
    helpers: usize,
    closed: bool,
    whole: bool,
    failed: Option<Unsent>,
}

impl Spread {
    pub(super) fn new(attempt: Attempt, source: Arc<SourceFile>) -> Spread {
        let digests = SegmentDigests::new(attempt.content.size);
        Spread {
            attempt,
            source,
            count: digests.count(),
            next: AtomicU64::new(0),
            state: Mutex::new(State { digests, helpers: 0, closed: false, whole: true, failed: None }),
            changed: Condvar::new(),
        }
    }

    pub(super) fn segments(&self) -> u64 {
        self.count
    }

    /// Sends segments as long as there are some, for a lane that was asked to.
    pub(super) fn help(&self, feed: &Feed, frame: &mut OutFrame<'_>) {
        {
            let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
            if state.closed {
                return;
            }
            state.helpers += 1;
        }
        self.send(feed, frame);
        frame.send();
        self.state.lock().unwrap_or_else(PoisonError::into_inner).helpers -= 1;
        self.changed.notify_all();
    }

    /// Sends segments, then waits for those who helped. The digest of the whole, and whether all of it was there.
    pub(super) fn lead(&self, feed: &Feed, frame: &mut OutFrame<'_>) -> Result<(Digest, bool), Unsent> {
        self.send(feed, frame);
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        // Who helps stays until nothing is left to send, so this is the end of all of it.
        while state.helpers > 0 {
            state = self.changed.wait_timeout(state, IDLE_LOOK).unwrap_or_else(PoisonError::into_inner).0;
        }
        state.closed = true;
        if let Some(unsent) = state.failed.take() {
            return Err(unsent);
        }
        if feed.session.is_ending() {
            return Err(Unsent::Ending);
        }
        let digests = std::mem::replace(&mut state.digests, SegmentDigests::new(0));
        let whole = state.whole;
        digests.finish().map(|digest| (digest, whole)).ok_or(Unsent::Changed)
    }

    fn send(&self, feed: &Feed, frame: &mut OutFrame<'_>) {
        let mut data = DataMap::new(&self.source.file, self.attempt.content.size);
        loop {
            // The control lane is the slow way: it is left as soon as a data lane is at it.
            if frame.is_queued() && self.is_helped() {
                return;
            }
            let index = self.next.fetch_add(1, Ordering::Relaxed);
            if index >= self.count || feed.session.is_ending() {
                return;
            }
            if let Err(unsent) = self.send_segment(index, &mut data, feed, frame) {
                // Nobody takes another one.
                self.next.store(self.count, Ordering::Relaxed);
                self.state.lock().unwrap_or_else(PoisonError::into_inner).failed.get_or_insert(unsent);
                return;
            }
        }
    }

    fn is_helped(&self) -> bool {
        self.state.lock().unwrap_or_else(PoisonError::into_inner).helpers > 0
    }

    fn set(&self, index: u64, digest: Digest) {
        self.state.lock().unwrap_or_else(PoisonError::into_inner).digests.set(index, digest);
    }

    fn send_segment(
        &self,
        index: u64,
        data: &mut DataMap<'_>,
        feed: &Feed,
        frame: &mut OutFrame<'_>,
    ) -> Result<(), Unsent> {
        let start = index * limits::SEGMENT_BYTES;
        let length = (self.attempt.content.size - start).min(limits::SEGMENT_BYTES) as usize;
        let full = length as u64 == limits::SEGMENT_BYTES;
        if full && !data.has_data(start, start + limits::SEGMENT_BYTES).map_err(|error| feed.read_error(error))? {
            self.set(index, Digest(ZERO_SEGMENT_DIGEST_BYTES));
            let zeros = crate::wire::DataRecord::ZeroSegment { attempt: self.attempt.number, index };
            frame.push_of(&self.attempt, &zeros);
            return Ok(());
        }
        let mut bytes = std::mem::take(&mut frame.file);
        bytes.resize(length, 0);
        let read = fs::read_exact_or_eof_at(&self.source.file, &mut bytes, start);
        let sent = match read {
            Err(error) => Err(feed.read_error(error)),
            Ok(read) if read < length && !feed.session.options.live => Err(Unsent::Changed),
            Ok(read) => {
                if read < length {
                    // What is missing is sent as zeros; the file is not taken for whole.
                    self.state.lock().unwrap_or_else(PoisonError::into_inner).whole = false;
                    bytes[read..].fill(0);
                }
                let digest = segment_digest(&bytes);
                self.set(index, digest);
                frame.push_segment(&self.attempt, index, digest, &bytes);
                Counters::add(&feed.session.counters().bytes_transferred, length as u64);
                Ok(())
            }
        };
        frame.file = bytes;
        sent
    }
}
