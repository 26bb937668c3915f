//! Strategies for everything that crosses the wire.

use std::collections::{BTreeMap, BTreeSet};

use proptest::collection::{btree_map, btree_set, vec};
use proptest::prelude::*;

use crate::limits;
use crate::model::{
    Acl, AclEntry, AclTag, Acls, Digest, DirId, Entry, HardLink, Kind, KindCounts, ListedEntry, Metadata, Name,
    Operation, Piece, PieceId, Problem, ProblemKind, Stats, Timestamp, Xattr, Xattrs,
};
use crate::monitor::{Action, Changes, Event, Item, Phase};
use crate::plan::chmod::ChmodRules;
use crate::plan::filter::FilterRules;
use crate::plan::options::{
    AltDestKind, AltDests, Backup, Compression, ItemReport, QuickCheck, Recursion, SyncOptions,
};
use crate::wire::{
    Content, DataRecord, Encoding, Failure, FarRole, FileKey, LaneWord, ListingEnd, Message, ModuleLine, NearPlaces,
    SessionId, Setup, SetupPaths, Transport, Want, WantMode,
};

/// Bytes that may be a name, short or as long as names get.
fn name_bytes() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![9 => vec(any::<u8>(), 1..12), 1 => vec(any::<u8>(), 200..=limits::NAME_BYTES_MAX)].prop_map(
        |mut bytes| {
            for byte in &mut bytes {
                if matches!(byte, 0 | b'/') {
                    *byte = b'_';
                }
            }
            if bytes == b"." || bytes == b".." { b"...".to_vec() } else { bytes }
        },
    )
}

pub(super) fn name() -> impl Strategy<Value = Name> {
    name_bytes().prop_map(|bytes| Name::new(&bytes).unwrap())
}

fn timestamp() -> impl Strategy<Value = Timestamp> {
    (any::<i64>(), 0..1_000_000_000u32).prop_map(|(seconds, nanoseconds)| Timestamp::new(seconds, nanoseconds))
}

fn kind() -> impl Strategy<Value = Kind> {
    prop::sample::select(&Kind::ALL[..])
}

pub(super) fn digest() -> impl Strategy<Value = Digest> {
    any::<[u8; 32]>().prop_map(Digest)
}

/// Few owners, so that they repeat, and any.
fn owner() -> impl Strategy<Value = u32> {
    prop_oneof![3 => 0..3u32, 1 => any::<u32>()]
}

fn acl() -> impl Strategy<Value = Option<Acl>> {
    let tag = prop_oneof![
        Just(AclTag::UserObject),
        any::<u32>().prop_map(AclTag::User),
        Just(AclTag::GroupObject),
        any::<u32>().prop_map(AclTag::Group),
        Just(AclTag::Mask),
        Just(AclTag::Other),
    ];
    let entries = btree_map(tag, 0..8u8, 1..8);
    prop::option::of(
        entries.prop_map(|entries| {
            Acl(entries.into_iter().map(|(tag, permissions)| AclEntry { tag, permissions }).collect())
        }),
    )
}

fn xattrs() -> impl Strategy<Value = Xattrs> {
    let name = name_bytes();
    btree_map(name, vec(any::<u8>(), 0..40), 0..4).prop_map(|attributes: BTreeMap<Vec<u8>, Vec<u8>>| {
        attributes.into_iter().map(|(name, value)| Xattr { name: name.into(), value: value.into() }).collect()
    })
}

/// An entry as a receiver gets it: what stays with the sender is as the decoder fills it in.
pub(super) fn listed(name: Name) -> impl Strategy<Value = ListedEntry> {
    let metadata =
        (kind(), 0..=0o7777u32, owner(), owner(), 0..=i64::MAX as u64, any::<u64>(), timestamp(), timestamp());
    let target = vec(1..=255u8, 1..30);
    let more = (
        prop::option::of(target),
        prop::option::of(any::<u64>()),
        prop::option::of((acl(), acl())),
        prop::option::of(xattrs()),
    );
    (metadata, more, any::<(u32, u32)>(), any::<bool>(), any::<bool>()).prop_map(
        move |(
            (kind, mode, uid, gid, size, blocks, mtime, atime),
            (target, group, acls, xattrs),
            rdev,
            descend,
            implied,
        )| {
            let metadata = Metadata {
                kind,
                mode,
                uid,
                gid,
                size,
                blocks,
                mtime,
                atime,
                ctime: Timestamp::default(),
                rdev: if kind.is_device() { rdev } else { (0, 0) },
                dev: (0, 0),
                ino: 0,
                nlink: 1,
            };
            let entry = Entry {
                name: name.clone(),
                metadata,
                link_target: target.filter(|_| kind == Kind::Symlink).map(Vec::into_boxed_slice),
                hard_link: group.map(|group| HardLink { group }),
                acls: acls.map(|(access, default)| Acls { access, default }),
                xattrs,
            };
            ListedEntry { entry, descend: descend && kind == Kind::Dir, implied }
        },
    )
}

