//! `authorized_keys`: who may use a daemon. One line a key, `[options] xfer-ed25519 BASE64 [comment]`, options separated
//! by commas: `module="NAME"` (may be repeated; none: every module), `read-only`, `write-only`, `from="CIDR,…"`. In
//! quotes, `\"` and `\\` stand for `"` and `\`. A line that is not understood to its end grants nothing. Pure.

use std::fmt::Write as _;
use std::net::IpAddr;

use super::super::{KEY_TYPE, PublicKey};
use super::known_hosts::{BadLine, telling_lines};
use crate::limits;
use crate::model::display_bytes;

/// What a key may do.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct AuthorizedKey {
    /// Modules it may use; `None`: every one.
    pub modules: Option<Vec<String>>,
    /// It may not write.
    pub read_only: bool,
    /// It may not read.
    pub write_only: bool,
    /// What stands behind the key in its line.
    pub comment: String,
}

/// Addresses that begin with the same bits, as `ADDRESS/BITS`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Network {
    address: IpAddr,
    bits: u8,
}

impl Network {
    /// Reads `ADDRESS` or `ADDRESS/BITS`; `None` where bits behind the prefix are set: a typing error would otherwise
    /// let in more, or others, than was meant.
    pub fn parse(text: &str) -> Option<Network> {
        let (address, bits) = match text.split_once('/') {
            Some((address, bits)) if !bits.is_empty() && bits.bytes().all(|byte| byte.is_ascii_digit()) => {
                (address.parse::<IpAddr>().ok()?, Some(bits.parse::<u8>().ok()?))
            }
            Some(_) => return None,
            None => (text.parse::<IpAddr>().ok()?, None),
        };
        let all = if address.is_ipv4() { 32 } else { 128 };
        let network = Network { address, bits: bits.unwrap_or(all) };
        (network.bits <= all && bits_of(address) & !network.mask() == 0).then_some(network)
    }

    /// Whether an address is in it. An IPv4 address that came in as IPv6 is an IPv4 address.
    pub fn contains(&self, address: IpAddr) -> bool {
        let address = address.to_canonical();
        address.is_ipv4() == self.address.is_ipv4() && bits_of(address) & self.mask() == bits_of(self.address)
    }

    /// The prefix's bits, at the top of 128.
    fn mask(&self) -> u128 {
        u128::MAX.checked_shl(128 - u32::from(self.bits)).unwrap_or(0)
    }
}

impl std::fmt::Display for Network {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(out, "{}/{}", self.address, self.bits)
    }
}

/// An address at the top of 128 bits.
fn bits_of(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(address) => u128::from(address.to_bits()) << 96,
        IpAddr::V6(address) => address.to_bits(),
    }
}

/// One line that grants something.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Grant {
    /// Whom.
    pub key: PublicKey,
    /// From where; empty: from anywhere.
    pub from: Vec<Network>,
    /// What.
    pub rights: AuthorizedKey,
}

impl Grant {
    /// Whether this line is about `key` at `peer`.
    pub(super) fn is_for(&self, key: &PublicKey, peer: IpAddr) -> bool {
        self.key == *key && (self.from.is_empty() || self.from.iter().any(|network| network.contains(peer)))
    }

    /// The line, with its line ending.
    pub fn to_line(&self) -> String {
        let mut options: Vec<String> = Vec::new();
        for module in self.rights.modules.iter().flatten() {
            options.push(format!("module={}", quoted(module)));
        }
        for (set, name) in [(self.rights.read_only, "read-only"), (self.rights.write_only, "write-only")] {
            if set {
                options.push(name.to_owned());
            }
        }
        if !self.from.is_empty() {
            let networks: Vec<String> = self.from.iter().map(Network::to_string).collect();
            options.push(format!("from={}", quoted(&networks.join(","))));
        }
        let mut line = options.join(",");
        if !line.is_empty() {
            line.push(' ');
        }
        let _ = write!(line, "{}", self.key);
        if !self.rights.comment.is_empty() {
            let _ = write!(line, " {}", self.rights.comment);
        }
        line.push('\n');
        line
    }
}

fn quoted(value: &str) -> String {
    format!("\"{}\"", value.replace('\\', "\\\\").replace('"', "\\\""))
}

/// Whether a module may be called so, here and in a line.
pub fn is_module_name(name: &str) -> bool {
    !name.is_empty()
        && name.len() <= limits::NAME_BYTES_MAX
        && !name.contains('/')
        && !name.chars().any(char::is_control)
}

