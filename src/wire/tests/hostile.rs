//! Bytes that no honest peer sends: refused without a panic, and without memory that they do not pay for.

use allocation_counter::measure;
use proptest::collection::vec;
use proptest::prelude::*;

use super::arbitrary::{message, parts};
use crate::limits;
use crate::model::PathError;
use crate::wire::{
    DecodeError, Encoder, Greeting, LaneWord, Message, MessageKind, PREAMBLE_BYTES, Preamble, RecordReader,
};

/// What decoding may take at its peak for each byte that came: the least entry of a table against what it becomes,
/// while the table grows by doubling.
const MEMORY_PER_BYTE_MAX: u64 = 80;

/// What it may take beside that: room for one piece, made at once because its count is bounded.
const MEMORY_BASE_MAX: u64 = 2 << 20;

/// Decodes, and holds the bound of memory.
fn decode(kind: MessageKind, payload: Vec<u8>) -> Result<Message, DecodeError> {
    let length = payload.len() as u64;
    let mut result = Err(DecodeError::Truncated);
    let taken = measure(|| result = Message::decode(kind, payload)).bytes_max;
    assert!(taken <= MEMORY_BASE_MAX + MEMORY_PER_BYTE_MAX * length, "{kind:?}: {taken} bytes for {length}");
    if let Ok(message) = &result {
        // Whatever is accepted is a message: it can be said again.
        let again = message.encode();
        let decoded = Message::decode(kind, again.clone()).expect("what was decoded encodes");
        assert_eq!(decoded.encode(), again);
    }
    result
}

fn read_records(payload: &[u8]) {
    let taken = measure(|| {
        let mut reader = RecordReader::new(payload);
        while let Ok(Some(_)) = reader.next() {}
    });
    assert_eq!(taken.bytes_max, 0, "records borrow from their frame");
}

/// What may happen to bytes on their way.
#[derive(Debug, Clone)]
enum Damage {
    Flip(usize, u8),
    Cut(usize),
    Remove(usize),
    Insert(usize, Vec<u8>),
    HugeNumber(usize),
    Repeat(usize, usize),
}

fn damage() -> impl Strategy<Value = Damage> {
    prop_oneof![
        (any::<usize>(), 1..=255u8).prop_map(|(at, bits)| Damage::Flip(at, bits)),
        any::<usize>().prop_map(Damage::Cut),
        any::<usize>().prop_map(Damage::Remove),
        (any::<usize>(), vec(any::<u8>(), 1..8)).prop_map(|(at, bytes)| Damage::Insert(at, bytes)),
        any::<usize>().prop_map(Damage::HugeNumber),
        (any::<usize>(), 1..40usize).prop_map(|(at, count)| Damage::Repeat(at, count)),
    ]
}

