//! From rule texts and files of them to a list in which only include, exclude and dir-merge rules are left.

use super::error::{FilterError, FilterErrorKind, FilterOrigin};
use super::rule::{MergeRule, PatternRule, Rule, Template, parse_rule, split_file};
use crate::limits;

/// Reads a merge file by name.
pub(super) type ReadFile<'r> = dyn FnMut(&[u8]) -> Result<Vec<u8>, FilterError> + 'r;

/// A rule of a loaded list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Loaded {
    Pattern(PatternRule),
    /// A per-directory merge rule.
    DirMerge(MergeRule),
}

/// A list that is being loaded.
#[derive(Debug)]
pub(super) struct Loader {
    pub(super) rules: Vec<Loaded>,
    /// A `!` was met: what stood before this list is void too.
    pub(super) cleared: bool,
    pub(super) nul_separated: bool,
    /// Names of the dir-merge rules that are in force; one that is named again adds nothing.
    names: Vec<Box<[u8]>>,
    /// How many of `names` come from outside this list, and so survive a `!`.
    outer_names: usize,
    /// Merge files read so far: files that merge each other twice would be read 2 to the power of their depth times.
    files_read: usize,
    /// Bytes of all files so far.
    bytes_read: u64,
}

impl Loader {
    /// Continues `rules`, in a place where `outer_names` are looked for already, and `inherited_names` by lists that
    /// a `!` makes void.
    pub(super) fn new(
        rules: Vec<Loaded>,
        outer_names: Vec<Box<[u8]>>,
        inherited_names: Vec<Box<[u8]>>,
        nul_separated: bool,
    ) -> Loader {
        let outer_count = outer_names.len();
        let mut names = outer_names;
        names.extend(inherited_names);
        names.extend(rules.iter().filter_map(|rule| match rule {
            Loaded::DirMerge(merge) => Some(merge.base_name().into()),
            Loaded::Pattern(_) => None,
        }));
        Loader { rules, cleared: false, nul_separated, names, outer_names: outer_count, files_read: 0, bytes_read: 0 }
    }

    /// Adds the rules of a file's content.
    pub(super) fn add_file(
        &mut self,
        file: &[u8],
        content: &[u8],
        template: &Template,
        read: &mut ReadFile<'_>,
        depth: usize,
    ) -> Result<(), FilterError> {
        self.bytes_read = self.bytes_read.saturating_add(content.len() as u64);
        if self.bytes_read > limits::FILTER_FILE_BYTES_MAX {
            return Err(FilterError::of_file(file, FilterErrorKind::FileTooLarge));
        }
        for (line, text) in split_file(content, template, self.nul_separated) {
            self.add_text(text, template, read, depth).map_err(|error| match error.origin {
                Some(_) => error,
                None => {
                    let origin = Some(FilterOrigin { file: file.to_vec(), line: Some(line) });
                    FilterError { origin, ..error }
                }
            })?;
        }
        Ok(())
    }

    /// Adds one rule. Errors of its own text come without an origin.
    pub(super) fn add_text(
        &mut self,
        text: &[u8],
        template: &Template,
        read: &mut ReadFile<'_>,
        depth: usize,
    ) -> Result<(), FilterError> {
        let of_text = |kind| FilterError::of_rule(text, kind);
        match parse_rule(text, template).map_err(of_text)? {
            Rule::Clear => {
                self.rules.clear();
                self.names.truncate(self.outer_names);
                self.cleared = true;
            }
            Rule::Pattern(rule) => self.push(Loaded::Pattern(rule)).map_err(of_text)?,
            Rule::Merge(merge) => {
                if merge.excludes_itself {
                    self.push(Loaded::Pattern(PatternRule::exclude(merge.base_name()))).map_err(of_text)?;
                }
                if merge.per_directory {
                    self.push_dir_merge(MergeRule { excludes_itself: false, ..merge }).map_err(of_text)?;
                } else {
                    if depth >= limits::FILTER_MERGE_DEPTH_MAX {
                        return Err(of_text(FilterErrorKind::NestedTooDeep));
                    }
                    self.files_read += 1;
                    if self.files_read > limits::FILTER_MERGE_FILES_MAX {
                        return Err(of_text(FilterErrorKind::TooManyFiles));
                    }
                    let content = read(&merge.file)?;
                    self.add_file(&merge.file, &content, &merge.template, read, depth + 1)?;
                }
            }
        }
        Ok(())
    }

    /// Adds a dir-merge rule, unless its file is looked for already.
    pub(super) fn push_dir_merge(&mut self, merge: MergeRule) -> Result<(), FilterErrorKind> {
        if self.names.iter().any(|name| &name[..] == merge.base_name()) {
            return Ok(());
        }
        if self.names.len() >= limits::FILTER_DIR_MERGES_MAX {
            return Err(FilterErrorKind::TooManyMerges);
        }
        self.names.push(merge.base_name().into());
        self.push(Loaded::DirMerge(merge))
    }

    /// The names of the dir-merge rules that are in force, outer ones included.
    pub(super) fn into_names(self) -> Vec<Box<[u8]>> {
        self.names
    }

    fn push(&mut self, rule: Loaded) -> Result<(), FilterErrorKind> {
        if self.rules.len() >= limits::FILTER_RULES_MAX {
            return Err(FilterErrorKind::TooManyRules);
        }
        self.rules.push(rule);
        Ok(())
    }
}
