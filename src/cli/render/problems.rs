//! Problems at the end: grouped, counted, the first of each group named.

use std::collections::BTreeMap;

use super::super::exit::Code;
use crate::model::{Problem, ProblemKind};

/// Up to so many problems still stand just above the end; they are not repeated.
const REPEATED_FROM: u64 = 10;

/// Problems named one by one in each group of the closing summary; all of them were told as they happened.
const NAMED_MAX: usize = 20;

#[derive(Debug, Default)]
struct GroupOf {
    count: u64,
    named: Vec<String>,
}

/// Problems by kind.
#[derive(Debug, Default)]
pub(crate) struct ProblemTally {
    groups: BTreeMap<ProblemKind, GroupOf>,
}

impl ProblemTally {
    /// Counts one.
    pub(crate) fn add(&mut self, problem: &Problem) {
        let group = self.groups.entry(problem.kind).or_default();
        group.count += 1;
        if group.named.len() < NAMED_MAX {
            group.named.push(problem.to_string());
        }
    }

    /// Problems that have an effect on the exit code.
    pub(crate) fn count(&self) -> u64 {
        self.groups.iter().filter(|(kind, _)| **kind != ProblemKind::Warning).map(|(_, group)| group.count).sum()
    }

    /// The groups, each with a heading and its first problems. Warnings were told and are not repeated.
    pub(crate) fn summary(&self) -> Vec<String> {
        let mut lines = Vec::new();
        for (kind, group) in self.groups.iter().filter(|(kind, _)| **kind != ProblemKind::Warning) {
            lines.push(format!("{}:", phrase(*kind, group.count)));
            lines.extend(group.named.iter().map(|text| format!("  {text}")));
            let further = group.count - group.named.len() as u64;
            if further > 0 {
                lines.push(format!("  ... and {further} more"));
            }
        }
        lines
    }

    /// The groups, where the problems have scrolled away.
    pub(crate) fn closing_groups(&self) -> Vec<String> {
        if self.count() > REPEATED_FROM { self.summary() } else { Vec::new() }
    }

    fn in_words(&self) -> String {
        let parts: Vec<String> = self
            .groups
            .iter()
            .filter(|(kind, _)| **kind != ProblemKind::Warning)
            .map(|(kind, group)| phrase(*kind, group.count))
            .collect();
        parts.join(", ")
    }
}

fn phrase(kind: ProblemKind, count: u64) -> String {
    let words = match (kind, count) {
        (ProblemKind::Source, 1) => "item of the source could not be read",
        (ProblemKind::Source, _) => "items of the source could not be read",
        (ProblemKind::Destination, 1) => "item of the destination could not be written",
        (ProblemKind::Destination, _) => "items of the destination could not be written",
        (ProblemKind::Vanished, 1) => "file vanished",
        (ProblemKind::Vanished, _) => "files vanished",
        (ProblemKind::Changed, 1) => "file kept changing while it was read",
        (ProblemKind::Changed, _) => "files kept changing while they were read",
        (ProblemKind::Differs, 1) => "item differs",
        (ProblemKind::Differs, _) => "items differ",
        (ProblemKind::Warning, 1) => "warning",
        (ProblemKind::Warning, _) => "warnings",
    };
    format!("{count} {words}")
}

/// The last line of a run that did not end with code 0; `None` where all is well.
pub(crate) fn closing_line(tally: &ProblemTally, code: Code) -> Option<String> {
    let number = code.number();
    let count = tally.count();
    if code == Code::Complete {
        return None;
    }
    if code == Code::Interrupted {
        let so_far = if count == 0 { String::new() } else { format!("; until then: {}", tally.in_words()) };
        return Some(format!("interrupted (code {number}): what was complete stays; run it again to go on{so_far}"));
    }
    if count == 0 {
        let meaning = code.meaning();
        let why = meaning.strip_prefix("finished, but ").unwrap_or(meaning);
        return Some(format!("finished (code {number}): {why}"));
    }
    let problems = if count == 1 { "problem" } else { "problems" };
    let and_limit = if code == Code::MaxDelete { "; --max-delete stopped the deletion" } else { "" };
    Some(format!("finished with {count} {problems} (code {number}): {}{and_limit}", tally.in_words()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Operation;

    fn tally(source: usize, vanished: usize) -> ProblemTally {
        let mut tally = ProblemTally::default();
        for index in 0..source {
            let path = format!("dir/file {index}");
            tally.add(&Problem::new(ProblemKind::Source, Operation::Open, path, "Permission denied"));
        }
        for index in 0..vanished {
            tally.add(&Problem::new(ProblemKind::Vanished, Operation::Open, format!("gone{index}\n"), ""));
        }
        tally.add(&Problem::new(ProblemKind::Warning, Operation::Create, "data", "nested"));
        tally
    }

    #[test]
    fn problems_are_grouped_and_counted() {
        insta::assert_snapshot!(tally(2, 1).summary().join("\n"), @r#"
        2 items of the source could not be read:
          cannot open "dir/file 0": Permission denied
          cannot open "dir/file 1": Permission denied
        1 file vanished:
          file has vanished: "gone0\#012"
        "#);
        let many = tally(25, 0);
        assert_eq!(many.summary().len(), 22);
        assert_eq!(many.summary().last().map(String::as_str), Some("  ... and 5 more"));
        assert_eq!(many.count(), 25);
    }

    #[test]
    fn the_last_line_names_the_code() {
        assert_eq!(closing_line(&tally(0, 0), Code::Complete), None);
        assert_eq!(
            closing_line(&tally(2, 1), Code::Partial).unwrap(),
            "finished with 3 problems (code 23): 2 items of the source could not be read, 1 file vanished"
        );
        assert_eq!(
            closing_line(&tally(0, 0), Code::MaxDelete).unwrap(),
            "finished (code 25): --max-delete stopped the deletion"
        );
        assert!(closing_line(&tally(1, 0), Code::Interrupted).unwrap().starts_with("interrupted (code 130)"));
    }
}
