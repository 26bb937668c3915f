//! Two hosts with a cable and firewalls between them: network namespaces, and a real sshd in one.
#![allow(clippy::unwrap_used, reason = "tests")]
#![allow(clippy::disallowed_methods, reason = "tests stand outside the rooms")]

mod support;

use std::ffi::OsString;
use std::path::PathBuf;

use rustix::process::Signal;

use support::Temp;
use support::disk::{get, leftovers, put, there};
use support::fixture::{self, OLD};
use support::judge::Judge;
use support::netns::{Pair, SSH_PORT, Side};
use support::run::{Call, Output, Running, signal_process, sync, xfer};
use support::sockets::{far_ends, wait_until};
use support::ssh::{Sshd, at};

const STAYED: &str = "no direct connection to the other host, the remote shell carries everything";

/// Two hosts, a tree to copy, and where it goes.
struct Hosts {
    temp: Temp,
    sshd: Sshd,
    // Last: its processes are gone before it is.
    pair: Pair,
}

impl Hosts {
    fn new(bytes: usize) -> Hosts {
        let pair = Pair::new();
        let temp = Temp::new();
        fixture::source(temp.path());
        fixture::big_file(&temp.join("src/big"), bytes, 1);
        Hosts { sshd: pair.sshd(), temp, pair }
    }

    fn dst(&self) -> PathBuf {
        self.temp.join("dst")
    }

    /// A push from the near host to the far one.
    fn push(&self, options: &[&str]) -> Call {
        let ends = [self.temp.join("src/").into(), at("far", &self.dst())];
        sync(["-aH", "--delete"]).args(options).args(self.sshd.args()).args(ends).under(self.pair.exec(Side::Near))
    }

    fn pull(&self, options: &[&str]) -> Call {
        let mut source = at("far", &self.temp.join("src"));
        source.push("/");
        let ends: [OsString; 2] = [source, self.dst().into()];
        sync(["-aH", "--delete"]).args(options).args(self.sshd.args()).args(ends).under(self.pair.exec(Side::Near))
    }

    fn equal(&self) {
        Judge::strict().assert(&self.temp.join("src"), &self.dst());
        assert_eq!(leftovers(&self.dst()), Vec::<PathBuf>::new());
    }

    /// The far end, once `counter` has seen so many bytes: the work is under way.
    fn far_after(&self, running: &mut Running, counter: &str, bytes: u64) -> u32 {
        running.until("bytes on the lanes", || self.pair.counted(Side::Far, counter).1 > bytes);
        far_ends(self.sshd.pid())[0].id
    }

    fn no_far_end(&self) {
        wait_until("the far end's end", || far_ends(self.sshd.pid()).is_empty());
    }
}

/// Counts bytes by way and direction in the far namespace; `more` are rules for what comes in, before they count.
fn rules(more: &str) -> String {
    format!(
        "table inet test {{\n counter shell_in {{}}\n counter shell_out {{}}\n counter lanes_in {{}}\n counter lanes_out {{}}\n \
         counter fault {{}}\n chain in {{\n type filter hook input priority 0;\n {more}\n \
         iifname veth0 tcp dport {SSH_PORT} counter name shell_in\n \
         iifname veth0 tcp dport != {SSH_PORT} counter name lanes_in\n }}\n chain out {{\n \
         type filter hook output priority 0;\n oifname veth0 tcp sport {SSH_PORT} counter name shell_out\n \
         oifname veth0 tcp sport != {SSH_PORT} counter name lanes_out\n }}\n}}\n"
    )
}

/// No new connection comes in but to sshd.
fn no_way_in(how: &str) -> String {
    rules(&format!("tcp dport != {SSH_PORT} tcp flags & (syn | ack) == syn counter name fault {how}"))
}

fn said_once(output: &Output) {
    assert_eq!(output.err().matches(STAYED).count(), 1, "{}", output.describe());
}

const MIB: u64 = 1 << 20;

