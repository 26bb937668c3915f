//! Between the two ends: this machine's loopback, two network namespaces, or an emulated WAN between these.

use std::ffi::OsString;
use std::net::{IpAddr, Ipv4Addr, TcpListener};
use std::process::Command;
use std::str::FromStr;
use std::sync::atomic::Ordering;

use crate::error::{Context, Error, Result};
use crate::process::{argv, command, found, prepare};
use crate::wan::emulator::Emulator;
use crate::wan::line::Line;
use crate::wan::tun;

/// MTU of the emulated line, as on most of the Internet.
const MTU_BYTES: u32 = 1500;
/// Packets that a TUN device holds for its reader. The line has a queue of its own: this one only covers the moments in
/// which the reader does not run.
const DEVICE_QUEUE_PACKETS: u32 = 20_000;
/// Near and far address inside the namespaces; a namespace has no other interface, so nothing can collide.
const NEAR: Ipv4Addr = Ipv4Addr::new(10, 213, 7, 1);
const FAR: Ipv4Addr = Ipv4Addr::new(10, 213, 7, 2);

/// Which link.
#[derive(Clone, Copy, PartialEq, Debug)]
pub(crate) enum LinkKind {
    /// 127.0.0.1 of this machine.
    Loopback,
    /// Two namespaces joined by a veth pair.
    Namespaces,
    /// Two namespaces joined by an emulated line.
    Wan(Line),
}

impl FromStr for LinkKind {
    type Err = String;

    fn from_str(text: &str) -> std::result::Result<LinkKind, String> {
        match text.split_once(':') {
            None if text == "loopback" => Ok(LinkKind::Loopback),
            None if text == "netns" => Ok(LinkKind::Namespaces),
            Some(("wan", line)) => Ok(LinkKind::Wan(line.parse()?)),
            _ => Err(format!("`{text}`: give loopback, netns or wan:RTT_MS,RATE_MBIT,LOSS_PERCENT")),
        }
    }
}

impl std::fmt::Display for LinkKind {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            LinkKind::Loopback => write!(f, "loopback"),
            LinkKind::Namespaces => write!(f, "two network namespaces, veth"),
            LinkKind::Wan(line) => write!(f, "emulated WAN: {line}"),
        }
    }
}

/// A link that is up; goes down with this value.
pub(crate) struct Link {
    /// What it is.
    pub(crate) kind: LinkKind,
    /// The emulated line, if it is one.
    pub(crate) emulator: Option<Emulator>,
    namespaces: Option<Namespaces>,
}

/// The names of both namespaces.
struct Namespaces {
    near: String,
    far: String,
}

impl Drop for Namespaces {
    fn drop(&mut self) {
        for name in [&self.near, &self.far] {
            if let Err(error) = prepare_forced(&argv(["ip", "netns", "delete", name])) {
                eprintln!("xfer-bench: {error}");
            }
        }
    }
}

/// As `prepare`, also after an interruption: what clears away is not left out.
fn prepare_forced(words: &[OsString]) -> Result<()> {
    let output = command(words).output().context(|| "start ip".to_owned())?;
    if output.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stderr).trim().to_owned();
    Err(Error::Command { command: crate::process::shown(words), status: output.status.to_string(), said })
}

fn ip(words: &str) -> Result<()> {
    prepare(&argv(std::iter::once("ip").chain(words.split(' ')))).map(drop)
}

impl Link {
    /// Brings it up. `congestion` is TCP's congestion control at both ends; the kernel's default without.
    pub(crate) fn up(kind: LinkKind, congestion: Option<&str>) -> Result<Link> {
        let mut link = Link { kind, emulator: None, namespaces: None };
        if kind == LinkKind::Loopback {
            return match congestion {
                None => Ok(link),
                Some(_) => Err(Error::Refused(
                    "congestion control is chosen in namespaces of its own: give --link netns or wan:…".to_owned(),
                )),
            };
        }
        if !rustix::process::geteuid().is_root() || !found("ip") {
            return Err(Error::Refused(
                "network namespaces want root and `ip` (apt-get install iproute2); or give --link loopback".to_owned(),
            ));
        }
        let id = std::process::id();
        let (near, far) = (format!("xfer-bench-{id}-near"), format!("xfer-bench-{id}-far"));
        ip(&format!("netns add {near}"))?;
        // From here on both are taken away again, whatever fails.
        let names = link.namespaces.insert(Namespaces { near: near.clone(), far: far.clone() });
        ip(&format!("netns add {}", names.far))?;
        let (near_device, far_device) = (format!("xbn{id}"), format!("xbf{id}"));
        if let LinkKind::Wan(line) = kind {
            let devices = (tun::open(&near_device)?, tun::open(&far_device)?);
            link.emulator = Some(Emulator::start(devices.0, devices.1, &line)?);
        } else {
            ip(&format!("link add {near_device} type veth peer name {far_device}"))?;
        }
        for (name, device, own, other) in [(&near, &near_device, NEAR, FAR), (&far, &far_device, FAR, NEAR)] {
            ip(&format!("link set dev {device} netns {name}"))?;
            ip(&format!("-n {name} link set dev lo up"))?;
            if link.emulator.is_some() {
                let limits = format!("mtu {MTU_BYTES} txqueuelen {DEVICE_QUEUE_PACKETS} addrgenmode none");
                ip(&format!("-n {name} link set dev {device} {limits}"))?;
            }
            ip(&format!("-n {name} addr add {own}/32 peer {other} dev {device}"))?;
            ip(&format!("-n {name} link set dev {device} up"))?;
            if let Some(congestion) = congestion {
                let setting = format!("net.ipv4.tcp_congestion_control={congestion}");
                prepare(&argv(["ip", "netns", "exec", name, "sysctl", "-q", "-w", &setting])).map_err(|error| {
                    // Namespaces may choose only what the host allows to everyone; the host is not ours to change.
                    Error::Refused(format!(
                        "{error}; this host must have {congestion}, and allow it to namespaces, in \
                         net.ipv4.tcp_allowed_congestion_control"
                    ))
                })?;
            }
        }
        Ok(link)
    }

