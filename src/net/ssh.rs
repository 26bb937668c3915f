//! What the remote shell's connection tells about how the two hosts reach each other.

/// The two ends of the connection that a remote shell came over, as its server sees them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SshEnds {
    /// Address of who connected.
    pub client: String,
    /// The address that it connected to.
    pub server: String,
}

/// From `SSH_CONNECTION` (`CLIENT PORT SERVER PORT`, sshd(8)); `None` where this process was not started by sshd, or
/// where `sudo` dropped it.
pub fn ssh_ends() -> Option<SshEnds> {
    parse(std::env::var("SSH_CONNECTION").ok()?.as_str())
}

fn parse(text: &str) -> Option<SshEnds> {
    let mut words = text.split_ascii_whitespace();
    let client = words.next()?;
    let server = words.nth(1)?;
    words.next()?;
    // "UNKNOWN" stands where sshd was not reached over TCP.
    let is_address = |word: &str| word.split('%').next().is_some_and(|host| host.parse::<std::net::IpAddr>().is_ok());
    (is_address(client) && is_address(server)).then(|| SshEnds { client: client.to_owned(), server: server.to_owned() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_ends_are_read() {
        let ends = |client: &str, server: &str| Some(SshEnds { client: client.into(), server: server.into() });
        assert_eq!(parse("192.0.2.1 50000 192.0.2.2 22"), ends("192.0.2.1", "192.0.2.2"));
        assert_eq!(parse("2001:db8::1 50000 fe80::1%eth0 22"), ends("2001:db8::1", "fe80::1%eth0"));
        for text in ["", "192.0.2.1", "192.0.2.1 1 192.0.2.2", "UNKNOWN 65535 UNKNOWN 65535", "a 1 b 2"] {
            assert_eq!(parse(text), None, "{text}");
        }
    }
}
