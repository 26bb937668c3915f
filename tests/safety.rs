//! Nothing lost, nothing silently wrong: what must hold when something fails, changes, vanishes, fills up or stops.
//!
//! Every fault proves that it fired.
#![allow(clippy::unwrap_used, reason = "tests")]
#![allow(clippy::disallowed_methods, reason = "tests stand outside the rooms")]

mod support;

use std::fs;
use std::io::{Seek, Write};
use std::os::unix::fs::{FileExt, lchown, symlink};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use rustix::process::Signal;

use support::disk::{chmod, get, leftovers, put, there, walk};
use support::fixture::{self, OLD, both, source};
use support::judge::Judge;
use support::mount::Mounted;
use support::run::{Call, as_nobody, is_rsync, only_xfer, signal_process, sync};
use support::ssh::{FakeShell, at};
use support::strace::{Faults, traced, with_faults};
use support::{Temp, need_root};

/// `src` and `dst` of [`both`], owned by the user that [`as_nobody`] becomes.
fn of_nobody(temp: &Temp) {
    need_root("gives files away");
    both(temp.path());
    for path in walk(temp.path()) {
        lchown(temp.join(path), Some(65_534), Some(65_534)).unwrap();
    }
}

#[test]
fn unreadable_sources_delete_nothing() {
    for unreadable in ["dir", "dir/sub", "dir/sub/d", "a"] {
        for delete in ["--delete", "--delete-before", "--delete-during", "--delete-after", "--delete-excluded"] {
            let temp = Temp::new();
            of_nobody(&temp);
            chmod(&temp.join("src").join(unreadable), 0o000);
            let output = as_nobody(sync(["-a", delete, "src/", "dst"]).dir(temp.path()), &temp).run().expect(23);
            assert!(output.err().contains(unreadable), "{}", output.describe());
            if !only_xfer("no deletion at all beside an unreadable source") {
                assert!(
                    there(temp.join("dst/extra")) && there(temp.join("dst/gone/x")),
                    "{delete}: {}",
                    output.describe()
                );
            }
            // What could be read has arrived.
            assert_eq!(get(temp.join("dst/b.log")), b"log");
        }
    }
    if is_rsync() {
        return;
    }
    // The override is explicit.
    let temp = Temp::new();
    of_nobody(&temp);
    chmod(&temp.join("src/dir/sub"), 0o000);
    let args = ["-a", "--delete", "--ignore-errors", "src/", "dst"];
    as_nobody(sync(args).dir(temp.path()), &temp).expect(23);
    assert!(!there(temp.join("dst/extra")));
}

#[test]
fn unreadable_sources_delete_nothing_over_a_remote_shell() {
    if only_xfer("no deletion at all beside an unreadable source") {
        return;
    }
    let temp = Temp::new();
    of_nobody(&temp);
    chmod(&temp.join("src/dir/sub"), 0o000);
    let shell = FakeShell::new();
    for parent in shell.path().ancestors().skip(1).take(1) {
        chmod(parent, 0o777);
    }
    let far_program = temp.join("far-xfer");
    fs::copy(support::run::binary(), &far_program).unwrap();
    for push in [true, false] {
        let args = shell.args_with(&far_program);
        let ends: [std::ffi::OsString; 2] = if push {
            ["src/".into(), at("host", &temp.join("dst"))]
        } else {
            [at("host", Path::new(&format!("{}/src/", temp.path().display()))), "dst".into()]
        };
        let call = sync(["-a", "--delete"]).args(args).args(ends).dir(temp.path());
        let output = as_nobody(call, &temp).run().expect(23);
        assert!(there(temp.join("dst/extra")) && there(temp.join("dst/gone/x")), "{}", output.describe());
    }
}

#[test]
fn an_io_error_in_the_source_deletes_nothing() {
    for (inject, path) in [("getdents64:error=EIO", "src/dir/sub"), ("openat,openat2:error=EIO", "src/dir/sub/d")] {
        let temp = Temp::new();
        both(temp.path());
        let call = sync(["-a", "--delete", "--no-whole-file", "src/", "dst"]).dir(temp.path());
        let output = with_faults(call, &Faults { inject: &[inject], path: Some(temp.join(path)) }).expect(23);
        assert!(output.err().contains("dir/sub"), "{}", output.describe());
        if !only_xfer("no deletion at all beside an error of the source") {
            assert!(there(temp.join("dst/extra")) && there(temp.join("dst/gone/x")), "{}", output.describe());
        }
    }
}

