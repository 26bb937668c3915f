//! Directories that are new at the destination: nothing incomplete is ever seen under a final name, what is complete
//! survives an end by signal, and what a kill leaves is swept, save where someone still fills it.
#![allow(clippy::unwrap_used, reason = "tests")]
#![allow(clippy::disallowed_methods, reason = "tests stand outside the rooms")]

mod support;

use std::collections::{BTreeMap, BTreeSet};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use rustix::process::Signal;
use support::disk::{chmod, get, leftovers, put, there, walk};
use support::fixture::{self, OLD};
use support::judge::Judge;
use support::run::{Call, only_xfer, sync, xfer};
use support::ssh::{FakeShell, at};
use support::{Temp, need, need_root};

const DEAD: &str = ".xfer-stage.0123456789abcdef.dir.1f";

/// Everything beneath `root` that has a final name, all the way down.
fn visible(root: &Path) -> Vec<PathBuf> {
    let hidden = |path: &PathBuf| path.iter().any(|part| part.as_encoded_bytes().starts_with(b".xfer"));
    walk(root).into_iter().filter(|path| !hidden(path)).collect()
}

fn assert_complete(source: &Path, destination: &Path) -> usize {
    let files = visible(destination).into_iter().filter(|path| destination.join(path).is_file());
    files
        .map(|path| assert!(get(destination.join(&path)) == get(source.join(&path)), "{path:?} is not complete"))
        .count()
}

/// 3,000 files of 20 KiB in nested directories.
fn many(root: &Path) {
    for dir in 0..30 {
        for file in 0..100 {
            let path = root.join(format!("top{}/mid{dir}/f{file:03}", dir % 3));
            put(path, [dir as u8 ^ file as u8].repeat(20_000), OLD);
        }
    }
}

#[test]
fn incomplete_files_are_never_seen_and_a_stop_keeps_the_complete_ones() {
    let shell = FakeShell::new();
    for way in ["local", "push", "pull"] {
        let temp = Temp::new();
        many(&temp.join("src"));
        std::fs::create_dir(temp.join("dst")).unwrap();
        let call = sync(["-aW", "--bwlimit=12M"]).dir(temp.path());
        let far = |tail: &str| at("host", Path::new(&format!("{}/{tail}", temp.path().display())));
        let call = match way {
            "local" => call.args(["src/", "dst"]),
            "push" => call.args(shell.args()).args(["src/".into(), far("dst")]),
            _ => call.args(shell.args()).args([far("src/"), "dst".into()]),
        };
        let mut running = call.under(["env", "--default-signal=INT,TERM"]).spawn();
        let mut most = 0;
        running.until("a few directories", || {
            most = assert_complete(&temp.join("src"), &temp.join("dst")).max(most);
            most > 300
        });
        if only_xfer("that complete files have their names after a signal") {
            return;
        }
        running.signal(Signal::TERM);
        let output = running.wait();
        assert_eq!(output.code(), 130, "{way}: {}", output.describe());
        assert_eq!(leftovers(&temp.join("dst")), Vec::<PathBuf>::new(), "{way}: {}", output.describe());
        assert!(assert_complete(&temp.join("src"), &temp.join("dst")) >= most, "{way}");
        sync(["-a", "--delete", "src/", "dst"]).dir(temp.path()).expect(0);
        Judge::strict().assert(&temp.join("src"), &temp.join("dst"));
    }
}

#[test]
fn what_a_kill_leaves_is_swept() {
    if only_xfer("to sweep what a kill has left") {
        return;
    }
    let mut left = 0;
    for pause_ms in [30, 120, 250, 400] {
        let temp = Temp::new();
        many(&temp.join("src"));
        let mut running = sync(["-aW", "--bwlimit=20M", "src/", "dst"]).dir(temp.path()).spawn();
        std::thread::sleep(std::time::Duration::from_millis(pause_ms));
        assert!(!running.ended());
        running.signal(Signal::KILL);
        running.wait();
        if there(temp.join("dst")) {
            left += leftovers(&temp.join("dst")).len();
            assert_complete(&temp.join("src"), &temp.join("dst"));
        }
        sync(["-a", "src/", "dst"]).dir(temp.path()).expect(0);
        Judge::strict().assert(&temp.join("src"), &temp.join("dst"));
    }
    assert!(left > 0, "no kill has left a stage: the test shows nothing");
}

