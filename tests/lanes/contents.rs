//! What crosses lanes, under the options that change how.

use std::fs;
use std::io::{Seek, SeekFrom, Write};
use std::path::Path;
use std::time::Duration;

use rustix::process::Signal;

use crate::support::Temp;
use crate::support::disk::{get, leftovers, put, set_mtime, there};
use crate::support::fixture::{self, OLD};
use crate::support::judge::{Judge, rsync_finds_nothing};
use crate::support::rng::Rng;
use crate::support::run::signal_process;
use crate::support::sockets::{connections, far_ends};
use crate::support::ssh::{FakeShell, Sshd, at};
use crate::{HERE, contents, direct, verify};

/// Both ends of a push or a pull between two directories here.
fn ends(push: bool, src: &Path, dst: &Path) -> [std::ffi::OsString; 2] {
    let slash = |path: &Path| {
        let mut path = path.as_os_str().to_owned();
        path.push("/");
        path
    };
    if push { [slash(src), at(HERE, dst)] } else { [contents(HERE, src), dst.into()] }
}

/// Bytes of a totals line.
fn total(output: &str, label: &str) -> u64 {
    let line = output.lines().find(|line| line.starts_with(label)).unwrap_or_else(|| panic!("{label} in {output}"));
    line.chars().filter(char::is_ascii_digit).collect::<String>().parse().unwrap()
}

/// Small changes in a big file: in place or not, what is sent is what changed.
#[test]
fn deltas_cross_lanes() {
    let shell = FakeShell::new();
    for (push, options) in
        [(true, &["--no-W"][..]), (false, &["--no-W"]), (true, &["--no-W", "--inplace"]), (false, &["--no-W", "-z"])]
    {
        let temp = Temp::new();
        let (src, dst) = (temp.join("src"), temp.join("dst"));
        fixture::big_file(&src.join("big"), 24 << 20, 7);
        direct(&shell.args(), &["--lanes", "4"]).args(options).args(ends(push, &src, &dst)).expect(0);
        let mut file = fs::File::options().write(true).open(src.join("big")).unwrap();
        for page in [3, 700, 1400] {
            file.seek(SeekFrom::Start(page * 16_384)).unwrap();
            file.write_all(&Rng::new(page).bytes(16_384)).unwrap();
        }
        drop(file);
        set_mtime(&src.join("big"), OLD, 5);
        let call = direct(&shell.args(), &["--lanes", "4", "--stats"]).args(options).args(ends(push, &src, &dst));
        let output = call.expect(0).out();
        assert!(total(&output, "Literal data") <= 6 * 16_384, "{output}");
        assert!(total(&output, "Matched data") >= 20 << 20, "{output}");
        Judge::strict().assert(&src, &dst);
        verify(&shell.args(), contents(HERE, &src), dst.into());
    }
}

#[test]
fn links_holes_deletion_and_compression_over_lanes() {
    let shell = FakeShell::new();
    for push in [true, false] {
        let temp = Temp::new();
        fixture::both(temp.path());
        let (src, dst) = (temp.join("src"), temp.join("dst"));
        fixture::many_files(&src.join("many"), 3000);
        put(src.join("text"), "the same line again and again\n".repeat(200_000), OLD);
        fs::hard_link(src.join("text"), src.join("many/text too")).unwrap();
        let mut sparse = fs::File::create(src.join("sparse")).unwrap();
        sparse.write_all(b"begins").unwrap();
        sparse.seek(SeekFrom::Start(40 << 20)).unwrap();
        sparse.write_all(b"ends").unwrap();
        drop(sparse);
        let options = ["--delete", "--force", "-zS", "--lanes", "4", "--stats"];
        let output = direct(&shell.args(), &options).args(ends(push, &src, &dst)).expect(0).out();
        let sent = total(&output, "Total bytes sent") + total(&output, "Total bytes received");
        assert!(sent < 4 << 20, "neither holes nor text were made small: {output}");
        Judge { holes: true, ..Judge::strict() }.assert(&src, &dst);
        rsync_finds_nothing(&src, &dst, &["--numeric-ids"]);
        assert!(!there(dst.join("extra")));
        let again = direct(&shell.args(), &["--delete", "-i"]).args(ends(push, &src, &dst)).expect(0);
        assert_eq!(again.out(), "");
    }
}

/// All lanes together keep to the rate: bytes beyond one burst take their time, however fast the machine is.
#[test]
fn the_rate_is_that_of_all_lanes_together() {
    let shell = FakeShell::new();
    for push in [true, false] {
        let temp = Temp::new();
        let (src, dst) = (temp.join("src"), temp.join("dst"));
        fixture::big_file(&src.join("big"), 12 << 20, 3);
        let options = ["--lanes", "8", "--bwlimit=4M"];
        let output = direct(&shell.args(), &options).args(ends(push, &src, &dst)).expect(0);
        // 12 MiB less a burst of 0.1 s: four lanes that each had the rate for themselves would need 0.4 s.
        assert!(output.elapsed >= Duration::from_millis(2500), "{}", output.describe());
        Judge::strict().assert(&src, &dst);
    }
}