/// Every read of the source fails in turn; whatever fails, nothing is deleted and nothing half stands there.
#[test]
fn whichever_read_fails_nothing_wrong_comes_of_it() {
    if is_rsync() {
        return;
    }
    for inject in
        ["pread64,read,copy_file_range:error=EIO", "statx:error=EIO", "getdents64:error=EIO", "readlinkat:error=EIO"]
    {
        let mut fired = 0;
        for when in [1, 2, 3, 5, 8, 13, 21] {
            let temp = Temp::new();
            both(temp.path());
            let fault = format!("{inject}:when={when}");
            let (output, log) = traced(
                sync(["-aH", "--delete", "src/", "dst"]).dir(temp.path()),
                &Faults { inject: &[&fault], path: None },
            );
            if !log.contains("INJECTED") {
                continue;
            }
            fired += 1;
            assert!(!output.err().contains("panicked"), "{fault}: {}", output.describe());
            for name in ["a", "b.log", "dir/c", "dir/sub/d"] {
                let (ours, theirs) =
                    (fs::read(temp.join("src").join(name)).unwrap(), fs::read(temp.join("dst").join(name)));
                let whole = theirs.is_err() || theirs.is_ok_and(|theirs| theirs == ours || theirs == b"older");
                assert!(whole, "{fault}: {name} is a mixture\n{}", output.describe());
            }
            if output.code() == 0 {
                Judge::strict().assert(&temp.join("src"), &temp.join("dst"));
            }
            assert_eq!(leftovers(&temp.join("dst")), Vec::<PathBuf>::new(), "{fault}: {}", output.describe());
        }
        assert!(fired > 0, "{inject} never fired");
    }
}

/// Every write at the destination fails in turn, too.
#[test]
fn whichever_write_fails_nothing_wrong_comes_of_it() {
    if is_rsync() {
        return;
    }
    for inject in [
        "write,pwrite64,copy_file_range:error=EIO",
        "renameat,renameat2,rename:error=EIO",
        "linkat:error=EIO",
        "fchmod,fchmodat:error=EPERM",
        "utimensat:error=EIO",
        "fchown,fchownat:error=EPERM",
        "unlinkat:error=EBUSY",
        "mkdirat:error=EIO",
        "ftruncate,fallocate:error=EIO",
    ] {
        let mut fired = 0;
        for when in [1, 2, 3, 5] {
            let temp = Temp::new();
            both(temp.path());
            let fault = format!("{inject}:when={when}");
            let (output, log) = traced(
                sync(["-aH", "--delete", "src/", "dst"]).dir(temp.path()),
                &Faults { inject: &[&fault], path: None },
            );
            fired += usize::from(log.contains("INJECTED"));
            assert!(!output.err().contains("panicked"), "{fault}: {}", output.describe());
            for name in ["a", "b.log", "dir/c", "dir/sub/d"] {
                let (ours, theirs) =
                    (fs::read(temp.join("src").join(name)).unwrap(), fs::read(temp.join("dst").join(name)));
                let whole = theirs.is_err() || theirs.is_ok_and(|theirs| theirs == ours || theirs == b"older");
                assert!(whole, "{fault}: {name} is a mixture\n{}", output.describe());
            }
            if log.contains("INJECTED") && output.code() == 0 {
                // A fallback took over: then the result must be whole.
                Judge::strict().assert(&temp.join("src"), &temp.join("dst"));
            }
            // The next run heals everything.
            sync(["-aH", "--delete", "src/", "dst"]).dir(temp.path()).expect(0);
            Judge::strict().assert(&temp.join("src"), &temp.join("dst"));
        }
        // Of these, a copy may well make none: then there is nothing that could fail.
        let optional = ["linkat", "fchmod", "fchown", "ftruncate"].iter().any(|call| inject.starts_with(call));
        assert!(fired > 0 || optional, "{inject} never fired");
    }
}

