//! What can be wrong with filter rules.

use crate::limits;
use crate::model::display_bytes;

/// What is wrong with a rule or a file of rules.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FilterErrorKind {
    /// The text begins with no known kind of rule.
    #[error("unknown filter rule")]
    UnknownRule,
    /// A modifier that the kind of rule does not have, or one that contradicts another.
    #[error("modifier '{}' is not valid here", display_bytes(&[*.0]))]
    Modifier(u8),
    /// A rule without its pattern or file name.
    #[error("the pattern or file name is missing")]
    Incomplete,
    /// `!` with something after it.
    #[error("'!' takes no argument")]
    ClearWithArgument,
    /// The rule names a side, and the merge rule that read it does too.
    #[error("the side is already set by the rule that merges this file")]
    SideTwice,
    /// `-C`: the built-in list of what CVS ignores.
    #[error("the built-in CVS excludes ('C' on an exclude) are not supported; name the patterns")]
    CvsDefaults,
    /// A merge rule whose file name ends in a slash.
    #[error("not the name of a file")]
    NotAFileName,
    /// A pattern longer than `limits::FILTER_PATTERN_BYTES_MAX`.
    #[error("pattern longer than {} bytes", limits::FILTER_PATTERN_BYTES_MAX)]
    PatternTooLong,
    /// More rules than `limits::FILTER_RULES_MAX`.
    #[error("more than {} filter rules", limits::FILTER_RULES_MAX)]
    TooManyRules,
    /// More kinds of per-directory files than `limits::FILTER_DIR_MERGES_MAX`.
    #[error("more than {} per-directory merge files", limits::FILTER_DIR_MERGES_MAX)]
    TooManyMerges,
    /// A file that is larger than `limits::FILTER_FILE_BYTES_MAX`, together with those that it merges.
    #[error("larger than {} bytes, with what it merges", limits::FILTER_FILE_BYTES_MAX)]
    FileTooLarge,
    /// Merge files that merge each other more than `limits::FILTER_MERGE_DEPTH_MAX` deep.
    #[error("merge files nested more than {} deep", limits::FILTER_MERGE_DEPTH_MAX)]
    NestedTooDeep,
    /// Merge files that read more than `limits::FILTER_MERGE_FILES_MAX` others, counted each time.
    #[error("more than {} merge files read", limits::FILTER_MERGE_FILES_MAX)]
    TooManyFiles,
    /// A file that a rule names could not be read.
    #[error("cannot read: {0}")]
    Unreadable(String),
    /// A rule from a peer that only a client may resolve.
    #[error("not valid between two ends of a transfer")]
    NotPortable,
}

/// Where a rule was read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FilterOrigin {
    /// The file, as named or as found.
    pub file: Vec<u8>,
    /// Line, from 1; `None` where the whole file is meant.
    pub line: Option<usize>,
}

/// A filter rule, or a file of them, that cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{}", describe(.rule, .origin, .kind))]
pub struct FilterError {
    /// The rule; empty where a file is meant.
    pub rule: Vec<u8>,
    /// The file; `None` for a rule of the command line.
    pub origin: Option<FilterOrigin>,
    /// What is wrong.
    pub kind: FilterErrorKind,
}

impl FilterError {
    /// About a whole file.
    pub fn of_file(file: &[u8], kind: FilterErrorKind) -> FilterError {
        FilterError { rule: Vec::new(), origin: Some(FilterOrigin { file: file.to_vec(), line: None }), kind }
    }

    /// About one rule of the command line.
    pub fn of_rule(rule: &[u8], kind: FilterErrorKind) -> FilterError {
        FilterError { rule: rule.to_vec(), origin: None, kind }
    }
}

fn describe(rule: &[u8], origin: &Option<FilterOrigin>, kind: &FilterErrorKind) -> String {
    let place = match origin {
        Some(FilterOrigin { file, line: Some(line) }) => format!(" ({}, line {line})", display_bytes(file)),
        Some(FilterOrigin { file, line: None }) => format!(" ({})", display_bytes(file)),
        None => String::new(),
    };
    if rule.is_empty() {
        return format!("filter file{place}: {kind}");
    }
    // A rule can be as long as a file allows; its beginning says which one it is.
    let shown = display_bytes(&rule[..rule.len().min(200)]);
    format!("filter rule \"{shown}\"{place}: {kind}")
}
