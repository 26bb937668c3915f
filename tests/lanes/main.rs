//! Lanes between two ends on one machine: a real sshd on loopback, a fake remote shell, a daemon.
#![allow(clippy::unwrap_used, reason = "tests")]
#![allow(clippy::disallowed_methods, reason = "tests stand outside the rooms")]

#[path = "../support/mod.rs"]
mod support;

mod between;
mod contents;
mod daemon;
mod ends;
mod secrets;
mod transports;

use std::ffi::OsString;
use std::path::Path;

use support::run::{Call, sync, xfer};
use support::ssh::at;

/// A host that the fake shell runs on and that direct lanes reach.
const HERE: &str = "127.0.0.1";

/// One that the fake shell runs on, and that nobody else finds (RFC 6761).
const NOWHERE: &str = "nowhere.invalid";

/// What `auto` says once when it stays on the shell.
const STAYED: &str = "no direct connection to the other host, the remote shell carries everything";

/// The contents of a directory on `host`.
fn contents(host: &str, dir: &Path) -> OsString {
    let mut address = at(host, dir);
    address.push("/");
    address
}

/// `sync -aH`, with content over direct lanes or not at all.
fn direct(remote: &[OsString], options: &[&str]) -> Call {
    sync(["-aHAX", "--numeric-ids", "--transport", "direct"]).args(remote).args(options)
}

/// Asserts by `xfer verify` that both are equal.
fn verify(remote: &[OsString], source: OsString, destination: OsString) {
    xfer(["verify", "-HAX", "--numeric-ids"]).args(remote).args([source, destination]).expect(0);
}
