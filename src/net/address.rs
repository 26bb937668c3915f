//! What a SRC or DST argument names, read as rsync reads it: a colon before any slash makes it remote.

use crate::model::display_bytes;

/// TCP port of `xfer serve` where an `xfer://` address names none.
pub const DAEMON_PORT_DEFAULT: u16 = 7788;

const DAEMON_SCHEME: &[u8] = b"xfer://";
const RSYNC_SCHEME: &[u8] = b"rsync://";

/// A tree's place, as one command-line argument names it. Bytes are kept as they were given.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Address {
    /// A path on this host; never empty.
    Local(Vec<u8>),
    /// `[user@]host:path`, reached over a remote shell.
    Shell {
        /// The part before the last `@` of the host specification; never empty, never begins with `-`.
        user: Option<Vec<u8>>,
        /// Host name or address, without the brackets of an IPv6 address; never empty, never begins with `-`.
        host: Vec<u8>,
        /// Everything after the colon; empty for the remote home directory.
        path: Vec<u8>,
    },
    /// `xfer://host[:port]/module[/path]`, reached at a daemon.
    Daemon {
        /// Host name or address, without brackets.
        host: String,
        /// TCP port; [`DAEMON_PORT_DEFAULT`] where none was given.
        port: u16,
        /// First component of the path; empty where the daemon's modules are to be listed.
        module: Vec<u8>,
        /// What follows the module and its slash; may be empty, may end in a slash.
        path: Vec<u8>,
    },
}

/// Why an argument is not an address. Each message says what to write.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AddressError {
    /// The argument is empty: most often an unset variable in a script.
    #[error("empty path: write '.' for the current directory")]
    EmptyPath,
    /// Nothing stands before the colon.
    #[error("no host in '{address}': write HOST:PATH, or './{address}' for a local file with a colon in its name")]
    EmptyHost {
        /// The argument, escaped.
        address: String,
    },
    /// `@` with nothing before it.
    #[error("no user in '{address}': write USER@HOST:PATH, or leave out the '@'")]
    EmptyUser {
        /// The argument, escaped.
        address: String,
    },
    /// A host or user that the remote shell would take for an option.
    #[error(
        "'{part}' begins with '-', which the remote shell would take for an option: \
         write './{address}' if a local file is meant"
    )]
    LooksLikeOption {
        /// The host or user, escaped.
        part: String,
        /// The argument, escaped.
        address: String,
    },
    /// `host::module` or `rsync://`.
    #[error(
        "'{address}' names an rsync daemon, and xfer does not speak rsync's protocol: \
         write HOST:PATH to go over a remote shell, or xfer://HOST/MODULE/PATH for an 'xfer serve' daemon"
    )]
    RsyncDaemon {
        /// The argument, escaped.
        address: String,
    },
    /// An `xfer://` address whose parts cannot be made out.
    #[error("{reason} in '{address}': write xfer://HOST[:PORT]/MODULE[/PATH], with [..] around an IPv6 address")]
    BadDaemon {
        /// What is wrong.
        reason: &'static str,
        /// The argument, escaped.
        address: String,
    },
}

/// The parts of `[user@]host:path`.
struct HostSpec<'a> {
    user: Option<&'a [u8]>,
    host: &'a [u8],
    path: &'a [u8],
}

impl Address {
    /// Reads one argument.
    pub fn parse(argument: &[u8]) -> Result<Address, AddressError> {
        Address::parse_after(argument, None)
    }

    /// Reads one argument of several: `:path` then means the host of `previous`, as in `host:a :b`.
    pub fn parse_after(argument: &[u8], previous: Option<&Address>) -> Result<Address, AddressError> {
        if argument.is_empty() {
            return Err(AddressError::EmptyPath);
        }
        if has_scheme(argument, RSYNC_SCHEME) {
            return Err(AddressError::RsyncDaemon { address: display_bytes(argument) });
        }
        if has_scheme(argument, DAEMON_SCHEME) {
            return parse_daemon(argument, &argument[DAEMON_SCHEME.len()..]);
        }
        let Some(spec) = split_host(argument) else {
            return Ok(Address::Local(argument.to_vec()));
        };
        if spec.path.first() == Some(&b':') {
            return Err(AddressError::RsyncDaemon { address: display_bytes(argument) });
        }
        if spec.host.is_empty()
            && spec.user.is_none()
            && let Some(Address::Shell { user, host, .. }) = previous
        {
            return Ok(Address::Shell { user: user.clone(), host: host.clone(), path: spec.path.to_vec() });
        }
        if spec.host.is_empty() {
            return Err(AddressError::EmptyHost { address: display_bytes(argument) });
        }
        if spec.user.is_some_and(<[u8]>::is_empty) {
            return Err(AddressError::EmptyUser { address: display_bytes(argument) });
        }
        for part in [Some(spec.host), spec.user].into_iter().flatten() {
            if part.first() == Some(&b'-') {
                return Err(AddressError::LooksLikeOption {
                    part: display_bytes(part),
                    address: display_bytes(argument),
                });
            }
        }
        Ok(Address::Shell { user: spec.user.map(<[u8]>::to_vec), host: spec.host.to_vec(), path: spec.path.to_vec() })
    }