#[test]
fn files_that_change_meanwhile_are_whole_or_told() {
    let shell = FakeShell::new();
    for push in [true, false] {
        let temp = Temp::new();
        let (src, dst) = (temp.join("src"), temp.join("dst"));
        fixture::big_file(&src.join("busy"), 24 << 20, 3);
        fixture::big_file(&src.join("grows"), 8 << 20, 4);
        fixture::big_file(&src.join("vanishes"), 8 << 20, 5);
        put(dst.join("busy"), "the old one", OLD);
        let options = ["--lanes", "4", "--bwlimit=16M"];
        let mut running = direct(&shell.args(), &options).args(ends(push, &src, &dst)).spawn();
        let near = running.pid();
        running.until("lanes", || far_ends(near).first().is_some_and(|far| connections(far.id).len() == 4));
        let busy = fs::File::options().write(true).open(src.join("busy")).unwrap();
        let mut round = 0u64;
        let output = running.wait_looking(|_| {
            round += 1;
            std::os::unix::fs::FileExt::write_all_at(&busy, &round.to_le_bytes(), (round % 3000) * 8192).unwrap();
            if round == 20 {
                let mut grows = fs::File::options().append(true).open(src.join("grows")).unwrap();
                grows.write_all(&[7; 100_000]).unwrap();
            }
        });
        let output = output.expect(23);
        assert!(output.err().contains("busy"), "{}", output.describe());
        assert_eq!(get(dst.join("busy")), b"the old one");
        let grown = get(dst.join("grows"));
        assert!(grown.len() == 8 << 20 || grown == get(src.join("grows")), "{} bytes", grown.len());
        direct(&shell.args(), &[]).args(ends(push, &src, &dst)).expect(0);
        Judge::strict().assert(&src, &dst);
    }
}

/// Killed in the middle of lanes, by either end: the old file stays, the part is used, nothing is left.
#[test]
fn a_killed_end_leaves_old_files_and_the_next_run_completes() {
    let shell = FakeShell::new();
    for (push, kill_near) in [(true, true), (true, false), (false, true), (false, false)] {
        let temp = Temp::new();
        let (src, dst) = (temp.join("src"), temp.join("dst"));
        fixture::big_file(&src.join("big"), 24 << 20, 3);
        fixture::many_files(&src.join("many"), 500);
        put(dst.join("big"), "the old one", OLD);
        let options = ["--lanes", "4", "--bwlimit=2M", "--partial"];
        let mut running = direct(&shell.args(), &options).args(ends(push, &src, &dst)).spawn();
        let near = running.pid();
        let mut far = 0;
        running.until("lanes and a file on its way", || {
            far = far_ends(near).first().map_or(0, |process| process.id);
            connections(far).len() == 4 && there(dst.join("many"))
        });
        if kill_near {
            running.signal(Signal::KILL);
        } else {
            signal_process(far, Signal::KILL);
        }
        let output = running.wait();
        assert!(output.code() != 0 && (kill_near || !output.stderr.is_empty()), "{}", output.describe());
        let gone = || crate::support::run::process(far).is_none_or(|process| process.command.is_empty());
        crate::support::sockets::wait_until("the far end's end", gone);
        assert_eq!(get(dst.join("big")), b"the old one");
        direct(&shell.args(), &["--partial", "--delete"]).args(ends(push, &src, &dst)).expect(0);
        Judge::strict().assert(&src, &dst);
        assert_eq!(leftovers(&dst), Vec::<std::path::PathBuf>::new());
    }
}

/// Interrupted with `--partial`: what has come is kept, and need not come again.
#[test]
fn an_interrupted_run_is_gone_on_with() {
    let temp = Temp::new();
    let sshd = Sshd::start();
    let (src, dst) = (temp.join("src"), temp.join("dst"));
    fixture::big_file(&src.join("big"), 24 << 20, 3);
    let ends = || [temp.join("src/").into(), at("there", &dst)];
    let options = ["--lanes", "4", "--bwlimit=6M", "--partial"];
    let mut running = direct(&sshd.args(), &options).args(ends()).spawn();
    let near = running.pid();
    // Bytes that have left through lanes.
    running.until("a good part of the file", || {
        let lanes = connections(near);
        let Some(port) = lanes.first().map(|lane| lane.remote_port) else { return false };
        crate::support::sockets::received_bytes(port).values().sum::<u64>() > 8 << 20
    });
    running.signal(Signal::INT);
    running.wait().expect(130);
    crate::support::sockets::wait_until("the far end's end", || far_ends(sshd.pid()).is_empty());
    let output = direct(&sshd.args(), &["--partial", "--stats"]).args(ends()).expect(0).out();
    assert!(total(&output, "Literal data") < 20 << 20, "nothing was gone on with: {output}");
    Judge::strict().assert(&src, &dst);
    assert_eq!(leftovers(&dst), Vec::<std::path::PathBuf>::new());
}
