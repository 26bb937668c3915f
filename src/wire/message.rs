//! Frames and messages.
//!
//! A frame is a 32-bit little-endian length of what follows, one byte for the kind, and the payload. Control messages
//! and data share one lane over a remote shell.

use serde::{Deserialize, Serialize};

use super::listing::{decode_piece, decode_single, encode_piece, encode_single};
use super::{DecodeError, Decoder, Encoder, FileKey, SessionId};
use crate::limits;
use crate::model::{Digest, Kind, ListedEntry, Name, Piece, PieceId, Stats, Timestamp};
use crate::monitor::{Action, Changes, Event, Item};
use crate::plan::options::SyncOptions;

/// Bytes before a frame's payload.
pub const FRAME_HEADER_BYTES: usize = 5;

/// What the far end is to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FarRole {
    /// Reads the sources.
    Sender,
    /// Writes the destination, or compares it.
    Receiver,
}

/// Over what file content goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Transport {
    /// Direct lanes where they can be had, the control lane until then.
    #[default]
    Auto,
    /// Direct lanes only.
    Direct,
    /// The control lane only.
    Shell,
}

/// What the two ends of a session say to each other to get direct lanes. The client leads: it asks one end to listen and
/// the other to connect.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum LaneWord {
    /// From the client: listen for the owner of a key.
    Listen {
        /// Public key of who will connect.
        peer_key: [u8; 32],
        /// What each lane has to show, once.
        token: [u8; 32],
        /// What its connection begins with.
        session: SessionId,
        /// First and last port to choose from; any where there is none.
        ports: Option<(u16, u16)>,
        /// Lanes at most.
        lanes: u8,
    },
    /// To the client: where to connect to.
    Listening {
        /// Our public key.
        key: [u8; 32],
        /// What a connection has to begin with.
        session: SessionId,
        /// TCP port; 0 for the one that the control lane goes to.
        port: u16,
        /// Addresses by which we may be reached; the client knows others.
        addresses: Vec<String>,
    },
    /// From the client: connect to someone who listens.
    Connect {
        /// Public key of who listens.
        peer_key: [u8; 32],
        /// As in `Listen`.
        token: [u8; 32],
        /// As in `Listening`.
        session: SessionId,
        /// TCP port.
        port: u16,
        /// Addresses to try.
        addresses: Vec<String>,
        /// Who listens is the client: where the remote shell's connection came from is worth a try.
        to_client: bool,
        /// So many lanes; by cores and by the link where it is not said.
        lanes: Option<u8>,
        /// Milliseconds to try for.
        limit_ms: u32,
    },
    /// To the client: lanes that we opened.
    Opened {
        /// How many.
        lanes: u8,
    },
    /// To the client: it did not work.
    Failed {
        /// Why, in words.
        reason: String,
    },
    /// From the client: nobody will come any more.
    Close,
}

/// A module of a daemon, as it is listed for a client that may use it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ModuleLine {
    /// Its name.
    pub name: String,
    /// For people; may be empty.
    pub comment: String,
    /// It can be read from.
    pub may_read: bool,
    /// It can be written to.
    pub may_write: bool,
}

/// Paths at the far end, as the user wrote them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SetupPaths {
    /// Sources, or the one destination.
    pub paths: Vec<Vec<u8>>,
    /// For a receiver: the client's sources as the user wrote them, for messages only.
    pub sources: Vec<Vec<u8>>,
}

/// The client's first message.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Setup {
    /// What the far end is to do.
    pub role: FarRole,
    /// Where.
    pub paths: SetupPaths,
    /// At a daemon: the module that paths are beneath; empty asks for a list of modules. None over a remote shell.
    pub module: Option<String>,
    /// How.
    pub options: SyncOptions,
    /// Over what content goes.
    pub transport: Transport,
    /// Compare instead of copying.
    pub verify: bool,
    /// With `verify`: contents only.
    pub content_only: bool,
    /// With `--remove-source-files`: which directories the client works in, so that a far end on the same machine notices
    /// when both are one.
    pub near: Option<NearPlaces>,
}

/// Directories of the client, and the running kernel that they belong to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NearPlaces {
    /// The kernel's boot id.
    pub boot_id: String,
    /// Device's major and minor number, and inode, of each.
    pub directories: Vec<(u32, u32, u64)>,
}

