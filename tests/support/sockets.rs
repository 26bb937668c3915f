//! TCP sockets of running processes, as the kernel tells of them.

use std::collections::{BTreeMap, HashSet};
use std::process::Command;

use super::need;
use super::run::{Process, binary, family};

/// One TCP socket of a process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TcpSocket {
    pub local_port: u16,
    pub remote_port: u16,
    pub listens: bool,
    pub is_established: bool,
}

/// The sockets that a process holds; none when it is gone.
pub fn tcp_sockets(process: u32) -> Vec<TcpSocket> {
    let held: HashSet<String> = std::fs::read_dir(format!("/proc/{process}/fd"))
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|entry| std::fs::read_link(entry.path()).ok())
        .filter_map(|target| Some(target.to_str()?.strip_prefix("socket:[")?.strip_suffix(']')?.to_owned()))
        .collect();
    let tables = ["tcp", "tcp6"].map(|name| std::fs::read_to_string(format!("/proc/{process}/net/{name}")));
    let mut found = Vec::new();
    for line in tables.iter().flatten().flat_map(|text| text.lines().skip(1)) {
        let words: Vec<&str> = line.split_ascii_whitespace().collect();
        if words.len() < 10 || !held.contains(words[9]) {
            continue;
        }
        let port = |address: &str| u16::from_str_radix(address.rsplit(':').next().unwrap(), 16).unwrap();
        found.push(TcpSocket {
            local_port: port(words[1]),
            remote_port: port(words[2]),
            listens: words[3] == "0A",
            is_established: words[3] == "01",
        });
    }
    found
}

/// Established connections of a process.
pub fn connections(process: u32) -> Vec<TcpSocket> {
    tcp_sockets(process).into_iter().filter(|socket| socket.is_established).collect()
}

/// Far ends (`serve --stdio`) among the descendants of `root`: the program itself, no shell around it.
pub fn far_ends(root: u32) -> Vec<Process> {
    let program = std::fs::canonicalize(binary()).unwrap();
    family(root)
        .into_iter()
        .filter(|process| process.command.contains("serve --stdio"))
        .filter(|process| std::fs::read_link(format!("/proc/{}/exe", process.id)).is_ok_and(|exe| exe == program))
        .collect()
}

/// Bytes that each connection with `port` at its near end has received so far, by its peer's port.
pub fn received_bytes(port: u16) -> BTreeMap<u16, u64> {
    need("ss", "iproute2");
    let output = Command::new("ss").args(["-tinH", &format!("sport = :{port}")]).output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let mut found = BTreeMap::new();
    let mut peer = None;
    for word in text.split_ascii_whitespace() {
        if let Some(bytes) = word.strip_prefix("bytes_received:") {
            if let Some(peer) = peer {
                found.insert(peer, bytes.parse().unwrap());
            }
        } else if let Some((_, port)) = word.rsplit_once(':')
            && let (Ok(port), true) = (port.parse(), word.contains('.') || word.contains('['))
        {
            // The peer's address stands last before the counters.
            peer = Some(port);
        }
    }
    found
}

/// Waits for what has no promised time; panics when it does not come.
pub fn wait_until(what: &str, mut is: impl FnMut() -> bool) {
    let started = std::time::Instant::now();
    while !is() {
        assert!(started.elapsed().as_secs() < 60, "waited in vain for {what}");
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
}
