//! `known_hosts`: which key a host has. One line a key, `host[:port] xfer-ed25519 BASE64 [comment]`; empty lines and
//! lines that begin with `#` say nothing. The port is left out where it is the default one. Pure.

use std::fmt;
use std::net::IpAddr;

use super::super::{DAEMON_PORT_DEFAULT, KEY_TYPE, PublicKey};
use crate::limits;
use crate::model::display_bytes;

/// A host and a TCP port, in the one spelling in which they are compared: names in lower case, IP addresses in their
/// canonical form without brackets.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct HostPort {
    host: String,
    port: u16,
}

/// Why a text is no host.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{0}: write HOST, HOST:PORT, or [ADDRESS]:PORT around an IPv6 address")]
pub struct HostError(&'static str);

impl HostPort {
    /// From parts that were understood already.
    pub fn new(host: &str, port: u16) -> Result<HostPort, HostError> {
        if host.is_empty() {
            return Err(HostError("no host"));
        }
        let allowed = |character: char| !character.is_control() && !character.is_whitespace();
        if host.starts_with(['-', '#']) || host.contains(['[', ']', ',']) || !host.chars().all(allowed) {
            return Err(HostError("not a host name"));
        }
        if port == 0 {
            return Err(HostError("port 0 cannot be connected to"));
        }
        let host = match host.parse::<IpAddr>() {
            Ok(address) => address.to_canonical().to_string(),
            Err(_) => host.to_lowercase(),
        };
        Ok(HostPort { host, port })
    }

    /// Reads `host`, `host:port`, `[address]`, `[address]:port`, or an IPv6 address alone.
    pub fn parse(text: &str) -> Result<HostPort, HostError> {
        if text.parse::<IpAddr>().is_ok() {
            return HostPort::new(text, DAEMON_PORT_DEFAULT);
        }
        let (host, port) = match text.strip_prefix('[') {
            Some(rest) => {
                let (host, after) = rest.split_once(']').ok_or(HostError("no closing ']'"))?;
                match after.strip_prefix(':') {
                    Some(port) => (host, Some(port)),
                    None if after.is_empty() => (host, None),
                    None => return Err(HostError("text after ']'")),
                }
            }
            None => match text.split_once(':') {
                Some((_, rest)) if rest.contains(':') => return Err(HostError("an IPv6 address without brackets")),
                Some((host, port)) => (host, Some(port)),
                None => (text, None),
            },
        };
        let port = match port {
            None => DAEMON_PORT_DEFAULT,
            // `u16::from_str` takes a leading `+`.
            Some(digits) if !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit()) => {
                digits.parse().map_err(|_| HostError("port out of range"))?
            }
            Some(_) => return Err(HostError("port is not a number")),
        };
        HostPort::new(host, port)
    }

    /// The host, without brackets.
    pub fn host(&self) -> &str {
        &self.host
    }

    /// The TCP port.
    pub fn port(&self) -> u16 {
        self.port
    }
}

impl fmt::Display for HostPort {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.host.contains(':'), self.port == DAEMON_PORT_DEFAULT) {
            (true, true) => write!(out, "[{}]", self.host),
            (true, false) => write!(out, "[{}]:{}", self.host, self.port),
            (false, true) => write!(out, "{}", self.host),
            (false, false) => write!(out, "{}:{}", self.host, self.port),
        }
    }
}

/// One line that names a host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct HostLine {
    /// Counted from 1.
    pub(super) number: usize,
    pub(super) host: HostPort,
    pub(super) key: PublicKey,
}

/// A line that cannot be read: its number, counted from 1, and why.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct BadLine {
    pub(super) number: usize,
    pub(super) reason: String,
}

/// Lines that say something, numbered from 1.
pub(super) fn telling_lines(text: &str) -> impl Iterator<Item = (usize, Result<&str, BadLine>)> {
    let numbered = text.lines().enumerate().map(|(index, line)| (index + 1, line.trim()));
    numbered.filter(|(_, line)| !line.is_empty() && !line.starts_with('#')).map(|(number, line)| {
        let max = limits::KEY_LINE_BYTES_MAX;
        let fits = line.len() <= max;
        let reason = || format!("the line is longer than {max} bytes");
        (number, if fits { Ok(line) } else { Err(BadLine { number, reason: reason() }) })
    })
}