#[test]
fn a_stage_is_swept_only_when_its_writer_is_gone() {
    if only_xfer("stages") {
        return;
    }
    let temp = Temp::new();
    fixture::source(temp.path());
    for name in [DEAD, ".xfer-stage.0123456789abcdef.dir.2"] {
        put(temp.join("dst/dir").join(name).join("sub/.xfer-stage.0123456789abcdef.dir.20/f"), "half", OLD);
        chmod(&temp.join("dst/dir").join(name).join("sub"), 0o500);
    }
    let live = std::fs::File::open(temp.join("dst/dir/.xfer-stage.0123456789abcdef.dir.2")).unwrap();
    rustix::fs::flock(&live, rustix::fs::FlockOperation::LockExclusive).unwrap();
    sync(["-aH", "--delete", "-n", "src/", "dst"]).dir(temp.path()).expect(0);
    assert!(there(temp.join("dst/dir").join(DEAD)), "a dry run removes nothing");
    sync(["-aH", "--delete", "src/", "dst"]).dir(temp.path()).expect(0);
    assert!(!there(temp.join("dst/dir").join(DEAD)));
    assert_eq!(
        get(temp.join("dst/dir/.xfer-stage.0123456789abcdef.dir.2/sub/.xfer-stage.0123456789abcdef.dir.20/f")),
        b"half"
    );
    drop(live);
    sync(["-aH", "src/", "dst"]).dir(temp.path()).expect(0);
    Judge::strict().assert(&temp.join("src"), &temp.join("dst"));
}

#[test]
fn someone_elses_stage_is_a_directory_like_any_other() {
    need_root("gives a directory away");
    if only_xfer("stages") {
        return;
    }
    let temp = Temp::new();
    fixture::source(temp.path());
    put(temp.join("dst").join(DEAD).join("f"), "theirs", OLD);
    std::os::unix::fs::chown(temp.join("dst").join(DEAD), Some(12345), None).unwrap();
    sync(["-aH", "src/", "dst"]).dir(temp.path()).expect(0);
    assert_eq!(get(temp.join("dst").join(DEAD).join("f")), b"theirs");
    sync(["-aH", "--delete", "src/", "dst"]).dir(temp.path()).expect(0);
    Judge::strict().assert(&temp.join("src"), &temp.join("dst"));
}

#[test]
fn a_directory_that_appears_meanwhile_is_merged() {
    if only_xfer("to keep what appears meanwhile") {
        return;
    }
    let temp = Temp::new();
    for file in 0..40 {
        put(temp.join(format!("src/new/f{file:02}")), vec![b'x'; 100_000], OLD);
    }
    put(temp.join("src/new/sub/deep/f"), "deep", OLD);
    std::fs::create_dir(temp.join("dst")).unwrap();
    let mut running = sync(["-aW", "--bwlimit=2M", "src/", "dst"]).dir(temp.path()).spawn();
    running.until("a stage", || walk(&temp.join("dst")).len() > 3);
    put(temp.join("dst/new/f07"), "someone else's", OLD + 5);
    put(temp.join("dst/new/theirs"), "theirs", OLD + 5);
    assert!(!running.ended(), "too quick");
    let output = running.wait();
    assert_eq!(output.code(), 23, "{}", output.describe());
    assert!(output.err().contains("new/f07"), "{}", output.describe());
    assert_eq!(get(temp.join("dst/new/f07")), b"someone else's");
    assert_eq!(get(temp.join("dst/new/theirs")), b"theirs");
    assert_eq!(get(temp.join("dst/new/f39")).len(), 100_000);
    assert_eq!(get(temp.join("dst/new/sub/deep/f")), b"deep");
    // What could not be moved is swept, and the next run settles the rest.
    sync(["-a", "--delete", "src/", "dst"]).dir(temp.path()).expect(0);
    Judge::strict().assert(&temp.join("src"), &temp.join("dst"));
}

#[test]
fn all_that_a_new_directory_can_hold_arrives_in_it() {
    need_root("makes owners");
    let shell = FakeShell::new();
    for umask in ["000", "022", "077"] {
        for remote in [false, true] {
            let temp = Temp::new();
            fixture::source(temp.path());
            fixture::big_file(&temp.join("src/dir/sub/big"), 3 << 20, 1);
            for (number, mode) in [0o644, 0o755, 0o600, 0o4755, 0o2664, 0o666, 0o400, 0].into_iter().enumerate() {
                let path = temp.join(format!("src/dir/mode{number}"));
                put(&path, format!("{mode:o}"), OLD);
                std::os::unix::fs::chown(&path, Some(number as u32 % 3 * 1000), Some(number as u32 % 2 * 1000))
                    .unwrap();
                chmod(&path, mode);
            }
            let path = temp.join("src/dir/pipe");
            rustix::fs::mknodat(rustix::fs::CWD, &path, rustix::fs::FileType::Fifo, 0o640.into(), 0).unwrap();
            std::os::unix::fs::symlink("nowhere", temp.join("src/dir/sub/dangling")).unwrap();
            std::fs::hard_link(temp.join("src/dir/c"), temp.join("src/dir/sub/hard too")).unwrap();
            std::os::unix::fs::lchown(temp.join("src/dir/sub/dangling"), Some(1000), Some(1000)).unwrap();
            let call = sync(["-aH"]).dir(temp.path());
            let call = match remote {
                false => call.args(["src/", "dst"]),
                true => call.args(shell.args()).args(["src/".into(), at("host", &temp.join("dst"))]),
            };
            call.under(["sh", "-c", &format!("umask {umask}; exec \"$@\""), "sh"]).expect(0);
            Judge::strict().assert(&temp.join("src"), &temp.join("dst"));
            let inodes: BTreeSet<u64> = ["hard", "dir/c", "dir/sub/hard too"]
                .into_iter()
                .map(|name| std::fs::metadata(temp.join("dst").join(name)).unwrap().ino())
                .collect();
            assert_eq!(inodes.len(), 1);
            assert_eq!(leftovers(&temp.join("dst")), Vec::<PathBuf>::new());
        }
    }
}