#[test]
fn content_takes_the_direct_way() {
    let hosts = Hosts::new(20 << 20);
    hosts.pair.filter(Side::Far, &rules(""));
    let output = hosts.push(&["--transport", "direct"]).expect(0);
    assert!(output.stderr.is_empty(), "{}", output.describe());
    hosts.equal();
    let seen = |counter| hosts.pair.counted(Side::Far, counter).1;
    assert!(seen("lanes_in") >= 20 * MIB && seen("shell_in") < MIB, "{} {}", seen("lanes_in"), seen("shell_in"));
    std::fs::remove_dir_all(hosts.dst()).unwrap();
    hosts.pull(&["--transport", "direct", "--lanes", "8"]).expect(0);
    hosts.equal();
    assert!(seen("lanes_out") >= 20 * MIB && seen("shell_out") < MIB, "{} {}", seen("lanes_out"), seen("shell_out"));
    let before = seen("lanes_in") + seen("lanes_out");
    std::fs::remove_dir_all(hosts.dst()).unwrap();
    hosts.push(&["--transport", "shell"]).expect(0);
    hosts.equal();
    assert_eq!(seen("lanes_in") + seen("lanes_out"), before);
    // A comparison needs no lanes.
    let mut source = at("far", &hosts.temp.join("src"));
    source.push("/");
    let verify = xfer(["verify", "-H"]).args(hosts.sshd.args()).args([source, hosts.dst().into()]);
    verify.under(hosts.pair.exec(Side::Near)).expect(0);
}

#[test]
fn where_nothing_comes_in_the_far_end_connects_back() {
    let hosts = Hosts::new(20 << 20);
    hosts.pair.filter(Side::Far, &no_way_in("drop"));
    let output = hosts.push(&["--bwlimit=4M"]).expect(0);
    assert!(output.stderr.is_empty(), "{}", output.describe());
    hosts.equal();
    assert!(hosts.pair.counted(Side::Far, "fault").0 > 0, "nothing was dropped");
    assert!(hosts.pair.counted(Side::Far, "lanes_in").1 > 4 * MIB, "nothing took the way back");
}

#[test]
fn where_nothing_comes_in_on_either_side_the_shell_carries_everything() {
    let hosts = Hosts::new(14 << 20);
    for side in [Side::Near, Side::Far] {
        hosts.pair.filter(side, &no_way_in("drop"));
    }
    let dropped = |side| hosts.pair.counted(side, "fault").0;
    let output = hosts.push(&["--bwlimit=2M"]).expect(0);
    said_once(&output);
    output.says(&["in time", "--lane-ports"]);
    hosts.equal();
    assert!(dropped(Side::Near) > 0 && dropped(Side::Far) > 0);
    assert!(hosts.pair.counted(Side::Far, "shell_in").1 > 14 * MIB);
    let none = hosts.temp.join("none");
    put(none.join("kept"), "x", OLD);
    let ends = [hosts.temp.join("src/").into(), at("far", &none)];
    let call = sync(["-aH", "--delete", "--transport", "direct"]).args(hosts.sshd.args()).args(ends);
    call.under(hosts.pair.exec(Side::Near)).expect(1).says(&["no direct connection to the other host", "and back"]);
    assert!(there(none.join("kept")) && !there(none.join("big")));
}

#[test]
fn a_firewall_that_rejects_is_believed_at_once() {
    let hosts = Hosts::new(6 << 20);
    for side in [Side::Near, Side::Far] {
        hosts.pair.filter(side, &no_way_in("reject with tcp reset"));
    }
    let output = hosts.push(&["--bwlimit=1M"]).expect(0);
    said_once(&output);
    // A word of refusal in both directions, none of waiting in vain.
    assert_eq!(output.err().matches("a firewall refused it").count(), 2, "{}", output.describe());
    assert!(!output.err().contains("in time"), "{}", output.describe());
    hosts.equal();
    // Both tries were over after one packet each, or one for each IP version.
    for side in [Side::Near, Side::Far] {
        let rejected = hosts.pair.counted(side, "fault").0;
        assert!((1..=2).contains(&rejected), "{rejected} packets");
    }
}

