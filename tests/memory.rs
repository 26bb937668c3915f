//! Memory does not grow with the number of files: peak memory of both ends over very many small ones.
//!
//! `XFER_TEST_LONG=1` takes a million files instead of 200,000.
#![allow(clippy::unwrap_used, reason = "tests")]
#![allow(clippy::print_stderr, reason = "tests talk to whoever runs them")]
#![allow(clippy::disallowed_methods, reason = "tests stand outside the rooms")]

mod support;

use std::collections::BTreeMap;
use std::time::Duration;

use support::run::{binary, family, only_xfer, sync};
use support::ssh::{FakeShell, at};
use support::{Temp, fixture};

/// What a side may use at its peak, whatever the number of files.
const PEAK_KIB_MAX: u64 = 150 * 1024;

#[test]
fn memory_stays_bounded_with_very_many_files() {
    let long = std::env::var_os("XFER_TEST_LONG").is_some();
    let count = if long { 1_000_000 } else { 200_000 };
    let temp = Temp::new();
    let source = temp.join("src");
    fixture::many_files(&source, count);
    // One directory that holds very many by itself.
    let crowd = source.join("crowd");
    std::fs::create_dir(&crowd).unwrap();
    for number in 0..count / 10 {
        std::fs::write(crowd.join(format!("a-rather-long-name-for-a-file-{number:08}")), "").unwrap();
    }
    let mut with_slash = source.clone().into_os_string();
    with_slash.push("/");
    let shell = FakeShell::new();
    // Copying all of it, finding nothing to do, and deleting all of it; each with a far end.
    for pass in ["copy", "idle", "delete"] {
        if pass == "delete" {
            std::fs::remove_dir_all(&source).unwrap();
            std::fs::create_dir(&source).unwrap();
        }
        let call =
            sync(["-a", "--delete"]).args(if support::run::is_rsync() { &[][..] } else { &["--allow-empty-source"] });
        let mut peaks = BTreeMap::new();
        let name = binary().file_name().unwrap().to_string_lossy().into_owned();
        let output = call
            .args(shell.args())
            .args([with_slash.clone(), at("host", &temp.join("dst"))])
            .limit(Duration::from_secs(600))
            .spawn()
            .wait_looking(|id| {
                for process in family(id) {
                    if process.command.contains(&name) && !process.command.starts_with("/bin/sh") {
                        let peak: &mut u64 = peaks.entry(process.id).or_default();
                        *peak = (*peak).max(process.peak_kib);
                    }
                }
            });
        let output = output.expect(0);
        let shown: Vec<String> = peaks.values().map(|kib| format!("{} MiB", kib / 1024)).collect();
        eprintln!("{pass} of {count} files in {:?}: peak {}", output.elapsed, shown.join(", "));
        assert!(peaks.len() >= 2, "both ends should have been seen: {peaks:?}");
        if !only_xfer("bounded memory") {
            assert!(peaks.values().all(|&kib| kib < PEAK_KIB_MAX), "{pass}: {shown:?}");
        }
    }
    let left = std::fs::read_dir(temp.join("dst")).unwrap().count();
    assert_eq!(left, 0);
}
