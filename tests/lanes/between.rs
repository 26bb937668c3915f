//! Both ends far: the client brokers lanes between them, or passes everything on.

use rustix::process::Signal;

use crate::support::Temp;
use crate::support::disk::{get, leftovers, put, there};
use crate::support::fixture::{self, OLD};
use crate::support::judge::Judge;
use crate::support::run::{Output, signal_process, sync, xfer};
use crate::support::sockets::{connections, far_ends, tcp_sockets, wait_until};
use crate::support::ssh::{FakeShell, Sshd, at};
use crate::support::tree::{self, Size};
use crate::{HERE, NOWHERE, contents};

const THROUGH: &str = "no direct connection between the two hosts, everything passes through this one";

#[test]
fn between_two_hosts_directly_and_through_the_client() {
    let shell = FakeShell::new();
    let sshd = Sshd::start();
    for (seed, remote, one, two, transport) in [
        (1, shell.args(), HERE, "localhost", "direct"),
        (2, sshd.args(), "one", "two", "direct"),
        (3, sshd.args(), "one", "two", "auto"),
        (4, shell.args(), NOWHERE, "elsewhere.invalid", "auto"),
        (5, sshd.args(), "one", "two", "shell"),
    ] {
        let temp = Temp::new();
        let (src, dst) = (temp.join("src"), temp.join("dst"));
        tree::random(&src, seed, Size { entries: 120, ..Size::SMALL });
        fixture::big_file(&src.join("big"), 9 << 20, seed);
        for pass in 0..2 {
            let options = ["-aHAX", "--numeric-ids", "--delete", "--lanes", "4", "--transport", transport];
            sync(options).args(&remote).args([contents(one, &src), at(two, &dst)]).expect(0);
            Judge::strict().assert(&src, &dst);
            let verify = || xfer(["verify", "-HAX", "--numeric-ids"]).args(&remote);
            verify().args([contents(one, &src), at(two, &dst)]).expect(0);
            put(dst.join("only there"), "x", OLD);
            verify().args([contents(one, &src), at(two, &dst)]).run().expect(23);
            tree::mutate(&src, seed + pass, Size::SMALL);
        }
    }
}

/// Lanes go from end to end: the client has no socket of its own, and little passes through it.
#[test]
fn direct_lanes_leave_the_client_out() {
    let temp = Temp::new();
    fixture::big_file(&temp.join("src/big"), 24 << 20, 1);
    let shell = FakeShell::new();
    let options = ["-a", "--transport", "direct", "--lanes", "4", "--bwlimit=16M"];
    let ends = [contents(HERE, &temp.join("src")), at("localhost", &temp.join("dst"))];
    let mut running = sync(options).args(shell.args()).args(ends).spawn();
    let near = running.pid();
    running.until("lanes between two far ends", || {
        let far = far_ends(near);
        far.len() == 2 && far.iter().all(|end| connections(end.id).len() == 4)
    });
    assert_eq!(tcp_sockets(near), []);
    running.until("the end of listening", || {
        !far_ends(near).iter().flat_map(|end| tcp_sockets(end.id)).any(|socket| socket.listens)
    });
    running.wait_looking(|id| assert_eq!(tcp_sockets(id), [])).expect(0);
    Judge::strict().assert(&temp.join("src"), &temp.join("dst"));
}

#[test]
fn without_a_way_between_them_it_is_said_once() {
    let temp = Temp::new();
    fixture::big_file(&temp.join("src/big"), 6 << 20, 1);
    let shell = FakeShell::new();
    let ends = |to: &str| [contents(NOWHERE, &temp.join("src")), at("elsewhere.invalid", &temp.join(to))];
    let output = sync(["-a", "--bwlimit=1M"]).args(shell.args()).args(ends("dst")).expect(0);
    assert_eq!(output.err().matches(THROUGH).count(), 1, "{}", output.describe());
    Judge::strict().assert(&temp.join("src"), &temp.join("dst"));
    put(temp.join("none/kept"), "as it was", OLD);
    let output = sync(["-a", "--delete", "--transport", "direct"]).args(shell.args()).args(ends("none")).expect(1);
    output.says(&["no direct connection"]);
    let names: Vec<_> = std::fs::read_dir(temp.join("none")).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(names, ["kept"]);
}