/// Reads a whole file: the lines that grant something, and those that were not understood.
pub(super) fn parse(text: &str) -> (Vec<Grant>, Vec<BadLine>) {
    let (mut grants, mut bad) = (Vec::new(), Vec::new());
    for (number, line) in telling_lines(text) {
        match line.and_then(|line| parse_line(line).map_err(|reason| BadLine { number, reason })) {
            Ok(grant) => grants.push(grant),
            Err(line) => bad.push(line),
        }
    }
    (grants, bad)
}

/// Reads one line without white space around it.
pub(super) fn parse_line(line: &str) -> Result<Grant, String> {
    let no_options = line.split([' ', '\t']).next() == Some(KEY_TYPE);
    let (options, key) = if no_options { (Vec::new(), line) } else { split_options(line)? };
    let (key, comment) = super::key_and_comment(key).map_err(|error| error.to_string())?;
    let mut grant =
        Grant { key, from: Vec::new(), rights: AuthorizedKey { comment: comment.to_owned(), ..Default::default() } };
    let rights = &mut grant.rights;
    for option in options {
        match (option.name.as_str(), option.value) {
            ("module", Some(name)) if is_module_name(&name) => rights.modules.get_or_insert_default().push(name),
            ("module", Some(name)) => return Err(format!("'{}' is no module name", display_bytes(name.as_bytes()))),
            ("read-only", None) => rights.read_only = true,
            ("write-only", None) => rights.write_only = true,
            ("from", Some(list)) if grant.from.is_empty() => {
                for text in list.split(',') {
                    let network = Network::parse(text.trim())
                        .ok_or_else(|| format!("'{}' is no network", display_bytes(text.as_bytes())))?;
                    grant.from.push(network);
                }
            }
            ("from", Some(_)) => return Err("option 'from' is given twice".to_owned()),
            ("module" | "from", None) => return Err(format!("option '{}' needs a value in quotes", option.name)),
            ("read-only" | "write-only", Some(_)) => return Err(format!("option '{}' takes no value", option.name)),
            (name, _) => return Err(format!("unknown option '{}'", display_bytes(name.as_bytes()))),
        }
    }
    if rights.read_only && rights.write_only {
        return Err("read-only and write-only together allow nothing".to_owned());
    }
    Ok(grant)
}

struct LineOption {
    name: String,
    value: Option<String>,
}

/// Splits a line into its options and the rest after them.
fn split_options(line: &str) -> Result<(Vec<LineOption>, &str), String> {
    let mut options = Vec::new();
    let mut rest = line;
    loop {
        let end = rest.find([',', '=', ' ', '\t']).ok_or_else(|| format!("no key: '{KEY_TYPE}' is expected"))?;
        let name = rest[..end].to_owned();
        if name.is_empty() {
            return Err("an empty option".to_owned());
        }
        rest = &rest[end..];
        let mut value = None;
        if let Some(after) = rest.strip_prefix('=') {
            let (text, after) = unquoted(after)
                .ok_or_else(|| format!("the value of option '{}' is not in quotes", display_bytes(name.as_bytes())))?;
            value = Some(text);
            rest = after;
        }
        options.push(LineOption { name, value });
        match rest.chars().next() {
            Some(',') => rest = &rest[1..],
            Some(' ' | '\t') => return Ok((options, rest.trim_start())),
            _ => return Err("text after a quoted value".to_owned()),
        }
    }
}

/// Reads `"…"`; the text and what follows it.
fn unquoted(text: &str) -> Option<(String, &str)> {
    let inner = text.strip_prefix('"')?;
    let mut value = String::new();
    let mut characters = inner.char_indices();
    while let Some((at, character)) = characters.next() {
        match character {
            '"' => return Some((value, &inner[at + 1..])),
            '\\' => match characters.next()?.1 {
                escaped @ ('"' | '\\') => value.push(escaped),
                _ => return None,
            },
            other => value.push(other),
        }
    }
    None
}

