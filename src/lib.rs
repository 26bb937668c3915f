//! xfer moves a running service's data to a new home, with proof that it arrived.
//!
//! The crate is a library and a thin binary. Each module is a room, and a room's kind says what it may touch:
//! vocabulary and pure rooms do no IO, edges touch the world but hold no policy, jobs join them, the face talks to
//! people. A room imports only rooms above it; `tests/tidy.rs` holds that.

pub mod limits;

pub mod model;
pub mod monitor;

pub mod plan;

pub mod delta;

pub mod wire;

pub mod fs;

pub mod net;

pub mod sync;

pub mod cli;
