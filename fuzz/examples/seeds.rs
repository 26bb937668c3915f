//! Writes the first inputs of the corpus from the frozen samples of the wire and from what is made here by hand.
//! Existing files of the same name are replaced, others stay.
//!
//! `cargo run --example seeds` in `fuzz/`.

use std::fs;
use std::path::{Path, PathBuf};

use xfer::delta::signature_of;
use xfer::model::PieceId;
use xfer::wire::{DataRecord, FRAME_HEADER_BYTES, Failure, FileKey, FrameHeader, MessageKind, Preamble, SessionId};

fn corpus(target: &str, name: &str, bytes: &[u8]) {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus").join(target);
    fs::create_dir_all(&dir).expect("a directory of the corpus");
    fs::write(dir.join(name), bytes).expect("an input");
}

fn sample(path: &Path) -> Vec<u8> {
    let text = fs::read_to_string(path).expect("a sample");
    if path.extension().is_some_and(|extension| extension == "json") {
        return text.trim_end_matches('\n').as_bytes().to_vec();
    }
    let lines = text.lines().filter(|line| !line.starts_with('#'));
    let digits: Vec<u8> = lines.flat_map(|line| line.bytes().filter(u8::is_ascii_hexdigit)).collect();
    let byte = |pair: &[u8]| u8::from_str_radix(&String::from_utf8_lossy(pair), 16).expect("hexadecimal");
    digits.chunks(2).map(byte).collect()
}

/// The kind that a sample's name speaks of; `None` for records and what is no message.
fn kind_of(stem: &str) -> Option<MessageKind> {
    let plain = |text: &str| text.replace('-', "").to_lowercase();
    let named = |stem: &str| MessageKind::ALL.iter().copied().find(|kind| plain(&format!("{kind:?}")) == plain(stem));
    named(stem).or_else(|| named(stem.split('-').next().unwrap_or_default()))
}

fn index_of(kind: MessageKind) -> u8 {
    MessageKind::ALL.iter().position(|&other| other == kind).unwrap_or_default() as u8
}

fn with_length(kind: MessageKind, payload: &[u8]) -> Vec<u8> {
    let mut bytes = vec![index_of(kind)];
    bytes.extend_from_slice(&(payload.len() as u16).to_le_bytes());
    bytes.extend_from_slice(payload);
    bytes
}

fn from_samples() {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/data/wire-v1");
    let mut paths: Vec<PathBuf> = fs::read_dir(dir).expect("the samples").flatten().map(|entry| entry.path()).collect();
    paths.sort();
    let (mut stream, mut all_records, mut told) = (Vec::new(), Vec::new(), Vec::new());
    for path in &paths {
        let stem = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
        let payload = sample(path);
        if stem.starts_with("record-") {
            corpus("records", &stem, &payload);
            all_records.extend_from_slice(&payload);
        } else if stem == "greeting" {
            corpus("greeting", &stem, &payload);
        } else if let Some(kind) = kind_of(&stem) {
            let mut message = vec![index_of(kind)];
            message.extend_from_slice(&payload);
            corpus("message", &stem, &message);
            stream.extend_from_slice(&FrameHeader { payload_bytes: payload.len(), kind }.encode());
            stream.extend_from_slice(&payload);
            told.extend(with_length(kind, &payload));
            match kind {
                MessageKind::Listing => corpus("listing", &stem, &payload),
                MessageKind::Setup => corpus("json", &stem, &[&[0], &payload[..]].concat()),
                MessageKind::Event => corpus("json", &stem, &[&[1], &payload[..]].concat()),
                MessageKind::ListingEnd => corpus("json", &stem, &[&[2], &payload[..]].concat()),
                MessageKind::Done => corpus("json", &stem, &[&[3], &payload[..]].concat()),
                MessageKind::Lane => corpus("json", &stem, &[&[4], &payload[..]].concat()),
                MessageKind::Modules => corpus("json", &stem, &[&[5], &payload[..]].concat()),
                _ => {}
            }
        }
    }
    corpus("records", "all", &all_records);
    corpus("frames", "all", &stream);
    corpus("flow", "all", &told);
    assert!(stream.len() > FRAME_HEADER_BYTES);
}

