//! A long line between two network namespaces, without `netem`: two TUN devices and a program between them that delays,
//! limits and loses packets.

pub(crate) mod emulator;
pub(crate) mod line;
pub(crate) mod probe;
pub(crate) mod tun;
