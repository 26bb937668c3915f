//! `xfer verify`: every difference is found and named, equal trees are equal wherever they are, and nothing is written.
#![allow(clippy::unwrap_used, reason = "tests")]
#![allow(clippy::disallowed_methods, reason = "tests stand outside the rooms")]

mod support;

use std::ffi::OsString;
use std::fs;
use std::os::unix::fs::{lchown, symlink};
use std::path::Path;
use std::time::Duration;

use rustix::fs::FileType;

use support::disk::{chmod, mknod, mtime, put, set_mtime, set_xattr};
use support::fixture::{self, OLD};
use support::run::{Output, as_nobody, is_rsync, sync, xfer};
use support::ssh::{FakeShell, at};
use support::tree::{self, Size};
use support::{Temp, for_seeds, need_root};

const ALL: [&str; 3] = ["verify", "-aHAX", "--numeric-ids"];

fn told(output: &Output) -> String {
    output.out() + &output.err()
}

/// The digest that a run printed.
fn digest(output: &Output) -> String {
    let is_digest = |word: &&str| word.len() == 64 && word.bytes().all(|byte| byte.is_ascii_hexdigit());
    let text = output.out();
    let found: Vec<&str> = text.split_whitespace().filter(is_digest).collect();
    assert_eq!(found.len(), 1, "{}", output.describe());
    found[0].to_owned()
}

/// A tree with every kind of entry, twice.
fn twins(temp: &Temp) {
    need_root("owners and devices");
    let src = temp.join("src");
    fs::create_dir_all(src.join("dir/deep")).unwrap();
    fs::create_dir(src.join("empty")).unwrap();
    put(src.join("file"), "content", OLD);
    put(src.join("dir/other"), "x".repeat(2_000_000), OLD + 1);
    put(src.join("dir/deep/leaf"), "leaf", OLD + 2);
    put(src.join("linked"), "linked", OLD + 3);
    fs::hard_link(src.join("linked"), src.join("dir/linked too")).unwrap();
    put(src.join("single"), "same", OLD + 3);
    put(src.join("single too"), "same", OLD + 3);
    symlink("file", src.join("link")).unwrap();
    mknod(&src.join("fifo"), FileType::Fifo, 0o600, 0, 0);
    mknod(&src.join("device"), FileType::CharacterDevice, 0o600, 1, 3);
    assert!(set_xattr(&src.join("file"), "user.note", b"one"), "no user attributes where temporary files are");
    sync(["-aHAX", "--numeric-ids", "src/", "dst"]).dir(temp.path()).expect(0);
}

type Edit = fn(&Path);

