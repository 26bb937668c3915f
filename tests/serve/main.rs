//! `xfer serve` through the binary: honest clients, rude ones, and signals.
#![allow(clippy::unwrap_used, reason = "tests")]
#![allow(unreachable_pub, reason = "shared by the modules of this program, exported by none")]
#![allow(clippy::print_stderr, reason = "tests talk to whoever runs them")]
#![allow(clippy::disallowed_methods, reason = "tests stand outside the rooms")]

mod bounds;
mod daemon;
mod life;
mod service;