/// What is said about a run does not depend on where its ends are.
#[test]
fn items_totals_and_codes_are_those_of_a_local_run() {
    let shell = FakeShell::new();
    let told = |output: &Output| {
        let mut lines: Vec<String> = output
            .out()
            .lines()
            // What depends on the way that content took, and on the clock.
            .filter(|line| {
                !["Literal", "Matched", "File list", "Total bytes", "sent ", "total size"]
                    .iter()
                    .any(|start| line.starts_with(start))
            })
            .map(str::to_owned)
            .collect();
        lines.sort();
        lines
    };
    // Without -H: which name of an inode leads is not promised.
    let options = ["-ai", "--stats", "--delete", "--max-delete=1"];
    let (here, far) = (Temp::new(), Temp::new());
    for temp in [&here, &far] {
        fixture::both(temp.path());
    }
    for code in [25, 25] {
        let local = sync(options).args(["src/", "dst"]).dir(here.path()).expect(code);
        let ends = [contents(HERE, &far.join("src")), at("localhost", &far.join("dst"))];
        let remote = sync(options).args(shell.args()).args(ends).expect(code);
        assert_eq!(told(&local), told(&remote));
        // A directory that was to go and stays has the time of the deletion in it.
        Judge { times_dirs: false, hard_links: false, ..Judge::strict() }.assert(&here.join("dst"), &far.join("dst"));
    }
    // A missing source, a destination without a parent.
    for (from, to, code) in [("none/", "dst", 23), ("src/", "no/such/dst", 1)] {
        sync(["-a"]).args([from, to]).dir(here.path()).expect(code);
        let ends = [at(HERE, &far.join(from)), at("localhost", &far.join(to))];
        sync(["-a"]).args(shell.args()).args(ends).expect(code);
    }
}

#[test]
fn an_interrupt_or_a_death_ends_both_far_ends() {
    let temp = Temp::new();
    fixture::big_file(&temp.join("src/big"), 24 << 20, 1);
    let shell = FakeShell::new();
    let dst = temp.join("dst");
    put(dst.join("big"), "the old one", OLD);
    for (transport, lanes, victim) in
        [("direct", 2, None), ("direct", 2, Some(0)), ("direct", 2, Some(1)), ("shell", 0, Some(0)), ("shell", 0, None)]
    {
        let ends = || [contents(HERE, &temp.join("src")), at("localhost", &dst)];
        let options = ["-a", "--lanes", "2", "--bwlimit=4M", "--transport", transport];
        let mut running = sync(options).args(shell.args()).args(ends()).spawn();
        let near = running.pid();
        let mut far = Vec::new();
        running.until("both far ends at work", || {
            far = far_ends(near);
            far.len() == 2 && far.iter().all(|end| connections(end.id).len() == lanes)
        });
        match victim {
            None => running.signal(Signal::INT),
            Some(number) => signal_process(far[number].id, Signal::KILL),
        }
        let output = running.wait();
        assert_eq!(output.code(), if victim.is_none() { 130 } else { 1 }, "{}", output.describe());
        assert!(victim.is_none() || !output.stderr.is_empty());
        wait_until("the far ends' end", || {
            far.iter().all(|end| crate::support::run::process(end.id).is_none_or(|now| now.command != end.command))
        });
        assert_eq!(get(dst.join("big")), b"the old one");
    }
    sync(["-a", "--delete"])
        .args(shell.args())
        .args([contents(HERE, &temp.join("src")), at("localhost", &dst)])
        .expect(0);
    Judge::strict().assert(&temp.join("src"), &dst);
    assert!(leftovers(&dst).is_empty() && there(dst.join("big")));
}
