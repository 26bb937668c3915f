//! Owners, modes, times, attributes and access control lists.

use std::os::unix::fs::PermissionsExt;

use rustix::io::Errno;

use super::*;
use crate::model::{Acl, AclEntry, AclTag, Acls, Operation, Timestamp, Xattr, Xattrs};

/// `security.capability` with cap_net_raw, version 2.
const CAPABILITY: [u8; 20] = [1, 0, 0, 2, 0, 0x20, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];

fn xattr(name: &str, value: &[u8]) -> Xattr {
    Xattr { name: name.as_bytes().into(), value: value.into() }
}

fn acl(entries: &[(AclTag, u8)]) -> Acl {
    Acl(entries.iter().map(|&(tag, permissions)| AclEntry { tag, permissions }).collect())
}

fn long_acl() -> Acl {
    acl(&[
        (AclTag::UserObject, 7),
        (AclTag::User(1234), 6),
        (AclTag::GroupObject, 5),
        (AclTag::Group(4321), 4),
        (AclTag::Mask, 7),
        (AclTag::Other, 0),
    ])
}

fn make_all_kinds(place: &Place) {
    for kind in [Kind::Block, Kind::Char, Kind::Fifo, Kind::Socket] {
        place.dir.make_node(&name(&format!("{kind:?}")), kind, 0o600, (1, 3)).unwrap();
    }
    place.dir.make_dir(&name("Dir"), 0o700).unwrap();
    place.dir.make_symlink(b"File", &name("Symlink")).unwrap();
    place.dir.create_file(&name("File"), 0o600).unwrap();
}

#[test]
fn owner_mode_and_times_of_every_kind() {
    need_root();
    for place in places() {
        make_all_kinds(&place);
        for (index, kind) in Kind::ALL.into_iter().enumerate() {
            let name = name(&format!("{kind:?}"));
            for (mtime, atime) in [
                (Timestamp::new(1_700_000_000, 123_456_789), Timestamp::new(1_600_000_000, 987_654_321)),
                (Timestamp::new(-1, 999_999_999), Timestamp::new(-1_000_000_000, 1)),
            ] {
                let (uid, gid) = (1000 + index as u32, 2000 + index as u32);
                let change = MetadataChange {
                    uid: Some(uid),
                    gid: Some(gid),
                    mode: Some(0o6751),
                    mtime: Some(mtime),
                    atime: Some(atime),
                    ..MetadataChange::default()
                };
                let failures = apply(Target::At(&place.dir, &name), kind, &change);
                assert!(failures.is_empty(), "{kind:?}: {failures:?}");
                let found = place.dir.stat(&name).unwrap();
                assert_eq!((found.uid, found.gid, found.mtime, found.atime), (uid, gid, mtime, atime), "{kind:?}");
                assert_eq!(found.mode, if kind == Kind::Symlink { 0o777 } else { 0o6751 }, "{kind:?}");
            }
        }
        // By descriptor, one thing at a time: the rest stays.
        let file = place.dir.open_file(&name("File")).unwrap();
        let dir = place.dir.open_child(&name("Dir")).unwrap();
        for (target, kind) in [(Target::File(&file), Kind::File), (Target::Dir(&dir), Kind::Dir)] {
            let stat = || match target {
                Target::File(file) => metadata_of(file).unwrap(),
                Target::Dir(dir) => dir.metadata().unwrap(),
                Target::At(..) | Target::Pinned(_) => unreachable!(),
            };
            let before = stat();
            assert!(apply(target, kind, &MetadataChange::default()).is_empty());
            assert_eq!(stat(), before);
            let mtime = Some(Timestamp::new(7, 8));
            assert!(apply(target, kind, &MetadataChange { mtime, ..MetadataChange::default() }).is_empty());
            assert_eq!((stat().mtime, stat().atime), (Timestamp::new(7, 8), before.atime));
            assert!(apply(target, kind, &MetadataChange { gid: Some(77), ..MetadataChange::default() }).is_empty());
            assert_eq!((stat().uid, stat().gid), (before.uid, 77));
            assert!(
                apply(target, kind, &MetadataChange { mode: Some(0o1111), ..MetadataChange::default() }).is_empty()
            );
            assert_eq!(stat().mode, 0o1111);
        }
    }
}