/// As on kernels that lack them.
#[test]
fn hosts_without_newer_system_calls() {
    for (inject, needed) in [
        (&["openat2:error=ENOSYS"][..], true),
        (&["statx:error=ENOSYS"], true),
        (&["renameat2:error=ENOSYS"], false),
        (&["copy_file_range:error=ENOSYS"], true),
        (&["openat2:error=ENOSYS", "statx:error=ENOSYS", "renameat2:error=ENOSYS"], false),
    ] {
        if is_rsync() {
            return;
        }
        let temp = Temp::new();
        both(temp.path());
        support::tree::random(&temp.join("src/random"), 4711, support::tree::Size::SMALL);
        let shell = FakeShell::new();
        for far in [false, true] {
            let call = sync(["-aHAX", "--delete"]).dir(temp.path());
            let call = if far {
                // Without lanes: that a host of this name cannot be reached directly would be told.
                call.args(shell.args()).args([
                    "--transport=shell".into(),
                    "src/".into(),
                    at("host", &temp.join("dst-far")),
                ])
            } else {
                call.args(["src/", "dst"])
            };
            let faults = Faults { inject, path: None };
            let output = if needed && !far { with_faults(call, &faults) } else { traced(call, &faults).0 };
            let output = output.expect(0);
            assert!(output.stderr.is_empty(), "{inject:?}: {}", output.describe());
            Judge::strict().assert(&temp.join("src"), &temp.join(if far { "dst-far" } else { "dst" }));
        }
    }
}

#[test]
fn vanished_files_are_no_failure_of_the_rest() {
    // Listed, then gone when opened: every open of that name says so.
    let temp = Temp::new();
    both(temp.path());
    for number in 0..40 {
        put(temp.join(format!("src/v{number:02}")), "here for now", OLD);
    }
    let inject: &[&str] = &["openat,openat2:error=ENOENT"];
    let call = sync(["-a", "--delete", "--no-whole-file", "src/", "dst"]).dir(temp.path());
    let output = with_faults(call, &Faults { inject, path: Some(temp.join("src/v07")) }).expect(24);
    assert!(output.err().contains("v07") && !there(temp.join("dst/v07")), "{}", output.describe());
    assert!(!there(temp.join("dst/extra")), "vanished files do not stop deletion\n{}", output.describe());
    assert_eq!(get(temp.join("dst/v39")), b"here for now");
}

#[test]
fn files_that_vanish_under_a_slow_copy() {
    let temp = Temp::new();
    put(temp.join("dst/extra"), "x", OLD);
    fixture::big_file(&temp.join("src/0big"), 12 << 20, 3);
    for number in 0..2000 {
        put(temp.join(format!("src/d/v{number:04}")), vec![b'x'; 3000], OLD);
    }
    let mut running = sync(["-aW", "--delete", "--bwlimit=4M", "src/", "dst"]).dir(temp.path()).spawn();
    running.until("a beginning", || there(temp.join("dst")) && walk(&temp.join("dst")).len() > 1);
    std::thread::sleep(Duration::from_millis(400));
    for number in 0..2000 {
        let _ = fs::remove_file(temp.join(format!("src/d/v{number:04}")));
    }
    let output = running.wait().expect(24);
    assert!(!there(temp.join("dst/extra")), "vanished files do not stop deletion\n{}", output.describe());
    assert_eq!(get(temp.join("dst/0big")), get(temp.join("src/0big")));
}

/// A file that somebody writes without pause. Every record holds one number all over, so that a torn copy shows.
struct Writer {
    stop: Arc<AtomicBool>,
    rounds: Arc<AtomicU64>,
    thread: Option<std::thread::JoinHandle<()>>,
}

const TORN_FILE_BYTES: usize = 24 << 20;

