//! Which way content goes, and what is said about it.

use std::ffi::OsString;
use std::net::{Ipv6Addr, TcpListener};
use std::path::Path;
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::Duration;

use crate::support::Temp;
use crate::support::disk::{get, leftovers, put, there};
use crate::support::fixture::{self, OLD};
use crate::support::judge::Judge;
use crate::support::run::{binary, sync};
use crate::support::sockets::{connections, far_ends, received_bytes, tcp_sockets};
use crate::support::ssh::{FakeShell, Sshd, at};
use crate::support::tree::{self, Size};
use crate::{HERE, NOWHERE, STAYED, contents, verify};

/// Pushed, pulled, edited, pushed and pulled again, judged each time.
fn to_and_fro(remote: &[OsString], host: &str, seed: u64, options: &[&str]) {
    let temp = Temp::new();
    let src = temp.join("src");
    tree::random(&src, seed, Size { entries: 120, ..Size::SMALL });
    fixture::big_file(&src.join("a big one"), 9 << 20, seed);
    for pass in 0..2 {
        let call = || sync(["-aHAX", "--numeric-ids", "--delete"]).args(remote).args(options);
        let pushed = temp.join("pushed");
        let output = call().args([temp.join("src/").into(), at(host, &pushed)]).expect(0);
        assert!(!output.err().contains(STAYED) || options.contains(&"auto"), "{}", output.describe());
        Judge::strict().assert(&src, &pushed);
        let pulled = temp.join("pulled");
        call().args([contents(host, &pushed), pulled.clone().into()]).expect(0);
        Judge::strict().assert(&src, &pulled);
        verify(remote, temp.join("src/").into(), at(host, &pulled));
        verify(remote, contents(host, &src), pulled.clone().into());
        tree::mutate(&src, seed + pass, Size::SMALL);
        fixture::big_file(&src.join("a big one"), 7 << 20, seed + 1);
    }
}

#[test]
fn push_and_pull_through_sshd_with_lanes() {
    let sshd = Sshd::start();
    for (seed, options) in [
        (1, &["--transport", "direct", "--lanes", "1"][..]),
        (2, &["--transport", "direct", "--lanes", "4"]),
        (3, &["--transport", "auto", "--lanes", "8", "--no-W"]),
        (4, &["--transport", "shell", "-z"]),
    ] {
        to_and_fro(&sshd.args(), "there", seed, options);
    }
}

#[test]
fn push_and_pull_through_a_fake_shell_with_lanes() {
    let shell = FakeShell::new();
    for (seed, host, options) in [
        (11, HERE, &["--transport", "direct"][..]),
        (12, "localhost", &["--transport", "direct", "--lanes", "8", "--no-W"]),
        (13, HERE, &["--transport", "auto", "--lanes", "4", "--inplace"]),
        (14, NOWHERE, &["--transport", "auto"]),
        (15, HERE, &["--transport", "shell", "--lanes", "4"]),
    ] {
        to_and_fro(&shell.args(), host, seed, options);
    }
}

