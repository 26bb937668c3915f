//! The books of a session: every message that does not fit is refused.

use crate::limits;
use crate::model::{Digest, DirId, Entry, Kind, ListedEntry, Metadata, Name, Piece, PieceId, Timestamp, piece_cost};
use crate::wire::flow::FlowLimits;
use crate::wire::{
    Content, DataRecord, Encoding, Failure, FileKey, FlowError, ReceiverFlow, SenderFlow, Want, WantMode,
};

pub(super) fn listed(name: &[u8], kind: Kind, size: u64) -> ListedEntry {
    let metadata = Metadata {
        kind,
        mode: 0o644,
        uid: 0,
        gid: 0,
        size,
        blocks: 0,
        mtime: Timestamp::default(),
        atime: Timestamp::default(),
        ctime: Timestamp::default(),
        rdev: (0, 0),
        dev: (0, 0),
        ino: 0,
        nlink: 1,
    };
    let name = Name::new(name).unwrap();
    let entry = Entry { name, metadata, link_target: None, hard_link: None, acls: None, xattrs: None };
    ListedEntry { entry, descend: kind == Kind::Dir, implied: false }
}

/// A piece of the root that ends it.
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

fn file(name: &[u8]) -> ListedEntry {
    listed(name, Kind::File, 10)
}

fn dir(name: &[u8]) -> ListedEntry {
    listed(name, Kind::Dir, 0)
}

fn want(index: u16) -> Want {
    Want { index, mode: WantMode::Whole }
}

fn key(index: u16) -> FileKey {
    FileKey { piece: PieceId(0), index }
}

fn content(size: u64) -> Content {
    Content { size, mtime: Timestamp::default(), mode: 0o644, uid: 0, gid: 0 }
}

const DIGEST: Digest = Digest([7; 32]);

fn not_open(what: &'static str, number: u64) -> Result<(), FlowError> {
    Err(FlowError::NotOpen { what, number })
}

fn unexpected<T>(what: &'static str) -> Result<T, FlowError> {
    Err(FlowError::Unexpected { what })
}

#[test]
fn a_sender_takes_wants_of_open_files_once() {
    let mut flow = SenderFlow::new();
    let mut sent = piece(99, vec![file(b"a"), dir(b"b"), listed(b"c", Kind::Symlink, 3), file(b"d")]);
    assert!(flow.reserve(4));
    flow.open(&mut sent);
    assert_eq!((sent.id, sent.first_child), (PieceId(0), DirId(1)));
    assert_eq!(flow.on_wants(PieceId(1), &[want(0)]), not_open("piece", 1));
    for index in [1, 2, 4, 1023] {
        assert_eq!(flow.on_wants(sent.id, &[want(index)]), not_open("file", u64::from(index)));
    }
    assert_eq!(flow.on_wants(sent.id, &[want(0), want(3)]), Ok(()));
    assert_eq!(flow.on_wants(sent.id, &[want(3)]), Err(FlowError::Twice { what: "want", number: 3 }));
    // Answered, it may be wanted again: what arrived can have been spoilt.
    flow.answered(key(3));
    assert_eq!(flow.on_wants(sent.id, &[want(3)]), Ok(()));
    assert_eq!(flow.on_release(PieceId(1)), not_open("piece", 1));
    assert_eq!(flow.on_release(sent.id), Ok(()));
    assert_eq!(flow.on_release(sent.id), not_open("piece", 0));
    assert_eq!(flow.on_wants(sent.id, &[want(0)]), not_open("piece", 0));
    assert!(!flow.is_settled());
    flow.end();
    assert!(flow.is_settled());
}

#[test]
fn a_sender_lists_against_credit_and_refuses_too_many_wants() {
    let mut flow = SenderFlow::within(FlowLimits { entries: 10, wants: 3, large_wants: 1, wanted_bytes: 0 });
    let mut first = piece(0, vec![file(b"a"), file(b"b"), file(b"c"), file(b"d")]);
    assert!(flow.reserve(4));
    flow.open(&mut first);
    assert!(!flow.reserve(5));
    assert!(flow.reserve(4));
    assert!(!flow.reserve(0));
    assert_eq!(flow.on_release(first.id), Ok(()));
    assert!(flow.reserve(4));
    assert!(!flow.reserve(0));

    let mut flow = SenderFlow::within(FlowLimits { entries: 10, wants: 3, large_wants: 1, wanted_bytes: 0 });
    assert!(flow.reserve(4));
    flow.open(&mut first);
    assert_eq!(flow.on_wants(first.id, &[want(0), want(1), want(2)]), Ok(()));
    assert_eq!(flow.on_wants(first.id, &[want(3)]), Err(FlowError::Excess { what: "wants" }));
    // Answers count even when their piece is released.
    let mut flow = SenderFlow::within(FlowLimits { entries: 20, wants: 3, large_wants: 1, wanted_bytes: 0 });
    let mut second = first.clone();
    for piece in [&mut first, &mut second] {
        assert!(flow.reserve(4));
        flow.open(piece);
    }
    assert_eq!(flow.on_wants(first.id, &[want(0), want(1), want(2)]), Ok(()));
    assert_eq!(flow.on_release(first.id), Ok(()));
    for index in 0..3 {
        flow.answered(FileKey { piece: first.id, index });
    }
    assert_eq!(flow.on_wants(second.id, &[want(0), want(1), want(2)]), Ok(()));
}