/// A short session: a piece of the root, wants of both of its files, their records, a release, the end.
fn session() {
    let mut piece = vec![0, 0, 1, 1, 0, 0, 3];
    for (name, kind, descend) in [(b"a", 0u8, 0u8), (b"b", 0, 0), (b"d", 1, 1)] {
        piece.extend_from_slice(&[64 | descend, 0, 1, name[0], kind, 0xa4, 3, 5, 8, 0, 0, 0, 0]);
    }
    let mut child = vec![1, 1, 2, 1, 0, 0, 1];
    child.extend_from_slice(&[64, 0, 1, b'x', 0, 0xa4, 3, 5, 8, 0, 0, 0, 0]);
    let wants = [0, 2, 0, 0, 1, 0];
    let mut records = Vec::new();
    for index in 0..2 {
        let key = FileKey { piece: PieceId(0), index };
        let failure = DataRecord::Failed { segments: 0, failure: Failure::Vanished, errno: 2, text: b"no" };
        failure.encode(key, &mut records);
    }
    let told: Vec<Vec<u8>> = vec![
        with_length(MessageKind::Listing, &piece),
        with_length(MessageKind::Wants, &wants),
        with_length(MessageKind::Listing, &child),
        with_length(MessageKind::Data, &records),
        with_length(MessageKind::Release, &[0, 1, 0]),
        with_length(MessageKind::Release, &[1, 0]),
        with_length(MessageKind::ListingEnd, br#"{"source_problems":false,"empty_sources":[],"source_missing":false}"#),
    ];
    corpus("flow", "session", &told.concat());
    corpus("listing", "three", &piece);
}

fn deltas() {
    let signature = |window: &[u8]| {
        let mut encoded = vec![0, 0x20, 0];
        signature_of(0, window, 4096).encode(&mut encoded);
        encoded
    };
    corpus("signature", "zeros", &signature(&[0; 20_000]));
    corpus("signature", "bytes", &signature(&(0..20_000).map(|at| (at % 249) as u8).collect::<Vec<_>>()));
    // A literal, a copy, zeros: 3 + 10 + 7 bytes of a basis of 100.
    let instructions = [0, 3, b'a', b'b', b'c', 1, 10, 5, 2, 7];
    corpus("instructions", "each", &[&[20, 0, 0, 0, 100, 0, 0], &instructions[..]].concat());
    // Blocks of 4 KiB; a basis of noise, a run and zeros; new content that is parts of it and some bytes.
    let delta = [
        &[0, 0, 0][..],
        &[3, 0, 0x40, 2, 9, 0, 0x20, 1, 7, 0, 0x10, 0],
        &[3, 0, 0x30, 3, 0, 1, 0, 0x10, 0, 5, 0, 4, 5, 0, b'h', b'e', b'l', b'l', b'o'],
    ];
    corpus("delta", "mixed", &delta.concat());
}

fn content() {
    let text = b"the same words again and again ".repeat(20);
    corpus("content", "raw", &[&[0], &(text.len() as u32).to_le_bytes()[..], &text].concat());
    for (number, how) in
        [(1u8, xfer::plan::options::Compression::Zstd { level: Some(3) }), (2, xfer::plan::options::Compression::Lz4)]
    {
        let mut compressor = xfer::sync::Compressor::default();
        let (_, encoded) = compressor.encode(&text, Some(how));
        let input = [&[number], &(text.len() as u32).to_le_bytes()[..], encoded].concat();
        corpus(
            "content",
            &format!("{how:?}").to_lowercase().replace(|letter: char| !letter.is_alphanumeric(), ""),
            &input,
        );
    }
}

fn texts() {
    for (number, text) in ["1.5m", "10KB", "2GiB+1", "1g-1", ".5k", "18014398509481984"].iter().enumerate() {
        corpus("size", &number.to_string(), text.as_bytes());
    }
    for (number, text) in ["u=rwX,go=rX", "Dg+s,ug+w,Fo-w,+X", "0755,F644", "g=u,o-rwx,+t"].iter().enumerate() {
        corpus("chmod", &number.to_string(), text.as_bytes());
    }
    for (number, text) in ["0-99:nobody,w*:admin,:5", "foo:7", "*:*", "1000:1001,[a-z]?*:x"].iter().enumerate() {
        corpus("idmap", &number.to_string(), text.as_bytes());
    }
    for (number, (pattern, text)) in
        [("*.c", "a.c"), ("a/**/b", "a/x/y/b"), ("[[:alpha:]!-\\]]?", "x]"), ("\\*", "*")].iter().enumerate()
    {
        let input = [&(pattern.len() as u16).to_le_bytes()[..], pattern.as_bytes(), text.as_bytes()].concat();
        corpus("glob", &number.to_string(), &input);
    }
    let filters: [&[u8]; 5] = [
        b"\x00- *.o\n+ /dir/***\n-! */\nP,s keep\nR x\nHp *~\n-x user.*\xffdir/sub/a.o",
        b"\x00: a\n. b\n:n- c\xffd/e/f\xff- *.log\n+ x\n!\xff- y\n. c\xffz w",
        b"\x05:/ a\n-/ /srv/x/y\ndir-merge,e b\nmerge,w- c\xffx/y\xff- p\xff:n c\xffa b c",
        b"\x18- a\n+ b\n!\n# comment\n; other\n/c\xffb/c",
        b"\x02hide,/ /srv/x/a\nprotect **/b\nshow [a-f]?\nrisk a/***\nclear\n-C\nexclude q\xffa/b",
    ];
    for (number, input) in filters.iter().enumerate() {
        corpus("filter", &number.to_string(), input);
    }
    let key = format!("xfer-ed25519 {}=", "A".repeat(43));
    let authorized = format!("# ours\nmodule=\"a b\",read-only,from=\"10.0.0.0/8,::1\" {key} who\n{key}\n");
    corpus("keys", "authorized", authorized.as_bytes());
    corpus("keys", "known", format!("db1 {key} note\n[2001:db8::1]:99\t{key}\n").as_bytes());
    corpus("keys", "host", b"[::1]:7788");
    corpus("keys", "network", b"2001:db8::/32");
    let config = format!(
        "listen = [\"[::]:7788\", \"0.0.0.0\"]\nlog = \"/var/log/x\"\nmetrics = \"127.0.0.1:9\"\n[limits]\n\
         connections = 9\nsessions_per_key = 2\n[[module]]\nname = \"a\"\npath = \"/srv/a\"\naccess = \
         \"read-write\"\nkeys = [\"{key} who\"]\nuid = 5\ngid = \"nogroup\"\nnumeric_ids = true\n\
         max_connections = 3\nfilters = [\"- *.tmp\"]\ncopy_links_outside = false\ntimeout = 60\n\
         [[module]]\nname = \"b\"\npath = \"/srv/b\"\n"
    );
    corpus("config", "two", config.as_bytes());
    corpus("config", "quick", b"name=/srv/x,ro");
    corpus("greeting", "preamble", &Preamble { session: Some(SessionId([7; 16])) }.encode());
}

fn main() {
    from_samples();
    session();
    deltas();
    content();
    texts();
}
