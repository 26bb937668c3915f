//! The receiver's book of directories: announced, begun, and not listed to their end yet.

use std::collections::{BTreeMap, HashMap};

use super::FlowError;
use crate::model::{DirId, Name};

/// Directories that may still be listed. What a peer announces costs little: consecutive numbers of one depth are one
/// run, whatever their names are; a name is kept only between a directory's first piece and its last.
#[derive(Debug)]
pub(super) struct OpenDirectories {
    /// Announced and not begun, by the first number of each run.
    announced: BTreeMap<u64, Run>,
    begun: HashMap<u64, Begun>,
    next: u64,
    /// Directories in `announced` and `begun`.
    outstanding: usize,
    outstanding_max: usize,
    begun_max: usize,
}

/// Directories with consecutive numbers. Small: a peer that lists every second directory makes many of them.
#[derive(Debug, Clone, Copy)]
struct Run {
    count: u32,
    depth: u16,
}

#[derive(Debug)]
struct Begun {
    last_name: Name,
    depth: u16,
}

/// A directory that may be listed.
#[derive(Debug, Clone, Copy)]
pub(super) struct OpenDirectory<'a> {
    /// Last name of its piece before; none before its first.
    pub(super) last_name: Option<&'a Name>,
    /// Levels below the root.
    pub(super) depth: usize,
}

impl OpenDirectories {
    /// Only the root may be listed.
    pub(super) fn new(outstanding_max: usize, begun_max: usize) -> OpenDirectories {
        OpenDirectories {
            announced: BTreeMap::from([(DirId::ROOT.0, Run { count: 1, depth: 0 })]),
            begun: HashMap::new(),
            next: DirId::ROOT.0 + 1,
            outstanding: 1,
            outstanding_max,
            begun_max,
        }
    }

    /// The number that the next directory gets.
    pub(super) fn next(&self) -> DirId {
        DirId(self.next)
    }

    /// Whether every directory was listed to its end.
    pub(super) fn is_empty(&self) -> bool {
        self.outstanding == 0
    }

