//! Text of everything that is shown, in rsync's layout so that scripts can read it. No IO here.

mod format;
mod info;
mod items;
mod json;
mod modules;
mod numbers;
mod problems;
mod stats;

pub(crate) use format::{Format, FormatContext};
pub(crate) use info::{InfoLevels, Levels};
pub(crate) use items::{link_tail, list_line, name_with_slash};
pub(crate) use json::{JsonEvent, JsonPath, ProgressSnapshot};
pub(crate) use modules::modules;
pub(crate) use numbers::{Human, log_time};
pub(crate) use problems::{ProblemTally, closing_line};
pub(crate) use stats::{log_totals_line, stats_block, totals};