#[test]
fn values_with_a_meaning_of_their_own_are_refused() {
    let place = place_in("/dev/shm");
    let file = place.dir.create_file(&name("f"), 0o600).unwrap();
    let before = metadata_of(&file).unwrap();
    let change = MetadataChange {
        uid: Some(u32::MAX),
        mtime: Some(Timestamp::new(0, (1 << 30) - 1)),
        ..MetadataChange::default()
    };
    let failures = apply(Target::File(&file), Kind::File, &change);
    assert_eq!(
        failures.iter().map(|(operation, _)| *operation).collect::<Vec<_>>(),
        [Operation::SetOwner, Operation::SetTimes]
    );
    assert_eq!(metadata_of(&file).unwrap(), before);
}

#[test]
fn an_ordinary_user_gets_what_is_allowed_and_no_set_id_bits_for_another_owner() {
    need_root();
    for place in places() {
        std::fs::set_permissions(place.temporary.path(), PermissionsExt::from_mode(0o777)).unwrap();
        as_ordinary_user(12_345, || {
            let file = place.dir.create_file(&name("f"), 0o600).unwrap();
            let mtime = Some(Timestamp::new(1, 2));
            let change =
                MetadataChange { uid: Some(0), gid: Some(12_345), mode: Some(0o6755), mtime, ..Default::default() };
            let failures = apply(Target::File(&file), Kind::File, &change);
            assert_eq!(failures.len(), 1);
            assert_eq!((failures[0].0, errno(&failures[0].1)), (Operation::SetOwner, Errno::PERM));
            let found = metadata_of(&file).unwrap();
            assert_eq!((found.uid, found.mode, Some(found.mtime)), (12_345, 0o755, mtime));
            // Their own: allowed, set-id bits and all.
            let change = MetadataChange { uid: Some(12_345), mode: Some(0o6755), ..Default::default() };
            assert!(apply(Target::File(&file), Kind::File, &change).is_empty());
            assert_eq!(metadata_of(&file).unwrap().mode, 0o6755);
        });
    }
}

#[test]
fn attributes_are_exactly_those_asked_for() {
    need_root();
    let place = place_in(std::env::temp_dir());
    let dir = &place.dir;
    make_all_kinds(&place);
    let file = dir.open_file(&name("File")).unwrap();
    let on_dir = dir.open_child(&name("Dir")).unwrap();
    let wanted: Xattrs = vec![
        xattr("security.capability", &CAPABILITY),
        xattr("trusted.t", b"\0\xff"),
        xattr("user.long", &[b'v'; 2500]),
        xattr("user.rsync.%stat", b"100644 0,0 0:0"),
        xattr("user.\u{e4} b", b""),
    ];
    let change = MetadataChange { uid: Some(5), xattrs: Some(&wanted), ..Default::default() };
    assert!(apply(Target::File(&file), Kind::File, &change).is_empty());
    // The owner change came before the capability, which it would have cleared.
    assert_eq!(read_xattrs(Target::File(&file), Kind::File, true).unwrap(), wanted);
    assert_eq!(read_xattrs(Target::At(dir, &name("File")), Kind::File, true).unwrap(), wanted);
    assert_eq!(read_xattrs(Target::File(&file), Kind::File, false).unwrap(), wanted[2..]);
    let shown = output_of("getfattr", &["-d", "-m", "-", "--only-values", place.path("File").to_str().unwrap()]);
    assert!(shown.contains("100644 0,0 0:0"));

    // Extra ones go, equal ones are left alone, access control lists stay.
    let acls = Acls { access: Some(long_acl()), default: None };
    assert!(
        apply(Target::File(&file), Kind::File, &MetadataChange { acls: Some(&acls), ..Default::default() }).is_empty()
    );
    let fewer: Xattrs = vec![xattr("trusted.t", b"\0\xff"), xattr("user.long", b"short"), xattr("user.new", b"n")];
    assert!(
        apply(Target::File(&file), Kind::File, &MetadataChange { xattrs: Some(&fewer), ..Default::default() })
            .is_empty()
    );
    assert_eq!(read_xattrs(Target::File(&file), Kind::File, true).unwrap(), fewer);
    assert_eq!(read_acls(Target::File(&file), Kind::File).unwrap(), acls);
    let ctime = metadata_of(&file).unwrap().ctime;
    assert!(
        apply(Target::File(&file), Kind::File, &MetadataChange { xattrs: Some(&fewer), ..Default::default() })
            .is_empty()
    );
    assert_eq!(metadata_of(&file).unwrap().ctime, ctime);

    // An access control list in the guise of an attribute takes no part.
    let disguised = [fewer.clone(), vec![xattr("system.posix_acl_access", &acl(&[]).to_xattr())]].concat();
    let change = MetadataChange { xattrs: Some(&disguised), ..Default::default() };
    assert!(apply(Target::File(&file), Kind::File, &change).is_empty());
    assert_eq!(read_acls(Target::File(&file), Kind::File).unwrap(), acls);

    // Other kinds: links and devices have trusted ones.
    let trusted: Xattrs = vec![xattr("trusted.x", b"1")];
    let change = MetadataChange { xattrs: Some(&trusted), ..Default::default() };
    assert!(apply(Target::Dir(&on_dir), Kind::Dir, &change).is_empty());
    for kind in Kind::ALL {
        let name = name(&format!("{kind:?}"));
        assert!(apply(Target::At(dir, &name), kind, &change).is_empty(), "{kind:?}");
        assert_eq!(read_xattrs(Target::At(dir, &name), kind, true).unwrap(), trusted, "{kind:?}");
        assert_eq!(read_xattrs(Target::At(dir, &name), kind, false).unwrap(), []);
    }
    let refused: Xattrs = vec![xattr("user.x", b"1")];
    let change = MetadataChange { xattrs: Some(&refused), mtime: Some(Timestamp::new(3, 3)), ..Default::default() };
    let failures = apply(Target::At(dir, &name("Symlink")), Kind::Symlink, &change);
    assert_eq!(failures.len(), 1);
    assert_eq!(failures[0].0, Operation::SetXattrs);
    assert_eq!(dir.stat(&name("Symlink")).unwrap().mtime, Timestamp::new(3, 3));
    // The file that the link leads to was not touched.
    assert_eq!(read_xattrs(Target::File(&file), Kind::File, true).unwrap(), trusted);
}