/// Ends the listings.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ListingEnd {
    /// Something in the source could not be read or listed: no deletion.
    pub source_problems: bool,
    /// Sources that are empty directories, or missing, as the user wrote them.
    pub empty_sources: Vec<Vec<u8>>,
    /// At least one of them is missing.
    pub source_missing: bool,
}

/// How a file is wanted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum WantMode {
    /// All of its content.
    Whole,
    /// All of it, unless its digest is this one.
    IfDiffers(Digest),
    /// Its digest only.
    Digest,
    /// Against a basis whose signatures follow, one window after the other.
    Delta {
        /// Length of the basis in bytes.
        basis_bytes: u64,
        /// Block length in bytes.
        block_bytes: u32,
        /// Digest of the basis, where it has the source's length: equal content needs no data.
        digest: Option<Digest>,
        /// Copies only from the same offset (`--inplace`).
        same_offset_only: bool,
    },
}

/// A file that is wanted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Want {
    /// Index in the piece.
    pub index: u16,
    /// How.
    pub mode: WantMode,
}

/// Everything that is said on a session, data records left to [`super::RecordReader`].
#[derive(Debug, Clone, PartialEq)]
pub enum Message {
    /// The client's options and paths.
    Setup(Box<Setup>),
    /// Paths of `--files-from`, after a setup that has such a list.
    Paths {
        /// The paths, as read.
        paths: Vec<Vec<u8>>,
        /// No more of them follow.
        last: bool,
    },
    /// The far end accepts.
    Ready {
        /// Its public key for direct lanes, where it may have some.
        lane_key: Option<[u8; 32]>,
    },
    /// This side cannot go on; in words, with what to do.
    Fatal {
        /// What failed.
        text: String,
        /// What to do; may be empty.
        hint: String,
        /// Nothing was heard within `--timeout`: the exit code is that of a time-out.
        timed_out: bool,
    },
    /// What the sources are.
    Sources {
        /// The name of the one item that is no directory, if that is all there is.
        single: Option<Name>,
        /// Attributes for the destination's root, where a source names contents; the entry's name means nothing.
        root: Option<Box<ListedEntry>>,
    },
    /// Names of users and groups that following pieces refer to.
    Owners {
        /// User ids and names.
        users: Vec<(u32, Vec<u8>)>,
        /// Group ids and names.
        groups: Vec<(u32, Vec<u8>)>,
    },
    /// A piece of a listing.
    Listing(Box<Piece>),
    /// No more listings.
    ListingEnd(ListingEnd),
    /// File content: records.
    Data(Vec<u8>),
    /// Files of a piece that are wanted.
    Wants {
        /// The piece.
        piece: PieceId,
        /// The files, by rising index.
        wants: Vec<Want>,
    },
    /// Signature of one window of a basis.
    Signature {
        /// The file.
        key: FileKey,
        /// Number of the window.
        window: u64,
        /// As `delta` encodes it.
        bytes: Vec<u8>,
    },
    /// A piece is settled: the sender may forget it, and list as many entries more.
    Release {
        /// The piece.
        piece: PieceId,
        /// Files that are now safe at the destination (`--remove-source-files`), by rising index.
        safe: Vec<u16>,
    },
    /// Items that were dealt with.
    Items(Vec<Item>),
    /// Something that happened.
    Event(Box<Event>),
    /// This side is done; its totals.
    Done(Box<Stats>),
    /// The user wants to stop: finish or drop what is staged.
    Stop,
    /// Nothing; shows that the peer lives.
    Heartbeat,
    /// The source's tree has this digest, and the destination equals it (`verify`).
    TreeDigest(Digest),
    /// About direct lanes.
    Lane(LaneWord),
    /// First on a direct lane, by the side that connected.
    LaneHello {
        /// What the client gave out.
        token: [u8; 32],
        /// Number of the lane: each is taken once.
        number: u8,
    },
    /// The answer to it: the lane may be used.
    LaneWelcome,
    /// The modules of a daemon that the client may use.
    Modules(Vec<ModuleLine>),
}