fn apply(damage: &Damage, bytes: &mut Vec<u8>) {
    let length = bytes.len();
    let place = |at: usize| at % length.max(1);
    match damage {
        _ if length == 0 => {}
        Damage::Flip(at, bits) => bytes[place(*at)] ^= bits,
        Damage::Cut(at) => bytes.truncate(place(*at)),
        Damage::Remove(at) => {
            bytes.remove(place(*at));
        }
        Damage::Insert(at, more) => {
            let at = place(*at);
            bytes.splice(at..at, more.iter().copied());
        }
        Damage::HugeNumber(at) => {
            let at = place(*at);
            bytes.splice(at..=at, [0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1]);
        }
        Damage::Repeat(at, count) => {
            let at = place(*at);
            let run = bytes[at..(at + count).min(length)].to_vec();
            bytes.splice(at..at, run);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(3000))]

    #[test]
    fn random_bytes_are_decoded_or_refused(bytes in vec(any::<u8>(), 0..300)) {
        for &kind in MessageKind::ALL {
            let _refused_or_not = decode(kind, bytes.clone());
        }
        read_records(&bytes);
        let _ = Greeting::decode(&bytes);
        if let Some(first) = bytes.first_chunk::<PREAMBLE_BYTES>() {
            prop_assert_eq!(Preamble::decode(first), None, "24 random bytes are no preamble");
        }
    }

    /// Small numbers make counts and lengths that fit, so that decoding gets far.
    #[test]
    fn small_random_bytes_are_decoded_or_refused(bytes in vec(0..6u8, 0..300)) {
        for &kind in MessageKind::ALL {
            let _refused_or_not = decode(kind, bytes.clone());
        }
        read_records(&bytes);
    }

    #[test]
    fn damaged_messages_are_decoded_or_refused(message in message(), damages in vec(damage(), 1..4)) {
        let mut payload = message.encode();
        for damage in &damages {
            apply(damage, &mut payload);
        }
        let _refused_or_not = decode(message.kind(), payload);
    }

    #[test]
    fn damaged_records_are_read_or_refused(all in vec(parts(), 1..4), damages in vec(damage(), 1..4)) {
        let mut payload = Vec::new();
        for parts in &all {
            parts.record().encode(parts.key, &mut payload);
        }
        for damage in &damages {
            apply(damage, &mut payload);
        }
        read_records(&payload);
    }

    #[test]
    fn cut_messages_are_refused(message in message(), at: prop::sample::Index) {
        let payload = message.encode();
        prop_assume!(!payload.is_empty() && message.kind() != MessageKind::Data);
        let cut = payload[..at.index(payload.len())].to_vec();
        prop_assert!(decode(message.kind(), cut).is_err());
    }

    #[test]
    fn trailing_bytes_are_refused(message in message(), more in vec(1..=255u8, 1..4)) {
        prop_assume!(message.kind() != MessageKind::Data);
        let mut payload = message.encode();
        // JSON may end in white space.
        payload.push(b'x');
        payload.extend(more);
        prop_assert!(decode(message.kind(), payload).is_err());
    }
}

