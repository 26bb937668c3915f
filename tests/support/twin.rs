//! The same command given to rsync and to the program under test, in two copies of the same surroundings.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};

use super::Temp;
use super::judge::Judge;
use super::run::{Output, rsync, sync};

/// What came out of a twin run.
pub struct Twin {
    temp: Temp,
    pub ours: Output,
    pub theirs: Output,
}

impl Twin {
    /// Where the program under test worked.
    pub fn dir(&self) -> PathBuf {
        self.temp.join("ours")
    }

    /// Asserts the exit code of both.
    pub fn code(self, code: i32) -> Twin {
        assert!(self.theirs.code() == code, "rsync's code is another\n{}", self.theirs.describe());
        assert!(self.ours.code() == code, "expected {code}\n{}", self.ours.describe());
        self
    }

    /// Asserts equal lines on stdout, in whatever order.
    /// As [`Twin::same_lines`], without lines that hold one of `names`: which name of an inode comes first is each
    /// program's own.
    pub fn same_lines_but(self, names: &[&str]) -> Twin {
        let left = |lines: Vec<String>| -> Vec<String> {
            lines.into_iter().filter(|line| !names.iter().any(|name| line.contains(name))).collect()
        };
        let (ours, theirs) = (left(self.ours.sorted_lines()), left(self.theirs.sorted_lines()));
        assert_eq!(ours, theirs, "lines differ");
        self
    }

    pub fn same_lines(self) -> Twin {
        let (ours, theirs) = (self.ours.sorted_lines(), self.theirs.sorted_lines());
        assert!(ours == theirs, "lines differ\nours:\n{}\nrsync's:\n{}", ours.join("\n"), theirs.join("\n"));
        self
    }
}

/// Builds `fixture` twice, runs both with `args` there, and asserts equal exit codes and equal surroundings.
pub fn same<S: AsRef<OsStr>>(fixture: impl Fn(&Path), args: &[S]) -> Twin {
    same_but(fixture, args, Judge::strict())
}

/// As [`same`], with a judge of one's own.
pub fn same_but<S: AsRef<OsStr>>(fixture: impl Fn(&Path), args: &[S], judge: Judge) -> Twin {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs() as i64;
    let temp = Temp::new();
    let dirs = ["ours", "theirs"].map(|name| temp.join(name));
    for dir in &dirs {
        std::fs::create_dir(dir).unwrap();
        fixture(dir);
    }
    let ours = sync(args).dir(&dirs[0]).run();
    // xfer compares nanoseconds by default, rsync whole seconds.
    let theirs = rsync(["--modify-window=-1"]).args(args).dir(&dirs[1]).run();
    // What makes no sense is refused by both: rsync with 1, here with 2, which means just that.
    let both_refuse = ours.code() == 2 && theirs.code() == 1;
    assert!(
        both_refuse || ours.code() == theirs.code(),
        "codes differ\nours: {}\nrsync: {}",
        ours.describe(),
        theirs.describe()
    );
    let judge = Judge { now_from: Some(now - 1), root: false, ..judge };
    if let Err(text) = judge.check(&dirs[1], &dirs[0]) {
        panic!("surroundings differ (rsync's first):\n{text}\nours: {}\nrsync: {}", ours.describe(), theirs.describe());
    }
    Twin { temp, ours, theirs }
}
