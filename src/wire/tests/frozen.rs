//! Samples of version 1, kept in `tests/data/wire-v1/`: today's encoder gives exactly these bytes, and the decoder reads
//! them. A sample changes only together with the protocol's version, once a version was released.
//!
//! A `.hex` file holds bytes in hexadecimal, lines beginning with `#` left out; a `.json` file is a payload as it is, up to the line end
//! that closes it.

use std::fmt::Write as _;

use super::arbitrary::filters;
use crate::limits;
use crate::model::{
    Acl, AclEntry, AclTag, Acls, Digest, DirId, Entry, HardLink, Kind, ListedEntry, Metadata, Name, Operation, Piece,
    PieceId, Problem, ProblemKind, Stats, Timestamp, Xattr,
};
use crate::monitor::{Action, Changes, Event, Item, Phase};
use crate::plan::options::{Compression, SyncOptions};
use crate::wire::{
    Content, DataRecord, Encoding, FRAME_HEADER_BYTES, Failure, FarRole, FileKey, FrameHeader, Greeting, LaneWord,
    ListingEnd, Message, MessageKind, ModuleLine, NearPlaces, Preamble, RecordReader, SessionId, Setup, SetupPaths,
    Transport, Want, WantMode,
};

macro_rules! sample {
    ($name:literal) => {
        ($name, include_str!(concat!("../../../tests/data/wire-v1/", $name)))
    };
}

fn from_hex(text: &str) -> Vec<u8> {
    let digits: Vec<u8> = text
        .lines()
        .filter(|line| !line.starts_with('#'))
        .flat_map(|line| line.bytes().filter(u8::is_ascii_hexdigit))
        .collect();
    digits.chunks(2).map(|pair| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap()).collect()
}

fn to_hex(bytes: &[u8]) -> String {
    let mut text = String::new();
    for line in bytes.chunks(32) {
        for byte in line {
            write!(text, "{byte:02x}").unwrap();
        }
        text.push('\n');
    }
    text
}

/// Compares; a failure shows the sample that would be right.
fn check((name, text): (&str, &str), bytes: &[u8]) {
    let kept = if name.ends_with(".json") { text.trim_end_matches('\n').as_bytes().to_vec() } else { from_hex(text) };
    let today = match name.ends_with(".json") {
        true => String::from_utf8(bytes.to_vec()).unwrap(),
        false => to_hex(bytes),
    };
    assert!(kept == bytes, "{name}: today it would be\n{today}");
}

fn name(text: &str) -> Name {
    Name::new(text.as_bytes()).unwrap()
}

fn listed(text: &str, kind: Kind) -> ListedEntry {
    let metadata = Metadata {
        kind,
        mode: 0o640,
        uid: 1000,
        gid: 100,
        size: 1234,
        blocks: 8,
        mtime: Timestamp::new(1_700_000_000, 123_456_789),
        atime: Timestamp::new(1_700_000_100, 5),
        ctime: Timestamp::default(),
        rdev: (0, 0),
        dev: (0, 0),
        ino: 0,
        nlink: 1,
    };
    let entry = Entry { name: name(text), metadata, link_target: None, hard_link: None, acls: None, xattrs: None };
    ListedEntry { entry, descend: false, implied: false }
}