/// The text with every grant for the same key taken out, and `grant` at its end. Lines that are not understood stay.
pub(super) fn with_grant(text: &str, grant: &Grant) -> String {
    let is_of_key = |line: &str| parse_line(line.trim()).is_ok_and(|other| other.key == grant.key);
    let mut kept = super::ended(text.lines().filter(|line| !is_of_key(line)));
    kept.push_str(&grant.to_line());
    kept
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const KEY: PublicKey = PublicKey([9; 32]);

    fn grant(options: &str) -> Result<Grant, String> {
        parse_line(&format!("{options}{KEY} db1 backup"))
    }

    #[test]
    fn options_are_read() {
        let plain = grant("").unwrap();
        assert_eq!(plain.rights, AuthorizedKey { comment: "db1 backup".into(), ..Default::default() });
        let full = grant(r#"module="a b",read-only,module="c\"\\,d",from="10.0.0.0/8, 2001:db8::/32,192.0.2.1" "#);
        let full = full.unwrap();
        assert_eq!(full.rights.modules, Some(vec!["a b".to_owned(), r#"c"\,d"#.to_owned()]));
        assert!(full.rights.read_only && !full.rights.write_only);
        for (address, allowed) in [
            ("10.255.0.1", true),
            ("::ffff:10.255.0.1", true),
            ("11.0.0.1", false),
            ("2001:db8:1::1", true),
            ("2001:db9::1", false),
            ("192.0.2.1", true),
            ("192.0.2.2", false),
            ("::10.0.0.1", false),
        ] {
            assert_eq!(full.is_for(&KEY, address.parse().unwrap()), allowed, "{address}");
        }
        assert!(!full.is_for(&PublicKey([8; 32]), [10, 0, 0, 1].into()));
    }

    #[test]
    fn what_is_not_understood_grants_nothing() {
        for options in [
            "readonly ",
            "command=\"x\" ",
            "module ",
            "module= ",
            "module=a ",
            "module=\"\" ",
            "module=\"a/b\" ",
            "module=\"a ",
            "module=\"a\\n\" ",
            "module=\"a\"x ",
            "module=\"a\", ",
            ",read-only ",
            "read-only=\"yes\" ",
            "read-only,write-only ",
            "from=\"\" ",
            "from=\"10.0.0.1/8\" ",
            "from=\"10.0.0.0/33\" ",
            "from=\"10.0.0.0/+8\" ",
            "from=\"!10.0.0.0/8\" ",
            "from=\"10.0.0.0/8\",from=\"11.0.0.0/8\" ",
            "Read-Only ",
        ] {
            assert!(grant(options).is_err(), "{options}");
        }
        let text = format!("read-only {KEY}\nbogus {KEY}\n{KEY}x\n# {KEY}\n");
        let (grants, bad) = parse(&text);
        assert_eq!(grants.len(), 1);
        assert_eq!(bad.iter().map(|line| line.number).collect::<Vec<_>>(), [2, 3]);
        assert_eq!(bad[0].reason, "unknown option 'bogus'");
    }

    #[test]
    fn networks_of_any_length() {
        let contains =
            |network: &str, address: &str| Network::parse(network).unwrap().contains(address.parse().unwrap());
        assert!(contains("0.0.0.0/0", "255.255.255.255") && !contains("0.0.0.0/0", "::1"));
        assert!(contains("::/0", "ffff::1") && !contains("::/0", "10.0.0.1"));
        assert!(contains("10.1.2.3/32", "10.1.2.3") && !contains("10.1.2.3/32", "10.1.2.2"));
    }

    #[test]
    fn a_key_has_one_line() {
        let first = grant("module=\"a\" ").unwrap();
        let second = Grant { rights: AuthorizedKey { read_only: true, ..first.rights.clone() }, ..first.clone() };
        let other = Grant { key: PublicKey([1; 32]), ..first.clone() };
        let text = format!("# mine\n{}{}bogus {KEY}", first.to_line(), other.to_line());
        let changed = with_grant(&text, &second);
        assert_eq!(changed, format!("# mine\n{}bogus {KEY}\n{}", other.to_line(), second.to_line()));
        assert_eq!(with_grant(&changed, &second), changed);
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(
            bytes: [u8; 32],
            modules in proptest::option::of(proptest::collection::vec("[ -.0-~]{1,12}", 1..4)),
            read_only: bool,
            networks in proptest::collection::vec((any::<IpAddr>(), 0u8..=32), 0..3),
            comment in "([!-~]{1,8}( [!-~]{1,8})?)?",
        ) {
            let from = networks.into_iter().map(|(address, bits)| {
                let all = if address.is_ipv4() { 32 } else { 128 };
                let mask = u128::MAX.checked_shl(128 - u32::from(bits)).unwrap_or(0);
                let kept = bits_of(address) & mask;
                let address = if all == 32 {
                    IpAddr::from(((kept >> 96) as u32).to_be_bytes())
                } else {
                    IpAddr::from(kept.to_be_bytes())
                };
                Network { address, bits }
            }).collect();
            let rights = AuthorizedKey { modules, read_only, write_only: false, comment };
            let grant = Grant { key: PublicKey(bytes), from, rights };
            prop_assert_eq!(parse_line(grant.to_line().trim_end()), Ok(grant));
        }

        #[test]
        fn no_text_makes_it_panic(text in "[a=,\"\\\\ \t\n\\PC]{0,60}") {
            let _ = parse(&text);
            let _ = parse(&format!("{text} {KEY}"));
            let _ = Network::parse(&text);
        }
    }
}