/// A payload written value by value.
fn payload(write: impl FnOnce(&mut Encoder<'_>)) -> Vec<u8> {
    let mut buffer = Vec::new();
    write(&mut Encoder::new(&mut buffer));
    buffer
}

/// A piece's fields up to its entries.
fn piece_head(out: &mut Encoder<'_>, after: &[u8], entries: u64) {
    for number in [0, 0, 1, 1] {
        out.uint(number);
    }
    out.bytes(after);
    out.uint(0);
    out.uint(entries);
}

/// A plain file without anything that is optional; `shared` bytes of the name are those of the one before.
fn entry(out: &mut Encoder<'_>, shared: u64, tail: &[u8]) {
    out.uint(64);
    out.uint(shared);
    out.bytes(tail);
    out.u8(0);
    for number in [0o644, 5, 8, 0, 0, 0, 0] {
        out.uint(number);
    }
}

fn listing(names: &[(u64, &[u8])], after: &[u8]) -> Result<Message, DecodeError> {
    let bytes = payload(|out| {
        piece_head(out, after, names.len() as u64);
        for (shared, tail) in names {
            entry(out, *shared, tail);
        }
    });
    decode(MessageKind::Listing, bytes)
}

#[test]
fn names_that_could_leave_their_directory_are_refused() {
    assert!(listing(&[(0, b"a"), (1, b"b")], b"").is_ok());
    for (bad, error) in [
        (&b""[..], PathError::Empty),
        (b".", PathError::Dots),
        (b"..", PathError::Dots),
        (b"/", PathError::ForbiddenByte),
        (b"a/b", PathError::ForbiddenByte),
        (b"../a", PathError::ForbiddenByte),
        (b"a\0", PathError::ForbiddenByte),
    ] {
        let error = Err(DecodeError::Name(error));
        assert_eq!(listing(&[(0, bad)], b""), error, "{bad:?}");
        let sources = payload(|out| {
            out.bytes(bad);
            out.bool(false);
        });
        let after = listing(&[(0, b"zz")], bad);
        if bad.is_empty() {
            // There, no name means none.
            assert!(after.is_ok() && decode(MessageKind::Sources, sources).is_ok());
        } else {
            assert_eq!(after, error);
            assert_eq!(decode(MessageKind::Sources, sources), error);
        }
    }
    // Put together from a shared prefix, too.
    assert_eq!(listing(&[(0, b"..a"), (2, b"")], b""), Err(DecodeError::Name(PathError::Dots)));
    let long = [b'x'; limits::NAME_BYTES_MAX];
    assert!(listing(&[(0, &long)], b"").is_ok());
    assert!(matches!(
        listing(&[(0, &long), (255, b"y")], b""),
        Err(DecodeError::Name(PathError::TooLong { bytes: 256 }))
    ));
    assert_eq!(listing(&[(0, &[b'x'; 256])], b""), Err(DecodeError::Range("name")));
    assert_eq!(listing(&[(0, b"a"), (2, b"b")], b""), Err(DecodeError::Range("shared prefix")));
}

#[test]
fn listings_out_of_order_are_refused() {
    let order = Err(DecodeError::Range("order of names"));
    assert_eq!(listing(&[(0, b"b"), (0, b"a")], b""), order);
    assert_eq!(listing(&[(0, b"a"), (0, b"a")], b""), order);
    assert_eq!(listing(&[(0, b"a"), (0, b"b")], b"a"), order);
    assert_eq!(listing(&[(0, b"b")], b"c"), order);
    assert!(listing(&[(0, b"b")], b"a").is_ok());
    // Raw bytes decide, not what they mean.
    assert!(listing(&[(0, b"B"), (0, b"a"), (0, b"\xc3"), (0, b"\xff")], b"").is_ok());
}

#[test]
fn directory_numbers_do_not_overflow() {
    let with_first_child = |first_child: u64| {
        let bytes = payload(|out| {
            for number in [0, 0, first_child, 1] {
                out.uint(number);
            }
            out.bytes(b"");
            out.uint(0);
            out.uint(1);
            // A directory that is descended into.
            out.uint(65);
            out.uint(0);
            out.bytes(b"d");
            out.u8(1);
            for number in [0o755, 5, 8, 0, 0, 0, 0] {
                out.uint(number);
            }
        });
        decode(MessageKind::Listing, bytes)
    };
    assert!(with_first_child(u64::MAX - 1).is_ok());
    assert_eq!(with_first_child(u64::MAX), Err(DecodeError::Range("directory number")));
}

#[test]
fn entries_that_make_no_sense_are_refused() {
    let one = |flags: u64, kind: u8, rest: &dyn Fn(&mut Encoder<'_>)| {
        let bytes = payload(|out| {
            piece_head(out, b"", 1);
            out.uint(flags | 64);
            out.uint(0);
            out.bytes(b"x");
            out.u8(kind);
            for number in [0o644, 5, 8, 0, 0, 0, 0] {
                out.uint(number);
            }
            rest(out);
        });
        decode(MessageKind::Listing, bytes).err()
    };
    let range = |what| Some(DecodeError::Range(what));
    assert_eq!(one(0, 0, &|_| {}), None);
    assert_eq!(one(1, 1, &|_| {}), None);
    assert_eq!(one(1, 0, &|_| {}), range("directory flag"));
    assert_eq!(one(4, 2, &|out| out.bytes(b"target")), None);
    assert_eq!(one(4, 2, &|out| out.bytes(b"")), range("link target"));
    assert_eq!(one(4, 2, &|out| out.bytes(b"a\0b")), range("link target"));
    assert_eq!(one(4, 0, &|out| out.bytes(b"target")), range("link target"));
    assert_eq!(one(4, 2, &|out| out.bytes(&[b'x'; limits::LINK_TARGET_BYTES_MAX + 1])), range("link target"));
    assert_eq!(one(128, 0, &|_| {}), Some(DecodeError::Unknown { what: "entry flag", value: 192 }));
    assert_eq!(one(0, 7, &|_| {}), Some(DecodeError::Unknown { what: "kind", value: 7 }));
    assert_eq!(
        one(16, 0, &|out| {
            out.bytes(&[3, 0, 0, 0]);
            out.bytes(b"");
        }),
        Some(DecodeError::Malformed("access control list"))
    );
    let attribute = |out: &mut Encoder<'_>, name: &[u8]| {
        out.bytes(name);
        out.bytes(b"value");
    };
    let refused = range("extended attributes");
    assert_eq!(one(32, 0, &|out| out.uint(limits::XATTRS_COUNT_MAX as u64 + 1)), refused);
    for names in [[&b"b"[..], b"a"], [b"a", b"a"], [b"", b"a"], [b"a\0", b"b"]] {
        let error = one(32, 0, &|out| {
            out.uint(2);
            names.iter().for_each(|name| attribute(out, name));
        });
        assert_eq!(error, refused, "{names:?}");
    }
    // Each within its own bound, too much together.
    let error = one(32, 0, &|out| {
        out.uint(5);
        for number in 0..5u8 {
            out.bytes(&[b'a' + number]);
            out.bytes(&vec![0; 60 << 10]);
        }
    });
    assert_eq!(error, refused);
}