#[test]
fn an_owner_who_may_not_write_sets_attributes_all_the_same() {
    let place = place_in(std::env::temp_dir());
    std::fs::set_permissions(place.temporary.path(), PermissionsExt::from_mode(0o777)).unwrap();
    as_ordinary_user(12_345, || {
        let file = place.dir.create_file(&name("f"), 0o400).unwrap();
        let wanted: Xattrs = vec![xattr("user.x", b"1")];
        let change = MetadataChange { xattrs: Some(&wanted), ..Default::default() };
        assert!(apply(Target::File(&file), Kind::File, &change).is_empty());
        assert_eq!(read_xattrs(Target::File(&file), Kind::File, false).unwrap(), wanted);
        assert_eq!(metadata_of(&file).unwrap().mode, 0o400);
        // What only root could set takes no part, as with rsync.
        let more: Xattrs = vec![xattr("security.capability", &CAPABILITY), xattr("trusted.t", b"1"), wanted[0].clone()];
        let change = MetadataChange { xattrs: Some(&more), ..Default::default() };
        assert!(apply(Target::File(&file), Kind::File, &change).is_empty());
        assert_eq!(read_xattrs(Target::File(&file), Kind::File, false).unwrap(), wanted);
    });
}

#[test]
fn attributes_beyond_the_bounds_are_an_error() {
    let place = place_in("/dev/shm");
    let file = place.dir.create_file(&name("f"), 0o600).unwrap();
    let value = vec![b'v'; 30_000];
    for index in 0..9 {
        rustix::fs::fsetxattr(&file, format!("trusted.{index}"), &value, rustix::fs::XattrFlags::empty()).unwrap();
    }
    let error = read_xattrs(Target::File(&file), Kind::File, true).unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::InvalidData);
    assert_eq!(read_xattrs(Target::File(&file), Kind::File, false).unwrap(), []);
}

