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

/// Limits of which only some matter.
pub(super) fn limited(entries: u64, wants: usize, large_wants: usize, wanted_bytes: u64) -> FlowLimits {
    FlowLimits { entries, wants, large_wants, wanted_bytes, directories: 1000, early_end_bytes: 1000 }
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
    let mut flow = SenderFlow::within(limited(10, 3, 1, 0));
    let mut first = piece(0, vec![file(b"a"), file(b"b"), file(b"c"), file(b"d")]);
    assert!(flow.reserve(4));
    flow.open(&mut first);
    assert!(!flow.reserve(5));
    assert!(flow.reserve(4));
    assert!(!flow.reserve(0));
    assert_eq!(flow.on_release(first.id), Ok(()));
    assert!(flow.reserve(4));
    assert!(!flow.reserve(0));

    let mut flow = SenderFlow::within(limited(10, 3, 1, 0));
    assert!(flow.reserve(4));
    flow.open(&mut first);
    assert_eq!(flow.on_wants(first.id, &[want(0), want(1), want(2)]), Ok(()));
    assert_eq!(flow.on_wants(first.id, &[want(3)]), Err(FlowError::Excess { what: "wants" }));
    // Answers count even when their piece is released.
    let mut flow = SenderFlow::within(limited(20, 3, 1, 0));
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
    let mut flow = ReceiverFlow::within(limited(5, 8, 2, 100));
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
    let mut flow = ReceiverFlow::within(limited(100, 8, 2, 100));
    // Two may be open however large they are.
    assert!(flow.may_want(1000));
    flow.want(key(0), &WantMode::Whole, 60);
    assert!(flow.may_want(u64::MAX));
    flow.want(key(1), &WantMode::Whole, 30);
    assert!(flow.may_want(10));
    assert!(!flow.may_want(11));
    assert!(!flow.may_want(u64::MAX));
    let failed = DataRecord::Failed { segments: 0, failure: Failure::Vanished, errno: 2, text: b"" };
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
fn a_receiver_bounds_directories() {
    let limits = FlowLimits { directories: 3, ..limited(1000, 8, 2, 100) };
    let mut flow = ReceiverFlow::within(limits);
    let children = |names: &[&[u8]]| names.iter().map(|name| dir(name)).collect::<Vec<_>>();
    // The root goes as its last piece comes.
    assert_eq!(flow.on_piece(&piece(0, children(&[b"a", b"b", b"c"]))), Ok(()));
    let next = |id: u64, dir: u64, names: &[&[u8]], last: bool| Piece {
        dir: DirId(dir),
        first_child: DirId(4),
        last,
        ..piece(id, children(names))
    };
    assert_eq!(flow.on_piece(&next(1, 2, &[b"d"], true)), Ok(()));
    let excess = |what| Err(FlowError::Excess { what });
    let more = Piece { first_child: DirId(5), ..next(2, 1, &[b"e"], false) };
    assert_eq!(flow.on_piece(&more), excess("directories"));

    let mut flow = ReceiverFlow::new();
    let names: Vec<Vec<u8>> = (0..1000).map(|number| format!("{number:03}").into_bytes()).collect();
    flow.on_piece(&piece(0, names.iter().map(|name| dir(name)).collect())).unwrap();
    let begin = |number: u64| Piece { last: false, dir: DirId(number), ..piece(number, vec![file(b"x")]) };
    let begun_max = limits::DIRECTORIES_BEGUN_MAX as u64;
    for number in 1..=begun_max {
        assert_eq!(flow.on_piece(&begin(number)), Ok(()));
    }
    assert_eq!(flow.on_piece(&begin(begun_max + 1)), excess("directories at once"));
    assert!(limits::DIRECTORIES_BEGUN_MAX > limits::WORKERS_MAX, "every thread of an honest walk may begin one");
}

/// The sender's book says beforehand what the receiver would refuse.
#[test]
fn a_sender_announces_no_more_than_the_receiver_takes() {
    let limits = FlowLimits { directories: 5, ..limited(1000, 8, 2, 100) };
    let mut sender = SenderFlow::within(limits);
    let children = |count: usize| (0..count).map(|number| dir(format!("{number:03}").as_bytes())).collect::<Vec<_>>();
    let mut said = Vec::new();
    let mut say = |mut piece: Piece| {
        assert!(sender.may_announce(&piece));
        assert!(sender.reserve(piece.entries.len()));
        sender.open(&mut piece);
        said.push(piece);
    };
    say(Piece { last: false, ..piece(0, children(3)) });
    say(Piece { after: Some(Name::new(b"002").unwrap()), ..piece(0, vec![dir(b"9"), dir(b"91")]) });
    say(Piece { dir: DirId(4), ..piece(0, vec![file(b"f")]) });
    say(Piece { dir: DirId(5), last: false, ..piece(0, children(1)) });
    // Both ends count alike: what the one would not say, the other would not take.
    let next =
        |count, last| Piece { id: PieceId(4), dir: DirId(1), first_child: DirId(7), last, ..piece(0, children(count)) };
    for (piece, fits) in [(next(1, true), true), (next(1, false), false), (next(2, true), false)] {
        assert_eq!(sender.may_announce(&piece), fits);
        let mut receiver = ReceiverFlow::within(limits);
        said.iter().for_each(|piece| assert_eq!(receiver.on_piece(piece), Ok(())));
        let refused = Err(FlowError::Excess { what: "directories" });
        assert_eq!(receiver.on_piece(&piece), if fits { Ok(()) } else { refused });
    }
}

const SEGMENT: u64 = limits::SEGMENT_BYTES;

fn small(size: u64, segments: u64) -> DataRecord<'static> {
    DataRecord::Small {
        content: content(size),
        digest: DIGEST,
        live: false,
        segments,
        encoding: Encoding::Raw,
        bytes: b"",
    }
}

