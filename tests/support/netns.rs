//! Two network namespaces joined by a cable, with packet filters of their own. What is in them is gone with the value.

use std::io::Write;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};

use rustix::process::Signal;

use super::run::signal_process;
use super::ssh::{Place, Sshd};
use super::{need, need_root};

/// The port of the sshd in the far namespace.
pub const SSH_PORT: u16 = 2222;

/// Names of namespaces begin so; the number of the process that made them follows.
const PREFIX: &str = "xfer-test-";

static PAIRS: AtomicU32 = AtomicU32::new(0);

/// One of the two.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Side {
    Near,
    Far,
}

/// The pair: `10.99.0.1` near, `10.99.0.2` far, each on `veth0`.
pub struct Pair {
    names: [String; 2],
}

impl Pair {
    /// Makes a pair. What a killed test program left is removed first.
    pub fn new() -> Pair {
        need_root("makes network namespaces");
        need("ip", "iproute2");
        need("nft", "nftables");
        sweep();
        let number = PAIRS.fetch_add(1, Ordering::Relaxed);
        let name = |side: &str| format!("{PREFIX}{}-{number}-{side}", std::process::id());
        let pair = Pair { names: [name("near"), name("far")] };
        let [near, far] = &pair.names;
        ip(&format!("netns add {near}"));
        ip(&format!("netns add {far}"));
        ip(&format!("link add veth0 netns {near} type veth peer name veth0 netns {far}"));
        for (name, address) in [(near, "10.99.0.1"), (far, "10.99.0.2")] {
            ip(&format!("-n {name} addr add {address}/24 dev veth0"));
            ip(&format!("-n {name} link set lo up"));
            ip(&format!("-n {name} link set veth0 up"));
        }
        pair
    }

    /// An sshd in the far one, for clients in the near one.
    pub fn sshd(&self) -> Sshd {
        Sshd::start_at(&Place {
            address: Some("10.99.0.2".to_owned()),
            port: Some(SSH_PORT),
            far: self.exec(Side::Far),
            near: self.exec(Side::Near),
        })
    }

    fn name(&self, side: Side) -> &str {
        &self.names[side as usize]
    }

    /// The words that run a command in one of them.
    pub fn exec(&self, side: Side) -> Vec<String> {
        ["ip", "netns", "exec", self.name(side)].map(str::to_owned).to_vec()
    }

    /// Loads rules of the packet filter.
    pub fn filter(&self, side: Side, rules: &str) {
        let words = self.exec(side);
        let mut child = Command::new(&words[0])
            .args(&words[1..])
            .args(["nft", "-f", "-"])
            .stdin(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        child.stdin.take().unwrap().write_all(rules.as_bytes()).unwrap();
        let output = child.wait_with_output().unwrap();
        assert!(output.status.success(), "nft: {}\n{rules}", String::from_utf8_lossy(&output.stderr));
    }

    /// Takes all rules away.
    pub fn open(&self) {
        self.filter(Side::Near, "flush ruleset\n");
        self.filter(Side::Far, "flush ruleset\n");
    }

    /// Packets and bytes that a named counter has seen.
    pub fn counted(&self, side: Side, counter: &str) -> (u64, u64) {
        let words = self.exec(side);
        let output = Command::new(&words[0])
            .args(&words[1..])
            .args(["nft", "list", "counter", "inet", "test", counter])
            .output()
            .unwrap();
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        let after = |word: &str| {
            let mut words = text.split_ascii_whitespace().skip_while(|next| *next != word);
            words.nth(1).and_then(|number| number.parse().ok()).unwrap_or_else(|| panic!("{counter}: {text}"))
        };
        (after("packets"), after("bytes"))
    }

    /// Cuts or mends the cable.
    pub fn cable(&self, is_whole: bool) {
        ip(&format!("-n {} link set veth0 {}", self.name(Side::Near), if is_whole { "up" } else { "down" }));
    }

    /// Processes in one of them whose command line holds `part`.
    pub fn processes(&self, side: Side, part: &str) -> Vec<u32> {
        pids(self.name(side))
            .into_iter()
            .filter(|&id| super::run::process(id).is_some_and(|process| process.command.contains(part)))
            .collect()
    }
}

impl Drop for Pair {
    fn drop(&mut self) {
        self.names.iter().for_each(|name| remove(name));
    }
}

fn pids(name: &str) -> Vec<u32> {
    let output = Command::new("ip").args(["netns", "pids", name]).output().unwrap();
    String::from_utf8_lossy(&output.stdout).split_ascii_whitespace().filter_map(|word| word.parse().ok()).collect()
}

/// Never panics: it runs while a test fails.
fn remove(name: &str) {
    for id in pids(name) {
        signal_process(id, Signal::KILL);
    }
    let _ = Command::new("ip").args(["netns", "del", name]).stderr(Stdio::null()).status();
}

/// Namespaces of test programs that are gone.
fn sweep() {
    let output = Command::new("ip").args(["netns", "list"]).output().unwrap();
    for line in String::from_utf8_lossy(&output.stdout).lines() {
        let Some(name) = line.split_ascii_whitespace().next() else { continue };
        let owner = name.strip_prefix(PREFIX).and_then(|rest| rest.split('-').next());
        if owner.is_some_and(|id| !std::path::Path::new(&format!("/proc/{id}")).exists()) {
            remove(name);
        }
    }
}

fn ip(words: &str) {
    let output = Command::new("ip").args(words.split(' ')).output().unwrap();
    assert!(output.status.success(), "ip {words}: {}", String::from_utf8_lossy(&output.stderr));
}