fn piece() -> Piece {
    let acl = |permissions| {
        let tags = [AclTag::UserObject, AclTag::User(33), AclTag::GroupObject, AclTag::Mask, AclTag::Other];
        Some(Acl(tags.into_iter().map(|tag| AclEntry { tag, permissions }).collect()))
    };
    let mut dir = listed("data", Kind::Dir);
    dir.descend = true;
    dir.entry.acls = Some(Acls { access: acl(5), default: acl(7) });
    let mut only_leads = listed("data.old", Kind::Dir);
    only_leads.implied = true;
    only_leads.entry.metadata.uid = 0;
    only_leads.entry.metadata.gid = 0;
    let mut file = listed("data.tar", Kind::File);
    file.entry.hard_link = Some(HardLink { group: 300 });
    file.entry.xattrs = Some(vec![
        Xattr { name: b"security.capability"[..].into(), value: [1, 0, 0, 2][..].into() },
        Xattr { name: b"user.empty"[..].into(), value: [][..].into() },
    ]);
    let mut before_1970 = listed("e\u{e9}", Kind::File);
    before_1970.entry.metadata.mtime = Timestamp::new(-1, 999_999_999);
    before_1970.entry.metadata.size = i64::MAX as u64;
    let mut link = listed("link", Kind::Symlink);
    link.entry.link_target = Some(b"../target"[..].into());
    let mut disk = listed("sda", Kind::Block);
    disk.entry.metadata.rdev = (8, 1);
    let mut null = listed("sdb", Kind::Char);
    null.entry.metadata.rdev = (1, 3);
    let entries = vec![
        dir,
        only_leads,
        file,
        before_1970,
        link,
        listed("pipe", Kind::Fifo),
        disk,
        null,
        listed("sock", Kind::Socket),
    ];
    Piece {
        id: PieceId(7),
        dir: DirId(300),
        first_child: DirId(301),
        after: Some(name("before")),
        last: true,
        whole: true,
        merge_files: vec![(b".rsync-filter".to_vec(), b"- *.tmp\n".to_vec())],
        entries,
    }
}

const DIGEST: Digest = Digest([0xd1; 32]);

fn item() -> Item {
    Item {
        path: b"dir/\xff".to_vec(),
        kind: Kind::File,
        action: Action::Received,
        changes: Changes { size: true, mtime: true, ..Changes::default() },
        link_target: Some(b"target".to_vec()),
        hard_link_to: Some(b"other".to_vec()),
        size: 1 << 33,
        mtime: Timestamp::new(-5, 6),
        mode: 0o4755,
        uid: u32::MAX - 1,
        gid: 7,
        literal_bytes: 99,
        dry_run: true,
    }
}

fn setup() -> Setup {
    let mut options = SyncOptions {
        compression: Some(Compression::Zstd { level: Some(3) }),
        filters: filters(),
        partial_dir: Some(b".part".to_vec()),
        timeout_s: Some(60),
        ..SyncOptions::default()
    };
    options.preserve.perms = true;
    options.id_maps.set_usermap(b"1000-1999:nobody,*:0").unwrap();
    options.chmod = crate::plan::chmod::ChmodRules::parse("D755,u+X", 0o022).unwrap();
    Setup {
        role: FarRole::Receiver,
        paths: SetupPaths { paths: vec![b"/srv/\xff".to_vec()], sources: vec![b"data/".to_vec()] },
        module: None,
        options,
        transport: Transport::Auto,
        verify: false,
        content_only: false,
        near: Some(NearPlaces { boot_id: "boot".into(), directories: vec![(8, 1, 2)] }),
    }
}

/// A daemon is asked for the modules that there are.
fn setup_modules() -> Setup {
    Setup {
        role: FarRole::Sender,
        paths: SetupPaths { paths: Vec::new(), sources: Vec::new() },
        module: Some(String::new()),
        options: SyncOptions::default(),
        transport: Transport::Shell,
        verify: false,
        content_only: false,
        near: None,
    }
}

const KEY: [u8; 32] = [0xe1; 32];
const TOKEN: [u8; 32] = [0x7e; 32];
const SESSION: SessionId = SessionId([0x51; 16]);

fn lane_words() -> Vec<((&'static str, &'static str), Message)> {
    let addresses = || vec!["192.0.2.7".to_owned(), "2001:db8::7".to_owned()];
    let listen =
        LaneWord::Listen { peer_key: KEY, token: TOKEN, session: SESSION, ports: Some((7000, 7010)), lanes: 8 };
    let listening = LaneWord::Listening { key: KEY, session: SESSION, port: 7000, addresses: addresses() };
    let connect = LaneWord::Connect {
        peer_key: KEY,
        token: TOKEN,
        session: SESSION,
        port: 7001,
        addresses: addresses(),
        to_client: true,
        lanes: Some(4),
        limit_ms: 2000,
    };
    vec![
        (sample!("lane-listen.json"), Message::Lane(listen)),
        (sample!("lane-listening.json"), Message::Lane(listening)),
        (sample!("lane-connect.json"), Message::Lane(connect)),
        (sample!("lane-opened.json"), Message::Lane(LaneWord::Opened { lanes: 4 })),
        (sample!("lane-failed.json"), Message::Lane(LaneWord::Failed { reason: "nobody answers".into() })),
        (sample!("lane-close.json"), Message::Lane(LaneWord::Close)),
        (sample!("lane-hello.hex"), Message::LaneHello { token: TOKEN, number: 3 }),
        (sample!("lane-welcome.hex"), Message::LaneWelcome),
    ]
}

