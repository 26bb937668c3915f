//! Modes, owners, times, extended attributes and ACLs.

use std::fs;
use std::os::unix::fs::{MetadataExt, lchown};
use std::path::Path;

use crate::support::disk::{chmod, mode, mtime, put, set_mtime, set_xattr};
use crate::support::fixture::{OLD, both, source};
use crate::support::run::{as_nobody, only_xfer, sync};
use crate::support::twin::same;
use crate::support::{Temp, need, need_root};

/// Files and directories with telling modes and owners, some of them at the destination with others.
fn attributed(dir: &Path) {
    for (number, bits) in [0o4755, 0o2755, 0o1777, 0o640, 0o000, 0o755, 0o666, 0o600].into_iter().enumerate() {
        for root in ["src", "dst"] {
            if root == "dst" && number % 2 == 0 {
                continue;
            }
            let file = dir.join(root).join(format!("f{number}"));
            let sub = dir.join(root).join(format!("d{number}"));
            put(&file, "x", OLD);
            fs::create_dir_all(&sub).unwrap();
            let shift = if root == "dst" { 0o022 } else { 0 };
            for path in [&file, &sub] {
                lchown(path, Some(1000 + number as u32), Some(2000 + number as u32)).unwrap();
                chmod(path, (bits ^ shift) & 0o7777);
            }
            set_mtime(&sub, OLD, 3);
        }
    }
    for root in ["src", "dst"] {
        set_mtime(&dir.join(root), OLD, 3);
    }
}

#[test]
fn what_is_preserved_and_what_not() {
    need_root("owners");
    for flags in
        ["-r", "-rp", "-rt", "-rE", "-rog", "-rtE", "-rpt", "-rtO", "-rptO", "-a", "-aO", "-aJ", "-rtpg", "-rtpo"]
    {
        same(attributed, &[flags, "src/", "dst"]).code(0);
    }
    for flags in
        [&["-a", "--no-p"][..], &["-a", "--no-o"], &["-a", "--no-t"], &["-a", "--no-g", "--no-p"], &["--no-o", "-a"]]
    {
        let mut args = flags.to_vec();
        args.extend(["src/", "dst"]);
        same(attributed, &args).code(0);
    }
}

#[test]
fn chmod_rules() {
    need_root("owners");
    for rules in [
        "D2755,F644",
        "u+rwX,go-w",
        "a=rX",
        "go=",
        "g=u",
        "o=g,u+s",
        "+x",
        "F+x,D-x",
        "D700",
        "0640",
        "ug+rwX,o-rwx",
        "u=rwxs,g=t",
        "Fu=rw,Fgo=r",
        "=r",
    ] {
        let rule = format!("--chmod={rules}");
        same(attributed, &["-a", &rule, "src/", "dst"]).code(0);
        same(attributed, &["-rt", &rule, "src/", "dst"]).code(0);
    }
    same(attributed, &["-a", "--chmod=go-rwx", "--chmod=u+x", "src/", "dst"]).code(0);
}

#[test]
fn owners_are_mapped() {
    need_root("owners");
    for rules in [
        &["--chown=1:2"][..],
        &["--chown=root:daemon"],
        &["--chown=:3"],
        &["--chown=4"],
        &["--usermap=1001:5,1003-1005:6,*:7"],
        &["--groupmap=2001:root,*:daemon"],
        &["--usermap=0:9,1000:root", "--groupmap=2000-2003:44"],
        &["--numeric-ids"],
        &["--numeric-ids", "--usermap=1000:8"],
    ] {
        let mut args = vec!["-a"];
        args.extend_from_slice(rules);
        args.extend(["src/", "dst"]);
        same(attributed, &args).code(0);
    }
}

#[test]
fn set_id_bits_can_be_dropped() {
    if only_xfer("--no-setid") {
        return;
    }
    need_root("owners");
    let temp = Temp::new();
    attributed(temp.path());
    sync(["-a", "--no-setid", "src/", "dst"]).dir(temp.path()).expect(0);
    assert_eq!(mode(&temp.join("dst/f0")), 0o755);
    assert_eq!(mode(&temp.join("dst/f1")), 0o755);
    assert_eq!(mode(&temp.join("dst/f2")) & 0o777, 0o777);
}

#[test]
fn times_to_the_nanosecond_and_of_all_ages() {
    let fixture = |dir: &Path| {
        for (name, seconds, nanoseconds) in [
            ("1931", -1_230_000_000, 999_999_999),
            ("epoch", 0, 0),
            ("before", -1, 1),
            ("now-ish", 1_700_000_000, 1),
            ("2038", 2_147_483_648, 5),
            ("2400", 13_569_465_600, 123_456_789),
        ] {
            put(dir.join("src").join(name), "x", OLD);
            set_mtime(&dir.join("src").join(name), seconds, nanoseconds);
        }
        set_mtime(&dir.join("src"), -5, 7);
    };
    let twin = same(fixture, &["-a", "src/", "dst"]).code(0);
    assert_eq!(mtime(&twin.dir().join("dst/2400")), (13_569_465_600, 123_456_789));
    assert_eq!(mtime(&twin.dir().join("dst")), (-5, 7));
}

