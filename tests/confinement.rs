//! Directories and files that are flipped into symbolic links while a run works on them: nothing outside of the trees is
//! written, and nothing outside is ever sent.
#![allow(clippy::unwrap_used, reason = "tests")]
#![allow(clippy::print_stderr, reason = "tests talk to whoever runs them")]
#![allow(clippy::disallowed_methods, reason = "tests stand outside the rooms")]

mod support;

use std::fs;
use std::os::unix::fs::{MetadataExt, symlink};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use rustix::fs::{CWD, RenameFlags, renameat_with};
use support::Temp;
use support::disk::{chmod, put, set_mtime, set_xattr, walk, xattrs};
use support::fixture::OLD;
use support::run::{Call, is_rsync, sync};
use support::ssh::{FakeShell, at};

/// Flips in all, of each test.
const FLIPS_MIN: u64 = 50_000;

/// Runs of each test, at least: each of its options several times.
const RUNS_MIN: usize = 60;

/// Content that only the canary has.
const MARKER: &str = "a canary that nobody may carry away";

/// What is flipped, relative to a tree. Nothing below another: the flipper itself would go through its links.
const FLIPPED: [&str; 9] = ["d0", "d1", "d2", "d3/sub", "d4/sub", "d3/f1", "d4/f1", "d5/f2", "d5/sub/f1"];

/// Six directories with files, one with a subdirectory, hard links and attributes in each. `generation` changes what is
/// in some files.
fn fill(root: &Path, text: &str, generation: i64) {
    for dir in 0..6 {
        for (index, below) in ["", "sub/"].into_iter().enumerate() {
            for file in 0..4 {
                let path = root.join(format!("d{dir}/{below}f{file}"));
                let number = if file < 3 { generation } else { 0 };
                put(&path, format!("{text} {dir} {index} {file} {number}").repeat(20), OLD + number);
                set_xattr(&path, "user.number", format!("{number}").as_bytes());
                chmod(&path, if number % 2 == 0 { 0o640 } else { 0o604 });
            }
        }
        let (file, link) = (root.join(format!("d{dir}/f0")), root.join(format!("d{dir}/sub/hard")));
        let _ = fs::remove_file(&link);
        fs::hard_link(file, link).unwrap();
        for below in ["sub", ""] {
            set_mtime(&root.join(format!("d{dir}/{below}")), OLD + generation, 5);
        }
    }
}

/// Everything that can be told of a tree, but for access times.
fn record(root: &Path) -> Vec<String> {
    let mut all = vec![PathBuf::new()];
    all.extend(walk(root));
    let tell = |path: PathBuf| {
        let full = root.join(&path);
        let m = fs::symlink_metadata(&full).unwrap();
        let content = if m.is_file() { fs::read_to_string(&full).unwrap() } else { String::new() };
        let times = (m.mtime(), m.mtime_nsec(), m.ctime(), m.ctime_nsec());
        let owner = (m.mode(), m.uid(), m.gid(), m.nlink(), m.ino(), m.len());
        format!("{path:?} {owner:?} {times:?} {:?} {content}", xattrs(&full).unwrap())
    };
    all.into_iter().map(tell).collect()
}

/// Exchanges names of a tree with links to the same names of the canary, all the time.
struct Flipper<'a> {
    tree: &'a Path,
    canary: &'a Path,
    aside: PathBuf,
    trash: PathBuf,
    flips: &'a AtomicU64,
}

impl Flipper<'_> {
    fn run(&self, stop: &AtomicBool) {
        fs::create_dir_all(&self.aside).unwrap();
        fs::create_dir_all(&self.trash).unwrap();
        let mut discarded = 0_u64;
        while !stop.load(Ordering::Relaxed) {
            for (number, name) in FLIPPED.iter().enumerate() {
                let (there, aside) = (self.tree.join(name), self.aside.join(format!("{number}")));
                if !is_link(&there) && !is_link(&aside) {
                    // The run has taken the link away, or put something else in its place.
                    discarded += 1;
                    let _ = fs::rename(&aside, self.trash.join(format!("{discarded}")));
                    let _ = symlink(self.canary.join(name), &aside);
                }
                if renameat_with(CWD, &there, CWD, &aside, RenameFlags::EXCHANGE).is_ok() {
                    self.flips.fetch_add(1, Ordering::Relaxed);
                } else if fs::symlink_metadata(&there).is_err() && is_link(&aside) {
                    let _ = fs::rename(&aside, &there);
                }
            }
            // Every run finds directories, and links, and what changes in between.
            std::thread::sleep(Duration::from_micros(100));
        }
        // Everything back, so that a last run has the tree as it is.
        for (number, name) in FLIPPED.iter().enumerate() {
            let (there, aside) = (self.tree.join(name), self.aside.join(format!("{number}")));
            if is_link(&there) && !is_link(&aside) {
                let _ = renameat_with(CWD, &there, CWD, &aside, RenameFlags::EXCHANGE);
            }
        }
    }
}

fn is_link(path: &Path) -> bool {
    fs::symlink_metadata(path).is_ok_and(|metadata| metadata.is_symlink())
}

