//! Two machines over a remote shell: how it is called, what survives it, and what is said when something is wrong.
#![allow(clippy::unwrap_used, reason = "tests")]
#![allow(clippy::disallowed_methods, reason = "tests stand outside the rooms")]

mod support;

use std::ffi::{OsStr, OsString};
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::time::Duration;

use rustix::process::Signal;

use support::disk::{chmod, get, leftovers, put, there};
use support::fixture::{self, OLD};
use support::judge::Judge;
use support::run::{binary, family, is_rsync, only_xfer, rsync, signal_process, sync};
use support::ssh::{FakeShell, Sshd, at};
use support::tree::{self, Size};
use support::{Temp, need_root};

#[test]
fn push_and_pull_through_a_shell() {
    need_root("owners and devices");
    let temp = Temp::new();
    tree::random(&temp.join("src"), 42, Size { entries: 200, beyond_rsync: !is_rsync(), ..Size::SMALL });
    let shell = FakeShell::new();
    let flags = ["-aHAX", "--numeric-ids", "--delete"];
    for pass in 0..2 {
        sync(flags)
            .args(shell.args())
            .dir(temp.path())
            .args(["src/".into(), at("host", &temp.join("pushed"))])
            .expect(0);
        Judge::strict().assert(&temp.join("src"), &temp.join("pushed"));
        let far = at("user@host", Path::new(&format!("{}/pushed/", temp.path().display())));
        sync(flags).args(shell.args()).dir(temp.path()).args([far, "pulled".into()]).expect(0);
        Judge::strict().assert(&temp.join("src"), &temp.join("pulled"));
        tree::mutate(&temp.join("src"), 43 + pass, Size { beyond_rsync: !is_rsync(), ..Size::SMALL });
    }
}

#[test]
fn push_and_pull_through_sshd() {
    need_root("owners and devices");
    let temp = Temp::new();
    tree::random(&temp.join("src"), 44, Size { entries: 200, beyond_rsync: !is_rsync(), ..Size::SMALL });
    fixture::big_file(&temp.join("src/a big one"), 20 << 20, 5);
    let sshd = Sshd::start();
    for extra in [&["-z"][..], &["--no-W"], &["--inplace"], &["--partial", "--timeout=30", "--contimeout=20"]] {
        let flags = if is_rsync() { &extra[..1] } else { extra };
        sync(["-aHAX", "--numeric-ids", "--delete"])
            .args(flags)
            .args(sshd.args())
            .dir(temp.path())
            .args(["src/".into(), at("there", &temp.join("pushed"))])
            .expect(0);
        Judge::strict().assert(&temp.join("src"), &temp.join("pushed"));
        let far = at("there", Path::new(&format!("{}/pushed/", temp.path().display())));
        sync(["-aHAX", "--numeric-ids", "--delete"])
            .args(flags)
            .args(sshd.args())
            .dir(temp.path())
            .args([far, "pulled".into()])
            .expect(0);
        Judge::strict().assert(&temp.join("src"), &temp.join("pulled"));
        tree::mutate(&temp.join("src"), 99, Size { beyond_rsync: !is_rsync(), ..Size::SMALL });
        fixture::big_file(&temp.join("src/a big one"), 20 << 20, 6);
    }
}

/// Addresses relative to the far home directory, a single far file, several far sources.
#[test]
fn addresses() {
    let temp = Temp::new();
    fixture::source(temp.path());
    let shell = FakeShell::new();
    let far = |tail: &str| at("host", &temp.join(tail));
    sync(["-a"]).args(shell.args()).args([far("src/a"), temp.join("renamed").into()]).expect(0);
    assert_eq!(get(temp.join("renamed")), b"content of a");
    sync(["-a"]).args(shell.args()).args([temp.join("src/b.log").into(), far("sent")]).expect(0);
    assert_eq!(get(temp.join("sent")), b"log");
    // Several sources of one host, the short form of the later ones too.
    let mut short = OsString::from(":");
    short.push(temp.join("src/dir"));
    fs::create_dir(temp.join("several")).unwrap();
    sync(["-a"])
        .args(shell.args())
        .args([far("src/a"), far("src/b.log"), short, temp.join("several").into()])
        .expect(0);
    assert!(
        there(temp.join("several/a")) && there(temp.join("several/b.log")) && there(temp.join("several/dir/sub/d"))
    );
    // Relative to the directory where the shell lands.
    sync(["-a"]).args(shell.args()).dir(temp.path()).args(["host:src/dir/", "relative"]).expect(0);
    assert!(there(temp.join("relative/sub/d")));
    let two = sync(["-a"]).args(shell.args()).dir(temp.path());
    two.args(["one:src/dir/".to_owned(), format!("two:{}", temp.join("between").display())]).expect(0);
    assert!(there(temp.join("between/sub/d")), "both sides are remote");
    assert_ne!(sync(["-a"]).args(shell.args()).args(["one:x", "two:y", "/tmp/none"]).run().code(), 0);
    // Listing.
    let listed = sync(["-r"]).args(shell.args()).args([far("src/")]).expect(0).out();
    assert!(listed.contains("dir/sub/d"), "{listed}");
    sync(["-a"]).args(shell.args()).args([far("none/"), temp.join("dst").into()]).run().expect(23).says(&["none"]);
}