/// A shell transport opens no TCP connection; direct lanes are as many as were asked for, one file goes over all of
/// them, and nothing else is left open: whoever listened has stopped.
#[test]
fn lanes_are_as_many_as_asked_for_and_share_one_big_file() {
    let temp = Temp::new();
    fixture::big_file(&temp.join("src/big"), 48 << 20, 1);
    let shell = FakeShell::new();
    for (lanes, push) in [(1, true), (4, true), (8, true), (4, false), (0, true)] {
        let dst = temp.join(format!("dst-{lanes}-{push}"));
        let transport = if lanes == 0 { "shell" } else { "direct" };
        let number = lanes.max(1).to_string();
        let ends = match push {
            true => [temp.join("src/").into(), at(HERE, &dst)],
            false => [contents(HERE, &temp.join("src")), dst.clone().into()],
        };
        let options = ["-a", "--transport", transport, "--lanes", &number, "--bwlimit=24M"];
        let mut running = sync(options).args(shell.args()).args(ends).spawn();
        let near = running.pid();
        let mut far = None;
        running.until("a far end with its lanes", || {
            far = far_ends(near).first().map(|process| process.id);
            far.is_some_and(|far| connections(far).len() == lanes && there(&dst))
        });
        let far = far.unwrap();
        if lanes == 0 {
            let output = running.wait_looking(|_| {
                assert_eq!(tcp_sockets(near).len() + tcp_sockets(far).len(), 0, "a socket without need");
            });
            output.expect(0);
            continue;
        }
        // The far end listened: its end of every lane has the one port that it had said.
        let port = connections(far)[0].local_port;
        assert!(connections(far).iter().all(|lane| lane.local_port == port));
        assert!(connections(near).iter().all(|lane| lane.remote_port == port));
        running.until("the end of listening", || !tcp_sockets(far).iter().any(|socket| socket.listens));
        assert!(!tcp_sockets(near).iter().any(|socket| socket.listens));
        let refused = std::net::TcpStream::connect((HERE, port)).unwrap_err();
        assert_eq!(refused.kind(), std::io::ErrorKind::ConnectionRefused);
        // The receiving ends of a push have the far port, those of a pull have one each.
        let mut most = std::collections::BTreeMap::new();
        let lanes_of_near = connections(near);
        let output = running.wait_looking(|_| {
            let seen: Vec<(u16, u64)> = match push {
                true => received_bytes(port).into_iter().collect(),
                false => lanes_of_near
                    .iter()
                    .filter_map(|lane| Some((lane.local_port, *received_bytes(lane.local_port).get(&port)?)))
                    .collect(),
            };
            most.extend(seen);
            std::thread::sleep(Duration::from_millis(40));
        });
        output.expect(0);
        assert_eq!(most.len(), lanes, "{most:?}");
        assert!(most.values().all(|&bytes| bytes >= 1 << 20), "some lane carries hardly anything: {most:?}");
        Judge::strict().assert(&temp.join("src"), &dst);
    }
}

/// Two neighbouring ports that nothing listens on; the second value holds the first of them where it is to be busy.
fn ports(busy: bool) -> (u16, Option<TcpListener>) {
    static TRIED: AtomicU16 = AtomicU16::new(0);
    loop {
        // Below those that the kernel gives to connections.
        let port = 21_000 + (std::process::id() % 4000) as u16 * 2 + TRIED.fetch_add(2, Ordering::Relaxed);
        let Ok(first) = TcpListener::bind((Ipv6Addr::UNSPECIFIED, port)) else { continue };
        if TcpListener::bind((Ipv6Addr::UNSPECIFIED, port + 1)).is_ok() {
            return (port, busy.then_some(first));
        }
    }
}

#[test]
fn lanes_use_the_ports_that_they_are_given() {
    let temp = Temp::new();
    fixture::big_file(&temp.join("src/big"), 12 << 20, 1);
    let sshd = Sshd::start();
    for busy in [false, true] {
        let (port, held) = ports(busy);
        let range = format!("{port}-{}", port + 1);
        let dst = temp.join(format!("dst-{busy}"));
        let options = ["-a", "--transport", "direct", "--lanes", "2", "--bwlimit=8M", "--lane-ports", &range];
        let ends = [temp.join("src/").into(), at("there", &dst)];
        let mut running = sync(options).args(sshd.args()).args(ends).spawn();
        let mut used = Vec::new();
        running.until("lanes", || {
            used =
                far_ends(sshd.pid()).iter().flat_map(|far| connections(far.id)).map(|lane| lane.local_port).collect();
            used.len() == 2
        });
        let expected = if busy { port + 1 } else { port };
        assert_eq!(used, [expected; 2]);
        running.wait().expect(0);
        drop(held);
        Judge::strict().assert(&temp.join("src"), &dst);
    }
}

