//! A big file against its old self over a link: what is read and written for it, and what happens when the old file
//! changes meanwhile. The receiver is the near end, so that its calls can be watched.
#![allow(clippy::unwrap_used, reason = "tests")]
#![allow(clippy::disallowed_methods, reason = "tests stand outside the rooms")]

mod support;

use std::collections::{BTreeMap, HashMap};
use std::fs;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::Path;

use support::disk::{get, leftovers, mtime, set_mtime, there};
use support::fixture::{self, OLD};
use support::judge::Judge;
use support::run::{Call, Output, only_xfer, sync};
use support::ssh::{Sshd, at};
use support::{Temp, need};

const PAGE: usize = 16 << 10;
const SEGMENT: u64 = 512 << 10;
const BIG: usize = 64 << 20;

/// Pulls `src` into `dst`.
fn pull(sshd: &Sshd, temp: &Temp, options: &[&str]) -> Call {
    let far = at("there", Path::new(&format!("{}/src/", temp.path().display())));
    sync(["-a"]).args(options).args(sshd.args()).dir(temp.path()).args([far, "dst".into()])
}

/// Bytes that each call moved from or to files named `big` or staged beneath `dst`, by the call's name.
fn moved(call: Call, temp: &Temp) -> (Output, BTreeMap<String, u64>) {
    need("strace", "strace");
    let log = temp.join("calls");
    let calls = "trace=read,write,pread64,pwrite64,pwritev,writev,copy_file_range,ioctl,sendfile";
    let words = ["strace", "-f", "-y", "-qq", "-e", "signal=none", "-e", calls, "-o", log.to_str().unwrap()];
    let output = call.under(words).expect(0);
    let (mut moved, mut begun) = (BTreeMap::new(), HashMap::new());
    let destination = format!("{}/", temp.join("dst").display());
    for line in String::from_utf8_lossy(&get(&log)).lines() {
        let Some((thread, text)) = line.split_once(char::is_whitespace) else { continue };
        let text = match text.trim_start() {
            unfinished if unfinished.ends_with("<unfinished ...>") => {
                begun.insert(thread.to_owned(), unfinished.to_owned());
                continue;
            }
            resumed if resumed.starts_with("<... ") => begun.remove(thread).unwrap_or_default() + resumed,
            whole => whole.to_owned(),
        };
        let bytes = text.rsplit_once(" = ").and_then(|(_, result)| result.trim().parse::<u64>().ok());
        if let (Some((name, arguments)), Some(bytes)) = (text.split_once('('), bytes)
            && arguments.contains(&destination)
        {
            *moved.entry(name.to_owned()).or_insert(0) += bytes;
        }
    }
    fs::remove_file(log).unwrap();
    (output, moved)
}

/// A big file and an old one that differs from it in every hundredth page; the number of segments with such pages.
fn one_percent(temp: &Temp) -> u64 {
    fixture::big_file(&temp.join("src/big"), BIG, 11);
    fs::create_dir_all(temp.join("dst")).unwrap();
    fs::copy(temp.join("src/big"), temp.join("dst/big")).unwrap();
    let old = fs::OpenOptions::new().write(true).open(temp.join("dst/big")).unwrap();
    let pages: Vec<u64> = (0..BIG as u64 / PAGE as u64).step_by(100).collect();
    for page in &pages {
        old.write_all_at(b"what was there", page * PAGE as u64 + 5).unwrap();
    }
    set_mtime(&temp.join("dst/big"), OLD - 100, 0);
    let segments: std::collections::BTreeSet<u64> = pages.iter().map(|page| page * PAGE as u64 / SEGMENT).collect();
    segments.len() as u64
}