#[test]
fn a_receiver_takes_pieces_in_order_within_open_directories() {
    let fresh = ReceiverFlow::new;
    assert_eq!(fresh().on_piece(&piece(1, vec![file(b"a")])), not_open("piece", 1));
    let unknown = Piece { dir: DirId(1), ..piece(0, vec![file(b"a")]) };
    assert_eq!(fresh().on_piece(&unknown), not_open("directory", 1));

    let mut flow = fresh();
    let first = Piece { last: false, ..piece(0, vec![file(b"a"), dir(b"b")]) };
    assert_eq!(flow.on_piece(&first), Ok(()));
    assert_eq!(flow.on_piece(&first), not_open("piece", 0));
    // The end would leave two directories open.
    assert_eq!(flow.on_listing_end(), unexpected("end of listings"));
    let next = Piece { after: Some(Name::new(b"b").unwrap()), first_child: DirId(2), ..piece(1, vec![file(b"c")]) };
    assert_eq!(flow.on_piece(&next), Ok(()));
    // The root has ended.
    let more = Piece { after: Some(Name::new(b"c").unwrap()), ..piece(2, vec![file(b"d")]) };
    assert_eq!(flow.on_piece(&more), not_open("directory", 0));
    assert_eq!(flow.on_listing_end(), unexpected("end of listings"));
    let child = Piece { dir: DirId(1), ..piece(2, Vec::new()) };
    assert_eq!(flow.on_piece(&child), Ok(()));
    assert_eq!(flow.on_piece(&Piece { id: PieceId(3), ..child.clone() }), not_open("directory", 1));
    assert_eq!(flow.on_listing_end(), Ok(()));
    assert_eq!(flow.on_listing_end(), unexpected("end of listings"));
    assert_eq!(flow.on_piece(&Piece { id: PieceId(3), ..child }), not_open("piece", 3));
    assert!(!flow.is_settled());
    for number in 0..3 {
        flow.release(PieceId(number));
    }
    assert!(flow.is_settled());
}

#[test]
fn a_receiver_refuses_pieces_that_do_not_fit() {
    let name = |name: &[u8]| Some(Name::new(name).unwrap());
    let refused = |piece: Piece| ReceiverFlow::new().on_piece(&piece);
    let order = || unexpected("order of names");
    assert_eq!(refused(Piece { after: name(b"a"), ..piece(0, vec![file(b"b")]) }), order());
    assert_eq!(refused(piece(0, vec![file(b"b"), file(b"a")])), order());
    assert_eq!(refused(piece(0, vec![file(b"a"), file(b"a")])), order());
    assert_eq!(refused(Piece { last: false, ..piece(0, Vec::new()) }), unexpected("empty piece"));
    assert_eq!(refused(Piece { first_child: DirId(2), ..piece(0, vec![dir(b"a")]) }), unexpected("directory number"));
    // Without directories the number means nothing.
    assert_eq!(refused(Piece { first_child: DirId(2), ..piece(0, vec![file(b"a")]) }), Ok(()));

    let after_first = |next: Piece| {
        let mut flow = ReceiverFlow::new();
        flow.on_piece(&Piece { last: false, ..piece(0, vec![file(b"m")]) }).unwrap();
        flow.on_piece(&Piece { id: PieceId(1), ..next })
    };
    assert_eq!(after_first(Piece { after: name(b"m"), ..piece(1, vec![file(b"n")]) }), Ok(()));
    assert_eq!(after_first(piece(1, vec![file(b"n")])), order());
    assert_eq!(after_first(Piece { after: name(b"l"), ..piece(1, vec![file(b"n")]) }), order());
    assert_eq!(after_first(Piece { after: name(b"m"), ..piece(1, vec![file(b"a")]) }), order());
    let merge_files = vec![(b".rules".to_vec(), Vec::new())];
    assert_eq!(refused(Piece { merge_files: merge_files.clone(), ..piece(0, vec![file(b"a")]) }), Ok(()));
    let late = Piece { after: name(b"m"), merge_files, ..piece(1, vec![file(b"n")]) };
    assert_eq!(after_first(late), unexpected("merge files"));
}