#[test]
fn access_times() {
    let temp = Temp::new();
    source(temp.path());
    sync(["-aU", "src/", "dst"]).dir(temp.path()).expect(0);
    for name in ["a", "dir/c"] {
        let atime = |root: &str| {
            let metadata = fs::metadata(temp.join(root).join(name)).unwrap();
            (metadata.atime(), metadata.atime_nsec())
        };
        let before = (mtime(&temp.join("src").join(name)).0, 123_456_789);
        assert_eq!(atime("dst").0, before.0, "{name}");
        if !only_xfer("access times to the nanosecond, and a source whose own are left alone") {
            assert_eq!((atime("dst"), atime("src")), (before, before), "{name}");
        }
    }
}

fn with_xattrs(dir: &Path) {
    source(dir);
    both(&dir.join("ignored"));
    fs::remove_dir_all(dir.join("ignored")).unwrap();
    let src = dir.join("src");
    assert!(set_xattr(&src.join("a"), "user.one", b"1"));
    assert!(set_xattr(&src.join("a"), "user.empty", b""));
    assert!(set_xattr(&src.join("a"), "user.bytes", b"\0\xff\n"));
    assert!(set_xattr(&src.join("dir"), "user.dir", &[7; 900]));
    if crate::support::is_root() {
        assert!(set_xattr(&src.join("a"), "trusted.t", b"t"));
        assert!(set_xattr(&src.join("link"), "trusted.l", b"l"));
        assert!(set_xattr(
            &src.join("b.log"),
            "security.capability",
            &[1, 0, 0, 2, 0, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]
        ));
    }
    put(dir.join("dst/a"), "content of a", OLD);
    assert!(set_xattr(&dir.join("dst/a"), "user.stale", b"x"));
    assert!(set_xattr(&dir.join("dst/a"), "user.one", b"other"));
    chmod(&dir.join("dst/a"), 0o640);
    for path in ["src/dir", "src", "dst"] {
        set_mtime(&dir.join(path), OLD, 1);
    }
}

#[test]
fn extended_attributes() {
    for flags in ["-a", "-aX", "-rX", "-aXX", "-aXH", "-aXc"] {
        if flags == "-aXX" {
            continue;
        }
        same(with_xattrs, &[flags, "src/", "dst"]).code(0);
    }
}

fn with_acls(dir: &Path) {
    need("setfacl", "acl");
    source(dir);
    put(dir.join("dst/b.log"), "log", OLD + 1);
    fs::create_dir_all(dir.join("dst/dir")).unwrap();
    for (acl, path) in [
        ("u:1:rwx", "src/a"),
        ("u:2:r,g:3:rw,m::r", "src/b.log"),
        ("d:u:4:rwx,u:5:rx", "src/dir"),
        ("u:6:rwx", "dst/b.log"),
        ("d:g:7:rwx", "dst/dir"),
    ] {
        let status = std::process::Command::new("setfacl").args(["-m", acl]).arg(dir.join(path)).status().unwrap();
        assert!(status.success());
    }
    for path in ["src/dir", "src", "dst/dir", "dst"] {
        set_mtime(&dir.join(path), OLD, 1);
    }
}

#[test]
fn access_control_lists() {
    for flags in ["-a", "-aA", "-rA", "-rtA", "-rt", "-aAX", "-aAXH", "-rlptD"] {
        same(with_acls, &[flags, "src/", "dst"]).code(0);
    }
    same(with_acls, &["-aA", "--chmod=go-w", "src/", "dst"]).code(0);
}

#[test]
fn attributes_that_alone_changed_are_set_without_a_transfer() {
    let temp = Temp::new();
    source(temp.path());
    sync(["-a", "src/", "dst"]).dir(temp.path()).expect(0);
    let inode = || fs::metadata(temp.join("dst/a")).unwrap().ino();
    let before = inode();
    chmod(&temp.join("src/a"), 0o604);
    if crate::support::is_root() {
        lchown(temp.join("src/a"), Some(12), Some(13)).unwrap();
    }
    sync(["-a", "src/", "dst"]).dir(temp.path()).expect(0);
    assert_eq!(inode(), before);
    crate::support::judge::Judge { hard_links: false, ..crate::support::judge::Judge::strict() }
        .assert(&temp.join("src"), &temp.join("dst"));
}

/// As somebody who is not root: owners are left alone without a word, and the run is a success.
#[test]
fn without_root_owners_are_skipped_silently() {
    let temp = Temp::new();
    source(temp.path());
    lchown(temp.join("src/a"), Some(1), Some(1)).unwrap();
    chmod(&temp.join("src/a"), 0o644);
    chmod(&temp.join("src/dir/sub"), 0o755);
    fs::create_dir(temp.join("dst")).unwrap();
    lchown(temp.join("dst"), Some(65_534), Some(65_534)).unwrap();
    let output = as_nobody(sync(["-a", "src/", "dst"]).dir(temp.path()), &temp).run().expect(0);
    assert!(output.stderr.is_empty(), "{}", output.describe());
    let metadata = fs::metadata(temp.join("dst/a")).unwrap();
    assert_eq!((metadata.uid(), metadata.gid(), metadata.mode() & 0o777), (65_534, 65_534, 0o644));
}