/// Calls of each kind that a run of `call` makes.
fn calls_of(call: Call, temp: &Temp) -> BTreeMap<String, usize> {
    need("strace", "strace");
    let log = temp.join("calls");
    // Cargo's path for libraries is long, and the loader looks everywhere on it.
    let quiet_loader = ["env", "-u", "LD_LIBRARY_PATH"];
    let call = call.under(quiet_loader);
    call.under(["strace", "-f", "-qq", "-e", "signal=none", "-o", log.to_str().unwrap()]).expect(0);
    let mut calls = BTreeMap::new();
    for line in String::from_utf8_lossy(&get(&log)).lines() {
        let call = line.split_whitespace().nth(1).and_then(|call| call.split_once('('));
        if let Some((call, _)) = call.filter(|_| !line.contains(" resumed>")) {
            *calls.entry(call.to_owned()).or_insert(0) += 1;
        }
    }
    calls
}

#[test]
fn a_new_small_file_costs_nine_calls_and_an_unchanged_one_two() {
    if only_xfer("so few system calls") {
        return;
    }
    const FILES: usize = 400;
    let temp = Temp::new();
    for file in 0..FILES {
        put(temp.join(format!("src/dir/f{file:04}")), "content", OLD);
        chmod(&temp.join(format!("src/dir/f{file:04}")), 0o644);
    }
    std::fs::create_dir(temp.join("dst")).unwrap();
    let sync = || sync(["-a", "src/", "dst"]).dir(temp.path()).under(["sh", "-c", "umask 022; exec \"$@\"", "sh"]);
    let start = calls_of(xfer(["--version"]), &temp);
    // What a run costs whatever it copies: threads, libraries, directories.
    let a_file = |calls: &BTreeMap<String, usize>, call: &str| {
        let count = calls.get(call).copied().unwrap_or(0);
        count.saturating_sub(start.get(call).copied().unwrap_or(0)).saturating_sub(60).div_ceil(FILES)
    };
    let kinds = ["openat", "openat2", "statx", "close", "copy_file_range", "pread64", "pwrite64", "write", "utimensat"];
    let kinds_too_many =
        ["fchmod", "fchown", "linkat", "renameat", "renameat2", "flock", "getxattr", "fgetxattr", "lseek", "unlinkat"];
    let calls = calls_of(sync(), &temp);
    let expected = [2, 0, 3, 2, 1, 0, 0, 0, 1];
    assert_eq!(kinds.map(|kind| a_file(&calls, kind)), expected, "{calls:?}");
    assert_eq!(kinds_too_many.map(|kind| a_file(&calls, kind)), [0; 10], "{calls:?}");
    Judge::strict().assert(&temp.join("src"), &temp.join("dst"));
    let calls = calls_of(sync(), &temp);
    assert_eq!(kinds.map(|kind| a_file(&calls, kind)), [0, 0, 2, 0, 0, 0, 0, 0, 0], "{calls:?}");
}

#[test]
fn a_directory_that_holds_much_is_put_in_place_early() {
    if only_xfer("stages") {
        return;
    }
    // 512 of them reach the 256 MiB that may wait for one rename. They are holes, and cost nothing.
    const FILES: usize = 600;
    let temp = Temp::new();
    for file in 0..FILES {
        let path = temp.join(format!("src/dir/f{file:04}"));
        put(&path, "", OLD);
        std::fs::File::options().write(true).open(&path).unwrap().set_len(512 << 10).unwrap();
    }
    std::fs::create_dir(temp.join("dst")).unwrap();
    let calls = calls_of(sync(["-aS", "src/", "dst"]).dir(temp.path()), &temp);
    let one_by_one = calls.get("linkat").copied().unwrap_or(0) + calls.get("renameat").copied().unwrap_or(0);
    assert!((FILES - 512..FILES - 480).contains(&one_by_one), "{calls:?}");
    assert_eq!(leftovers(&temp.join("dst")), Vec::<PathBuf>::new());
    Judge::strict().assert(&temp.join("src"), &temp.join("dst"));
}
