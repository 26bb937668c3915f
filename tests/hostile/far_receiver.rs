//! A hostile client that sends to a far receiver.

use xfer::limits;
use xfer::model::{Digest, DirId, Entry, Kind, ListedEntry, Metadata, Name, Piece, PieceId, Timestamp};
use xfer::plan::options::SyncOptions;
use xfer::wire::{
    Content, DataRecord, Encoder, Encoding, FarRole, FileKey, Greeting, ListingEnd, Message, MessageKind,
};

use super::support::peer::{FarEnd, frame, said, setup, told};
use super::{MIB_MAX, Place, options};

/// A far receiver that was set up and has said that it is ready.
fn receiver(place: &Place, options: SyncOptions) -> FarEnd {
    let mut far = FarEnd::set_up(&setup(FarRole::Receiver, &place.root(), options));
    far.hear(|message| matches!(message, Message::Ready { .. }).then_some(())).expect("it is ready");
    far.say(&Message::Sources { single: None, root: None });
    far
}

fn listed(name: &str, kind: Kind, size: u64) -> ListedEntry {
    let metadata = Metadata {
        kind,
        mode: 0o644,
        uid: 0,
        gid: 0,
        size,
        blocks: 0,
        mtime: Timestamp::new(1_600_000_000, 0),
        atime: Timestamp::default(),
        ctime: Timestamp::default(),
        rdev: (0, 0),
        dev: (0, 0),
        ino: 0,
        nlink: 1,
    };
    let name = Name::new(name.as_bytes()).unwrap();
    let entry = Entry { name, metadata, link_target: None, hard_link: None, acls: None, xattrs: None };
    ListedEntry { entry, descend: kind == Kind::Dir, implied: false }
}

fn piece(id: u64, entries: Vec<ListedEntry>) -> Piece {
    Piece {
        id: PieceId(id),
        dir: DirId::ROOT,
        first_child: DirId(1),
        after: None,
        last: true,
        whole: true,
        merge_files: Vec::new(),
        entries,
    }
}

fn listing(piece: Piece) -> Message {
    Message::Listing(Box::new(piece))
}

/// The fields of a piece up to its entries, then plain files of these names and of `size`.
fn listing_of(names: &[&[u8]], size: u64) -> Vec<u8> {
    told(MessageKind::Listing, |out: &mut Encoder<'_>| {
        for number in [0, 0, 1, 1] {
            out.uint(number);
        }
        out.bytes(b"");
        out.uint(0);
        out.uint(names.len() as u64);
        for name in names {
            out.uint(64);
            out.uint(0);
            out.bytes(name);
            out.u8(0);
            for number in [0o644, size, 8, 0, 0, 0, 0] {
                out.uint(number);
            }
        }
    })
}

fn content(size: u64) -> Content {
    Content { size, mtime: Timestamp::new(1_600_000_000, 0), mode: 0o644, uid: 0, gid: 0 }
}

fn small(key: FileKey, size: u64, encoding: Encoding, bytes: &[u8]) -> Message {
    let mut payload = Vec::new();
    let record = DataRecord::Small {
        content: content(size),
        digest: Digest([7; 32]),
        live: false,
        segments: 0,
        encoding,
        bytes,
    };
    record.encode(key, &mut payload);
    Message::Data(payload)
}

#[test]
fn names_that_lead_elsewhere() {
    for name in [&b".."[..], b".", b"", b"/", b"a/b", b"../canary/file", b"/etc/hostile", b"a\0b"] {
        let place = Place::new();
        let mut far = receiver(&place, options());
        far.raw(&listing_of(&[name], 5));
        far.ends().honestly("bad name", MIB_MAX);
        place.is_untouched();
    }
}

#[test]
fn lengths_beyond_reason() {
    let place = Place::new();
    for bytes in [listing_of(&[b"a"], 1 << 63), listing_of(&[b"a"], u64::MAX)] {
        let mut far = receiver(&place, options());
        far.raw(&bytes);
        far.ends().honestly("out of range", MIB_MAX);
    }
    // A frame that says it has four gigabytes, and one byte more than it may.
    for length in [u32::MAX, limits::FRAME_BYTES_MAX as u32 + 1] {
        let mut far = receiver(&place, options());
        let mut header = length.to_le_bytes().to_vec();
        header.push(MessageKind::Data as u8);
        far.raw(&header);
        far.ends().honestly("frame length", MIB_MAX);
    }
    let mut far = receiver(&place, options());
    far.raw(&frame(200, b""));
    far.ends().honestly("unknown message", MIB_MAX);
    // Room for 2^63 entries, owners, paths is not made either.
    for kind in [MessageKind::Listing, MessageKind::Owners, MessageKind::Release, MessageKind::Items] {
        let mut far = receiver(&place, options());
        far.raw(&told(kind, |out| (0..9).for_each(|_| out.uint(1 << 63))));
        far.ends().honestly("", MIB_MAX);
    }
    place.is_untouched();
}

#[test]
fn data_that_nobody_asked_for() {
    let place = Place::new();
    for key in [FileKey { piece: PieceId(0), index: 0 }, FileKey { piece: PieceId(u64::MAX), index: 1023 }] {
        let mut far = receiver(&place, options());
        far.say(&small(key, 3, Encoding::Raw, b"abc"));
        far.ends().honestly("not open", MIB_MAX);
    }
    // A directory is no file.
    let mut far = receiver(&place, SyncOptions { dry_run: true, ..options() });
    far.say(&listing(piece(0, vec![listed("d", Kind::Dir, 0)])));
    far.say(&small(FileKey { piece: PieceId(0), index: 0 }, 3, Encoding::Raw, b"abc"));
    far.ends().honestly("not open", MIB_MAX);
    place.is_untouched();
}

