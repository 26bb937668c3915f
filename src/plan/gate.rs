//! Whether anything may be deleted, and how much.

use super::options::{Recursion, SyncOptions};

/// The root that a sync copies from, as it was found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SourceRoot {
    /// It could not be found.
    Missing,
    /// A directory without an entry.
    Empty,
    /// Anything else.
    Present,
}

/// What is known of a run when its transfer has ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RunFacts {
    /// Directories and files of the source that could not be read. What merely vanished does not count.
    pub source_problems: u64,
    /// The source's root.
    pub source_root: SourceRoot,
    /// Every directory in scope was seen listed to its end.
    pub listing_complete: bool,
    /// The far end was lost, or the run was interrupted.
    pub session_broken: bool,
}

/// Whether deletions may be carried out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Gate {
    /// They may, within `--max-delete`.
    Open,
    /// None at all.
    Closed(ClosedReason),
}

/// Why nothing is deleted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ClosedReason {
    /// No deletion was asked for.
    #[error("not asked for")]
    NotAsked,
    /// Without `-r` or `-d` directories are not compared.
    #[error("directories are not copied (no -r or -d)")]
    NotRecursive,
    /// The run did not get to its end.
    #[error("the session broke off")]
    SessionBroken,
    /// The source's root is missing. Nothing overrides this: what is missing may be a mount.
    #[error("the source is missing")]
    SourceMissing,
    /// The source's root is empty, and `--allow-empty-source` was not given.
    #[error("the source is empty (--allow-empty-source overrides)")]
    SourceEmpty,
    /// Part of the source was never listed.
    #[error("the source was not listed to its end")]
    ListingIncomplete,
    /// Part of the source could not be read, and `--ignore-errors` was not given.
    #[error("part of the source could not be read (--ignore-errors overrides)")]
    SourceProblems,
}

/// Whether the run may delete. The receiver asks once, after the transfer.
///
/// An unreadable directory counts as a problem and stays out of the deletion scope; `listing_complete` speaks of
/// listings that should have come and did not, which nothing overrides.
pub fn deletion_gate(facts: &RunFacts, options: &SyncOptions) -> Gate {
    let deletion = &options.deletion;
    let reason = if !deletion.enabled {
        ClosedReason::NotAsked
    } else if options.recursion == Recursion::Skip {
        ClosedReason::NotRecursive
    } else if facts.session_broken {
        ClosedReason::SessionBroken
    } else if facts.source_root == SourceRoot::Missing {
        ClosedReason::SourceMissing
    } else if !facts.listing_complete {
        ClosedReason::ListingIncomplete
    } else if facts.source_problems > 0 && !deletion.ignore_errors {
        ClosedReason::SourceProblems
    } else if facts.source_root == SourceRoot::Empty && !deletion.allow_empty_source {
        ClosedReason::SourceEmpty
    } else {
        return Gate::Open;
    };
    Gate::Closed(reason)
}

/// Accounts for `--max-delete`. Every item counts, directories and what is in them one by one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DeleteBudget {
    max: Option<u64>,
    taken: u64,
    withheld: u64,
}

impl DeleteBudget {
    /// For `--max-delete`; `None` is no limit.
    pub fn new(max: Option<u64>) -> DeleteBudget {
        DeleteBudget { max, taken: 0, withheld: 0 }
    }

    /// Whether one more item may go. Counts it either way: as taken, or as withheld.
    pub fn take(&mut self) -> bool {
        let allowed = self.max.is_none_or(|max| self.taken < max);
        let count = if allowed { &mut self.taken } else { &mut self.withheld };
        *count = count.saturating_add(1);
        allowed
    }

    /// Gives back one that [`DeleteBudget::take`] allowed and that could not be deleted.
    pub fn give_back(&mut self) {
        self.taken = self.taken.saturating_sub(1);
    }

    /// Items that were allowed.
    pub fn taken(&self) -> u64 {
        self.taken
    }

    /// Items that the limit kept: more than none makes the run end with code 25.
    pub fn withheld(&self) -> u64 {
        self.withheld
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::options::Deletion;

    #[test]
    fn the_gate_opens_only_for_a_whole_and_readable_source() {
        let good = RunFacts {
            source_problems: 0,
            source_root: SourceRoot::Present,
            listing_complete: true,
            session_broken: false,
        };
        let deletion = Deletion { enabled: true, ..Deletion::default() };
        let options = |deletion| SyncOptions { recursion: Recursion::Deep, deletion, ..SyncOptions::default() };
        let gate = |facts: RunFacts, deletion| deletion_gate(&facts, &options(deletion));
        assert_eq!(gate(good, deletion), Gate::Open);
        assert_eq!(gate(good, Deletion::default()), Gate::Closed(ClosedReason::NotAsked));
        let flat = SyncOptions { recursion: Recursion::Skip, ..options(deletion) };
        assert_eq!(deletion_gate(&good, &flat), Gate::Closed(ClosedReason::NotRecursive));
        let shallow = SyncOptions { recursion: Recursion::Shallow, ..options(deletion) };
        assert_eq!(deletion_gate(&good, &shallow), Gate::Open);

        let all_overrides = Deletion { ignore_errors: true, allow_empty_source: true, ..deletion };
        for (facts, reason, overridden) in [
            (RunFacts { source_problems: 1, ..good }, ClosedReason::SourceProblems, true),
            (RunFacts { source_root: SourceRoot::Empty, ..good }, ClosedReason::SourceEmpty, true),
            (RunFacts { source_root: SourceRoot::Missing, ..good }, ClosedReason::SourceMissing, false),
            (RunFacts { listing_complete: false, ..good }, ClosedReason::ListingIncomplete, false),
            (RunFacts { session_broken: true, ..good }, ClosedReason::SessionBroken, false),
        ] {
            assert_eq!(gate(facts, deletion), Gate::Closed(reason));
            let expected = if overridden { Gate::Open } else { Gate::Closed(reason) };
            assert_eq!(gate(facts, all_overrides), expected);
        }
        // Each override is for its own reason only.
        let empty_and_unreadable = RunFacts { source_problems: 1, source_root: SourceRoot::Empty, ..good };
        let ignore_errors = Deletion { ignore_errors: true, ..deletion };
        assert_eq!(gate(empty_and_unreadable, ignore_errors), Gate::Closed(ClosedReason::SourceEmpty));
        let allow_empty = Deletion { allow_empty_source: true, ..deletion };
        assert_eq!(gate(empty_and_unreadable, allow_empty), Gate::Closed(ClosedReason::SourceProblems));
    }

    #[test]
    fn the_budget_stops_before_one_too_many() {
        let mut budget = DeleteBudget::new(Some(2));
        assert_eq!([budget.take(), budget.take(), budget.take(), budget.take()], [true, true, false, false]);
        assert_eq!((budget.taken(), budget.withheld()), (2, 2));
        budget.give_back();
        assert!(budget.take());
        assert!(!DeleteBudget::new(Some(0)).take());
        let mut unlimited = DeleteBudget::new(None);
        assert!((0..100).all(|_| unlimited.take()));
    }
}