/// Every kind of difference by itself: the path that is named, and words of the reason. The last says whether
/// `--content-only` sees it.
const EDITS: &[(&str, &str, bool, Edit)] = &[
    ("file", "content differs", true, |dst| put(dst.join("file"), "CONTENT", OLD)),
    ("file", "content differs: 9 bytes, source 7", true, |dst| put(dst.join("file"), "content..", OLD)),
    ("dir/other", "content differs", true, |dst| {
        let mut bytes = vec![b'x'; 2_000_000];
        bytes[1_999_999] = b'y';
        put(dst.join("dir/other"), bytes, OLD + 1);
    }),
    ("dir/deep/leaf", "only in the source", true, |dst| {
        let time = mtime(&dst.join("dir/deep"));
        fs::remove_file(dst.join("dir/deep/leaf")).unwrap();
        set_mtime(&dst.join("dir/deep"), time.0, time.1);
    }),
    ("dir/deep", "only in the source", true, |dst| {
        let time = mtime(&dst.join("dir"));
        fs::remove_dir_all(dst.join("dir/deep")).unwrap();
        set_mtime(&dst.join("dir"), time.0, time.1);
    }),
    ("empty/new", "only in the destination", true, |dst| {
        let time = mtime(&dst.join("empty"));
        fs::create_dir_all(dst.join("empty/new/below/that")).unwrap();
        set_mtime(&dst.join("empty"), time.0, time.1);
    }),
    ("empty", "is a regular file, a directory in the source", true, |dst| {
        let time = mtime(dst);
        fs::remove_dir(dst.join("empty")).unwrap();
        put(dst.join("empty"), "", OLD);
        set_mtime(dst, time.0, time.1);
    }),
    ("link", "link target \"elsewhere\", source \"file\"", true, |dst| {
        let (root, time) = (mtime(dst), mtime(&dst.join("link")));
        fs::remove_file(dst.join("link")).unwrap();
        symlink("elsewhere", dst.join("link")).unwrap();
        set_mtime(&dst.join("link"), time.0, time.1);
        set_mtime(dst, root.0, root.1);
    }),
    ("device", "device 1:5, source 1:3", true, |dst| {
        let (root, time) = (mtime(dst), mtime(&dst.join("device")));
        fs::remove_file(dst.join("device")).unwrap();
        mknod(&dst.join("device"), FileType::CharacterDevice, 0o600, 1, 5);
        set_mtime(&dst.join("device"), time.0, time.1);
        set_mtime(dst, root.0, root.1);
    }),
    ("file", "mode 0600, source 0644", false, |dst| chmod(&dst.join("file"), 0o600)),
    ("dir/deep", "mode 0711, source 0755", false, |dst| chmod(&dst.join("dir/deep"), 0o711)),
    (".", "mode 0700, source 0755", false, |dst| chmod(dst, 0o700)),
    ("file", "owner 1234, source 0", false, |dst| lchown(dst.join("file"), Some(1234), None).unwrap()),
    ("link", "group 4321, source 0", false, |dst| lchown(dst.join("link"), None, Some(4321)).unwrap()),
    ("file", "mtime", false, |dst| {
        let time = mtime(&dst.join("file"));
        set_mtime(&dst.join("file"), time.0, time.1 + 1);
    }),
    ("dir", "mtime", false, |dst| set_mtime(&dst.join("dir"), OLD, 7)),
    ("file", "extended attribute user.note differs", false, |dst| {
        assert!(set_xattr(&dst.join("file"), "user.note", b"two"));
    }),
    ("dir", "extended attribute user.more only in the destination", false, |dst| {
        assert!(set_xattr(&dst.join("dir"), "user.more", b""));
    }),
    ("file", "access control list differs", false, |dst| {
        // user::rw- user:77:r-- group::r-- mask::r-- other::r--, in the kernel's format.
        let mut acl = vec![2, 0, 0, 0];
        for (tag, permissions, id) in
            [(1u16, 6u16, u32::MAX), (2, 4, 77), (4, 4, u32::MAX), (0x10, 4, u32::MAX), (0x20, 4, u32::MAX)]
        {
            acl.extend(tag.to_le_bytes());
            acl.extend(permissions.to_le_bytes());
            acl.extend(id.to_le_bytes());
        }
        assert!(set_xattr(&dst.join("file"), "system.posix_acl_access", &acl));
    }),
    ("linked", "hard links: not the same inode as", false, |dst| {
        let (root, dir) = (mtime(dst), mtime(&dst.join("dir")));
        fs::remove_file(dst.join("dir/linked too")).unwrap();
        put(dst.join("dir/linked too"), "linked", OLD + 3);
        set_mtime(&dst.join("dir"), dir.0, dir.1);
        set_mtime(dst, root.0, root.1);
    }),
    ("single", "hard links: the same inode as", false, |dst| {
        let root = mtime(dst);
        fs::remove_file(dst.join("single too")).unwrap();
        fs::hard_link(dst.join("single"), dst.join("single too")).unwrap();
        set_mtime(dst, root.0, root.1);
    }),
];