/// A message of every kind, with its sample's name and text.
fn messages() -> Vec<((&'static str, &'static str), Message)> {
    let delta =
        WantMode::Delta { basis_bytes: 1 << 40, block_bytes: 16384, digest: Some(DIGEST), same_offset_only: true };
    let wants = [(0, WantMode::Whole), (1, WantMode::IfDiffers(DIGEST)), (300, WantMode::Digest), (1023, delta)];
    let mut root = listed("root", Kind::Dir);
    root.entry.metadata.size = 4096;
    vec![
        (sample!("setup.json"), Message::Setup(Box::new(setup()))),
        (sample!("setup-modules.json"), Message::Setup(Box::new(setup_modules()))),
        (sample!("ready.hex"), Message::Ready { lane_key: None }),
        (sample!("ready-lanes.hex"), Message::Ready { lane_key: Some(KEY) }),
        (sample!("fatal.hex"), Message::Fatal { text: "no space".into(), hint: "make room".into(), timed_out: false }),
        (sample!("sources-single.hex"), Message::Sources { single: Some(name("file")), root: None }),
        (sample!("sources-root.hex"), Message::Sources { single: None, root: Some(Box::new(root)) }),
        (
            sample!("owners.hex"),
            Message::Owners {
                users: vec![(0, b"root".to_vec()), (1000, b"alice".to_vec())],
                groups: vec![(100, b"users".to_vec())],
            },
        ),
        (sample!("listing.hex"), Message::Listing(Box::new(piece()))),
        (
            sample!("listing-end.json"),
            Message::ListingEnd(ListingEnd {
                source_problems: true,
                empty_sources: vec![b"src/".to_vec()],
                source_missing: false,
            }),
        ),
        (
            sample!("wants.hex"),
            Message::Wants {
                piece: PieceId(7),
                wants: wants.into_iter().map(|(index, mode)| Want { index, mode }).collect(),
            },
        ),
        (
            sample!("signature.hex"),
            Message::Signature {
                key: FileKey { piece: PieceId(7), index: 2 },
                window: 130,
                bytes: b"see the delta".to_vec(),
            },
        ),
        (sample!("release.hex"), Message::Release { piece: PieceId(7), safe: vec![0, 2, 1023] }),
        (sample!("items.hex"), Message::Items(vec![item()])),
        (sample!("event-item.json"), Message::Event(Box::new(Event::Item(item())))),
        (
            sample!("event-problem.json"),
            Message::Event(Box::new(Event::Problem(Problem {
                kind: ProblemKind::Source,
                operation: Operation::ReadXattrs,
                path: b"a\xff".to_vec(),
                reason: "Permission denied".into(),
                errno: Some(13),
            }))),
        ),
        (sample!("event-notice.json"), Message::Event(Box::new(Event::Notice("once".into())))),
        (sample!("event-detail.json"), Message::Event(Box::new(Event::Detail("a detail".into())))),
        (sample!("event-phase.json"), Message::Event(Box::new(Event::Phase(Phase::Deleting)))),
        (
            sample!("done.json"),
            Message::Done(Box::new(Stats { transferred_files: 3, literal_bytes: 1 << 60, ..Stats::default() })),
        ),
        (sample!("stop.hex"), Message::Stop),
        (sample!("heartbeat.hex"), Message::Heartbeat),
        (sample!("tree-digest.hex"), Message::TreeDigest(DIGEST)),
        (sample!("paths.hex"), Message::Paths { paths: vec![b"a".to_vec(), b"dir/\xff".to_vec()], last: true }),
        (
            sample!("modules.json"),
            Message::Modules(vec![
                ModuleLine { name: "data".into(), comment: "all of it".into(), may_read: true, may_write: false },
                ModuleLine { name: "in".into(), comment: String::new(), may_read: false, may_write: true },
            ]),
        ),
    ]
}

