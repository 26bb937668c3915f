//! `--chmod` rules.

use serde::{Deserialize, Serialize};

/// Parsed `--chmod` rules, applied in order; empty changes nothing.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ChmodRules {}

impl ChmodRules {
    /// The permission bits (`0o7777`) that an entry gets at the destination.
    pub fn apply(&self, mode: u32, _is_dir: bool) -> u32 {
        mode
    }
}
