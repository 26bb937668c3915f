//! Whether the key that a host presented is believed: known hosts are, unknown ones only when somebody says so, and a
//! host whose key changed never.

use std::fs::OpenOptions;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::sync::Arc;

use super::exit::{Failure, chain_of};
use crate::net::keys::{ClientKeys, HostCheck, HostPort, KeyError, KnownHosts};
use crate::net::{Identity, PublicKey};
use crate::sync::DaemonKeys;

/// Characters of an answer that are read: `yes`, or a fingerprint.
const ANSWER_BYTES_MAX: u64 = 256;

impl From<&KeyError> for Failure {
    fn from(error: &KeyError) -> Failure {
        Failure::failed(chain_of(error))
    }
}

/// What a client does about hosts' keys.
#[derive(Debug)]
pub(crate) struct HostTrust<'a> {
    hosts: &'a KnownHosts,
    accept_new: bool,
}

impl<'a> HostTrust<'a> {
    /// `accept_new`: hosts that are not known are stored without a question (`--accept-new`).
    pub(crate) fn new(hosts: &'a KnownHosts, accept_new: bool) -> HostTrust<'a> {
        HostTrust { hosts, accept_new }
    }

    /// Goes on only with a host that may be believed. `key` is one that the host has proven to own; nothing but the
    /// handshake may have been sent to it.
    pub(crate) fn decide(&self, host: &HostPort, key: &PublicKey) -> Result<(), Failure> {
        self.decide_by(host, key, ask_on_terminal)
    }

    fn decide_by(
        &self,
        host: &HostPort,
        key: &PublicKey,
        ask: impl FnOnce(&HostPort, &PublicKey) -> io::Result<bool>,
    ) -> Result<(), Failure> {
        match self.hosts.check(host, key).map_err(|error| Failure::from(&error))? {
            HostCheck::Known => return Ok(()),
            HostCheck::Changed { path, line, stored } => {
                return Err(Failure::failed(format!(
                    "THE KEY OF {host} HAS CHANGED: it has {}, but {} line {line} says {}; either the host was set up \
                     anew, or somebody stands in between; nothing was sent",
                    key.fingerprint(),
                    path.display(),
                    stored.fingerprint()
                ))
                .with_hint(format!(
                    "ask the host's operator for the line that 'xfer key show' prints there; if it has this \
                     fingerprint: xfer key trust {host} LINE"
                )));
            }
            HostCheck::Unknown => {}
        }
        let agreed = self.accept_new
            || ask(host, key).map_err(|_| {
                Failure::failed(format!("the host {host} is not known: its key is {}", key.fingerprint())).with_hint(
                    format!(
                        "there is no terminal to ask on: compare the fingerprint and run 'xfer key trust {host} LINE' \
                         with the line that 'xfer key show' prints there, or give --accept-new"
                    ),
                )
            })?;
        if !agreed {
            return Err(Failure::failed(format!("the key of {host} was not accepted")));
        }
        self.hosts.remember(host, key).map_err(|error| Failure::from(&error))?;
        // Whoever does not see it loses nothing.
        let _ = writeln!(io::stderr(), "xfer: stored the key of {host}: {}", key.fingerprint());
        Ok(())
    }
}

/// A client's keys for `xfer://` addresses: read when a daemon is met, and not before.
#[derive(Debug)]
pub(crate) struct UserKeys {
    accept_new: bool,
}

impl UserKeys {
    /// `accept_new`: see [`HostTrust::new`].
    pub(crate) fn new(accept_new: bool) -> UserKeys {
        UserKeys { accept_new }
    }
}

impl DaemonKeys for UserKeys {
    fn identity(&self) -> Result<Arc<Identity>, String> {
        ClientKeys::load(None).map(|keys| Arc::new(keys.identity)).map_err(|error| chain_of(&error))
    }