impl Writer {
    fn start(path: &Path) -> Writer {
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, vec![0; TORN_FILE_BYTES]).unwrap();
        let file = fs::OpenOptions::new().write(true).open(path).unwrap();
        let (stop, rounds) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let (stopped, counted) = (stop.clone(), rounds.clone());
        let thread = std::thread::spawn(move || {
            let mut round = 0u8;
            while !stopped.load(Ordering::Relaxed) {
                round = round.wrapping_add(1);
                for piece in 0..TORN_FILE_BYTES / (64 << 10) {
                    file.write_at(&[round; 64 << 10], (piece * (64 << 10)) as u64).unwrap();
                    if piece % 16 == 0 && stopped.load(Ordering::Relaxed) {
                        break;
                    }
                    std::thread::sleep(Duration::from_micros(30));
                }
                counted.fetch_add(1, Ordering::Relaxed);
            }
        });
        Writer { stop, rounds, thread: Some(thread) }
    }

    fn stop(mut self) {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.take().unwrap().join().unwrap();
        assert!(self.rounds.load(Ordering::Relaxed) > 0, "the writer never wrote");
    }
}

/// The cold pass: a file that something still writes is told, its old copy stays, and deletion does not happen.
#[test]
fn a_file_in_writing_is_never_committed_torn() {
    if only_xfer("no torn copies") {
        return;
    }
    let shell = FakeShell::new();
    for far in [false, true] {
        let temp = Temp::new();
        put(temp.join("dst/db"), "the old one", OLD);
        put(temp.join("dst/extra"), "x", OLD);
        put(temp.join("src/other"), "other", OLD);
        let writer = Writer::start(&temp.join("src/db"));
        let call = |flags: &[&str]| {
            let call = sync(flags).dir(temp.path());
            if far {
                call.args(shell.args()).args(["src/".into(), at("host", &temp.join("dst"))])
            } else {
                call.args(["src/", "dst"])
            }
        };
        let output = call(&["-a", "--delete"]).run().expect(23);
        assert_eq!(get(temp.join("dst/db")), b"the old one", "{}", output.describe());
        assert!(output.err().contains("db"), "{}", output.describe());
        assert!(there(temp.join("dst/extra")), "{}", output.describe());
        assert_eq!(get(temp.join("dst/other")), b"other");
        // The warm pass: taken as it is read, whole in length, and looked at again by the next.
        let output = call(&["-av", "--delete", "--live"]).run().expect(0);
        assert_eq!(fs::metadata(temp.join("dst/db")).unwrap().len(), TORN_FILE_BYTES as u64);
        assert!(output.out().contains("db") && !there(temp.join("dst/extra")), "{}", output.describe());
        writer.stop();
        // The writer has ended: whatever the copy held, the next pass makes it right.
        call(&["-a", "--delete"]).run().expect(0);
        Judge::strict().assert(&temp.join("src"), &temp.join("dst"));
        assert_eq!(leftovers(&temp.join("dst")), Vec::<PathBuf>::new());
    }
}

/// A file that shrinks or grows under the copy.
#[test]
fn a_file_that_changes_its_length_converges() {
    let temp = Temp::new();
    fixture::big_file(&temp.join("src/log"), 30 << 20, 1);
    let path = temp.join("src/log");
    let mut running = sync(["-aW", "--bwlimit=30M", "src/", "dst"]).dir(temp.path()).spawn();
    running.until("a beginning", || there(temp.join("dst")));
    std::thread::sleep(Duration::from_millis(150));
    let mut file = fs::OpenOptions::new().write(true).open(&path).unwrap();
    file.set_len(10 << 20).unwrap();
    file.seek(std::io::SeekFrom::End(0)).unwrap();
    file.write_all(b"a new beginning").unwrap();
    let output = running.wait();
    assert!([0, 23].contains(&output.code()), "{}", output.describe());
    sync(["-a", "src/", "dst"]).dir(temp.path()).expect(0);
    assert!(get(&path) == get(temp.join("dst/log")));
}

/// A tree whose copy takes a while, with old versions of two files at the destination.
fn slow_copy(temp: &Temp) {
    fixture::big_file(&temp.join("src/big"), 40 << 20, 1);
    fixture::big_file(&temp.join("src/sub/new"), 20 << 20, 2);
    fixture::many_files(&temp.join("src/many"), 2000);
    put(temp.join("dst/big"), "the old one", OLD);
    put(temp.join("dst/many/d00000/f0000001"), "old", OLD);
}