pub(super) fn piece() -> impl Strategy<Value = Piece> {
    let names = btree_set(name_bytes(), 0..10);
    let numbers = (any::<u64>(), any::<u64>(), 0..u64::MAX - 100);
    let merge_files = vec((name_bytes(), vec(any::<u8>(), 0..60)), 0..3);
    (names, numbers, any::<(bool, bool, bool)>(), merge_files).prop_flat_map(
        |(names, (id, dir, first_child), (last, whole, goes_on), merge_files): (BTreeSet<Vec<u8>>, _, _, _)| {
            let mut names: Vec<Name> = names.iter().map(|name| Name::new(name).unwrap()).collect();
            let after = (goes_on && !names.is_empty()).then(|| names.remove(0));
            let entries: Vec<_> = names.into_iter().map(listed).collect();
            entries.prop_map(move |entries| Piece {
                id: PieceId(id),
                dir: DirId(dir),
                first_child: DirId(first_child),
                after: after.clone(),
                last,
                whole,
                merge_files: merge_files.clone(),
                entries,
            })
        },
    )
}

fn want_mode() -> impl Strategy<Value = WantMode> {
    let delta = (0..=i64::MAX as u64, 12..=15u32, prop::option::of(digest()), any::<bool>()).prop_map(
        |(basis_bytes, power, digest, same_offset_only)| WantMode::Delta {
            basis_bytes,
            block_bytes: 1 << power,
            digest,
            same_offset_only,
        },
    );
    prop_oneof![Just(WantMode::Whole), digest().prop_map(WantMode::IfDiffers), Just(WantMode::Digest), delta]
}

fn index() -> impl Strategy<Value = u16> {
    0..limits::LISTING_PIECE_ENTRIES_MAX as u16
}

fn file_key() -> impl Strategy<Value = FileKey> {
    (any::<u64>(), index()).prop_map(|(piece, index)| FileKey { piece: PieceId(piece), index })
}

fn changes() -> impl Strategy<Value = Changes> {
    any::<[bool; 11]>().prop_map(|bits| Changes {
        created: bits[0],
        content: bits[1],
        size: bits[2],
        mtime: bits[3],
        mtime_now: bits[4],
        mode: bits[5],
        owner: bits[6],
        group: bits[7],
        atime: bits[8],
        acl: bits[9],
        xattr: bits[10],
    })
}

fn item() -> impl Strategy<Value = Item> {
    let actions =
        [Action::Sent, Action::Received, Action::Changed, Action::HardLinked, Action::Unchanged, Action::Deleted];
    let path = || vec(any::<u8>(), 0..60);
    let numbers = (any::<u64>(), timestamp(), 0..=0o7777u32, any::<u32>(), any::<u32>(), any::<u64>(), any::<bool>());
    let what = (path(), kind(), prop::sample::select(actions.to_vec()), changes());
    (what, prop::option::of(path()), prop::option::of(path()), numbers).prop_map(
        |((path, kind, action, changes), link_target, hard_link_to, numbers)| {
            let (size, mtime, mode, uid, gid, literal_bytes, dry_run) = numbers;
            Item {
                path,
                kind,
                action,
                changes,
                link_target,
                hard_link_to,
                size,
                mtime,
                mode,
                uid,
                gid,
                literal_bytes,
                dry_run,
            }
        },
    )
}