/// One end is stopped as if its machine hung: the other ends within the time-out, and so does the first when it wakes.
#[test]
fn a_peer_that_hangs_is_left() {
    for (push, stop_far) in [(true, true), (true, false), (false, true), (false, false)] {
        let hosts = Hosts::new(40 << 20);
        put(hosts.dst().join("big"), "the old one", OLD);
        hosts.pair.filter(Side::Far, &rules(""));
        let options = ["--bwlimit=3M", "--timeout=3", "--transport", "direct"];
        let mut running = if push { hosts.push(&options) } else { hosts.pull(&options) }.spawn();
        let far = hosts.far_after(&mut running, if push { "lanes_in" } else { "lanes_out" }, 2 * MIB);
        if stop_far {
            signal_process(far, Signal::STOP);
            let output = running.wait();
            signal_process(far, Signal::CONT);
            assert_eq!(output.code(), 30, "{}", output.describe());
        } else {
            running.signal(Signal::STOP);
            hosts.no_far_end();
            running.signal(Signal::CONT);
            let output = running.wait();
            assert!([1, 30].contains(&output.code()), "{}", output.describe());
        }
        hosts.no_far_end();
        assert_eq!(get(hosts.dst().join("big")), b"the old one");
        hosts.push(&[]).expect(0);
        hosts.equal();
    }
}

#[test]
fn a_cut_cable_ends_both_ends() {
    for push in [true, false] {
        let hosts = Hosts::new(40 << 20);
        put(hosts.dst().join("big"), "the old one", OLD);
        hosts.pair.filter(Side::Far, &rules(""));
        let options = ["--bwlimit=3M", "--timeout=3", "--transport", "direct", "--lanes", "4"];
        let mut running = if push { hosts.push(&options) } else { hosts.pull(&options) }.spawn();
        hosts.far_after(&mut running, if push { "lanes_in" } else { "lanes_out" }, 2 * MIB);
        hosts.pair.cable(false);
        let cut_at = hosts.pair.counted(Side::Far, "lanes_in").1;
        let output = running.wait();
        assert_eq!(output.code(), 30, "{}", output.describe());
        // The far end ends by itself: nobody can tell it.
        hosts.no_far_end();
        assert!(hosts.pair.counted(Side::Far, "lanes_in").1 < cut_at + MIB, "the cable was not cut");
        wait_until("the shell's end", || hosts.pair.processes(Side::Near, "ssh_config").is_empty());
        assert_eq!(get(hosts.dst().join("big")), b"the old one");
        hosts.pair.cable(true);
        if push { hosts.push(&[]) } else { hosts.pull(&[]) }.expect(0);
        hosts.equal();
    }
}

#[test]
fn a_link_that_loses_packets_completes() {
    let hosts = Hosts::new(24 << 20);
    fixture::many_files(&hosts.temp.join("src/many"), 2000);
    for side in [Side::Near, Side::Far] {
        hosts.pair.filter(side, &rules("iifname veth0 numgen random mod 100 < 3 counter name fault drop"));
    }
    hosts.push(&["--transport", "direct", "--lanes", "4", "--timeout=30"]).expect(0);
    hosts.equal();
    std::fs::remove_dir_all(hosts.dst()).unwrap();
    hosts.pull(&["--transport", "direct", "--lanes", "8"]).expect(0);
    hosts.equal();
    for side in [Side::Near, Side::Far] {
        assert!(hosts.pair.counted(side, "fault").0 > 5, "hardly anything was lost");
    }
}

#[test]
fn lanes_that_are_reset_end_the_run() {
    for push in [true, false] {
        let hosts = Hosts::new(24 << 20);
        put(hosts.dst().join("big"), "the old one", OLD);
        // The shell's packets pass by a rule of their own: `dport != A sport != A` in one rule is not what it seems.
        let reset = format!(
            "tcp sport {SSH_PORT} accept\n tcp dport {SSH_PORT} accept\n \
             meta l4proto tcp quota over 4 mbytes counter name fault reject with tcp reset"
        );
        let side = if push { Side::Far } else { Side::Near };
        hosts.pair.filter(side, &rules(&reset));
        let options = ["--transport", "direct", "--lanes", "4", "--timeout=20"];
        let output = if push { hosts.push(&options) } else { hosts.pull(&options) }.expect(1);
        output.says(&["connection"]);
        assert!(hosts.pair.counted(side, "fault").0 > 0, "nothing was reset");
        hosts.no_far_end();
        assert_eq!(get(hosts.dst().join("big")), b"the old one");
        hosts.pair.open();
        if push { hosts.push(&[]) } else { hosts.pull(&[]) }.expect(0);
        hosts.equal();
    }
}
