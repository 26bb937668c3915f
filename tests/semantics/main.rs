//! What each option means. Wherever rsync has the feature, rsync itself is the oracle: the same command in two
//! copies of the same surroundings must leave the same surroundings and the same exit code.
#![allow(clippy::unwrap_used, reason = "tests")]
#![allow(clippy::disallowed_methods, reason = "tests stand outside the rooms")]

#[path = "../support/mod.rs"]
mod support;

mod attributes;
mod backup;
mod deletion;
mod kinds;
mod links;
mod output;
mod paths;
mod selection;