#[test]
fn values_beyond_their_bounds_are_refused() {
    let max = limits::LISTING_PIECE_ENTRIES_MAX as u64;
    let range = |what| Err(DecodeError::Range(what));
    let decode_of = |kind, write: &dyn Fn(&mut Encoder<'_>)| decode(kind, payload(|out| write(out)));
    assert_eq!(decode_of(MessageKind::Listing, &|out| piece_head(out, b"", max + 1)), range("entries of a listing"));
    let wants = |indices: &[u64]| {
        decode_of(MessageKind::Wants, &|out| {
            out.uint(7);
            out.uint(indices.len() as u64);
            for &index in indices {
                out.uint(index);
                out.u8(0);
            }
        })
    };
    assert!(wants(&[0, 1, max - 1]).is_ok());
    assert_eq!(wants(&[max]), range("entry index"));
    assert_eq!(wants(&[1, 1]), range("order of wants"));
    assert_eq!(wants(&[2, 1]), range("order of wants"));
    let release = |indices: &[u64]| {
        decode_of(MessageKind::Release, &|out| {
            out.uint(7);
            out.uint(indices.len() as u64);
            indices.iter().for_each(|&index| out.uint(index));
        })
    };
    assert!(release(&[0, 1, max - 1]).is_ok());
    assert_eq!(release(&[max]), range("entry index"));
    assert_eq!(release(&[3, 3]), range("order of entries"));
    for (kind, what) in [(MessageKind::Wants, "wants"), (MessageKind::Release, "entries")] {
        let count = |out: &mut Encoder<'_>| {
            out.uint(7);
            out.uint(max + 1);
        };
        assert_eq!(decode_of(kind, &count), range(what));
    }
    assert_eq!(decode_of(MessageKind::Items, &|out| out.uint(max + 1)), range("items"));
    assert_eq!(decode_of(MessageKind::Owners, &|out| out.uint(max * 64 + 1)), range("owners"));
    let block = |block_bytes: u64| {
        decode_of(MessageKind::Wants, &|out| {
            for number in [7, 1, 0] {
                out.uint(number);
            }
            out.u8(3);
            out.uint(1 << 40);
            out.uint(block_bytes);
            out.bool(false);
            out.bool(true);
        })
    };
    assert!(block(4096).is_ok() && block(32 << 10).is_ok());
    for bad in [0, 1, 2048, 4097, 12288, 64 << 10, u64::MAX] {
        assert_eq!(block(bad), range("block length"), "{bad}");
    }
    let too_long = vec![b'x'; limits::TEXT_BYTES_MAX + 1];
    assert_eq!(decode_of(MessageKind::Fatal, &|out| out.bytes(&too_long)), range("text"));
    // The root of a destination is a directory.
    let sources = |kind: u8| {
        decode_of(MessageKind::Sources, &|out| {
            out.bytes(b"");
            out.bool(true);
            out.uint(64);
            out.uint(0);
            out.bytes(b"root");
            out.u8(kind);
            for number in [0o755, 5, 8, 0, 0, 0, 0] {
                out.uint(number);
            }
        })
    };
    assert!(sources(1).is_ok());
    assert_eq!(sources(0), range("kind of the root"));
}

