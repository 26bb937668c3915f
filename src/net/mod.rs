//! Getting bytes to and from another host: addresses, the remote shell, byte links, the throttle. Knows no message.
#![allow(clippy::disallowed_methods, reason = "this is the edge to processes, pipes and the clock of time-outs")]

mod address;
mod link;
mod shell;
mod throttle;

pub use address::{Address, AddressError, DAEMON_PORT_DEFAULT};
pub use link::{LinkError, LinkReader, LinkWriter};
pub use shell::{RemoteShell, ShellChild, ShellError, ShellLink};
pub use throttle::Throttle;