#[test]
fn a_hundredth_changed_costs_a_hundredth_of_the_writes() {
    if only_xfer("so few bytes") {
        return;
    }
    let sshd = Sshd::start();
    for transport in ["shell", "direct"] {
        for in_place in [true, false] {
            let temp = Temp::new();
            let differing_bytes = one_percent(&temp) * SEGMENT;
            let inode = fs::metadata(temp.join("dst/big")).unwrap().ino();
            let mut options = vec!["--stats", "--transport", transport];
            options.extend(in_place.then_some("--inplace"));
            let (output, moved) = moved(pull(&sshd, &temp, &options), &temp);
            let bytes = |call: &str| moved.get(call).copied().unwrap_or(0);
            let what = format!("{options:?} {moved:?} {}", output.describe());
            Judge::strict().assert(&temp.join("src"), &temp.join("dst"));
            assert_eq!(leftovers(&temp.join("dst")), Vec::<std::path::PathBuf>::new());
            let big = BIG as u64;
            // Once to describe it, what differs once more, and what is written over to compare.
            assert!(bytes("pread64") >= big && bytes("pread64") <= big + differing_bytes + big / 50, "{what}");
            if in_place {
                assert!(bytes("pwrite64") > 0 && bytes("pwrite64") * 1000 <= big * 22, "{what}");
                assert_eq!(bytes("copy_file_range"), 0, "{what}");
            } else {
                assert_eq!(bytes("pwrite64"), differing_bytes, "{what}");
                assert_eq!(bytes("copy_file_range"), big - differing_bytes, "{what}");
            }
            assert_eq!(bytes("write") + bytes("writev") + bytes("sendfile"), 0, "{what}");
            assert_eq!(fs::metadata(temp.join("dst/big")).unwrap().ino() == inode, in_place);
            let count = |label: &str| {
                let text = output.out();
                let line = text.lines().find(|line| line.starts_with(label)).map(str::to_owned).unwrap_or_default();
                line.chars().filter(char::is_ascii_digit).collect::<String>().parse::<u64>().unwrap()
            };
            assert_eq!(count("Matched data") + count("Literal data"), big, "{what}");
            assert!(count("Literal data") * 1000 <= big * 22, "{what}");
        }
    }
}

#[test]
fn equal_content_under_another_time_moves_nothing() {
    if only_xfer("no new inode") {
        return;
    }
    let sshd = Sshd::start();
    for transport in ["shell", "direct"] {
        for options in [&[][..], &["--inplace"], &["--partial"], &["-S"]] {
            let temp = Temp::new();
            fixture::big_file(&temp.join("src/big"), 8 << 20, 12);
            // Zeros, a hole, and a short last segment are equal too.
            let source = fs::OpenOptions::new().write(true).open(temp.join("src/big")).unwrap();
            source.write_all_at(&vec![0; 3 << 20], 1 << 20).unwrap();
            source.set_len((8 << 20) + 777).unwrap();
            set_mtime(&temp.join("src/big"), OLD, 5);
            fs::create_dir_all(temp.join("dst")).unwrap();
            fs::copy(temp.join("src/big"), temp.join("dst/big")).unwrap();
            set_mtime(&temp.join("dst/big"), OLD - 7, 0);
            let before = fs::metadata(temp.join("dst/big")).unwrap();
            let words: Vec<&str> = ["--stats", "--transport", transport].iter().chain(options).copied().collect();
            let (output, moved) = moved(pull(&sshd, &temp, &words), &temp);
            let what = format!("{words:?} {moved:?} {}", output.describe());
            Judge::strict().assert(&temp.join("src"), &temp.join("dst"));
            assert_eq!(moved.get("pread64"), Some(&before.len()), "{what}");
            assert_eq!(moved.iter().filter(|(call, bytes)| *call != "pread64" && **bytes > 0).count(), 0, "{what}");
            assert_eq!(fs::metadata(temp.join("dst/big")).unwrap().ino(), before.ino(), "{what}");
            assert_eq!(mtime(&temp.join("dst/big")), (OLD, 5));
            assert!(output.out().contains("Number of regular files transferred: 0"), "{what}");
        }
    }
}

/// What was cut off, or grew, at a segment's edge: all segments that come are equal, the file is not.
#[test]
fn another_length_is_seen_where_all_segments_are_equal() {
    let sshd = Sshd::start();
    for options in [&[][..], &["--inplace"], &["-S"], &["--partial"]] {
        let temp = Temp::new();
        fixture::big_file(&temp.join("src/big"), 4 << 20, 13);
        fs::create_dir_all(temp.join("dst")).unwrap();
        fs::copy(temp.join("src/big"), temp.join("dst/big")).unwrap();
        fs::OpenOptions::new().append(true).open(temp.join("dst/big")).unwrap().set_len(5 << 20).unwrap();
        set_mtime(&temp.join("dst/big"), OLD - 7, 0);
        pull(&sshd, &temp, options).expect(0);
        Judge::strict().assert(&temp.join("src"), &temp.join("dst"));
        let source = fs::OpenOptions::new().write(true).open(temp.join("src/big")).unwrap();
        source.set_len(6 << 20).unwrap();
        set_mtime(&temp.join("src/big"), OLD + 50, 0);
        pull(&sshd, &temp, options).expect(0);
        Judge::strict().assert(&temp.join("src"), &temp.join("dst"));
    }
}