#[test]
fn attempts_and_segments_beyond_their_bounds_are_refused() {
    let content = |out: &mut Encoder<'_>| {
        for number in [5, 0, 0, 0o644, 0, 0] {
            out.uint(number);
        }
    };
    // Of piece 7, entry 3; `attempt` stands where the record has its attempt, `segments` where it has their number.
    let record = |tag: u8, attempt: u8, index: u64, segments: u64| {
        let bytes = payload(|out| {
            out.u8(tag);
            out.uint(7);
            out.uint(3);
            match tag {
                0 => {
                    content(out);
                    out.raw(&[0; 33]);
                    out.uint(segments);
                    out.u8(0);
                    out.bytes(b"");
                }
                1 => {
                    out.u8(attempt);
                    content(out);
                }
                2 => {
                    out.u8(attempt);
                    out.uint(index);
                    out.raw(&[0; 33]);
                    out.bytes(b"");
                }
                3 => {
                    out.u8(attempt);
                    out.uint(index);
                }
                4 => {
                    out.u8(attempt);
                    out.uint(index);
                    out.raw(&[0; 33]);
                    out.uint(0);
                    out.bytes(b"");
                }
                5 => {
                    out.u8(attempt);
                    out.raw(&[0; 33]);
                    out.uint(segments);
                }
                6 => {
                    content(out);
                    out.uint(segments);
                }
                _ => {
                    out.uint(segments);
                    out.u8(0);
                    out.uint(0);
                    out.bytes(b"");
                }
            }
        });
        RecordReader::new(&bytes).next().map(|record| record.is_some())
    };
    let index_max = i64::MAX as u64 / limits::SEGMENT_BYTES;
    let segments_max = (index_max + 1) * u64::from(limits::CHANGED_FILE_READS_MAX);
    let range = |what| Err(DecodeError::Range(what));
    for tag in [1, 2, 3, 4, 5] {
        assert_eq!(record(tag, limits::CHANGED_FILE_READS_MAX as u8 - 1, 0, 0), Ok(true), "{tag}");
        for attempt in [limits::CHANGED_FILE_READS_MAX as u8, 127, u8::MAX] {
            assert_eq!(record(tag, attempt, 0, 0), range("attempt"), "{tag}");
        }
    }
    for tag in [2, 3, 4] {
        assert_eq!(record(tag, 0, index_max, 0), Ok(true), "{tag}");
        for index in [index_max + 1, u64::MAX] {
            assert_eq!(record(tag, 0, index, 0), range("segment"), "{tag}");
        }
    }
    for tag in [0, 5, 6, 8] {
        assert_eq!(record(tag, 0, 0, segments_max), Ok(true), "{tag}");
        for segments in [segments_max + 1, u64::MAX] {
            assert_eq!(record(tag, 0, 0, segments), range("number of segments"), "{tag}");
        }
    }
}

#[test]
fn words_about_lanes_are_refused_unless_they_are_whole() {
    for key_bytes in [1, 31] {
        let key = payload(|out| out.bytes(&vec![7; key_bytes]));
        assert_eq!(decode(MessageKind::Ready, key), Err(DecodeError::Range("key")));
    }
    assert_eq!(decode(MessageKind::Ready, payload(|out| out.bytes(&[7; 33]))), Err(DecodeError::Range("key")));
    assert_eq!(decode(MessageKind::LaneHello, vec![0; 32]), Err(DecodeError::Truncated));
    assert_eq!(decode(MessageKind::LaneHello, vec![0; 34]), Err(DecodeError::Trailing(1)));
    assert_eq!(decode(MessageKind::LaneWelcome, vec![0]), Err(DecodeError::Trailing(1)));

    let lane = |text: &str| decode(MessageKind::Lane, text.as_bytes().to_vec());
    assert_eq!(lane("\"close\""), Ok(Message::Lane(LaneWord::Close)));
    assert_eq!(lane("{\"opened\":{\"lanes\":8}}"), Ok(Message::Lane(LaneWord::Opened { lanes: 8 })));
    for bad in [
        "",
        "\"open\"",
        "{\"opened\":{\"lanes\":256}}",
        "{\"opened\":{\"lanes\":-1}}",
        "{\"opened\":{\"lanes\":8,\"more\":1}}",
        "{\"opened\":{}}",
        "{\"opened\":{\"lanes\":8},\"failed\":{\"reason\":\"\"}}",
        "{\"listening\":{\"key\":[1,2,3],\"session\":[],\"port\":1,\"addresses\":[]}}",
        "{\"failed\":{\"reason\":\"a\"}} x",
    ] {
        assert_eq!(lane(bad), Err(DecodeError::Malformed("words about lanes")), "{bad}");
    }
    let modules = |text: &str| decode(MessageKind::Modules, text.as_bytes().to_vec());
    assert_eq!(modules("[]"), Ok(Message::Modules(Vec::new())));
    let line = "{\"name\":\"a\",\"comment\":\"\",\"may_read\":true,\"may_write\":false";
    assert!(modules(&format!("[{line}}}]")).is_ok());
    for bad in [format!("[{line},\"path\":\"/srv\"}}]"), "[{\"name\":\"a\"}]".into(), "{}".into()] {
        assert_eq!(modules(&bad), Err(DecodeError::Malformed("modules")), "{bad}");
    }
}