#[test]
fn every_kind_of_difference_is_named_once() {
    if is_rsync() {
        return;
    }
    let shell = FakeShell::new();
    for (path, words, seen_by_content, edit) in EDITS {
        let temp = Temp::new();
        twins(&temp);
        let far = |name: &str| at("host", Path::new(&format!("{}/{name}", temp.path().display())));
        let ways: [(&[OsString], OsString, OsString); 3] = [
            (&[], "src/".into(), "dst".into()),
            (&shell.args(), "src/".into(), far("dst")),
            (&shell.args(), far("src/"), "dst".into()),
        ];
        for (args, source, destination) in &ways {
            let output = xfer(ALL).args(*args).args([source, destination]).dir(temp.path()).expect(0);
            assert_eq!(told(&output).matches("differs").count(), 0, "{}", output.describe());
        }
        edit(&temp.join("dst"));
        for (args, source, destination) in &ways {
            let output = xfer(ALL).args(*args).args(["--json"]).args([source, destination]).dir(temp.path());
            let output = output.expect(23);
            let problems: Vec<String> = output
                .out()
                .lines()
                .filter(|line| line.contains("\"differs\"") && line.contains("problem"))
                .map(str::to_owned)
                .collect();
            let text = told(&output).replace("\\\"", "\"");
            assert!(text.contains(words), "{path}: {words}\n{}", output.describe());
            assert!(!problems.is_empty(), "{}", output.describe());
            let expected = if words.starts_with("hard links") { "" } else { *path };
            let is_named = |line: &String| {
                line.contains(&format!("\"{expected}\""))
                    || expected.is_empty()
                    || (expected == "." && line.contains("\"\""))
            };
            assert!(problems.iter().any(is_named), "{path}\n{}", output.describe());
            let content = xfer(ALL).args(["--content-only"]).args(*args).args([source, destination]);
            content.dir(temp.path()).expect(if *seen_by_content { 23 } else { 0 });
        }
        // What is compared is chosen as for a sync.
        if words.starts_with("hard links") || words.starts_with("extended") {
            xfer(["verify", "src/", "dst"]).dir(temp.path()).expect(0);
        }
        if *words == "mtime" {
            xfer(["verify", "-HAX", "--no-t", "src/", "dst"]).dir(temp.path()).expect(0);
        }
        if words.starts_with("owner") {
            xfer(["verify", "-HAX", "--no-o", "src/", "dst"]).dir(temp.path()).expect(0);
        }
    }
}

#[test]
fn extra_and_missing_trees_are_told_once_at_their_top() {
    if is_rsync() {
        return;
    }
    let temp = Temp::new();
    fixture::source(temp.path());
    sync(["-a", "src/", "dst"]).dir(temp.path()).expect(0);
    fixture::many_files(&temp.join("dst/extra"), 3000);
    fixture::many_files(&temp.join("src/missing"), 3000);
    let output = xfer(["verify", "--content-only", "src/", "dst"]).dir(temp.path()).expect(23);
    let text = output.err();
    assert!(text.contains("2 items differ"), "{}", output.describe());
    assert!(text.contains("\"extra\": only in the destination"), "{}", output.describe());
    assert!(text.contains("\"missing\": only in the source"), "{}", output.describe());
}

#[test]
fn equal_random_trees_are_equal_everywhere_and_have_one_digest() {
    if is_rsync() {
        return;
    }
    need_root("owners and devices");
    let shell = FakeShell::new();
    for_seeds(7_000, 50, |seed| {
        let temp = Temp::new();
        tree::random(&temp.join("src"), seed, Size::SMALL);
        sync(ALL.iter().skip(1)).args(["src/", "dst"]).dir(temp.path()).expect(0);
        let far = |name: &str| at("host", Path::new(&format!("{}/{name}", temp.path().display())));
        let run = |args: &[OsString]| xfer(ALL).args(shell.args()).args(args).dir(temp.path()).expect(0);
        let source = digest(&run(&["src".into()]));
        let ways: [Vec<OsString>; 7] = [
            vec!["src/".into()],
            vec!["dst".into()],
            vec![far("src")],
            vec![far("dst/")],
            vec!["src/".into(), "dst".into()],
            vec!["src/".into(), far("dst")],
            vec![far("src/"), "dst/".into()],
        ];
        for way in &ways {
            let other = digest(&run(way));
            if other != source {
                return Err(format!("{way:?}: {other}, expected {source}"));
            }
        }
        tree::mutate(&temp.join("dst"), seed + 1, Size::SMALL);
        let judged = support::judge::Judge::strict().differences(&temp.join("src"), &temp.join("dst"));
        if !judged.is_empty() {
            for (from, to) in [("src/".into(), "dst".into()), ("src/".into(), far("dst")), (far("src/"), "dst".into())]
            {
                xfer(ALL).args(shell.args()).args([from, to]).dir(temp.path()).expect(23);
            }
            if digest(&run(&["dst".into()])) == source {
                return Err(format!("trees differ and their digests do not: {judged:?}"));
            }
        }
        Ok(())
    });
}