macro_rules! kinds {
    ($($(#[$meta:meta])* $name:ident = $code:literal),* $(,)?) => {
        /// The kind of a frame.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        #[allow(missing_docs, reason = "each names its message")]
        pub enum MessageKind { $($name = $code),* }

        impl MessageKind {
            /// All kinds.
            pub const ALL: &'static [MessageKind] = &[$(MessageKind::$name),*];

            fn from_code(code: u8) -> Option<MessageKind> {
                match code { $($code => Some(MessageKind::$name),)* _ => None }
            }
        }
    };
}

kinds! {
    Setup = 1, Ready = 2, Fatal = 3, Sources = 4, Owners = 5, Listing = 6, ListingEnd = 7, Data = 8, Wants = 9,
    Signature = 10, Release = 11, Items = 12, Event = 13, Done = 14, Stop = 15, Heartbeat = 16, TreeDigest = 17, Paths = 18,
    Lane = 19, LaneHello = 20, LaneWelcome = 21, Modules = 22,
}

/// A frame's header.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FrameHeader {
    /// Length of the payload in bytes.
    pub payload_bytes: usize,
    /// Kind of the message.
    pub kind: MessageKind,
}

impl FrameHeader {
    /// The bytes to send.
    pub fn encode(&self) -> [u8; FRAME_HEADER_BYTES] {
        let length = (self.payload_bytes as u32).to_le_bytes();
        [length[0], length[1], length[2], length[3], self.kind as u8]
    }

    /// Reads a header; the length is bounded here, before anything is allocated.
    pub fn decode(bytes: &[u8; FRAME_HEADER_BYTES]) -> Result<FrameHeader, DecodeError> {
        let payload_bytes = u32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]) as usize;
        if payload_bytes > limits::FRAME_BYTES_MAX {
            return Err(DecodeError::Range("frame length"));
        }
        let kind = MessageKind::from_code(bytes[4])
            .ok_or(DecodeError::Unknown { what: "message", value: u64::from(bytes[4]) })?;
        Ok(FrameHeader { payload_bytes, kind })
    }
}

impl Message {
    /// The message's kind.
    pub fn kind(&self) -> MessageKind {
        match self {
            Message::Setup(_) => MessageKind::Setup,
            Message::Paths { .. } => MessageKind::Paths,
            Message::Ready { .. } => MessageKind::Ready,
            Message::Fatal { .. } => MessageKind::Fatal,
            Message::Sources { .. } => MessageKind::Sources,
            Message::Owners { .. } => MessageKind::Owners,
            Message::Listing(_) => MessageKind::Listing,
            Message::ListingEnd(_) => MessageKind::ListingEnd,
            Message::Data(_) => MessageKind::Data,
            Message::Wants { .. } => MessageKind::Wants,
            Message::Signature { .. } => MessageKind::Signature,
            Message::Release { .. } => MessageKind::Release,
            Message::Items(_) => MessageKind::Items,
            Message::Event(_) => MessageKind::Event,
            Message::Done(_) => MessageKind::Done,
            Message::Stop => MessageKind::Stop,
            Message::Heartbeat => MessageKind::Heartbeat,
            Message::TreeDigest(_) => MessageKind::TreeDigest,
            Message::Lane(_) => MessageKind::Lane,
            Message::LaneHello { .. } => MessageKind::LaneHello,
            Message::LaneWelcome => MessageKind::LaneWelcome,
            Message::Modules(_) => MessageKind::Modules,
        }
    }

