//! One pattern of a filter rule, matched against a path.

use crate::plan::glob::{Glob, Start, has_wildcard};

/// A compiled pattern.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Pattern {
    matcher: Matcher,
    scope: Scope,
    /// It began with `/`.
    anchored: bool,
    /// It ended in `/`: directories only.
    dirs_only: bool,
    /// It ends in `***`: a directory is matched as if its path ended in a slash.
    dir_with_slash: bool,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Matcher {
    Literal(Box<[u8]>),
    /// `*` and then no wildcard, against one component: by far the most frequent kind.
    Suffix(Box<[u8]>),
    Glob(Glob),
}

/// The part of the path that has to match.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Scope {
    /// The last component.
    Name,
    /// As many last components as the pattern has.
    Tail { slashes: usize },
    /// Everything from any component on: an inner or trailing `**` without an anchor.
    AnyComponent,
    /// Everything, with a slash put before it, so that a leading `**/` matches at the top too.
    WholeAfterSlash,
    /// Everything.
    Whole,
}

impl Pattern {
    /// Compiles the pattern of a rule.
    pub(super) fn new(pattern: &[u8]) -> Pattern {
        let (pattern, dirs_only) = match pattern {
            [body @ .., b'/'] if !body.is_empty() => (body, true),
            _ => (pattern, false),
        };
        let (body, anchored) = match pattern {
            [b'/', body @ ..] => (body, true),
            _ => (pattern, false),
        };
        let slashes = body.iter().filter(|&&byte| byte == b'/').count();
        let wild = has_wildcard(body);
        let double_star = body.windows(2).any(|pair| pair == b"**");
        let scope = if anchored {
            Scope::Whole
        } else if body.starts_with(b"**") {
            Scope::WholeAfterSlash
        } else if double_star {
            Scope::AnyComponent
        } else if slashes > 0 {
            Scope::Tail { slashes }
        } else {
            Scope::Name
        };
        let matcher = match body {
            _ if !wild => Matcher::Literal(body.into()),
            [b'*', suffix @ ..] if scope == Scope::Name && !has_wildcard(suffix) && !suffix.contains(&b'\\') => {
                Matcher::Suffix(suffix.into())
            }
            _ => Matcher::Glob(Glob::new(body)),
        };
        Pattern { matcher, scope, anchored, dirs_only, dir_with_slash: wild && body.ends_with(b"***") }
    }

    /// Whether it is tied to the directory of its rule.
    pub(super) fn is_anchored(&self) -> bool {
        self.anchored
    }

    /// Whether `path` (relative to what the pattern is anchored to, without outer slashes) matches.
    pub(super) fn matches(&self, path: &[u8], is_dir: bool) -> bool {
        if self.dirs_only && !is_dir {
            return false;
        }
        let text = match self.scope {
            Scope::Name => tail(path, 0),
            Scope::Tail { slashes } => tail(path, slashes),
            Scope::AnyComponent | Scope::WholeAfterSlash | Scope::Whole => path,
        };
        match &self.matcher {
            Matcher::Literal(literal) => text == &literal[..],
            Matcher::Suffix(suffix) => text.ends_with(suffix),
            Matcher::Glob(glob) => {
                let before: &[u8] = if self.scope == Scope::WholeAfterSlash { b"/" } else { b"" };
                let after: &[u8] = if self.dir_with_slash && is_dir { b"/" } else { b"" };
                let start = if self.scope == Scope::AnyComponent { Start::AnyComponent } else { Start::Beginning };
                glob.matches_parts(&[before, text, after], start)
            }
        }
    }
}

/// The last `slashes + 1` components of `path`, or all of it.
fn tail(path: &[u8], slashes: usize) -> &[u8] {
    let cut = path.iter().enumerate().rev().filter(|(_, byte)| **byte == b'/').nth(slashes);
    cut.map_or(path, |(slash, _)| &path[slash + 1..])
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What rsync 3.5 matched in one tree: a line is a pattern, then all that it matches, tab-separated; directories
    /// end in a slash. The first line is the whole tree.
    const OBSERVED: &str = include_str!("../../../tests/data/filter-patterns.tsv");

    #[test]
    fn patterns_match_what_rsync_matches() {
        let mut lines = OBSERVED.lines().map(|line| line.split('\t').collect::<Vec<_>>());
        let tree = lines.next().unwrap();
        let mut checked = 0;
        for line in lines {
            let pattern = Pattern::new(line[0].as_bytes());
            for path in &tree {
                let (name, is_dir) = path.strip_suffix('/').map_or((*path, false), |name| (name, true));
                let expected = line[1..].contains(path);
                assert_eq!(pattern.matches(name.as_bytes(), is_dir), expected, "{} on {path}", line[0]);
            }
            checked += 1;
        }
        assert!(checked > 80);
    }
}