#[test]
fn access_control_lists_are_set_read_and_removed() {
    need_root();
    for place in places() {
        let dir = &place.dir;
        make_all_kinds(&place);
        let acls = Acls { access: Some(long_acl()), default: Some(long_acl()) };
        let only_access = Acls { access: Some(long_acl()), default: None };
        let none = Acls::default();
        for kind in Kind::ALL {
            let label = format!("{kind:?}");
            let target_name = name(&label);
            let target = Target::At(dir, &target_name);
            let change = MetadataChange { acls: Some(&acls), mode: Some(0o2770), ..Default::default() };
            let failures = apply(target, kind, &change);
            assert!(failures.is_empty(), "{kind:?}: {failures:?}");
            let found = read_acls(target, kind).unwrap();
            match kind {
                Kind::Symlink => assert_eq!(found, none),
                Kind::Dir => assert_eq!(found, acls),
                _ => assert_eq!(found, only_access, "{kind:?}"),
            }
            if kind != Kind::Symlink {
                assert_eq!(dir.stat(&target_name).unwrap().mode, 0o2770);
                let shown = output_of("getfacl", &["-n", "-c", "-p", place.path(&label).to_str().unwrap()]);
                let lists = "user::rwx\nuser:1234:rw-\ngroup::r-x\ngroup:4321:r--\nmask::rwx\nother::---\n";
                assert!(shown.contains(lists), "{shown}");
                assert_eq!(shown.contains("default:user:1234:rw-"), kind == Kind::Dir);
            }
            for _ in 0..2 {
                let change = MetadataChange { acls: Some(&none), ..Default::default() };
                assert!(apply(target, kind, &change).is_empty());
                assert_eq!(read_acls(target, kind).unwrap(), none);
            }
        }
        // What chmod could say, an access list may say too: it is none then.
        let file = dir.open_file(&name("File")).unwrap();
        let path = place.path("File");
        output_of("setfacl", &["-n", "--set", "u::rw,g::r,o::-,m::r", path.to_str().unwrap()]);
        let minimal = read_acls(Target::File(&file), Kind::File).unwrap();
        assert_eq!(minimal.access.map(|acl| acl.0.len()), Some(4));
        output_of("setfacl", &["-b", path.to_str().unwrap()]);
        assert_eq!(read_acls(Target::File(&file), Kind::File).unwrap(), none);
    }
}

#[test]
fn where_there_are_no_lists_there_are_none_to_read() {
    let proc = Dir::open("/proc/self".as_ref()).unwrap();
    assert_eq!(read_acls(Target::Dir(&proc), Kind::Dir).unwrap(), Acls::default());
    let change = MetadataChange { acls: Some(&Acls { access: Some(long_acl()), default: None }), ..Default::default() };
    let failures = apply(Target::Dir(&proc), Kind::Dir, &change);
    assert_eq!((failures.len(), failures[0].0), (1, Operation::SetAcl));
}

#[test]
fn a_vanished_target_is_told_as_such() {
    let place = place_in("/dev/shm");
    let gone = name("gone");
    let target = Target::At(&place.dir, &gone);
    assert_eq!(errno(&read_acls(target, Kind::File).unwrap_err()), Errno::NOENT);
    assert_eq!(errno(&read_xattrs(target, Kind::File, true).unwrap_err()), Errno::NOENT);
    let change = MetadataChange { mode: Some(0o600), ..Default::default() };
    assert_eq!(errno(&apply(target, Kind::File, &change)[0].1), Errno::NOENT);
    // A link in a file's place is not followed by any of them.
    std::fs::write(place.path("f"), "").unwrap();
    std::os::unix::fs::symlink("f", place.path("gone")).unwrap();
    let change = MetadataChange { mode: Some(0o777), mtime: Some(Timestamp::new(1, 1)), ..Default::default() };
    let failures = apply(target, Kind::File, &change);
    assert_eq!((failures.len(), failures[0].1.kind()), (1, std::io::ErrorKind::ResourceBusy));
    let file = place.dir.stat(&name("f")).unwrap();
    assert!(file.mode != 0o777 && file.mtime.seconds != 1);
    // What is pinned stays what it was, whatever has its name.
    let pinned = Pinned::open(&place.dir, &name("f")).unwrap();
    std::fs::rename(place.path("f"), place.path("moved")).unwrap();
    std::fs::write(place.path("f"), "another").unwrap();
    let xattrs = vec![crate::model::Xattr { name: b"user.x"[..].into(), value: b"1"[..].into() }];
    let change = MetadataChange { uid: Some(7), xattrs: Some(&xattrs), ..change };
    assert!(apply(Target::Pinned(&pinned), Kind::File, &change).is_empty());
    let (moved, other) = (place.dir.stat(&name("moved")).unwrap(), place.dir.stat(&name("f")).unwrap());
    assert_eq!((moved.mode, moved.uid, moved.mtime.seconds), (0o777, 7, 1));
    assert_eq!(read_xattrs(Target::At(&place.dir, &name("moved")), Kind::File, true).unwrap(), xattrs);
    assert!(other.mode != 0o777 && other.uid != 7 && other.mtime.seconds != 1);
}
