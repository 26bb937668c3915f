//! Ways in which data was once lost or a run once hung: each stays a case.
#![allow(clippy::unwrap_used, reason = "tests")]
#![allow(clippy::disallowed_methods, reason = "tests stand outside the rooms")]

mod support;

use std::os::unix::fs::symlink;
use std::time::Duration;

use support::disk::{chmod, get, leftovers, put, there};
use support::fixture::{self, OLD, source};
use support::mount::Mounted;
use support::run::{as_nobody, sync};
use support::ssh::{FakeShell, at};
use support::strace::{Faults, traced};
use support::{Temp, need_root};

/// What waits for a directory to give way is not at the destination yet: its source stays.
#[test]
fn a_source_is_not_removed_for_what_is_only_staged() {
    let temp = Temp::new();
    put(temp.join("src/x"), "the only copy", OLD);
    put(temp.join("dst/x/kept"), "kept", OLD);
    let args = ["-a", "--delete", "--max-delete=0", "--remove-source-files", "src/", "dst/"];
    let output = sync(args).dir(temp.path()).run();
    assert_ne!(output.code(), 0, "{}", output.describe());
    assert_eq!(get(temp.join("src/x")), b"the only copy", "{}", output.describe());
    assert_eq!(get(temp.join("dst/x/kept")), b"kept");
    assert!(leftovers(&temp.join("dst")).is_empty());
    // Once it may, it takes the directory's place, and a second run removes the source.
    sync(["-a", "--delete", "src/", "dst/"]).dir(temp.path()).expect(0);
    sync(["-a", "--remove-source-files", "src/", "dst/"]).dir(temp.path()).expect(0);
    assert_eq!(get(temp.join("dst/x")), b"the only copy");
    assert!(!there(temp.join("src/x")));
}

/// `-x` keeps deletion on one file system too.
#[test]
fn deletion_stays_out_of_mounts_under_x() {
    need_root("mounts a tmpfs");
    let temp = Temp::new();
    put(temp.join("src/a"), "a", OLD);
    put(temp.join("dst/extra"), "x", OLD);
    std::fs::create_dir_all(temp.join("dst/mounted")).unwrap();
    let _mounted = Mounted::tmpfs(&temp.join("dst/mounted"), "size=1m");
    put(temp.join("dst/mounted/precious"), "precious", OLD);
    sync(["-ax", "--delete", "src/", "dst/"]).dir(temp.path()).expect(0);
    assert_eq!(get(temp.join("dst/mounted/precious")), b"precious");
    assert!(!there(temp.join("dst/extra")));
}

/// Source and destination in one place: nothing is removed, whatever the two are called.
#[test]
fn a_source_that_is_its_own_destination_is_not_removed() {
    let shell = FakeShell::new();
    for remote in [false, true] {
        for (source, destination) in [("x/", "x/"), ("x/", "link"), ("x/a", "x/")] {
            let temp = Temp::new();
            put(temp.join("x/a"), "the only copy", OLD);
            symlink("x", temp.join("link")).unwrap();
            let call = sync(["-a", "--remove-source-files"]).dir(temp.path()).args([source]);
            let output = match remote {
                true => call.args(shell.args()).args([at("host", &temp.join(destination))]).run(),
                false => call.args([destination]).run(),
            };
            assert_ne!(output.code(), 0, "{source} {destination}: {}", output.describe());
            assert_eq!(get(temp.join("x/a")), b"the only copy", "{source} {destination}");
        }
    }
}

/// A backup beside its file may have the name of a file of the source: that one wins.
#[test]
fn backups_do_not_take_the_place_of_what_was_transferred() {
    let temp = Temp::new();
    for number in 0..6 {
        fixture::big_file(&temp.join(format!("src/f{number}")), 3_000_000, number);
        put(temp.join(format!("src/f{number}~")), format!("new tilde {number}"), OLD + 5);
        put(temp.join(format!("dst/f{number}")), format!("old {number}"), OLD);
        put(temp.join(format!("dst/f{number}~")), format!("old tilde {number}"), OLD);
    }
    sync(["-a", "-b", "src/", "dst/"]).dir(temp.path()).expect(0);
    for number in 0..6 {
        for name in [format!("f{number}"), format!("f{number}~")] {
            assert!(get(temp.join("src").join(&name)) == get(temp.join("dst").join(&name)), "{name}");
        }
    }
}

/// Without root's powers a read-only directory is widened while it is worked on, and only then.
#[test]
fn read_only_directories_keep_their_modes() {
    need_root("gives files away");
    let temp = Temp::new();
    put(temp.join("src/ro/a"), "a", OLD);
    std::fs::create_dir(temp.join("dst")).unwrap();
    for path in ["src", "src/ro", "src/ro/a", "dst"] {
        std::os::unix::fs::chown(temp.join(path), Some(65534), Some(65534)).unwrap();
    }
    chmod(&temp.join("src/ro"), 0o555);
    for _ in 0..3 {
        as_nobody(sync(["-a", "src/", "dst"]).dir(temp.path()), &temp).expect(0);
        assert_eq!(support::disk::mode(&temp.join("dst/ro")) & 0o7777, 0o555);
    }
}

/// A system without threads to spare ends the run with a word, not with a wait.
#[test]
fn a_thread_that_cannot_be_started_ends_the_run() {
    let temp = Temp::new();
    source(temp.path());
    for nth in [1, 2, 4, 6] {
        let inject = format!("clone3:error=EAGAIN:when={nth}+");
        let call = sync(["-a", "src/", "dst"]).dir(temp.path()).limit(Duration::from_secs(15));
        let (output, _) = traced(call, &Faults { inject: &[inject.as_str()], path: None });
        assert!(output.code() != 0 || there(temp.join("dst/a")), "{}", output.describe());
    }
}