fn old_or_new(temp: &Temp) {
    let big = get(temp.join("dst/big"));
    assert!(big == b"the old one" || big == get(temp.join("src/big")), "big is a mixture of {} bytes", big.len());
    for path in walk(&temp.join("dst")) {
        let (ours, theirs) = (temp.join("src").join(&path), temp.join("dst").join(&path));
        let hidden = path.iter().any(|part| part.as_encoded_bytes().starts_with(b"."));
        if theirs.is_file() && ours.is_file() && !hidden && path != Path::new("big") {
            let content = get(&theirs);
            assert!(content == get(&ours) || content == b"old", "{path:?} is a mixture");
        }
    }
}

#[test]
fn a_signal_leaves_old_files_and_no_temporary_ones_at_either_end() {
    let shell = FakeShell::new();
    for signal in [Signal::TERM, Signal::INT] {
        for way in ["local", "push", "pull"] {
            let temp = Temp::new();
            slow_copy(&temp);
            let call = sync(["-aW", "--bwlimit=15M"]).dir(temp.path());
            let far = |tail: &str| at("host", Path::new(&format!("{}/{tail}", temp.path().display())));
            let call = match way {
                "local" => call.args(["src/", "dst"]),
                "push" => call.args(shell.args()).args(["src/".into(), far("dst")]),
                _ => call.args(shell.args()).args([far("src/"), "dst".into()]),
            };
            // Whoever started the tests in the background may have left them deaf to SIGINT, which is inherited.
            let mut running = call.under(["env", "--default-signal=INT,TERM"]).spawn();
            running
                .until("a beginning", || walk(&temp.join("dst")).len() > 3 || leftovers(&temp.join("dst")).len() > 1);
            std::thread::sleep(Duration::from_millis(300));
            assert!(!running.ended(), "the copy was too quick to be stopped");
            running.signal(signal);
            let output = running.wait();
            if !is_rsync() {
                assert_eq!(output.code(), 130, "{way}: {}", output.describe());
            }
            old_or_new(&temp);
            assert!(!there(temp.join("dst/sub/new")), "{way}");
            if !only_xfer("no temporary files by the time it returns") {
                assert_eq!(leftovers(&temp.join("dst")), Vec::<PathBuf>::new(), "{way} {}", output.describe());
            }
            sync(["-a", "--delete", "src/", "dst"]).dir(temp.path()).expect(0);
            Judge::strict().assert(&temp.join("src"), &temp.join("dst"));
        }
    }
}

#[test]
fn a_kill_leaves_old_or_new_files_and_the_next_run_sweeps() {
    for pause_ms in [20, 100, 300, 700] {
        let temp = Temp::new();
        slow_copy(&temp);
        let mut running = sync(["-aW", "--bwlimit=20M", "src/", "dst"]).dir(temp.path()).spawn();
        std::thread::sleep(Duration::from_millis(pause_ms));
        assert!(!running.ended());
        running.signal(Signal::KILL);
        running.wait();
        old_or_new(&temp);
        if is_rsync() {
            continue;
        }
        // Without --delete: what a dead run left is swept all the same.
        sync(["-a", "src/", "dst"]).dir(temp.path()).expect(0);
        Judge::strict().assert(&temp.join("src"), &temp.join("dst"));
    }
}

