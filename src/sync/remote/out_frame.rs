//! A data frame that is being filled, and where it goes: the control lane's queue, or a data lane of its own.

use std::sync::atomic::{AtomicU64, Ordering};

use super::feed::Feed;
use crate::limits;
use crate::net::LinkWriter;
use crate::sync::SyncError;
use crate::sync::content::Compressor;
use crate::wire::{Content, DataRecord, FRAME_HEADER_BYTES, FileKey, FrameHeader, MessageKind};

/// One read of a file whose segments are sent.
#[derive(Debug)]
pub(super) struct Attempt {
    pub(super) key: FileKey,
    pub(super) number: u8,
    pub(super) content: Content,
    /// Segments sent so far, whatever lane they took.
    pub(super) segments: AtomicU64,
}

impl Attempt {
    pub(super) fn new(key: FileKey, number: u8, content: Content) -> Attempt {
        Attempt { key, number, content, segments: AtomicU64::new(0) }
    }
}

/// A frame that is being filled, and buffers that are used again.
pub(super) struct OutFrame<'a> {
    feed: &'a Feed,
    records: Vec<u8>,
    /// The attempt that this frame has said it has segments of.
    begun: Option<(FileKey, u8)>,
    lane: Option<LinkWriter>,
    pub(super) compressor: Compressor,
    pub(super) file: Vec<u8>,
}

impl<'a> OutFrame<'a> {
    /// Frames go into the queue of the control lane.
    pub(super) fn queued(feed: &'a Feed) -> OutFrame<'a> {
        OutFrame {
            feed,
            records: Vec::new(),
            begun: None,
            lane: None,
            compressor: Compressor::default(),
            file: Vec::new(),
        }
    }

    /// Whether frames take the control lane.
    pub(super) fn is_queued(&self) -> bool {
        self.lane.is_none()
    }

    /// Frames are written to a lane at once, by the thread that fills them.
    pub(super) fn over(feed: &'a Feed, lane: LinkWriter) -> OutFrame<'a> {
        OutFrame { lane: Some(lane), ..OutFrame::queued(feed) }
    }

    /// Sends what is there.
    pub(super) fn send(&mut self) {
        self.begun = None;
        if self.records.is_empty() {
            return;
        }
        match &mut self.lane {
            None => {
                let mut next = self.feed.line.buffers.take();
                next.reserve(limits::DATA_FRAME_FILL_BYTES);
                self.feed.line.data(std::mem::replace(&mut self.records, next));
            }
            Some(lane) => {
                let header = FrameHeader { payload_bytes: self.records.len(), kind: MessageKind::Data };
                debug_assert_eq!(header.encode().len(), FRAME_HEADER_BYTES);
                if let Err(error) = lane.write_vectored(&header.encode(), &self.records) {
                    self.feed.lane_failed(SyncError::from_link(error));
                }
                self.records.clear();
            }
        }
    }

    /// Ends the lane in order.
    pub(super) fn close(mut self) {
        self.send();
        if let Some(lane) = self.lane.take() {
            // The other end has all it waits for already, or the session has failed for another reason.
            let _end_in_order = lane.close();
        }
    }

    /// Adds a record that says all there is to say of its file.
    pub(super) fn push(&mut self, key: FileKey, record: &DataRecord<'_>) {
        record.encode(key, &mut self.records);
        if self.records.len() >= limits::DATA_FRAME_FILL_BYTES {
            self.send();
        }
    }

    /// Adds a segment, or the end, of an attempt.
    pub(super) fn push_of(&mut self, attempt: &Attempt, record: &DataRecord<'_>) {
        if self.begun != Some((attempt.key, attempt.number)) {
            DataRecord::Begin { attempt: attempt.number, content: attempt.content }
                .encode(attempt.key, &mut self.records);
            self.begun = Some((attempt.key, attempt.number));
        }
        if record.settles().is_none() {
            attempt.segments.fetch_add(1, Ordering::Relaxed);
        }
        self.push(attempt.key, record);
    }

    /// Adds a whole small file, compressed where that is asked for.
    pub(super) fn push_small(
        &mut self,
        key: FileKey,
        content: Content,
        digest: crate::model::Digest,
        live: bool,
        segments: u64,
        bytes: &[u8],
    ) {
        let (encoding, bytes) = self.compressor.encode(bytes, self.feed.session.options.compression);
        DataRecord::Small { content, digest, live, segments, encoding, bytes }.encode(key, &mut self.records);
        if self.records.len() >= limits::DATA_FRAME_FILL_BYTES {
            self.send();
        }
    }

    /// Adds a whole segment, compressed where that is asked for.
    pub(super) fn push_segment(&mut self, attempt: &Attempt, index: u64, digest: crate::model::Digest, bytes: &[u8]) {
        let mut compressor = std::mem::take(&mut self.compressor);
        let (encoding, bytes) = compressor.encode(bytes, self.feed.session.options.compression);
        self.push_of(attempt, &DataRecord::Segment { attempt: attempt.number, index, digest, encoding, bytes });
        self.compressor = compressor;
    }

    /// Adds a segment as instructions.
    pub(super) fn push_patch(
        &mut self,
        attempt: &Attempt,
        index: u64,
        digest: crate::model::Digest,
        instructions: &[u8],
    ) {
        let mut compressor = std::mem::take(&mut self.compressor);
        let decoded_bytes = instructions.len() as u32;
        let (encoding, bytes) = compressor.encode(instructions, self.feed.session.options.compression);
        let number = attempt.number;
        self.push_of(attempt, &DataRecord::Patch { attempt: number, index, digest, encoding, decoded_bytes, bytes });
        self.compressor = compressor;
    }
}