fn event() -> impl Strategy<Value = Event> {
    let problem =
        (vec(any::<u8>(), 0..40), ".{0,40}", prop::option::of(any::<i32>())).prop_map(|(path, reason, errno)| {
            Event::Problem(Problem { kind: ProblemKind::Source, operation: Operation::ReadXattrs, path, reason, errno })
        });
    prop_oneof![
        item().prop_map(Event::Item),
        problem,
        ".{0,40}".prop_map(Event::Notice),
        ".{0,40}".prop_map(Event::Detail),
        Just(Event::Phase(Phase::Deleting)),
    ]
}

fn stats() -> impl Strategy<Value = Stats> {
    any::<([u64; 5], [u64; 14], bool)>().prop_map(|(kinds, n, max_delete_reached)| {
        let counts =
            KindCounts { files: kinds[0], dirs: kinds[1], symlinks: kinds[2], devices: kinds[3], specials: kinds[4] };
        Stats {
            listed: counts,
            created: counts,
            deleted: counts,
            transferred_files: n[0],
            total_bytes: n[1],
            transferred_bytes: n[2],
            literal_bytes: n[3],
            matched_bytes: n[4],
            listing_bytes: n[5],
            sent_bytes: n[6],
            received_bytes: n[7],
            live_files: n[8],
            deletions_withheld: n[9],
            source_problems: n[10],
            destination_problems: n[11],
            vanished: n[12],
            changed: n[13],
            differs: n[0],
            max_delete_reached,
        }
    })
}

fn options() -> impl Strategy<Value = SyncOptions> {
    let paths = prop::option::of(vec(vec(any::<u8>(), 0..20), 0..4));
    (any::<[bool; 24]>(), any::<u64>(), any::<u8>(), paths, prop::option::of(name_bytes())).prop_map(
        |(bit, number, choice, files_from, dir)| {
            let some = bit[0].then_some(number);
            let mut options = SyncOptions { files_from, partial_dir: dir.clone(), ..SyncOptions::default() };
            options.recursion = [Recursion::Skip, Recursion::Shallow, Recursion::Deep][usize::from(choice % 3)];
            options.quick_check =
                [QuickCheck::SizeAndTime, QuickCheck::SizeOnly, QuickCheck::Never, QuickCheck::Checksum]
                    [usize::from(choice % 4)];
            options.item_report = [ItemReport::None, ItemReport::Changed, ItemReport::All][usize::from(choice % 3)];
            options.one_file_system = choice;
            options.preserve.perms = bit[1];
            options.preserve.hard_links = bit[2];
            options.preserve.xattrs = bit[3];
            options.links.copy_as_links = bit[4];
            options.links.keep_dir_links = bit[5];
            options.deletion.enabled = bit[6];
            options.deletion.max = some;
            options.whole_file = bit[7].then_some(bit[8]);
            options.bwlimit_bytes_per_s = some;
            options.modify_window_ns = some;
            options.min_size = some;
            options.timeout_s = some;
            options.relative = bit[9];
            options.dry_run = bit[10];
            options.live = bit[11];
            options.fsync = bit[12];
            options.inplace = bit[13];
            options.compression = match choice % 3 {
                0 => None,
                1 => Some(Compression::Lz4),
                _ => Some(Compression::Zstd { level: bit[14].then_some(i32::from(choice)) }),
            };
            options.backup = bit[15].then(|| Backup { dir: dir.clone(), suffix: b"~\xff".to_vec() });
            options.alt_dests =
                bit[16].then(|| AltDests { kind: AltDestKind::Link, dirs: dir.clone().into_iter().collect() });
            if bit[17] {
                options.filters = filters();
            }
            if bit[18] {
                options.chmod = ChmodRules::parse("D755,F644,u+X,g=u", 0o022).unwrap();
            }
            if bit[19] {
                options.id_maps.set_usermap(b"0-99:nobody,www-*:1000,*:7").unwrap();
                options.id_maps.set_groupmap(b"staff:\xff").unwrap();
            }
            options
        },
    )
}

/// Rules of every kind, with bytes that are no text.
pub(super) fn filters() -> FilterRules {
    let mut rules = FilterRules::new();
    rules.push_exclude(b"/cache/***").unwrap();
    rules.push_include(b"*.\xff\xfe").unwrap();
    rules.push_exclude_from(b"list", b"# comment\n- *.tmp\n+ keep?\n").unwrap();
    rules.push_per_directory_default(1).unwrap();
    let mut no_files = |_: &[u8]| Err("no files here".to_owned());
    rules.push_filter(b"P protected", &mut no_files).unwrap();
    rules.push_filter(b"dir-merge,n .rules", &mut no_files).unwrap();
    rules
}