    /// Whether another host is meant.
    pub fn is_remote(&self) -> bool {
        !matches!(self, Address::Local(_))
    }

    /// The path at its end: local, remote, or beneath the module.
    pub fn path(&self) -> &[u8] {
        match self {
            Address::Local(path) | Address::Shell { path, .. } | Address::Daemon { path, .. } => path,
        }
    }
}

fn has_scheme(argument: &[u8], scheme: &[u8]) -> bool {
    argument.get(..scheme.len()).is_some_and(|start| start.eq_ignore_ascii_case(scheme))
}

/// Splits at the colon that makes an argument remote; `None` where there is none before the first slash, or where
/// brackets do not enclose exactly the host.
fn split_host(argument: &[u8]) -> Option<HostSpec<'_>> {
    let mut host_start = 0usize;
    let mut at = 0;
    loop {
        match argument.get(at)? {
            b'/' => return None,
            b':' => {
                let user = host_start.checked_sub(1).map(|end| &argument[..end]);
                return Some(HostSpec { user, host: &argument[host_start..at], path: &argument[at + 1..] });
            }
            b'@' => host_start = at + 1,
            b'[' => {
                if at != host_start {
                    return None;
                }
                let length = argument[at + 1..].iter().position(|&byte| byte == b']' || byte == b'/')?;
                let end = at + 1 + length;
                if length == 0 || argument[end] != b']' || argument.get(end + 1) != Some(&b':') {
                    return None;
                }
                let user = host_start.checked_sub(1).map(|end| &argument[..end]);
                return Some(HostSpec { user, host: &argument[at + 1..end], path: &argument[end + 2..] });
            }
            _ => {}
        }
        at += 1;
    }
}