#[test]
fn parts_are_kept_and_gone_on_from() {
    for flags in [&["--partial"][..], &["--partial-dir=.parts"]] {
        let temp = Temp::new();
        fixture::big_file(&temp.join("src/big"), 40 << 20, 1);
        put(temp.join("dst/big"), "the old one", OLD);
        let shell = FakeShell::new();
        let far = at("host", &temp.join("dst"));
        let call = sync(["-a", "--bwlimit=10M"]).args(flags).args(shell.args()).dir(temp.path());
        let running = call.args(["src/".into(), far.clone()]).spawn();
        std::thread::sleep(Duration::from_millis(1800));
        running.signal(Signal::TERM);
        let output = running.wait();
        assert!(output.code() != 0, "{}", output.describe());
        if !only_xfer("--partial leaves the old file") {
            assert_eq!(get(temp.join("dst/big")), b"the old one", "{}", output.describe());
        }
        let kept: u64 = walk(&temp.join("dst"))
            .iter()
            .filter(|path| *path != Path::new("big") || is_rsync())
            .filter_map(|path| fs::metadata(temp.join("dst").join(path)).ok())
            .filter(|metadata| metadata.is_file())
            .map(|metadata| metadata.len())
            .sum();
        assert!(kept > 4 << 20, "{flags:?} kept {kept} bytes");
        let output = sync(["-a", "--stats"])
            .args(flags)
            .args(shell.args())
            .dir(temp.path())
            .args(["src/".into(), far])
            .expect(0);
        assert!(get(temp.join("src/big")) == get(temp.join("dst/big")));
        let literal: u64 = output
            .out()
            .lines()
            .find_map(|line| line.strip_prefix("Literal data: "))
            .map(|text| text.chars().filter(char::is_ascii_digit).collect::<String>().parse().unwrap())
            .unwrap();
        assert!(literal < 38 << 20, "{literal} bytes were sent again");
        let left: Vec<_> = walk(&temp.join("dst")).into_iter().filter(|path| path != Path::new("big")).collect();
        assert_eq!(left, Vec::<PathBuf>::new(), "parts are gone once the file is whole");
    }
}

#[test]
fn a_full_disk_ends_cleanly() {
    for far in [false, true] {
        let temp = Temp::new();
        put(temp.join("src/a/small"), "small", OLD);
        fixture::big_file(&temp.join("src/z/huge"), 12 << 20, 1);
        let mounted = Mounted::tmpfs(&temp.join("small"), "size=4m");
        let dst = mounted.path().join("dst");
        put(dst.join("z/huge"), "the old one", OLD);
        put(dst.join("extra"), "x", OLD);
        let shell = FakeShell::new();
        let call = sync(["-a", "--delete"]).dir(temp.path());
        let output = if far {
            call.args(shell.args()).args(["src/".into(), at("host", &dst)]).run()
        } else {
            call.args(["src/".as_ref(), dst.as_os_str()]).run()
        };
        assert!(output.code() != 0, "{}", output.describe());
        assert_eq!(get(dst.join("z/huge")), b"the old one", "{}", output.describe());
        if only_xfer("no deletion, what is missing is told, what is complete stays") {
            continue;
        }
        assert!(there(dst.join("extra")), "{}", output.describe());
        assert_eq!(leftovers(&dst), Vec::<PathBuf>::new());
        let err = output.err();
        assert!(err.contains(&mounted.path().display().to_string()), "names the file system\n{}", output.describe());
        assert!(
            err.to_lowercase().contains("space") && err.chars().any(|c| c.is_ascii_digit()),
            "{}",
            output.describe()
        );
        assert!(!err.contains("panicked"));
    }
}

/// No room for names, though room for bytes.
#[test]
fn a_disk_without_inodes_ends_cleanly() {
    let temp = Temp::new();
    fixture::many_files(&temp.join("src"), 500);
    let mounted = Mounted::tmpfs(&temp.join("small"), "size=16m,nr_inodes=100");
    let dst = mounted.path().join("dst");
    let output = sync(["-a", "src/"]).args([&dst]).dir(temp.path()).run();
    assert!(output.code() != 0 && !output.stderr.is_empty(), "{}", output.describe());
    assert_eq!(leftovers(mounted.path()), Vec::<PathBuf>::new(), "{}", output.describe());
    for path in walk(&dst).iter().filter(|path| dst.join(path).is_file()) {
        assert_eq!(get(dst.join(path)), get(temp.join("src").join(path)));
    }
}