fn setup() -> impl Strategy<Value = Setup> {
    let near = (".{0,40}", vec(any::<(u32, u32, u64)>(), 0..3))
        .prop_map(|(boot_id, directories)| NearPlaces { boot_id, directories });
    let transport = prop::sample::select(vec![Transport::Auto, Transport::Direct, Transport::Shell]);
    let where_to = (prop::option::of(".{0,20}"), transport, prop::option::of(near));
    (any::<(bool, bool, bool)>(), vec(vec(any::<u8>(), 0..30), 0..3), where_to, options()).prop_map(
        |((sends, verify, content_only), paths, (module, transport, near), options)| Setup {
            role: if sends { FarRole::Sender } else { FarRole::Receiver },
            paths: SetupPaths { sources: paths.clone(), paths },
            module,
            options,
            transport,
            verify,
            content_only,
            near,
        },
    )
}

fn lane_word() -> impl Strategy<Value = LaneWord> {
    let addresses = || vec(".{0,20}", 0..4);
    let secrets = || (any::<[u8; 32]>(), any::<[u8; 32]>(), any::<[u8; 16]>());
    prop_oneof![
        (secrets(), any::<Option<(u16, u16)>>(), any::<u8>()).prop_map(|((peer_key, token, session), ports, lanes)| {
            LaneWord::Listen { peer_key, token, session: SessionId(session), ports, lanes }
        }),
        (any::<[u8; 32]>(), any::<[u8; 16]>(), any::<u16>(), addresses()).prop_map(
            |(key, session, port, addresses)| {
                LaneWord::Listening { key, session: SessionId(session), port, addresses }
            }
        ),
        (secrets(), any::<(u16, bool, Option<u8>, u32)>(), addresses()).prop_map(
            |((peer_key, token, session), (port, to_client, lanes, limit_ms), addresses)| LaneWord::Connect {
                peer_key,
                token,
                session: SessionId(session),
                port,
                addresses,
                to_client,
                lanes,
                limit_ms,
            }
        ),
        any::<u8>().prop_map(|lanes| LaneWord::Opened { lanes }),
        ".{0,40}".prop_map(|reason| LaneWord::Failed { reason }),
        Just(LaneWord::Close),
    ]
}

fn module_line() -> impl Strategy<Value = ModuleLine> {
    (".{0,20}", ".{0,40}", any::<(bool, bool)>()).prop_map(|(name, comment, (may_read, may_write))| ModuleLine {
        name,
        comment,
        may_read,
        may_write,
    })
}

fn owners() -> impl Strategy<Value = Vec<(u32, Vec<u8>)>> {
    vec((any::<u32>(), vec(any::<u8>(), 0..20)), 0..5)
}

