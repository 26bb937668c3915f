//! What each file costs in system calls, counted by strace.

use std::collections::BTreeMap;
use std::process::Command;

use super::*;
use crate::model::Timestamp;

const FILES: usize = 100;

/// The calls that the test `label` makes for each of its [`FILES`] files; what it does only once falls away.
fn calls_of(label: &str) -> BTreeMap<String, usize> {
    let trace = tempfile::NamedTempFile::new().unwrap();
    let output = Command::new("strace")
        .args(["-f", "-qq", "-e", "signal=none", "-o"])
        .arg(trace.path())
        .arg(std::env::current_exe().unwrap())
        .args(["--exact", &format!("fs::tests::costs::{label}"), "--test-threads=1"])
        // Cargo's is long, and the loader looks everywhere on it.
        .env_remove("LD_LIBRARY_PATH")
        .output()
        .unwrap_or_else(|error| panic!("strace: {error}; install it: apt-get install strace"));
    assert!(output.status.success());
    assert!(String::from_utf8_lossy(&output.stdout).contains("1 passed"));
    let trace = std::fs::read_to_string(trace.path()).unwrap();
    let mut calls = BTreeMap::new();
    for line in trace.lines() {
        let call = line.split_whitespace().nth(1).and_then(|call| call.split('(').next()).unwrap_or_default();
        // The standard library checks descriptors that are dropped, in debug builds.
        if call != "fcntl" {
            *calls.entry(call.to_owned()).or_insert(0) += 1;
        }
    }
    calls.retain(|_, count| {
        *count /= FILES;
        *count > 0
    });
    calls
}

fn assert_calls(label: &str, expected: &[(&str, usize)]) {
    let expected = expected.iter().map(|&(call, count)| (call.to_owned(), count)).collect();
    assert_eq!(calls_of(label), expected, "{label}");
}

fn write_small_files(place: &Place, replacing: bool) {
    let mtime = Some(Timestamp::new(1_700_000_000, 1));
    for index in 0..FILES {
        let stage = Stage::create(&place.dir, replacing, 0o644).unwrap();
        write_all_at(stage.file(), b"content", 0).unwrap();
        let change = MetadataChange { uid: Some(7), gid: Some(7), mtime, ..Default::default() };
        assert!(apply(Target::File(stage.file()), Kind::File, &change).is_empty());
        stage.commit(&name(&format!("f{index}"))).unwrap();
    }
}

#[test]
fn new_files() {
    write_small_files(&place_in("/dev/shm"), false);
}

#[test]
fn replaced_files() {
    write_small_files(&place_in("/dev/shm"), true);
}

#[test]
fn files_in_a_staged_directory() {
    let place = place_in("/dev/shm");
    for index in 0..FILES {
        let file = place.dir.create_file(&name(&format!("f{index}")), 0o644).unwrap();
        write_all_at(&file, b"content", 0).unwrap();
        let change = MetadataChange { mtime: Some(Timestamp::new(1_700_000_000, 1)), ..Default::default() };
        assert!(apply(Target::File(&file), Kind::File, &change).is_empty());
    }
}

#[test]
fn read_files() {
    let place = place_in("/dev/shm");
    std::fs::write(place.path("f"), "content").unwrap();
    for _ in 0..FILES {
        let (file, _) = place.dir.open_file_with_metadata(&name("f")).unwrap();
        assert_eq!(read_exact_or_eof_at(&file, &mut [0; 7], 0).unwrap(), 7);
    }
}

#[test]
fn listed_directories() {
    let place = place_in("/dev/shm");
    place.dir.make_dir(&name("d"), 0o700).unwrap();
    let parent = place.dir.open_child(&name("d")).unwrap();
    parent.create_file(&name("f"), 0o600).unwrap();
    for _ in 0..FILES {
        let dir = place.dir.open_child(&name("d")).unwrap();
        let list = dir.list().unwrap();
        dir.stat(&Name::new(list.get(0).0).unwrap()).unwrap();
    }
}

#[test]
fn no_call_is_wasted() {
    // Each file is also removed once, by the test.
    let removal = ("unlinkat", 1);
    let common = [("close", 1), ("fchown", 1), ("openat", 1), ("pwrite64", 1), ("utimensat", 1), removal];
    assert_calls("new_files", &[&common[..], &[("linkat", 1)]].concat());
    // The lock tells a sweeper that the stage is in use.
    assert_calls("replaced_files", &[&common[..], &[("flock", 1), ("renameat", 1)]].concat());
    let staged = [("close", 1), ("openat", 1), ("pwrite64", 1), ("utimensat", 1), removal];
    assert_calls("files_in_a_staged_directory", &staged);
    assert_calls("read_files", &[("close", 1), ("openat", 1), ("pread64", 1), ("statx", 1)]);
    assert_calls("listed_directories", &[("close", 1), ("getdents64", 2), ("lseek", 1), ("openat", 1), ("statx", 1)]);
}