/// Reads what follows `xfer://`.
fn parse_daemon(argument: &[u8], rest: &[u8]) -> Result<Address, AddressError> {
    let bad = |reason| AddressError::BadDaemon { reason, address: display_bytes(argument) };
    let slash = rest.iter().position(|&byte| byte == b'/').unwrap_or(rest.len());
    let (authority, path) = rest.split_at(slash);
    let authority = std::str::from_utf8(authority).map_err(|_| bad("host is not UTF-8"))?;
    if authority.contains('@') {
        return Err(bad("a user has no meaning (keys identify the client)"));
    }
    let (host, port) = match authority.strip_prefix('[') {
        Some(bracketed) => {
            let (host, after) = bracketed.split_once(']').ok_or_else(|| bad("no closing ']'"))?;
            match after.strip_prefix(':') {
                Some(port) => (host, Some(port)),
                None if after.is_empty() => (host, None),
                None => return Err(bad("text after ']'")),
            }
        }
        None => match authority.split_once(':') {
            Some((_, port)) if port.contains(':') => return Err(bad("an IPv6 address without brackets")),
            Some((host, port)) => (host, Some(port)),
            None => (authority, None),
        },
    };
    if host.is_empty() {
        return Err(bad("no host"));
    }
    if host.starts_with('-') || host.chars().any(|character| character.is_control() || character.is_whitespace()) {
        return Err(bad("not a host name"));
    }
    let port = match port {
        None => DAEMON_PORT_DEFAULT,
        // `u16::from_str` takes a leading `+`.
        Some(digits) if !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit()) => {
            digits.parse().ok().filter(|&port| port != 0).ok_or_else(|| bad("port out of range"))?
        }
        Some(_) => return Err(bad("port is not a number")),
    };
    let path = path.strip_prefix(b"/").unwrap_or_default();
    let (module, path) = match path.iter().position(|&byte| byte == b'/') {
        Some(slash) => (&path[..slash], &path[slash + 1..]),
        None => (path, &path[path.len()..]),
    };
    if module.is_empty() && !path.is_empty() {
        return Err(bad("no module"));
    }
    Ok(Address::Daemon { host: host.to_owned(), port, module: module.to_vec(), path: path.to_vec() })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn shell(user: Option<&str>, host: &str, path: &str) -> Address {
        let bytes = |text: &str| text.as_bytes().to_vec();
        Address::Shell { user: user.map(bytes), host: bytes(host), path: bytes(path) }
    }

    fn daemon(host: &str, port: u16, module: &str, path: &str) -> Address {
        Address::Daemon { host: host.to_owned(), port, module: module.into(), path: path.into() }
    }

    #[test]
    fn addresses_are_read_as_rsync_reads_them() {
        let table = [
            ("h:p", shell(None, "h", "p")),
            ("u@h:p", shell(Some("u"), "h", "p")),
            ("u@x@h:p", shell(Some("u@x"), "h", "p")),
            ("h:", shell(None, "h", "")),
            ("h:/a:b", shell(None, "h", "/a:b")),
            ("h:a@b", shell(None, "h", "a@b")),
            ("h:~/x y;$(z)", shell(None, "h", "~/x y;$(z)")),
            ("[::1]:p", shell(None, "::1", "p")),
            ("[::1]:", shell(None, "::1", "")),
            ("u@[fe80::1%eth0]:p", shell(Some("u"), "fe80::1%eth0", "p")),
            ("h:-p", shell(None, "h", "-p")),
            ("XFER://h/m", daemon("h", DAEMON_PORT_DEFAULT, "m", "")),
            ("xfer://h", daemon("h", DAEMON_PORT_DEFAULT, "", "")),
            ("xfer://h:99/", daemon("h", 99, "", "")),
            ("xfer://h:99/m/a/b/", daemon("h", 99, "m", "a/b/")),
            ("xfer://[::1]:99/m/", daemon("::1", 99, "m", "")),
            ("xfer://[fe80::1%eth0]/m/../x", daemon("fe80::1%eth0", DAEMON_PORT_DEFAULT, "m", "../x")),
        ];
        for (argument, expected) in table {
            assert_eq!(Address::parse(argument.as_bytes()), Ok(expected), "{argument}");
        }
    }

    #[test]
    fn what_has_no_colon_before_a_slash_is_local() {
        for local in ["./a:b", "a/b:c", "/h:p", "a", "-", "u@h", "[]:p", "a[b:c", "[::1]x:p", "[::1]", "[a/b]:c", "x[:"]
        {
            assert_eq!(Address::parse(local.as_bytes()), Ok(Address::Local(local.into())), "{local}");
        }
        assert_eq!(Address::parse(b"\xff:\xfe").unwrap().path(), b"\xfe");
    }

    #[test]
    fn hostile_and_mistaken_addresses_are_refused() {
        let kind = |argument: &str| Address::parse(argument.as_bytes()).unwrap_err();
        assert_eq!(kind(""), AddressError::EmptyPath);
        for argument in [":p", "u@:p", "@:p"] {
            assert!(matches!(kind(argument), AddressError::EmptyHost { .. }), "{argument}");
        }
        assert!(matches!(kind("@h:p"), AddressError::EmptyUser { .. }));
        for argument in ["-oProxyCommand=id:p", "u@-h:p", "-l@h:p", "[-x]:p", "-o@x@h:p"] {
            assert!(matches!(kind(argument), AddressError::LooksLikeOption { .. }), "{argument}");
        }
        for argument in ["h::m", "u@h::m/p", "[::1]::m", "rsync://h/m", "RSYNC://h/m", "::m"] {
            assert!(matches!(kind(argument), AddressError::RsyncDaemon { .. }), "{argument}");
        }
        for argument in [
            "xfer://",
            "xfer:///m",
            "xfer://h//p",
            "xfer://h:/m",
            "xfer://h:0/m",
            "xfer://h:65536/m",
            "xfer://h:+1/m",
            "xfer://::1/m",
            "xfer://[::1/m",
            "xfer://[::1]x/m",
            "xfer://u@h/m",
            "xfer://-h/m",
            "xfer://a b/m",
        ] {
            assert!(matches!(kind(argument), AddressError::BadDaemon { .. }), "{argument}");
        }
        assert!(!kind("\u{1b}c::m").to_string().contains('\u{1b}'));
    }

    #[test]
    fn further_sources_may_leave_out_the_host() {
        let first = Address::parse(b"u@h:a").unwrap();
        assert_eq!(Address::parse_after(b":b", Some(&first)), Ok(shell(Some("u"), "h", "b")));
        assert!(Address::parse_after(b"::b", Some(&first)).is_err());
        assert!(Address::parse_after(b":b", Some(&Address::Local(b"x".to_vec()))).is_err());
    }

    proptest! {
        #[test]
        fn no_argument_yields_an_option(argument in proptest::collection::vec(prop_oneof![
            Just(b':'), Just(b'@'), Just(b'['), Just(b']'), Just(b'-'), Just(b'/'), any::<u8>()], 0..12)) {
            if let Ok(Address::Shell { user, host, .. }) = Address::parse(&argument) {
                prop_assert!(host.first().is_some_and(|&byte| byte != b'-'));
                prop_assert!(user.is_none_or(|user| user.first().is_some_and(|&byte| byte != b'-')));
                prop_assert!(!host.contains(&b'/'));
            }
        }
    }
}