#[test]
fn names_survive_the_shell() {
    let odd: &[&[u8]] = &[
        b"a b",
        b"q'u\"o",
        b"new\nline",
        b"\xff\xfe",
        b"$HOME `id` $(id)",
        b"*",
        b"a;b&c|d",
        b"~root",
        b"-rf",
        b"back\\slash",
        b"tab\there",
        b"caf\xc3\xa9",
        b"[x]",
        b"{a,b}",
        b"!",
        b"#",
        b" lead",
        b"trail ",
        b"a:b",
    ];
    let shell = FakeShell::new();
    let sshd = Sshd::start();
    for (number, name) in odd.iter().enumerate() {
        let temp = Temp::new();
        let dir = temp.join(OsStr::from_bytes(name));
        put(dir.join("src").join(OsStr::from_bytes(name)), "x", OLD);
        let remote = if number % 4 == 0 { sshd.args() } else { shell.args() };
        let mut source = at("host", &dir.join("src"));
        source.push("/");
        sync(["-a", "-s"]).args(&remote).args([source, temp.join("pulled").into()]).expect(0);
        Judge::strict().assert(&dir.join("src"), &temp.join("pulled"));
        let mut pushed = dir.join("pushed").into_os_string();
        pushed.push("/");
        let backup = {
            let mut option = OsString::from("--exclude=/");
            option.push(OsStr::from_bytes(b"none \xff'\""));
            option
        };
        let mut source = dir.join("src").into_os_string();
        source.push("/");
        sync(["-a", "-s"]).args(&remote).args([backup, source, at("host", Path::new(&pushed))]).expect(0);
        Judge::strict().assert(&dir.join("src"), &dir.join("pushed"));
    }
}

/// The words up to the far program's path, which are what wrappers look at.
fn called(shell: &FakeShell, path_word: &OsStr) -> Vec<OsString> {
    let calls = shell.calls();
    assert_eq!(calls.len(), 1, "{calls:?}");
    let end = calls[0].iter().position(|word| word == path_word).unwrap_or_else(|| panic!("{:?}", calls[0]));
    calls[0][..=end].to_vec()
}

#[test]
fn the_shell_is_called_as_rsync_calls_it() {
    let far = "env FAR=1 /far/program";
    for (address, command_tail) in [
        ("host:x", ""),
        ("user@host:x", ""),
        ("host:x", " -p 22 -o 'A B'"),
        ("u@10.0.0.1:x", " -i \"a key\""),
        ("a@b@host:x", ""),
    ] {
        let mut seen = Vec::new();
        for theirs in [true, false] {
            let shell = FakeShell::running("exit 9");
            let command = format!("{}{command_tail}", shell.path().display());
            let args = ["-a", "-e", &command, "--rsync-path", far, address, "/tmp/xfer-test-none"];
            let output = if theirs { rsync(args).run() } else { sync(args).run() };
            assert!(output.code() != 0);
            seen.push(called(&shell, OsStr::new(far)));
            if !theirs && !is_rsync() {
                let calls = shell.calls();
                let rest: Vec<_> = calls[0][seen[1].len()..].to_vec();
                assert_eq!(rest, ["serve", "--stdio"]);
            }
        }
        assert_eq!(seen[0], seen[1], "{address} {command_tail}");
    }
}

#[test]
fn the_far_path_may_be_a_command() {
    let temp = Temp::new();
    fixture::source(temp.path());
    let shell = FakeShell::new();
    let far = format!("env FAR_SIDE=1 {}", binary().display());
    let option = if is_rsync() { "--rsync-path" } else { "--xfer-path" };
    sync(["-a", "-e"])
        .args([shell.path().as_os_str(), option.as_ref(), far.as_ref()])
        .args(["src/".into(), at("host", &temp.join("dst"))])
        .dir(temp.path())
        .expect(0);
    assert!(there(temp.join("dst/dir/sub/d")));
}