    /// TCP's congestion control at the near end, which sends most: figures of a line with loss hang on it.
    pub(crate) fn congestion(&self) -> String {
        let output = self.near(&argv(["cat", "/proc/sys/net/ipv4/tcp_congestion_control"])).output();
        output.map(|output| String::from_utf8_lossy(&output.stdout).trim().to_owned()).unwrap_or_default()
    }

    /// Where the far end listens.
    pub(crate) fn far_address(&self) -> IpAddr {
        if self.namespaces.is_some() { FAR.into() } else { Ipv4Addr::LOCALHOST.into() }
    }

    /// A port that nobody listens on at the far end.
    pub(crate) fn far_port(&self, number: u16) -> Result<u16> {
        if self.namespaces.is_some() {
            return Ok(20_000 + number);
        }
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).context(|| "look for a free port".to_owned())?;
        Ok(listener.local_addr().context(|| "look for a free port".to_owned())?.port())
    }

    /// `words` at the near end.
    pub(crate) fn near(&self, words: &[OsString]) -> Command {
        self.at(self.namespaces.as_ref().map(|names| &names.near), words)
    }

    /// `words` at the far end.
    pub(crate) fn far(&self, words: &[OsString]) -> Command {
        self.at(self.namespaces.as_ref().map(|names| &names.far), words)
    }

    fn at(&self, namespace: Option<&String>, words: &[OsString]) -> Command {
        match namespace {
            None => command(words),
            Some(name) => command(&[&argv(["ip", "netns", "exec", name])[..], words].concat()),
        }
    }

    /// How a person runs something at the near and the far end.
    pub(crate) fn prefixes(&self) -> Option<(String, String)> {
        let names = self.namespaces.as_ref()?;
        Some((format!("ip netns exec {}", names.near), format!("ip netns exec {}", names.far)))
    }

    /// Bytes that have crossed so far, both ways, IP headers included (with veth Ethernet headers too); `None` on
    /// loopback, where others' would count.
    pub(crate) fn traffic_bytes(&self) -> Result<Option<u64>> {
        if let Some(emulator) = &self.emulator {
            let bytes = emulator.counters.iter().map(|way| way.arrived_bytes.load(Ordering::Relaxed));
            return Ok(Some(bytes.sum()));
        }
        if self.namespaces.is_none() {
            return Ok(None);
        }
        let device = format!("/sys/class/net/xbf{}/statistics", std::process::id());
        let words = argv(["cat".to_owned(), format!("{device}/rx_bytes"), format!("{device}/tx_bytes")]);
        let output = self.far(&words).output().context(|| "read the counters of a device".to_owned())?;
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        let numbers: Vec<u64> = text.split_whitespace().filter_map(|number| number.parse().ok()).collect();
        match numbers[..] {
            [received, sent] => Ok(Some(received + sent)),
            _ => Err(Error::Refused(format!("the counters in {device} cannot be read: `{text}`"))),
        }
    }

    /// Packets that a TUN device dropped because its reader did not run in time: not the line's doing.
    pub(crate) fn overrun_packets(&self) -> Result<u64> {
        let Some(names) = self.namespaces.as_ref().filter(|_| self.emulator.is_some()) else { return Ok(0) };
        let mut sum = 0;
        for (name, device) in [(&names.near, "xbn"), (&names.far, "xbf")] {
            let file = format!("/sys/class/net/{device}{}/statistics/tx_dropped", std::process::id());
            let text = prepare(&argv(["ip", "netns", "exec", name, "cat", &file]))?;
            sum += text.trim().parse::<u64>().unwrap_or(0);
        }
        Ok(sum)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn links_are_named_in_one_way() {
        assert_eq!("loopback".parse(), Ok(LinkKind::Loopback));
        assert_eq!("netns".parse(), Ok(LinkKind::Namespaces));
        assert!(matches!("wan:50,1000,0.1".parse(), Ok(LinkKind::Wan(line)) if line.rtt_ms == 50.0));
        for text in ["", "lo", "wan", "wan:", "wan:1,2", "netns:1"] {
            assert!(text.parse::<LinkKind>().is_err(), "{text}");
        }
    }
}