#[test]
fn a_range_without_a_free_port_falls_back_to_the_shell() {
    let temp = Temp::new();
    fixture::big_file(&temp.join("src/big"), 6 << 20, 1);
    let shell = FakeShell::new();
    let (port, _held) = ports(true);
    let range = format!("{port}-{port}");
    let dst = temp.join("dst");
    let ends = || [temp.join("src/").into(), at(HERE, &dst)];
    let output = sync(["-a", "--lane-ports", &range, "--bwlimit=1M"]).args(shell.args()).args(ends()).expect(0);
    assert_eq!(output.err().matches(STAYED).count(), 1, "{}", output.describe());
    output.says(&["cannot listen", &format!("ports {port} to {port}"), "in use"]);
    Judge::strict().assert(&temp.join("src"), &dst);
    fixture::big_file(&temp.join("src/big"), 6 << 20, 2);
    let options = ["-a", "--transport", "direct", "--lane-ports", &range];
    sync(options).args(shell.args()).args(ends()).expect(1).says(&["no direct connection", "in use"]);
    assert_ne!(get(dst.join("big")), get(temp.join("src/big")));
}

/// Nobody can reach the other: `auto` goes on over the shell and says so once, `direct` fails and writes nothing.
#[test]
fn without_a_way_the_shell_carries_everything() {
    let temp = Temp::new();
    fixture::big_file(&temp.join("src/big"), 6 << 20, 1);
    let shell = FakeShell::new();
    for push in [true, false] {
        let dst = temp.join(format!("dst-{push}"));
        let ends = |dst: &Path| match push {
            true => [temp.join("src/").into(), at(NOWHERE, dst)],
            false => [contents(NOWHERE, &temp.join("src")), dst.into()],
        };
        let output = sync(["-a", "--bwlimit=1M"]).args(shell.args()).args(ends(&dst)).expect(0);
        assert_eq!(output.err().matches(STAYED).count(), 1, "{}", output.describe());
        output.says(&[NOWHERE, "--transport shell"]);
        Judge::strict().assert(&temp.join("src"), &dst);
        // Meant so: nothing to say.
        let quiet = sync(["-a", "-I", "--transport", "shell"]).args(shell.args()).args(ends(&dst)).expect(0);
        assert!(quiet.stderr.is_empty(), "{}", quiet.describe());

        let none = temp.join(format!("none-{push}"));
        put(none.join("kept"), "as it was", OLD);
        let output = sync(["-a", "--delete", "--transport", "direct"]).args(shell.args()).args(ends(&none)).expect(1);
        output.says(&["no direct connection to the other host", NOWHERE]);
        let names: Vec<_> = std::fs::read_dir(&none).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        assert_eq!(names, ["kept"]);
        assert_eq!(leftovers(&none), Vec::<std::path::PathBuf>::new());
    }
}

/// sudo drops what sshd says about the connection; then what ssh makes of the host's name counts.
#[test]
fn lanes_are_there_without_the_words_of_sshd() {
    let temp = Temp::new();
    fixture::source(temp.path());
    let sshd = Sshd::start();
    let far = format!("env -u SSH_CONNECTION -u SSH_CLIENT {}", binary().display());
    let call = sync(["-aH", "--transport", "direct", "-e"]).args([sshd.shell(), "--xfer-path".into(), far]);
    call.args([temp.join("src/").into(), at("there", &temp.join("dst"))]).expect(0);
    Judge::strict().assert(&temp.join("src"), &temp.join("dst"));
}

#[test]
fn numbers_that_make_no_sense_are_refused() {
    for words in
        [["--lanes", "0"], ["--lanes", "9"], ["--lane-ports", "9-1"], ["--lane-ports", "x"], ["--transport", "x"]]
    {
        sync(["-a"]).args(words).args(["/tmp", "host:/nowhere"]).expect(2).says(&[words[0]]);
    }
}