#[test]
fn a_far_side_without_the_program_is_told_with_a_remedy() {
    let temp = Temp::new();
    fixture::source(temp.path());
    let shell = FakeShell::new();
    let output = sync(["-a"])
        .args(shell.args_with(Path::new("/nowhere/xfer")))
        .args(["src/".into(), at("host", &temp.join("dst"))])
        .dir(temp.path())
        .run();
    assert!(output.code() != 0 && !there(temp.join("dst")), "{}", output.describe());
    if !only_xfer("a remedy") {
        output.says(&["--xfer-path", "host"]);
    }
}

#[test]
fn a_shell_that_fails_is_told() {
    let temp = Temp::new();
    fixture::source(temp.path());
    for body in ["exit 255", "echo 'Permission denied (publickey).' >&2; exit 255", "kill -9 $$"] {
        let shell = FakeShell::running(body);
        let output = sync(["-a"]).args(shell.args()).args(["src/", "host:/tmp/none"]).dir(temp.path()).run();
        assert!(output.code() != 0 && !output.stderr.is_empty(), "{}", output.describe());
        assert_eq!(
            output.err().contains("publickey"),
            body.contains("publickey"),
            "the shell's own words must reach the user"
        );
    }
    let output = sync(["-a", "-e", "/nowhere/shell", "src/", "host:/tmp/none"]).dir(temp.path()).run();
    assert!(output.code() != 0 && output.err().contains("/nowhere/shell"), "{}", output.describe());
}

#[test]
fn a_chatty_shell_is_named_as_such() {
    let temp = Temp::new();
    fixture::source(temp.path());
    let shell = FakeShell::running("echo 'Welcome to this machine, dear user'; exec sh -c \"$*\"");
    let output =
        sync(["-a"]).args(shell.args()).args(["src/".into(), at("host", &temp.join("dst"))]).dir(temp.path()).run();
    assert!(output.code() != 0 && !there(temp.join("dst/a")), "{}", output.describe());
    if !only_xfer("quoting the chatter") {
        output.says(&["Welcome to this machine"]);
    }
}

/// What a newer or older far end may say: both versions must be named, and nothing may hang.
#[test]
fn another_version_or_garbage_at_the_far_end_is_an_error() {
    if is_rsync() {
        return;
    }
    let temp = Temp::new();
    fixture::source(temp.path());
    for body in
        ["printf 'xfer'; sleep 1", "head -c 100000 /dev/urandom", "cat /dev/zero | head -c 100000", "cat", ":", "yes"]
    {
        let shell = FakeShell::running(body);
        let output = sync(["-a"])
            .args(shell.args())
            .args(["src/".into(), at("host", &temp.join("dst"))])
            .dir(temp.path())
            .limit(Duration::from_secs(30))
            .run();
        assert!(output.code() != 0 && !output.err().contains("panicked"), "{body}: {}", output.describe());
    }
}

/// One of both ends is killed in the middle: the other ends soon, says so, and leaves nothing half.
#[test]
fn a_far_end_that_dies_ends_the_run() {
    let temp = Temp::new();
    fixture::big_file(&temp.join("src/big"), 60 << 20, 1);
    fixture::many_files(&temp.join("src/many"), 3000);
    let shell = FakeShell::new();
    for push in [true, false] {
        let dst = temp.join(format!("dst-{push}"));
        put(dst.join("big"), "the old one", OLD);
        let call = sync(["-a", "--bwlimit=20M"]).args(shell.args()).dir(temp.path()).limit(Duration::from_secs(40));
        let mut running = if push {
            call.args(["src/".into(), at("host", &dst)]).spawn()
        } else {
            call.args([at("host", Path::new(&format!("{}/src/", temp.path().display()))), dst.clone().into()]).spawn()
        };
        let id = running.pid();
        let name = binary().file_name().unwrap().to_string_lossy().into_owned();
        let mut far = None;
        running.until("a far end", || {
            far = family(id).into_iter().find(|process| {
                process.id != id
                    && process.command.contains(&name)
                    && !process.command.contains("/bin/sh")
                    && !process.command.starts_with("sh ")
                    && !process.command.contains("shell")
            });
            far.is_some() && fs::read_dir(&dst).is_ok_and(|entries| entries.count() > 1)
        });
        signal_process(far.unwrap().id, Signal::KILL);
        let output = running.wait();
        assert!(output.code() != 0 && !output.stderr.is_empty(), "{}", output.describe());
        let big = get(dst.join("big"));
        assert!(big == b"the old one" || big == get(temp.join("src/big")));
        // And again, to the end: it converges and sweeps what the dead left.
        let call = sync(["-a", "--delete"]).args(shell.args()).dir(temp.path());
        call.args(["src/".into(), at("host", &dst)]).expect(0);
        Judge::strict().assert(&temp.join("src"), &dst);
    }
}