    /// The payload to send.
    pub fn encode(&self) -> Vec<u8> {
        let mut buffer = Vec::new();
        let mut out = Encoder::new(&mut buffer);
        match self {
            Message::Setup(setup) => return json(setup),
            Message::ListingEnd(end) => return json(end),
            Message::Event(event) => return json(event),
            Message::Done(stats) => return json(stats),
            Message::Data(payload) => return payload.clone(),
            Message::Lane(word) => return json(word),
            Message::Modules(modules) => return json(modules),
            Message::Stop | Message::Heartbeat | Message::LaneWelcome => {}
            Message::Ready { lane_key } => out.bytes(lane_key.as_ref().map_or(&[], |key| &key[..])),
            Message::LaneHello { token, number } => {
                out.raw(token);
                out.u8(*number);
            }
            Message::TreeDigest(digest) => out.raw(&digest.0),
            Message::Paths { paths, last } => {
                out.bool(*last);
                out.uint(paths.len() as u64);
                for path in paths {
                    out.bytes(path);
                }
            }
            Message::Fatal { text, hint, timed_out } => {
                out.bytes(text.as_bytes());
                out.bytes(hint.as_bytes());
                out.bool(*timed_out);
            }
            Message::Sources { single, root } => {
                out.bytes(single.as_ref().map_or(&[], |name| name.as_bytes()));
                out.bool(root.is_some());
                if let Some(root) = root {
                    encode_single(root, &mut out);
                }
            }
            Message::Owners { users, groups } => {
                for table in [users, groups] {
                    out.uint(table.len() as u64);
                    for (id, name) in table {
                        out.uint(u64::from(*id));
                        out.bytes(name);
                    }
                }
            }
            Message::Listing(piece) => encode_piece(piece, &mut out),
            Message::Wants { piece, wants } => {
                out.uint(piece.0);
                out.uint(wants.len() as u64);
                for want in wants {
                    encode_want(want, &mut out);
                }
            }
            Message::Signature { key, window, bytes } => {
                out.uint(key.piece.0);
                out.uint(u64::from(key.index));
                out.uint(*window);
                out.bytes(bytes);
            }
            Message::Release { piece, safe } => {
                out.uint(piece.0);
                out.uint(safe.len() as u64);
                for index in safe {
                    out.uint(u64::from(*index));
                }
            }
            Message::Items(items) => {
                out.uint(items.len() as u64);
                for item in items {
                    encode_item(item, &mut out);
                }
            }
        }
        buffer
    }

    /// Reads the payload of a frame of `kind`.
    pub fn decode(kind: MessageKind, payload: Vec<u8>) -> Result<Message, DecodeError> {
        let mut from = Decoder::new(&payload);
        let message = match kind {
            MessageKind::Setup => return parse(&payload, "setup").map(Message::Setup),
            MessageKind::ListingEnd => return parse(&payload, "end of listings").map(Message::ListingEnd),
            MessageKind::Event => return parse(&payload, "event").map(Message::Event),
            MessageKind::Done => return parse(&payload, "totals").map(Message::Done),
            MessageKind::Data => return Ok(Message::Data(payload)),
            MessageKind::Ready => Message::Ready {
                lane_key: match from.bytes(32, "key")? {
                    [] => None,
                    key => Some(key.try_into().map_err(|_| DecodeError::Range("key"))?),
                },
            },
            MessageKind::Lane => return parse(&payload, "words about lanes").map(Message::Lane),
            MessageKind::Modules => return parse(&payload, "modules").map(Message::Modules),
            MessageKind::LaneHello => Message::LaneHello { token: from.array()?, number: from.u8()? },
            MessageKind::LaneWelcome => Message::LaneWelcome,
            MessageKind::Paths => {
                let last = from.bool("flag")?;
                let count = from.bounded(limits::FRAME_BYTES_MAX as u64, "paths")?;
                let mut paths = Vec::new();
                for _ in 0..count {
                    paths.push(from.bytes(limits::PATH_BYTES_MAX, "path")?.to_vec());
                }
                Message::Paths { paths, last }
            }
            MessageKind::Stop => Message::Stop,
            MessageKind::Heartbeat => Message::Heartbeat,
            MessageKind::TreeDigest => Message::TreeDigest(Digest(from.array()?)),
            MessageKind::Fatal => Message::Fatal {
                text: decode_text(&mut from)?,
                hint: decode_text(&mut from)?,
                timed_out: from.bool("flag")?,
            },
            MessageKind::Sources => {
                let single = match from.bytes(limits::NAME_BYTES_MAX, "name")? {
                    [] => None,
                    bytes => Some(Name::new(bytes)?),
                };
                let root = if from.bool("flag")? { Some(Box::new(decode_single(&mut from)?)) } else { None };
                if root.as_ref().is_some_and(|root| root.entry.metadata.kind != Kind::Dir) {
                    return Err(DecodeError::Range("kind of the root"));
                }
                Message::Sources { single, root }
            }
            MessageKind::Owners => {
                Message::Owners { users: decode_owners(&mut from)?, groups: decode_owners(&mut from)? }
            }
            MessageKind::Listing => Message::Listing(Box::new(decode_piece(&mut from)?)),
            MessageKind::Wants => {
                let piece = PieceId(from.uint()?);
                let count = from.bounded(limits::LISTING_PIECE_ENTRIES_MAX as u64, "wants")? as usize;
                let mut wants: Vec<Want> = Vec::with_capacity(count);
                for _ in 0..count {
                    let want = decode_want(&mut from)?;
                    if wants.last().is_some_and(|last| last.index >= want.index) {
                        return Err(DecodeError::Range("order of wants"));
                    }
                    wants.push(want);
                }
                Message::Wants { piece, wants }
            }
            MessageKind::Signature => Message::Signature {
                key: decode_key(&mut from)?,
                window: from.uint()?,
                bytes: from.bytes(limits::FRAME_BYTES_MAX, "signature")?.to_vec(),
            },
            MessageKind::Release => {
                let piece = PieceId(from.uint()?);
                let count = from.bounded(limits::LISTING_PIECE_ENTRIES_MAX as u64, "entries")? as usize;
                let mut safe: Vec<u16> = Vec::with_capacity(count);
                for _ in 0..count {
                    let index = decode_index(&mut from)?;
                    if safe.last().is_some_and(|&last| last >= index) {
                        return Err(DecodeError::Range("order of entries"));
                    }
                    safe.push(index);
                }
                Message::Release { piece, safe }
            }
            MessageKind::Items => {
                let count = from.bounded(limits::LISTING_PIECE_ENTRIES_MAX as u64, "items")? as usize;
                let mut items = Vec::new();
                for _ in 0..count {
                    items.push(decode_item(&mut from)?);
                }
                Message::Items(items)
            }
        };
        from.finish()?;
        Ok(message)
    }
}