#[test]
fn messages_are_frozen() {
    let mut seen: Vec<MessageKind> = Vec::new();
    for (sample, message) in messages().into_iter().chain(lane_words()) {
        let payload = message.encode();
        check(sample, &payload);
        assert_eq!(Message::decode(message.kind(), payload), Ok(message.clone()), "{}", sample.0);
        seen.push(message.kind());
    }
    // What is in a data frame has samples of its own.
    seen.push(MessageKind::Data);
    seen.sort();
    seen.dedup();
    assert_eq!(seen, MessageKind::ALL, "a kind without a sample");
}

#[test]
fn records_are_frozen() {
    let content = Content { size: 3, mtime: Timestamp::new(1_700_000_000, 1), mode: 0o600, uid: 1000, gid: 100 };
    let (digest, bytes) = (DIGEST, &b"abc"[..]);
    let samples = [
        (
            sample!("record-small.hex"),
            DataRecord::Small { content, digest, live: true, segments: 200, encoding: Encoding::Raw, bytes },
        ),
        (sample!("record-begin.hex"), DataRecord::Begin { attempt: 1, content }),
        (
            sample!("record-segment.hex"),
            DataRecord::Segment { attempt: 1, index: 200, digest, encoding: Encoding::Zstd, bytes },
        ),
        (sample!("record-zero-segment.hex"), DataRecord::ZeroSegment { attempt: 2, index: 1 << 43 }),
        (
            sample!("record-patch.hex"),
            DataRecord::Patch { attempt: 3, index: 1, digest, encoding: Encoding::Lz4, decoded_bytes: 500, bytes },
        ),
        (sample!("record-end.hex"), DataRecord::End { attempt: 1, digest, live: false, segments: 1 << 46 }),
        (sample!("record-same.hex"), DataRecord::Same { content, segments: 0 }),
        (sample!("record-digest.hex"), DataRecord::Digest { digest }),
        (
            sample!("record-failed.hex"),
            DataRecord::Failed { segments: 5, failure: Failure::Unreadable, errno: 13, text: b"Permission denied" },
        ),
    ];
    for (sample, record) in samples {
        let key = FileKey { piece: PieceId(300), index: 1023 };
        let mut payload = Vec::new();
        record.encode(key, &mut payload);
        check(sample, &payload);
        let mut reader = RecordReader::new(&payload);
        assert_eq!(reader.next(), Ok(Some((key, record))), "{}", sample.0);
        assert_eq!(reader.next(), Ok(None));
    }
}

#[test]
fn the_greeting_is_frozen() {
    let greeting = Greeting { protocol_min: 1, protocol_max: 258, version: "0.1.0".into() };
    check(sample!("greeting.hex"), &greeting.encode());
    assert_eq!(Greeting::decode(&greeting.encode()), Ok(greeting));
}

#[test]
fn preambles_are_frozen() {
    for (sample, session) in [(sample!("preamble-new.hex"), None), (sample!("preamble-lane.hex"), Some(SESSION))] {
        let bytes = Preamble { session }.encode();
        check(sample, &bytes);
        assert_eq!(Preamble::decode(&bytes), Some(Preamble { session }));
    }
}

#[test]
fn frame_headers_are_frozen() {
    let bytes: Vec<u8> = MessageKind::ALL
        .iter()
        .flat_map(|&kind| FrameHeader { payload_bytes: limits::FRAME_BYTES_MAX - 1, kind }.encode())
        .collect();
    check(sample!("frame-headers.hex"), &bytes);
    assert_eq!(bytes.len(), MessageKind::ALL.len() * FRAME_HEADER_BYTES);
}