/// The near end is killed: the far end must not live on.
#[test]
fn a_near_end_that_dies_takes_the_far_end_along() {
    let temp = Temp::new();
    fixture::big_file(&temp.join("src/big"), 60 << 20, 1);
    let shell = FakeShell::new();
    let dst = temp.join("dst");
    fs::create_dir(&dst).unwrap();
    let call = sync(["-a", "--bwlimit=5M"]).args(shell.args()).dir(temp.path());
    let mut running = call.args(["src/".into(), at("host", &dst)]).spawn();
    let id = running.pid();
    let mut others = Vec::new();
    running.until("a far end", || {
        others = family(id).into_iter().filter(|process| process.id != id).collect();
        others.iter().any(|process| {
            let far = process.command.contains("serve") || process.command.contains("--server");
            far && !process.command.contains("shell")
        })
    });
    // A stage need not have a name: time says that the copy is under way.
    std::thread::sleep(Duration::from_millis(700));
    running.signal(Signal::KILL);
    running.wait();
    let started = std::time::Instant::now();
    while others.iter().any(|process| {
        support::run::process(process.id).is_some_and(|now| now.command == process.command && !now.command.is_empty())
    }) {
        assert!(started.elapsed() < Duration::from_secs(10), "the far end lives on: {others:?}");
        std::thread::sleep(Duration::from_millis(50));
    }
    assert!(!there(dst.join("big")));
    sync(["-a", "--delete"]).args(shell.args()).dir(temp.path()).args(["src/".into(), at("host", &dst)]).expect(0);
    Judge::strict().assert(&temp.join("src"), &dst);
    assert_eq!(leftovers(&dst), Vec::<std::path::PathBuf>::new());
}

/// A peer that says nothing is found within `--timeout`.
#[test]
fn a_silent_far_end_times_out() {
    let temp = Temp::new();
    fixture::source(temp.path());
    let shell = FakeShell::running("exec sleep 60");
    let output = sync(["-a", "--timeout=2"])
        .args(shell.args())
        .args(["src/".into(), at("host", &temp.join("dst"))])
        .dir(temp.path())
        .limit(Duration::from_secs(20))
        .run();
    assert_eq!(output.code(), 30, "{}", output.describe());
}

/// A long silence of work is no silence of the line: a stopped far end is one.
#[test]
fn a_stopped_far_end_times_out() {
    let temp = Temp::new();
    fixture::big_file(&temp.join("src/big"), 60 << 20, 1);
    let shell = FakeShell::new();
    let dst = temp.join("dst");
    let call =
        sync(["-a", "--timeout=3", "--bwlimit=5M"]).args(shell.args()).dir(temp.path()).limit(Duration::from_secs(30));
    let mut running = call.args(["src/".into(), at("host", &dst)]).spawn();
    let id = running.pid();
    let far = || {
        let mut far = family(id);
        far.retain(|process| {
            process.id != id
                && (process.command.contains("serve") || process.command.contains("--server"))
                && !process.command.contains("shell")
        });
        far
    };
    running.until("a far end", || !far().is_empty() && there(&dst));
    let stopped = far();
    stopped.iter().for_each(|process| signal_process(process.id, Signal::STOP));
    let output = running.wait();
    stopped.iter().for_each(|process| {
        signal_process(process.id, Signal::KILL);
        signal_process(process.id, Signal::CONT);
    });
    assert_eq!(output.code(), 30, "{}", output.describe());
}

#[test]
fn errors_of_the_far_side_reach_the_user() {
    let temp = Temp::new();
    put(temp.join("src/a"), "x", OLD);
    put(temp.join("dst/keep"), "x", OLD);
    let shell = FakeShell::new();
    fs::create_dir_all(temp.join("src/sub")).unwrap();
    // Far destination whose parent is missing.
    let output = sync(["-a"])
        .args(shell.args())
        .args(["src/".into(), at("host", &temp.join("no/such/dir"))])
        .dir(temp.path())
        .run();
    assert!(output.code() != 0 && output.err().contains("no/such"), "{}", output.describe());
    // A far directory that gives way to nothing.
    put(temp.join("dst/a/inner"), "x", OLD);
    let output = sync(["-a"])
        .args(shell.args())
        .args(["src/".into(), at("host", &temp.join("dst"))])
        .dir(temp.path())
        .run()
        .expect(23);
    assert!(there(temp.join("dst/a/inner")) && output.err().contains('a'), "{}", output.describe());
}