    fn trust(&self, host: &str, port: u16, key: &PublicKey) -> Result<(), String> {
        let host = HostPort::new(host, port).map_err(|error| error.to_string())?;
        HostTrust::new(&KnownHosts::new(None), self.accept_new).decide(&host, key).map_err(|failure| {
            match failure.hint {
                Some(hint) => format!("{} ({hint})", failure.message),
                None => failure.message,
            }
        })
    }
}

/// Asks where a person sits, whatever standard input and output are used for. An error: nobody does.
fn ask_on_terminal(host: &HostPort, key: &PublicKey) -> io::Result<bool> {
    let terminal = OpenOptions::new().read(true).write(true).open("/dev/tty")?;
    write!(
        &terminal,
        "The host {host} is not known yet.\nIts key is {} ({key}).\n\
         Go on and store it (yes, no, or the fingerprint that you expect)? ",
        key.fingerprint()
    )?;
    let mut answers = BufReader::new(&terminal);
    loop {
        let mut answer = String::new();
        if (&mut answers).take(ANSWER_BYTES_MAX).read_line(&mut answer)? == 0 {
            return Ok(false);
        }
        match understood(&answer, key) {
            Some(agreed) => return Ok(agreed),
            None => write!(&terminal, "Please write 'yes', 'no' or the fingerprint: ")?,
        }
    }
}

/// What an answer means. A wrong fingerprint is a clear no.
fn understood(answer: &str, key: &PublicKey) -> Option<bool> {
    match answer.trim() {
        "yes" => Some(true),
        "no" => Some(false),
        fingerprint if fingerprint.starts_with("SHA256:") => Some(fingerprint == key.fingerprint()),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ONE: PublicKey = PublicKey([1; 32]);
    const TWO: PublicKey = PublicKey([2; 32]);

    fn never(_: &HostPort, _: &PublicKey) -> io::Result<bool> {
        panic!("asked")
    }

    #[test]
    fn unknown_hosts_need_a_word_and_changed_ones_are_refused() {
        let temp = tempfile::tempdir().unwrap();
        let hosts = KnownHosts::new(Some(temp.path()));
        let host = HostPort::parse("db1").unwrap();
        let (asking, accepting) = (HostTrust::new(&hosts, false), HostTrust::new(&hosts, true));

        let failure = asking.decide_by(&host, &ONE, |_, _| Err(io::Error::other("no terminal"))).unwrap_err();
        assert!(failure.message.contains("db1") && failure.message.contains(&ONE.fingerprint()), "{failure:?}");
        assert!(failure.hint.unwrap().contains("--accept-new"));
        let failure = asking.decide_by(&host, &ONE, |_, _| Ok(false)).unwrap_err();
        assert!(failure.message.contains("not accepted"), "{failure:?}");
        assert_eq!(hosts.check(&host, &ONE).unwrap(), HostCheck::Unknown);

        asking.decide_by(&host, &ONE, |_, _| Ok(true)).unwrap();
        asking.decide_by(&host, &ONE, never).unwrap();
        for trust in [&asking, &accepting] {
            let failure = trust.decide_by(&host, &TWO, never).unwrap_err();
            assert!(failure.message.contains("HAS CHANGED"), "{failure:?}");
        }
        let other = HostPort::parse("db2").unwrap();
        accepting.decide_by(&other, &TWO, never).unwrap();
        assert_eq!(hosts.check(&other, &TWO).unwrap(), HostCheck::Known);
    }

    #[test]
    fn answers_are_understood_or_asked_for_again() {
        assert_eq!(understood("yes\n", &ONE), Some(true));
        assert_eq!(understood(" no \n", &ONE), Some(false));
        assert_eq!(understood(&ONE.fingerprint(), &ONE), Some(true));
        assert_eq!(understood(&TWO.fingerprint(), &ONE), Some(false));
        for answer in ["", "y", "YES", "sha256:x"] {
            assert_eq!(understood(answer, &ONE), None, "{answer}");
        }
    }
}
