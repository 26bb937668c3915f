//! The wire: frames and messages, versions, and the machines that decide who may send what when. No sockets, no files.
//!
//! `docs/protocol.md` is normative; the decoders here are the only ones.

mod codec;
mod data;
mod directories;
mod flow;
mod handshake;
mod listing;
mod message;

pub use codec::{DecodeError, Decoder, Encoder};
pub use data::{Content, DataRecord, Encoding, Failure, FileKey, RecordReader};
pub use flow::{FlowError, ReceiverFlow, SenderFlow};
pub use handshake::{
    GREETING_BYTES_MAX, Greeting, HandshakeError, PREAMBLE_BYTES, PROTOCOL_MAX, PROTOCOL_MIN, Preamble, SessionId,
    agree,
};
pub use message::{
    FRAME_HEADER_BYTES, FarRole, FrameHeader, LaneWord, ListingEnd, Message, MessageKind, ModuleLine, NearPlaces,
    Setup, SetupPaths, Transport, Want, WantMode, encode_listing,
};

#[cfg(test)]
mod tests;