#[test]
fn names_without_a_slash_and_single_files() {
    if is_rsync() {
        return;
    }
    let temp = Temp::new();
    fixture::source(temp.path());
    sync(["-aH", "src", "dst/"]).dir(temp.path()).expect(0);
    let run = |args: &[&str], code| xfer(["verify", "-H"]).args(args).dir(temp.path()).expect(code);
    let whole = digest(&run(&["src", "dst"], 0));
    assert_eq!(whole, digest(&run(&["dst/src"], 0)));
    assert_eq!(whole, digest(&run(&["src/"], 0)));
    assert_eq!(digest(&run(&["src/a", "dst/src/a"], 0)), digest(&run(&["src/a", "dst/src"], 0)));
    assert_eq!(digest(&run(&["dst/src/a"], 0)), digest(&run(&["src/a"], 0)));
    assert!(run(&["src/a", "dst/src/missing"], 23).err().contains("only in the source"));
    assert!(run(&["src/a", "dst/src/b.log"], 23).err().contains("content differs"));
    run(&["src/a", "src/b.log", "dst/src"], 2).says(&["one SRC"]);
    run(&["src/", "nowhere"], 1).says(&["nowhere"]);
    run(&["nowhere", "dst"], 23).says(&["nowhere"]);
    // Nothing compared is not equal.
    run(&["--no-r", "src", "dst"], 2).says(&["nothing was compared"]);
}

#[test]
fn filters_hide_on_both_sides() {
    if is_rsync() {
        return;
    }
    let temp = Temp::new();
    fixture::source(temp.path());
    sync(["-a", "src/", "dst"]).dir(temp.path()).expect(0);
    put(temp.join("src/dir/only.tmp"), "x", OLD);
    put(temp.join("dst/dir/there.tmp"), "x", OLD);
    put(temp.join("dst/b.log"), "other", OLD);
    put(temp.join("dst/dir/sub/d"), "other", OLD);
    let base = ["verify", "-O", "src/", "dst"];
    let output = xfer(base).dir(temp.path()).expect(23);
    assert!(output.err().contains("4 items differ"), "{}", output.describe());
    let filters = ["--exclude=*.tmp", "--exclude=*.log", "--exclude=/dir/sub/"];
    xfer(base).args(filters).dir(temp.path()).expect(0);
    let shell = FakeShell::new();
    xfer(["verify", "-O"])
        .args(filters)
        .args(shell.args())
        .args(["src/".into(), at("h", &temp.join("dst"))])
        .dir(temp.path())
        .expect(0);
    let tree = |name: &str| digest(&xfer(["verify", "-O"]).args(filters).args([name]).dir(temp.path()).expect(0));
    assert_eq!(tree("src/"), tree("dst/"));
    // Rules of a directory hold for its twin.
    put(temp.join("src/.rsync-filter"), "- *.tmp\n- *.log\n- /dir/sub/\n", OLD);
    xfer(base).args(["-FF"]).dir(temp.path()).expect(0);
}

#[test]
fn what_cannot_be_read_is_no_proof() {
    if is_rsync() {
        return;
    }
    need_root("becoming somebody else");
    let temp = Temp::new();
    chmod(temp.path(), 0o755);
    fixture::source(temp.path());
    sync(["-a", "src/", "dst"]).dir(temp.path()).expect(0);
    for side in ["src", "dst"] {
        for name in ["b.log", "dir/sub"] {
            let path = temp.join(side).join(name);
            let mode = support::disk::mode(&path);
            chmod(&path, 0);
            let verify = |args: &[&str]| as_nobody(xfer(args).dir(temp.path()), &temp);
            let output = verify(&["verify", "--content-only", "src/", "dst"]).expect(23);
            assert!(output.err().contains(name) && !output.out().contains("equal"), "{}", output.describe());
            let alone = verify(&["verify", "--content-only", side]).expect(23);
            assert!(alone.out().trim().is_empty(), "{}", alone.describe());
            chmod(&path, mode);
        }
    }
}

#[test]
fn options_that_leave_things_out() {
    if is_rsync() {
        return;
    }
    let temp = Temp::new();
    fixture::source(temp.path());
    for flags in [&["-m"][..], &["--max-size=1000"], &["--no-l"], &["-L"], &["--exclude=*", "-m"]] {
        let dst = temp.join("dst");
        let _not_there_at_first = fs::remove_dir_all(&dst);
        sync(["-aO"]).args(flags).args(["src/", "dst"]).dir(temp.path()).expect(0);
        let output = xfer(["verify", "-O"]).args(flags).args(["src/", "dst"]).dir(temp.path()).expect(0);
        let source = digest(&output);
        let alone = xfer(["verify", "-O"]).args(flags).args(["dst/"]).dir(temp.path()).expect(0);
        assert_eq!(digest(&alone), source, "{flags:?}");
    }
}

