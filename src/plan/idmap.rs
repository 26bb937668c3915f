//! `--usermap`, `--groupmap`, `--chown`.

use serde::{Deserialize, Serialize};

/// Parsed maps; empty maps change nothing.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct IdMaps {}