/// Options that carry bytes of any kind reach the far side whole: filters, backup directories, suffixes.
#[test]
fn options_reach_the_far_side() {
    let temp = Temp::new();
    fixture::source(temp.path());
    put(temp.join("dst/a"), "old", OLD - 5);
    put(temp.join("dst/keep me"), "kept", OLD);
    put(temp.join("dst/extra"), "gone", OLD);
    let shell = FakeShell::new();
    sync([
        "-ab",
        "--delete",
        "--exclude=keep me",
        "--backup-dir=../old 'dir'",
        "--suffix= $x",
        "--chmod=F640",
        "--max-size=100k",
    ])
    .args(shell.args())
    .args(["src/".into(), at("host", &temp.join("dst"))])
    .dir(temp.path())
    .expect(0);
    assert_eq!(get(temp.join("old 'dir'/a $x")), b"old");
    assert!(there(temp.join("dst/keep me")) && !there(temp.join("dst/extra")));
    assert_eq!(support::disk::mode(&temp.join("dst/b.log")), 0o640);
    // The sender is far: its filters and per-directory files count there.
    fs::write(temp.join("src/.rsync-filter"), "- *.log\n").unwrap();
    let far = at("host", Path::new(&format!("{}/src/", temp.path().display())));
    sync(["-aF", "--prune-empty-dirs"]).args(shell.args()).args([far, temp.join("pulled").into()]).expect(0);
    assert!(!there(temp.join("pulled/b.log")) && there(temp.join("pulled/a")));
    chmod(temp.path(), 0o755);
}

/// Lists of paths and lines of items are longer than a message may be.
#[test]
fn long_lists_and_long_names_cross_in_portions() {
    let temp = Temp::new();
    put(temp.join("src/there"), "content", OLD);
    let mut list: String = (0..40_000).map(|number| format!("a/name/that/is/not/there/{number}\n")).collect();
    list.push_str("there\n");
    fs::write(temp.join("list"), list).unwrap();
    // Deep enough that 300 lines of items, each with its whole path, are more than a megabyte.
    let mut deep = temp.join("deep/src");
    for _ in 0..15 {
        deep = deep.join("d".repeat(250));
    }
    fs::create_dir_all(&deep).unwrap();
    for number in 0..300 {
        fs::write(deep.join(number.to_string()), "x").unwrap();
    }
    let shell = FakeShell::new();
    for push in [true, false] {
        let ends = |from: &str, to: &str| match push {
            true => [OsString::from(from), at("host", &temp.join(to))],
            false => [at("host", Path::new(&format!("{}/{from}", temp.path().display()))), OsString::from(to)],
        };
        let to = format!("listed-{push}");
        sync(["-a", "--ignore-missing-args", "--files-from=list"])
            .args(shell.args())
            .dir(temp.path())
            .args(ends("src", &to))
            .expect(0);
        assert!(there(temp.join(&to).join("there")));
        let to = format!("deep-{push}");
        let output = sync(["-av"]).args(shell.args()).dir(temp.path()).args(ends("deep/src/", &to)).expect(0);
        assert_eq!(output.out().lines().filter(|line| line.ends_with("/299")).count(), 1);
    }
}

/// A file that shrinks below what travels in one record while its segments are on their way.
#[test]
fn files_that_shrink_meanwhile_end_as_they_are() {
    let temp = Temp::new();
    let shell = FakeShell::new();
    for round in 0..12 {
        fixture::big_file(&temp.join("src/shrinks"), 8 << 20, round);
        for number in 0..200 {
            put(temp.join(format!("src/other-{number}")), "x", OLD);
        }
        let far = at("host", &temp.join("dst"));
        let running = sync(["-a", "--live"]).args(shell.args()).dir(temp.path()).args(["src/".into(), far]).spawn();
        std::thread::sleep(Duration::from_millis(3 * round));
        fs::File::options().write(true).open(temp.join("src/shrinks")).unwrap().set_len(1000).unwrap();
        let output = running.wait();
        assert_eq!(output.code(), 0, "{}", output.describe());
        sync(["-a"]).args(shell.args()).dir(temp.path()).args(["src/".into(), at("host", &temp.join("dst"))]).expect(0);
        Judge::strict().assert(&temp.join("src"), &temp.join("dst"));
        fs::remove_dir_all(temp.join("dst")).unwrap();
    }
}