#[test]
fn a_receiver_bounds_what_is_listed_and_how_deep() {
    let mut flow = ReceiverFlow::within(FlowLimits { entries: 5, wants: 8, large_wants: 2, wanted_bytes: 100 });
    let some = |id: u64, names: &[&[u8]], after: Option<&[u8]>| Piece {
        last: false,
        after: after.map(|name| Name::new(name).unwrap()),
        ..piece(id, names.iter().map(|name| file(name)).collect())
    };
    assert_eq!(flow.on_piece(&some(0, &[b"a", b"b"], None)), Ok(()));
    assert_eq!(flow.on_piece(&some(1, &[b"c"], Some(b"b"))), Ok(()));
    flow.release(PieceId(0));
    assert_eq!(flow.on_piece(&some(2, &[b"d", b"e"], Some(b"c"))), Ok(()));
    assert_eq!(flow.on_piece(&some(3, &[b"f"], Some(b"e"))), Err(FlowError::Excess { what: "listings" }));

    let mut flow = ReceiverFlow::new();
    let level =
        |number: u64, entries| Piece { dir: DirId(number), first_child: DirId(number + 1), ..piece(number, entries) };
    for number in 0..limits::DIRECTORY_DEPTH_MAX as u64 {
        assert_eq!(flow.on_piece(&level(number, vec![dir(b"d")])), Ok(()), "{number}");
        flow.release(PieceId(number));
    }
    let bottom = limits::DIRECTORY_DEPTH_MAX as u64;
    assert_eq!(flow.on_piece(&level(bottom, vec![dir(b"d")])), Err(FlowError::Excess { what: "depth" }));
    assert_eq!(flow.on_piece(&level(bottom, vec![file(b"f")])), Ok(()));
    assert_eq!(flow.on_listing_end(), Ok(()));
}

#[test]
fn a_receiver_keeps_to_its_wants() {
    let mut flow = ReceiverFlow::within(FlowLimits { entries: 100, wants: 8, large_wants: 2, wanted_bytes: 100 });
    // Two may be open however large they are.
    assert!(flow.may_want(1000));
    flow.want(key(0), &WantMode::Whole, 60);
    assert!(flow.may_want(u64::MAX));
    flow.want(key(1), &WantMode::Whole, 30);
    assert!(flow.may_want(10));
    assert!(!flow.may_want(11));
    assert!(!flow.may_want(u64::MAX));
    let failed = DataRecord::Failed { failure: Failure::Vanished, errno: 2, text: b"" };
    assert_eq!(flow.on_record(key(0), &failed), Ok(true));
    flow.want(key(2), &WantMode::Whole, u64::MAX);
    assert!(!flow.may_want(0));
    assert_eq!(flow.on_record(key(2), &failed), Ok(true));
    for index in 3..6 {
        assert!(flow.may_want(0));
        flow.want(key(index), &WantMode::Whole, 0);
    }
    // Half of them, so that a repair always finds room.
    assert_eq!(flow.outstanding_wants(), 4);
    assert!(!flow.may_want(0));
}

