//! Frames in and out: one thread reads, one writes, everything else talks to queues.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use crossbeam_channel::{Receiver as Inbox, Sender as Outbox};

use crate::limits;
use crate::model::Piece;
use crate::net::{LinkError, LinkReader, LinkWriter};
use crate::sync::SyncError;
use crate::sync::buffers::Buffers;
use crate::wire::{FRAME_HEADER_BYTES, FrameHeader, Message, MessageKind, encode_listing};

/// Data frames that wait for the writer: enough that it never starves, few enough to bound memory.
const WAITING_DATA_FRAMES_MAX: usize = 8;

/// Control frames are gathered up to this size for one write.
const GATHER_BYTES: usize = 64 << 10;

/// Both directions of a session.
pub(super) struct Ends {
    pub(super) reader: LinkReader,
    pub(super) writer: LinkWriter,
    /// Cuts the link: every wait on it ends.
    pub(super) cut: Arc<AtomicBool>,
}

/// A frame to send.
struct Frame {
    kind: MessageKind,
    payload: Vec<u8>,
}

/// What the writer is told.
enum Word {
    Say(Frame),
    /// Nothing more will be said: the link is closed once everything before is written.
    Close,
}

/// Where all threads of a side put what they have to say. Control never waits: what it can hold is bounded by credit
/// and by the wants outstanding. Data does, which is what slows a sender down to the link.
#[derive(Clone)]
pub(super) struct Line {
    control: Outbox<Word>,
    data: Outbox<Frame>,
    /// What data frames are made of, in both directions.
    pub(super) buffers: Arc<Buffers>,
}

/// The writer's end of a [`Line`].
pub(super) struct Outgoing {
    control: Inbox<Word>,
    data: Inbox<Frame>,
    buffers: Arc<Buffers>,
}

impl Line {
    pub(super) fn new() -> (Line, Outgoing) {
        let (control, control_inbox) = crossbeam_channel::unbounded();
        let (data, data_inbox) = crossbeam_channel::bounded(WAITING_DATA_FRAMES_MAX);
        let buffers = Arc::new(Buffers::default());
        let line = Line { control, data, buffers: Arc::clone(&buffers) };
        (line, Outgoing { control: control_inbox, data: data_inbox, buffers })
    }

    /// Sends a control message.
    pub(super) fn say(&self, message: &Message) {
        // Fails only when the writer is gone: the session is over, and its end has been noted there.
        let frame = Frame { kind: message.kind(), payload: message.encode() };
        let _session_is_over = self.control.send(Word::Say(frame));
    }

    /// Sends a piece of a listing.
    pub(super) fn listing(&self, piece: &Piece) {
        let frame = Frame { kind: MessageKind::Listing, payload: encode_listing(piece) };
        let _session_is_over = self.control.send(Word::Say(frame));
    }

    /// Closes the link once everything that was said is written.
    pub(super) fn close(&self) {
        let _closed_already = self.control.send(Word::Close);
    }

    /// Sends data records; waits for room. False when the session is over.
    pub(super) fn data(&self, payload: Vec<u8>) -> bool {
        self.data.send(Frame { kind: MessageKind::Data, payload }).is_ok()
    }
}

/// Writes frames until [`Line::close`]; heartbeats when there is nothing to say.
pub(super) fn write_all(mut writer: LinkWriter, outgoing: &Outgoing) -> Result<(), LinkError> {
    let mut gathered = Vec::with_capacity(GATHER_BYTES);
    let heartbeat = Duration::from_millis(limits::HEARTBEAT_INTERVAL_MS);
    loop {
        crossbeam_channel::select_biased! {
            recv(outgoing.control) -> word => {
                gathered.clear();
                let mut next = word.ok();
                let mut closes = next.is_none();
                while let Some(word) = next {
                    match word {
                        Word::Say(frame) => append(&mut gathered, &frame),
                        Word::Close => closes = true,
                    }
                    next = if closes || gathered.len() >= GATHER_BYTES { None } else { outgoing.control.try_recv().ok() };
                }
                writer.write_all(&gathered)?;
                if closes {
                    return Ok(());
                }
            },
            recv(outgoing.data) -> frame => match frame {
                Ok(frame) => {
                    let header = FrameHeader { payload_bytes: frame.payload.len(), kind: frame.kind };
                    writer.write_vectored(&header.encode(), &frame.payload)?;
                    outgoing.buffers.give(frame.payload);
                }
                Err(_) => return Ok(()),
            },
            default(heartbeat) => write_message(&mut writer, &Message::Heartbeat)?,
        }
    }
}

fn append(gathered: &mut Vec<u8>, frame: &Frame) {
    let header = FrameHeader { payload_bytes: frame.payload.len(), kind: frame.kind };
    gathered.extend_from_slice(&header.encode());
    gathered.extend_from_slice(&frame.payload);
}

/// Writes one message at once.
pub(super) fn write_message(writer: &mut LinkWriter, message: &Message) -> Result<(), LinkError> {
    let payload = message.encode();
    let header = FrameHeader { payload_bytes: payload.len(), kind: message.kind() };
    writer.write_vectored(&header.encode(), &payload)
}

/// Reads one message; heartbeats are passed over.
pub(super) fn read_message(reader: &mut LinkReader) -> Result<Message, SyncError> {
    read_message_with(reader, &Buffers::default())
}

/// As [`read_message`]; the payload of a data frame lies in one of `buffers`.
pub(super) fn read_message_with(reader: &mut LinkReader, buffers: &Buffers) -> Result<Message, SyncError> {
    loop {
        let mut header = [0; FRAME_HEADER_BYTES];
        reader.read_exact(&mut header).map_err(SyncError::from_link)?;
        let header = FrameHeader::decode(&header)?;
        let mut payload = if header.kind == MessageKind::Data { buffers.take() } else { Vec::new() };
        payload.resize(header.payload_bytes, 0);
        reader.read_exact(&mut payload).map_err(SyncError::from_link)?;
        if header.kind != MessageKind::Heartbeat {
            return Ok(Message::decode(header.kind, payload)?);
        }
    }
}

/// Reads one frame of a data lane into a buffer that is used again; nothing but content may come there.
pub(super) fn read_data_frame(reader: &mut LinkReader, payload: &mut Vec<u8>) -> Result<(), SyncError> {
    let mut header = [0; FRAME_HEADER_BYTES];
    reader.read_exact(&mut header).map_err(SyncError::from_link)?;
    let header = FrameHeader::decode(&header)?;
    if header.kind != MessageKind::Data {
        return Err(crate::wire::FlowError::Unexpected { what: "message on a data lane" }.into());
    }
    payload.resize(header.payload_bytes, 0);
    reader.read_exact(payload).map_err(SyncError::from_link)
}

/// Cuts a link when dropped, so that no thread waits on it after an early return.
pub(super) struct CutOnDrop(pub(super) Arc<AtomicBool>);

impl Drop for CutOnDrop {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Release);
    }
}