/// The payload of [`Message::Listing`], from a piece that stays with the sender.
pub fn encode_listing(piece: &Piece) -> Vec<u8> {
    let mut buffer = Vec::new();
    encode_piece(piece, &mut Encoder::new(&mut buffer));
    buffer
}

/// Our own types serialise without fail: they have string keys only.
fn json<T: Serialize>(value: &T) -> Vec<u8> {
    serde_json::to_vec(value).unwrap_or_default()
}

fn parse<T: for<'a> Deserialize<'a>>(payload: &[u8], what: &'static str) -> Result<T, DecodeError> {
    serde_json::from_slice(payload).map_err(|_| DecodeError::Malformed(what))
}

fn decode_text(from: &mut Decoder<'_>) -> Result<String, DecodeError> {
    Ok(String::from_utf8_lossy(from.bytes(limits::TEXT_BYTES_MAX, "text")?).into_owned())
}

fn decode_owners(from: &mut Decoder<'_>) -> Result<Vec<(u32, Vec<u8>)>, DecodeError> {
    let count = from.bounded(limits::LISTING_PIECE_ENTRIES_MAX as u64 * 64, "owners")?;
    let mut owners = Vec::new();
    for _ in 0..count {
        owners.push((from.u32("owner")?, from.bytes(limits::NAME_BYTES_MAX, "owner's name")?.to_vec()));
    }
    Ok(owners)
}

fn decode_index(from: &mut Decoder<'_>) -> Result<u16, DecodeError> {
    Ok(from.bounded(limits::LISTING_PIECE_ENTRIES_MAX as u64 - 1, "entry index")? as u16)
}

fn decode_key(from: &mut Decoder<'_>) -> Result<FileKey, DecodeError> {
    Ok(FileKey { piece: PieceId(from.uint()?), index: decode_index(from)? })
}

fn encode_want(want: &Want, out: &mut Encoder<'_>) {
    out.uint(u64::from(want.index));
    match &want.mode {
        WantMode::Whole => out.u8(0),
        WantMode::IfDiffers(digest) => {
            out.u8(1);
            out.raw(&digest.0);
        }
        WantMode::Digest => out.u8(2),
        WantMode::Delta { basis_bytes, block_bytes, digest, same_offset_only } => {
            out.u8(3);
            out.uint(*basis_bytes);
            out.uint(u64::from(*block_bytes));
            out.bool(digest.is_some());
            if let Some(digest) = digest {
                out.raw(&digest.0);
            }
            out.bool(*same_offset_only);
        }
    }
}

