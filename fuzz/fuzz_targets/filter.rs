//! Filter rules with merge files of all kinds, and the verdicts on a path.
//!
//! The input's first byte holds switches; `ff` bytes part the rest: rules, a path, then merge files, which are found by
//! the names `a`, `b`, `c` ….
#![no_main]

use std::cell::Cell;

use libfuzzer_sys::fuzz_target;
use xfer::limits;
use xfer::model::RelPath;
use xfer::plan::filter::{DirFilter, FilterPlace, FilterRules, Side, Verdict};

/// Merge files that one load may read. Far more than the bound of the rules themselves: this finds what has none.
const READS_MAX: u32 = 100_000;

struct Files<'a> {
    contents: Vec<&'a [u8]>,
    reads: Cell<u32>,
}

impl Files<'_> {
    fn read(&self, name: &[u8]) -> Option<Vec<u8>> {
        self.reads.set(self.reads.get() + 1);
        assert!(self.reads.get() <= READS_MAX, "merge files are read without end");
        let letter = *name.last()?;
        let number = usize::from(letter.checked_sub(b'a')?);
        self.contents.get(number).map(|content| content.to_vec())
    }
}

/// The verdicts on `path` and on the directories that lead to it, on both sides.
fn verdicts(rules: &FilterRules, files: &Files<'_>, switches: u8, path: &RelPath) -> Vec<Option<Verdict>> {
    let mut verdicts = Vec::new();
    for side in [Side::Sender, Side::Receiver] {
        let place = FilterPlace {
            side,
            delete_excluded: switches & 2 != 0,
            root_path: b"/srv/x".to_vec(),
            root_is_above: switches & 4 != 0,
        };
        let mut reader = |_: xfer::plan::filter::MergeDir<'_>, name: &[u8]| Ok(files.read(name));
        files.reads.set(0);
        let Ok(mut filter) = DirFilter::root(rules, &place, &mut reader) else {
            verdicts.push(None);
            continue;
        };
        verdicts.push(filter.xattr_verdict(path.as_bytes()));
        let mut dir = RelPath::root();
        for name in path.components().take(8) {
            files.reads.set(0);
            filter = match filter.enter(&dir, &mut reader) {
                Ok(filter) => filter,
                Err(_) => break,
            };
            assert!(filter.merge_file_names().len() <= limits::FILTER_DIR_MERGES_MAX);
            dir = dir.join(&name);
            for is_dir in [false, true] {
                verdicts.push(Some(filter.verdict(&dir, is_dir)));
                verdicts.push(Some(filter.verdict_in_deleted(&dir, is_dir)));
            }
        }
        assert_eq!(filter.verdict(&RelPath::root(), true), Verdict::Included);
    }
    verdicts
}

fuzz_target!(|data: &[u8]| {
    let Some((&switches, rest)) = data.split_first() else { return };
    let mut parts = rest.split(|&byte| byte == 0xff);
    let text = parts.next().unwrap_or_default();
    let path = RelPath::new(parts.next().unwrap_or_default()).unwrap_or_default();
    let files = Files { contents: parts.take(40).collect(), reads: Cell::new(0) };

    let mut rules = FilterRules::new();
    rules.set_nul_separated(switches & 1 != 0);
    for line in text.split(|&byte| byte == b'\n') {
        files.reads.set(0);
        let mut read = |name: &[u8]| files.read(name).ok_or_else(|| "no such file".to_owned());
        let outcome = match switches >> 3 & 3 {
            0 | 1 => rules.push_filter(line, &mut read),
            2 => rules.push_exclude(line),
            _ => rules.push_include_from(b"file", line),
        };
        if let Err(error) = outcome {
            assert!(!error.to_string().chars().any(|letter| letter.is_control() && letter != '\n'), "{error:?}");
        }
    }
    let first = verdicts(&rules, &files, switches, &path);
    // The far end's reading of the same rules decides the same.
    let json = serde_json::to_string(&rules).expect("rules serialise");
    let read: FilterRules = serde_json::from_str(&json).expect("what was written is read");
    assert_eq!(verdicts(&read, &files, switches, &path), first);
    assert_eq!(verdicts(&rules, &files, switches, &path), first);
});