/// Reads a whole file. The first line that cannot be read ends it: passed over, it would turn a known host into an
/// unknown one.
pub(super) fn parse(text: &str) -> Result<Vec<HostLine>, BadLine> {
    telling_lines(text)
        .map(|(number, line)| {
            let line = line?;
            let bad = |reason: String| BadLine { number, reason };
            let (host, key) = line
                .split_once([' ', '\t'])
                .ok_or_else(|| bad(format!("no key: HOST {KEY_TYPE} BASE64 is expected")))?;
            let host =
                HostPort::parse(host).map_err(|error| bad(format!("'{}': {error}", display_bytes(host.as_bytes()))))?;
            let key = super::key_of(key).map_err(|error| bad(error.to_string()))?;
            Ok(HostLine { number, host, key })
        })
        .collect()
}

/// The line to add.
pub(super) fn line_of(host: &HostPort, key: &PublicKey) -> String {
    format!("{host} {key}\n")
}

/// The text without the lines of `host`.
pub(super) fn without(text: &str, host: &HostPort) -> String {
    let is_of_host = |line: &str| {
        let name = line.trim().split([' ', '\t']).next().unwrap_or_default();
        HostPort::parse(name).is_ok_and(|named| named == *host)
    };
    super::ended(text.lines().filter(|line| !is_of_host(line)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const KEY: PublicKey = PublicKey([7; 32]);

    #[test]
    fn hosts_are_compared_in_one_spelling() {
        let table = [
            ("DB1.Example", "db1.example"),
            ("db1:7788", "db1"),
            ("db1:99", "db1:99"),
            ("[db1]:99", "db1:99"),
            ("2001:DB8::0:1", "[2001:db8::1]"),
            ("[2001:db8::1]:7788", "[2001:db8::1]"),
            ("[::1]:99", "[::1]:99"),
            ("::ffff:10.0.0.1", "10.0.0.1"),
            ("10.0.0.1:99", "10.0.0.1:99"),
        ];
        for (text, expected) in table {
            assert_eq!(HostPort::parse(text).unwrap().to_string(), expected, "{text}");
        }
        for text in ["", ":99", "a:", "a:0", "a:65536", "a:+1", "[::1", "[::1]x", "a:1:2", "-a", "#a", "a b", "a,b"] {
            assert!(HostPort::parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn lines_are_read_and_bad_ones_named() {
        let text = format!("# ours\n\n  db1 {KEY} backup host\nDB2:99\t{KEY}\n");
        let lines = parse(&text).unwrap();
        let found: Vec<_> = lines.iter().map(|line| (line.number, line.host.to_string())).collect();
        assert_eq!(found, [(3, "db1".to_owned()), (4, "db2:99".to_owned())]);
        assert!(lines.iter().all(|line| line.key == KEY));
        for (text, number) in [
            ("db1".to_owned(), 1),
            (format!("# x\ndb1 {KEY}\ndb2 ssh-ed25519 AAAA"), 3),
            (format!("a:b:c {KEY}"), 1),
            (format!("db1 {KEY} {}", "x".repeat(limits::KEY_LINE_BYTES_MAX)), 1),
        ] {
            assert_eq!(parse(&text).unwrap_err().number, number, "{text}");
        }
    }

    #[test]
    fn a_host_is_taken_out_and_the_rest_stays() {
        let text = format!("# db1 {KEY}\nDB1:7788 {KEY}\ndb1:99 {KEY} c");
        let host = HostPort::parse("db1").unwrap();
        assert_eq!(without(&text, &host), format!("# db1 {KEY}\ndb1:99 {KEY} c\n"));
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(name in "[a-zA-Z0-9.]{1,20}", port in 1u16.., bytes: [u8; 32]) {
            let host = HostPort::new(&name, port).unwrap();
            let lines = parse(&line_of(&host, &PublicKey(bytes))).unwrap();
            prop_assert_eq!(lines, vec![HostLine { number: 1, host, key: PublicKey(bytes) }]);
        }

        #[test]
        fn addresses_keep_their_meaning(address: IpAddr, port in 1u16..) {
            let host = HostPort::new(&address.to_string(), port).unwrap();
            prop_assert_eq!(HostPort::parse(&host.to_string()), Ok(host));
        }

        #[test]
        fn no_text_makes_it_panic(text in "[a:\\[\\]# \t\n\\PC]{0,60}") {
            let _ = parse(&text);
            if let Ok(host) = HostPort::parse(&text) {
                prop_assert_eq!(HostPort::parse(&host.to_string()), Ok(host));
            }
        }
    }
}