#[test]
fn more_listings_than_credit() {
    let place = Place::new();
    let mut far = receiver(&place, options());
    let mut after = None;
    // Files that are wanted and never sent: nothing is released.
    for id in 0..100 {
        let entries: Vec<_> = (0..1024).map(|n| listed(&format!("{id:05}-{n:05}"), Kind::File, 9)).collect();
        let last_name = entries.last().map(|listed| listed.entry.name.clone());
        if !far.say(&listing(Piece { after, last: false, ..piece(id, entries) })) {
            break;
        }
        after = last_name;
    }
    far.ends().honestly("more listings than was allowed", MIB_MAX);
    place.is_untouched();
}

#[test]
fn a_listing_that_never_ends() {
    let place = Place::new();
    let mut far = receiver(&place, options());
    let mut after = None;
    // Pipes are skipped without `-D`, so that every piece is released at once, and more may come.
    for id in 0..300 {
        let entries: Vec<_> = (0..1024).map(|n| listed(&format!("{id:05}-{n:05}"), Kind::Fifo, 0)).collect();
        let last_name = entries.last().map(|listed| listed.entry.name.clone());
        assert!(far.say(&listing(Piece { after, last: false, ..piece(id, entries) })), "it keeps to its credit");
        after = last_name;
        far.hear(|message| match message {
            Message::Release { piece, .. } if piece.0 == id => Some(()),
            _ => None,
        })
        .expect("a release");
    }
    far.hang_up().honestly("", MIB_MAX);
    place.is_untouched();
}

#[test]
fn directories_announced_without_end() {
    let place = Place::new();
    let mut far = receiver(&place, SyncOptions { dry_run: true, ..options() });
    let mut after = None;
    for id in 0..200 {
        let entries: Vec<_> = (0..1024).map(|n| listed(&format!("{id:05}-{n:05}"), Kind::Dir, 0)).collect();
        let last_name = entries.last().map(|listed| listed.entry.name.clone());
        let first_child = DirId(1 + id * 1024);
        if !far.say(&listing(Piece { after, last: false, first_child, ..piece(id, entries) })) {
            break;
        }
        after = last_name;
    }
    far.hang_up().honestly("", MIB_MAX);
    place.is_untouched();
}

#[test]
fn content_that_expands() {
    let place = Place::new();
    let mut far = receiver(&place, options());
    far.say(&listing(piece(0, vec![listed("bomb", Kind::File, 100)])));
    far.say(&Message::ListingEnd(ListingEnd::default()));
    let bomb = zstd::bulk::compress(&vec![0; 512 << 20], 19).unwrap();
    assert!(bomb.len() < 100_000, "a bomb is small");
    let mut answers = 0;
    // Every time that it is asked for again, until it is given up.
    loop {
        let wanted = far.hear(|message| match message {
            Message::Wants { piece, wants } => Some(Some(FileKey { piece, index: wants[0].index })),
            Message::Release { .. } | Message::Fatal { .. } => Some(None),
            _ => None,
        });
        let Some(Some(key)) = wanted else { break };
        far.say(&small(key, 100, Encoding::Zstd, &bomb));
        answers += 1;
        assert!(answers < 10, "asked for again without end");
    }
    assert!(answers > 0, "nothing was asked for");
    let ended = far.hang_up();
    ended.in_order(MIB_MAX);
    place.is_untouched();
}

#[test]
fn text_and_nothing() {
    let place = Place::new();
    let mut far = FarEnd::start();
    far.raw(b"GET / HTTP/1.1\r\nHost: here\r\n\r\n");
    far.ends().honestly("not an xfer greeting", MIB_MAX);
    FarEnd::start().hang_up().honestly("", MIB_MAX);
    // Half a greeting, a greeting alone, half a frame.
    let greeting = Greeting::ours().encode();
    for bytes in [&greeting[..10], &greeting, &[&greeting[..], &[9, 0, 0]].concat()] {
        let mut far = FarEnd::start();
        far.raw(bytes);
        far.hang_up().honestly("", MIB_MAX);
    }
    // No setup first.
    let mut far = FarEnd::start();
    far.raw(&greeting);
    far.say(&Message::Stop);
    far.ends().honestly("unexpected message", MIB_MAX);
    place.is_untouched();
}

#[test]
fn garbage_after_the_end() {
    let place = Place::new();
    let mut far = receiver(&place, options());
    far.say(&listing(piece(0, Vec::new())));
    far.say(&Message::ListingEnd(ListingEnd::default()));
    far.raw(&said(&Message::ListingEnd(ListingEnd::default())));
    far.ends().honestly("unexpected end of listings", MIB_MAX);
    // After both are done nobody listens: what comes then changes nothing.
    let mut far = receiver(&place, options());
    far.say(&listing(piece(0, Vec::new())));
    far.say(&Message::ListingEnd(ListingEnd::default()));
    far.hear(|message| matches!(message, Message::Done(_)).then_some(())).expect("it is done");
    far.say(&Message::Done(Box::default()));
    far.raw(&listing_of(&[b"../canary/file"], 5));
    far.raw(&[0xff; 4096]);
    let ended = far.hang_up();
    ended.in_order(MIB_MAX);
    place.is_untouched();
}
