//! Filter rules in rsync's syntax: what is hidden from the transfer, and what is protected from deletion.
//!
//! [`FilterRules`] is what the user wrote, in order, with single merge files read in; it crosses the wire. A
//! [`DirFilter`] applies the rules in one directory of one side, per-directory merge files included.

mod dir;
mod error;
mod load;
mod pattern;
mod rule;

use serde::{Deserialize, Serialize};

pub use self::dir::{DirFilter, FilterPlace, MergeDir, MergeReader, Side, Verdict};
pub use self::error::{FilterError, FilterErrorKind, FilterOrigin};
use self::load::{Loaded, Loader, ReadFile};
use self::rule::{Rule, Template, parse_rule};
use crate::limits;

/// Reads a single merge file by name, or says in words why it cannot.
pub type ReadMergeFile<'r> = dyn FnMut(&[u8]) -> Result<Vec<u8>, String> + 'r;

/// Parsed filter rules in order.
///
/// Serialised as the rules' texts, one character for each byte (U+0000 to U+00FF), so that any bytes pass; they are
/// parsed and bounded again when they are read.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(try_from = "Portable", into = "Portable")]
pub struct FilterRules {
    rules: Vec<Loaded>,
    nul_separated: bool,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Portable {
    rules: Vec<String>,
    nul_separated: bool,
}

/// Patterns without a prefix, as `--exclude`, `--include` and their `-from` forms take them.
fn old_style(include: bool) -> Template {
    Template { bare: Some(include), old_prefixes: true, ..Template::default() }
}

fn no_merge_files(file: &[u8]) -> Result<Vec<u8>, FilterError> {
    Err(FilterError::of_file(file, FilterErrorKind::NotPortable))
}

impl FilterRules {
    /// No rules.
    pub fn new() -> FilterRules {
        FilterRules::default()
    }

    /// Whether there are no rules.
    pub fn is_empty(&self) -> bool {
        self.rules.is_empty()
    }

    /// `--from0`: rules in files end at NUL bytes instead of line ends. To be said before any file is pushed; holds
    /// for per-directory merge files too.
    pub fn set_nul_separated(&mut self, nul_separated: bool) {
        self.nul_separated = nul_separated;
    }

    /// `--exclude=PATTERN`. A leading `- ` or `+ ` overrides the kind, `!` clears all rules so far, and an empty
    /// pattern is ignored.
    pub fn push_exclude(&mut self, pattern: &[u8]) -> Result<(), FilterError> {
        self.push_text(pattern, &old_style(false), &mut no_merge_files)
    }

    /// `--include=PATTERN`, as [`FilterRules::push_exclude`].
    pub fn push_include(&mut self, pattern: &[u8]) -> Result<(), FilterError> {
        self.push_text(pattern, &old_style(true), &mut no_merge_files)
    }

    /// `--filter=RULE`. `read` gives the content of a single merge file (`.`) or says why it cannot.
    pub fn push_filter(&mut self, rule: &[u8], read: &mut ReadMergeFile<'_>) -> Result<(), FilterError> {
        let mut read_file =
            |file: &[u8]| read(file).map_err(|reason| FilterError::of_file(file, FilterErrorKind::Unreadable(reason)));
        self.push_text(rule, &Template::default(), &mut read_file)
    }

    /// `--exclude-from`: the content of `file`, whose name is for messages. Blank lines and comments (`#`, `;`) are
    /// left out; lines may begin with `- ` or `+ `, and a line `!` clears all rules so far.
    pub fn push_exclude_from(&mut self, file: &[u8], content: &[u8]) -> Result<(), FilterError> {
        self.push_file(file, content, false)
    }

    /// `--include-from`, as [`FilterRules::push_exclude_from`].
    pub fn push_include_from(&mut self, file: &[u8], content: &[u8]) -> Result<(), FilterError> {
        self.push_file(file, content, true)
    }

    /// `-F`: the first gives `.rsync-filter` files their force, the second excludes them too; more add nothing.
    pub fn push_per_directory_default(&mut self, times: u8) -> Result<(), FilterError> {
        if times == 1 {
            self.push_text(b": /.rsync-filter", &Template::default(), &mut no_merge_files)
        } else if times == 2 {
            self.push_exclude(b".rsync-filter")
        } else {
            Ok(())
        }
    }

    fn push_text(&mut self, text: &[u8], template: &Template, read: &mut ReadFile<'_>) -> Result<(), FilterError> {
        if text.is_empty() {
            return Ok(());
        }
        self.load(|loader| loader.add_text(text, template, read, 0))
    }

    fn push_file(&mut self, file: &[u8], content: &[u8], include: bool) -> Result<(), FilterError> {
        self.load(|loader| loader.add_file(file, content, &old_style(include), &mut no_merge_files, 0))
    }

    /// Runs `add` on the list; after an error the list is as it was or holds what came before the error.
    fn load(&mut self, add: impl FnOnce(&mut Loader) -> Result<(), FilterError>) -> Result<(), FilterError> {
        let mut loader = Loader::new(std::mem::take(&mut self.rules), Vec::new(), Vec::new(), self.nul_separated);
        let outcome = add(&mut loader);
        self.rules = loader.rules;
        outcome
    }
}

impl From<FilterRules> for Portable {
    fn from(rules: FilterRules) -> Portable {
        let text = |rule: &Loaded| match rule {
            Loaded::Pattern(rule) => rule.canonical(),
            Loaded::DirMerge(merge) => merge.canonical(),
        };
        Portable {
            rules: rules.rules.iter().map(|rule| text(rule).into_iter().map(char::from).collect()).collect(),
            nul_separated: rules.nul_separated,
        }
    }
}

impl TryFrom<Portable> for FilterRules {
    type Error = FilterError;

    fn try_from(portable: Portable) -> Result<FilterRules, FilterError> {
        if portable.rules.len() > limits::FILTER_RULES_MAX {
            return Err(FilterError::of_rule(b"", FilterErrorKind::TooManyRules));
        }
        let mut loader = Loader::new(Vec::new(), Vec::new(), Vec::new(), portable.nul_separated);
        for text in &portable.rules {
            let bytes: Result<Vec<u8>, _> = text.chars().map(u8::try_from).collect();
            let bytes = bytes.map_err(|_| FilterError::of_rule(text.as_bytes(), FilterErrorKind::NotPortable))?;
            let of_rule = |kind| FilterError::of_rule(&bytes, kind);
            match parse_rule(&bytes, &Template::default()).map_err(of_rule)? {
                Rule::Pattern(rule) => loader.rules.push(Loaded::Pattern(rule)),
                Rule::Merge(merge) if merge.per_directory && !merge.excludes_itself => {
                    loader.push_dir_merge(merge).map_err(of_rule)?;
                }
                Rule::Merge(_) | Rule::Clear => return Err(of_rule(FilterErrorKind::NotPortable)),
            }
        }
        Ok(FilterRules { rules: loader.rules, nul_separated: portable.nul_separated })
    }
}

#[cfg(test)]
mod tests;