fn begin(attempt: u8, size: u64) -> DataRecord<'static> {
    DataRecord::Begin { attempt, content: content(size) }
}

fn part(attempt: u8, index: u64) -> DataRecord<'static> {
    DataRecord::Segment { attempt, index, digest: DIGEST, encoding: Encoding::Raw, bytes: b"" }
}

fn zeros(attempt: u8, index: u64) -> DataRecord<'static> {
    DataRecord::ZeroSegment { attempt, index }
}

fn patch(attempt: u8, index: u64) -> DataRecord<'static> {
    DataRecord::Patch { attempt, index, digest: DIGEST, encoding: Encoding::Raw, decoded_bytes: 0, bytes: b"" }
}

fn end(attempt: u8, segments: u64) -> DataRecord<'static> {
    DataRecord::End { attempt, digest: DIGEST, live: false, segments }
}

fn same(segments: u64) -> DataRecord<'static> {
    DataRecord::Same { content: content(1), segments }
}

fn failed(segments: u64) -> DataRecord<'static> {
    DataRecord::Failed { segments, failure: Failure::Changed, errno: 0, text: b"" }
}

fn delta(digest: Option<Digest>) -> WantMode {
    WantMode::Delta { basis_bytes: 1 << 20, block_bytes: 4096, digest, same_offset_only: false }
}

/// Takes a record, and works on it at once where it is a segment; whether that settled the file.
fn take(flow: &mut ReceiverFlow, record: &DataRecord<'_>) -> Result<bool, FlowError> {
    let settled = flow.on_record(key(5), record)?;
    let is_segment = record.settles().is_none() && !matches!(record, DataRecord::Begin { .. });
    assert!(!(is_segment && settled), "a segment settles nothing before it is worked on");
    Ok(settled || is_segment && flow.segment_done(key(5)))
}