/// Runs `call(number)` beside a flipper of `tree` until there were enough of both; what each run said, and the flips.
fn runs_beside_flips(tree: &Path, canary: &Path, temp: &Temp, mut call: impl FnMut(usize) -> Call) -> (u64, u64) {
    let (flips, stop) = (AtomicU64::new(0), AtomicBool::new(false));
    let flipper = Flipper { tree, canary, aside: temp.join("aside"), trash: temp.join("trash"), flips: &flips };
    let mut disturbed = 0;
    std::thread::scope(|scope| {
        struct StopOnDrop<'a>(&'a AtomicBool);
        impl Drop for StopOnDrop<'_> {
            fn drop(&mut self) {
                self.0.store(true, Ordering::Relaxed);
            }
        }
        let _stop = StopOnDrop(&stop);
        scope.spawn(|| flipper.run(&stop));
        let mut number = 0;
        while number < RUNS_MIN || flips.load(Ordering::Relaxed) < FLIPS_MIN {
            let before = flips.load(Ordering::Relaxed);
            let output = call(number).run();
            let during = flips.load(Ordering::Relaxed) - before;
            assert!(matches!(output.code(), 0 | 23 | 24), "{}", output.describe());
            disturbed += u64::from(output.code() != 0 && during > 0);
            number += 1;
        }
        eprintln!("{number} runs, {disturbed} of them disturbed");
    });
    (flips.into_inner(), disturbed)
}

#[test]
fn nothing_outside_is_touched_by_a_receiver() {
    if is_rsync() {
        return eprintln!("rsync's destination is held by name");
    }
    let temp = Temp::new();
    let (src, dst, canary) = (temp.join("src"), temp.join("dst"), temp.join("canary"));
    fill(&canary, MARKER, 1);
    put(canary.join("d0/extra"), MARKER, OLD);
    fill(&src, "source", 1);
    fs::create_dir(&dst).unwrap();
    let before = record(&canary);
    let shell = FakeShell::new();
    let mut sources = src.clone().into_os_string();
    sources.push("/");
    let bak = format!("--backup-dir={}", temp.join("bak").display());
    let link_dest = format!("--link-dest={}", temp.join("src").display());
    let variants: [&[&str]; 8] = [
        &["-aHAX", "--delete"],
        &["-aK", "--delete"],
        &["-a", "--delete", "--backup", &bak],
        &["-aHAX", "--delete", "--inplace"],
        &["-aK", "--delete", "--backup", "--suffix=~", "--partial-dir=.part"],
        &["-rlt", "--chmod=D700,F600", "--delete", "--force"],
        &["-aXc", "--no-whole-file", "--delete"],
        &["-aHAX", "--delete", &link_dest],
    ];
    let (flips, disturbed) = runs_beside_flips(&dst, &canary, &temp, |number| {
        fill(&src, "source", 2 + number as i64);
        put(dst.join(format!("extraneous{}", number % 3)), "x", OLD);
        let call = sync(variants[number % variants.len()]).args([&sources]);
        if number / variants.len() % 3 == 2 {
            call.args(shell.args()).args([at("host", &dst)])
        } else {
            call.args([&dst])
        }
    });
    assert_eq!(record(&canary), before, "the canary was touched");
    assert!(flips >= FLIPS_MIN);
    assert!(disturbed >= RUNS_MIN as u64 / 4, "the flips came in no one's way: {disturbed}");
    // Left alone, the destination becomes what it should be.
    sync(["-aHAX", "--delete", "--force"]).args([&sources]).args([&dst]).expect(0);
    support::judge::Judge::strict().assert(&src, &dst);
}

#[test]
fn nothing_outside_is_sent() {
    if is_rsync() {
        return eprintln!("rsync's sources are opened by name");
    }
    let temp = Temp::new();
    let (src, canary) = (temp.join("src"), temp.join("canary"));
    fill(&canary, MARKER, 1);
    fill(&src, "source", 1);
    let shell = FakeShell::new();
    let mut seen_files = 0;
    let mut out = Vec::new();
    let (flips, disturbed) = runs_beside_flips(&src, &canary, &temp, |number| {
        let dst = temp.join(format!("out{number}"));
        out.push(dst.clone());
        let options: &[&str] = [&["-aHAX"][..], &["-ac"], &["-rlt", "--no-whole-file"]][number % 3];
        let call = sync(options);
        if number % 4 == 3 {
            let mut far = at("host", &src);
            far.push("/");
            call.args(shell.args()).args([far, dst.into_os_string()])
        } else {
            let mut near = src.clone().into_os_string();
            near.push("/");
            call.args([near, dst.into_os_string()])
        }
    });
    for dst in out {
        for path in walk(&dst) {
            let path = dst.join(path);
            if fs::symlink_metadata(&path).unwrap().is_file() {
                seen_files += 1;
                let content = fs::read(&path).unwrap();
                assert!(!content.windows(MARKER.len()).any(|part| part == MARKER.as_bytes()), "{path:?}");
            }
        }
    }
    assert!(seen_files > 1000, "only {seen_files} files were sent at all");
    assert!(flips >= FLIPS_MIN && disturbed >= RUNS_MIN as u64 / 4, "{flips} flips, {disturbed} runs disturbed");
}