#[test]
fn a_second_run_into_the_same_destination_ends_at_once() {
    if only_xfer("one run at a time") {
        return;
    }
    let shell = FakeShell::new();
    let temp = Temp::new();
    fixture::big_file(&temp.join("src/big"), 30 << 20, 1);
    put(temp.join("other/x"), "x", OLD);
    fs::create_dir(temp.join("dst")).unwrap();
    let first = sync(["-aW", "--bwlimit=5M", "src/", "dst"]).dir(temp.path()).spawn();
    std::thread::sleep(Duration::from_millis(700));
    let id = first.pid().to_string();
    for far in [false, true] {
        let call = sync(["-a"]).dir(temp.path()).limit(Duration::from_secs(10));
        let output = if far {
            call.args(shell.args()).args(["other/".into(), at("host", &temp.join("dst"))]).run()
        } else {
            call.args(["other/", "dst"]).run()
        };
        assert!(output.code() != 0 && output.elapsed < Duration::from_secs(5), "{}", output.describe());
        assert!(output.err().contains(&id), "the first run, {id}, should be named\n{}", output.describe());
        assert!(!there(temp.join("dst/x")));
    }
    // Another destination is not concerned, nor is reading from this one.
    sync(["-a", "other/", "dst2"]).dir(temp.path()).expect(0);
    sync(["-an", "dst/", "dst3"]).dir(temp.path()).expect(0);
    first.signal(Signal::TERM);
    first.wait();
    // The lock is gone with its holder, and leaves no file.
    sync(["-a", "other/", "dst"]).dir(temp.path()).expect(0);
    assert_eq!(walk(&temp.join("dst")), [PathBuf::from("x")]);
}

/// Runs of single files into one directory do not stand in each other's way.
#[test]
fn single_files_lock_only_their_name() {
    let temp = Temp::new();
    for name in ["one", "two", "three"] {
        fixture::big_file(&temp.join("src").join(name), 6 << 20, 1);
    }
    fs::create_dir(temp.join("dst")).unwrap();
    let runs: Vec<_> = ["one", "two", "three"]
        .map(|name| {
            sync(["-aW", "--bwlimit=6M", &format!("src/{name}"), &format!("dst/{name}")]).dir(temp.path()).spawn()
        })
        .into_iter()
        .collect();
    for run in runs {
        run.wait().expect(0);
    }
    assert_eq!(walk(&temp.join("dst")).len(), 3);
}

#[test]
fn dangling_links_and_loops_when_links_are_followed() {
    let temp = Temp::new();
    source(temp.path());
    put(temp.join("dst/extra"), "x", OLD);
    symlink("nowhere", temp.join("src/dir/dangling")).unwrap();
    let output = sync(["-aL", "--delete", "src/", "dst"]).dir(temp.path()).run().expect(23);
    assert!(output.err().contains("dir/dangling"), "{}", output.describe());
    assert!(there(temp.join("dst/dir/sub/d")), "{}", output.describe());
    assert!(only_xfer("no deletion at all") || there(temp.join("dst/extra")), "{}", output.describe());
    fs::remove_file(temp.join("src/dir/dangling")).unwrap();
    if only_xfer("loops are found") {
        return;
    }
    // A link to a directory above: named once, copied at most once.
    symlink("..", temp.join("src/dir/sub/up")).unwrap();
    let output = sync(["-aL", "--delete", "src/", "dst"]).dir(temp.path()).run().expect(23);
    assert_eq!(
        output.err().lines().filter(|line| line.contains("dir/sub/up") && line.contains("cannot")).count().max(1),
        1
    );
    assert!(output.err().contains("dir/sub/up"), "{}", output.describe());
    assert!(!there(temp.join("dst/dir/sub/up/sub/up/sub")), "{}", output.describe());
    assert!(there(temp.join("dst/extra")));
    // Two that point at each other.
    fs::remove_file(temp.join("src/dir/sub/up")).unwrap();
    symlink("two", temp.join("src/one")).unwrap();
    symlink("one", temp.join("src/two")).unwrap();
    let output = sync(["-aL", "--delete", "src/", "dst"]).dir(temp.path()).run().expect(23);
    assert!(output.err().contains("one") && output.err().contains("two"), "{}", output.describe());
}

/// A destination that cannot be written: told, code other than 0, the source untouched.
#[test]
fn unwritable_destinations_are_told() {
    let temp = Temp::new();
    of_nobody(&temp);
    lchown(temp.join("dst"), Some(0), Some(0)).unwrap();
    chmod(&temp.join("dst"), 0o755);
    let output = as_nobody(sync(["-a", "src/", "dst"]).dir(temp.path()), &temp).run().expect(23);
    assert!(output.err().contains("denied") || output.err().contains("permitted"), "{}", output.describe());
    // With --remove-source-files, what did not arrive stays.
    let output =
        as_nobody(sync(["-a", "--remove-source-files", "src/", "dst"]).dir(temp.path()), &temp).run().expect(23);
    assert!(there(temp.join("src/b.log")), "{}", output.describe());
}