#[test]
fn deep_and_wide() {
    if is_rsync() {
        return;
    }
    let temp = Temp::new();
    let src = temp.join("src");
    fs::create_dir_all(src.join("wide")).unwrap();
    for index in 0..5000 {
        put(src.join(format!("wide/{index:05}")), index.to_string(), OLD);
        if index % 3 == 0 {
            fs::create_dir(src.join(format!("wide/d{index}"))).unwrap();
        }
    }
    let mut deep = src.join("deep");
    for _ in 0..300 {
        deep.push("a name of some length");
        if deep.as_os_str().len() > 3900 {
            break;
        }
    }
    fs::create_dir_all(&deep).unwrap();
    put(deep.join("leaf"), "leaf", OLD);
    sync(["-a", "src/", "dst"]).dir(temp.path()).expect(0);
    let shell = FakeShell::new();
    let local = xfer(["verify", "src/", "dst"]).dir(temp.path()).expect(0);
    let push =
        xfer(["verify", "src/"]).args([at("h", &temp.join("dst"))]).args(shell.args()).dir(temp.path()).expect(0);
    assert_eq!(digest(&local), digest(&push));
    let there = temp.join("dst").join(deep.strip_prefix(&src).unwrap());
    put(there.join("leaf"), "LEAF", OLD);
    put(temp.join("dst/wide/04999"), "x999", OLD);
    let output = xfer(["verify", "src/", "dst"]).dir(temp.path()).expect(23);
    assert!(output.err().contains("2 items differ"), "{}", output.describe());
}

#[test]
fn many_files_over_a_shell() {
    if is_rsync() {
        return;
    }
    let temp = Temp::new();
    fixture::many_files(&temp.join("src/in directories"), 10_000);
    fs::create_dir_all(temp.join("src/flat")).unwrap();
    for index in 0..10_000 {
        put(temp.join(format!("src/flat/{index}")), index.to_string(), OLD);
    }
    sync(["-a", "src/", "dst"]).dir(temp.path()).expect(0);
    let shell = FakeShell::new();
    let limit = Duration::from_secs(120);
    let far = |name: &str| at("h", Path::new(&format!("{}/{name}", temp.path().display())));
    for (from, to) in [("src/".into(), far("dst")), (far("src/"), OsString::from("dst"))] {
        xfer(["verify"]).args(shell.args()).args([from, to]).dir(temp.path()).limit(limit).expect(0);
    }
    xfer(["verify"]).args(shell.args()).args([far("src")]).limit(limit).expect(0);
    fs::remove_file(temp.join("dst/flat/77")).unwrap();
    xfer(["verify"]).args(shell.args()).args([far("src/"), "dst".into()]).dir(temp.path()).limit(limit).expect(23);
}

/// Neither names, nor times, nor a lock: a sync may even be running.
#[test]
fn nothing_is_written() {
    if is_rsync() {
        return;
    }
    let temp = Temp::new();
    fixture::source(temp.path());
    sync(["-a", "src/", "dst"]).dir(temp.path()).expect(0);
    put(temp.join("dst/a"), "different", OLD);
    let state = |root: &Path| -> Vec<_> {
        use std::os::unix::fs::MetadataExt;
        let all = support::disk::walk(root).into_iter().chain([std::path::PathBuf::new()]);
        all.map(|path| {
            let metadata = fs::symlink_metadata(root.join(&path)).unwrap();
            (path, metadata.ino(), metadata.mtime_nsec(), metadata.ctime(), metadata.ctime_nsec())
        })
        .collect()
    };
    let before = (state(&temp.join("src")), state(&temp.join("dst")));
    let lock = fs::File::open(temp.join("dst")).unwrap();
    rustix::fs::flock(&lock, rustix::fs::FlockOperation::LockExclusive).unwrap();
    xfer(["verify", "src/", "dst"]).dir(temp.path()).expect(23);
    xfer(["verify", "dst"]).dir(temp.path()).expect(0);
    assert!(before == (state(&temp.join("src")), state(&temp.join("dst"))));
}
