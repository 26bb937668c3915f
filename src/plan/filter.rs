//! Filter rules.

use serde::{Deserialize, Serialize};

/// Parsed filter rules in order.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FilterRules {}