fn decode_want(from: &mut Decoder<'_>) -> Result<Want, DecodeError> {
    let index = decode_index(from)?;
    let mode = match from.u8()? {
        0 => WantMode::Whole,
        1 => WantMode::IfDiffers(Digest(from.array()?)),
        2 => WantMode::Digest,
        3 => {
            let basis_bytes = from.bounded(i64::MAX as u64, "basis length")?;
            let block_bytes = from.bounded(u64::from(limits::DELTA_BLOCK_BYTES_MAX), "block length")? as u32;
            if block_bytes < limits::DELTA_BLOCK_BYTES_MIN || !block_bytes.is_power_of_two() {
                return Err(DecodeError::Range("block length"));
            }
            let digest = if from.bool("flag")? { Some(Digest(from.array()?)) } else { None };
            WantMode::Delta { basis_bytes, block_bytes, digest, same_offset_only: from.bool("flag")? }
        }
        other => return Err(DecodeError::Unknown { what: "kind of want", value: u64::from(other) }),
    };
    Ok(Want { index, mode })
}

const ACTIONS: [Action; 6] =
    [Action::Sent, Action::Received, Action::Changed, Action::HardLinked, Action::Unchanged, Action::Deleted];

fn change_bits(changes: &Changes) -> u64 {
    let bits = [
        changes.created,
        changes.content,
        changes.size,
        changes.mtime,
        changes.mtime_now,
        changes.mode,
        changes.owner,
        changes.group,
        changes.atime,
        changes.acl,
        changes.xattr,
    ];
    bits.iter().enumerate().fold(0, |sum, (position, &bit)| sum | u64::from(bit) << position)
}

fn changes_from(bits: u64) -> Changes {
    let bit = |position: u32| bits >> position & 1 == 1;
    Changes {
        created: bit(0),
        content: bit(1),
        size: bit(2),
        mtime: bit(3),
        mtime_now: bit(4),
        mode: bit(5),
        owner: bit(6),
        group: bit(7),
        atime: bit(8),
        acl: bit(9),
        xattr: bit(10),
    }
}

fn encode_item(item: &Item, out: &mut Encoder<'_>) {
    out.bytes(&item.path);
    out.u8(item.kind as u8);
    out.u8(item.action as u8);
    out.uint(change_bits(&item.changes));
    out.uint(
        u64::from(item.link_target.is_some())
            | u64::from(item.hard_link_to.is_some()) << 1
            | u64::from(item.dry_run) << 2,
    );
    if let Some(target) = &item.link_target {
        out.bytes(target);
    }
    if let Some(other) = &item.hard_link_to {
        out.bytes(other);
    }
    out.uint(item.size);
    out.int(item.mtime.seconds);
    out.uint(u64::from(item.mtime.nanoseconds));
    out.uint(u64::from(item.mode));
    out.uint(u64::from(item.uid));
    out.uint(u64::from(item.gid));
    out.uint(item.literal_bytes);
}

fn decode_item(from: &mut Decoder<'_>) -> Result<Item, DecodeError> {
    let path = from.bytes(limits::PATH_BYTES_MAX, "path")?.to_vec();
    let kind = from.u8()?;
    let kind = *Kind::ALL.get(usize::from(kind)).ok_or(DecodeError::Unknown { what: "kind", value: kind.into() })?;
    let action = from.u8()?;
    let action =
        *ACTIONS.get(usize::from(action)).ok_or(DecodeError::Unknown { what: "action", value: action.into() })?;
    let changes = changes_from(from.bounded(0x7ff, "changes")?);
    let flags = from.bounded(7, "item flags")?;
    let link_target = match flags & 1 {
        0 => None,
        _ => Some(from.bytes(limits::LINK_TARGET_BYTES_MAX, "link target")?.to_vec()),
    };
    let hard_link_to = match flags & 2 {
        0 => None,
        _ => Some(from.bytes(limits::PATH_BYTES_MAX, "path")?.to_vec()),
    };
    Ok(Item {
        path,
        kind,
        action,
        changes,
        link_target,
        hard_link_to,
        size: from.uint()?,
        mtime: Timestamp::new(from.int()?, from.bounded(999_999_999, "nanoseconds")? as u32),
        mode: from.bounded(0o7777, "mode")? as u32,
        uid: from.u32("user id")?,
        gid: from.u32("group id")?,
        literal_bytes: from.uint()?,
        dry_run: flags & 4 != 0,
    })
}