#[test]
fn records_fit_what_was_wanted() {
    let segment = limits::SEGMENT_BYTES;
    let small = |size| DataRecord::Small {
        content: content(size),
        digest: DIGEST,
        live: false,
        encoding: Encoding::Raw,
        bytes: b"",
    };
    let begin = |size| DataRecord::Begin { content: content(size) };
    let part = |index| DataRecord::Segment { index, digest: DIGEST, encoding: Encoding::Raw, bytes: b"" };
    let zeros = |index| DataRecord::ZeroSegment { index };
    let patch =
        |index| DataRecord::Patch { index, digest: DIGEST, encoding: Encoding::Raw, decoded_bytes: 0, bytes: b"" };
    let end = DataRecord::End { digest: DIGEST, live: false };
    let same = DataRecord::Same { content: content(1) };
    let digest = DataRecord::Digest { digest: DIGEST };
    let delta = |digest| WantMode::Delta { basis_bytes: 1 << 20, block_bytes: 4096, digest, same_offset_only: false };
    /// Says records of one want, all of which but the last have to be fine; the last one's verdict.
    fn say(mode: &WantMode, records: &[DataRecord<'_>]) -> Result<bool, FlowError> {
        let mut flow = ReceiverFlow::new();
        flow.want(key(5), mode, 1);
        let (last, first) = records.split_last().unwrap();
        for record in first {
            assert_eq!(flow.on_record(key(5), record), Ok(false));
        }
        let verdict = flow.on_record(key(5), last);
        // Settled is settled: nothing follows.
        if verdict == Ok(true) {
            let closed = Err(FlowError::NotOpen { what: "file", number: 5 });
            assert_eq!(flow.on_record(key(5), last), closed);
            assert_eq!(flow.outstanding_wants(), 0);
        }
        verdict
    }
    let wrong = || unexpected("record");
    let whole = WantMode::Whole;
    assert_eq!(say(&whole, &[small(0)]), Ok(true));
    assert_eq!(say(&whole, &[small(limits::SMALL_FILE_BYTES_MAX)]), Ok(true));
    assert_eq!(say(&whole, &[small(limits::SMALL_FILE_BYTES_MAX + 1)]), wrong());
    assert_eq!(say(&whole, &[part(0)]), wrong());
    assert_eq!(say(&whole, &[zeros(0)]), wrong());
    assert_eq!(say(&whole, std::slice::from_ref(&end)), wrong());
    assert_eq!(say(&whole, &[begin(2 * segment), zeros(0), part(1), end.clone()]), Ok(true));
    assert_eq!(say(&whole, &[begin(2 * segment), part(2)]), wrong());
    assert_eq!(say(&whole, &[begin(2 * segment + 1), part(2)]), Ok(false));
    assert_eq!(say(&whole, &[begin(0), zeros(0)]), wrong());
    // Read again: the new length counts.
    assert_eq!(say(&whole, &[begin(3 * segment), part(2), begin(segment), part(1)]), wrong());
    assert_eq!(say(&whole, &[begin(3 * segment), part(0), small(10)]), Ok(true));
    assert_eq!(say(&whole, &[begin(segment), patch(0)]), wrong());
    assert_eq!(say(&whole, std::slice::from_ref(&same)), wrong());
    assert_eq!(say(&whole, std::slice::from_ref(&digest)), wrong());
    assert_eq!(say(&WantMode::IfDiffers(DIGEST), std::slice::from_ref(&same)), Ok(true));
    assert_eq!(say(&WantMode::IfDiffers(DIGEST), &[small(5)]), Ok(true));
    assert_eq!(say(&WantMode::Digest, std::slice::from_ref(&digest)), Ok(true));
    for record in [small(1), begin(1), part(0), zeros(0), patch(0), end.clone(), same.clone()] {
        assert_eq!(say(&WantMode::Digest, &[record]), wrong());
    }
    assert_eq!(say(&delta(None), &[begin(segment), patch(0), end.clone()]), Ok(true));
    assert_eq!(say(&delta(None), &[patch(0)]), wrong());
    assert_eq!(say(&delta(None), &[begin(segment), patch(1)]), wrong());
    assert_eq!(say(&delta(None), std::slice::from_ref(&same)), wrong());
    assert_eq!(say(&delta(Some(DIGEST)), &[same]), Ok(true));
    let failed = DataRecord::Failed { failure: Failure::Changed, errno: 0, text: b"" };
    for mode in [whole, WantMode::IfDiffers(DIGEST), WantMode::Digest, delta(None)] {
        assert_eq!(say(&mode, std::slice::from_ref(&failed)), Ok(true));
    }
    assert_eq!(ReceiverFlow::new().on_record(key(3), &digest), Err(FlowError::NotOpen { what: "file", number: 3 }));
}

#[test]
fn the_protocols_limits_are_those_of_the_books() {
    let mut flow = SenderFlow::new();
    let mut entries = 0;
    while flow.reserve(limits::LISTING_PIECE_ENTRIES_MAX) {
        entries += piece_cost(limits::LISTING_PIECE_ENTRIES_MAX);
    }
    assert!(entries <= limits::LISTED_ENTRIES_OUTSTANDING_MAX);
    assert!(entries + piece_cost(limits::LISTING_PIECE_ENTRIES_MAX) > limits::LISTED_ENTRIES_OUTSTANDING_MAX);
    let flow = ReceiverFlow::new();
    assert!(flow.may_want(limits::WANTED_BYTES_OUTSTANDING_MAX));
}