/// Full frames of whatever costs least on the wire and most in memory.
#[test]
fn whole_frames_of_the_worst_stay_within_the_bound() {
    let fill = |kind, head: &dyn Fn(&mut Encoder<'_>), one: &dyn Fn(&mut Encoder<'_>)| {
        let mut buffer = Vec::new();
        head(&mut Encoder::new(&mut buffer));
        while buffer.len() + 64 < limits::FRAME_BYTES_MAX {
            one(&mut Encoder::new(&mut buffer));
        }
        let _refused_or_not = decode(kind, buffer);
    };
    let empty_owner = |out: &mut Encoder<'_>| {
        out.uint(0);
        out.bytes(b"");
    };
    fill(MessageKind::Owners, &|out| out.uint(65536), &empty_owner);
    let empty_item = |out: &mut Encoder<'_>| out.raw(&[0; 13]);
    fill(MessageKind::Items, &|out| out.uint(1024), &empty_item);
    let empty_merge_file = |out: &mut Encoder<'_>| out.raw(&[0; 2]);
    let many_merge_files = |out: &mut Encoder<'_>| {
        for number in [0, 0, 1, 1, 0, 1024] {
            out.uint(number);
        }
    };
    fill(MessageKind::Listing, &many_merge_files, &empty_merge_file);
    // Attributes that are promised and do not come.
    let promises = payload(|out| {
        piece_head(out, b"", 1024);
        entry(out, 0, b"a");
        out.uint(96);
        out.uint(0);
        out.bytes(b"b");
        out.u8(0);
        for number in [0o644, 5, 8, 0, 0, 0, 0, 1024] {
            out.uint(number);
        }
    });
    assert_eq!(decode(MessageKind::Listing, promises), Err(DecodeError::Truncated));
    fill(MessageKind::ListingEnd, &|out| out.raw(b"{\"empty_sources\":["), &|out| out.raw(b"[],"));
    fill(MessageKind::Event, &|out| out.raw(b"{\"notice\":"), &|out| out.raw(b"["));
    fill(MessageKind::Setup, &|out| out.raw(b"{\"options\":{\"files_from\":["), &|out| out.raw(b"[],"));
    fill(MessageKind::Modules, &|out| out.raw(b"["), &|out| out.raw(b"{},"));
    let module = b"{\"name\":\"\",\"comment\":\"\",\"may_read\":true,\"may_write\":true},";
    fill(MessageKind::Modules, &|out| out.raw(b"["), &|out| out.raw(module));
    let addresses = b"{\"listening\":{\"addresses\":[";
    fill(MessageKind::Lane, &|out| out.raw(addresses), &|out| out.raw(b"\"\","));
    let rules = b"{\"options\":{\"filters\":{\"nul_separated\":false,\"rules\":[";
    fill(MessageKind::Setup, &|out| out.raw(rules), &|out| out.raw(b"\"- a\","));
}
