//! The tests of `anywhere.rs` again, in a process from which strace takes system calls away.

use std::process::Command;

/// Runs those whose names hold `filter` with `injections`, and proves by the trace for each call in them that it was
/// taken away at least once.
fn run_without(filter: &str, injections: &[&str]) {
    let filter = format!("fs::tests::anywhere::{filter}");
    let trace = tempfile::NamedTempFile::new().unwrap();
    let mut strace = Command::new("strace");
    strace.args(["-f", "-qq", "-o"]).arg(trace.path());
    for injection in injections {
        strace.arg("-e").arg(format!("inject={injection}"));
    }
    strace.arg(std::env::current_exe().unwrap()).args([&filter, "--test-threads=1"]);
    let output = strace.output().unwrap_or_else(|error| panic!("strace: {error}; install it: apt-get install strace"));
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(
        output.status.success() && !text.contains(" 0 passed"),
        "{text}{}",
        String::from_utf8_lossy(&output.stderr)
    );
    let trace = std::fs::read_to_string(trace.path()).unwrap();
    for call in injections.iter().flat_map(|injection| injection.split(':').next()).flat_map(|calls| calls.split(',')) {
        let call = format!("{call}(");
        let fired = trace.lines().any(|line| line.contains(&call) && line.contains("(INJECTED)"));
        assert!(fired, "no {call} was taken away");
    }
}

#[test]
fn on_an_old_kernel() {
    run_without("", &["openat2,statx,renameat2,copy_file_range:error=ENOSYS"]);
}

#[test]
fn in_an_old_sandbox() {
    run_without("", &["openat2,statx,copy_file_range:error=EPERM", "ioctl:error=EPERM"]);
}

#[test]
fn on_a_network_file_system() {
    run_without("", &["renameat2:error=EINVAL", "copy_file_range:error=EXDEV", "lseek:error=EINVAL"]);
}

#[test]
fn without_the_right_to_link_a_descriptor() {
    run_without("a_nameless_stage_gets_its_name", &["linkat:error=ENOENT:when=1"]);
}

#[test]
fn interrupted_all_the_time() {
    // The first reads of a process are the loader's.
    let reads = "pread64:error=EINTR:when=9+2";
    run_without("content", &["pwrite64,copy_file_range:error=EINTR:when=1+2", reads]);
}