/// Says records of one want, all of which but the last have to be fine; the last one's verdict.
fn say(mode: &WantMode, records: &[DataRecord<'_>]) -> Result<bool, FlowError> {
    let mut flow = ReceiverFlow::new();
    flow.want(key(5), mode, 1);
    let (last, first) = records.split_last().unwrap();
    for record in first {
        assert_eq!(take(&mut flow, record), Ok(false), "{record:?}");
    }
    let verdict = take(&mut flow, last);
    // Settled is settled: nothing follows.
    if verdict == Ok(true) {
        let closed = Err(FlowError::NotOpen { what: "file", number: 5 });
        assert_eq!(flow.on_record(key(5), last), closed);
        assert!(!flow.segment_done(key(5)));
        assert_eq!(flow.outstanding_wants(), 0);
    }
    verdict
}

#[test]
fn records_fit_what_was_wanted() {
    let digest = DataRecord::Digest { digest: DIGEST };
    let wrong = || unexpected("record");
    let whole = WantMode::Whole;
    assert_eq!(say(&whole, &[small(0, 0)]), Ok(true));
    assert_eq!(say(&whole, &[small(limits::SMALL_FILE_BYTES_MAX, 0)]), Ok(true));
    assert_eq!(say(&whole, &[small(limits::SMALL_FILE_BYTES_MAX + 1, 0)]), wrong());
    assert_eq!(say(&whole, &[part(0, 0)]), wrong());
    assert_eq!(say(&whole, &[zeros(0, 0)]), wrong());
    assert_eq!(say(&whole, &[end(0, 0)]), wrong());
    assert_eq!(say(&whole, &[begin(0, 2 * SEGMENT), zeros(0, 0), part(0, 1), end(0, 2)]), Ok(true));
    assert_eq!(say(&whole, &[begin(0, 2 * SEGMENT), part(0, 2)]), wrong());
    assert_eq!(say(&whole, &[begin(0, 2 * SEGMENT + 1), part(0, 2)]), Ok(false));
    assert_eq!(say(&whole, &[begin(0, 0), zeros(0, 0)]), wrong());
    assert_eq!(say(&whole, &[begin(0, 0), end(0, 0)]), Ok(true));
    assert_eq!(say(&whole, &[begin(0, SEGMENT), patch(0, 0)]), wrong());
    assert_eq!(say(&whole, &[same(0)]), wrong());
    assert_eq!(say(&whole, std::slice::from_ref(&digest)), wrong());
    assert_eq!(say(&WantMode::IfDiffers(DIGEST), &[same(0)]), Ok(true));
    assert_eq!(say(&WantMode::IfDiffers(DIGEST), &[small(5, 0)]), Ok(true));
    assert_eq!(say(&WantMode::Digest, std::slice::from_ref(&digest)), Ok(true));
    for record in [small(1, 0), begin(0, 1), part(0, 0), zeros(0, 0), patch(0, 0), end(0, 0), same(0)] {
        assert_eq!(say(&WantMode::Digest, &[record]), wrong());
    }
    assert_eq!(say(&delta(None), &[begin(0, SEGMENT), patch(0, 0), end(0, 1)]), Ok(true));
    assert_eq!(say(&delta(None), &[patch(0, 0)]), wrong());
    assert_eq!(say(&delta(None), &[begin(0, SEGMENT), patch(0, 1)]), wrong());
    assert_eq!(say(&delta(None), &[same(0)]), wrong());
    assert_eq!(say(&delta(Some(DIGEST)), &[same(0)]), Ok(true));
    for mode in [whole, WantMode::IfDiffers(DIGEST), WantMode::Digest, delta(None)] {
        assert_eq!(say(&mode, &[failed(0)]), Ok(true));
    }
    assert_eq!(ReceiverFlow::new().on_record(key(3), &digest), Err(FlowError::NotOpen { what: "file", number: 3 }));
}

#[test]
fn attempts_are_begun_before_their_segments_and_keep_their_size() {
    let wrong = || unexpected("record");
    let whole = WantMode::Whole;
    // Said again in every frame, with the same number of segments.
    assert_eq!(say(&whole, &[begin(0, SEGMENT), part(0, 0), begin(0, SEGMENT), end(0, 1)]), Ok(true));
    assert_eq!(say(&whole, &[begin(0, SEGMENT), begin(0, SEGMENT + 1)]), wrong());
    assert_eq!(say(&whole, &[begin(0, 3 * SEGMENT), begin(0, 2 * SEGMENT)]), wrong());
    // Each attempt has a size of its own.
    assert_eq!(say(&whole, &[begin(0, 3 * SEGMENT), begin(1, SEGMENT), part(0, 2), part(1, 0), end(1, 2)]), Ok(true));
    assert_eq!(say(&whole, &[begin(0, 3 * SEGMENT), begin(1, SEGMENT), part(1, 1)]), wrong());
    assert_eq!(say(&whole, &[begin(0, SEGMENT), part(1, 0)]), wrong());
    assert_eq!(say(&whole, &[begin(0, SEGMENT), zeros(1, 0)]), wrong());
    assert_eq!(say(&delta(None), &[begin(0, SEGMENT), patch(1, 0)]), wrong());
    assert_eq!(say(&whole, &[begin(0, SEGMENT), part(0, 0), end(1, 1)]), wrong());
    // No attempt has to be the first.
    let last = limits::CHANGED_FILE_READS_MAX as u8 - 1;
    assert_eq!(say(&whole, &[begin(last, SEGMENT), part(last, 0), end(last, 1)]), Ok(true));
    for record in [part(last + 1, 0), zeros(u8::MAX, 0), end(last + 1, 0)] {
        assert_eq!(say(&whole, &[begin(last, SEGMENT), record]), wrong());
    }
}

#[test]
fn a_file_settles_when_all_its_segments_were_worked_on() {
    let whole = WantMode::Whole;
    // The end may come first, over another lane.
    for record in [end(0, 3), small(10, 3), failed(3)] {
        let late = [begin(0, 3 * SEGMENT), record, part(0, 2), begin(0, 3 * SEGMENT), zeros(0, 0), part(0, 1)];
        assert_eq!(say(&whole, &late), Ok(true));
    }
    // An earlier attempt's segments come after those of the one that counts, and after its end.
    let interleaved = [
        begin(1, 2 * SEGMENT),
        part(1, 1),
        begin(0, 4 * SEGMENT),
        part(0, 3),
        part(1, 0),
        end(1, 5),
        part(0, 0),
        begin(0, 4 * SEGMENT),
        part(0, 1),
    ];
    assert_eq!(say(&whole, &interleaved), Ok(true));
    assert_eq!(say(&WantMode::IfDiffers(DIGEST), &[begin(0, SEGMENT), part(0, 0), same(1)]), Ok(true));

    // What was taken is not what was worked on: whoever ends the last one settles the file, once.
    let mut flow = ReceiverFlow::new();
    flow.want(key(5), &whole, 100);
    for record in [begin(0, 2 * SEGMENT), part(0, 0), part(0, 1), end(0, 2)] {
        assert_eq!(flow.on_record(key(5), &record), Ok(false));
    }
    assert!(!flow.segment_done(key(5)));
    assert_eq!(flow.outstanding_wants(), 1);
    assert!(flow.segment_done(key(5)));
    assert_eq!(flow.outstanding_wants(), 0);
    assert!(!flow.segment_done(key(5)), "nothing is open any more");
    // It may be wanted again, and nothing of the first answer counts.
    flow.want(key(5), &whole, 100);
    assert_eq!(flow.on_record(key(5), &part(0, 0)), unexpected("record"));
}

#[test]
fn ends_that_do_not_fit_their_segments_are_refused() {
    let whole = WantMode::Whole;
    let wrong_end = || unexpected("end of a file");
    let two = [begin(0, 3 * SEGMENT), part(0, 0), part(0, 1)];
    let then = |more: &[DataRecord<'static>]| say(&whole, &[&two[..], more].concat());
    // Fewer than came.
    for record in [end(0, 1), end(0, 0), small(10, 1), small(10, 0), failed(0)] {
        assert_eq!(then(&[record]), wrong_end());
    }
    assert_eq!(say(&delta(Some(DIGEST)), &[begin(0, SEGMENT), part(0, 0), same(0)]), wrong_end());
    // More than were announced.
    assert_eq!(then(&[end(0, 3), part(0, 2)]), Ok(true));
    let mut flow = ReceiverFlow::new();
    flow.want(key(5), &whole, 1);
    for record in [begin(0, 4 * SEGMENT), part(0, 0), end(0, 2), part(0, 1)] {
        assert_eq!(flow.on_record(key(5), &record), Ok(false));
    }
    assert_eq!(flow.on_record(key(5), &part(0, 2)), unexpected("segment"));
    // Twice.
    assert_eq!(then(&[end(0, 3), end(0, 3)]), wrong_end());
    assert_eq!(then(&[end(0, 3), failed(3)]), wrong_end());
    assert_eq!(then(&[small(10, 3), end(0, 3)]), wrong_end());
    // More segments than the attempts have: some came twice.
    assert_eq!(then(&[part(0, 0)]), Ok(false));
    assert_eq!(then(&[part(0, 0), part(0, 0)]), unexpected("segment"));
    assert_eq!(then(&[begin(1, SEGMENT), part(0, 0), zeros(1, 0), zeros(1, 0)]), unexpected("segment"));
    // Segments that never come settle nothing.
    assert_eq!(then(&[end(0, u64::MAX)]), Ok(false));
}

#[test]
fn ends_that_wait_for_segments_are_bounded() {
    let limits = FlowLimits { early_end_bytes: 10, ..limited(100, 8, 8, 100) };
    let mut flow = ReceiverFlow::within(limits);
    let early = |bytes: &'static [u8]| DataRecord::Small {
        content: content(bytes.len() as u64),
        digest: DIGEST,
        live: false,
        segments: 1,
        encoding: Encoding::Raw,
        bytes,
    };
    for index in 0..4 {
        flow.want(key(index), &WantMode::Whole, 0);
        assert_eq!(flow.on_record(key(index), &begin(0, SEGMENT)), Ok(false));
    }
    assert_eq!(flow.on_record(key(0), &early(b"123456")), Ok(false));
    assert_eq!(flow.on_record(key(1), &early(b"1234")), Ok(false));
    // What is settled makes room.
    assert_eq!(flow.on_record(key(0), &part(0, 0)), Ok(false));
    assert!(flow.segment_done(key(0)));
    let text = DataRecord::Failed { segments: 1, failure: Failure::Changed, errno: 0, text: b"123456" };
    assert_eq!(flow.on_record(key(2), &text), Ok(false));
    // An end carries nothing, and may always wait.
    let excess = Err(FlowError::Excess { what: "ends of files before their segments" });
    let mut other = ReceiverFlow::within(limits);
    other.want(key(5), &WantMode::Whole, 0);
    assert_eq!(other.on_record(key(5), &begin(0, SEGMENT)), Ok(false));
    assert_eq!(other.on_record(key(5), &end(0, 1)), Ok(false));
    assert_eq!(flow.on_record(key(3), &early(b"1")), excess);
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
    let mut dirs = piece(0, (0..1024).map(|number| dir(format!("{number:04}").as_bytes())).collect());
    dirs.last = false;
    let mut flow = SenderFlow::new();
    let mut directories = 1;
    while flow.may_announce(&dirs) {
        flow.open(&mut dirs);
        directories += 1024;
    }
    assert!(directories <= limits::DIRECTORIES_OUTSTANDING_MAX);
    assert!(directories + 1024 > limits::DIRECTORIES_OUTSTANDING_MAX);
}
