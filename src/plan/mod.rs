//! Decisions: options, filters, comparison, deletion gates, id and mode maps. No IO, no clock.

pub mod chmod;
pub mod compare;
pub mod filter;
pub mod idmap;
pub mod options;
