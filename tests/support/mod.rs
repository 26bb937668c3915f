//! What all test programs share: random trees, the judge of two trees, runners with time limits, remote shells.
//! Nothing here but `peer` comes from the crate under test: a judge that shares code with the accused proves nothing.
#![allow(dead_code, reason = "every test program uses its own part of this module")]
#![allow(unreachable_pub, reason = "shared by several test programs, exported by none")]
#![allow(clippy::unwrap_used, reason = "what fails in the support must fail its test")]
#![allow(clippy::print_stderr, reason = "tests talk to whoever runs them")]
#![allow(clippy::disallowed_methods, reason = "tests stand outside the rooms: they touch files, clocks and processes")]

pub mod daemon;
pub mod disk;
pub mod fixture;
pub mod judge;
pub mod mount;
pub mod netns;
pub mod options;
pub mod peer;
pub mod rng;
pub mod run;
pub mod sockets;
pub mod ssh;
pub mod strace;
pub mod tree;
pub mod twin;

use std::path::{Path, PathBuf};

/// A directory of this test's own beneath the system's temporary directory; removed at the end unless
/// `XFER_TEST_KEEP` is set.
pub struct Temp(Option<tempfile::TempDir>, PathBuf);

impl Temp {
    /// A fresh, empty one.
    pub fn new() -> Temp {
        let dir = tempfile::Builder::new().prefix("xfer-test-").tempdir().unwrap();
        let path = dir.path().canonicalize().unwrap();
        if std::env::var_os("XFER_TEST_KEEP").is_some() {
            let _ = dir.keep();
            return Temp(None, path);
        }
        Temp(Some(dir), path)
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.1
    }

    /// A path in it.
    pub fn join(&self, tail: impl AsRef<Path>) -> PathBuf {
        self.1.join(tail)
    }
}

/// Fails the test with the command that installs `program` when it is not there.
pub fn need(program: &str, package: &str) {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let found = std::env::split_paths(&path)
        .chain(["/usr/sbin", "/sbin"].map(PathBuf::from))
        .any(|dir| dir.join(program).is_file());
    assert!(found, "this test needs `{program}`: apt-get install -y {package}");
}

/// Fails the test, saying why, when it does not run as root.
pub fn need_root(why: &str) {
    assert!(is_root(), "this test needs root ({why}): sudo -E tools/test");
}

/// Whether the tests run as root.
pub fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

/// A seed to rerun (`XFER_TEST_SEED`), when given.
pub fn chosen_seed() -> Option<u64> {
    std::env::var("XFER_TEST_SEED").ok().map(|text| text.parse().expect("XFER_TEST_SEED is a number"))
}

/// Runs `body(seed)` for `count` seeds on all cores. At the first failures it stops taking seeds and panics with
/// the seeds, each of which `XFER_TEST_SEED` runs again alone.
pub fn for_seeds(first: u64, count: u64, body: impl Fn(u64) -> Result<(), String> + Sync) {
    use std::sync::atomic::{AtomicU64, Ordering};
    if let Some(seed) = chosen_seed() {
        if let Err(text) = body(seed) {
            panic!("seed {seed}: {text}");
        }
        return;
    }
    let next = AtomicU64::new(0);
    let failed = std::sync::Mutex::new(Vec::new());
    let done = AtomicU64::new(0);
    std::thread::scope(|scope| {
        let cores = std::thread::available_parallelism().map_or(2, |n| n.get());
        for _ in 0..cores {
            scope.spawn(|| {
                loop {
                    let number = next.fetch_add(1, Ordering::SeqCst);
                    if number >= count || failed.lock().unwrap().len() >= 3 {
                        return;
                    }
                    let seed = first + number;
                    let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| body(seed)));
                    match outcome {
                        Ok(Ok(())) => {
                            done.fetch_add(1, Ordering::SeqCst);
                        }
                        Ok(Err(text)) => failed.lock().unwrap().push((seed, text)),
                        Err(_) => failed.lock().unwrap().push((seed, "panicked (see above)".into())),
                    }
                }
            });
        }
    });
    let failed = failed.into_inner().unwrap();
    if failed.is_empty() {
        eprintln!("{} seeds from {first} hold", done.into_inner());
        return;
    }
    let mut text = String::new();
    for (seed, why) in &failed {
        text.push_str(&format!("\n--- XFER_TEST_SEED={seed}\n{why}\n"));
    }
    panic!("{} of {} seeds failed:{text}", failed.len(), next.into_inner().min(count));
}
