//! Decisions: options, filters, comparison, deletion gates, id and mode maps, what a module allows. No IO, no clock.

pub mod chmod;
pub mod compare;
pub mod filter;
pub mod gate;
pub mod glob;
pub mod idmap;
pub mod mode;
pub mod module;
pub mod options;
pub mod size;