/// An immutable file in the way is a problem of that file alone.
#[test]
fn an_immutable_file_is_a_problem_of_its_own() {
    need_root("sets the immutable attribute");
    support::need("chattr", "e2fsprogs");
    let temp = Temp::new();
    both(temp.path());
    let chattr = |flag: &str| Call::new("chattr").args([flag]).args([temp.join("dst/a")]).run().code();
    assert_eq!(chattr("+i"), 0, "this test needs a temporary directory whose file system knows chattr +i");
    let output = sync(["-a", "--delete", "src/", "dst"]).dir(temp.path()).run();
    chattr("-i");
    assert_eq!(output.code(), 23, "{}", output.describe());
    assert!(output.err().contains('a') && there(temp.join("dst/b.log")), "{}", output.describe());
    assert_eq!(get(temp.join("dst/a")), b"older");
    assert_eq!(leftovers(&temp.join("dst")), Vec::<PathBuf>::new());
}

/// A destination directory swapped for a link in the middle of the run: nothing outside is ever touched.
#[test]
fn a_link_swapped_in_never_leads_outside() {
    let temp = Temp::new();
    for number in 0..400 {
        put(temp.join(format!("src/dir/f{number}")), "payload", OLD);
    }
    fs::create_dir_all(temp.join("dst/dir")).unwrap();
    fs::create_dir(temp.join("outside")).unwrap();
    let stop = Arc::new(AtomicBool::new(false));
    let flips = {
        let (stop, root) = (stop.clone(), temp.path().to_path_buf());
        std::thread::spawn(move || {
            let mut flips = 0;
            symlink("../outside", root.join("trap")).unwrap();
            while !stop.load(Ordering::Relaxed) {
                let flags = rustix::fs::RenameFlags::EXCHANGE;
                if rustix::fs::renameat_with(
                    rustix::fs::CWD,
                    root.join("trap"),
                    rustix::fs::CWD,
                    root.join("dst/dir"),
                    flags,
                )
                .is_ok()
                {
                    flips += 1;
                }
                std::thread::sleep(Duration::from_micros(300));
            }
            flips
        })
    };
    for _ in 0..15 {
        let output = sync(["-a", "-I", "--delete", "src/", "dst"]).dir(temp.path()).run();
        assert!(!output.err().contains("panicked"), "{}", output.describe());
    }
    stop.store(true, Ordering::Relaxed);
    assert!(flips.join().unwrap() > 20, "the link was never swapped in");
    if !only_xfer("confinement against races") {
        assert_eq!(walk(&temp.join("outside")), Vec::<PathBuf>::new());
    }
}

/// Few descriptors: slower, never wrong.
#[test]
fn few_file_descriptors_are_enough() {
    support::need("prlimit", "util-linux");
    let temp = Temp::new();
    fixture::many_files(&temp.join("src"), 3000);
    for number in 0..200 {
        put(temp.join(format!("src/w{number}/x/y/z")), "z", OLD);
    }
    sync(["-a", "src/", "dst"]).dir(temp.path()).under(["prlimit", "--nofile=48:48"]).expect(0);
    Judge { root: false, ..Judge::strict() }.assert(&temp.join("src"), &temp.join("dst"));
}

/// A stop of the client must not wait for a far end that hangs.
#[test]
fn a_stop_does_not_wait_for_a_far_end_that_hangs() {
    let temp = Temp::new();
    source(temp.path());
    let shell = FakeShell::running("exec sleep 50");
    let call = sync(["-a"]).args(shell.args()).args(["src/".into(), at("host", &temp.join("dst"))]);
    let running = call.dir(temp.path()).limit(Duration::from_secs(20)).spawn();
    std::thread::sleep(Duration::from_millis(500));
    let id = running.pid();
    running.signal(Signal::TERM);
    let output = running.wait();
    assert!(output.code() != 0 && output.elapsed < Duration::from_secs(12), "{}", output.describe());
    signal_process(id, Signal::KILL);
}