pub(super) fn message() -> impl Strategy<Value = Message> {
    let wants = (any::<u64>(), btree_map(index(), want_mode(), 0..6)).prop_map(|(piece, wants)| Message::Wants {
        piece: PieceId(piece),
        wants: wants.into_iter().map(|(index, mode)| Want { index, mode }).collect(),
    });
    let release = (any::<u64>(), btree_set(index(), 0..6))
        .prop_map(|(piece, safe)| Message::Release { piece: PieceId(piece), safe: safe.into_iter().collect() });
    let root = prop::option::of(name().prop_flat_map(listed).prop_map(|mut root| {
        root.entry.metadata.kind = Kind::Dir;
        root.entry.metadata.rdev = (0, 0);
        root.entry.link_target = None;
        Box::new(root)
    }));
    let listing_end = (any::<(bool, bool)>(), vec(vec(any::<u8>(), 0..20), 0..3)).prop_map(
        |((source_problems, source_missing), empty_sources)| {
            Message::ListingEnd(ListingEnd { source_problems, empty_sources, source_missing })
        },
    );
    prop_oneof![
        setup().prop_map(|setup| Message::Setup(Box::new(setup))),
        any::<Option<[u8; 32]>>().prop_map(|lane_key| Message::Ready { lane_key }),
        (".{0,40}", ".{0,40}", any::<bool>()).prop_map(|(text, hint, timed_out)| Message::Fatal {
            text,
            hint,
            timed_out
        }),
        (prop::option::of(name()), root).prop_map(|(single, root)| Message::Sources { single, root }),
        (owners(), owners()).prop_map(|(users, groups)| Message::Owners { users, groups }),
        piece().prop_map(|piece| Message::Listing(Box::new(piece))),
        listing_end,
        vec(any::<u8>(), 0..100).prop_map(Message::Data),
        wants,
        (file_key(), any::<u64>(), vec(any::<u8>(), 0..100)).prop_map(|(key, window, bytes)| Message::Signature {
            key,
            window,
            bytes
        }),
        release,
        vec(item(), 0..5).prop_map(Message::Items),
        event().prop_map(|event| Message::Event(Box::new(event))),
        stats().prop_map(|stats| Message::Done(Box::new(stats))),
        Just(Message::Stop),
        Just(Message::Heartbeat),
        digest().prop_map(Message::TreeDigest),
        (vec(vec(any::<u8>(), 0..40), 0..5), any::<bool>()).prop_map(|(paths, last)| Message::Paths { paths, last }),
        lane_word().prop_map(Message::Lane),
        any::<([u8; 32], u8)>().prop_map(|(token, number)| Message::LaneHello { token, number }),
        Just(Message::LaneWelcome),
        vec(module_line(), 0..4).prop_map(Message::Modules),
    ]
}

/// What a record of any kind is made of.
#[derive(Debug, Clone)]
pub(super) struct Parts {
    pub(super) key: FileKey,
    code: u8,
    content: Content,
    digest: Digest,
    flag: bool,
    encoding: Encoding,
    attempt: u8,
    index: u64,
    segments: u64,
    decoded_bytes: u32,
    errno: i32,
    bytes: Vec<u8>,
}

impl Parts {
    pub(super) fn record(&self) -> DataRecord<'_> {
        let Parts { content, digest, flag: live, encoding, attempt, index, segments, decoded_bytes, errno, .. } = *self;
        let bytes = &self.bytes[..];
        let failed = |failure| DataRecord::Failed { segments, failure, errno, text: bytes };
        match self.code {
            0 => DataRecord::Small { content, digest, live, segments, encoding, bytes },
            1 => DataRecord::Begin { attempt, content },
            2 => DataRecord::Segment { attempt, index, digest, encoding, bytes },
            3 => DataRecord::ZeroSegment { attempt, index },
            4 => DataRecord::Patch { attempt, index, digest, encoding, decoded_bytes, bytes },
            5 => DataRecord::End { attempt, digest, live, segments },
            6 => DataRecord::Same { content, segments },
            7 => DataRecord::Digest { digest },
            8 => failed(Failure::Vanished),
            9 => failed(Failure::Changed),
            _ => failed(Failure::Unreadable),
        }
    }
}

pub(super) fn parts() -> impl Strategy<Value = Parts> {
    let content = (0..=i64::MAX as u64, timestamp(), 0..=0o7777u32, any::<u32>(), any::<u32>())
        .prop_map(|(size, mtime, mode, uid, gid)| Content { size, mtime, mode, uid, gid });
    let encoding = prop::sample::select(vec![Encoding::Raw, Encoding::Zstd, Encoding::Lz4]);
    let segments = 0..=limits::CHANGED_FILE_READS_MAX as u64 * (i64::MAX as u64 / limits::SEGMENT_BYTES + 1);
    let which = (0..limits::CHANGED_FILE_READS_MAX as u8, 0..=i64::MAX as u64 / limits::SEGMENT_BYTES, segments);
    let numbers = (0..=limits::FRAME_BYTES_MAX as u32, any::<i32>());
    let bytes = vec(any::<u8>(), 0..200);
    (file_key(), 0..11u8, content, digest(), any::<bool>(), encoding, (which, numbers), bytes).prop_map(
        |(key, code, content, digest, flag, encoding, (which, (decoded_bytes, errno)), bytes)| Parts {
            key,
            code,
            content,
            digest,
            flag,
            encoding,
            attempt: which.0,
            index: which.1,
            segments: which.2,
            decoded_bytes,
            errno,
            bytes,
        },
    )
}