/// Someone writes into the old file after it was described: nothing of that may come into the new one.
#[test]
fn a_basis_that_changes_meanwhile_is_not_taken_over() {
    if only_xfer("notices a changing basis") {
        return;
    }
    let sshd = Sshd::start();
    for transport in ["shell", "direct"] {
        for options in [&[][..], &["--inplace"]] {
            let temp = Temp::new();
            // Equal at both ends, new in the middle: while that comes, the rest is described already.
            fixture::big_file(&temp.join("src/big"), 12 << 20, 14);
            fs::create_dir_all(temp.join("dst")).unwrap();
            fs::copy(temp.join("src/big"), temp.join("dst/big")).unwrap();
            let old = fs::OpenOptions::new().write(true).open(temp.join("dst/big")).unwrap();
            fixture::big_file(&temp.join("other"), 6 << 20, 15);
            let other = get(temp.join("other"));
            old.write_all_at(&other, 3 << 20).unwrap();
            set_mtime(&temp.join("dst/big"), OLD - 7, 0);
            let mut words = vec!["-v", "--transport", transport, "--bwlimit=4M"];
            words.extend(options);
            let mut running = pull(&sshd, &temp, &words).spawn();
            let in_place = !options.is_empty();
            running.until("something that is written", || match in_place {
                true => mtime(&temp.join("dst/big")).0 != OLD - 7,
                false => !leftovers(&temp.join("dst")).is_empty(),
            });
            // Both in what is taken over already, and in what will be.
            old.write_all_at(b"from elsewhere", 1 << 20).unwrap();
            old.write_all_at(b"from elsewhere", 11 << 20).unwrap();
            let output = running.wait().expect(0);
            let what = format!("{words:?} {}", output.describe());
            assert!(get(temp.join("src/big")) == get(temp.join("dst/big")), "{what}");
            Judge::strict().assert(&temp.join("src"), &temp.join("dst"));
            assert!(
                output.err().contains("the old file changed") || output.out().contains("the old file changed"),
                "{what}"
            );
            assert_eq!(leftovers(&temp.join("dst")), Vec::<std::path::PathBuf>::new());
        }
    }
}

/// A run that is stopped midway keeps a part that holds what is equal, too.
#[test]
fn a_part_holds_what_was_taken_over() {
    if only_xfer("parts under hidden names") {
        return;
    }
    let sshd = Sshd::start();
    let temp = Temp::new();
    fixture::big_file(&temp.join("src/big"), 12 << 20, 16);
    fs::create_dir_all(temp.join("dst")).unwrap();
    fs::copy(temp.join("src/big"), temp.join("dst/big")).unwrap();
    fixture::big_file(&temp.join("other"), 6 << 20, 17);
    let old = fs::OpenOptions::new().write(true).open(temp.join("dst/big")).unwrap();
    old.write_all_at(&get(temp.join("other")), 3 << 20).unwrap();
    set_mtime(&temp.join("dst/big"), OLD - 7, 0);
    let mut running = pull(&sshd, &temp, &["--partial", "--bwlimit=2M"]).spawn();
    running.until("something that is written", || !leftovers(&temp.join("dst")).is_empty());
    running.signal(rustix::process::Signal::INT);
    let output = running.wait();
    assert_ne!(output.code(), 0, "{}", output.describe());
    let part = temp.join("dst/.xfer-partial.big");
    assert!(there(&part), "{}", output.describe());
    let (part, new) = (get(&part), get(temp.join("src/big")));
    assert!(part.len() >= 3 << 20 && part[..3 << 20] == new[..3 << 20]);
    pull(&sshd, &temp, &["--partial", "--delete"]).expect(0);
    Judge::strict().assert(&temp.join("src"), &temp.join("dst"));
    assert!(!there(temp.join("dst/.xfer-partial.big")));
}