    /// A directory that may be listed; `None` where it was not announced, or has ended.
    pub(super) fn get(&self, dir: DirId) -> Option<OpenDirectory<'_>> {
        if let Some(begun) = self.begun.get(&dir.0) {
            return Some(OpenDirectory { last_name: Some(&begun.last_name), depth: usize::from(begun.depth) });
        }
        let (_, run) = self.run_of(dir)?;
        Some(OpenDirectory { last_name: None, depth: usize::from(run.depth) })
    }

    fn run_of(&self, dir: DirId) -> Option<(u64, Run)> {
        let (&first, &run) = self.announced.range(..=dir.0).next_back()?;
        (dir.0 - first < u64::from(run.count)).then_some((first, run))
    }

    /// A piece of an open directory came: its last name where more follows, none where the directory ends.
    pub(super) fn advance(&mut self, dir: DirId, last_name: Option<Name>) -> Result<(), FlowError> {
        if let Some((first, run)) = self.run_of(dir) {
            self.take(dir, first, run);
            if let Some(last_name) = last_name {
                self.begun.insert(dir.0, Begun { last_name, depth: run.depth });
            } else {
                self.outstanding -= 1;
            }
        } else if let Some(last_name) = last_name {
            if let Some(begun) = self.begun.get_mut(&dir.0) {
                begun.last_name = last_name;
            }
        } else if self.begun.remove(&dir.0).is_some() {
            self.outstanding -= 1;
        }
        if self.begun.len() > self.begun_max {
            return Err(FlowError::Excess { what: "directories at once" });
        }
        Ok(())
    }

    /// Takes one directory out of its run.
    fn take(&mut self, dir: DirId, first: u64, run: Run) {
        self.announced.remove(&first);
        // Both fit: the run had as many.
        let before = (dir.0 - first) as u32;
        let after = run.count - before - 1;
        for (first, count) in [(first, before), (dir.0 + 1, after)] {
            if count > 0 {
                self.announced.insert(first, Run { count, depth: run.depth });
            }
        }
    }

    /// The next `count` numbers are directories `depth` levels below the root.
    pub(super) fn announce(&mut self, count: u64, depth: usize) -> Result<(), FlowError> {
        let excess = || FlowError::Excess { what: "directories" };
        let count = u32::try_from(count).map_err(|_| excess())?;
        let depth = u16::try_from(depth).map_err(|_| excess())?;
        if count == 0 {
            return Ok(());
        }
        if count as usize > self.outstanding_max.saturating_sub(self.outstanding) {
            return Err(excess());
        }
        self.outstanding += count as usize;
        match self.announced.last_entry() {
            Some(mut last) if last.key() + u64::from(last.get().count) == self.next && last.get().depth == depth => {
                last.get_mut().count += count;
            }
            _ => {
                self.announced.insert(self.next, Run { count, depth });
            }
        }
        self.next += u64::from(count);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use allocation_counter::measure;
    use proptest::prelude::*;

    use super::*;
    use crate::limits;

    fn book() -> OpenDirectories {
        OpenDirectories::new(limits::DIRECTORIES_OUTSTANDING_MAX, limits::DIRECTORIES_BEGUN_MAX)
    }

    fn name(text: &str) -> Name {
        Name::new(text.as_bytes()).unwrap()
    }

    /// A directory of a million directories, announced piece by piece, and then listed in the order given.
    fn crowded(order: impl Iterator<Item = u64>) -> (usize, u64) {
        let mut runs_max = 0;
        let measured = measure(|| {
            let mut dirs = book();
            let whole = MILLION / limits::LISTING_PIECE_ENTRIES_MAX as u64;
            for piece in 0..whole {
                let last = (piece + 1 < whole).then(|| name("some name of a directory"));
                dirs.advance(DirId::ROOT, last).unwrap();
                dirs.announce(limits::LISTING_PIECE_ENTRIES_MAX as u64, 1).unwrap();
            }
            assert_eq!(dirs.announced.len(), 1);
            for dir in order {
                assert!(dirs.get(DirId(dir)).is_some());
                dirs.advance(DirId(dir), None).unwrap();
                assert!(dirs.get(DirId(dir)).is_none());
                runs_max = runs_max.max(dirs.announced.len());
            }
            assert!(dirs.is_empty() && dirs.announced.is_empty() && dirs.begun.is_empty());
        });
        (runs_max, measured.bytes_max)
    }

    const MILLION: u64 = 1 << 20;

    #[test]
    fn a_million_directories_are_one_run() {
        for (runs_max, bytes) in [crowded(1..=MILLION), crowded((1..=MILLION).rev())] {
            assert_eq!(runs_max, 1);
            assert!(bytes < 10_000, "{bytes} bytes");
        }
    }

    /// The worst order makes a run of every second directory, and still takes less than their names would.
    #[test]
    fn directories_listed_in_any_order_stay_small() {
        let (runs_max, bytes) = crowded((1..=MILLION).step_by(2).chain((2..=MILLION).step_by(2)));
        assert_eq!(runs_max as u64, MILLION / 2);
        assert!(bytes / (MILLION / 2) < 48, "{bytes} bytes for {runs_max} runs");
        // Odd multipliers permute the numbers below a power of two.
        let scattered = (0..MILLION).map(|index| 1 + index.wrapping_mul(0x9e37_79b1) % MILLION);
        let (runs_max, bytes) = crowded(scattered);
        assert!(runs_max > 1_000 && bytes / (MILLION / 2) < 48, "{bytes} bytes for {runs_max} runs");
    }

    #[test]
    fn both_bounds_hold() {
        let mut dirs = OpenDirectories::new(5, 2);
        assert_eq!(dirs.announce(5, 1), Err(FlowError::Excess { what: "directories" }));
        assert_eq!(dirs.announce(4, 1), Ok(()));
        assert_eq!(dirs.announce(1, 1), Err(FlowError::Excess { what: "directories" }));
        // What has begun still counts; what has ended does not.
        assert_eq!(dirs.advance(DirId::ROOT, Some(name("a"))), Ok(()));
        assert_eq!(dirs.announce(1, 1), Err(FlowError::Excess { what: "directories" }));
        assert_eq!(dirs.advance(DirId::ROOT, None), Ok(()));
        assert_eq!(dirs.announce(1, 1), Ok(()));
        for dir in [1, 2] {
            assert_eq!(dirs.advance(DirId(dir), Some(name("a"))), Ok(()));
        }
        // A directory that ends with its first piece never counts as begun.
        assert_eq!(dirs.advance(DirId(4), None), Ok(()));
        assert_eq!(dirs.advance(DirId(3), Some(name("a"))), Err(FlowError::Excess { what: "directories at once" }));
        assert_eq!(book().announce(u64::MAX, 1), Err(FlowError::Excess { what: "directories" }));
    }

    /// What a thread of the model does next.
    #[derive(Debug, Clone)]
    enum Step {
        Announce(u64, usize),
        Advance(prop::sample::Index, bool),
    }

    proptest! {
        /// The book against one that keeps every directory by itself.
        #[test]
        fn runs_are_what_single_directories_would_be(steps in prop::collection::vec(prop_oneof![
            (0..5u64, 0..3usize).prop_map(|(count, depth)| Step::Announce(count, depth)),
            (any::<prop::sample::Index>(), any::<bool>()).prop_map(|(at, last)| Step::Advance(at, last)),
        ], 0..120)) {
            let mut dirs = OpenDirectories::new(40, usize::MAX);
            let mut model: BTreeMap<u64, (usize, Option<Name>)> = BTreeMap::from([(0, (0, None))]);
            let mut next = 1;
            for (number, step) in steps.into_iter().enumerate() {
                match step {
                    Step::Announce(count, depth) => {
                        let fits = model.len() as u64 + count <= 40;
                        prop_assert_eq!(dirs.announce(count, depth).is_ok(), fits);
                        if fits {
                            model.extend((next..next + count).map(|dir| (dir, (depth, None))));
                            next += count;
                        }
                    }
                    Step::Advance(at, last) => {
                        let at = if model.is_empty() { continue } else { at.index(model.len()) };
                        let Some((&dir, _)) = model.iter().nth(at) else { continue };
                        let last_name = (!last).then(|| name(&number.to_string()));
                        dirs.advance(DirId(dir), last_name.clone()).unwrap();
                        if last {
                            model.remove(&dir);
                        } else if let Some(open) = model.get_mut(&dir) {
                            open.1 = last_name;
                        }
                    }
                }
                prop_assert_eq!(dirs.next(), DirId(next));
                prop_assert_eq!(dirs.is_empty(), model.is_empty());
                for dir in 0..next + 1 {
                    let open = dirs.get(DirId(dir)).map(|open| (open.depth, open.last_name.cloned()));
                    prop_assert_eq!(open, model.get(&dir).cloned());
                }
            }
        }
    }
}
